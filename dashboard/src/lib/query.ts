// Builds the bodies of POST /api/v1/analytics/query and reads its rows. Pure.
import type { Interval } from "./range";
import type { Scope } from "./scope";
import type { Granularity, Metric, QueryBody, Row } from "./types";

export interface Ask {
  scope: Scope;
  interval: Interval;
  granularity: Granularity;
  metrics: string[];
  dimensions?: string[];
  orderBy?: [string, "asc" | "desc"];
  limit?: number;
  timeZone?: string;
}

export function bodyOf(ask: Ask): QueryBody {
  const body: QueryBody = {
    time_range: { start: stamp(ask.interval.start), end: stamp(ask.interval.end) },
    granularity: ask.granularity,
    metrics: ask.metrics,
  };
  if (ask.scope.channel) body.channel_id = ask.scope.channel;
  if (ask.scope.video) body.video_id = ask.scope.video;
  if (ask.timeZone) body.time_zone = ask.timeZone;
  if (ask.dimensions?.length) body.dimensions = ask.dimensions;
  if (ask.orderBy) body.order_by = [ask.orderBy];
  if (ask.limit) body.limit = ask.limit;
  return body;
}

function stamp(at: number): string {
  return new Date(at).toISOString().replace(".000Z", "Z");
}

/**
 * Metrics that may be asked together. Gauges and sketches live in fewer rollups than sums do: asked apart,
 * a refusal (422 not_covered) costs its own figure and not its neighbours'.
 */
export function askGroups(names: string[], catalogue: Map<string, Metric>): string[][] {
  const groups = new Map<string, string[]>();
  for (const name of names) {
    const metric = catalogue.get(name);
    if (!metric) continue;
    const lonely = /gauge|sketch|exact|batch|curve/.test(metric.kind);
    const key = lonely ? metric.kind : "sums";
    groups.set(key, [...(groups.get(key) ?? []), name]);
  }
  return [...groups.values()];
}

export function numberOf(row: Row | undefined, name: string): number | null {
  const value = row?.[name];
  return typeof value === "number" && Number.isFinite(value) ? value : null;
}

export interface Series {
  times: number[];
  values: (number | null)[];
}

/** One metric of a time series; buckets that have not begun yet are left out. */
export function seriesOf(rows: Row[], name: string, now: number): Series {
  const times: number[] = [];
  const values: (number | null)[] = [];
  for (const row of rows) {
    const at = typeof row.time === "string" ? Date.parse(row.time) : Number.NaN;
    if (Number.isNaN(at) || at > now) continue;
    times.push(at / 1000);
    values.push(numberOf(row, name));
  }
  return { times, values };
}

export interface Bucket {
  from: number;
  share: number;
}

/**
 * A bitrate histogram as shares of the known time. The lower edge is the first number of each key
 * ("300", "300-800", "300_800", "12000+"); anything else is not a bucket.
 */
export function histogramOf(raw: unknown): Bucket[] {
  if (typeof raw !== "object" || raw === null) return [];
  const buckets = new Map<number, number>();
  for (const [key, value] of Object.entries(raw)) {
    const edge = /\d+/.exec(key);
    if (!edge || typeof value !== "number") continue;
    buckets.set(Number(edge[0]), (buckets.get(Number(edge[0])) ?? 0) + value);
  }
  const total = [...buckets.values()].reduce((sum, value) => sum + value, 0);
  if (total <= 0) return [];
  return [...buckets].sort(([a], [b]) => a - b).map(([from, value]) => ({ from, share: value / total }));
}
