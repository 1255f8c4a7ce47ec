"""One state of the store for several questions, inside one transaction of a reader's connection.

In: a connection in a transaction. Out: coverage, scans, exact viewers, cohorts, all of the same moment. Promised: O4,
O6. Coverage is kept by the version that every change of the batch side raises, and read from the tables only when that
version is new.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace

import pyarrow as pa

from viewmeter.model.calendar import Period, hour_step_ms, period_of, zone_of
from viewmeter.model.catalogue import ROLLUPS
from viewmeter.model.spans import Spans, merged, minus
from viewmeter.model.time import DAY_MS, HOUR_MS, Interval
from viewmeter.olap import embedded_viewers as people
from viewmeter.olap import embedded_zones as calendar
from viewmeter.olap.embedded_coverage import CoverageCache, Moves
from viewmeter.olap.embedded_database import Connection, Limits, first
from viewmeter.olap.embedded_expiry import reach
from viewmeter.olap.embedded_scan import scan
from viewmeter.olap.embedded_settings import DuckDBSettings
from viewmeter.olap.embedded_tables import batch
from viewmeter.olap.errors import ScanTooLargeError
from viewmeter.olap.protocol import Coverage, Scan


class DuckDBSnapshot:
    """`Snapshot` on a connection whose transaction is open."""

    def __init__(
        self, con: Connection, settings: DuckDBSettings, coverages: CoverageCache, limits: Limits, moves: Moves
    ) -> None:
        self._con, self._settings, self._coverages, self._limits = con, settings, coverages, limits
        self._moves, self._number = moves, moves.number()

    def coverage(self, zone: str, tenant_id: str | None = None) -> Coverage:
        """Return what is where."""
        # Two questions: as one, with a subquery, they take 1.0 ms of CPU to plan and run instead of 0.5.
        (version,) = first(self._con.execute("SELECT version FROM batch_state"))
        hours = self._con.execute("SELECT DISTINCT hour_ms FROM speed_hours").fetchall()
        key = (int(version), zone, tenant_id)
        found = self._coverages.get(key)
        if found is None:
            found = self._read_coverage(zone, tenant_id)
            self._coverages.put(key, found)
        found = _without_open_hours(found, zone, (hour for (hour,) in hours))
        self._moves.keep(self._number, zone, tenant_id, found)
        return found

    def _read_coverage(self, zone: str, tenant_id: str | None) -> Coverage:
        con = self._con
        hours = con.execute("SELECT hour_ms FROM closed_hours ORDER BY 1").fetchall()
        since = calendar.zone_since(con, zone, tenant_id)
        days = self._built("day", zone, since)
        return Coverage(
            closed_hours=tuple(merged(Interval(hour, hour + HOUR_MS) for (hour,) in hours)),
            minute_from_ms=reach(con, "minute"),
            hour_from_ms=reach(con, "hour"),
            days=days,
            weeks=self._built("week", zone, since),
            months=self._built("month", zone, since),
            hour_step_ms=HOUR_MS if since is None else hour_step_ms(zone),
            viewers_from_ms=reach(con, "viewers"),
            rows_a_day=self._rows_a_day(days),
        )

    def _rows_a_day(self, days: Sequence[Interval]) -> dict[str, int]:
        """Return about how many rows a day has in each rollup that has coarser ones too."""
        count = sum(span.end_ms - span.start_ms for span in days) // DAY_MS
        if not count:
            return {}
        found = self._con.execute("SELECT table_name, estimated_size FROM duckdb_tables()").fetchall()
        sizes = {name: int(size) for name, size in found}
        return {r.name: sizes[batch(r, "day")] // count + 1 for r in ROLLUPS.values() if {"day", "week"} <= {*r.tiers}}

    def _built(self, kind: Period, zone: str, since: int | None) -> tuple[Interval, ...]:
        if since is None:
            return ()
        return tuple(merged(p for p in calendar.built(self._con, kind, zone) if p.start_ms >= since))

    def scan(self, question: Scan) -> pa.Table:
        """Return merged measures as the protocol says; dimensions are strings, `is_bot` too.

        Raises ValueError for what the rollup does not have, `ScanTooLargeError` beyond `scan_rows_max`, TimeoutError
        when the scan itself takes too long.
        """
        return scan(self._con, question, self._settings, self._limits)

    def exact_viewers(self, question: Scan, zone: str = "UTC") -> pa.Table:
        """Count distinct viewers exactly."""
        with self._limits.limited(self._con, self._settings.scan_timeout_s):
            return self._bounded(people.exact_viewers(self._con, question, zone))

    def cohorts(self, question: Scan) -> pa.Table:
        """Return viewers by the week of their first play."""
        with self._limits.limited(self._con, self._settings.scan_timeout_s):
            return people.cohorts(self._con, question)

    def _bounded(self, table: pa.Table) -> pa.Table:
        if table.num_rows > self._settings.scan_rows_max:
            raise ScanTooLargeError(self._settings.scan_rows_max)
        return table


def _without_open_hours(found: Coverage, zone: str, hours: Iterable[int]) -> Coverage:
    """Say which open hours have rows; leave out periods in which one of them got its first after they were built.

    Until that hour is closed too, speed rows answer for it, and the hours of its day for the others. Asked of every
    snapshot, since an append must not wait for the batch side: rows of the days that are built, so none as a rule.
    `hours` are those with speed rows: closed ones leave that table after some hours, so they are few.
    """
    closed = Spans(found.closed_hours)
    waiting = tuple(sorted(hour for hour in hours if not closed.holds(hour)))
    if not waiting:
        return found
    found = replace(found, waiting_hours=waiting)
    if not found.days:
        return found
    reach = Interval(found.hour_from_ms, found.days[-1].end_ms)
    inside = [hour for hour in waiting if reach.start_ms <= hour < reach.end_ms]
    if not inside:
        return found
    clock = zone_of(zone)

    def left(kind: Period) -> tuple[Interval, ...]:
        touched = {period_of(at, kind, clock) for hour in inside for at in (hour, hour + HOUR_MS - 1)}
        return tuple(minus(found.built(kind), sorted(touched)))

    return replace(found, days=left("day"), weeks=left("week"), months=left("month"))
