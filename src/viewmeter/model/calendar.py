"""Days, weeks and months as a time zone has them.

In: an instant (ms since the epoch, UTC) and a zone. Out: the half-open period that holds it. Promised: a local day
is as long as it is there (23, 24 or 25 hours, or 23.5 at Lord Howe) and starts at its first instant even where
midnight does not exist; weeks start on Monday. Nothing here asks what time it is.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator
from datetime import UTC, date, datetime, timedelta, tzinfo
from typing import Final, Literal
from zoneinfo import ZoneInfo

from viewmeter.model.time import DAY_MS, HOUR_MS, MINUTE_MS, QUARTER_MS, Interval, from_ms, to_ms

Period = Literal["day", "week", "month"]

_EPOCH_DAY: Final = date(1970, 1, 1).toordinal()
_HALF_MS: Final = 30 * MINUTE_MS
_LOOKED_AT: Final = range(1973, 2038)  # zones by the second ended before, and rules are known until then


@functools.lru_cache(maxsize=1024)
def zone_of(name: str) -> tzinfo:
    """Return the zone; UTC itself for "UTC". Raises ZoneInfoNotFoundError (a KeyError) or ValueError."""
    return UTC if name == "UTC" else ZoneInfo(name)


def start_of_day(day: date, zone: tzinfo) -> int:
    """Return the first instant of a local day, which is not midnight where clocks jump over it."""
    if zone is UTC:
        return (day.toordinal() - _EPOCH_DAY) * DAY_MS
    midnight = datetime(day.year, day.month, day.day, tzinfo=zone)
    before, after = sorted((to_ms(midnight), to_ms(midnight.replace(fold=1))))
    first = to_ms(midnight)
    if from_ms(first, zone).replace(tzinfo=None) == midnight.replace(tzinfo=None):
        return first  # where midnight comes twice, fold 0 is the first one
    return change_between(before - 1, after, zone)


def first_day(instant_ms: int, kind: Period, zone: tzinfo) -> date:
    """Return the first local date of the period that holds the instant."""
    day = from_ms(instant_ms, zone).date()
    if kind == "month":
        return day.replace(day=1)
    return day - timedelta(days=day.weekday()) if kind == "week" else day


def next_day(day: date, kind: Period) -> date:
    """Return the first date of the period behind the one that begins on `day`."""
    if kind == "month":
        return (day.replace(day=1) + timedelta(days=32)).replace(day=1)
    return day + timedelta(days=7 if kind == "week" else 1)


def period_of(instant_ms: int, kind: Period, zone: tzinfo) -> Interval:
    """Return the day, week or month of the zone that holds the instant."""
    day = first_day(instant_ms, kind, zone)
    start, following = start_of_day(day, zone), next_day(day, kind)
    end = start_of_day(following, zone)
    if end <= instant_ms:  # a date that the zone skipped has no instants: the next period is this one
        start, end = end, start_of_day(next_day(following, kind), zone)
    return Interval(start, end)


def periods(interval: Interval, kind: Period, zone: tzinfo) -> Iterator[Interval]:
    """Yield the periods that touch the range, in order, each whole."""
    at_ms = interval.start_ms
    while at_ms < interval.end_ms:
        period = period_of(at_ms, kind, zone)
        yield period
        at_ms = period.end_ms


def change_between(low: int, high: int, zone: tzinfo) -> int:
    """Return the first instant in `(low, high]` with another offset than `low`'s."""
    old = offset_ms(low, zone)
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if offset_ms(middle, zone) == old else (low, middle)
    return high


def offset_ms(instant_ms: int, zone: tzinfo) -> int:
    """Return how far the zone's clocks are ahead of UTC."""
    offset = from_ms(instant_ms, zone).utcoffset() or timedelta()
    return offset // timedelta(milliseconds=1)


@functools.lru_cache(maxsize=1024)
def hour_step_ms(name: str) -> int:
    """Return how long rows may be so that every day of the zone consists of whole ones: 60, 30 or 15 minutes.

    The coarsest that divides every offset that the zone had since 1973 or will have by its rules.
    """
    zone = zone_of(name)
    offsets = {
        offset_ms(to_ms(datetime(year, month, 1, tzinfo=UTC)), zone) for year in _LOOKED_AT for month in range(1, 13)
    }
    fits = (step for step in (HOUR_MS, _HALF_MS) if all(offset % step == 0 for offset in offsets))
    return next(fits, QUARTER_MS)
