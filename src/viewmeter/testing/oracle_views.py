"""The oracle's third part: whole views as they are at their end, and the content that they played.

In: event dicts, as `oracle.increments` takes them. Out: one `EndedView` each. Promised: plain lists and loops; it
shares nothing with `model/ends.py` and `model/content.py`. Sources: DESIGN 3 and 4; decision 0085 (its points: 0085.n).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from itertools import pairwise
from typing import Final, NamedTuple

from viewmeter.testing import oracle
from viewmeter.testing.oracle import SILENCE_MS, Event, Key

JUMP_MS: Final = 2_000
Span = tuple[int, int]


class EndedView(NamedTuple):
    """A view at its end: when, what it had by then, and the runs of content, in the order in which they were played."""

    key: Key
    first: Event
    instant_ms: int
    played: bool
    blind: bool
    played_ms: int
    rebuffered_ms: int
    duration_ms: int
    bitrate_kbps: int | None
    cdn: str
    runs: list[Span]

    @property
    def measured(self) -> bool:
        """Whether its time is known."""
        return self.played and not self.blind

    @property
    def watched_ms(self) -> int:
        """Played and rebuffering time."""
        return self.played_ms + self.rebuffered_ms

    @property
    def has_content(self) -> bool:
        """Whether content metrics are over it."""
        return self.measured and self.duration_ms > 0

    @property
    def inside(self) -> list[Span]:
        """The runs, as far as the content goes."""
        clipped = [(max(0, a), min(b, self.duration_ms)) for a, b in self.runs]
        return [(a, b) for a, b in clipped if a < b]

    def distinct_content_ms(self) -> int:
        """Return how much of the content was seen, each ms once."""
        seen, reached = 0, 0
        for a, b in sorted(self.inside):
            seen += max(0, b - max(a, reached))
            reached = max(reached, b)
        return seen

    def percents(self) -> list[int]:
        """Return every percent of the content that a run touched: one entry a run and percent."""
        length = self.duration_ms
        return [p for a, b in self.inside for p in range(100) if p * length < b * 100 and (p + 1) * length > a * 100]


def ended_views(events: Iterable[Event], now_ms: int) -> list[EndedView]:
    """Return every view of these events that has ended by `now_ms`."""
    found = (_ended(key, distinct, now_ms) for key, (distinct, _) in oracle.views(events).items())
    return [view for view in found if view is not None]


def _ended(key: Key, events: Sequence[Event], now_ms: int) -> EndedView | None:
    after = oracle.moments(events)
    for i, moment in enumerate(after):
        speaks = events[i]["type"] in ("complete", "exit") or oracle.is_fatal(events[i])
        following = after[i + 1].instant if i + 1 < len(after) else now_ms
        if speaks or following - moment.instant > SILENCE_MS:
            instant = moment.instant if speaks else moment.instant + SILENCE_MS
            return _at_end(key, events, after, i, instant)
    return None


def _at_end(key: Key, events: Sequence[Event], after: Sequence[oracle.Moment], last: int, instant_ms: int) -> EndedView:
    blind = oracle.is_blind(events)
    played, rebuffered = (
        [0] * len(events) if blind else _amounts(field, events, after) for field in ("played_ms", "rebuffered_ms")
    )
    proof = any(
        e["type"] in ("play", "complete") or (not blind and (m.base == "playing" or p > 0))
        for e, m, p in zip(events[: last + 1], after, played, strict=False)
    )
    end = after[last]
    runs = content_runs(events[: last + 1], played)
    sums = sum(played[: last + 1]), sum(rebuffered[: last + 1])
    return EndedView(key, events[0], instant_ms, proof, blind, *sums, end.duration, end.bitrate, end.cdn, runs)


def _amounts(field: str, events: Sequence[Event], after: Sequence[oracle.Moment]) -> list[int]:
    shown = oracle.first_shown(events)
    by_counter = shown < len(events) and oracle.number(events[shown], field) is not None
    return oracle.amounts(field, after, shown if by_counter else None)


def content_runs(events: Sequence[Event], played: Sequence[int]) -> list[Span]:
    """Return the stretches of content played, in order; a seek or a jump beyond 2 s begins a new one (0085.4)."""
    runs: list[list[int]] = []
    position: int | None = None
    rate, going_on = 1.0, False
    for event, played_ms in zip(events, played, strict=False):
        told = oracle.number(event, "position_ms")
        length = int(played_ms * rate)  # at the rate told before this event
        seeks = event["type"] == "seek"
        begin = position
        if length and begin is None:  # 0085.3
            begin = 0 if told is None or seeks else max(0, told - length)
        if length and begin is not None:
            if going_on:
                runs[-1] = [min(runs[-1][0], begin), max(runs[-1][1], begin + length)]
            else:
                runs.append([begin, begin + length])
            going_on = True
        expected = None if position is None and not length else (position or 0) + length
        if seeks or (told is not None and position is not None and abs(told - (position + length)) > JUMP_MS):
            going_on = False
        position = expected if told is None else told
        speed = event.get("playback_rate")
        rate = speed if speed is not None and speed > 0 else rate
    return [(a, b) for a, b in runs]


def per_view_sums(views: Iterable[EndedView]) -> Counter[str]:
    """Return the per-view measures, summed."""
    sums: Counter[str] = Counter()
    for view in views:
        sums["ended_views"] += 1
        sums["measured_views"] += view.measured
        if view.measured and view.watched_ms:
            sums["watched_views"] += 1
            sums["view_rebuffer_ratio_e9"] += round(view.rebuffered_ms / view.watched_ms * 1e9)
        if view.has_content:
            sums["content_views"] += 1
            sums["content_watched_ms"] += view.distinct_content_ms()
            sums["content_ms"] += view.duration_ms
    return sums


def retention_steps(views: Iterable[EndedView]) -> list[int]:
    """Return how much the curve rises or falls at each of the 100 percents: first differences of the counts."""
    counts = Counter(p for view in views if view.has_content for p in view.percents())
    curve = [counts[p] for p in range(100)]
    return [curve[0], *(b - a for a, b in pairwise(curve))]
