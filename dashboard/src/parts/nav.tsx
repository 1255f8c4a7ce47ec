// Where we are and how to get elsewhere; every step is a plain link that also works in a new tab.
import type { ComponentChildren } from "preact";
import { type Place, placeHref, RANGES, type RangeName } from "../lib/scope";

export type Go = (next: Place) => void;

const RANGE_NAMES: Record<RangeName, string> = {
  live: "Live",
  "24h": "24 h",
  "7d": "7 d",
  "30d": "30 d",
  "90d": "90 d",
};
const RANGE_TITLES: Record<RangeName, string> = {
  live: "Now and the last 60 minutes",
  "24h": "The last 24 hours",
  "7d": "The last 7 days",
  "30d": "The last 30 days",
  "90d": "The last 90 days",
};

export function rangeTitle(range: RangeName): string {
  return RANGE_TITLES[range];
}

interface LinkProps {
  to: Place;
  go: Go;
  class?: string;
  current?: boolean;
  title?: string;
  children: ComponentChildren;
}

export function PlaceLink({ to, go, current, children, ...rest }: LinkProps) {
  return (
    <a
      {...rest}
      href={placeHref(to)}
      aria-current={current ? "page" : undefined}
      onClick={(event) => {
        if (event.metaKey || event.ctrlKey || event.shiftKey || event.altKey || event.button !== 0) return;
        event.preventDefault();
        go(to);
      }}
    >
      {children}
    </a>
  );
}

export function RangeSwitch({ place, go }: { place: Place; go: Go }) {
  const { view, ...parent } = place;
  return (
    <nav class="ranges" aria-label="Time range">
      {RANGES.map((range) => (
        <PlaceLink
          key={range}
          to={{ ...parent, range }}
          go={go}
          current={view === undefined && range === place.range}
          title={RANGE_TITLES[range]}
        >
          {RANGE_NAMES[range]}
        </PlaceLink>
      ))}
    </nav>
  );
}

export function Breadcrumb({ place, go }: { place: Place; go: Go }) {
  if (!place.video) return <h1 class="sr-only">{place.channel ?? "All videos"}</h1>;
  const { video, ...parent } = place;
  return (
    <div class="crumb">
      <PlaceLink to={parent} go={go}>
        ← {place.channel ? place.channel : "All videos"}
      </PlaceLink>
      <h1 title={video}>{video}</h1>
    </div>
  );
}

export function Mark() {
  return (
    <svg class="mark" viewBox="0 0 32 32" aria-hidden="true">
      <rect width="32" height="32" rx="8" />
      <path d="M7 10l6.2 12.5L19 12" />
      <circle cx="23.5" cy="9.5" r="3.2" />
    </svg>
  );
}
