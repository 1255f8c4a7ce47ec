// The past: figures of a range, each of which can be put on the chart, against the same length before.
import { useContext, useState } from "preact/hooks";
import { askMerged, CatalogueContext, type Loaded, type Merged, useLoaded, useMetric } from "../lib/data";
import { delta, text } from "../lib/format";
import { numberOf, seriesOf } from "../lib/query";
import { type Range, rangeOf } from "../lib/range";
import type { Place, RangeName, Scope } from "../lib/scope";
import type { Metric, Row } from "../lib/types";
import { DimensionCard } from "../parts/audience";
import { BigNumber, Skeleton } from "../parts/card";
import { Chart } from "../parts/chart";
import { ErrorNote } from "../parts/errors";
import { type Go, rangeTitle } from "../parts/nav";
import { BitrateCard, QoeCard } from "../parts/quality";
import { RetentionCard } from "../parts/retention";
import { VideosCard } from "../parts/videos";

const FIGURES = [
  "peak_concurrent_viewers",
  "plays",
  "watch_time_ms",
  "rebuffer_ratio",
  "unique_viewers",
  "average_watch_duration_ms",
  "startup_time_avg_ms",
  "engagement_rate",
  "watch_duration_p50_ms",
  "watch_duration_p95_ms",
  "average_percentage_watched",
  "completion_rate",
];
const CAUSES = ["startup", "smoothness", "playback"];
const ALSO = [
  "qoe_score",
  ...CAUSES.map((cause) => `qoe_lost_${cause}`),
  "average_bitrate_kbps",
  "bitrate_distribution",
];
const CLOSED = "Known when a view has ended and its hour is closed, about ten minutes after it is over";
const ZONE = Intl.DateTimeFormat().resolvedOptions().timeZone;

interface Props {
  scope: Scope;
  place: Place;
  go: Go;
  range: Exclude<RangeName, "live">;
}

export function HistoryPage({ scope, place, go, range: name }: Props) {
  const [chosen, setChosen] = useState("plays");
  const totals = useMergedTotals(scope, name, FIGURES.concat(ALSO), "whole");
  const closed = useMergedTotals(scope, name, FIGURES, "closed");
  const before = useMergedTotals(scope, name, FIGURES, "before");
  // Against a time of which history holds a part only, everything has grown by hundreds of per cent.
  const early = useMergedTotals(scope, name, ["plays"], "early");
  const comparable = (numberOf(early.data?.rows[0], "plays") ?? 0) > 0;
  const row = totals.data?.rows[0];
  const note = rangeTitle(name).toLowerCase();
  return (
    <div class="grid">
      {totals.error && <ErrorNote error={totals.error} kept={totals.data !== null} />}
      <section class="card overview" aria-label={rangeTitle(name)}>
        <div class="figures">
          {FIGURES.map((metric) => (
            <FigureButton
              key={metric}
              name={metric}
              totals={totals}
              closed={closed.data?.rows[0]}
              before={comparable ? before.data?.rows[0] : undefined}
              pressed={metric === chosen}
              onPress={() => setChosen(metric)}
            />
          ))}
        </div>
        <SeriesChart scope={scope} name={name} metricName={chosen} onChoose={setChosen} />
      </section>
      {(row || !totals.error) && (
        <>
          <QoeCard
            score={numberOf(row, "qoe_score")}
            lost={pointsLost(row)}
            note={note}
            known={row !== undefined}
          />
          <BitrateCard
            distribution={row?.bitrate_distribution}
            average={numberOf(row, "average_bitrate_kbps")}
            note={note}
            known={row !== undefined}
          />
        </>
      )}
      {scope.video ? (
        <RetentionCard scope={scope} range={name} />
      ) : (
        <VideosCard scope={scope} place={place} go={go} note={note} />
      )}
      {["country", "device_type", "os", "browser"].map((dimension) => (
        <DimensionCard key={dimension} dimension={dimension} metric="plays" scope={scope} range={name} />
      ))}
    </div>
  );
}

function useMergedTotals(
  scope: Scope,
  name: RangeName,
  metrics: string[],
  part: "whole" | "closed" | "before" | "early",
) {
  const catalogue = useContext(CatalogueContext);
  return useLoaded(
    JSON.stringify(["totals", scope, name, part]),
    (signal) => {
      const range = rangeOf(name, Date.now());
      const interval = part === "whole" ? range : range[part];
      return askMerged({ scope, interval, granularity: "total", metrics, timeZone: ZONE }, catalogue, signal);
    },
    rangeOf(name, 0).refreshMs,
  );
}

function pointsLost(row: Row | undefined): Record<string, number> | null {
  const lost = CAUSES.map((cause) => [cause, numberOf(row, `qoe_lost_${cause}`)] as const);
  return lost.some(([, points]) => points === null)
    ? null
    : (Object.fromEntries(lost) as Record<string, number>);
}

interface FigureProps {
  name: string;
  totals: Loaded<Merged>;
  closed: Row | undefined;
  before: Row | undefined;
  pressed: boolean;
  onPress: () => void;
}

