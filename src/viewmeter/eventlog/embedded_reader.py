"""Reading the embedded log: from any process, while the writers write.

In: the folder of the log. Out: batches in offset order. Promised: L4 to L7 of `protocol.py`; a poll without news costs
one directory listing and one `max(offset)` a partition, about 50 µs. A damaged batch is set aside (its bytes go to
`root/damaged/`), reported, and *served as a batch of no events*, so that positions pass it and nobody waits for it.
Commits stand in `root/readers.sqlite`. Methods may be called by several threads. Not done here: waiting for news.
"""

from __future__ import annotations

import contextlib
import itertools
import sqlite3
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Final, NamedTuple

import structlog

from viewmeter.eventlog import embedded_files as files
from viewmeter.eventlog import embedded_rows as rows
from viewmeter.eventlog.protocol import LogBatch, LogUnavailableError, Positions

_log = structlog.get_logger(__name__)

_OPEN_FILES: Final = 8
"""Connections kept a partition: the newest file and the hours a lagging reader is in."""

_ROWS_A_QUERY: Final = 64
_MAX_DAMAGED: Final = 10_000
"""Reports kept. Beyond it the log still says so, and the oldest reports stay."""

_SELECT: Final = 'SELECT "offset", events, checksum, blob FROM batches WHERE "offset" > ? AND "offset" <= ? ORDER BY "offset" LIMIT ?'  # noqa: E501
_SELECT_ONE: Final = 'SELECT "offset", events, checksum, blob FROM batches WHERE "offset" = ?'
_READERS: Final = """
CREATE TABLE IF NOT EXISTS commits (
  reader TEXT NOT NULL, "partition" INTEGER NOT NULL, "offset" INTEGER NOT NULL,
  PRIMARY KEY (reader, "partition")) STRICT;
CREATE TABLE IF NOT EXISTS damaged (
  "partition" INTEGER NOT NULL, "offset" INTEGER NOT NULL, reason TEXT NOT NULL,
  PRIMARY KEY ("partition", "offset")) STRICT;
"""


class _Row(NamedTuple):
    offset: int
    events: int
    checksum: int
    blob: bytes | None  # None: the row is gone or unreadable


