// The top bar: the mark, the channel, the range, the state of the stream, theme and sign-out.
import { useState } from "preact/hooks";
import { api } from "../lib/api";
import { useQuery } from "../lib/data";
import { bodyOf } from "../lib/query";
import { rangeOf } from "../lib/range";
import type { Place } from "../lib/scope";
import type { StreamState } from "../lib/stream";
import { toggleTheme } from "../lib/theme";
import type { Session } from "../lib/types";
import { LiveStatus } from "./live-status";
import { type Go, Mark, RangeSwitch } from "./nav";

interface Props {
  session: Session;
  place: Place;
  go: Go;
  live: StreamState;
  onSignedOut: () => void;
}

export function Header({ session, place, go, live, onSignedOut }: Props) {
  return (
    <header class="top">
      <div class="top-row">
        <a
          class="brand"
          href="/"
          onClick={(event) => {
            event.preventDefault();
            go({ range: place.range });
          }}
        >
          <Mark />
          <span>Viewmeter</span>
        </a>
        <span class="tenant" title="Tenant">
          {session.tenant}
        </span>
        <ChannelSelect session={session} place={place} go={go} />
        <div class="top-status">
          {place.view === undefined && place.range === "live" && <LiveStatus live={live} />}
        </div>
        <RangeSwitch place={place} go={go} />
        <ThemeButton />
        <button
          type="button"
          class="icon-button"
          title="Sign out"
          aria-label="Sign out"
          onClick={() => void api.signOut().finally(onSignedOut)}
        >
          <svg viewBox="0 0 20 20" aria-hidden="true">
            <path d="M8 3.5H5.5a2 2 0 0 0-2 2v9a2 2 0 0 0 2 2H8M12.5 13.5 16 10l-3.5-3.5M16 10H8" />
          </svg>
        </button>
      </div>
    </header>
  );
}

/** Offered when there is a choice: the channels of the key, or those with plays in the last 30 days. */
function ChannelSelect({ session, place, go }: Pick<Props, "session" | "place" | "go">) {
  const seen = useQuery(
    session.channels === null ? "channels" : null,
    () =>
      bodyOf({
        scope: {},
        interval: rangeOf("30d", Date.now()),
        granularity: "total",
        metrics: ["plays"],
        dimensions: ["channel_id"],
        orderBy: ["plays", "desc"],
        limit: 100,
      }),
    10 * 60_000,
  );
  const names = session.channels ?? (seen.data?.rows ?? []).map((row) => String(row.channel_id));
  const channels = place.channel && !names.includes(place.channel) ? [place.channel, ...names] : names;
  if (channels.length < 2) return null;
  return (
    <select
      class="channel"
      aria-label="Channel"
      value={place.channel ?? ""}
      onChange={(event) => {
        const channel = event.currentTarget.value;
        go(channel ? { range: place.range, channel } : { range: place.range });
      }}
    >
      <option value="">All channels</option>
      {channels.map((channel) => (
        <option key={channel} value={channel}>
          {channel}
        </option>
      ))}
    </select>
  );
}

function ThemeButton() {
  const [, redraw] = useState(0);
  return (
    <button
      type="button"
      class="icon-button"
      title="Light or dark"
      aria-label="Switch between light and dark"
      onClick={() => {
        toggleTheme();
        redraw((n) => n + 1);
      }}
    >
      <svg viewBox="0 0 20 20" aria-hidden="true">
        <circle cx="10" cy="10" r="6.5" />
        <path class="filled" d="M10 3.5a6.5 6.5 0 0 1 0 13z" />
      </svg>
    </button>
  );
}
