// One view, told: for whoever is asked at night why a view counts, or does not.
import { useState } from "preact/hooks";
import { api } from "../lib/api";
import { useLoaded } from "../lib/data";
import { clockOf, text, valueName } from "../lib/format";
import type { ToldEvent, ToldView } from "../lib/types";
import { Card, Empty, Skeleton } from "../parts/card";
import { ErrorNote } from "../parts/errors";
import { type Go, PlaceLink } from "../parts/nav";

const REFRESH_MS = 60_000;
/** What every event changes by being one, or in finer parts of what is shown: of no use in a line. */
const HIDDEN = /^events(_|$)|^played_(kbit|ms_)/;
const REASONS: Record<ToldView["not_counted"][number]["reason"], string> = {
  duplicate: "Came twice",
  late: "Late",
  out_of_order: "Out of order",
  interval: "Long interval",
  counter: "Counter fell",
  after_end: "After the end",
};

export function ViewPage({ view, go }: { view: string; go: Go }) {
  const told = useLoaded(view ? `view ${view}` : null, (signal) => api.view(view, signal), REFRESH_MS);
  return (
    <div class="view-page">
      <Search key={view} view={view} go={go} />
      {told.error && <ErrorNote error={told.error} kept={told.data !== null} />}
      {view && told.loading && <Skeleton lines={8} />}
      {told.data && <Told view={told.data} go={go} />}
    </div>
  );
}

function Search({ view, go }: { view: string; go: Go }) {
  const [id, setId] = useState(view);
  return (
    <form
      class="view-search"
      onSubmit={(event) => {
        event.preventDefault();
        if (id.trim()) go({ range: "live", view: id.trim() });
      }}
    >
      <h1>Look up a view</h1>
      <p>Its events, its intervals, and why it was counted or not; from raw events, while these are kept.</p>
      <label class="sr-only" for="view">
        View id, as the player sends it
      </label>
      <input
        id="view"
        value={id}
        placeholder="view_id, as the player sends it"
        spellcheck={false}
        autocomplete="off"
        onInput={(event) => setId(event.currentTarget.value)}
      />
      <button type="submit" class="primary" disabled={id.trim() === ""}>
        Look up
      </button>
    </form>
  );
}

function Told({ view, go }: { view: ToldView; go: Go }) {
  const ended = view.ended_at ? `ended ${clockOf(view.ended_at)} by ${view.ended_by}` : "has not ended";
  const zone = view.started_at.endsWith("Z") ? "UTC" : view.started_at.slice(-6);
  return (
    <div class="grid">
      <Card title="The view" note={`${view.started_at.slice(0, 10)}, times in ${zone}`} class="wide">
        <p class="told-line">
          <PlaceLink to={{ range: "live", video: view.video_id }} go={go}>
            {view.video_id}
          </PlaceLink>{" "}
          of {view.channel_id}, began {clockOf(view.started_at)}, {ended}. Its time is from{" "}
          {TIME_FROM[view.time_from]}.
        </p>
        <p class="told-line soft">
          {Object.entries(view.dimensions)
            .filter(([, value]) => typeof value === "string" && value !== "unknown")
            .map(([name, value]) => valueName(name, value))
            .join(" · ")}
        </p>
      </Card>
      <Card title="Why it counts, or not" class="wide">
        <ol class="told">
          {view.counted.map((one) => (
            <li key={one.measure} class={one.count ? "" : "soft"}>
              <span>{one.measure}</span>
              <strong>{amount(one.measure, one.count)}</strong>
              <span>{one.why.replaceAll("`", "")}</span>
            </li>
          ))}
        </ol>
      </Card>
      {view.not_counted.length > 0 && (
        <Card title="What did not count" class="wide">
          <ol class="told">
            {view.not_counted.map((one, index) => (
              <li key={index}>
                <span>
                  {clockOf(one.at)} · {one.seq}
                </span>
                <strong>{REASONS[one.reason] ?? one.reason}</strong>
                <span>{one.detail.replaceAll("`", "")}</span>
              </li>
            ))}
          </ol>
        </Card>
      )}
      <Card
        title="Events"
        note={view.truncated ? "the first 2,000, by seq" : "by seq; what each changed"}
        class="wide"
      >
        {view.events.length === 0 && <Empty>No event is kept.</Empty>}
        <ol class="told">
          {view.events.map((event, index) => (
            <li key={index} class={event.duplicate ? "soft" : ""}>
              <span>
                {clockOf(event.instant ?? event.ts)} · {event.seq}
              </span>
              <strong>{event.type}</strong>
              <span>{lineOf(event)}</span>
            </li>
          ))}
          {Object.keys(view.changed_by_silence).length > 0 && view.ended_at && (
            <li>
              <span>{clockOf(view.ended_at)}</span>
              <strong>silence</strong>
              <span>{changes(view.changed_by_silence)}</span>
            </li>
          )}
        </ol>
      </Card>
      <Card title="Intervals" note="the state after the first event, the time until the second" class="wide">
        <ol class="told">
          {view.intervals.map((one, index) => (
            <li key={index}>
              <span>
                {one.start ? clockOf(one.start) : "before"} → {clockOf(one.end)}
              </span>
              <strong>{one.state}</strong>
              <span>
                {[
                  one.lasted_ms === null ? "" : `lasted ${text(one.lasted_ms, "ms")}`,
                  one.played_ms ? `played ${text(one.played_ms, "ms")}` : "",
                  one.rebuffered_ms ? `rebuffered ${text(one.rebuffered_ms, "ms")}` : "",
                  one.bitrate_kbps ? text(one.bitrate_kbps, "kbps") : "",
                  one.cdn ?? "",
                ]
                  .filter(Boolean)
                  .join(" · ")}
              </span>
            </li>
          ))}
        </ol>
      </Card>
    </div>
  );
}

const TIME_FROM: Record<ToldView["time_from"], string> = {
  counters: "its player's own counters",
  state: "the clock, while it plays",
  unknown: "nowhere: its player does not tell its state",
};

function amount(measure: string, value: number): string {
  return text(value, measure.endsWith("_ms") ? "ms" : "count");
}

function changes(changed: Record<string, number>): string {
  return Object.entries(changed)
    .filter(([measure]) => !HIDDEN.test(measure))
    .map(([measure, value]) => `${measure} ${value > 0 ? "+" : "−"}${amount(measure, Math.abs(value))}`)
    .join(", ");
}

function lineOf(event: ToldEvent): string {
  if (event.duplicate) return "came again: changes nothing";
  return [
    event.lost_before ? `${event.lost_before} before it never came` : "",
    `then ${event.state}`,
    changes(event.changed),
    event.error_code ?? "",
    event.late ? `received ${text(event.behind_ms, "ms")} after a later one` : "",
  ]
    .filter(Boolean)
    .join(" · ");
}
