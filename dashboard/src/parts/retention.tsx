// How far people watch one video: GET /api/v1/analytics/retention/{video_id}.
import { api } from "../lib/api";
import { useLoaded, useMetric } from "../lib/data";
import { share, text } from "../lib/format";
import { rangeOf } from "../lib/range";
import type { RangeName, Scope } from "../lib/scope";
import { Card, Empty, Skeleton } from "./card";
import { ErrorNote } from "./errors";

const WIDTH = 600;
const HEIGHT = 180;

interface Point {
  x: number;
  y: number;
}

export function RetentionCard({ scope, range }: { scope: Scope; range: RangeName }) {
  const metric = useMetric("retention");
  const video = scope.video ?? "";
  const shownRange: RangeName = range === "live" ? "24h" : range;
  const answer = useLoaded(
    JSON.stringify(["retention", scope, shownRange]),
    (signal) => {
      const { start, end } = rangeOf(shownRange, Date.now());
      const search = new URLSearchParams({
        start: new Date(start).toISOString(),
        end: new Date(end).toISOString(),
        ...(scope.channel && { channel_id: scope.channel }),
      });
      return api.retention(video, search.toString(), signal);
    },
    5 * 60_000,
  );
  // A video without views answers with no buckets; 404 means a server that has no retention to tell.
  if (answer.error?.status === 404) return null;
  const points = (answer.data?.buckets ?? [])
    .filter((bucket) => bucket.viewers_ratio !== null)
    .map((bucket) => ({ x: bucket.from_ratio, y: bucket.viewers_ratio ?? 0 }));
  const title = metric.label === "retention" ? "Retention" : metric.label;
  return (
    <Card title={title} note="by position in the video, ended views" hint={metric.doc} class="retention">
      {answer.error && <ErrorNote error={answer.error} kept={answer.data !== null} />}
      {!answer.data && !answer.error && <Skeleton lines={6} />}
      {answer.data && points.length === 0 && (
        <Empty>
          Retention appears when views of a video with a known length have ended and their hour is closed.
        </Empty>
      )}
      {points.length > 0 && <Curve points={points} />}
    </Card>
  );
}

/** So much above a level does not yet show the next one: a view or two of a rewatched start. */
const SLACK = 0.02;

/** Levels are a quarter apart; over 1 where parts are watched more than once. */
function Curve({ points }: { points: Point[] }) {
  const levels = Math.max(4, Math.ceil(4 * (Math.max(...points.map((point) => point.y)) - SLACK)));
  const y = (value: number) => HEIGHT - (value / (levels / 4)) * HEIGHT;
  const last = points.at(-1)?.y ?? 0;
  const line = [...points, { x: 1, y: last }]
    .map((point) => `${(point.x * WIDTH).toFixed(1)} ${y(point.y).toFixed(1)}`)
    .join("L");
  const at = (ratio: number) => points.findLast((point) => point.x <= ratio)?.y ?? null;
  const marks = [0.25, 0.5, 0.75].map((ratio) => `${text(at(ratio), "ratio")} at ${ratio * 100}%`);
  const rules = Array.from({ length: levels + 1 }, (_, index) => index / 4);
  return (
    <figure>
      <ol aria-hidden="true">
        {rules.toReversed().map((level) => (
          <li key={level}>{share(level)}</li>
        ))}
      </ol>
      <svg
        viewBox={`0 0 ${WIDTH} ${HEIGHT}`}
        preserveAspectRatio="none"
        role="img"
        aria-label={marks.join(", ")}
      >
        {rules.map((level) => (
          <line key={level} x1="0" x2={WIDTH} y1={y(level)} y2={y(level)} />
        ))}
        <path class="area" d={`M${line}L${WIDTH} ${HEIGHT}L0 ${HEIGHT}Z`} />
        <path class="line" d={`M${line}`} />
      </svg>
      <figcaption>
        <span>Start</span>
        <span>{marks.join(" · ")}</span>
        <span>End</span>
      </figcaption>
    </figure>
  );
}
