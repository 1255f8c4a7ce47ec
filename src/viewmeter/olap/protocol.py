"""The time-series store: rows of rollups in, merged measures out. It knows measures, not metrics.

Implementations: `embedded` (DuckDB) here; Druid when scaled out.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Protocol

import pyarrow as pa

from viewmeter.model.time import Interval


@dataclass(frozen=True)
class Commit:
    """What one micro-batch of the speed layer had applied; saved with its rows in one transaction."""

    number: int  # 1, 2, 3, …
    at_ms: int  # the engine's clock at that batch: replaying needs the same one
    positions: Mapping[int, int]  # partition -> last applied offset
    watermark_ms: int  # received_at up to which every partition has been applied


@dataclass(frozen=True)
class Filter:
    """Keep rows whose dimension is (or is not) one of the values."""

    dimension: str
    values: tuple[str, ...]
    negate: bool = False


@dataclass(frozen=True)
class Visible:
    """What a key may see. `tenant_id` None = all tenants (operator); `channels` None = all of the tenant."""

    tenant_id: str | None
    channels: tuple[str, ...] | None = None


@dataclass(frozen=True)
class Scan:
    """One question to the store.

    `edges_ms` are ascending bucket edges, n + 1 for n buckets (any widths: days of 23 hours too); all are multiples
    of the rollup's grain. Rows outside of [first, last) are not read.
    """

    rollup: str
    measures: tuple[str, ...]
    edges_ms: tuple[int, ...]
    visible: Visible
    dimensions: tuple[str, ...] = ()
    filters: tuple[Filter, ...] = ()

    @property
    def interval(self) -> Interval:
        """The range that is read."""
        return Interval(self.edges_ms[0], self.edges_ms[-1])


@dataclass(frozen=True)
class StoreFigures:
    """How full the store is."""

    rows: Mapping[str, int] = field(default_factory=dict)
    bytes_on_disk: int = 0


class TimeSeriesStore(Protocol):
    """Rollup rows with measures that merge.

    O1  append() makes all rows of all rollups and the commit visible together, or nothing.
    O2  append() of a commit number that is already in is refused: no batch counts twice.
    O3  scan() equals the merge of all appended rows, however they were cut into appends, compacted or not.
    O4  A scan sees one consistent state while appends and compactions go on.
    O5  What append() returned for survives kill -9.
    """

    def append(self, rows: Mapping[str, pa.Table], commit: Commit) -> None:
        """Add speed-layer rows: rollup name -> table of (time_ms, keys…, measures…).

        Absent measure columns count as 0. HLL columns are list<uint32> of coupons, KLL columns list<float64>.
        """
        ...

    def load(self, rows: Mapping[str, pa.Table]) -> None:
        """Add rows that come from no log (history made by the simulator), in one transaction."""
        ...

    def last_commit(self) -> Commit | None:
        """Return the newest commit."""
        ...

    def commits_after(self, number: int) -> list[Commit]:
        """Return the commits behind `number`, in order: the cuts to replay by."""
        ...

    def forget_commits(self, up_to: int) -> None:
        """Drop commits that no state needs any more (the newest one always stays)."""
        ...

    def scan(self, question: Scan) -> pa.Table:
        """Return merged measures: columns `bucket` (int32 index into edges), dimensions…, measures….

        Additive measures are int64; sketches are serialised DataSketches (binary, HLL lgK 14 / KLL doubles k 200, null
        where empty). Gauges (only rollup `concurrency`) come per *sample*: there a `time_ms` column stands beside
        `bucket`, one row a sample and group. Groups without rows are absent.
        """
        ...

    def compact(self, before_ms: int) -> int:
        """Merge rows of equal keys older than `before_ms`; return the number of rows saved."""
        ...

    def figures(self) -> StoreFigures:
        """Return rows per rollup and bytes on disk."""
        ...

    def flush(self) -> None:
        """Return when everything appended before is durable and visible to scan()."""
        ...

    def close(self) -> None:
        """Close cleanly."""
        ...
