import { describe, expect, it } from "vitest";
import { age, clockOf, countryName, delta, share, text, tick, valueName } from "../src/lib/format";

describe("a number is written by its unit alone", () => {
  it.each([
    [0, "ms", "0 s"],
    [820.4, "ms", "820 ms"],
    [999.6, "ms", "1.0 s"],
    [8_240, "ms", "8.2 s"],
    [59_960, "ms", "1:00 min"],
    [412_000, "ms", "6:52 min"],
    [3_599_600, "ms", "1:00 h"],
    [35_999_000, "ms", "10 h"],
    [360_000_000, "ms", "100 h"],
    [900_000_000_000, "ms", "250K h"],
    [0.0132, "ratio", "1.32%"],
    [0.4, "ratio", "40.0%"],
    [0, "ratio", "0.0%"],
    [999_999, "count", "999,999"],
    [2_200_000, "count", "2.2M"],
    [300, "kbps", "300 kbps"],
    [4_120, "kbps", "4.1 Mbps"],
    [87.24, "score", "87.2"],
    [0.516, "per_minute", "0.52/min"],
    [3, "furlong", "3 furlong"],
  ])("%s %s is %s", (value, unit, expected) => expect(text(value, unit)).toBe(expected));

  it("a ratio over nothing is a dash, never 0", () => {
    expect(text(null, "ratio")).toBe("–");
    expect(text(Number.NaN, "ms")).toBe("–");
  });

  it("axis labels carry no trailing zeros and keep whole tens", () => {
    expect(tick(0.02, "ratio")).toBe("2%");
    expect(tick(0.5, "ratio")).toBe("50%");
    expect(tick(0.005, "ratio")).toBe("0.5%");
    expect(tick(100, "score")).toBe("100");
    expect(tick(20_000, "count")).toBe("20K");
  });
});

describe("a change against the period before", () => {
  it("is good or bad by what the catalogue calls better", () => {
    expect(delta(0.02, 0.01, "lower")).toMatchObject({ text: "100%", direction: "up", mood: "bad" });
    expect(delta(0.01, 0.02, "lower")).toMatchObject({ direction: "down", mood: "good" });
    expect(delta(12, 10, "neutral")).toMatchObject({ mood: "neutral" });
  });

  it("does not exist where there is nothing to compare with", () => {
    expect(delta(5, 0, "higher")).toBeNull();
    expect(delta(5, null, "higher")).toBeNull();
    expect(delta(undefined, 5, "higher")).toBeNull();
  });

  it("below a twentieth of a percent is no change", () => {
    expect(delta(1000.2, 1000, "higher")).toMatchObject({ direction: "flat", mood: "neutral" });
  });
});

describe("names of values", () => {
  it("are words where words are known and the value itself where not", () => {
    expect(countryName("DE")).toBe("Germany");
    expect(valueName("country", "")).toBe("Unknown");
    expect(valueName("country", "ZZ")).toBe("Unknown");
    expect(valueName("device_type", "smart_tv")).toBe("Smart TV");
    expect(valueName("os", "iOS")).toBe("iOS");
    expect(valueName("video_id", "my_video")).toBe("my_video");
    expect(valueName("browser", null)).toBe("Unknown");
  });
});

it("a small share is not zero", () => {
  expect(share(0.001)).toBe("< 1%");
  expect(share(0)).toBe("0%");
});

it("ages grow coarser", () => {
  expect([940, 12_300, 200_000, 7_200_000].map(age)).toEqual(["0.9 s", "12 s", "3 min", "2 h"]);
});

describe("an instant of the API", () => {
  it("is its time of day to the ms, in the zone that it came in", () => {
    expect(clockOf("2027-01-15T08:00:01Z")).toBe("08:00:01.000");
    expect(clockOf("2027-01-15T13:30:00.820+05:30")).toBe("13:30:00.820");
  });
});
