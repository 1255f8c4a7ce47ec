"""The time-series store on DuckDB: one file, one writer, many readers.

In: Arrow tables of rollup rows, a commit with each micro-batch. Out: merged measures as Arrow tables. Promised:
O1 to O5 of the protocol; a scan sees one snapshot; nothing waits for a reader but the reader's own turn. Deliberately
not done: a second process on the same file (DuckDB locks it), and metrics (the query layer divides, last).

Appends cost 80 ms for 30,000 rows of 50 columns, half of it the fsync of their 12 MB of WAL. A checkpoint of such
rows costs as much again, so it follows compaction, when most of them are gone.
"""

from __future__ import annotations

import queue
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import duckdb
import msgspec
import numpy as np
import pyarrow as pa
import structlog

from viewmeter.model.catalogue import SPEED_ROLLUPS, Kind, Rollup
from viewmeter.model.sketches import thin_coupons
from viewmeter.model.time import HOUR_MS, Interval
from viewmeter.olap import embedded_sql as sql
from viewmeter.olap.embedded_scan import assemble, run
from viewmeter.olap.embedded_copy import copy_to
from viewmeter.olap.protocol import Commit, Scan, StoreFigures

SCHEMA_VERSION: Final = 1
_SCHEMA: Final = Path(__file__).with_name("embedded_schema.sql")
_CHANGES_MAX: Final = 100_000
_COUPONS_THIN: Final = 32_768
"""Rows of more viewers than this are thinned when compacted: beyond 2^14 a sketch keeps registers only."""

log = structlog.get_logger(__name__)


@dataclass(frozen=True)
class DuckDBSettings:
    """Bounds of the embedded store."""

    memory_limit: str = "1GB"
    """DuckDB spills to disk above it."""

    threads: int = 2
    """Threads that one scan may use."""

    readers: int = 8
    """Scans at once; more wait for their turn."""

    reader_wait_s: float = 10.0
    """How long a scan waits for its turn before it is refused."""

    scan_timeout_s: float = 30.0
    """How long a scan may run before it is stopped."""

    scan_rows_max: int = 2_000_000
    """Groups (and samples) that a scan may answer; a query that needs more is refused."""

    checkpoint_threshold: str = "512MB"
    """Size of the write-ahead log that forces a checkpoint; compaction makes one long before."""

    compact_rows: int = 200_000
    """Appended rows that one compaction transaction merges."""


class StoreVersionError(Exception):
    """The file was written by a newer version than this one."""


class StoreLockedError(Exception):
    """Another process holds the file."""


