// Server state as hooks: the catalogue, and queries that refresh while they are shown.
import { createContext } from "preact";
import { useContext, useEffect, useReducer, useRef } from "preact/hooks";
import { ApiError, api } from "./api";
import { type Ask, askGroups, bodyOf } from "./query";
import type { Dimension, Metric, QueryAnswer, QueryBody, Row } from "./types";

export interface Catalogue {
  metrics: Map<string, Metric>;
  dimensions: Map<string, Dimension>;
}

export const CatalogueContext = createContext<Catalogue>({ metrics: new Map(), dimensions: new Map() });

/** A metric the server does not know is shown by its name and plain numbers, never by invented words. */
export function useMetric(name: string): Metric {
  const known = useContext(CatalogueContext).metrics.get(name);
  return (
    known ?? {
      name,
      label: name,
      unit: "count",
      kind: "unknown",
      better: "neutral",
      error: null,
      version: null,
    }
  );
}

export function useDimensionLabel(name: string): string {
  return useContext(CatalogueContext).dimensions.get(name)?.label ?? name;
}

export const SignedOutContext = createContext<() => void>(() => {});

export interface Loaded<T> {
  data: T | null;
  error: ApiError | null;
  loading: boolean;
}

type Fetcher<T> = (signal: AbortSignal) => Promise<T>;

/** Fetches when `key` changes and every `refreshMs`. A failed refresh keeps the last answer beside its error. */
export function useLoaded<T>(key: string | null, fetcher: Fetcher<T>, refreshMs: number): Loaded<T> {
  const held = useRef<{ key: string | null; value: Loaded<T> }>({ key: null, value: EMPTY as Loaded<T> });
  const [, render] = useReducer<number, void>((n) => n + 1, 0);
  const latest = useRef(fetcher);
  latest.current = fetcher;
  const signedOut = useContext(SignedOutContext);
  useEffect(() => {
    if (key === null) return;
    const abort = new AbortController();
    const put = (value: Loaded<T>) => {
      if (abort.signal.aborted) return;
      held.current = { key, value };
      render();
    };
    const load = async () => {
      if (document.hidden && held.current.key === key) return;
      try {
        put({ data: await latest.current(abort.signal), error: null, loading: false });
      } catch (cause) {
        if (abort.signal.aborted) return;
        const error = cause instanceof ApiError ? cause : new ApiError(0, "unreadable", String(cause), "");
        if (error.signedOut) signedOut();
        put({ data: held.current.key === key ? held.current.value.data : null, error, loading: false });
      }
    };
    void load();
    const timer = setInterval(load, refreshMs);
    return () => {
      abort.abort();
      clearInterval(timer);
    };
  }, [key, refreshMs, signedOut]);
  return held.current.key === key ? held.current.value : (EMPTY as Loaded<T>);
}

const EMPTY: Loaded<never> = { data: null, error: null, loading: true };

/** `build` is called anew for each fetch, so that ranges move with the clock; `key` says when to start over. */
export function useQuery(key: string | null, build: () => QueryBody, refreshMs: number): Loaded<QueryAnswer> {
  return useLoaded(key, (signal) => api.query(build(), signal), refreshMs);
}

export interface Merged {
  rows: Row[];
  refused: Map<string, ApiError>;
  meta: QueryAnswer["meta"];
}

/** One time series or total over metrics that no single rollup may hold: asked in groups, joined by `time`. */
export async function askMerged(ask: Ask, catalogue: Catalogue, signal: AbortSignal): Promise<Merged> {
  const groups = askGroups(ask.metrics, catalogue.metrics);
  const answers = await Promise.allSettled(
    groups.map((metrics) => api.query(bodyOf({ ...ask, metrics }), signal)),
  );
  const rows = new Map<unknown, Row>();
  const refused = new Map<string, ApiError>();
  let meta: QueryAnswer["meta"] = {};
  answers.forEach((answer, index) => {
    if (answer.status === "fulfilled") {
      meta = together(meta, answer.value.meta);
      for (const row of answer.value.rows) {
        // The one row of a total may begin earlier for one group than for another: what is kept is of whole hours or days.
        const at = ask.granularity === "total" ? "" : (row.time ?? "");
        rows.set(at, { ...rows.get(at), ...row });
      }
      return;
    }
    if (!(answer.reason instanceof ApiError) || answer.reason.status !== 422) throw answer.reason;
    for (const name of groups[index] ?? []) refused.set(name, answer.reason);
  });
  return { rows: [...rows.values()], refused, meta };
}

function together(one: QueryAnswer["meta"], more: QueryAnswer["meta"]): QueryAnswer["meta"] {
  const closed = [one.closed_until, more.closed_until].filter((at) => typeof at === "string");
  return {
    ...more,
    ...one,
    approximate: { ...one.approximate, ...more.approximate },
    sources: [...new Set([...(one.sources ?? []), ...(more.sources ?? [])])],
    closed_until: closed.sort((a, b) => Date.parse(a) - Date.parse(b))[0] ?? null,
  };
}
