"""What counts in the archive: one SQLite file, changed by any process that holds the archive's lock.

In: files that were written, log positions, imports. Out: lists. Promised: `change` is one durable transaction, and it
is the commit of the archive: a file that it does not name does not exist, one that it names exists, under its final or
its temporary name. Nothing here touches the files themselves.
"""

from __future__ import annotations

import contextlib
import sqlite3
import threading
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, NamedTuple

from viewmeter.archive.protocol import ArchiveUnavailableError

NAME: Final = "manifest.db"

_SCHEMA: Final = """
CREATE TABLE IF NOT EXISTS files (
  number INTEGER PRIMARY KEY,
  hour_ms INTEGER NOT NULL,
  events INTEGER NOT NULL,
  bytes INTEGER NOT NULL,
  first_ms INTEGER NOT NULL,
  last_ms INTEGER NOT NULL,
  written_ms INTEGER NOT NULL,
  damage TEXT
) STRICT;
CREATE INDEX IF NOT EXISTS files_by_hour ON files (hour_ms);
CREATE TABLE IF NOT EXISTS hours (hour_ms INTEGER PRIMARY KEY, version INTEGER NOT NULL) STRICT;
CREATE TABLE IF NOT EXISTS positions ("partition" INTEGER PRIMARY KEY, "offset" INTEGER NOT NULL) STRICT;
CREATE TABLE IF NOT EXISTS imports (
  number INTEGER PRIMARY KEY, source TEXT NOT NULL UNIQUE, events INTEGER NOT NULL, at_ms INTEGER NOT NULL) STRICT;
CREATE TABLE IF NOT EXISTS counters (one INTEGER PRIMARY KEY CHECK (one = 1), file INTEGER NOT NULL,
  version INTEGER NOT NULL) STRICT;
INSERT OR IGNORE INTO counters VALUES (1, 0, 0);
"""
_FILE_COLUMNS: Final = "number, hour_ms, events, bytes, first_ms, last_ms, written_ms, damage"


class ArchivedFile(NamedTuple):
    """A file that counts. `first_ms` and `last_ms` are of its events' `ts`; `written_ms` is when the last arrived."""

    number: int
    hour_ms: int
    events: int
    bytes: int
    first_ms: int
    last_ms: int
    written_ms: int
    damage: str | None = None


@dataclass(frozen=True)
class Change:
    """One commit: files in, files out, positions, hours whose events are other ones now, hours that are gone."""

    add: Sequence[ArchivedFile] = ()
    remove: Sequence[int] = ()
    positions: Mapping[int, int] = field(default_factory=dict)
    touched: Sequence[int] = ()
    forget: Sequence[int] = ()  # hours that are dropped
    imported: tuple[str, int, int] | None = None  # source, events, when


