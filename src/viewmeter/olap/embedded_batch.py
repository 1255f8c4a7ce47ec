"""The batch layer's side of the DuckDB store: closed hours, built periods, what is dropped, the history of runs.

In: rows of whole hours. Out: batch tables of every tier that agree with each other. Promised: O6 to O12; each call is
one transaction (expire(): one a table and step), on a connection of its own, so that appends do not wait for it. One
batch call runs at a time.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from typing import Final

import duckdb
import msgspec
import pyarrow as pa

from viewmeter.model.calendar import Period, period_of, zone_of
from viewmeter.model.catalogue import ROLLUPS, Kind
from viewmeter.model.catalogue.rollups import Tier
from viewmeter.model.time import HOUR_MS, Interval
from viewmeter.olap import embedded_expiry as expiry
from viewmeter.olap import embedded_viewers as people
from viewmeter.olap import embedded_zones as calendar
from viewmeter.olap.embedded_checks import checked_batch, checked_hours, checked_viewers
from viewmeter.olap.embedded_coarser import add_coarser, arriving, finer
from viewmeter.olap.embedded_coverage import Moves
from viewmeter.olap.embedded_database import Connection, first, transaction
from viewmeter.olap.embedded_settings import DuckDBSettings
from viewmeter.olap.embedded_tables import appended, batch, merged
from viewmeter.olap.protocol import (
    ClosedHour,
    DuePeriod,
    HourDroppedError,
    HourKeptError,
    HourRun,
    HourTouchedError,
    JobRun,
)

_MADE_OF: Final[dict[Period, Tier]] = {"day": "hour", "week": "day", "month": "day"}
LOADED: Final = -1
"""The commit number of rows that came from no log."""


class Batch:
    """Batch tables of one store. `changed` is told of ranges whose answers changed, after the commit.

    `touched(hour)` is the last commit with rows of the hour; none is added while `no_appends` is held. `make_safe` is
    called behind each commit.
    """

    def __init__(
        self,
        con: Connection,
        settings: DuckDBSettings,
        changed: Callable[[Interval], None],
        touched: Callable[[int], int],
        no_appends: AbstractContextManager[object],
        moves: Moves,
        make_safe: Callable[[], None],
    ) -> None:
        self._con, self._settings, self._changed = con, settings, changed
        self._touched, self._no_appends, self._moves, self._make_safe = touched, no_appends, moves, make_safe
        self._lock = threading.RLock()

    @contextmanager
    def _changing(self) -> Iterator[Connection]:
        """One transaction of the batch side, durable behind it; coverage that was read before it is old then."""
        with self._lock:
            with transaction(self._con, self._moves.moving):
                self._con.execute("UPDATE batch_state SET version = version + 1")
                yield self._con
            self._make_safe()

    # --- hours ---------------------------------------------------------------------------------------------

    def put_hour(self, hour_ms: int, rows: Mapping[str, pa.Table], viewers: pa.Table, run: HourRun) -> None:
        """Replace an hour's rows and close it."""
        interval = checked_hours(Interval(hour_ms, hour_ms + HOUR_MS))
        tables = checked_batch(rows, interval)
        people_rows = checked_viewers(viewers, interval)
        with ExitStack() as held, self._changing() as con:
            self._refuse(con, interval)
            is_open = not closed_hours(con, interval)
            if is_open:
                self._refuse_touched(hour_ms, run)
            con.execute("DELETE FROM closed_hours WHERE hour_ms = ?", [hour_ms])
            con.execute(
                "INSERT INTO closed_hours VALUES (?, ?, ?, ?, FALSE)",
                [hour_ms, run.archive_version, run.seen_commit, run.at_ms],
            )
            self._put(con, interval, tables, people_rows)
            con.execute("DELETE FROM stale_marks WHERE hour_ms = ?", [hour_ms])
            _mark(con, run.marks)
            if is_open:
                # Again, and with appends held until the commit is made: this transaction does not see newer ones.
                held.enter_context(self._no_appends)
                self._refuse_touched(hour_ms, run)
        self._changed(interval)

    def put_history(self, interval: Interval, rows: Mapping[str, pa.Table], viewers: pa.Table, at_ms: int) -> None:
        """Close hours whose rows come from no job."""
        checked_hours(interval)
        tables = checked_batch(rows, interval)
        people_rows = checked_viewers(viewers, interval)
        with self._changing() as con:
            if there := closed_hours(con, interval):
                raise ValueError(f"hour {there[0].hour_ms} is closed already: history goes where nothing is yet")
            con.execute(
                "INSERT INTO closed_hours SELECT unnest(range(?, ?, ?)), 0, 0, ?, TRUE", [*interval, HOUR_MS, at_ms]
            )
            self._put(con, interval, tables, people_rows)
        self._changed(interval)

    def _refuse_touched(self, hour_ms: int, run: HourRun) -> None:
        number = self._touched(hour_ms)
        if number > run.seen_commit:
            raise HourTouchedError(
                f"hour {hour_ms} has rows of commit {number}, and the run saw no later one than {run.seen_commit}: "
                "it stays open"
            )

    def _refuse(self, con: Connection, interval: Interval) -> None:
        inside = [*interval]
        loaded = f"SELECT 1 FROM speed_hours WHERE number = {LOADED} AND hour_ms >= ? AND hour_ms < ?"
        if any(one.kept for one in closed_hours(con, interval)) or first(con.execute(loaded, inside)):
            raise HourKeptError(
                f"hour {interval.start_ms} has rows that come from no events: a run must not replace it"
            )
        reach = expiry.reach(con, "hour")
        for kind, zone, period in calendar.built_with(con, interval):
            if kind == "day" and period.start_ms < reach:
                raise HourDroppedError(
                    f"hour {interval.start_ms} belongs to a day ({zone}) that is built and whose hours were dropped: "
                    f"hours from {reach} on can be replaced"
                )

    def _put(self, con: Connection, interval: Interval, tables: Mapping[str, pa.Table], viewers: pa.Table) -> None:
        """Replace the rows of hours that are among the closed ones by now, and what was built from them."""
        inside = f"time_ms >= {interval.start_ms} AND time_ms < {interval.end_ms}"
        step = calendar.step_sql(con)
        keeps_minutes = interval.end_ms > expiry.reach(con, "minute")
        for rollup in ROLLUPS.values():
            finest = rollup.tiers[0]
            for tier in {finest, "hour"} & {*rollup.tiers}:
                con.execute(f"DELETE FROM {batch(rollup, tier)} WHERE {inside}")
            table = tables.get(rollup.name)
            if table is None:
                continue
            source = arriving(con, rollup, table)
            if finest == "minute" and keeps_minutes:
                order = ", ".join([*rollup.keys, "time_ms"])
                con.execute(f"INSERT INTO {batch(rollup, finest)} BY NAME {source} ORDER BY {order}")
            if "hour" in rollup.tiers:
                add_coarser(con, rollup, source, "hour", step, has_sketches=False)
        people.replace_hours(con, interval, viewers)
        for kind, zone, period in calendar.built_with(con, interval):
            if kind != "day" and calendar.missing_days(con, period, zone):
                # An hour before the first one that was known: its day comes first, and then the period is due again.
                calendar.forget_built(con, kind, zone, period)
            else:
                _build_rows(con, kind, zone, period)

    def mark_stale(self, hours: Iterable[int]) -> None:
        """Mark closed hours for another run."""
        with self._changing() as con:
            _mark(con, hours)

    # --- periods -------------------------------------------------------------------------------------------

    def set_zones(self, zones: Mapping[str, str], now_ms: int) -> None:
        """Keep in which zone each tenant reports."""
        with self._changing() as con:
            calendar.set_zones(con, zones, now_ms)

    def build(self, kind: Period, start_ms: int, zone: str) -> int:
        """Build one period."""
        period = period_of(start_ms, kind, zone_of(zone))
        if period.start_ms != start_ms:
            raise ValueError(f"no {kind} of {zone} starts at {start_ms}; one starts at {period.start_ms}")
        with self._changing() as con:
            if zone not in calendar.zones_in_use(con):
                raise ValueError(f"no tenant reports in {zone}: set_zones() says who does")
            if kind == "day" and calendar.open_inside(con, period):
                raise ValueError(f"the day from {start_ms} has hours that are not closed: close them first")
            if kind != "day" and (missing := calendar.missing_days(con, period, zone)):
                raise ValueError(f"the {kind} from {start_ms} lacks the day from {missing[0].start_ms}: build it first")
            is_built = period in calendar.built(con, kind, zone)
            if is_built and start_ms < expiry.reach(con, _MADE_OF[kind]):
                raise ValueError(
                    f"the {kind} from {start_ms} is built, and the {_MADE_OF[kind]}s it was made of are gone"
                )
            count = _build_rows(con, kind, zone, period)
            con.execute(
                "DELETE FROM built_periods WHERE kind = ? AND zone = ? AND start_ms = ?", [kind, zone, start_ms]
            )
            con.execute("INSERT INTO built_periods VALUES (?, ?, ?, ?)", [kind, zone, *period])
        return count

    # --- upkeep --------------------------------------------------------------------------------------------

    def expire(self, now_ms: int, compacting: threading.Lock) -> Mapping[str, int]:
        """Drop what is old; first it is said that it is not there any more, then it is deleted, step by step."""
        with self._changing() as con:
            expiry.advance(con, self._settings, now_ms)
        dropped: dict[str, int] = {}
        with self._lock, compacting:
            for table, statement in expiry.deletions(self._con, self._settings, now_ms):
                with transaction(self._con):
                    row = first(self._con.execute(statement))
                count = int(row[0]) if row else 0
                if count:
                    dropped[table] = dropped.get(table, 0) + count
        return dropped

    def erase_viewer(self, tenant_id: str, viewer_hash: int) -> int:
        """Delete a viewer from the tables that name viewers."""
        with self._changing() as con:
            return people.erase(con, tenant_id, viewer_hash)

    def note_run(self, run: JobRun) -> int:
        """Keep a run in the history."""
        details = msgspec.json.encode(run.details).decode()
        with self._lock, transaction(self._con):
            row = first(self._con.execute("SELECT coalesce(max(number), 0) + 1 FROM job_runs"))
            number = int(row[0]) if row else 1
            self._con.execute(
                "INSERT INTO job_runs VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)",
                [number, run.job, *run.interval, run.began_ms, run.ended_ms, run.state, run.rows, details],
            )
            self._con.execute("DELETE FROM job_runs WHERE number <= ?", [number - self._settings.runs_max])
        return number

    def close(self) -> None:
        """Wait for the call that is running, and close."""
        with self._lock:
            self._con.close()


