import { describe, expect, it } from "vitest";
import { askGroups, bodyOf, histogramOf, seriesOf } from "../src/lib/query";
import { rangeOf } from "../src/lib/range";
import { placeHref, readPlace, scopeSearch } from "../src/lib/scope";
import type { Metric } from "../src/lib/types";
import { durationStep } from "../src/parts/chart";
import { sparkPath } from "../src/parts/spark";

const HOUR = 3_600_000;
const now = Date.parse("2026-11-24T10:17:42.123Z");
const metric = (name: string, kind: string) => [name, { name, kind } as Metric] as const;

describe("a view that is looked up", () => {
  it("is a link, and nothing else of the place matters then", () => {
    expect(readPlace("?view=a%2Fb%20c")).toEqual({ range: "live", view: "a/b c" });
    expect(placeHref({ range: "7d", video: "v1", view: "a/b c" })).toBe("/?view=a%2Fb+c");
    expect(readPlace(placeHref({ range: "live", view: "" }).slice(1))).toEqual({ range: "live", view: "" });
    expect(readPlace("")).toEqual({ range: "live" });
  });
});

describe("a query's body", () => {
  it("has what was asked and nothing that was not", () => {
    const body = bodyOf({
      scope: { video: "v1" },
      interval: { start: now - HOUR, end: now },
      granularity: "total",
      metrics: ["plays"],
      dimensions: ["country"],
      orderBy: ["plays", "desc"],
      limit: 10,
    });
    expect(body).toEqual({
      video_id: "v1",
      time_range: { start: "2026-11-24T09:17:42.123Z", end: "2026-11-24T10:17:42.123Z" },
      granularity: "total",
      metrics: ["plays"],
      dimensions: ["country"],
      order_by: [["plays", "desc"]],
      limit: 10,
    });
  });

  it("asks gauges and sketches apart, and not at all for what the catalogue lacks", () => {
    const catalogue = new Map([
      metric("plays", "additive"),
      metric("rebuffer_ratio", "ratio"),
      metric("peak_concurrent_viewers", "gauge"),
      metric("unique_viewers", "sketch"),
    ]);
    const names = ["peak_concurrent_viewers", "plays", "unique_viewers", "rebuffer_ratio", "invented"];
    expect(askGroups(names, catalogue)).toEqual([
      ["peak_concurrent_viewers"],
      ["plays", "rebuffer_ratio"],
      ["unique_viewers"],
    ]);
  });
});

describe("a range", () => {
  it("lies on its own grid and includes the bucket that is still open", () => {
    const { start, end, granularity } = rangeOf("7d", now);
    expect(new Date(end).toISOString()).toBe("2026-11-24T11:00:00.000Z");
    expect(end - start).toBe(168 * HOUR);
    expect(granularity).toBe("hour");
  });

  it.each(["24h", "7d", "30d", "90d"] as const)(
    "%s compares complete buckets with as many before them",
    (name) => {
      const { closed, before, early, start, end } = rangeOf(name, now);
      expect(closed.start).toBe(start);
      expect(closed.end).toBeLessThanOrEqual(now);
      expect(closed.end).toBeLessThan(end);
      // A change of summer time may make two runs of 29 days an hour unequal, never more.
      expect(Math.abs(before.end - before.start - (closed.end - closed.start))).toBeLessThanOrEqual(HOUR);
      expect(before.end).toBeLessThanOrEqual(closed.start);
      expect(early.start).toBe(before.start);
      expect(early.end).toBeGreaterThan(early.start);
      expect(early.end).toBeLessThan(before.end);
    },
  );
});

describe("rows of a time series", () => {
  it("leave out buckets that have not begun, and keep null as a gap", () => {
    const rows = [
      { time: "2026-11-24T09:00:00Z", rebuffer_ratio: 0.01 },
      { time: "2026-11-24T11:00:00+01:00", rebuffer_ratio: null },
      { time: "2026-11-24T11:00:00Z", rebuffer_ratio: 0 },
    ];
    expect(seriesOf(rows, "rebuffer_ratio", now)).toEqual({
      times: [Date.parse("2026-11-24T09:00:00Z") / 1000, Date.parse("2026-11-24T10:00:00Z") / 1000],
      values: [0.01, null],
    });
  });
});

describe("a bitrate histogram", () => {
  it("is read by lower edge, in order, as shares", () => {
    expect(histogramOf({ "3000-6000": 30, "0-300": 10, "12000+": 60 })).toEqual([
      { from: 0, share: 0.1 },
      { from: 3000, share: 0.3 },
      { from: 12000, share: 0.6 },
    ]);
  });

  it("of nothing has no buckets", () => {
    expect(histogramOf({ "0": 0, "300": 0 })).toEqual([]);
    expect(histogramOf(undefined)).toEqual([]);
  });
});

describe("the address", () => {
  it("says everything, and survives a round trip", () => {
    const place = { range: "7d", video: "a b/c&d", channel: "ö" } as const;
    expect(readPlace(new URL(placeHref(place), "http://x").search)).toEqual(place);
    expect(placeHref({ range: "live" })).toBe("/");
    expect(readPlace("?range=century")).toEqual({ range: "live" });
    expect(scopeSearch({ video: "a&b" })).toBe("?video_id=a%26b");
  });
});

it("a duration axis steps in round seconds, minutes and hours", () => {
  expect(durationStep(1_000, 4)).toBe(500);
  expect(durationStep(400_000, 5)).toBe(120_000);
  expect(durationStep(5 * HOUR, 4)).toBe(2 * HOUR);
  expect(durationStep(3_000 * HOUR, 5)).toBe(1_000 * HOUR);
});

it("a sparkline lifts its pen over a gap", () => {
  expect(sparkPath([1, 2, null, 3, 4]).match(/M/g)).toHaveLength(2);
  expect(sparkPath([null, 1])).toBe("");
});
