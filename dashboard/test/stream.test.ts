import { describe, expect, it } from "vitest";
import {
  BACKOFF_MOST_MS,
  backoffMs,
  DEAD_AFTER_MS,
  dataAgeMs,
  isDead,
  STALE_AFTER_MS,
  START,
  type StreamEvent,
  type StreamState,
  step,
} from "../src/lib/stream";
import type { Realtime } from "../src/lib/types";
import { statusOf } from "../src/parts/live-status";

const data = { concurrent_viewers: 12, freshness_ms: 400 } as Realtime;
const run = (...events: StreamEvent[]) => events.reduce<StreamState>(step, START);
const connect = (at: number): StreamEvent => ({ type: "connect", at });
const message = (at: number): StreamEvent => ({ type: "message", at, data });
const lost = (at: number): StreamEvent => ({ type: "lost", at, jitter: 1 });
const tick = (at: number): StreamEvent => ({ type: "tick", at });

describe("the live stream", () => {
  it("is live once data arrives, not when the socket opens", () => {
    expect(run(connect(0)).phase).toBe("connecting");
    expect(run(connect(0), message(100)).phase).toBe("live");
  });

  it("is stale after three silent periods, and live again with the next word", () => {
    const silent = run(connect(0), message(100), tick(100 + STALE_AFTER_MS + 1));
    expect(silent.phase).toBe("stale");
    expect(step(silent, message(9_000)).phase).toBe("live");
  });

  it("keeps the last numbers while it reconnects, and says how old they are", () => {
    const state = run(connect(0), message(1_000), lost(3_000));
    expect(state.data).toBe(data);
    expect(dataAgeMs(state, 6_000)).toBe(5_400);
    expect(statusOf(state, 3_000)).toMatchObject({ word: "Reconnecting", mood: "bad" });
  });

  it("waits twice as long after each failure, at most half a minute", () => {
    expect([1, 2, 3, 4].map((failures) => backoffMs(failures, 1))).toEqual([1_000, 2_000, 4_000, 8_000]);
    expect(backoffMs(50, 1)).toBe(BACKOFF_MOST_MS);
    expect(backoffMs(3, 0)).toBe(2_000);
  });

  it("starts the backoff over only when data arrives, so a crash loop is not hammered", () => {
    const crashing = run(connect(0), lost(10), connect(1_100), lost(1_110));
    expect(crashing.failures).toBe(2);
    expect(crashing.retryAt).toBe(1_110 + 2_000);
    expect(step(step(crashing, connect(3_200)), message(3_300)).failures).toBe(0);
  });

  it("replaces a connection that has been silent too long, but not one that already waits", () => {
    const open = run(connect(0), message(100));
    expect(isDead(open, 100 + DEAD_AFTER_MS)).toBe(false);
    expect(isDead(open, 101 + DEAD_AFTER_MS)).toBe(true);
    expect(isDead(step(open, lost(200)), 999_999)).toBe(false);
    expect(isDead(step(open, { type: "pause" }), 999_999)).toBe(false);
  });

  it("never calls data live that is over 30 s behind, however promptly it is sent", () => {
    const state = run(connect(0), { type: "message", at: 10, data: { ...data, freshness_ms: 42_000 } });
    expect(statusOf(state, 20)).toMatchObject({ word: "Behind", mood: "bad" });
  });
});