class DuckDBStore:
    """`TimeSeriesStore` on a DuckDB file; made where missing."""

    def __init__(self, path: Path, settings: DuckDBSettings | None = None) -> None:
        self._settings = settings or DuckDBSettings()
        self._path = path
        self._writing = threading.RLock()
        self._compacting = threading.Lock()
        self._db = _open(path, self._settings)
        try:
            _prepare(self._db, path)
        except BaseException:
            self._db.close()
            raise
        self._compactor = self._db.cursor()
        self._readers: queue.LifoQueue[duckdb.DuckDBPyConnection] = queue.LifoQueue()
        for _ in range(self._settings.readers):
            self._readers.put(self._db.cursor())
        self._last = self._read_last()
        self._changes: dict[int, int] = {}
        self._change = 0
        self._forgotten_change = 0

    # --- writing -------------------------------------------------------------------------------------------

    def append(self, rows: Mapping[str, pa.Table], commit: Commit) -> None:
        """Add the rows and the commit in one transaction; durable (fsync of the WAL) when it returns."""
        checked = _checked(rows)
        with self._writing:
            if self._last is not None and commit.number <= self._last.number:
                raise ValueError(
                    f"commit {commit.number} is already in (the last one is {self._last.number}): "
                    "append each batch once, with rising numbers"
                )
            with _transaction(self._db):
                self._insert(checked)
                self._db.execute("INSERT INTO commits VALUES (?, ?, ?, ?)", _commit_row(commit))
            self._last = commit
            self._note_changes(checked)

    def load(self, rows: Mapping[str, pa.Table]) -> None:
        """Add rows that come from no log, in one transaction."""
        checked = _checked(rows)
        with self._writing:
            with _transaction(self._db):
                self._insert(checked)
            self._note_changes(checked)

    def _insert(self, rows: Sequence[tuple[Rollup, pa.Table]]) -> None:
        for rollup, table in rows:
            self._db.register("arriving", table)
            # After a failure the transaction takes no more statements: the next register() replaces the view.
            self._db.execute(f"INSERT INTO {sql.appended(rollup)} BY NAME SELECT * FROM arriving")
            self._db.unregister("arriving")

    # --- commits -------------------------------------------------------------------------------------------

    def last_commit(self) -> Commit | None:
        """Return the newest commit."""
        return self._last

    def commits_after(self, number: int) -> list[Commit]:
        """Return the commits behind `number`, in order."""
        with self._reader() as con:
            rows = con.execute("SELECT * FROM commits WHERE number > ? ORDER BY number", [number]).fetchall()
        return [_commit(row) for row in rows]

    def forget_commits(self, up_to: int) -> None:
        """Drop commits up to this number, but never the newest."""
        with self._writing:
            if self._last is not None:
                self._db.execute("DELETE FROM commits WHERE number <= ?", [min(up_to, self._last.number - 1)])

    def _read_last(self) -> Commit | None:
        row = self._db.execute("SELECT * FROM commits ORDER BY number DESC LIMIT 1").fetchone()
        return None if row is None else _commit(row)

    # --- reading -------------------------------------------------------------------------------------------

    def scan(self, question: Scan) -> pa.Table:
        """Return merged measures as the protocol says; dimensions are strings, `is_bot` too.

        Raises ValueError for what the rollup does not have, `ScanTooLargeError` beyond `scan_rows_max`, TimeoutError
        when all readers are busy for too long or the scan itself takes too long.
        """
        sql.check_known(question)
        with self._reader() as con, _limited(con, self._settings.scan_timeout_s), _transaction(con):
            # One transaction: sums and sketches see the same state.
            parts = run(con, question, self._settings.scan_rows_max)
        return assemble(question, parts)

    def change_number(self, interval: Interval) -> int:
        """Return a number that rises whenever rows of the range are added: an answer is fresh while it stands still."""
        start_ms, end_ms = interval
        with self._writing:
            hours = range(start_ms - start_ms % HOUR_MS, end_ms, HOUR_MS)
            if len(hours) > len(self._changes):
                touched = (n for hour, n in self._changes.items() if start_ms - HOUR_MS < hour < end_ms)
            else:
                touched = (self._changes[hour] for hour in hours if hour in self._changes)
            return max(touched, default=self._forgotten_change)

    def _note_changes(self, rows: Sequence[tuple[Rollup, pa.Table]]) -> None:
        self._change += 1
        for _, table in rows:
            hours = np.unique(table["time_ms"].to_numpy() // HOUR_MS) * HOUR_MS
            self._changes.update(dict.fromkeys(hours.tolist(), self._change))
        if len(self._changes) > _CHANGES_MAX:  # eleven years of hours: forget which, keep that something changed
            self._changes.clear()
            self._forgotten_change = self._change

    @contextmanager
    def _reader(self) -> Iterator[duckdb.DuckDBPyConnection]:
        try:
            con = self._readers.get(timeout=self._settings.reader_wait_s)
        except queue.Empty:
            raise TimeoutError(
                f"all {self._settings.readers} readers of the store were busy for {self._settings.reader_wait_s:g} s"
            ) from None
        try:
            yield con
        finally:
            self._readers.put(con)

    # --- upkeep --------------------------------------------------------------------------------------------

    def compact(self, before_ms: int) -> int:
        """Merge appended rows older than `before_ms`; return the number of rows saved.

        Reads only what was appended since the last compaction, in transactions of about `compact_rows` rows. Appends
        go on meanwhile: a transaction deletes the very rows that it merged, and what arrives later stays for next
        time. So let it run in a thread of its own.
        """
        with self._compacting:
            saved = 0
            for rollup in SPEED_ROLLUPS.values():
                for part in self._parts(rollup, before_ms):
                    saved += self._compact_part(rollup, part)
            if saved:
                self._checkpoint()
            return saved

    def _parts(self, rollup: Rollup, before_ms: int) -> list[Interval]:
        with self._reader() as con:
            counts = con.execute(
                f"SELECT time_ms, count(*) FROM {sql.appended(rollup)} WHERE time_ms < ? GROUP BY 1 ORDER BY 1",
                [before_ms],
            ).fetchall()
        parts: list[Interval] = []
        start, rows = 0, 0
        for time_ms, count in counts:
            start = start if rows else time_ms
            rows += count
            if rows >= self._settings.compact_rows:
                parts.append(Interval(start, time_ms + 1))
                rows = 0
        if rows:
            parts.append(Interval(start, counts[-1][0] + 1))
        return parts

    def _compact_part(self, rollup: Rollup, part: Interval) -> int:
        con = self._compactor
        with _transaction(con):
            before = _count(con, rollup)
            for statement in sql.compact_statements(rollup, part):
                con.execute(statement)
            if any(m.kind is Kind.HLL for m in rollup.speed_measures):
                _thin(con, rollup, part)
            return before - _count(con, rollup)

    def _checkpoint(self) -> None:
        # DuckDB lets commits pass for most of it.
        try:
            with self._reader() as con:
                con.execute("CHECKPOINT")
        except duckdb.TransactionException as busy:
            log.debug("checkpoint_postponed", reason=str(busy))

    def figures(self) -> StoreFigures:
        """Return rows per rollup and bytes on disk."""
        with self._reader() as con, _transaction(con):
            rows = {rollup.name: _count(con, rollup) for rollup in SPEED_ROLLUPS.values()}
        files = (self._path, self._path.with_name(self._path.name + ".wal"))
        return StoreFigures(rows, sum(file.stat().st_size for file in files if file.exists()))

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
        """Checkpoint and close; waits for scans and a compaction that are running."""
        with self._compacting, self._writing:
            for _ in range(self._settings.readers):
                self._readers.get(timeout=60).close()
            self._compactor.close()
            self._db.close()


def _open(path: Path, settings: DuckDBSettings) -> duckdb.DuckDBPyConnection:
    config: dict[str, str | bool | int | float | list[str]] = {
        "memory_limit": settings.memory_limit,
        "threads": settings.threads,
        "checkpoint_threshold": settings.checkpoint_threshold,
        "preserve_insertion_order": False,
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        return duckdb.connect(path, config=config)
    except duckdb.IOException as error:
        if "lock" in str(error).lower():
            raise StoreLockedError(
                f"{path} is held by another process: stop the other `viewmeter up` on this folder first"
            ) from error
        raise


def _prepare(db: duckdb.DuckDBPyConnection, path: Path) -> None:
    db.execute(_SCHEMA.read_text(encoding="utf-8"))
    row = db.execute("SELECT max(version) FROM schema_version").fetchone()
    found = row[0] if row else None
    if found is not None and found > SCHEMA_VERSION:
        raise StoreVersionError(
            f"{path} has schema version {found}, and this Viewmeter knows versions up to {SCHEMA_VERSION}: "
            "use the newer Viewmeter that wrote it, or restore a backup"
        )
    with _transaction(db):
        if found is None:
            db.execute("INSERT INTO schema_version VALUES (?)", [SCHEMA_VERSION])
        for rollup in SPEED_ROLLUPS.values():
            for table in (sql.appended(rollup), sql.merged(rollup)):
                db.execute(sql.create_table(rollup, table))
                present = {row[0] for row in db.execute(f"DESCRIBE {table}").fetchall()}
                for name in sql.columns(rollup):
                    if name not in present:
                        db.execute(sql.add_column(rollup, table, name))


@contextmanager
def _transaction(con: duckdb.DuckDBPyConnection) -> Iterator[None]:
    con.execute("BEGIN TRANSACTION")
    try:
        yield
    except BaseException:
        con.execute("ROLLBACK")
        raise
    con.execute("COMMIT")


@contextmanager
def _limited(con: duckdb.DuckDBPyConnection, seconds: float) -> Iterator[None]:
    timer = threading.Timer(seconds, con.interrupt)
    timer.daemon = True
    timer.start()
    try:
        yield
    except duckdb.InterruptException as error:
        raise TimeoutError(f"the scan took more than {seconds:g} s: narrow its range or its filters") from error
    finally:
        timer.cancel()


def _checked(rows: Mapping[str, pa.Table]) -> list[tuple[Rollup, pa.Table]]:
    checked = []
    for name, table in rows.items():
        rollup = SPEED_ROLLUPS.get(name)
        if rollup is None:
            raise ValueError(f"no rollup is called {name!r}; there are {', '.join(SPEED_ROLLUPS)}")
        known = sql.columns(rollup)
        if missing := {"time_ms", *rollup.keys} - {*table.column_names}:
            raise ValueError(f"rows of {name} lack {', '.join(sorted(missing))}")
        if unknown := {*table.column_names} - {*known}:
            raise ValueError(f"rows of {name} have unknown columns {', '.join(sorted(unknown))}")
        if table.num_rows == 0:
            continue
        if (table["time_ms"].to_numpy() % rollup.grain_ms).any():
            raise ValueError(f"time_ms of {name} must be multiples of its grain, {rollup.grain_ms} ms")
        checked.append((rollup, table))
    return checked


def _commit_row(commit: Commit) -> list[object]:
    positions = msgspec.json.encode({str(k): v for k, v in commit.positions.items()}).decode()
    return [commit.number, commit.at_ms, positions, commit.watermark_ms]


def _commit(row: tuple[int, int, str, int]) -> Commit:
    number, at_ms, positions, watermark_ms = row
    return Commit(number, at_ms, msgspec.json.decode(positions, type=dict[int, int]), watermark_ms)


def _count(con: duckdb.DuckDBPyConnection, rollup: Rollup) -> int:
    tables = (sql.appended(rollup), sql.merged(rollup))
    row = con.execute("SELECT " + " + ".join(f"(SELECT count(*) FROM {table})" for table in tables)).fetchone()
    return int(row[0]) if row else 0


def _thin(con: duckdb.DuckDBPyConnection, rollup: Rollup, part: Interval) -> None:
    table = sql.merged(rollup)
    rows = con.execute(
        f"SELECT rowid, viewers_hll FROM {table} WHERE time_ms >= ? AND time_ms < ? AND len(viewers_hll) > ?",
        [part.start_ms, part.end_ms, _COUPONS_THIN],
    ).fetchall()
    for row_id, coupons in rows:
        thin = thin_coupons(np.asarray(coupons, np.uint32)).tolist()
        con.execute(f"UPDATE {table} SET viewers_hll = ? WHERE rowid = ?", [thin, row_id])
