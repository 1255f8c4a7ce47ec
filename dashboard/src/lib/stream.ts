// The live stream's state machine, without I/O and without a clock: events and instants in, state out.
// `live.ts` owns the EventSource and the timers and asks this file what to show and how long to wait.
import type { Realtime } from "./types";

/** The server speaks at least every 2 s; three silent periods mean that the picture is no longer live. */
export const STALE_AFTER_MS = 6_000;
/** No word for this long on an open connection: it is dead (a sleeping laptop, a proxy), so replace it. */
export const DEAD_AFTER_MS = 20_000;
export const BACKOFF_FIRST_MS = 1_000;
export const BACKOFF_MOST_MS = 30_000;

export type Phase = "connecting" | "live" | "stale" | "reconnecting" | "paused" | "signed_out";

export interface StreamState {
  phase: Phase;
  data: Realtime | null;
  receivedAt: number | null;
  openedAt: number | null;
  failures: number;
  retryAt: number | null;
}

export type StreamEvent =
  | { type: "connect"; at: number }
  | { type: "message"; at: number; data: Realtime }
  | { type: "lost"; at: number; jitter: number }
  | { type: "tick"; at: number }
  | { type: "pause" }
  | { type: "signed_out" };

export const START: StreamState = {
  phase: "connecting",
  data: null,
  receivedAt: null,
  openedAt: null,
  failures: 0,
  retryAt: null,
};

/** 1 s, 2 s, 4 s … 30 s, times 0.5..1.0: a server that restarts is not met by all pages at once. */
export function backoffMs(failures: number, jitter: number): number {
  const full = Math.min(BACKOFF_MOST_MS, BACKOFF_FIRST_MS * 2 ** Math.max(0, failures - 1));
  return Math.round(full * (0.5 + 0.5 * jitter));
}

export function step(state: StreamState, event: StreamEvent): StreamState {
  switch (event.type) {
    case "connect":
      return {
        ...state,
        phase: state.failures > 0 ? "reconnecting" : "connecting",
        openedAt: event.at,
        retryAt: null,
      };
    case "message":
      // Only data proves that a connection works; an open socket alone would reset the backoff of a crash loop.
      return { ...state, phase: "live", data: event.data, receivedAt: event.at, failures: 0, retryAt: null };
    case "lost": {
      const failures = state.failures + 1;
      return {
        ...state,
        phase: "reconnecting",
        failures,
        retryAt: event.at + backoffMs(failures, event.jitter),
      };
    }
    case "tick":
      return state.phase === "live" && event.at - (state.receivedAt ?? event.at) > STALE_AFTER_MS
        ? { ...state, phase: "stale" }
        : state;
    case "pause":
      return { ...state, phase: "paused", retryAt: null };
    case "signed_out":
      return { ...state, phase: "signed_out", retryAt: null };
  }
}

/** True when the connection that is open has been silent for so long that only a new one can help. */
export function isDead(state: StreamState, now: number): boolean {
  if (state.retryAt !== null || state.phase === "paused" || state.phase === "signed_out") return false;
  const lastWord = Math.max(state.receivedAt ?? 0, state.openedAt ?? 0);
  return lastWord > 0 && now - lastWord > DEAD_AFTER_MS;
}

/** How old the shown numbers are: what the server said, plus the time since it said so. */
export function dataAgeMs(state: StreamState, now: number): number | null {
  if (state.data === null || state.receivedAt === null) return null;
  return (state.data.freshness_ms ?? 0) + Math.max(0, now - state.receivedAt);
}