# --- reading: on a reader's connection -----------------------------------------------------------------------------


def stale_hours(con: Connection) -> list[int]:
    """Return the closed hours that must run again."""
    found = con.execute(
        """
        SELECT hour_ms FROM closed_hours WHERE NOT kept AND (
            hour_ms IN (SELECT hour_ms FROM stale_marks)
            OR seen_commit < (SELECT max(number) FROM speed_hours AS s WHERE s.hour_ms = closed_hours.hour_ms)
        ) ORDER BY 1
        """
    ).fetchall()
    return [hour for (hour,) in found]


def hours_with_rows(con: Connection) -> list[int]:
    """Return the open hours with appended rows and no loaded ones."""
    found = con.execute(
        f"""
        SELECT hour_ms FROM speed_hours GROUP BY 1 HAVING min(number) > {LOADED}
        EXCEPT SELECT hour_ms FROM closed_hours ORDER BY 1
        """
    ).fetchall()
    return [hour for (hour,) in found]


def touched(con: Connection, hour_ms: int) -> int:
    """Return the last commit with rows of the hour; 0: none."""
    row = first(con.execute("SELECT max(number) FROM speed_hours WHERE hour_ms = ?", [hour_ms]))
    return 0 if row is None or row[0] is None else int(row[0])


def compare(con: Connection, hour_ms: int) -> dict[str, tuple[int, int]]:
    """Return the additive measures of an hour in both layers."""
    interval = Interval(hour_ms, hour_ms + HOUR_MS)
    if not closed_hours(con, interval) or hour_ms < max(expiry.reach(con, "speed"), expiry.reach(con, "minute")):
        return {}
    rollup = ROLLUPS["platform"]
    names = [m.name for m in rollup.speed_measures if m.kind is Kind.ADDITIVE]
    sums = ", ".join(f"coalesce(sum({name}), 0)::BIGINT" for name in names)
    inside = f"time_ms >= {interval.start_ms} AND time_ms < {interval.end_ms}"
    columns = ", ".join(names)
    speed = " UNION ALL ".join(f"SELECT {columns} FROM {t} WHERE {inside}" for t in (appended(rollup), merged(rollup)))
    ours = first(con.execute(f"SELECT {sums} FROM ({speed})")) or ()
    theirs = first(con.execute(f"SELECT {sums} FROM {batch(rollup, 'minute')} WHERE {inside}")) or ()
    return {name: (a, b) for name, a, b in zip(names, ours, theirs, strict=True)}


