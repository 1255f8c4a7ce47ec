"""Where each piece of a range is read from: which layer, which tier.

In: bucket edges, what a rollup keeps, what the store holds at this moment (`Coverage`), the reporting zone. Out:
`Part`s for a scan, and edges that the kept rows can tell apart. Promised: parts are disjoint, each is of the coarsest
tier that fits the edges (or of days, where they are few), closed hours are answered by batch rows alone and open ones
by speed rows alone. A range that ends inside of a row that cannot be divided any more is widened to it; a bucket edge
inside of one is tried in the reporting zone, whose days and hours the rows are, and refused where it does not fit there
either. Pure: no store, no clock.
"""

from __future__ import annotations

import sys
from bisect import bisect_left, bisect_right
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import lru_cache
from typing import Final

import numpy as np
import numpy.typing as npt

from viewmeter.model.calendar import Period, period_of, periods, zone_of
from viewmeter.model.catalogue import Rollup, Tier
from viewmeter.model.spans import Spans, merged, minus
from viewmeter.model.time import DAY_MS, HOUR_MS, Interval, floor_to, from_ms, rfc3339, to_ms
from viewmeter.olap.protocol import Coverage, Part
from viewmeter.query.problems import QueryProblem
from viewmeter.query.question import Granularity
from viewmeter.query.ranges import bucket_edges

Edges = tuple[int, ...]
_CALENDAR: Final[tuple[Period, ...]] = ("month", "week", "day")
_FEW_ROWS: Final = 100_000
"""To read another table costs a store as much as to add up some ten thousand rows: 0.5 to 1 ms of planning (DuckDB)."""


@dataclass(frozen=True)
class Kept:
    """What rows there are of something: the tiers of its batch rows, and speed rows or none."""

    what: str  # as a refusal calls it
    tiers: tuple[Tier, ...]
    speed: bool
    hourly: bool = False  # its hours are whole ones, whatever the zone
    begins: bool = False  # such an hour may count where it begins, though an edge of the zone lies inside
    viewers: bool = False  # the exact viewers: their hours have a reach of their own
    sums_of: str = ""  # the rollup, where nothing but sums is asked of it

    @staticmethod
    def of(rollup: Rollup, *, sums: bool = False) -> Kept:
        """Return what a rollup keeps. sums: nothing but sums is asked of it."""
        whole = rollup.grain_ms == HOUR_MS
        return Kept(
            f"rollup {rollup.name}", rollup.tiers, not rollup.batch_only, whole, sums_of=rollup.name if sums else ""
        )


@dataclass(frozen=True)
class Settled:
    """Edges that everything asked for can be cut at, and the zone of their calendar."""

    edges: Edges
    zone: str


