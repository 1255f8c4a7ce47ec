"""Is the store right? Every closed hour computed anew from raw events by the oracle, and compared with its rows.

In: an archive, a store that nobody writes to. Out: the differences. Promised: the oracle shares nothing with what made
the rows, so a difference is a defect of one of them (or a limit named below); memory is that of `PART_EVENTS` events,
of one view's events and of a day's rows. Compared: every additive measure, those of ended views included, by tenant,
channel, video and bots, and each other rollup's sums by tenant. Not compared: `late_events` (arrival, of which the
oracle has no opinion), sketches, gauges, retention. The oracle looks at whole views: one that was silent for longer
than the batch layer remembers, or whose neighbours in `seq` lie more than 5 minutes apart in time, may differ.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import groupby
from typing import Final

import numpy as np
import pyarrow as pa

from viewmeter.archive.protocol import ArchiveReader
from viewmeter.batch.part import key_ranges
from viewmeter.batch.window import MARGIN_MS
from viewmeter.model.catalogue import ROLLUPS, Kind, Rollup
from viewmeter.model.catalogue.measures import ADDITIVE, VIEW_ENDS
from viewmeter.model.events import EVENT_SCHEMA
from viewmeter.model.time import DAY_MS, HOUR_MS, Interval
from viewmeter.olap.protocol import ClosedHour, Part, Scan, TimeSeriesStore, Visible
from viewmeter.testing import oracle, oracle_views
from viewmeter.testing.columns import to_events

PART_EVENTS: Final = 20_000
"""Events in memory at a time, as Python objects: about 3 KB each."""

DIFFERENCES_MAX: Final = 1_000
"""Differences that are kept; beyond they are only counted."""

MEASURES: Final = tuple(m.name for m in (*ADDITIVE, *VIEW_ENDS) if m.kind is Kind.ADDITIVE and m.name != "late_events")
VIDEO: Final = ("tenant_id", "channel_id", "video_id", "is_bot")

Sums = Counter[tuple[int, tuple[str, ...], str]]  # hour, keys, measure


@dataclass(frozen=True)
class Difference:
    """One sum that is not what the raw events say."""

    hour_ms: int
    rollup: str
    keys: dict[str, str]
    measure: str
    stored: int
    expected: int


@dataclass
class Findings:
    """What was compared, and what differs."""

    hours: int = 0
    events: int = 0
    compared: int = 0  # sums
    differing: int = 0
    differences: list[Difference] = field(default_factory=list)
    kept: int = 0  # hours whose rows come from no job
    waiting: list[int] = field(default_factory=list)  # hours that a batch run will replace, and those after them
    gone: int = 0  # hours whose raw events, or whose hour rows, are not kept any more

    def note(self, difference: Difference) -> None:
        """Count a difference; keep it where there is room."""
        self.differing += 1
        if len(self.differences) < DIFFERENCES_MAX:
            self.differences.append(difference)


def verify(
    archive: ArchiveReader, store: TimeSeriesStore, remember_ms: int, tell: Callable[[int, int], None]
) -> Findings:
    """Compare all closed hours. `remember_ms`: how long the batch layer knows a view; `tell` hears (hours done, of)."""
    found = Findings()
    hours = checkable(archive, store, remember_ms, found)
    for _, block in groupby(hours, lambda hour: hour // DAY_MS):
        day = list(block)
        expected = _expected(archive, day, found)
        for hour in day:
            _compare(store, hour, Counter({k: n for k, n in expected.items() if k[0] == hour}), found)
        found.hours += len(day)
        tell(found.hours, len(hours))
    return found


def checkable(archive: ArchiveReader, store: TimeSeriesStore, remember_ms: int, found: Findings) -> list[int]:
    """Return the closed hours whose rows must be what the archive says; count the others in `found`."""
    archived = archive.hours()
    closed = store.closed(Interval(0, 1 << 53))
    found.kept = sum(hour.kept for hour in closed)
    made = [hour for hour in closed if not hour.kept]
    first = min(archived, default=1 << 53)
    if any(hour.hour_ms < first for hour in made):
        first += remember_ms  # views of hours that were dropped may reach so far
    with store.snapshot() as state:
        first = max(first, state.coverage("UTC").hour_from_ms)
    waits = _waits_from([hour for hour in closed if hour.hour_ms >= first], archived, {*store.stale_hours()})
    found.gone = sum(hour.hour_ms < first for hour in made)
    found.waiting = [hour.hour_ms for hour in made if hour.hour_ms >= max(first, waits)]
    return [hour.hour_ms for hour in made if first <= hour.hour_ms < waits]


def _waits_from(closed: Sequence[ClosedHour], archived: Mapping[int, int], stale: set[int]) -> int:
    """Return the first hour that has to run (again): what comes after it stands on it."""
    at = {hour.hour_ms for hour in closed}
    waiting = {h.hour_ms for h in closed if not h.kept and h.archive_version != archived.get(h.hour_ms, 0)}
    waiting |= at & stale
    if at:
        waiting |= {hour for hour in archived if hour not in at and min(at) <= hour < max(at)}
    return min(waiting, default=1 << 53)


def _expected(archive: ArchiveReader, day: list[int], found: Findings) -> Sums:
    """Return what the oracle says of these hours, by video."""
    window = Interval(day[0] - 2 * MARGIN_MS, day[-1] + HOUR_MS + 2 * MARGIN_MS)
    hours = archive.hours()
    size = sum(archive.events(hour) for hour in day if hour in hours)
    found.events += size
    wanted = frozenset(day)
    sums: Sums = Counter()
    for mine in key_ranges(max(1, -(-size // PART_EVENTS))):
        keys = np.unique(archive.read(window, ["view_key"], key_range=mine)["view_key"].to_numpy())
        if len(keys):
            # A view's beginning may lie in any hour before.
            whole = Interval(min(hours), window.end_ms)
            events = archive.read(whole, EVENT_SCHEMA.names, view_keys=keys)
            _add(sums, events, wanted)
    return sums


def _add(sums: Sums, table: pa.Table, hours: frozenset[int]) -> None:
    events = to_events(table)
    later = max(event["ts"] for event in events) + DAY_MS
    who = {
        key: tuple(_word(distinct[0][name]) for name in VIDEO)
        for key, (distinct, _) in oracle.views(events).items()
    }  # fmt: skip
    for fact in oracle.increments(events, later):
        hour = fact.instant_ms - fact.instant_ms % HOUR_MS
        if hour in hours:
            sums[hour, who[fact.view], fact.measure] += fact.amount
    for view in oracle_views.ended_views(events, later):
        hour = view.instant_ms - view.instant_ms % HOUR_MS
        if hour in hours:
            for name, amount in oracle_views.per_view_sums([view]).items():
                sums[hour, who[view.key], name] += amount


def _compare(store: TimeSeriesStore, hour: int, expected: Sums, found: Findings) -> None:
    by_tenant: Sums = Counter()
    for (at, keys, name), amount in expected.items():
        by_tenant[at, keys[:1], name] += amount
    with store.snapshot() as state:
        for rollup, keys in _rollups():
            measures = tuple(name for name in MEASURES if name in {m.name for m in rollup.measures})
            part = Part("hour", Interval(hour, hour + HOUR_MS))
            question = Scan(rollup.name, measures, (hour, hour + HOUR_MS), Visible(None), keys, parts=(part,))
            stored: Sums = Counter()
            for row in state.scan(question).to_pylist():
                for name in measures:
                    stored[hour, tuple(row[key] for key in keys), name] += row[name]
            right = {k: n for k, n in (expected if keys == VIDEO else by_tenant).items() if k[2] in measures}
            _differ(rollup.name, keys, stored, right, found)


def _rollups() -> Iterator[tuple[Rollup, tuple[str, ...]]]:
    """Yield the rollups that keep these measures by the hour, and the dimensions to compare by."""
    for rollup in ROLLUPS.values():
        if "hour" in rollup.tiers and any(m.name == "plays" for m in rollup.measures):
            yield rollup, VIDEO if rollup.name == "video" else VIDEO[:1]


def _differ(
    rollup: str,
    names: tuple[str, ...],
    stored: Sums,
    expected: dict[tuple[int, tuple[str, ...], str], int],
    found: Findings,
) -> None:
    places = sorted({*stored, *expected})
    found.compared += len(places)
    for place in places:
        have, right = stored.get(place, 0), expected.get(place, 0)
        if have != right:
            hour, keys, measure = place
            found.note(Difference(hour, rollup, dict(zip(names, keys, strict=True)), measure, have, right))


def _word(value: object) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)
