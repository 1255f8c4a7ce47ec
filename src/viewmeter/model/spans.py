"""Arithmetic over intervals of time: lists of them that ascend and do not overlap."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Sequence

from viewmeter.model.time import Interval


class Spans:
    """Disjoint ascending intervals that can be looked up."""

    def __init__(self, spans: Sequence[Interval]) -> None:
        self._spans = spans
        self._starts = [span.start_ms for span in spans]

    def holds(self, instant_ms: int) -> bool:
        """Say whether one of them holds the instant."""
        at = bisect_right(self._starts, instant_ms) - 1
        return at >= 0 and instant_ms < self._spans[at].end_ms

    def within(self, interval: Interval) -> list[Interval]:
        """Return what of them lies inside of the interval."""
        first = max(0, bisect_right(self._starts, interval.start_ms) - 1)
        last = bisect_left(self._starts, interval.end_ms)
        cut = (
            Interval(max(s.start_ms, interval.start_ms), min(s.end_ms, interval.end_ms))
            for s in self._spans[first:last]
        )
        return [span for span in cut if span.start_ms < span.end_ms]


def merged(spans: Iterable[Interval]) -> list[Interval]:
    """Return ascending intervals with those put together that touch."""
    out: list[Interval] = []
    for span in spans:
        if out and span.start_ms <= out[-1].end_ms:
            out[-1] = Interval(out[-1].start_ms, max(out[-1].end_ms, span.end_ms))
        else:
            out.append(Interval(*span))
    return out


def minus(spans: Sequence[Interval], taken: Sequence[Interval]) -> list[Interval]:
    """Return what is left of ascending intervals without others, ascending too."""
    out: list[Interval] = []
    lookup = Spans(taken)
    for start, end in spans:
        at = start
        for gone in lookup.within(Interval(start, end)):
            if at < gone.start_ms:
                out.append(Interval(at, gone.start_ms))
            at = gone.end_ms
        if at < end:
            out.append(Interval(at, end))
    return out
