"""The embedded log: SQLite files in WAL mode, one each hour or 64 MB, one writer a partition, fsync before the answer.

In: record batches of `EVENT_SCHEMA`. Out: their offsets, once they survive a power cut (`synchronous=FULL`: the
append is one transaction and ends with an fsync). No append waits for a checkpoint: a file takes all its rows in its
WAL, and a thread of its own puts it in order once the next one has begun (decision 99). The reader is in
`embedded_reader.py`. Promised: L1 to L3 of `protocol.py`. After an error of the disk the file is given up and a new one
begun (decision 75); a process never appends to a file of the one before it, for the same reason. A full disk heals by
itself. Not done here: batching (the collector's group commit does it), and any check of the events themselves.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import sqlite3
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor, wait
from pathlib import Path
from typing import Final

import pyarrow as pa
import structlog

from viewmeter import disk
from viewmeter.eventlog import embedded_files as files
from viewmeter.eventlog import embedded_rows as rows
from viewmeter.eventlog.embedded_reader import EmbeddedLogReader
from viewmeter.eventlog.protocol import LogUnavailableError

__all__ = ["EmbeddedLogReader", "EmbeddedLogWriter", "PartitionTakenError"]

_log = structlog.get_logger(__name__)

_PAGE_BYTES: Final = 8192
_FILE_BYTES: Final = 64 << 20
"""From so many bytes of rows on the next file is begun: what a start after a crash has to read of a WAL is bounded."""
_COMPLETION_S: Final = 60.0
"""How long an append waits for the file before the last one to be put in order. Then it begins no new file."""

_PRAGMAS: Final = (
    f"PRAGMA page_size={_PAGE_BYTES}",
    "PRAGMA synchronous=FULL",
    "PRAGMA wal_autocheckpoint=0",
    "PRAGMA temp_store=MEMORY",
)
_NOTHING_WRITTEN: Final = (sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR_WRITE, sqlite3.SQLITE_BUSY)
"""After these SQLite writes the same places again: the file is as good as before."""

_INSERT: Final = "INSERT INTO batches VALUES (?, ?, ?, ?, ?, ?)"


class PartitionTakenError(RuntimeError):
    """Another writer, of this or another process, owns the partition."""


class EmbeddedLogWriter:
    """Appends to one partition. Used by one thread at a time.

    root: the folder of the whole log. clock: now in ms since the epoch; it decides only which hour's file is written.
    """

    def __init__(self, root: Path, partition: int, clock: Callable[[], int]) -> None:
        self._folder = files.partition_folder(root, partition)
        self._partition = partition
        self._clock = clock
        self._connection: sqlite3.Connection | None = None
        self._segment_hour = ""  # of the open file
        self._segment_bytes = 0  # of its rows
        self._completer = ThreadPoolExecutor(1, "log-complete")
        self._completing: Future[None] | None = None
        self._hour = ""  # the latest one so far
        self._folder.mkdir(parents=True, exist_ok=True)
        for folder in (self._folder, root, root.parent):
            disk.sync(folder)
        self._lock = self._take_lock()
        try:
            self._next = self._recover()
        except BaseException:
            self._release_lock()
            raise

    @property
    def partition(self) -> int:
        """The partition that this writer owns."""
        return self._partition

    @property
    def next_offset(self) -> int:
        """The offset that the next batch gets."""
        return self._next

    def append(self, events: pa.RecordBatch) -> int:
        """Make the batch durable; return its offset. Raises `LogUnavailableError`."""
        if events.num_rows == 0:
            raise ValueError("a batch of no events cannot be appended")
        blob = rows.encode(events)
        received = events.column("received_at").to_numpy()
        offset = self._next
        row = (offset, int(received.min()), int(received.max()), events.num_rows, rows.checksum(blob), blob)
        try:
            self._open_for(self._clock()).execute(_INSERT, row)
            self._segment_bytes += len(blob)
        except (sqlite3.Error, OSError) as error:
            if getattr(error, "sqlite_errorcode", None) not in _NOTHING_WRITTEN:
                self._give_up_file()
            _log.warning("log_append_failed", partition=self._partition, offset=offset, error=str(error))
            raise LogUnavailableError(
                f"partition {self._partition} of the event log cannot be written ({error}); "
                "nothing of the batch was kept: free disk space or repair the disk, then send it again"
            ) from error
        self._next = offset + 1
        return offset

    def close(self) -> None:
        """Release the partition, its files in order. Idempotent."""
        self._close_connection()
        self._completer.shutdown()
        self._release_lock()

    def _open_for(self, now_ms: int) -> sqlite3.Connection:
        """Return the open file of this hour. A clock that goes backwards stays in the file that is open."""
        self._hour = max(self._hour, files.hour_of(now_ms))
        if self._connection is not None:
            if self._segment_hour == self._hour and self._segment_bytes < _FILE_BYTES:
                return self._connection
            self._retire()
        return self._connection or self._begin_file()

    def _retire(self) -> None:
        """Hand the open file to the thread that puts it in order. At most one is with it, so that none pile up."""
        if self._completing is not None and not self._completing.done():
            wait((self._completing,), _COMPLETION_S)
            if not self._completing.done():
                return  # a disk that slow takes no second checkpoint beside the first
        connection, self._connection = self._connection, None
        if connection is not None:
            self._completing = self._completer.submit(self._complete, connection)

    def _complete(self, connection: sqlite3.Connection) -> None:
        """Leave nothing in the WAL, so that the file is complete by itself. Where that fails, its WAL stays valid."""
        try:
            connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        except sqlite3.Error as error:
            _log.warning("log_file_not_completed", partition=self._partition, error=str(error))
        finally:
            with contextlib.suppress(sqlite3.Error):
                connection.close()

    def _begin_file(self) -> sqlite3.Connection:
        segment = files.new_segment(self._folder, self._hour, self._next)
        try:
            connection = sqlite3.connect(segment.path, isolation_level=None, check_same_thread=False, timeout=5)
            try:
                for pragma in _PRAGMAS:
                    connection.execute(pragma)
                # SQLite answers an error here with the mode that was, in which a commit is not durable at its end.
                (mode,) = connection.execute("PRAGMA journal_mode=WAL").fetchone()
                if mode != "wal":
                    raise OSError(f"{segment.path.name} cannot be switched to a write-ahead log")
                connection.execute(files.BATCHES_TABLE)
                disk.sync(self._folder)
            except BaseException:
                connection.close()
                raise
        except BaseException:
            with contextlib.suppress(OSError):  # it holds nothing, and a disk that stays full must not fill with names
                files.remove_segment(segment.path)
            raise
        self._connection, self._segment_hour, self._segment_bytes = connection, segment.hour, 0
        return connection

    def _give_up_file(self) -> None:
        """Leave a file in which a commit failed, and begin the next one.

        A failed fsync may have dropped what was written from the disk but not from memory: a later fsync that succeeds
        says nothing of it. And the row may be complete, though its sender was told that nothing was accepted. The new
        file's first offset ends both: what the old one holds from there on does not count. So it is made at once.
        """
        opened = self._connection is not None
        self._close_connection()
        if opened:
            with contextlib.suppress(sqlite3.Error, OSError):
                self._begin_file()

    def _close_connection(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            with contextlib.suppress(sqlite3.Error):
                connection.close()

    def _recover(self) -> int:
        """Return the next offset, from the newest file that holds anything."""
        found = files.segments(self._folder)
        self._hour = max((segment.hour for segment in found), default="")
        for segment in reversed(found):
            try:
                with contextlib.closing(files.open_readonly(segment.path)) as connection:
                    (last,) = connection.execute('SELECT max("offset") FROM batches').fetchone()
            except sqlite3.Error as error:
                if "no such table" in str(error):
                    last = None  # the writer died between making the file and its first row
                elif files.is_damage(error):
                    return self._beyond(segment, error)
                else:
                    raise LogUnavailableError(
                        f"partition {self._partition} of the event log cannot be opened ({error}); "
                        "free disk space or file handles, then start again"
                    ) from error
            return segment.first_offset if last is None else int(last) + 1
        return 1

    def _beyond(self, segment: files.Segment, error: Exception) -> int:
        """Return an offset behind all that a file can have held that cannot be read; the reader reports it.

        A row takes 500 bytes at least, so a file holds fewer rows than its bytes (and those of its WAL) / 500.
        """
        wal = segment.path.with_name(segment.path.name + "-wal")
        held_bytes = segment.path.stat().st_size + (wal.stat().st_size if wal.exists() else 0)
        _log.error("log_file_damaged", file=segment.path.name, partition=self._partition, error=str(error))
        return segment.first_offset + held_bytes // 500 + 1

    def _take_lock(self) -> int:
        handle = os.open(self._folder / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            os.close(handle)
            raise PartitionTakenError(
                f"partition {self._partition} already has a writer: stop the other process that uses this data "
                "folder, or give this one another partition"
            ) from error
        return handle

    def _release_lock(self) -> None:
        if self._lock >= 0:
            os.close(self._lock)
            self._lock = -1
