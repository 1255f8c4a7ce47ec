"""Where the embedded log keeps its files, and what their names say.

`root/p03/2026-11-25T10-000000000123.sqlite` is partition 3, begun in the hour 10 (UTC) with offset 123. The first
offset stands in the name so that a file that cannot be opened still says which offsets are lost. What a file holds at
or behind the first offset of the next one does not count: its commit failed. A file in place of one that was given up
before it held anything has the same first offset and a number behind it (`…-000000000123-1.sqlite`).
"""

from __future__ import annotations

import re
import sqlite3
from pathlib import Path
from typing import Final, NamedTuple

from viewmeter.model.time import from_ms

_FILE_NAME: Final = re.compile(r"(\d{4}-\d\d-\d\dT\d\d)-(\d{12,})(?:-(\d+))?\.sqlite")
_PARTITION_NAME: Final = re.compile(r"p(\d{2,})")

_DAMAGE_CODES: Final = frozenset(
    {sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB, sqlite3.SQLITE_IOERR_READ, sqlite3.SQLITE_IOERR_SHORT_READ}
)

BATCHES_TABLE: Final = """
CREATE TABLE IF NOT EXISTS batches (
  "offset" INTEGER PRIMARY KEY,
  received_min INTEGER NOT NULL,
  received_max INTEGER NOT NULL,
  events INTEGER NOT NULL,
  checksum INTEGER NOT NULL,
  blob BLOB NOT NULL
) STRICT
"""


class Segment(NamedTuple):
    """One file of a partition. Tuples sort in the order of their offsets."""

    first_offset: int
    attempt: int  # of the files that begin with this offset
    hour: str
    path: Path


def partition_folder(root: Path, partition: int) -> Path:
    """Return the folder of a partition."""
    return root / f"p{partition:02d}"


def hour_of(at_ms: int) -> str:
    """Return the hour as it stands in the names."""
    return f"{from_ms(at_ms):%Y-%m-%dT%H}"


def new_segment(folder: Path, hour: str, first_offset: int) -> Segment:
    """Return a file that does not exist yet and stands behind all that do."""
    attempt = 1 + max((s.attempt for s in segments(folder) if s.first_offset == first_offset), default=-1)
    name = f"{hour}-{first_offset:012d}{f'-{attempt}' if attempt else ''}.sqlite"
    return Segment(first_offset, attempt, hour, folder / name)


def partitions(root: Path) -> list[int]:
    """Return the partitions that have a folder."""
    try:
        names = [path.name for path in root.iterdir()]
    except FileNotFoundError:
        return []
    return sorted(int(found[1]) for name in names if (found := _PARTITION_NAME.fullmatch(name)))


def segments(folder: Path) -> list[Segment]:
    """Return the files of a partition in the order of their offsets."""
    try:
        names = [path.name for path in folder.iterdir()]
    except FileNotFoundError:
        return []
    found = [(name, match) for name in names if (match := _FILE_NAME.fullmatch(name))]
    return sorted(Segment(int(match[2]), int(match[3] or 0), match[1], folder / name) for name, match in found)


def remove_segment(path: Path) -> None:
    """Delete a file and what SQLite keeps beside it. The main file goes first: a log beside nothing is no data."""
    for suffix in ("", "-wal", "-shm"):
        path.with_name(path.name + suffix).unlink(missing_ok=True)


def is_damage(error: sqlite3.Error) -> bool:
    """True where the file is broken; False where it may be readable later (busy, too many open files, a full disk)."""
    code = getattr(error, "sqlite_errorcode", None)
    if code is None:
        return not isinstance(error, sqlite3.OperationalError)
    return code in _DAMAGE_CODES or "no such table" in str(error)


def open_readonly(path: Path) -> sqlite3.Connection:
    """Open a segment for reading, also while its writer writes.

    `mode=rw`, since whoever opens it first after a crash has to recover the WAL; `query_only` keeps the rows safe.
    """
    connection = sqlite3.connect(
        f"{path.absolute().as_uri()}?mode=rw", uri=True, isolation_level=None, check_same_thread=False, timeout=5
    )
    connection.execute("PRAGMA query_only=1")
    return connection
