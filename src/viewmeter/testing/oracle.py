"""The oracle: what a list of events counts for, said as plainly as possible.

In: event dicts (wire fields plus `tenant_id`, `received_at`, enrichment; None or a negative number is
absent). Out: increments and presence. Promised: it shares nothing with the rule, the catalogue or any
engine, so that agreement means something; a measure is looked up in the whole view, nothing is carried
along but the state. Not done: speed, late events, sketches. Sources: DESIGN 3 and decision 0001 (its points
are cited as 0001.n).
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import accumulate, pairwise
from typing import Any, Final, NamedTuple

Event = Mapping[str, Any]
Key = tuple[str, str]  # tenant_id, view_id

SILENCE_MS: Final = 300_000
PRESENCE_MS: Final = 60_000
CAP_MS: Final = 60_000
BITRATE_EDGES: Final = (0, 300, 800, 1500, 3000, 6000, 12000)
BASE: Final = {"request": "starting", "play": "playing", "pause": "paused"} | {
    "complete": "ended",
    "exit": "gone",
}


class Increment(NamedTuple):
    """One fact: `amount` of `measure` at an instant, under this bitrate (None: unknown) and CDN."""

    view: Key
    instant_ms: int
    measure: str
    amount: int
    bitrate_kbps: int | None
    cdn: str


class Moment(NamedTuple):
    """An event, its instant, and what holds after it."""

    event: Event
    instant: int = -(10**18)
    base: str | None = None
    seeking: bool = False
    rebuffering: bool = False
    bitrate: int | None = None
    cdn: str = "unknown"
    duration: int = 0


def number(event: Event, field: str) -> int | None:
    """Return the event's number, or None where it is absent."""
    value = event.get(field)
    return None if value is None or value < 0 else int(value)


def own_cdn(event: Event) -> str:
    """Return the CDN that the event itself names."""
    return event.get("cdn") or "unknown"


def is_fatal(event: Event) -> bool:
    """Return whether the event is an error that ended playback."""
    return event["type"] == "error" and bool(number(event, "fatal"))


def views(events: Iterable[Event]) -> dict[Key, tuple[list[Event], list[Event]]]:
    """Return per view its distinct events by `seq`, and the duplicates: the first received stands."""
    found: dict[Key, tuple[dict[int, Event], list[Event]]] = defaultdict(lambda: ({}, []))
    for event in sorted(events, key=lambda e: e["received_at"]):
        distinct, duplicates = found[event["tenant_id"], event["view_id"]]
        if distinct.setdefault(event["seq"], event) is not event:
            duplicates.append(event)
    return {key: ([d[seq] for seq in sorted(d)], again) for key, (d, again) in found.items()}


def moments(events: Sequence[Event]) -> list[Moment]:
    """Return the state of the view after each of its events: a base, two overlays, the last known."""
    after = [Moment({})]
    for event in events:
        kind, now = event["type"], after[-1]
        sets = "failed" if is_fatal(event) else BASE.get(kind)
        if kind == "error" and event.get("halted") and number(event, "fatal") is None:
            sets = "paused"
        if kind == "heartbeat" and now.base is None and not event.get("blind"):
            sets = "playing"
        base = sets or now.base
        seeking = kind == "seek" or (now.seeking and kind in ("buffer", "quality_change", "other"))
        rebuffering = (now.rebuffering and not sets and kind != "seek") or (
            kind == "buffer" and base == "playing" and not seeking
        )
        bitrate = number(event, "bitrate_kbps") or now.bitrate  # 0 counts as unknown (0001.15)
        cdn = now.cdn if own_cdn(event) == "unknown" else own_cdn(event)
        told = number(event, "duration_ms")
        duration = now.duration if told is None else told
        instant = max(now.instant, event["ts"])
        after.append(Moment(event, instant, base, seeking, rebuffering, bitrate, cdn, duration))
    return after[1:]


def first_shown(events: Sequence[Event]) -> int:
    """Return the index of the first event other than `request`: it decides on counters and on blindness."""
    return next((i for i, event in enumerate(events) if event["type"] != "request"), len(events))


