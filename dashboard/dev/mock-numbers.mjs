// DEVELOPMENT ONLY: numbers that look like an audience (a day's rhythm, a bad five minutes), from no event at all.
const MINUTE = 60_000;
const steps = { minute: MINUTE, "5m": 5 * MINUTE, hour: 60 * MINUTE, day: 1440 * MINUTE };

const members = {
  video_id: [
    ["launch-keynote-2026", 0.31],
    ["cooking-with-fire-s02e07", 0.19],
    ["lofi-radio-live", 0.16],
    ["how-ssds-really-work", 0.1],
    ["derby-highlights", 0.08],
    ["city-walk-lisbon-4k", 0.06],
    ["weekly-news-47", 0.04],
    ["piano-lesson-12", 0.03],
    ["a-very-long-identifier-of-a-video-that-nobody-would-call-this-way-0193f2", 0.02],
    ["trailer-winter", 0.01],
  ],
  channel_id: [
    ["studio", 0.6],
    ["sports", 0.25],
    ["music", 0.15],
  ],
  country: [
    ["US", 0.34],
    ["DE", 0.18],
    ["GB", 0.12],
    ["BR", 0.1],
    ["IN", 0.09],
    ["FR", 0.07],
    ["JP", 0.05],
    ["PL", 0.03],
    ["", 0.02],
  ],
  os: [
    ["Android", 0.29],
    ["Windows", 0.25],
    ["iOS", 0.21],
    ["macOS", 0.11],
    ["Tizen", 0.08],
    ["Linux", 0.06],
  ],
  browser: [
    ["Chrome Mobile", 0.33],
    ["Chrome", 0.3],
    ["Mobile Safari", 0.17],
    ["Edge", 0.09],
    ["Firefox", 0.08],
    ["Safari", 0.03],
  ],
  device_type: [
    ["phone", 0.46],
    ["desktop", 0.31],
    ["tv", 0.16],
    ["tablet", 0.06],
    ["unknown", 0.003],
  ],
};

/** Repeatable noise in 0..1 from a number. */
function noise(n) {
  const x = Math.sin(n * 12.9898) * 43758.5453;
  return x - Math.floor(x);
}

function audience(at) {
  const hour = (at / 3_600_000) % 24;
  const rhythm = 0.55 + 0.35 * Math.sin(((hour - 13) / 24) * 2 * Math.PI);
  const swell = 0.14 * Math.sin(at / 900_000) + 0.05 * Math.sin(at / 170_000);
  return 1900 * Math.max(0.1, rhythm + swell + 0.05 * (noise(Math.floor(at / 10_000)) - 0.5));
}

function incident(at) {
  return Math.exp(-(((at % (6 * 3_600_000)) / 3_600_000 - 3) ** 2) / 0.02);
}

function values(at, length, share, salt) {
  const viewers = audience(at) * share;
  const plays = Math.round((viewers / 6.5) * (length / MINUTE) * (0.8 + 0.4 * noise(at / MINUTE + salt)));
  const rebuffer = 0.006 + 0.004 * noise(at / MINUTE + 3 + salt) + 0.03 * incident(at) + 0.002 * salt;
  const watched = plays * (372_000 + 40_000 * noise(at / MINUTE + 9 + salt));
  const bitrates = {
    "0_300": 0.02,
    "300_800": 0.07,
    "800_1500": 0.12,
    "1500_3000": 0.2,
    "3000_6000": 0.34,
    "6000_12000": 0.2,
    "12000_": 0.05,
  };
  return {
    concurrent_viewers: Math.round(viewers),
    peak_concurrent_viewers: Math.round(viewers * 1.09),
    plays,
    attempts: Math.round(plays * 1.04),
    completes: Math.round(plays * 0.41),
    failures: Math.round(plays * 0.008),
    unique_viewers: Math.round(plays * 0.74),
    watch_time_ms: watched,
    average_watch_duration_ms: plays ? watched / plays : null,
    average_percentage_watched: 0.58,
    engagement_rate: plays ? 0.71 + 0.04 * noise(at + 2) : null,
    completion_rate: plays ? 0.41 : null,
    startup_time_avg_ms: plays ? 780 + 180 * noise(at / MINUTE + 5) + 900 * incident(at) : null,
    rebuffer_ratio: plays ? rebuffer : null,
    average_bitrate_kbps: plays ? 3900 + 500 * noise(at / MINUTE + 7) : null,
    bitrate_distribution: Object.fromEntries(Object.entries(bitrates).map(([k, v]) => [k, v * watched])),
    playback_failure_rate: plays ? 0.008 : null,
    exit_before_start_rate: plays ? 0.031 : null,
    qoe_lost_startup: 2.4,
    qoe_lost_smoothness: plays ? 5.5 + 220 * rebuffer + 2 * noise(at / MINUTE + salt) : null,
    qoe_lost_playback: 1.1,
    qoe_score: plays ? 91 - 220 * rebuffer - 2 * noise(at / MINUTE + salt) : null,
  };
}

