// How far people watch one video: GET /api/v1/analytics/retention/{video_id}.
import { api } from "../lib/api";
import { useLoaded, useMetric } from "../lib/data";
import { text } from "../lib/format";
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

function Curve({ points }: { points: Point[] }) {
  const high = Math.max(1, ...points.map((point) => point.y));
  const place = ({ x, y }: Point) => `${(x * WIDTH).toFixed(1)} ${(HEIGHT - (y / high) * HEIGHT).toFixed(1)}`;
  const line = `M${points.map(place).join("L")}`;
  const end = (points.at(-1)?.x ?? 1) * WIDTH;
  const at = (ratio: number) => points.findLast((point) => point.x <= ratio)?.y ?? null;
  const marks = [0.25, 0.5, 0.75].map((ratio) => `${text(at(ratio), "ratio")} at ${ratio * 100} %`);
  return (
    <figure>
      <svg
        viewBox={`0 0 ${WIDTH} ${HEIGHT}`}
        preserveAspectRatio="none"
        role="img"
        aria-label={marks.join(", ")}
      >
        {[0, 0.25, 0.5, 0.75, 1].map((level) => (
          <line
            key={level}
            x1="0"
            x2={WIDTH}
            y1={HEIGHT - (level / high) * HEIGHT}
            y2={HEIGHT - (level / high) * HEIGHT}
          />
        ))}
        <path class="area" d={`${line}L${end} ${HEIGHT}L0 ${HEIGHT}Z`} />
        <path class="line" d={line} />
      </svg>
      <figcaption>
        <span>Start</span>
        <span>{marks.join(" · ")}</span>
        <span>End</span>
      </figcaption>
    </figure>
  );
}