def is_blind(events: Sequence[Event]) -> bool:
    """Return whether the player of this view does not tell its state (0001.10)."""
    return any(event.get("blind") for event in events[first_shown(events) :][:1])


def _time_while(state: Callable[[Moment], bool]) -> Callable[[Moment, Moment], int]:
    return lambda a, b: min(b.instant - a.instant, CAP_MS) if state(a) else 0


BY_STATE: Final[dict[str, Callable[[Moment, Moment], int]]] = {
    "played_ms": _time_while(lambda m: m.base == "playing" and not m.seeking and not m.rebuffering),
    "rebuffered_ms": _time_while(lambda m: m.base == "playing" and m.rebuffering),
    "rebuffer_count": lambda a, b: int(b.rebuffering and not a.rebuffering),
}


def amounts(field: str, after: Sequence[Moment], counted_from: int | None) -> list[int]:
    """Return what each event adds to `field`: by the view's counter from there on, or (None) by its state."""
    if counted_from is None:
        return [0, *(BY_STATE[field](a, b) for a, b in pairwise(after))]
    told = [0 if i < counted_from else number(m.event, field) or 0 for i, m in enumerate(after)]
    return [b - a for a, b in pairwise([0, *accumulate(told, max)])]


class _View:
    """One view: its distinct events, what holds after each, and the facts found so far."""

    def __init__(self, key: Key, events: Sequence[Event]) -> None:
        self.key, self.events, self.n, self.after = key, events, len(events), moments(events)
        self.kinds = [event["type"] for event in events]
        self.says_plays = [kind in ("play", "complete") for kind in self.kinds]
        self.shown, self.blind = first_shown(events), is_blind(events)
        self.played = [0] * self.n
        self.facts: list[Increment] = []

    def add(self, i: int, measure: str, amount: int = 1, own: bool = False) -> None:
        """Count at event i (n: never) under what was known before it; `own`: what it says itself (0001.2)."""
        if i < self.n:
            before, event = self.after[i - 1], self.events[i]
            known = (None, own_cdn(event)) if own or i == 0 else (before.bitrate, before.cdn)
            self.facts.append(Increment(self.key, self.after[i].instant, measure, amount, *known))

    def first(self, holds: Callable[[int], bool], start: int = 0) -> int:
        """Return the first event from `start` on of which this holds, or n."""
        return next((i for i in range(start, self.n) if holds(i)), self.n)


def increments(events: Iterable[Event], now_ms: int) -> list[Increment]:
    """Return every fact of these events, given that nothing more was heard up to `now_ms`."""
    out: list[Increment] = []
    for key, (distinct, duplicates) in views(events).items():
        view = _View(key, distinct)
        _time(view)
        _each_event(view)
        _startup(view)
        _once_and_end(view, now_ms)
        out += view.facts
        out += [Increment(key, e["ts"], "duplicate_events", 1, None, own_cdn(e)) for e in duplicates]
    return [fact for fact in out if fact.amount]


def _time(view: _View) -> None:
    for field in () if view.blind else BY_STATE:
        by_counter = view.shown < view.n and number(view.events[view.shown], field) is not None
        added = amounts(field, view.after, view.shown if by_counter else None)
        view.played = added if field == "played_ms" else view.played
        for i in range(view.n):
            view.add(i, field, added[i], own=by_counter and i == view.shown)
    for fact in [f for f in view.facts if f.measure == "played_ms" and f.bitrate_kbps]:
        rate, edges = fact.bitrate_kbps or 0, [*BITRATE_EDGES, "up"]
        at = sum(edge <= rate for edge in BITRATE_EDGES)
        view.facts.append(fact._replace(measure=f"played_ms_{edges[at - 1]}_{edges[at]}"))
        view.facts.append(fact._replace(measure="played_ms_known_bitrate"))
        view.facts.append(fact._replace(measure="played_kbit", amount=fact.amount * rate))


