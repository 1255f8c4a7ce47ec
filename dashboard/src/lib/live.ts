// GET /api/v1/live as a hook: EventSource, reconnection with backoff, rest while the page is hidden.
import { useEffect, useReducer, useRef } from "preact/hooks";
import { ApiError, api } from "./api";
import { type Scope, scopeSearch } from "./scope";
import { isDead, START, type StreamState, step } from "./stream";
import type { Realtime } from "./types";

/** Six connections a host is all HTTP/1.1 has: a tab nobody looks at gives its own back. */
const HIDDEN_REST_MS = 60_000;

class LiveConnection {
  private source: EventSource | null = null;
  private state: StreamState = START;
  private clock: ReturnType<typeof setInterval>;
  private hiddenSince: number | null = null;

  constructor(
    private readonly url: string,
    private readonly onChange: (state: StreamState) => void,
    private readonly onSignedOut: () => void,
  ) {
    this.clock = setInterval(this.tick, 500);
    document.addEventListener("visibilitychange", this.visibility);
    window.addEventListener("online", this.retryNow);
    this.connect();
  }

  close() {
    clearInterval(this.clock);
    document.removeEventListener("visibilitychange", this.visibility);
    window.removeEventListener("online", this.retryNow);
    this.source?.close();
  }

  private apply(event: Parameters<typeof step>[1]) {
    const next = step(this.state, event);
    if (next === this.state) return;
    this.state = next;
    this.onChange(next);
  }

  private connect() {
    this.source?.close();
    this.apply({ type: "connect", at: performance.now() });
    const source = new EventSource(this.url);
    this.source = source;
    source.addEventListener("metrics", (message) => {
      const data = JSON.parse((message as MessageEvent<string>).data) as Realtime;
      this.apply({ type: "message", at: performance.now(), data });
    });
    source.addEventListener("error", () => this.lost(source));
  }

  private lost(source: EventSource) {
    if (source !== this.source) return;
    source.close();
    this.source = null;
    this.apply({ type: "lost", at: performance.now(), jitter: Math.random() });
    // EventSource hides the status, so ask elsewhere whether the session is what failed.
    api.session().catch((error: unknown) => {
      if (!(error instanceof ApiError && error.signedOut)) return;
      this.apply({ type: "signed_out" });
      this.onSignedOut();
    });
  }

  private tick = () => {
    const now = performance.now();
    if (this.hiddenSince !== null && now - this.hiddenSince > HIDDEN_REST_MS && this.source) {
      this.source.close();
      this.source = null;
      this.apply({ type: "pause" });
    }
    this.apply({ type: "tick", at: now });
    if (this.state.retryAt !== null && now >= this.state.retryAt) this.connect();
    else if (this.source && isDead(this.state, now)) this.lost(this.source);
  };

  private visibility = () => {
    this.hiddenSince = document.hidden ? performance.now() : null;
    if (!document.hidden && this.state.phase === "paused") this.connect();
    else if (!document.hidden) this.retryNow();
  };

  private retryNow = () => {
    if (this.state.retryAt !== null) this.connect();
  };
}

export function useLive(scope: Scope, enabled: boolean, onSignedOut: () => void): StreamState {
  const state = useRef<StreamState>(START);
  const [, render] = useReducer<number, void>((n) => n + 1, 0);
  const search = scopeSearch(scope);
  useEffect(() => {
    state.current = START;
    render();
    if (!enabled) return;
    const connection = new LiveConnection(
      `/api/v1/live${search}`,
      (next) => {
        state.current = next;
        render();
      },
      onSignedOut,
    );
    return () => connection.close();
  }, [search, enabled, onSignedOut]);
  return state.current;
}
