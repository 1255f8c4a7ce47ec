// Quality of experience: the score with what each cause took from 100, and the bitrates people really saw.
import { useMetric } from "../lib/data";
import { share, text } from "../lib/format";
import { histogramOf } from "../lib/query";
import { BigNumber, Card, Empty, Skeleton } from "./card";

interface QoeProps {
  score: number | null;
  lost: Record<string, number | null> | null;
  note: string;
  /** False before the first answer: nothing known is not the same as no plays. */
  known: boolean;
}

export function QoeCard({ score, lost, note, known }: QoeProps) {
  const metric = useMetric("qoe_score");
  const causes = Object.entries(lost ?? {}).flatMap(([cause, points]) =>
    isNumber(points) ? [[cause, points] as const] : [],
  );
  const hint = [metric.doc, metric.formula].filter(Boolean).join("\n");
  return (
    <Card title={metric.label} note={note} hint={hint} class="qoe">
      {!known ? (
        <Skeleton />
      ) : score === null ? (
        <Empty>No plays to judge in this range.</Empty>
      ) : (
        <>
          <div class="qoe-figure">
            <BigNumber value={score} unit={metric.unit} />
            <span class="of">of 100</span>
          </div>
          <div class="stack" aria-hidden="true">
            <span class="kept" style={{ flexGrow: score }} />
            {causes.map(([cause, points]) => (
              <span key={cause} class={`lost ${cause}`} style={{ flexGrow: Math.max(0, points) }} />
            ))}
            {causes.length === 0 && <span class="lost" style={{ flexGrow: 100 - score }} />}
          </div>
          <ul class="causes">
            {causes.length === 0 && <li>{text(100 - score, metric.unit)} points lost</li>}
            {causes.map(([cause, points]) => (
              <Cause key={cause} cause={cause} points={points} />
            ))}
          </ul>
        </>
      )}
    </Card>
  );
}

/** Labelled by the metric of the same points, `qoe_lost_<cause>`; a cause the catalogue lacks by its own name. */
function Cause({ cause, points }: { cause: string; points: number }) {
  const metric = useMetric(`qoe_lost_${cause}`);
  const label = metric.kind === "unknown" ? cause : metric.label;
  const lost = text(Math.max(0, points), "points");
  return (
    <li class={cause} title={metric.doc}>
      <span class="swatch" aria-hidden="true" />
      <span>{label}</span>
      <span class="points">{/[1-9]/.test(lost) ? `−${lost}` : lost}</span>
    </li>
  );
}

function isNumber(value: unknown): value is number {
  return typeof value === "number" && Number.isFinite(value);
}

interface BitrateProps {
  distribution: unknown;
  average: number | null;
  note: string;
  known: boolean;
}

export function BitrateCard({ distribution, average, note, known }: BitrateProps) {
  const metric = useMetric("bitrate_distribution");
  const mean = useMetric("average_bitrate_kbps");
  const buckets = histogramOf(distribution);
  const high = Math.max(0, ...buckets.map((bucket) => bucket.share));
  return (
    <Card title={metric.label} note={note} hint={metric.doc} class="bitrate">
      {!known ? (
        <Skeleton />
      ) : buckets.length === 0 ? (
        <Empty>No player reported its bitrate in this range.</Empty>
      ) : (
        <>
          <ul class="histogram">
            {buckets.map((bucket, index) => (
              <li key={bucket.from}>
                <span class="share">{share(bucket.share)}</span>
                <span class="column" aria-hidden="true">
                  <span style={{ height: `${(100 * bucket.share) / high}%` }} />
                </span>
                <span class="edge">{edgeName(bucket.from, buckets[index + 1]?.from)}</span>
              </li>
            ))}
          </ul>
          <p class="caption">
            Mbps, by time played · {mean.label.toLowerCase()} {text(average, mean.unit)}
          </p>
        </>
      )}
    </Card>
  );
}

/** Edges are kbps; Mbps are shorter: "< 0.3", "0.3–0.8", "12 +". */
export function edgeName(from: number, next: number | undefined): string {
  const mbps = (kbps: number) => String(kbps / 1000);
  if (next === undefined) return `${mbps(from)} +`;
  return from === 0 ? `< ${mbps(next)}` : `${mbps(from)}–${mbps(next)}`;
}