def due(con: Connection, before_ms: int) -> list[DuePeriod]:
    """Return what to build, in order."""
    return calendar.due(con, before_ms)


def runs(con: Connection, limit: int, before: int | None, job: str | None) -> Sequence[JobRun]:
    """Return the newest runs first."""
    found = con.execute(
        "SELECT * FROM job_runs WHERE (? IS NULL OR number < ?) AND (? IS NULL OR job = ?)"
        " ORDER BY number DESC LIMIT ?",
        [before, before, job, job, limit],
    ).fetchall()
    return [
        JobRun(name, Interval(start, end), began, ended, state, rows, msgspec.json.decode(details), number)
        for number, name, start, end, began, ended, state, rows, details in found
    ]


def closed_hours(con: Connection, interval: Interval) -> list[ClosedHour]:
    """Return the closed hours of the range, in order."""
    found = con.execute(
        "SELECT * FROM closed_hours WHERE hour_ms >= ? AND hour_ms < ? ORDER BY hour_ms", [*interval]
    ).fetchall()
    return [ClosedHour(*row) for row in found]


def _mark(con: duckdb.DuckDBPyConnection, hours: Iterable[int]) -> None:
    wanted = [*hours]
    if wanted:
        con.execute(
            "INSERT INTO stale_marks SELECT hour_ms FROM closed_hours WHERE NOT kept AND hour_ms IN "
            "(SELECT unnest(?::BIGINT[])) AND hour_ms NOT IN (SELECT hour_ms FROM stale_marks)",
            [wanted],
        )


def _build_rows(con: Connection, kind: Period, zone: str, period: Interval) -> int:
    """Make the rows of a period anew from the finer tier."""
    count = 0
    of_zone = "" if kind == "day" else f" AND zone = '{zone}'"
    inside = f"time_ms >= {period.start_ms} AND time_ms < {period.end_ms}{of_zone}"
    source_tier = _MADE_OF[kind]
    whose = calendar.tenants_where(zone, period.start_ms)
    mine = f"time_ms = {period.start_ms} AND zone = '{zone}'"
    for rollup in ROLLUPS.values():
        if kind not in rollup.tiers:
            continue
        target = batch(rollup, kind)
        con.execute(f"DELETE FROM {target} WHERE {mine}")
        source = finer(rollup, source_tier, f"{inside} AND {whose}")
        if first(con.execute(f"SELECT 1 FROM ({source}) LIMIT 1")) is None:
            continue  # planning the merge of fifty columns costs 30 ms, and most periods of a long catch-up are empty
        add_coarser(con, rollup, source, kind, f"{period.start_ms}::BIGINT", zone)
        row = first(con.execute(f"SELECT count(*) FROM {target} WHERE {mine}"))
        count += int(row[0]) if row else 0
    people.build(con, kind, zone, period)
    return count
