// What failed, in the server's words, and what can be done about it.
import { useEffect } from "preact/hooks";
import type { ApiError } from "../lib/api";
import { Mark } from "./nav";

const RETRY_MS = 5_000;

export function FailurePage({ error, onRetry }: { error: ApiError; onRetry: () => void }) {
  const passing = error.status === 0 || error.status === 503;
  useEffect(() => {
    if (!passing) return;
    const timer = setInterval(onRetry, RETRY_MS);
    return () => clearInterval(timer);
  }, [passing, onRetry]);
  return (
    <main class="plain-page">
      <Mark />
      <h1>{error.title}</h1>
      {error.detail && <p>{error.detail}</p>}
      {error.status === 0 && (
        <p>
          Is <code>viewmeter up</code> still running?
        </p>
      )}
      {passing && <p>Trying again every {RETRY_MS / 1000} s.</p>}
      <p class="code">
        {error.status > 0 && `${error.status} · `}
        {error.code}
      </p>
      <button type="button" class="primary" onClick={onRetry}>
        Try again
      </button>
    </main>
  );
}

/** Inside a card. `kept` says that older numbers are still on the screen. */
export function ErrorNote({ error, kept }: { error: ApiError; kept?: boolean }) {
  return (
    <p class="error-note" role="alert">
      <strong>{error.title}.</strong> {error.detail} {kept && "The last answer is shown."}
    </p>
  );
}
