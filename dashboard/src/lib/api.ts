// HTTP in one place: same-origin JSON with the session cookie, problems (RFC 9457) as typed errors.
import type { Dimension, Metric, QueryAnswer, QueryBody, Session, ToldView } from "./types";

export class ApiError extends Error {
  constructor(
    readonly status: number,
    readonly code: string,
    readonly title: string,
    readonly detail: string,
  ) {
    super(detail || title);
  }

  get signedOut(): boolean {
    return this.status === 401;
  }
}

/** Reads a problem document; an answer that is none (a proxy's HTML page) still becomes a sentence. */
export async function problemOf(response: Response): Promise<ApiError> {
  let body: Record<string, unknown> = {};
  try {
    const parsed: unknown = await response.json();
    if (typeof parsed === "object" && parsed !== null) body = parsed as Record<string, unknown>;
  } catch {
    // Not JSON: the status line has to do.
  }
  const word = (key: string) => (typeof body[key] === "string" ? (body[key] as string) : "");
  const title = word("title") || `The server answered ${response.status} ${response.statusText}`.trim();
  return new ApiError(response.status, word("code") || `http_${response.status}`, title, word("detail"));
}

async function call(path: string, init: RequestInit = {}): Promise<Response> {
  let response: Response;
  try {
    response = await fetch(path, { credentials: "same-origin", ...init });
  } catch (cause) {
    if (cause instanceof DOMException && cause.name === "AbortError") throw cause;
    throw new ApiError(0, "unreachable", "The server cannot be reached", "");
  }
  if (!response.ok) throw await problemOf(response);
  return response;
}

async function json<T>(path: string, init?: RequestInit): Promise<T> {
  return (await (await call(path, init)).json()) as T;
}

function post(body: unknown, signal?: AbortSignal): RequestInit {
  const init: RequestInit = {
    method: "POST",
    headers: { "Content-Type": "application/json" },
    body: JSON.stringify(body),
  };
  return signal ? { ...init, signal } : init;
}

export const api = {
  session: () => json<Session>("/api/v1/session"),
  signIn: async (secretKey: string) => {
    await call("/api/v1/session", post({ secret_key: secretKey }));
  },
  signOut: async () => {
    await call("/api/v1/session", { method: "DELETE" });
  },
  metrics: async () => (await json<{ metrics: Metric[] }>("/api/v1/analytics/metrics")).metrics,
  dimensions: async () =>
    (await json<{ dimensions: Dimension[] }>("/api/v1/analytics/dimensions")).dimensions,
  query: (body: QueryBody, signal?: AbortSignal) =>
    json<QueryAnswer>("/api/v1/analytics/query", post(body, signal)),
  retention: (videoId: string, search: string, signal?: AbortSignal) =>
    json<{ buckets: { from_ratio: number; viewers_ratio: number | null; seconds?: number | null }[] }>(
      `/api/v1/analytics/retention/${encodeURIComponent(videoId)}?${search}`,
      signal ? { signal } : {},
    ),
  view: (viewId: string, signal?: AbortSignal) =>
    json<ToldView>(`/api/v1/views/${encodeURIComponent(viewId)}`, signal ? { signal } : {}),
  version: async () => {
    const answer = await json<Record<string, unknown>>("/version");
    return typeof answer.version === "string" ? answer.version : "";
  },
};
