// The state of the stream in words. Honest: what is old says how old, and what is retried says when.
import { useEffect, useReducer } from "preact/hooks";
import { age } from "../lib/format";
import { dataAgeMs, type StreamState } from "../lib/stream";

/** The promise of the product: an event shows within 30 s. Older than that is not "live", whatever arrives. */
const BEHIND_MS = 30_000;

export type Mood = "good" | "wait" | "bad";

export function statusOf(live: StreamState, now: number): { mood: Mood; word: string; detail: string } {
  const old = dataAgeMs(live, now);
  const updated = old === null ? "" : `updated ${age(old)} ago`;
  switch (live.phase) {
    case "live":
      return old !== null && old > BEHIND_MS
        ? { mood: "bad", word: "Behind", detail: updated }
        : { mood: "good", word: "Live", detail: updated };
    case "connecting":
      return { mood: "wait", word: "Connecting", detail: updated };
    case "stale":
      return { mood: "wait", word: "No news", detail: updated };
    case "reconnecting": {
      const wait = live.retryAt === null ? 0 : Math.max(0, live.retryAt - now);
      const next = wait > 0 ? `next try in ${Math.ceil(wait / 1000)} s` : "trying now";
      return { mood: "bad", word: "Reconnecting", detail: updated ? `${next} · ${updated}` : next };
    }
    case "paused":
      return { mood: "wait", word: "Paused", detail: updated };
    case "signed_out":
      return { mood: "bad", word: "Signed out", detail: "" };
  }
}

export function LiveStatus({ live }: { live: StreamState }) {
  const [, tick] = useReducer<number, void>((n) => n + 1, 0);
  useEffect(() => {
    const timer = setInterval(tick, 500);
    return () => clearInterval(timer);
  }, []);
  const { mood, word, detail } = statusOf(live, performance.now());
  return (
    <div class={`status ${mood}`}>
      <span class="dot" aria-hidden="true" />
      {/* Only the word is announced: a counter read aloud twice a second would be noise. */}
      <strong aria-live="polite">{word}</strong>
      {detail && <span class="detail">{detail}</span>}
    </div>
  );
}