class Ground:
    """One coverage and one reporting zone: what all rollups of a query are split over."""

    def __init__(self, coverage: Coverage, zone: str) -> None:
        self._coverage, self.zone = coverage, zone
        self._closed, self._days = Spans(coverage.closed_hours), Spans(coverage.days)
        self._hours_from_ms = _next_day(coverage.hour_from_ms, zone)
        self._viewers_from_ms = _next_day(coverage.viewers_from_ms, zone)
        self._parts: dict[tuple[Edges, Kept], tuple[Part, ...]] = {}

    # --- what can be told apart --------------------------------------------------------------------------------

    def settle(
        self, interval: Interval, granularity: Granularity, zone: str, kept: Sequence[Kept], most: int
    ) -> Settled:
        """Return edges for the range. Raises `QueryProblem`: `not_covered`, or `too_many_rows` above `most` buckets."""
        for one in kept:
            self._check_reach(interval, one)
        wide = self._widened(interval, kept)
        refusal: QueryProblem | None = None
        for name in dict.fromkeys((zone, self.zone)):
            edges = bucket_edges(wide, granularity, zone_of(name), most)
            refusal = self._undividable(edges, granularity, kept)
            if refusal is None:
                return Settled(edges, name)
        assert refusal is not None
        raise refusal

    def unit(self, instant_ms: int, kept: Kept) -> Interval:
        """Return the finest rows at the instant: what cannot be divided. A ms where edges may lie anywhere."""
        if "day" in kept.tiers and instant_ms < self._from_ms(kept) and self._days.holds(instant_ms):
            return period_of(instant_ms, "day", zone_of(self.zone))
        if not self._closed.holds(instant_ms) or ("minute" in kept.tiers and instant_ms >= self._minutes_ms(kept)):
            return Interval(instant_ms, instant_ms + 1)
        if "hour" in kept.tiers and instant_ms >= self._from_ms(kept):
            start_ms = floor_to(instant_ms, self._step_ms(kept))
            return Interval(start_ms, start_ms + self._step_ms(kept))
        return period_of(instant_ms, "day", zone_of(self.zone))

    def _step_ms(self, kept: Kept) -> int:
        return HOUR_MS if kept.hourly and not kept.begins else self._coverage.hour_step_ms

    def _minutes_ms(self, kept: Kept) -> int:
        coarser = self._hours_from_ms if "hour" in kept.tiers else 0
        return max(self._coverage.minute_from_ms, coarser)

    def _from_ms(self, kept: Kept) -> int:
        return self._viewers_from_ms if kept.viewers else self._hours_from_ms

    def _widened(self, interval: Interval, kept: Sequence[Kept]) -> Interval:
        start_ms, end_ms = interval
        # Widening for one may move an end into coarser rows of another; each step reaches a coarser tier, so it ends.
        while True:
            start = min((self.unit(start_ms, k).start_ms for k in kept), default=start_ms)
            end = max((self.unit(end_ms - 1, k).end_ms for k in kept), default=end_ms)
            if (start, end) == (start_ms, end_ms):
                return Interval(start_ms, end_ms)
            start_ms, end_ms = start, end

    def _undividable(self, edges: Edges, granularity: Granularity, kept: Sequence[Kept]) -> QueryProblem | None:
        """Return the refusal for the last bucket edge inside of a row; None: all can be told apart."""
        for one in kept:
            from_ms, step = self._from_ms(one), self._step_ms(one)
            minutes = max(self._minutes_ms(one), from_ms) if "minute" in one.tiers else sys.maxsize
            hours = from_ms if "hour" in one.tiers else sys.maxsize
            for edge in reversed(edges[1:-1]):
                if edge >= minutes or (edge >= hours and edge % step == 0):
                    continue  # as `unit` would find, at 5 us each: a day has 1,440 minutes
                unit = self.unit(edge, one)
                if unit.start_ms != edge:
                    return self._too_fine(granularity, unit, one)
        return None

    def _too_fine(self, granularity: Granularity, unit: Interval, kept: Kept) -> QueryProblem:
        by = "day" if unit.end_ms - unit.start_ms > HOUR_MS else "hour"
        finer_from = self._hours_from_ms if by == "day" else self._coverage.minute_from_ms
        later = f", or a range from {rfc3339(finer_from)} on"
        if by == "hour" and "minute" not in kept.tiers:
            later = ""  # there are no finer ones at any time
        detail = (
            f"granularity {granularity}: at {rfc3339(unit.start_ms)} {kept.what} has rows by the {by} "
            f"({self.zone}) and none finer: take granularity {by} or coarser{later}"
        )
        return QueryProblem(
            "not_covered", 422, detail, [{"field": "granularity", "code": "not_covered", "detail": detail}]
        )

    def _check_reach(self, interval: Interval, kept: Kept) -> None:
        """Refuse what is older than the rows, where no coarser ones follow."""
        if "day" in kept.tiers:
            return
        reach = self._from_ms(kept) if "hour" in kept.tiers else self._coverage.minute_from_ms
        if self._closed.within(Interval(interval.start_ms, min(interval.end_ms, reach))):
            detail = f"time_range: {kept.what} reaches back to {rfc3339(reach)} only: start there or later"
            raise QueryProblem(
                "not_covered", 422, detail, [{"field": "time_range", "code": "not_covered", "detail": detail}]
            )

    # --- where it is read ------------------------------------------------------------------------------------

    def parts(self, edges: Edges, kept: Kept) -> tuple[Part, ...]:
        """Return the parts of the range, in the order of time: of each tier what fits, coarsest first."""
        # Asked for the scan, for what stands behind it and for the plan: kept, as many as a query has sources.
        key = (edges, kept)
        found = self._parts.get(key)
        if found is None:
            found = self._parts[key] = self._split(edges, kept)
        return found

    def _split(self, edges: Edges, kept: Kept) -> tuple[Part, ...]:
        whole = Interval(edges[0], edges[-1])
        left = [whole]
        found: list[Part] = []
        for kind in reversed(_CALENDAR) if self._are_few(whole, kept) else _CALENDAR:
            if kind in kept.tiers:
                taken = self._periods(kind, edges, left)
                found += [Part(kind, run, self.zone) for run in taken]
                left = minus(left, taken)
        closed = [span for gap in left for span in self._closed.within(gap)]
        hours = self._hours(edges, closed, kept) if "hour" in kept.tiers else []
        found += [Part("hour", run) for run in hours]
        if "minute" in kept.tiers:
            rest = minus(closed, hours)
            finest = [_from(span, self._minutes_ms(kept)) for span in rest]
            found += [Part("minute", span) for span in finest if span.start_ms < span.end_ms]
        if kept.speed:
            found += [Part("speed", span) for span in minus(left, closed)]
        return tuple(sorted(found, key=lambda part: part.interval))

    def _are_few(self, interval: Interval, kept: Kept) -> bool:
        """Say whether the days of the range have so few rows that to read weeks and months as well would cost more."""
        rows = self._coverage.rows_a_day.get(kept.sums_of)
        return rows is not None and rows * (interval.end_ms - interval.start_ms) // DAY_MS <= _FEW_ROWS

    def has_days(self, interval: Interval) -> bool:
        """Say whether all that is older than the hours kept is in days of this zone."""
        old = Interval(interval.start_ms, max(interval.start_ms, min(interval.end_ms, self._hours_from_ms)))
        return not minus(self._closed.within(old), self._coverage.days)

    def row(self, part: Part, instant_ms: int) -> Interval:
        """Return the row of whole hours, days, weeks or months that holds the instant."""
        if part.table in ("day", "week", "month"):
            return period_of(instant_ms, part.table, zone_of(part.zone))
        return Interval(floor_to(instant_ms, HOUR_MS), floor_to(instant_ms, HOUR_MS) + HOUR_MS)

    @property
    def hour_step_ms(self) -> int:
        """Into what the zone's days and hours cut an hour of UTC: less than an hour where they begin inside of one."""
        return self._coverage.hour_step_ms

    @property
    def minutes_from_ms(self) -> int:
        """From when on rows by the minute are kept; 0: from the beginning."""
        return self._coverage.minute_from_ms

    def open_within(self, interval: Interval) -> list[Interval]:
        """Return where no hour is closed: what the batch layer alone knows is not known there."""
        return minus([interval], self._closed.within(interval))

    def known_until(self, interval: Interval) -> int | None:
        """Return up to when all is known that closed hours alone know; None: all of the range.

        An hour in which nothing happened is never closed, and nothing waits for it: what is missing begins at the first
        open hour with rows, or behind everything that is known.
        """
        left_open = self.open_within(interval)
        if not left_open:
            return None
        waiting = self._coverage.waiting_hours
        for gap in left_open:
            hour = next((hour for hour in waiting if hour < gap.end_ms and hour + HOUR_MS > gap.start_ms), None)
            if hour is not None:
                return max(hour, gap.start_ms)
        last = left_open[-1]
        newest = max([*waiting[-1:], *(span.end_ms for span in self._coverage.closed_hours[-1:])], default=0)
        return last.start_ms if last.end_ms >= max(newest, interval.end_ms) else None

    def closed_within(self, interval: Interval) -> list[Interval]:
        """Return where hours are closed."""
        return self._closed.within(interval)

    def _periods(self, kind: Period, edges: Edges, left: Sequence[Interval]) -> list[Interval]:
        built = Spans(self._coverage.built(kind))
        usable = (
            one
            for gap in left
            for span in built.within(gap)
            for one in whole_periods(kind, span, self.zone)
            if not _edge_inside(edges, one)
        )
        return merged(usable)

    def _hours(self, edges: Edges, closed: Sequence[Interval], kept: Kept) -> list[Interval]:
        finer_from = self._minutes_ms(kept) if "minute" in kept.tiers else sys.maxsize
        step, whole = self._step_ms(kept), HOUR_MS if kept.hourly else self._coverage.hour_step_ms

        def step_at(instants_ms: npt.ArrayLike) -> npt.NDArray[np.int64]:
            # Where minutes can tell, no hour counts as a whole.
            return np.where(np.asarray(instants_ms) >= finer_from, whole, step)

        found: list[Interval] = []
        for span in closed:
            start, end = _from(span, self._from_ms(kept))
            start, end = -floor_to(-start, int(step_at(start))), floor_to(end, int(step_at(end)))
            if start >= end:
                continue
            inside = np.asarray(edges[bisect_right(edges, start) : bisect_left(edges, end)], np.int64)
            steps = step_at(inside)
            off = inside % steps  # a day has 1,440 minutes, and 24 hours
            begun = {*zip((inside - off)[off != 0].tolist(), steps[off != 0].tolist(), strict=True)}
            cut = merged(Interval(at, at + width) for at, width in sorted(begun))
            found += minus([Interval(start, end)], cut)
        return found


