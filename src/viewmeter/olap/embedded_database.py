"""The DuckDB file: opening it, transactions, and a bounded number of readers.

In: a path and settings. Out: connections. Promised: a writer, a batch connection and a compaction connection that do
not wait for each other (DuckDB's snapshots keep them apart; each has its own lock outside), and `readers` more, handed
out one at a time. Not done: any table.
"""

from __future__ import annotations

import math
import os
import queue
import re
import shutil
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path
from typing import Any, Final

import duckdb
import structlog

from viewmeter import disk
from viewmeter.olap.embedded_seals import seal_torn_blocks
from viewmeter.olap.embedded_settings import DuckDBSettings
from viewmeter.olap.errors import StoreBrokenError

Connection = duckdb.DuckDBPyConnection

_BROKEN_ENTRY: Final = re.compile(r"Corrupt WAL file: entry at byte position (\d+) ")

log = structlog.get_logger(__name__)


class StoreLockedError(Exception):
    """Another process holds the file."""


def open_file(path: Path, settings: DuckDBSettings) -> Connection:
    """Open the file, made where missing. Raises `StoreLockedError`."""
    config: dict[str, str | bool | int | float | list[str]] = {
        "memory_limit": settings.memory_limit,
        "threads": settings.threads,
        "checkpoint_threshold": settings.checkpoint_threshold,
        "preserve_insertion_order": False,
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        db = _connect(path, config)
    except duckdb.IOException as error:
        if "lock" in str(error).lower():
            raise StoreLockedError(
                f"{path} is held by another process: stop the other `viewmeter up` on this folder first"
            ) from error
        raise
    try:
        _write_anew(db)
        sync_names(path)
    except BaseException:
        db.close()
        raise
    return db


def sync_names(path: Path) -> None:
    """Make the names of the file and its log safe: DuckDB syncs contents, and makes its log anew now and then."""
    disk.sync(path.parent)


def _connect(path: Path, config: Any) -> Connection:
    """Open; a write-ahead log whose end was torn by a power cut is cut at the last entry that is whole.

    DuckDB forgives an end that is too short, but not one of the right length whose bytes never reached the disk. What
    is behind the first broken entry was in no commit that returned: a commit syncs all that precedes it. The original
    is kept as `….wal.torn`, one of them, in case it was not a power cut but a disk that forgets.
    """
    wal = path.with_name(path.name + ".wal")
    if path.exists():
        seal_torn_blocks(path, wal)
    else:
        _make(path, wal)
    try:
        return duckdb.connect(path, config=config)
    except duckdb.Error as error:
        broken = _BROKEN_ENTRY.search(str(error))
        if broken is None or not wal.exists():
            raise
        keep_bytes = int(broken[1])
        log.error("store_log_torn", kept_bytes=keep_bytes, of_bytes=wal.stat().st_size, reason=str(error))
        shutil.copyfile(wal, wal.with_name(wal.name + ".torn"))
        with wal.open("r+b") as file:
            file.truncate(keep_bytes)
            os.fsync(file.fileno())
        return duckdb.connect(path, config=config)


def _make(path: Path, wal: Path) -> None:
    """Make an empty file beside, and name it when it is safe: DuckDB refuses one whose headers are not all there."""
    made = path.with_name(path.name + ".new")
    made.unlink(missing_ok=True)
    duckdb.connect(made).close()
    disk.sync(made)
    wal.unlink(missing_ok=True)  # of another file, which is gone
    made.rename(path)
    disk.sync(path.parent)


def _write_anew(db: Connection) -> None:
    """Write what the file and its log hold to the disk, whatever the process before thought of it (decision 76).

    After a failed fsync it may be in memory only, and a checkpoint without changes would do nothing.
    """
    db.execute("CREATE OR REPLACE TABLE opening (nothing INTEGER)")
    db.execute("DROP TABLE opening")
    db.execute("CHECKPOINT")


@contextmanager
def transaction(
    con: Connection, committing: Callable[[], AbstractContextManager[None]] = nullcontext
) -> Iterator[None]:
    """Commit at the end, inside of `committing`, or leave nothing. Raises `StoreBrokenError`."""
    with noticed():
        con.execute("BEGIN TRANSACTION")
        try:
            yield
        except BaseException:
            con.execute("ROLLBACK")
            raise
        with committing():
            con.execute("COMMIT")


@contextmanager
def noticed() -> Iterator[None]:
    """Raise `StoreBrokenError` when DuckDB has given itself up."""
    try:
        yield
    except duckdb.FatalException as error:
        raise StoreBrokenError(f"the store must be opened again: {error}") from error


class Limits:
    """Stops what takes too long: one thread for all, since a timer each costs as much as a small scan."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._running: dict[int, tuple[float, Connection]] = {}
        self._next = 0
        self._looks_at = math.inf
        self._closed = False
        self._thread = threading.Thread(target=self._watch, name="store-limits", daemon=True)
        self._thread.start()

    @contextmanager
    def limited(self, con: Connection, seconds: float) -> Iterator[None]:
        """Stop what runs on the connection after so long. Raises TimeoutError."""
        until = time.monotonic() + seconds
        with self._changed:
            number = self._next
            self._next += 1
            self._running[number] = (until, con)
            if until < self._looks_at:
                self._changed.notify()
        try:
            yield
        except duckdb.InterruptException as error:
            raise TimeoutError(f"the scan took more than {seconds:g} s: narrow its range or its filters") from error
        finally:
            with self._changed:
                self._running.pop(number, None)

    def close(self) -> None:
        """End the thread."""
        with self._changed:
            self._closed = True
            self._changed.notify()
        self._thread.join()

    def _watch(self) -> None:
        with self._changed:
            while not self._closed:
                now = time.monotonic()
                for number, (until, con) in [*self._running.items()]:
                    if until <= now:
                        # Under the lock: whoever is done takes itself out first, so no later scan is hit.
                        con.interrupt()
                        del self._running[number]
                # It sleeps on when what it waited for has ended: to wake it for each scan takes 0.2 ms.
                self._looks_at = min((until for until, _ in self._running.values()), default=math.inf)
                self._changed.wait(None if self._looks_at == math.inf else max(0.0, self._looks_at - now))


def first(result: Connection) -> Any:
    """Return the first row, or None. Reads all: a half-read result blocks its connection (`fetchone` leaves one)."""
    rows = result.fetchall()
    return rows[0] if rows else None


class Readers:
    """Connections for scans, used by one at a time."""

    def __init__(self, db: Connection, settings: DuckDBSettings) -> None:
        self._settings = settings
        self._free: queue.LifoQueue[Connection] = queue.LifoQueue()
        for _ in range(settings.readers):
            self._free.put(db.cursor())

    @contextmanager
    def one(self) -> Iterator[Connection]:
        """Hand out a connection. Raises TimeoutError when all are busy for too long."""
        try:
            con = self._free.get(timeout=self._settings.reader_wait_s)
        except queue.Empty:
            raise TimeoutError(
                f"all {self._settings.readers} readers of the store were busy for {self._settings.reader_wait_s:g} s"
            ) from None
        try:
            yield con
        finally:
            self._free.put(con)

    def close(self) -> None:
        """Wait for scans that are running, and close."""
        for _ in range(self._settings.readers):
            self._free.get(timeout=60).close()