class Manifest:
    """The manifest of the archive in `root`. Methods may be called by several threads."""

    def __init__(self, root: Path) -> None:
        self._guard = threading.RLock()
        path = root / NAME
        self._db = sqlite3.connect(path, isolation_level=None, check_same_thread=False, timeout=30)
        with self._reported():
            self._db.execute("PRAGMA journal_mode=WAL")
            self._db.execute("PRAGMA synchronous=FULL")
            self._db.executescript(_SCHEMA)

    def close(self) -> None:
        """Close the file. Idempotent."""
        with self._guard:
            self._db.close()

    def change(self, change: Change) -> None:
        """Commit the change, whole. Raises `ArchiveUnavailableError`."""
        with self._guard, self._reported():
            self._db.execute("BEGIN IMMEDIATE")
            try:
                self._apply(change)
                self._db.execute("COMMIT")
            except BaseException:
                with contextlib.suppress(sqlite3.Error):
                    self._db.execute("ROLLBACK")
                raise

    def _apply(self, change: Change) -> None:
        db = self._db
        db.executemany("DELETE FROM files WHERE number = ?", [(number,) for number in change.remove])
        db.executemany("INSERT INTO files VALUES (?, ?, ?, ?, ?, ?, ?, ?)", change.add)
        if change.add:
            db.execute("UPDATE counters SET file = max(file, ?)", (max(file.number for file in change.add),))
        if change.touched:
            # One counter for all hours: an hour that was dropped and comes back must not repeat an old version.
            db.execute("UPDATE counters SET version = version + 1")
            db.executemany(
                "INSERT INTO hours SELECT ?, version FROM counters WHERE true "
                "ON CONFLICT DO UPDATE SET version = excluded.version",
                [(hour,) for hour in change.touched],
            )
        db.executemany("DELETE FROM hours WHERE hour_ms = ?", [(hour,) for hour in change.forget])
        db.executemany(
            'INSERT INTO positions VALUES (?, ?) ON CONFLICT DO UPDATE SET "offset" = excluded."offset"',
            list(change.positions.items()),
        )
        if change.imported is not None:
            db.execute("INSERT INTO imports (source, events, at_ms) VALUES (?, ?, ?)", change.imported)

    def mark_damaged(self, number: int, reason: str) -> None:
        """Remember that a file cannot be read."""
        with self._guard, self._reported():
            self._db.execute("UPDATE files SET damage = ? WHERE number = ?", (reason[:500], number))

    def mark_sound(self, number: int) -> None:
        """Forget that a file could not be read."""
        with self._guard, self._reported():
            self._db.execute("UPDATE files SET damage = NULL WHERE number = ?", (number,))

    def files(self, start_ms: int | None = None, end_ms: int | None = None) -> list[ArchivedFile]:
        """Return the files of hours that start in [start, end), by hour and age."""
        query = f"SELECT {_FILE_COLUMNS} FROM files WHERE hour_ms >= ? AND hour_ms < ? ORDER BY hour_ms, number"
        least, most = -(2**62) if start_ms is None else start_ms, 2**62 if end_ms is None else end_ms
        with self._guard, self._reported():
            return [ArchivedFile(*row) for row in self._db.execute(query, (least, most))]

    def hours(self) -> dict[int, int]:
        """Return hours and their versions."""
        with self._guard, self._reported():
            return dict(self._db.execute("SELECT hour_ms, version FROM hours ORDER BY 1").fetchall())

    def events(self, hour_ms: int) -> int:
        """Return how many events an hour holds."""
        query = "SELECT coalesce(sum(events), 0) FROM files WHERE hour_ms = ?"
        with self._guard, self._reported():
            return int(self._db.execute(query, (hour_ms,)).fetchone()[0])

    def positions(self) -> dict[int, int]:
        """Return the log positions up to which everything is in."""
        with self._guard, self._reported():
            return dict(self._db.execute('SELECT "partition", "offset" FROM positions').fetchall())

    def imported(self, source: str) -> int | None:
        """Return how many events a source brought; None: it was never imported."""
        with self._guard, self._reported():
            row = self._db.execute("SELECT events FROM imports WHERE source = ?", (source,)).fetchone()
        return None if row is None else int(row[0])

    def next_import(self) -> int:
        """Return the number of the next import. Call under the archive's lock."""
        with self._guard, self._reported():
            return int(self._db.execute("SELECT coalesce(max(number), 0) + 1 FROM imports").fetchone()[0])

    def last_file(self) -> int:
        """Return the highest number that a file ever had. Call under the archive's lock."""
        with self._guard, self._reported():
            return int(self._db.execute("SELECT file FROM counters").fetchone()[0])

    def is_new(self) -> bool:
        """Return whether nothing was ever committed here."""
        with self._guard, self._reported():
            return bool(self._db.execute("SELECT file = 0 AND version = 0 FROM counters").fetchone()[0])

    def begin_versions(self, above: int) -> None:
        """Give hours versions above this number from now on."""
        with self._guard, self._reported():
            self._db.execute("UPDATE counters SET version = max(version, ?)", (above,))

    def totals(self) -> tuple[int, int, int]:
        """Return files, events, bytes."""
        query = "SELECT count(*), coalesce(sum(events), 0), coalesce(sum(bytes), 0) FROM files"
        with self._guard, self._reported():
            files, events, size = self._db.execute(query).fetchone()
        return int(files), int(events), int(size)

    def damaged(self) -> list[ArchivedFile]:
        """Return the files that could not be read."""
        query = f"SELECT {_FILE_COLUMNS} FROM files WHERE damage IS NOT NULL ORDER BY number LIMIT 1000"
        with self._guard, self._reported():
            return [ArchivedFile(*row) for row in self._db.execute(query)]

    def copy_to(self, path: Path) -> None:
        """Write a consistent copy of the manifest to a new file."""
        with self._guard, self._reported(), contextlib.closing(sqlite3.connect(path)) as copy:
            self._db.backup(copy)

    @contextlib.contextmanager
    def _reported(self) -> Iterator[None]:
        try:
            yield
        except sqlite3.DatabaseError as error:
            todo = "free disk space or repair the disk; it is tried again by itself"
            if not isinstance(error, sqlite3.OperationalError):
                todo = f"remove archive/{NAME} while nothing runs; it is made anew from the files"
            raise ArchiveUnavailableError(f"the manifest of the archive cannot be used ({error}): {todo}") from error
