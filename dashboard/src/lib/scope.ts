// What the page is about and over which time: read from the URL, written to the URL, so every view is a link.
import { useEffect, useState } from "preact/hooks";

export const RANGES = ["live", "24h", "7d", "30d", "90d"] as const;
export type RangeName = (typeof RANGES)[number];

export interface Scope {
  video?: string;
  channel?: string;
}

export interface Place extends Scope {
  range: RangeName;
  /** The view that is looked up, "" before one is named; then nothing else of the place matters. */
  view?: string;
}

export function readPlace(search: string): Place {
  const params = new URLSearchParams(search);
  const asked = params.get("range") ?? "live";
  const place: Place = {
    range: (RANGES as readonly string[]).includes(asked) ? (asked as RangeName) : "live",
  };
  const video = params.get("video");
  const channel = params.get("channel");
  if (video) place.video = video;
  if (channel) place.channel = channel;
  const view = params.get("view");
  if (view !== null) place.view = view;
  return place;
}

export function placeHref(place: Place): string {
  if (place.view !== undefined) return `/?${new URLSearchParams({ view: place.view })}`;
  const params = new URLSearchParams();
  if (place.channel) params.set("channel", place.channel);
  if (place.video) params.set("video", place.video);
  if (place.range !== "live") params.set("range", place.range);
  const search = params.toString();
  return search ? `/?${search}` : "/";
}

/** The query string of the live stream: a video, else a channel, else everything the key may see. */
export function scopeSearch(scope: Scope): string {
  const params = new URLSearchParams();
  if (scope.video) params.set("video_id", scope.video);
  if (scope.channel) params.set("channel_id", scope.channel);
  const search = params.toString();
  return search ? `?${search}` : "";
}

export function usePlace(): [Place, (next: Place) => void] {
  const [place, setPlace] = useState(() => readPlace(location.search));
  useEffect(() => {
    const read = () => setPlace(readPlace(location.search));
    addEventListener("popstate", read);
    return () => removeEventListener("popstate", read);
  }, []);
  const go = (next: Place) => {
    const moved = next.video !== place.video || next.channel !== place.channel || next.view !== place.view;
    history.pushState(null, "", placeHref(next));
    setPlace(next);
    if (moved) scrollTo(0, 0);
  };
  return [place, go];
}