function total(start, end, share, salt, empty) {
  const length = end - start;
  const mean = values((start + end) / 2, length, empty ? 0 : share, salt);
  if (length > 2 * 86_400_000) mean.unique_viewers = Math.round(mean.unique_viewers * 0.5);
  return mean;
}

export function query(body, now, mode) {
  const empty = mode === "empty";
  const start = Date.parse(body.time_range.start);
  const end = Math.min(Date.parse(body.time_range.end), now);
  const share = body.video_id ? (members.video_id.find(([id]) => id === body.video_id)?.[1] ?? 0) : 1;
  const dimension = body.dimensions?.[0];
  if (body.metrics.includes("peak_concurrent_viewers") && dimension && dimension !== "video_id")
    return { refused: `peak_concurrent_viewers has no rollup by ${dimension}: peaks do not add up.` };
  const pick = (row) => Object.fromEntries(body.metrics.map((name) => [name, row[name]]));
  const meta = {
    granularity: body.granularity,
    time_zone: body.time_zone ?? "UTC",
    watermark: new Date(now - 700).toISOString(),
    sources: ["speed", "batch"],
    partial: true,
    truncated: false,
  };
  if (dimension) {
    const rows = (empty ? [] : (members[dimension] ?? [])).map(([value, part], index) => ({
      [dimension]: value,
      ...pick(total(start, end, share * part, index % 4, empty)),
    }));
    const [by, way] = body.order_by?.[0] ?? ["plays", "desc"];
    rows.sort((a, b) => (way === "desc" ? -1 : 1) * (Number(a[by]) - Number(b[by])));
    return { rows: rows.slice(0, body.limit ?? 1000), meta };
  }
  if (body.granularity === "total") return { rows: [pick(total(start, end, share, 0, empty))], meta };
  const step = steps[body.granularity];
  const rows = [];
  for (let at = start; at < Date.parse(body.time_range.end); at += step) {
    const part = Math.max(0, Math.min(1, (now - at) / step));
    const row = values(at, step * part, empty ? 0 : share, 0);
    rows.push({ time: new Date(at).toISOString(), ...pick(row) });
  }
  return { rows, meta };
}

export function realtime(now, scope, mode) {
  const share =
    mode === "empty"
      ? 0
      : scope.video_id
        ? (members.video_id.find(([id]) => id === scope.video_id)?.[1] ?? 0)
        : 1;
  const row = values(now, 5 * MINUTE, share, 0);
  const minute = Math.floor(now / MINUTE) * MINUTE;
  const lost =
    row.qoe_score === null ? null : { startup: 2.4, smoothness: 100 - row.qoe_score - 3.5, playback: 1.1 };
  return {
    video_id: scope.video_id,
    as_of: new Date(now).toISOString(),
    concurrent_viewers: row.concurrent_viewers,
    concurrent_views: Math.round(row.concurrent_viewers * 1.03),
    plays_last_5m: row.plays,
    plays_per_minute: Array.from(
      { length: 60 },
      (_, i) => values(minute - (60 - i) * MINUTE, MINUTE, share, 0).plays,
    ),
    qoe_score: row.qoe_score,
    qoe_version: "qoe_v1",
    points_lost: lost,
    average_watch_duration_ms: row.average_watch_duration_ms,
    rebuffer_ratio: row.rebuffer_ratio,
    startup_time_avg_ms: row.startup_time_avg_ms,
    average_bitrate_kbps: row.average_bitrate_kbps,
    bitrate_distribution: row.bitrate_distribution,
    countries: Object.fromEntries(
      members.country.map(([c, p]) => [c, Math.round(row.concurrent_viewers * p)]).filter(([, n]) => n > 0),
    ),
    watermark: new Date(now - 600).toISOString(),
    freshness_ms: 450 + Math.round(400 * noise(now)),
  };
}

export function retention(mode) {
  if (mode === "empty") return { buckets: [] };
  return {
    buckets: Array.from({ length: 100 }, (_, i) => ({
      from_ratio: i / 100,
      viewers_ratio:
        0.34 + 0.66 * Math.exp(-i / 18) + (i > 60 && i < 66 ? 0.12 : 0) - (i > 93 ? (i - 93) * 0.03 : 0),
      seconds: i * 6.4,
    })),
  };
}
