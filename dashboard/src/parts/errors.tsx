// What failed, in the server's words, and what can be done about it.
import type { ApiError } from "../lib/api";
import { Mark } from "./nav";

export function FailurePage({ error, onRetry }: { error: ApiError; onRetry: () => void }) {
  return (
    <main class="plain-page">
      <Mark />
      <h1>{error.title}</h1>
      {error.detail && <p>{error.detail}</p>}
      {error.status === 0 && <p>Is `viewmeter up` still running? This page tries again when you do.</p>}
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
