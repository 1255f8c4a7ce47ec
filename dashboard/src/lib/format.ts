// Numbers to text, decided by the unit that the catalogue states and by nothing else.
import type { Unit } from "./types";

/** A number and its unit apart, so that a big figure can carry a small unit. */
export interface Figure {
  value: string;
  unit: string;
}

const NONE: Figure = { value: "–", unit: "" };
const grouped = new Intl.NumberFormat("en");
const compact = new Intl.NumberFormat("en", { notation: "compact", maximumFractionDigits: 1 });

function fixed(value: number, digits: number): string {
  return value.toLocaleString("en", { minimumFractionDigits: digits, maximumFractionDigits: digits });
}

function count(value: number): Figure {
  const whole = Number.isInteger(value) || Math.abs(value) >= 100;
  if (Math.abs(value) >= 1_000_000) return { value: compact.format(value), unit: "" };
  return { value: whole ? grouped.format(Math.round(value)) : fixed(value, 1), unit: "" };
}

/** Two parts at most: "820 ms", "8.2 s", "6:52 min", "3:12 h", "79 h". */
function duration(ms: number): Figure {
  if (ms < 0) {
    const figure = duration(-ms);
    return { value: `−${figure.value}`, unit: figure.unit };
  }
  if (ms === 0) return { value: "0", unit: "s" };
  if (ms < 999.5) return { value: String(Math.round(ms)), unit: "ms" };
  if (ms < 59_950) return { value: fixed(ms / 1000, 1), unit: "s" };
  const seconds = Math.round(ms / 1000);
  if (seconds < 3600) return { value: `${Math.floor(seconds / 60)}:${pad(seconds % 60)}`, unit: "min" };
  const minutes = Math.round(seconds / 60);
  if (minutes < 10 * 60) return { value: `${Math.floor(minutes / 60)}:${pad(minutes % 60)}`, unit: "h" };
  const hours = minutes / 60;
  return { value: hours < 100_000 ? grouped.format(Math.round(hours)) : compact.format(hours), unit: "h" };
}

function pad(part: number): string {
  return String(part).padStart(2, "0");
}

function ratio(value: number): Figure {
  const percent = value * 100;
  const digits = percent !== 0 && Math.abs(percent) < 10 ? 2 : 1;
  return { value: fixed(percent, digits), unit: "%" };
}

function bitrate(kbps: number): Figure {
  return kbps < 1000
    ? { value: grouped.format(Math.round(kbps)), unit: "kbps" }
    : { value: fixed(kbps / 1000, 1), unit: "Mbps" };
}

/** Null (a ratio over nothing) is a dash, never 0. An unknown unit shows the number with that unit. */
export function figure(value: number | null | undefined, unit: Unit | string): Figure {
  if (value === null || value === undefined || !Number.isFinite(value)) return NONE;
  switch (unit) {
    case "count":
      return count(value);
    case "ms":
      return duration(value);
    case "ratio":
      return ratio(value);
    case "kbps":
      return bitrate(value);
    case "score":
    case "points":
      return { value: fixed(value, 1), unit: "" };
    case "per_minute":
      return { value: fixed(value, 2), unit: "/min" };
    default:
      return { value: grouped.format(value), unit };
  }
}

export function text(value: number | null | undefined, unit: Unit | string): string {
  const { value: number, unit: suffix } = figure(value, unit);
  if (suffix === "" || suffix === "%" || suffix === "/min") return number + suffix;
  return `${number} ${suffix}`;
}

/** Axis labels: as `text`, with trailing zeros of a decimal part removed, and counts always compact. */
export function tick(value: number, unit: Unit | string): string {
  if (unit === "count") return compact.format(value);
  return text(value, unit)
    .replace(/(\.\d*?)0+(?=\D|$)/, "$1")
    .replace(/\.(?=\D|$)/, "");
}

/** A part of a whole without decimals; what is there but small is "< 1%", not 0. */
export function share(part: number): string {
  if (part > 0 && part < 0.005) return "< 1%";
  return `${Math.round(part * 100)}%`;
}

/** "0.9 s", "42 s", "3 min": ages of data, coarser as they grow. */
export function age(ms: number): string {
  if (ms < 9_950) return `${fixed(Math.max(0, ms) / 1000, 1)} s`;
  if (ms < 90_000) return `${Math.round(ms / 1000)} s`;
  if (ms < 5_400_000) return `${Math.round(ms / 60_000)} min`;
  return `${Math.round(ms / 3_600_000)} h`;
}

export interface Delta {
  text: string;
  direction: "up" | "down" | "flat";
  mood: "good" | "bad" | "neutral";
}

/** Relative change, or null where there is nothing to compare with. Under 0.05 % is flat. */
export function delta(
  now: number | null | undefined,
  before: number | null | undefined,
  better: "higher" | "lower" | "neutral",
): Delta | null {
  if (now == null || before == null || before === 0) return null;
  const change = (now - before) / Math.abs(before);
  if (!Number.isFinite(change)) return null;
  if (Math.abs(change) < 0.0005) return { text: "0%", direction: "flat", mood: "neutral" };
  const direction = change > 0 ? "up" : "down";
  const percent = Math.abs(change * 100);
  const shown = percent >= 1000 ? "> 999" : fixed(percent, percent < 10 ? 1 : 0);
  const wanted = better === "higher" ? "up" : "down";
  const mood = better === "neutral" ? "neutral" : direction === wanted ? "good" : "bad";
  return { text: `${shown}%`, direction, mood };
}

const regions = new Intl.DisplayNames(["en"], { type: "region" });

export function countryName(code: string): string {
  if (!/^[A-Z]{2}$/.test(code) || code === "ZZ" || code === "XX")
    return code === "" ? "Unknown" : plain(code);
  try {
    return regions.of(code) ?? code;
  } catch {
    return code;
  }
}

function plain(code: string): string {
  return code === "ZZ" || code === "XX" || code === "unknown" || code === "null" ? "Unknown" : code;
}

/** A dimension's value as people write it: "smart_tv" → "Smart TV". */
export function valueName(dimension: string, value: unknown): string {
  if (value === null || value === undefined || value === "" || value === "unknown") return "Unknown";
  const name = String(value);
  if (dimension === "country") return countryName(name);
  // Systems and browsers write themselves ("iOS"), ids are theirs: only our own words are made readable.
  if (dimension !== "device_type" && dimension !== "stream_type") return name;
  const words = name.replaceAll("_", " ").replace(/\btv\b/i, "TV");
  return words.charAt(0).toUpperCase() + words.slice(1);
}

/** The time of day in an instant of the API, to the ms, in the zone that the API wrote it in: as its sentences say it. */
export function clockOf(instant: string): string {
  const time = instant.slice(11).replace(/(Z|[+-]\d\d:\d\d)$/, "");
  return time.includes(".") ? time : `${time}.000`;
}