function FigureButton({ name, totals, closed, before, pressed, onPress }: FigureProps) {
  const metric = useMetric(name);
  const refused = totals.data?.refused.get(name);
  const error = totals.data?.meta.approximate?.[name]?.relative_standard_error ?? metric.error;
  const value = numberOf(totals.data?.rows[0], name);
  const change = delta(numberOf(closed, name), numberOf(before, name), metric.better);
  return (
    <button
      type="button"
      class="figure"
      aria-pressed={pressed}
      onClick={onPress}
      title={refused?.detail || metric.doc}
    >
      <span class="label">{metric.label}</span>
      <BigNumber value={value} unit={metric.unit} />
      <span class="sub">
        {refused && "not covered here"}
        {metric.batch_only && !refused && <span title={CLOSED}>closed hours</span>}
        {change && (
          <span class={`delta ${change.mood}`} title="Complete hours or days, against the same length before">
            <span aria-hidden="true">
              {change.direction === "up" ? "▲" : change.direction === "down" ? "▼" : ""}
            </span>
            <span class="sr-only">{change.direction} </span> {change.text}
          </span>
        )}
        {error !== null && value !== null && value > 0 && (
          <span class="approximate">± {text(error, "ratio")}</span>
        )}
      </span>
    </button>
  );
}

interface SeriesProps {
  scope: Scope;
  name: RangeName;
  metricName: string;
  onChoose: (name: string) => void;
}

function SeriesChart({ scope, name, metricName, onChoose }: SeriesProps) {
  const catalogue = useContext(CatalogueContext);
  const metric = useMetric(metricName);
  const range = rangeOf(name, Date.now());
  const answer = useLoaded(
    JSON.stringify(["series", scope, name, metricName]),
    (signal) => {
      const interval = rangeOf(name, Date.now());
      const { granularity } = interval;
      return askMerged(
        { scope, interval, granularity, metrics: [metricName], timeZone: ZONE },
        catalogue,
        signal,
      );
    },
    range.refreshMs,
  );
  const refused = answer.data?.refused.get(metricName);
  const failure = answer.error ?? refused;
  return (
    <div class="series">
      <div class="series-head">
        <h2 class="sr-only">{metric.label}</h2>
        <p class="caption" title={metric.formula}>
          {metric.doc}
        </p>
        <MetricSelect value={metricName} onChoose={onChoose} />
      </div>
      {failure && <ErrorNote error={failure} kept={answer.error !== null && answer.data !== null} />}
      {!answer.data && !answer.error && <Skeleton lines={6} />}
      {answer.data && !refused && <Drawn answer={answer.data} metric={metric} range={range} />}
      <Provenance meta={answer.data?.meta} />
    </div>
  );
}

function Drawn({ answer, metric, range }: { answer: Merged; metric: Metric; range: Range }) {
  const series = seriesOf(answer.rows, metric.name, Date.now());
  return (
    <Chart
      {...series}
      from={range.start / 1000}
      to={range.end / 1000}
      bucketMs={range.bucketMs}
      bars={metric.kind === "additive"}
      unit={metric.unit}
      label={metric.label}
      height={280}
    />
  );
}

/** Every metric of the catalogue that is one number in a bucket. */
function MetricSelect({ value, onChoose }: { value: string; onChoose: (name: string) => void }) {
  const { metrics } = useContext(CatalogueContext);
  const scalar = [...metrics.values()].filter((metric) => !/histogram|curve/.test(metric.kind));
  return (
    <select
      aria-label="Metric on the chart"
      value={value}
      onChange={(event) => onChoose(event.currentTarget.value)}
    >
      {scalar.map((metric) => (
        <option key={metric.name} value={metric.name}>
          {metric.label}
        </option>
      ))}
    </select>
  );
}

const LAYERS: Record<string, string> = {
  speed: "live figures",
  batch: "exact closed hours",
  archive: "raw events",
};
const clock = new Intl.DateTimeFormat("en", { dateStyle: "medium", timeStyle: "medium", hourCycle: "h23" });

/** Up to when everything is in, and in whose days, where that is not the reader's zone (finer tiers are gone by then). */
function Provenance({ meta }: { meta: Merged["meta"] | undefined }) {
  const watermark = Date.parse(meta?.watermark ?? "");
  const foreign = meta?.time_zone && meta.time_zone !== ZONE;
  const closed = Date.parse(meta?.closed_until ?? "");
  const layers = (meta?.sources ?? []).map((source) => LAYERS[source] ?? source);
  return (
    <p class="caption">
      {!Number.isNaN(watermark) && `Everything received up to ${clock.format(watermark)} is in. `}
      {!Number.isNaN(closed) && `This figure is known up to ${clock.format(closed)}. `}
      {layers.length > 0 && `From ${layers.join(" and ")}. `}
      {foreign && `Days are those of ${meta.time_zone}.`}
    </p>
  );
}
