// Time ranges of the page as half-open intervals with a granularity. The clock is an argument.
import type { RangeName } from "./scope";
import type { Granularity } from "./types";

export interface Interval {
  start: number;
  end: number;
}

export interface Range extends Interval {
  granularity: Granularity;
  bucketMs: number;
  refreshMs: number;
  /** The complete buckets of this range, and as many before it: only these are compared. */
  closed: Interval;
  before: Interval;
  /** The first tenth of `before`: where it holds nothing, history does not reach back far enough to compare. */
  early: Interval;
}

const MINUTE = 60_000;
const HOUR = 60 * MINUTE;
const DAY = 24 * HOUR;

const floor = (at: number, unit: number) => Math.floor(at / unit) * unit;

function localMidnight(at: number, daysLater: number): number {
  const day = new Date(at);
  return new Date(day.getFullYear(), day.getMonth(), day.getDate() + daysLater).getTime();
}

/** Edges lie on the granularity's own grid, so that rollups cover the range and a cache can hold it. */
export function rangeOf(name: RangeName, now: number): Range {
  switch (name) {
    case "live":
      return aligned(floor(now, MINUTE) + MINUTE, 60 * MINUTE, MINUTE, "minute", MINUTE, 15_000);
    case "24h":
      return aligned(floor(now, HOUR) + HOUR, DAY, HOUR, "5m", 5 * MINUTE, MINUTE);
    case "7d":
      return aligned(floor(now, HOUR) + HOUR, 7 * DAY, HOUR, "hour", HOUR, 5 * MINUTE);
    case "30d":
      return days(now, 30);
    case "90d":
      return days(now, 90);
  }
}

function days(now: number, count: number): Range {
  const start = localMidnight(now, 1 - count);
  const before = localMidnight(now, 2 - 2 * count);
  return {
    start,
    end: localMidnight(now, 1),
    granularity: "day",
    bucketMs: DAY,
    refreshMs: 5 * MINUTE,
    closed: { start, end: localMidnight(now, 0) },
    before: { start: before, end: start },
    early: { start: before, end: localMidnight(before, count / 10) },
  };
}

function aligned(
  end: number,
  length: number,
  grid: number,
  granularity: Granularity,
  bucketMs: number,
  refreshMs: number,
): Range {
  const start = end - length;
  const closed = { start, end: end - grid };
  const before = { start: start - length, end: end - grid - length };
  const early = { start: before.start, end: before.start + Math.max(grid, floor(length / 10, grid)) };
  return { start, end, granularity, bucketMs, refreshMs, closed, before, early };
}
