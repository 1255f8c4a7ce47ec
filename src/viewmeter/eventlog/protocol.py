"""The durable log of events: what the collector may answer 204 for, and what every later layer reads.

A position is (partition, offset): one writer a partition, offsets start at 1 and rise by 1 a batch. Batches have
`EVENT_SCHEMA`. Implementations: `embedded` (SQLite segments) here; Kafka when scaled out.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import pyarrow as pa

Positions = Mapping[int, int]
"""Partition to the last offset that was applied (0 = none)."""


class LogUnavailableError(Exception):
    """The log cannot take events now (disk full, I/O error). Nothing of the batch was accepted; try again later."""


@dataclass(frozen=True)
class LogBatch:
    """One durable batch and where it stands."""

    partition: int
    offset: int
    events: pa.RecordBatch


class LogWriter(Protocol):
    """Appends to one partition. Used by one thread of one process.

    L1  append() returns only when the batch survives a power cut, and returns its offset.
    L2  append() that raised has left nothing that a reader will ever see, unless the writer died with it.
    L3  A second writer on the same partition is refused.
    """

    def append(self, events: pa.RecordBatch) -> int:
        """Make the batch durable; return its offset. Raises `LogUnavailableError`."""
        ...

    def close(self) -> None:
        """Release the partition."""
        ...


class LogReader(Protocol):
    """Reads all partitions, from any process.

    L4  A reader sees every batch of a partition once, in offset order, from its position on.
    L5  A reader that committed resumes at its commit.
    L6  What all committed readers have passed, and retention too, is dropped; what one still needs is not.
    L7  A batch that cannot be read is set aside, reported by `damaged()`, and the rest is served.
    """

    def partitions(self) -> Sequence[int]:
        """Return the partitions that exist now, in order. New ones may appear at any time."""
        ...

    def read(self, after: Positions, until: Positions | None = None, max_events: int = 100_000) -> list[LogBatch]:
        """Return batches behind `after` (a missing partition = from its start), in offset order a partition.

        Stops at `until` (inclusive) where given, and once `max_events` is reached (but returns at least one batch
        where there is one). Never blocks for new batches.
        """
        ...

    def ends(self) -> dict[int, int]:
        """Return the last durable offset of each partition."""
        ...

    def commit(self, reader: str, positions: Positions) -> None:
        """Remember durably that `reader` never needs what lies at or before `positions` again."""
        ...

    def committed(self, reader: str) -> dict[int, int]:
        """Return what `reader` committed last, or {}."""
        ...

    def damaged(self) -> list[tuple[int, int, str]]:
        """Return (partition, offset, reason) of batches set aside."""
        ...

    def trim(self, before_ms: int) -> int:
        """Drop segments received before `before_ms` that all readers have passed; return how many."""
        ...

    def close(self) -> None:
        """Close all files. Idempotent."""
        ...