# --- intervals -------------------------------------------------------------------------------------------------


def _from(span: Interval, start_ms: int) -> Interval:
    return Interval(max(span.start_ms, start_ms), span.end_ms)


def _edge_inside(edges: Edges, span: Interval) -> bool:
    after = bisect_right(edges, span.start_ms)
    return after < len(edges) and edges[after] < span.end_ms


# --- the calendar of a zone ----------------------------------------------------------------------------------------


def _next_day(instant_ms: int, zone: str) -> int:
    """Return the first start of a day at or after the instant: a day that lost an hour is a day and nothing finer."""
    day = period_of(instant_ms, "day", zone_of(zone))
    return instant_ms if instant_ms in (0, day.start_ms) else day.end_ms


def whole_periods(kind: Period, span: Interval, zone: str) -> Iterator[Interval]:
    """Yield the days, weeks or months of a zone that lie whole inside of the range."""
    first, last = from_ms(span.start_ms).year - 1, from_ms(span.end_ms).year
    for year in range(first, last + 1):
        for one in _begun_in(kind, year, zone):
            if one.start_ms >= span.start_ms and one.end_ms <= span.end_ms:
                yield one


@lru_cache(maxsize=256)
def _begun_in(kind: Period, year: int, zone: str) -> tuple[Interval, ...]:
    """Return the periods that begin in a year of UTC. Three years of days cost 20 ms to find, so they are kept."""
    start, end = (to_ms(datetime(y, 1, 1, tzinfo=UTC)) for y in (year, year + 1))
    return tuple(p for p in periods(Interval(start, end), kind, zone_of(zone)) if p.start_ms >= start)