class EmbeddedLogReader:
    """Reads all partitions of the log in `root`."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self._lock = threading.RLock()
        self._open: dict[Path, sqlite3.Connection] = {}
        self._turn = 0
        root.mkdir(parents=True, exist_ok=True)
        self._readers = sqlite3.connect(
            root / "readers.sqlite", isolation_level=None, check_same_thread=False, timeout=30
        )
        self._readers.execute("PRAGMA journal_mode=WAL")
        self._readers.execute("PRAGMA synchronous=FULL")
        self._readers.executescript(_READERS)

    def partitions(self) -> list[int]:
        """Return the partitions that exist now, in order."""
        return files.partitions(self._root)

    def read(self, after: Positions, until: Positions | None = None, max_events: int = 100_000) -> list[LogBatch]:
        """Return batches behind `after`; see the protocol. Partitions share `max_events`, so none starves another."""
        with self._lock:
            known = self.partitions()
            self._turn += 1
            start = self._turn % len(known) if known else 0
            order = known[start:] + known[:start]
            found: list[LogBatch] = []
            left = max_events
            for place, partition in enumerate(order):
                if left <= 0 and found:
                    break
                share = max(1, left // (len(order) - place))
                last = None if until is None else until.get(partition, 0)
                for batch in self._batches(partition, after.get(partition, 0), last, share):
                    found.append(batch)
                    left -= batch.events.num_rows
            found.sort(key=lambda batch: (batch.partition, batch.offset))
            return found

    def ends(self) -> dict[int, int]:
        """Return the last durable offset of each partition (0 = none yet)."""
        with self._lock:
            return {partition: self._end(partition) for partition in self.partitions()}

    def commit(self, reader: str, positions: Positions) -> None:
        """Remember durably that `reader` never needs what lies at or before `positions` again."""
        changes = [(reader, partition, offset) for partition, offset in positions.items()]
        with self._lock, self._transaction() as connection:
            connection.executemany(
                'INSERT INTO commits VALUES (?, ?, ?) ON CONFLICT DO UPDATE SET "offset" = excluded."offset"', changes
            )

    def committed(self, reader: str) -> dict[int, int]:
        """Return what `reader` committed last, or {}."""
        with self._lock:
            query = 'SELECT "partition", "offset" FROM commits WHERE reader = ?'
            return dict(self._readers.execute(query, (reader,)).fetchall())

    def damaged(self) -> list[tuple[int, int, str]]:
        """Return (partition, offset, reason) of batches set aside, by any reader of this log."""
        with self._lock:
            query = 'SELECT "partition", "offset", reason FROM damaged ORDER BY 1, 2'
            return list(self._readers.execute(query).fetchall())

    def trim(self, before_ms: int) -> int:
        """Drop files that hold only batches received before `before_ms` and passed by all readers; return how many.

        While no reader ever committed, everything is kept. The newest file of a partition always stays: the next
        offset is known from it.
        """
        with self._lock:
            readers = [name for (name,) in self._readers.execute("SELECT DISTINCT reader FROM commits")]
            passed = [self.committed(name) for name in readers]
            dropped = 0
            for partition in self.partitions() if passed else ():
                limit = min(positions.get(partition, 0) for positions in passed)
                found = files.segments(files.partition_folder(self._root, partition))
                for segment, following in itertools.pairwise(found):
                    if following.first_offset - 1 > limit or not self._is_older(segment.path, before_ms):
                        break
                    self._forget(segment.path)
                    files.remove_segment(segment.path)
                    dropped += 1
            return dropped

    def close(self) -> None:
        """Close all files. Idempotent."""
        with self._lock:
            for path in list(self._open):
                self._forget(path)
            self._readers.close()

    # Files

    def _connect(self, path: Path) -> sqlite3.Connection:
        connection = self._open.pop(path, None)
        if connection is None:
            connection = files.open_readonly(path)
            same_partition = [other for other in self._open if other.parent == path.parent]
            if len(same_partition) >= _OPEN_FILES:
                self._forget(same_partition[0])
        self._open[path] = connection  # last used, last in the dict
        return connection

    def _forget(self, path: Path) -> None:
        connection = self._open.pop(path, None)
        if connection is not None:
            with contextlib.suppress(sqlite3.Error):
                connection.close()

    def _forget_broken(self, path: Path, error: sqlite3.Error) -> None:
        """Close a file that is broken. Raises `LogUnavailableError` where the trouble may pass: nothing is lost."""
        self._forget(path)
        if not files.is_damage(error):
            raise LogUnavailableError(f"{path.name} cannot be read now ({error}); try again later") from error

    @contextlib.contextmanager
    def _transaction(self) -> Iterator[sqlite3.Connection]:
        connection = self._readers
        try:
            connection.execute("BEGIN IMMEDIATE")
            try:
                yield connection
            except BaseException:
                connection.execute("ROLLBACK")
                raise
            connection.execute("COMMIT")
        except (sqlite3.OperationalError, OSError) as error:
            if connection.in_transaction:
                connection.execute("ROLLBACK")
            raise LogUnavailableError(f"positions of readers cannot be kept ({error}); try again later") from error

    def _end(self, partition: int) -> int:
        for segment in reversed(files.segments(files.partition_folder(self._root, partition))):
            last = self._last_offset(segment.path)
            return segment.first_offset - 1 if last is None else last
        return 0

    def _last_offset(self, path: Path) -> int | None:
        """Return the last offset of a file; None where it holds nothing that can be read."""
        try:
            (last,) = self._connect(path).execute('SELECT max("offset") FROM batches').fetchone()
        except sqlite3.Error as error:
            self._forget_broken(path, error)
            return None
        return None if last is None else int(last)

    def _is_older(self, path: Path, before_ms: int) -> bool:
        """True where every batch was received before `before_ms`; a file that cannot be read goes by its mtime."""
        try:
            (newest,) = self._connect(path).execute("SELECT max(received_max) FROM batches").fetchone()
        except sqlite3.Error as error:
            self._forget_broken(path, error)
            return path.stat().st_mtime * 1000 < before_ms
        return newest is None or int(newest) < before_ms

    # Batches

    def _batches(self, partition: int, after: int, until: int | None, budget: int) -> Iterator[LogBatch]:
        """Yield batches of a partition until `budget` events are reached, at least one where there is one."""
        found = files.segments(files.partition_folder(self._root, partition))
        for place, segment in enumerate(found):
            following = found[place + 1].first_offset - 1 if place + 1 < len(found) else None
            if following is not None and following <= after:
                continue
            # The end of the newest file is taken now: its writer may be in the middle of the next batch.
            last = following if following is not None else (self._last_offset(segment.path) or 0)
            last = last if until is None else min(last, until)
            for row in self._rows(segment, max(after, segment.first_offset - 1), last):
                batch = self._decoded(partition, row)
                yield batch
                after = row.offset
                budget -= batch.events.num_rows
                if budget <= 0:
                    return

    def _rows(self, segment: files.Segment, after: int, last: int) -> Iterator[_Row]:
        """Yield the rows (after, last] of a file, and a row without a blob for the end of each hole in them."""
        while after < last:
            try:
                found = self._connect(segment.path).execute(_SELECT, (after, last, _ROWS_A_QUERY)).fetchall()
            except sqlite3.Error as error:
                self._forget_broken(segment.path, error)
                found = self._rows_one_by_one(segment.path, after, min(last, after + _ROWS_A_QUERY))
            for row in map(_Row._make, found):
                if row.offset > after + 1:
                    yield _Row(row.offset - 1, row.offset - after - 1, 0, None)
                yield row
                after = row.offset
            if not found:
                yield _Row(last, last - after, 0, None)
                after = last

    def _rows_one_by_one(self, path: Path, after: int, last: int) -> list[tuple[int, int, int, bytes | None]]:
        """Return what can still be read of a file with a broken page."""
        found: list[tuple[int, int, int, bytes | None]] = []
        for offset in range(after + 1, last + 1):
            try:
                row = self._connect(path).execute(_SELECT_ONE, (offset,)).fetchone()
            except sqlite3.Error as error:
                self._forget_broken(path, error)
                row = None
            found.append(row or (offset, 1, 0, None))
        return found

    def _decoded(self, partition: int, row: _Row) -> LogBatch:
        if row.blob is None:
            reason = (
                f"missing from its file, with {row.events - 1} batches before it" if row.events > 1 else "unreadable"
            )
            self._set_aside(partition, row.offset, reason, b"")
            return LogBatch(partition, row.offset, rows.nothing())
        try:
            return LogBatch(partition, row.offset, rows.decode(row.blob, row.checksum))
        except rows.DamagedRowError as error:
            self._set_aside(partition, row.offset, str(error), row.blob)
            return LogBatch(partition, row.offset, rows.nothing())

    def _set_aside(self, partition: int, offset: int, reason: str, blob: bytes) -> None:
        _log.error("log_batch_damaged", partition=partition, offset=offset, reason=reason)
        with contextlib.suppress(OSError, LogUnavailableError), self._transaction() as connection:
            (kept,) = connection.execute("SELECT count(*) FROM damaged").fetchone()
            if kept >= _MAX_DAMAGED:
                return
            connection.execute("INSERT OR IGNORE INTO damaged VALUES (?, ?, ?)", (partition, offset, reason))
            if blob:
                aside = self._root / "damaged"
                aside.mkdir(exist_ok=True)
                (aside / f"p{partition:02d}-{offset:012d}.batch").write_bytes(blob)
