"""The archive of raw events: everything the log held, in files by the hour of its event time.

A row has the columns of `EVENT_SCHEMA` and where the event came from: `partition` and `offset` of its log batch
(partition -1: imported, offset then numbers the import). Nothing is judged here: repeated events stay repeated, in no
promised order. Implementations: `embedded` (Parquet in a folder) here; the same files in S3 when scaled out.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final, Protocol

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from viewmeter.model.events import EVENT_SCHEMA
from viewmeter.model.time import Interval

READER: Final = "archive"
"""Under this name the archive commits its positions in the log, so that the log drops nothing it has not taken."""

IMPORTED: Final = -1
"""The `partition` of imported events."""

ARCHIVE_SCHEMA: Final[pa.Schema] = pa.schema(
    [
        *EVENT_SCHEMA,
        pa.field("partition", pa.int32(), nullable=False),
        pa.field("offset", pa.int64(), nullable=False),
    ]
)

Keys = npt.NDArray[np.int64]


class ArchiveUnavailableError(Exception):
    """The archive cannot be written now (disk full, I/O error). Nothing changed; the log still holds the events."""


class ArchiveDamagedError(Exception):
    """A file of the archive cannot be read. `hour_ms`: the hour it belongs to, `path`: which, inside the archive."""

    def __init__(self, path: str, hour_ms: int, reason: str) -> None:
        super().__init__(path, hour_ms, reason)
        self.path, self.hour_ms, self.reason = path, hour_ms, reason

    def __str__(self) -> str:
        return (
            f"{self.path} of the archive cannot be read ({self.reason}): put it back from a backup; until then its "
            "hour keeps the numbers it has"
        )


@dataclass(frozen=True)
class Added:
    """What became of an import."""

    events: int  # that are in the archive because of this source, now or since an earlier call
    hours: tuple[int, ...] = ()  # starts of the hours that this call changed, ms
    known: bool = False  # the source had been imported before: nothing changed


@dataclass(frozen=True)
class ArchiveFigures:
    """How full the archive is, and how far behind."""

    files: int = 0
    events: int = 0
    bytes: int = 0
    lag_batches: Mapping[int, int] = field(default_factory=dict)  # partition -> durable batches not archived yet
    damaged: tuple[tuple[str, str], ...] = ()  # path inside the archive, reason


class ArchiveReader(Protocol):
    """Reads an archive, from any process: it can be pickled and sent to a child.

    A3  read() gives every event of the interval that the archive has taken, once as often as the log held it, or
        raises `ArchiveDamagedError`; never silently less. Writes, merges and deletions beside it change nothing of
        an hour half-way.
    A4  hours() gives a number to each hour that holds events (or held some until they were erased), which rises
        whenever that hour's events change. Hours that were dropped are not in it.
    """

    def read(
        self,
        interval: Interval,
        columns: Sequence[str] | None = None,
        view_keys: Keys | None = None,
        key_range: tuple[int, int] | None = None,
    ) -> pa.Table:
        """Return the events with `ts` in [start, end), columns as asked (all of `ARCHIVE_SCHEMA` by default).

        `view_keys`: only events of these views. `key_range`: only views with first <= view_key <= last (both ends
        included, so that -2**63 and 2**63 - 1 can be said): cuts a large hour into parts that fit in memory.
        """
        ...

    def pieces(self, interval: Interval, columns: Sequence[str]) -> Iterator[pa.Table]:
        """Yield what `read` returns, piece by piece, each as large as a file is: for more than fits in memory."""
        ...

    def hours(self) -> Mapping[int, int]:
        """Return the start of each hour that holds events, and its version."""
        ...

    def events(self, hour_ms: int) -> int:
        """Return how many events the hour holds, repeated ones too."""
        ...


class Archive(ArchiveReader, Protocol):
    """All raw events of the log, as long as they are kept.

    A1  flush() returns when every event that was durable in the log at the call is in the archive, once, over any
        crashes and with any other process that writes to the archive.
    A2  The log drops nothing that the archive has not taken.
    A5  Files are plain Parquet under date=YYYY-MM-DD/hour=HH (UTC, event time): whoever reads all `*.parquet` sees no
        event twice at any moment, and none that was not taken.
    A6  add() of a source that is in changes nothing.
    A7  After erase() no file holds an event of the viewer.
    A8  drop_before() drops whole hours, and only those whose last event arrived before that time too.
    A9  While the disk is full writes raise `ArchiveUnavailableError` and change nothing; reads go on.
    """

    def flush(self) -> None:
        """Take all that is durable in the log now. Raises `ArchiveUnavailableError`, then some of it may be in."""
        ...

    def reader(self) -> ArchiveReader:
        """Return a reader that can be sent to another process."""
        ...

    def view(self, tenant_id: str, view_id: str) -> pa.Table:
        """Return all events of a view by `seq`, from the archive and from what the log holds behind it."""
        ...

    def add(self, events: pa.Table, source: str, now_ms: int) -> Added:
        """Add imported events (columns of `EVENT_SCHEMA`); `source` is the digest of where they come from."""
        ...

    def imported(self, source: str) -> int | None:
        """Return how many events a source brought; None: it is not in."""
        ...

    def erase(self, tenant_id: str, viewer_hash: int) -> list[int]:
        """Rewrite every file that holds events of the viewer, without them; return the starts of the hours touched."""
        ...

    def drop_before(self, before_ms: int) -> int:
        """Drop hours that ended before, and whose events arrived before; return how many."""
        ...

    def tidy(self, now_ms: int, budget_events: int) -> int:
        """Merge small files, at most about `budget_events` of them; return how many events were rewritten."""
        ...

    def positions(self) -> dict[int, int]:
        """Return the last offset of each log partition that is in the archive."""
        ...

    def figures(self) -> ArchiveFigures:
        """Return how full it is."""
        ...

    def close(self) -> None:
        """Release everything. Idempotent."""
        ...


class Archiving(Protocol):
    """What moves events from the log to the archive by itself, and keeps house there."""

    def start(self) -> None:
        """Begin."""
        ...

    def stop(self) -> None:
        """Take what is durable, and end."""
        ...

    def check(self) -> str | None:
        """Return why events are not archived at present; None: they are."""
        ...
