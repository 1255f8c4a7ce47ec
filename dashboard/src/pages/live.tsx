// Now: the realtime object as it streams in, over the last hour from the query API.
import { useContext, useMemo } from "preact/hooks";
import { askMerged, CatalogueContext, useDimensionLabel, useLoaded, useMetric, useQuery } from "../lib/data";
import { text, valueName } from "../lib/format";
import { bodyOf, numberOf, type Series, seriesOf } from "../lib/query";
import { rangeOf } from "../lib/range";
import type { Place, Scope } from "../lib/scope";
import type { StreamState } from "../lib/stream";
import type { Realtime, Row } from "../lib/types";
import { DimensionCard } from "../parts/audience";
import { BarList } from "../parts/barlist";
import { BigNumber, Card, MetricCard } from "../parts/card";
import { Chart } from "../parts/chart";
import { ErrorNote } from "../parts/errors";
import type { Go } from "../parts/nav";
import { Onboarding } from "../parts/onboarding";
import { BitrateCard, QoeCard } from "../parts/quality";
import { RetentionCard } from "../parts/retention";
import { VideosCard } from "../parts/videos";

const TILES = [
  "average_watch_duration_ms",
  "rebuffer_ratio",
  "startup_time_avg_ms",
  "average_bitrate_kbps",
] as const;
const MINUTE_MS = 60_000;
const ROLLING = "last 5 min";

interface Props {
  scope: Scope;
  place: Place;
  go: Go;
  live: StreamState;
}

export function LivePage({ scope, place, go, live }: Props) {
  const now = live.data;
  const hour = useLastHour(scope);
  const rows = hour.data?.rows ?? [];
  const trusted = live.phase === "live" || now === null;
  if (useNothingYet(scope, now)) return <Onboarding />;
  return (
    <div class={`grid ${trusted ? "" : "stale"}`}>
      {hour.error && <ErrorNote error={hour.error} kept={hour.data !== null} />}
      <ViewersCard now={now} rows={rows} />
      <PlaysCard now={now} />
      {TILES.map((name) => (
        <MetricCard
          key={name}
          name={name}
          value={now?.[name]}
          trend={rows.map((row) => numberOf(row, name))}
        />
      ))}
      <QoeCard
        score={now?.qoe_score ?? null}
        lost={now?.points_lost ?? null}
        note={ROLLING}
        known={now !== null}
      />
      <BitrateCard
        distribution={now?.bitrate_distribution}
        average={now?.average_bitrate_kbps ?? null}
        note={ROLLING}
        known={now !== null}
      />
      {scope.video ? (
        <RetentionCard scope={scope} range="live" />
      ) : (
        <VideosCard scope={scope} place={place} go={go} note="last 60 min" />
      )}
      <CountriesNow now={now} />
      {["device_type", "os", "browser"].map((dimension) => (
        <DimensionCard
          key={dimension}
          dimension={dimension}
          metric="plays"
          scope={scope}
          range="live"
          note="last 60 min"
        />
      ))}
    </div>
  );
}

function useLastHour(scope: Scope) {
  const catalogue = useContext(CatalogueContext);
  return useLoaded(
    JSON.stringify(["hour", scope]),
    (signal) => {
      const interval = rangeOf("live", Date.now());
      const metrics = ["concurrent_viewers", "peak_concurrent_viewers", ...TILES];
      return askMerged({ scope, interval, granularity: "minute", metrics }, catalogue, signal);
    },
    rangeOf("live", 0).refreshMs,
  );
}

/** True when nothing was ever played as far as 30 days tell, and nobody is there now either. */
function useNothingYet(scope: Scope, now: Realtime | null): boolean {
  const quiet =
    now?.concurrent_viewers === 0 && now.plays_last_5m === 0 && now.plays_per_minute.every((n) => n === 0);
  const month = useQuery(
    quiet && !scope.video ? JSON.stringify(["ever", scope]) : null,
    () => bodyOf({ scope, interval: rangeOf("30d", Date.now()), granularity: "total", metrics: ["plays"] }),
    MINUTE_MS,
  );
  return quiet && !scope.video && month.data !== null && !numberOf(month.data.rows[0], "plays");
}

/** The minutes from the query API, with the streamed value as the newest point. */
function withNow(series: Series, now: Realtime | null): Series {
  if (now === null) return series;
  const at = Date.parse(now.as_of) / 1000;
  const known = series.times.filter((time) => time < at - 30).length;
  return {
    times: [...series.times.slice(0, known), at],
    values: [...series.values.slice(0, known), now.concurrent_viewers],
  };
}

function ViewersCard({ now, rows }: { now: Realtime | null; rows: Row[] }) {
  const metric = useMetric("concurrent_viewers");
  const views = useMetric("concurrent_views");
  const peak = useMetric("peak_concurrent_viewers");
  const series = useMemo(() => {
    const minutes = seriesOf(rows, metric.name, Date.now());
    // A bucket's value is its last sample: draw it where it was taken, at the bucket's end.
    return withNow({ ...minutes, times: minutes.times.map((time) => time + 60) }, now);
  }, [rows, now, metric.name]);
  const to = now ? Date.parse(now.as_of) / 1000 : Date.now() / 1000;
  const peaks = rows.map((row) => numberOf(row, peak.name));
  const high = Math.max(0, ...[...series.values, ...peaks].filter((value) => value !== null));
  return (
    <Card title={metric.label} hint={metric.doc} note="last 60 min" class="hero">
      <div class="hero-figures">
        <BigNumber value={now?.concurrent_viewers} unit={metric.unit} />
        <dl>
          <dt>{views.label}</dt>
          <dd>{text(now?.concurrent_views, metric.unit)}</dd>
          <dt>{peak.label}</dt>
          <dd>{text(now ? high : null, metric.unit)}</dd>
        </dl>
      </div>
      <Chart
        {...series}
        from={Math.max(to - 3600, series.times[0] ?? 0)}
        to={to}
        bucketMs={0}
        bars={false}
        unit={metric.unit}
        label={metric.label}
        height={190}
      />
    </Card>
  );
}

function PlaysCard({ now }: { now: Realtime | null }) {
  const metric = useMetric("plays");
  const perMinute = now?.plays_per_minute;
  // The array changes once a minute; the object that carries it, every second.
  const key = perMinute?.join();
  const minute = Math.floor((now ? Date.parse(now.as_of) : Date.now()) / MINUTE_MS) * 60;
  const series = useMemo(() => {
    const values = perMinute ?? [];
    return { times: values.map((_, index) => minute - (values.length - index) * 60), values };
  }, [key, minute]);
  return (
    <Card title={metric.label} hint={metric.doc} note="last 5 min, and by the minute" class="plays">
      <BigNumber value={now?.plays_last_5m} unit={metric.unit} />
      <Chart
        {...series}
        from={minute - 3600}
        to={minute}
        bucketMs={MINUTE_MS}
        bars={true}
        unit={metric.unit}
        label={`${metric.label} per minute`}
        height={190}
      />
    </Card>
  );
}

function CountriesNow({ now }: { now: Realtime | null }) {
  const metric = useMetric("concurrent_viewers");
  const label = useDimensionLabel("country");
  const items = Object.entries(now?.countries ?? {}).map(([code, value]) => ({
    key: code,
    name: valueName("country", code),
    value,
  }));
  return (
    <Card title={label} note={metric.label} class="audience">
      <BarList items={items} unit={metric.unit} />
    </Card>
  );
}