def _each_event(view: _View) -> None:
    for i, event in enumerate(view.events):
        kind = view.kinds[i]
        view.add(i, "events")
        view.add(i, f"events_{kind}")
        view.add(i, "lost_events", event["seq"] - (view.events[i - 1]["seq"] + 1 if i else 0))
        if kind in ("seek", "pause"):
            view.add(i, f"{kind}s")
        rate, before = number(event, "bitrate_kbps"), view.after[i - 1].bitrate if i else None
        if kind == "quality_change" and rate and before and rate != before:
            view.add(i, "upshifts" if rate > before else "downshifts")


def _startup(view: _View) -> None:
    play = view.first(lambda i: view.kinds[i] == "play")
    if play == view.n:
        return
    told, after = number(view.events[play], "startup_ms"), view.after
    whole = view.kinds[0] == "request" and view.events[play]["seq"] - view.events[0]["seq"] == play
    if told is not None or whole:
        view.add(play, "startups")
        view.add(play, "startup_ms", after[play].instant - after[0].instant if told is None else told)


def _once_and_end(view: _View, now_ms: int) -> None:
    n, kinds, after, first, says_plays = view.n, view.kinds, view.after, view.first, view.says_plays
    total = list(accumulate(view.played))
    shown_playing = [m.base == "playing" and not view.blind for m in after]
    plays = first(lambda i: says_plays[i] or shown_playing[i] or total[i] > 0)
    fatal = first(lambda i: is_fatal(view.events[i]))
    view.add(0, "attempts")
    view.add(plays, "plays")
    view.add(plays, "blind_plays", int(view.blind))
    view.add(first(lambda i: kinds[i] == "complete"), "completes")
    view.add(first(lambda i: total[i] >= min(30_000, after[i].duration / 2 or 30_000)), "engaged_views")

    # The end comes with event `last`, or by the silence after it (beyond the last event is now).
    silent = [b - a > SILENCE_MS for a, b in pairwise([*(m.instant for m in after), now_ms])]
    speaks = [i == fatal or kinds[i] in ("complete", "exit") for i in range(n)]
    last = first(lambda i: speaks[i] or silent[i])
    unsure = [kinds[i] == "error" and number(view.events[i], "fatal") is None for i in range(n)]
    words = [unsure[i] for i in range(min(last + 1, n)) if unsure[i] or says_plays[i]]
    doubtful = last < min(fatal, n) and words[-1:] == [True]  # an unknown failure at the end (0001.5)
    back = first(lambda i: says_plays[i], start=last + 1) if doubtful else n
    if not doubtful or back < fatal:
        view.add(fatal, "failures")
    if back < fatal:
        view.add(back, "failures", -1)
    if last < n and not doubtful and min(plays, fatal) > last:
        view.add(min(plays, fatal), "exits_before_start", -1)
    elif not doubtful:
        return
    word, end = "failures" if doubtful else "exits_before_start", after[last]
    if speaks[last]:
        view.add(last, word)
    else:
        view.facts.append(Increment(view.key, end.instant + SILENCE_MS, word, 1, end.bitrate, end.cdn))


def presence(events: Sequence[Event]) -> list[tuple[int, int]]:
    """Return the spans `[start, end)` in which a view of these distinct events is present (0001.11)."""
    after, blind = moments(events), is_blind(events)
    over = [m.base in ("ended", "failed", "gone") for m in after]
    spans = []
    for i, m in enumerate(after):
        if not over[i] and (blind or m.base in ("starting", "playing") or m.event["type"] == "pause"):
            cut = next((after[j].instant for j in range(i, len(after)) if over[j]), m.instant + PRESENCE_MS)
            spans.append((m.instant, min(m.instant + PRESENCE_MS, cut)))
    return spans


def concurrency(events: Iterable[Event], at_ms: int) -> tuple[int, int]:
    """Return (viewers, views) present at an instant: distinct (video, viewer), and distinct views."""
    present = [
        distinct[0]
        for distinct, _ in views(events).values()
        if any(start <= at_ms < end for start, end in presence(distinct))
    ]
    who = {tuple(e.get(k) for k in ("tenant_id", "channel_id", "video_id", "viewer_hash")) for e in present}
    return len(who), len(present)
