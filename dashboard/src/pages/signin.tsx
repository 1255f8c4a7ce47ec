// For whoever has no session: how to get a link, or a key to paste.
import { useState } from "preact/hooks";
import { ApiError, api } from "../lib/api";
import { Mark } from "../parts/nav";

export function SignInPage({ onSignedIn }: { onSignedIn: () => void }) {
  const [key, setKey] = useState("");
  const [busy, setBusy] = useState(false);
  const [failure, setFailure] = useState("");
  const submit = async (event: Event) => {
    event.preventDefault();
    setBusy(true);
    setFailure("");
    try {
      await api.signIn(key.trim());
      onSignedIn();
    } catch (cause) {
      setFailure(sentence(cause));
      setBusy(false);
    }
  };
  const expired = new URLSearchParams(location.search).has("signin");
  return (
    <main class="plain-page signin">
      <Mark />
      <h1>Sign in to Viewmeter</h1>
      {expired && <p class="error-note">That link was used before or is too old. Links work once.</p>}
      <p>On the machine that runs Viewmeter, print a new one-time link and open it:</p>
      <pre>viewmeter signin --data DIR</pre>
      <p class="or">or paste a secret key</p>
      <form onSubmit={(event) => void submit(event)}>
        <label for="key">Secret key</label>
        <input
          id="key"
          type="password"
          autocomplete="current-password"
          spellcheck={false}
          placeholder="sk_…"
          required
          value={key}
          aria-describedby={failure ? "key-error" : undefined}
          aria-invalid={failure !== ""}
          onInput={(event) => setKey(event.currentTarget.value)}
        />
        <button type="submit" class="primary" disabled={busy || key.trim() === ""}>
          {busy ? "Signing in…" : "Sign in"}
        </button>
        {failure && (
          <p id="key-error" class="error-note" role="alert">
            {failure}
          </p>
        )}
      </form>
    </main>
  );
}

function sentence(cause: unknown): string {
  if (!(cause instanceof ApiError)) return String(cause);
  return cause.detail ? `${cause.title}. ${cause.detail}` : `${cause.title}.`;
}
