"""The time-series store on DuckDB: one file, one writer, many readers.

In: Arrow tables of rollup rows, a commit with each micro-batch; whole hours from the batch layer. Out: merged measures
as Arrow tables. Promised: O1 to O12 of the protocol; a scan sees one snapshot; nothing waits for a reader but the
reader's own turn. Deliberately not done: a second process on the same file (DuckDB locks it), and metrics (the query
layer divides, last).

The rooms beside it: tables (names and columns), sql and scan (reading), snapshot (one state), compaction, batch (hours,
periods), zones, coarser (tiers), expiry, viewers, checks. Appends cost 80 ms for 30,000 rows of 50 columns, half of it
the fsync of their 12 MB of WAL. A checkpoint of such rows costs as much again, so it follows compaction, when most of
them are gone.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext, suppress
from pathlib import Path
from typing import Final, TypeVar

import duckdb
import msgspec
import pyarrow as pa
import structlog

from viewmeter.model.calendar import Period
from viewmeter.model.catalogue import SPEED_ROLLUPS, Rollup
from viewmeter.model.time import HOUR_MS, Interval
from viewmeter.olap import embedded_batch as batches
from viewmeter.olap.embedded_batch import LOADED, Batch
from viewmeter.olap.embedded_changes import Changes
from viewmeter.olap.embedded_checks import checked_speed, hours_of
from viewmeter.olap.embedded_compaction import compact, count_rows
from viewmeter.olap.embedded_copy import copy_to
from viewmeter.olap.embedded_coverage import CoverageCache, Moves
from viewmeter.olap.embedded_database import (
    Limits,
    Readers,
    StoreLockedError,
    first,
    noticed,
    open_file,
    sync_names,
    transaction,
)
from viewmeter.olap.embedded_glance import Glance, MovedError
from viewmeter.olap.embedded_migration import StoreVersionError, prepare
from viewmeter.olap.embedded_scan import scan
from viewmeter.olap.embedded_settings import DuckDBSettings
from viewmeter.olap.embedded_snapshot import DuckDBSnapshot
from viewmeter.olap.embedded_tables import all_tables, appended
from viewmeter.olap.protocol import (
    ClosedHour,
    Commit,
    DuePeriod,
    HourRun,
    JobRun,
    Scan,
    Snapshot,
    StoreFigures,
)

__all__ = ["DuckDBSettings", "DuckDBStore", "StoreLockedError", "StoreVersionError"]

T = TypeVar("T")
_SEEN_MAX: Final = 10_000

log = structlog.get_logger(__name__)


class DuckDBStore:
    """`TimeSeriesStore` on a DuckDB file; made where missing."""

    def __init__(self, path: Path, settings: DuckDBSettings | None = None) -> None:
        self._settings = settings or DuckDBSettings()
        self._path = path
        self._writing = threading.RLock()
        self._compacting = threading.Lock()
        self._db = open_file(path, self._settings)
        try:
            prepare(self._db, path)
        except BaseException:
            self._db.close()
            raise
        self._compactor = self._db.cursor()
        self._readers = Readers(self._db, self._settings)
        self._moves = Moves()
        self._batch = Batch(
            self._db.cursor(), self._settings, self._note_range, self._touched, self._writing, self._moves,
            lambda: sync_names(path),
        )  # fmt: skip
        self._coverages, self._limits = CoverageCache(), Limits()
        self._last = self._read_last()
        self._changes = Changes()
        self._seen: set[int] = set()  # hours that an append of this process was of

    # --- the speed layer -----------------------------------------------------------------------------------

    def append(self, rows: Mapping[str, pa.Table], commit: Commit) -> None:
        """Add the rows and the commit in one transaction; durable (fsync of the WAL) when it returns."""
        checked = checked_speed(rows)
        with self._writing:
            if self._last is not None and commit.number <= self._last.number:
                raise ValueError(
                    f"commit {commit.number} is already in (the last one is {self._last.number}): "
                    "append each batch once, with rising numbers"
                )
            hours = hours_of(checked)
            is_new = not self._seen.issuperset(hours)  # the first rows of an hour change what is where
            with transaction(self._db, self._moves.moving if is_new else nullcontext):
                self._insert(checked, hours, commit.number)
                self._db.execute("INSERT INTO commits VALUES (?, ?, ?, ?)", _commit_row(commit))
            if is_new:
                self._seen = {*hours} if len(self._seen) > _SEEN_MAX else self._seen | {*hours}
            self._last = commit
            sync_names(self._path)
        self._changes.note(hours)

    def load(self, rows: Mapping[str, pa.Table]) -> None:
        """Add rows that come from no log, in one transaction; their hours stay open for ever."""
        checked = checked_speed(rows)
        hours = hours_of(checked)
        with self._writing, transaction(self._db, self._moves.moving):
            self._insert(checked, hours, LOADED)
            closed = first(
                self._db.execute(
                    "SELECT hour_ms FROM closed_hours WHERE hour_ms IN (SELECT unnest(?::BIGINT[]))", [hours]
                )
            )
            if closed is not None:
                raise ValueError(f"hour {closed[0]} is closed: rows that are loaded into it would never be seen")
        sync_names(self._path)
        self._changes.note(hours)

    def _insert(self, rows: Sequence[tuple[Rollup, pa.Table]], hours: Sequence[int], number: int) -> None:
        for rollup, table in rows:
            self._db.register("arriving", table)
            # After a failure the transaction takes no more statements: the next register() replaces the view.
            self._db.execute(f"INSERT INTO {appended(rollup)} BY NAME SELECT * FROM arriving")
            self._db.unregister("arriving")
        if hours:
            self._db.execute("INSERT INTO speed_hours SELECT unnest(?::BIGINT[]), ?", [hours, number])

    # --- commits -------------------------------------------------------------------------------------------

    def last_commit(self) -> Commit | None:
        """Return the newest commit."""
        return self._last

    def commits_after(self, number: int) -> list[Commit]:
        """Return the commits behind `number`, in order."""
        with self._readers.one() as con:
            rows = con.execute("SELECT * FROM commits WHERE number > ? ORDER BY number", [number]).fetchall()
        return [_commit(row) for row in rows]

    def forget_commits(self, up_to: int) -> None:
        """Drop commits up to this number, but never the newest."""
        with self._writing:
            if self._last is not None:
                self._db.execute("DELETE FROM commits WHERE number <= ?", [min(up_to, self._last.number - 1)])

    def _read_last(self) -> Commit | None:
        row = first(self._db.execute("SELECT * FROM commits ORDER BY number DESC LIMIT 1"))
        return None if row is None else _commit(row)

    # --- the batch layer -----------------------------------------------------------------------------------

    def put_hour(self, hour_ms: int, rows: Mapping[str, pa.Table], viewers: pa.Table, run: HourRun) -> None:
        """Replace all batch rows of an hour and close it."""
        self._batch.put_hour(hour_ms, rows, viewers, run)

    def put_history(self, interval: Interval, rows: Mapping[str, pa.Table], viewers: pa.Table, at_ms: int) -> None:
        """Close whole hours with rows that come from no log."""
        self._batch.put_history(interval, rows, viewers, at_ms)

    def _touched(self, hour_ms: int) -> int:
        with self._writing:
            return batches.touched(self._db, hour_ms)

    def closed(self, interval: Interval) -> list[ClosedHour]:
        """Return the closed hours of the range, in order."""
        with self._readers.one() as con:
            return batches.closed_hours(con, interval)

    def stale_hours(self) -> list[int]:
        """Return the closed hours that must run again."""
        with self._readers.one() as con:
            return batches.stale_hours(con)

    def mark_stale(self, hours: Iterable[int]) -> None:
        """Say that closed hours must run again."""
        self._batch.mark_stale(hours)

    def hours_with_rows(self) -> list[int]:
        """Return the open hours that have appended rows."""
        with self._readers.one() as con:
            return batches.hours_with_rows(con)

    def compare(self, hour_ms: int) -> Mapping[str, tuple[int, int]]:
        """Return each additive measure of a closed hour in both layers."""
        with self._readers.one() as con, transaction(con):
            return batches.compare(con, hour_ms)

    def set_zones(self, zones: Mapping[str, str], now_ms: int) -> None:
        """Say in which zone each tenant reports."""
        self._batch.set_zones(zones, now_ms)

    def due(self, before_ms: int) -> list[DuePeriod]:
        """Return days, weeks and months to build."""
        with self._readers.one() as con, transaction(con):
            return batches.due(con, before_ms)

    def build(self, kind: Period, start_ms: int, zone: str) -> int:
        """Build the rows of one period."""
        return self._batch.build(kind, start_ms, zone)

    def expire(self, now_ms: int) -> Mapping[str, int]:
        """Drop what is old and held by a coarser tier."""
        dropped = self._batch.expire(now_ms, self._compacting)
        if dropped:
            self._checkpoint()
        return dropped

    def erase_viewer(self, tenant_id: str, viewer_hash: int) -> int:
        """Delete the viewer's rows; a checkpoint then takes them out of the file."""
        deleted = self._batch.erase_viewer(tenant_id, viewer_hash)
        self._checkpoint()
        return deleted

    def note_run(self, run: JobRun) -> int:
        """Keep a run in the history."""
        return self._batch.note_run(run)

    def runs(self, limit: int = 100, before: int | None = None, job: str | None = None) -> Sequence[JobRun]:
        """Return the newest runs first."""
        with self._readers.one() as con:
            return batches.runs(con, limit, before, job)

    # --- reading -------------------------------------------------------------------------------------------

    @contextmanager
    def snapshot(self) -> Iterator[Snapshot]:
        """Open one state. Raises TimeoutError when all readers are busy for too long."""
        with self._readers.one() as con, transaction(con):
            yield DuckDBSnapshot(con, self._settings, self._coverages, self._limits, self._moves)

    def read(self, work: Callable[[Snapshot], T], scans: int) -> T:
        """Do some work on one state. One scan is done without a transaction, and again with one if something moved."""
        if scans == 1:
            with suppress(MovedError), self._readers.one() as con, noticed():
                return work(Glance(con, self._settings, self._limits, self._moves))
        with self.snapshot() as state:
            return work(state)

    def scan(self, question: Scan) -> pa.Table:
        """Return merged measures, of one state of the store."""
        with self._readers.one() as con, noticed():
            return scan(con, question, self._settings, self._limits)

    def change_number(self, interval: Interval) -> int:
        """Return a number that rises whenever rows of the range change: an answer is fresh while it stands still."""
        return self._changes.number(interval)

    def _note_range(self, interval: Interval) -> None:
        self._changes.note([*range(interval.start_ms, interval.end_ms, HOUR_MS)])

    # --- upkeep --------------------------------------------------------------------------------------------

    def compact(self, before_ms: int) -> int:
        """Merge appended rows older than `before_ms`; return the number of rows saved."""
        with self._compacting:
            saved = compact(self._compactor, before_ms, self._settings.compact_rows)
            if saved:
                self._checkpoint()
            return saved

    def _checkpoint(self) -> None:
        # DuckDB lets commits pass for most of it.
        try:
            with self._readers.one() as con:
                con.execute("CHECKPOINT")
        except duckdb.TransactionException as busy:
            log.debug("checkpoint_postponed", reason=str(busy))

    def figures(self) -> StoreFigures:
        """Return rows per rollup and bytes on disk."""
        with self._readers.one() as con, transaction(con):
            rows = {rollup.name: count_rows(con, rollup) for rollup in SPEED_ROLLUPS.values()}
            tables = [name for name in all_tables() if not name.startswith("speed_")]
            counts = first(con.execute("SELECT " + ", ".join(f"(SELECT count(*) FROM {t})" for t in tables))) or ()
        files = (self._path, self._path.with_name(self._path.name + ".wal"))
        size = sum(file.stat().st_size for file in files if file.exists())
        return StoreFigures(rows, size, {t.replace("_", ".", 1): int(n) for t, n in zip(tables, counts, strict=True)})

    def flush(self) -> None:
        """Return when appends that were begun before are done: each is durable and visible when it returns."""
        with self._writing:
            pass

    def copy_to(self, path: Path) -> None:
        """Write a copy of everything as of one moment to a new file; appends and scans go on."""
        con = self._db.cursor()
        try:
            copy_to(con, path)
        finally:
            con.close()

    def close(self) -> None:
        """Checkpoint and close; waits for scans, a batch call and a compaction that are running."""
        self._batch.close()  # first: a batch call may be waiting for one of the locks below
        with self._compacting, self._writing:
            self._readers.close()
            self._limits.close()
            self._compactor.close()
            self._db.close()


def _commit_row(commit: Commit) -> list[object]:
    positions = msgspec.json.encode({str(k): v for k, v in commit.positions.items()}).decode()
    return [commit.number, commit.at_ms, positions, commit.watermark_ms]


def _commit(row: tuple[int, int, str, int]) -> Commit:
    number, at_ms, positions, watermark_ms = row
    return Commit(number, at_ms, msgspec.json.decode(positions, type=dict[int, int]), watermark_ms)
