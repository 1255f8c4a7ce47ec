// The shapes of the HTTP API that the dashboard reads. Only what is used stands here.

export type Unit = "ms" | "ratio" | "count" | "kbps" | "score" | "points" | "per_minute";

export interface Metric {
  name: string;
  label: string;
  unit: Unit;
  kind: string;
  formula?: string;
  doc?: string;
  better: "higher" | "lower" | "neutral";
  error: number | null;
  version: string | null;
  batch_only?: boolean;
}

export interface Dimension {
  name: string;
  label: string;
}

export interface Session {
  tenant: string;
  scopes: string[];
  channels: string[] | null;
}

/** GET /api/v1/analytics/realtime/… and the data of every `metrics` event of /api/v1/live. */
export interface Realtime {
  as_of: string;
  concurrent_viewers: number;
  concurrent_views: number;
  plays_last_5m: number;
  plays_per_minute: number[];
  qoe_score: number | null;
  qoe_version?: string;
  points_lost?: Record<string, number | null> | null;
  average_watch_duration_ms: number | null;
  rebuffer_ratio: number | null;
  startup_time_avg_ms: number | null;
  average_bitrate_kbps: number | null;
  bitrate_distribution?: unknown;
  countries: Record<string, number>;
  watermark: string | null;
  freshness_ms: number | null;
}

export type Granularity = "minute" | "5m" | "hour" | "day" | "week" | "month" | "total";

export interface QueryBody {
  channel_id?: string;
  video_id?: string;
  time_range: { start: string; end: string };
  time_zone?: string;
  granularity: Granularity;
  metrics: string[];
  dimensions?: string[];
  order_by?: [string, "asc" | "desc"][];
  limit?: number;
}

export type Row = Record<string, unknown>;

export interface QueryAnswer {
  rows: Row[];
  meta: {
    granularity?: string;
    time_zone?: string;
    watermark?: string | null;
    sources?: string[];
    partial?: boolean;
    closed_until?: string | null;
    approximate?: Record<string, { relative_standard_error?: number }>;
    truncated?: boolean;
  };
}

/** GET /api/v1/views/{view_id}; `changed` is amounts by measure. */
export interface ToldEvent {
  seq: number;
  type: string;
  ts: string;
  duplicate: boolean;
  late: boolean;
  behind_ms: number;
  lost_before: number;
  instant: string | null;
  state: string | null;
  changed: Record<string, number>;
  error_code?: string;
}

export interface ToldView {
  view_id: string;
  video_id: string;
  channel_id: string;
  dimensions: Record<string, unknown>;
  started_at: string;
  ended_at: string | null;
  ended_by: string | null;
  time_from: "counters" | "state" | "unknown";
  counted: { measure: string; count: number; why: string }[];
  not_counted: {
    seq: number;
    reason: "duplicate" | "late" | "out_of_order" | "interval" | "counter" | "after_end";
    at: string;
    detail: string;
  }[];
  changed_by_silence: Record<string, number>;
  intervals: {
    start: string | null;
    end: string;
    lasted_ms: number | null;
    state: string;
    played_ms: number;
    rebuffered_ms: number;
    bitrate_kbps: number | null;
    cdn: string | null;
  }[];
  events: ToldEvent[];
  truncated: boolean;
}
