// The table of videos. The 100 most watched of the range are fetched and sorted here, so that "worst rebuffering"
// means the worst among what people watch, not a video with a single play.
import { useMemo, useState } from "preact/hooks";
import { type Loaded, useDimensionLabel, useMetric, useQuery } from "../lib/data";
import { text } from "../lib/format";
import { bodyOf, numberOf } from "../lib/query";
import { rangeOf } from "../lib/range";
import type { Place, Scope } from "../lib/scope";
import type { QueryAnswer } from "../lib/types";
import { Card, Empty, Skeleton } from "./card";
import { ErrorNote } from "./errors";
import { type Go, PlaceLink } from "./nav";

const COLUMNS = ["plays", "watch_time_ms", "rebuffer_ratio", "qoe_score"];
const NOW = "concurrent_viewers";
const FETCHED = 100;
const SHOWN = 10;

interface VideoRow {
  id: string;
  values: Map<string, number | null>;
}

function useVideos(scope: Scope, place: Place): { top: Loaded<QueryAnswer>; rows: VideoRow[] } {
  const live = place.range === "live";
  const refreshMs = rangeOf(place.range, 0).refreshMs;
  const ask = (metrics: string[], by: string) => () =>
    bodyOf({
      scope,
      interval: rangeOf(place.range, Date.now()),
      granularity: "total",
      metrics,
      dimensions: ["video_id"],
      orderBy: [by, "desc"],
      limit: FETCHED,
    });
  const key = JSON.stringify([scope, place.range]);
  const top = useQuery(`videos${key}`, ask(COLUMNS, "watch_time_ms"), refreshMs);
  const now = useQuery(live ? `now${key}` : null, ask([NOW], NOW), refreshMs);
  const rows = useMemo(() => {
    const viewers = new Map((now.data?.rows ?? []).map((row) => [String(row.video_id), numberOf(row, NOW)]));
    return (top.data?.rows ?? []).map((row) => {
      const id = String(row.video_id);
      const values = new Map(COLUMNS.map((name) => [name, numberOf(row, name)]));
      values.set(NOW, viewers.get(id) ?? (now.data ? 0 : null));
      return { id, values };
    });
  }, [top.data, now.data]);
  return { top, rows };
}

export function VideosCard({ scope, place, go, note }: { scope: Scope; place: Place; go: Go; note: string }) {
  const columns = place.range === "live" ? [NOW, ...COLUMNS] : COLUMNS;
  const { top, rows } = useVideos(scope, place);
  const label = useDimensionLabel("video_id");
  const [sort, setSort] = useState<[string, 1 | -1]>(["watch_time_ms", -1]);
  const [all, setAll] = useState(false);
  const [by, way] = columns.includes(sort[0]) ? sort : (["watch_time_ms", -1] as const);
  const sorted = [...rows].sort((a, b) => compare(a.values.get(by), b.values.get(by), way));
  const shown = all ? sorted : sorted.slice(0, SHOWN);
  return (
    <Card title="Top videos" note={note} class="videos">
      {top.error && <ErrorNote error={top.error} kept={top.data !== null} />}
      {!top.data && !top.error && <Skeleton lines={8} />}
      {top.data && rows.length === 0 && <Empty>Nothing was watched in this range.</Empty>}
      {rows.length > 0 && (
        <table class={`columns-${columns.length}`}>
          <thead>
            <tr>
              <th scope="col">{label}</th>
              {columns.map((name) => (
                <ColumnHead key={name} name={name} sort={[by, way]} onSort={setSort} />
              ))}
            </tr>
          </thead>
          <tbody>
            {shown.map((row) => (
              <tr key={row.id}>
                <th scope="row">
                  <PlaceLink to={{ ...place, video: row.id }} go={go} title={row.id}>
                    {row.id}
                  </PlaceLink>
                </th>
                {columns.map((name) => (
                  <Cell key={name} name={name} value={row.values.get(name)} />
                ))}
              </tr>
            ))}
          </tbody>
        </table>
      )}
      {rows.length > SHOWN && (
        <button type="button" class="quiet" onClick={() => setAll(!all)}>
          {all ? `Show ${SHOWN}` : `Show all ${rows.length}`}
        </button>
      )}
    </Card>
  );
}

/** Unknown values go last, whichever way the rest is sorted. */
function compare(a: number | null | undefined, b: number | null | undefined, way: 1 | -1): number {
  if (a == null || b == null) return (a == null ? 1 : 0) - (b == null ? 1 : 0);
  return (a - b) * way;
}

interface HeadProps {
  name: string;
  sort: readonly [string, 1 | -1];
  onSort: (sort: [string, 1 | -1]) => void;
}

function ColumnHead({ name, sort: [by, way], onSort }: HeadProps) {
  const metric = useMetric(name);
  const active = by === name;
  const order = way === 1 ? "ascending" : "descending";
  return (
    <th scope="col" aria-sort={active ? order : "none"} title={metric.doc}>
      <button type="button" onClick={() => onSort([name, active && way === -1 ? 1 : -1])}>
        {metric.label}
        {active && (
          <span class="arrow" aria-hidden="true">
            {way === 1 ? "↑" : "↓"}
          </span>
        )}
      </button>
    </th>
  );
}

function Cell({ name, value }: { name: string; value: number | null | undefined }) {
  const metric = useMetric(name);
  return <td data-label={metric.label}>{text(value, metric.unit)}</td>;
}
