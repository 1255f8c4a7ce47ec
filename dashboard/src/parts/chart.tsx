// uPlot in a box: one series as area or bars, axes by the metric's unit, a tooltip, the theme's colours.
import { useEffect, useRef } from "preact/hooks";
import uPlot from "uplot";
import { text, tick } from "../lib/format";
import { cssColor, onThemeChange } from "../lib/theme";

export interface ChartProps {
  times: number[];
  values: (number | null)[];
  /** Visible range in seconds; bars are drawn from their time to the right. */
  from: number;
  to: number;
  bucketMs: number;
  bars: boolean;
  unit: string;
  label: string;
  height: number;
}

export function Chart(props: ChartProps) {
  const box = useRef<HTMLDivElement>(null);
  const plot = useRef<uPlot | null>(null);
  const latest = useRef(props);
  latest.current = props;
  const { bars, unit, height } = props;
  useEffect(() => {
    const host = box.current;
    if (!host) return;
    const chart = new uPlot(options(latest, host.clientWidth), data(latest.current), host);
    plot.current = chart;
    const resize = new ResizeObserver(() => chart.setSize({ width: host.clientWidth, height }));
    resize.observe(host);
    const offTheme = onThemeChange(() => chart.redraw(false, true));
    return () => {
      offTheme();
      resize.disconnect();
      chart.destroy();
    };
  }, [bars, unit, height]);
  useEffect(() => plot.current?.setData(data(props)), [props.times, props.values, props.from, props.to]);
  return <div class="chart" role="img" aria-label={summary(props)} ref={box} />;
}

function data(props: ChartProps): uPlot.AlignedData {
  return [props.times, props.values];
}

/** What a person who cannot see the line needs first. */
function summary({ label, values, unit }: ChartProps): string {
  const known = values.filter((value) => value !== null);
  if (known.length === 0) return `${label}: nothing in this range`;
  const [last, high, low] = [known.at(-1) ?? null, Math.max(...known), Math.min(...known)];
  return `${label}: latest ${text(last, unit)}, highest ${text(high, unit)}, lowest ${text(low, unit)}`;
}

function options(latest: { current: ChartProps }, width: number): uPlot.Options {
  const { bars, unit, height } = latest.current;
  const font = "11px Inter, system-ui, sans-serif";
  const axis = { font, stroke: () => cssColor("--muted"), ticks: { show: false } };
  return {
    width,
    height,
    padding: [8, 16, 0, 0],
    legend: { show: false },
    cursor: {
      y: false,
      drag: { x: false, y: false },
      points: { size: 7, fill: () => cssColor("--accent"), width: 0 },
    },
    scales: {
      x: { range: () => [latest.current.from, latest.current.to] },
      y: { range: (_, __, high) => [0, unit === "score" ? 100 : top(high)] },
    },
    axes: [
      { ...axis, grid: { show: false }, size: 26, space: 64, values: timeTicks },
      {
        ...axis,
        grid: { stroke: () => cssColor("--grid"), width: 1 },
        size: 58,
        space: 32,
        ...(unit === "count" && { incrs: WHOLE_STEPS }),
        ...(unit === "ms" && { splits: durationSplits }),
        values: (_, splits) => splits.map((split) => tick(split, unit)),
      },
    ],
    series: [
      {},
      {
        stroke: () => cssColor("--accent"),
        width: bars ? 0 : 2,
        fill: () => cssColor(bars ? "--accent-bar" : "--accent-area"),
        points: { show: false },
        ...(bars &&
          uPlot.paths.bars && { paths: uPlot.paths.bars({ size: [0.72, 44], align: 1, radius: 0.15 }) }),
      },
    ],
    plugins: [tooltip(latest)],
  };
}

/** Nobody is half a viewer: counts step by whole numbers. */
const WHOLE_STEPS = Array.from({ length: 13 }, (_, power) => [1, 2, 5].map((n) => n * 10 ** power)).flat();

function top(high: number | null): number {
  return high === null || high <= 0 ? 1 : high * 1.12;
}

const NICE_MS = [
  1, 2, 5, 10, 20, 50, 100, 200, 500, 1000, 2000, 5000, 10_000, 20_000, 30_000, 60_000, 120_000, 300_000,
];
const HOUR_MS = 3_600_000;

/** Steps that are round in seconds, minutes or hours, not in powers of ten of a millisecond. */
export function durationStep(span: number, wanted: number): number {
  const least = span / Math.max(1, wanted);
  for (const step of [...NICE_MS, 600_000, 1_200_000, 1_800_000]) if (step >= least) return step;
  const hours = least / HOUR_MS;
  const power = 10 ** Math.floor(Math.log10(Math.max(1, hours)));
  return ([1, 2, 5, 10].find((factor) => factor * power >= hours) ?? 10) * power * HOUR_MS;
}

function durationSplits(u: uPlot, _axis: number, low: number, high: number): number[] {
  const step = durationStep(high - low, Math.floor(u.bbox.height / devicePixelRatio / 44));
  const splits: number[] = [];
  for (let at = Math.ceil(low / step) * step; at <= high; at += step) splits.push(at);
  return splits;
}

const hourMinute = new Intl.DateTimeFormat("en", { hour: "2-digit", minute: "2-digit", hourCycle: "h23" });
const dayMonth = new Intl.DateTimeFormat("en", { day: "numeric", month: "short" });
const full = new Intl.DateTimeFormat("en", {
  weekday: "short",
  day: "numeric",
  month: "short",
  hour: "2-digit",
  minute: "2-digit",
  hourCycle: "h23",
});
const wholeDay = new Intl.DateTimeFormat("en", { weekday: "short", day: "numeric", month: "short" });

function timeTicks(u: uPlot, splits: number[]): string[] {
  const [from = 0, to = 0] = [u.scales.x?.min, u.scales.x?.max];
  const days = to - from > 2 * 86_400;
  return splits.map((split) => {
    const at = new Date(split * 1000);
    if (!days) return hourMinute.format(at);
    if (split >= to) return ""; // the range ends here: a day's name would stand for a day that is not shown
    return at.getHours() === 0 && at.getMinutes() === 0 ? dayMonth.format(at) : "";
  });
}

export function bucketName(seconds: number, bucketMs: number, now: number): string {
  const at = new Date(seconds * 1000);
  const name = bucketMs >= 86_400_000 ? wholeDay.format(at) : full.format(at);
  return seconds * 1000 + bucketMs > now ? `${name}, so far` : name;
}

function tooltip(latest: { current: ChartProps }): uPlot.Plugin {
  const tip = document.createElement("div");
  tip.className = "tip";
  tip.hidden = true;
  const value = tip.appendChild(document.createElement("strong"));
  const when = tip.appendChild(document.createElement("span"));
  return {
    hooks: {
      init: (u) => {
        u.over.appendChild(tip);
        u.over.addEventListener("mouseleave", () => {
          tip.hidden = true;
        });
      },
      setCursor: (u) => {
        const index = u.cursor.idx;
        const at = index == null ? undefined : u.data[0][index];
        tip.hidden = at === undefined || (u.cursor.left ?? -1) < 0;
        if (tip.hidden || at === undefined || index == null) return;
        const { unit, bucketMs } = latest.current;
        value.textContent = text(u.data[1]?.[index] ?? null, unit);
        when.textContent = bucketName(at, bucketMs, Date.now());
        const x = u.valToPos(at, "x");
        const right = x > u.over.clientWidth / 2;
        tip.style.left = right ? "auto" : `${x + 12}px`;
        tip.style.right = right ? `${u.over.clientWidth - x + 12}px` : "auto";
      },
    },
  };
}
