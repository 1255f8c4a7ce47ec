"""Time ranges and the edges of buckets, in any IANA zone.

In: a range as people write it, a zone, a granularity. Out: half-open ranges of whole minutes, and ascending bucket
edges. Promised: buckets are those of the calendar (model/calendar.py), the first and last of them cut to the range. A
range is widened to whole minutes, since that is the grain of the rollups: the start down, the end up.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from datetime import UTC, datetime, tzinfo
from itertools import pairwise
from typing import Final, cast
from zoneinfo import ZoneInfoNotFoundError, available_timezones

from viewmeter.model.calendar import (
    Period,
    change_between,
    first_day,
    next_day,
    offset_ms,
    start_of_day,
    zone_of,
)
from viewmeter.model.time import DAY_MS, HOUR_MS, MINUTE_MS, Interval, floor_to, from_ms, to_ms
from viewmeter.query.problems import QueryProblem, Refusals, nearest
from viewmeter.query.question import Granularity

_SHORTCUT: Final = re.compile(r"(\d{1,5})([mhdw])")
_UNITS: Final = {"m": MINUTE_MS, "h": HOUR_MS, "d": DAY_MS, "w": 7 * DAY_MS}
_STEPS: Final[dict[str, int]] = {"minute": MINUTE_MS, "5m": 5 * MINUTE_MS, "hour": HOUR_MS}
_LATEST_MS: Final = 4_102_444_800_000  # 2100-01-01, beyond which zones have no rules
_SAMPLE_MS: Final = 12 * HOUR_MS  # zones do not change their offset twice in half a day
_RIGHT: Final = 'RFC 3339 like "2026-11-24T00:00:00Z", or ms since the epoch'


def parse_zone(value: object, found: Refusals) -> tzinfo:
    """Return the zone of that name; UTC, and a refusal noted, where there is none."""
    if isinstance(value, str) and 0 < len(value) <= 64:
        try:
            return zone_of(value)
        except (ZoneInfoNotFoundError, ValueError, OSError):
            pass
    near = nearest(value, sorted(available_timezones())) if isinstance(value, str) else ""
    found.add("time_zone", "invalid_time_zone", f"a name of the IANA database, like Europe/Berlin. {near}".strip())
    return UTC


def parse_range(value: object, zone: tzinfo, now_ms: int, found: Refusals) -> Interval:
    """Return the range in whole minutes: `24h`, `month`, or {"start", "end"}; without an end, up to now."""
    now_up = -floor_to(-now_ms, MINUTE_MS)
    if isinstance(value, str):
        start = _shortcut(value, zone, now_ms)
        if start is not None:
            return Interval(floor_to(max(0, start), MINUTE_MS), now_up)
        detail = f'{value[:40]!r} is not known: 24h, 7d, 30d, month, or {{"start": …, "end": …}}'
        found.add("time_range", "invalid_time_range", detail)
    elif isinstance(value, dict):
        if unknown := [str(name) for name in value if name not in ("start", "end")]:
            found.add("time_range", "invalid_time_range", f"has start and end, not {', '.join(unknown)[:100]}")
        start = _instant(value.get("start"), "start", zone, found)
        end = now_ms if value.get("end") is None else _instant(value["end"], "end", zone, found)
        if start is not None and end is not None and start < end:
            return Interval(floor_to(start, MINUTE_MS), -floor_to(-end, MINUTE_MS))
        if start is not None and end is not None:
            found.add("time_range", "invalid_time_range", "the end must be after the start (the range is half-open)")
    else:
        found.add("time_range", "invalid_time_range", 'a shortcut like "24h", or {"start": …, "end": …}')
    return Interval(now_up - MINUTE_MS, now_up)


def _shortcut(text: str, zone: tzinfo, now_ms: int) -> int | None:
    if text == "month":  # this calendar month so far
        return start_of_day(from_ms(now_ms, zone).date().replace(day=1), zone)
    match = _SHORTCUT.fullmatch(text)
    return now_ms - int(match[1]) * _UNITS[match[2]] if match and int(match[1]) else None


def _instant(value: object, name: str, zone: tzinfo, found: Refusals) -> int | None:
    """Return an instant as ms; a time without offset is one of the query's zone."""
    made: int | None = None
    if isinstance(value, int | float) and not isinstance(value, bool) and value == value:
        made = int(value) if abs(value) < 2 * _LATEST_MS else -1
    elif isinstance(value, str):
        try:
            moment = datetime.fromisoformat(value)
            made = to_ms(moment if moment.tzinfo else moment.replace(tzinfo=zone))
        except (ValueError, OverflowError):
            pass
    if made is not None and 0 <= made <= _LATEST_MS:
        return made
    wrong = "missing" if value is None else f"{str(value)[:40]!r} is not an instant from 1970 to 2100"
    found.add(f"time_range.{name}", "invalid_time_range", f"{wrong}; write {_RIGHT}")
    return None


def bucket_edges(interval: Interval, granularity: Granularity, zone: tzinfo, most: int) -> tuple[int, ...]:
    """Return n + 1 ascending edges of n buckets. Raises `QueryProblem` where there would be more than `most`."""
    start, end = interval
    if granularity == "total":
        return (start, end)
    step = _STEPS.get(granularity, DAY_MS)
    if granularity in (*_STEPS, "day") and (end - start) // step > most:
        raise QueryProblem(
            "too_many_rows",
            422,
            f"granularity: {(end - start) // step:,} buckets of a {granularity} are more than the {most:,} rows "
            "that an answer holds; take a coarser granularity or a shorter range",
        )
    if granularity in ("minute", "5m", "hour"):
        inside = _clock_edges(interval, step, zone)
    else:
        inside = _calendar_edges(interval, cast("Period", granularity), zone)
    return (start, *sorted({edge for edge in inside if start < edge < end}), end)


def _clock_edges(interval: Interval, step: int, zone: tzinfo) -> Iterator[int]:
    """Yield edges aligned to the local clock, offset by offset."""
    for begin, end in pairwise([interval.start_ms, *_changes(interval, zone), interval.end_ms]):
        offset = offset_ms(begin, zone)
        if (begin + offset) % step:
            yield begin  # a change of half an hour starts a new bucket in the middle of the old one
        yield from range(begin + -(begin + offset) % step, end, step)


def _calendar_edges(interval: Interval, kind: Period, zone: tzinfo) -> Iterator[int]:
    day = first_day(interval.start_ms, kind, zone)
    edge = start_of_day(day, zone)
    while edge < interval.end_ms:
        yield edge
        day = next_day(day, kind)
        edge = start_of_day(day, zone)


def _changes(interval: Interval, zone: tzinfo) -> list[int]:
    """Return the instants inside the range at which the zone's offset changes."""
    if zone is UTC:
        return []
    marks = [*range(interval.start_ms, interval.end_ms, _SAMPLE_MS), interval.end_ms]
    found = [change_between(a, b, zone) for a, b in pairwise(marks) if offset_ms(a, zone) != offset_ms(b, zone)]
    return [change for change in found if interval.start_ms < change < interval.end_ms]
