// Before the first view: what to paste, from where this page really is.
import { useState } from "preact/hooks";

function snippet(origin: string): string {
  return `curl -i '${origin}/api/v1/events/beacon?key=pk_…' \\
  -H 'Content-Type: application/json' \\
  -d '[{"type":"play","ts":'$(date +%s000)',"view_id":"my-first-view","seq":0,
        "video_id":"my-video","channel_id":"my-channel","viewer_id":"me",
        "position_ms":0,"duration_ms":60000}]'`;
}

export function Onboarding() {
  const [copied, setCopied] = useState(false);
  const code = snippet(location.origin);
  const copy = async () => {
    await navigator.clipboard.writeText(code);
    setCopied(true);
    setTimeout(() => setCopied(false), 2000);
  };
  return (
    <section class="card onboarding">
      <h2>No views yet</h2>
      <p>
        Paste this snippet into a terminal with your ingest key (it starts with <code>pk_</code>) in place of{" "}
        <code>pk_…</code>. The answer is <code>204</code>, and one viewer appears here within two seconds.
      </p>
      <div class="snippet">
        <pre>{code}</pre>
        {navigator.clipboard && (
          <button type="button" onClick={() => void copy()} aria-live="polite">
            {copied ? "Copied" : "Copy"}
          </button>
        )}
      </div>
      <p class="muted">
        For a page full of people, run <code>viewmeter demo</code>. hls.js, dash.js and Shaka Player report by
        themselves when their CMCD event mode is pointed at{" "}
        <code>{`${location.origin}/api/v1/events/cmcd?key=pk_…`}</code>. All of the API is described at{" "}
        <a href="/docs">/docs</a>.
      </p>
    </section>
  );
}
