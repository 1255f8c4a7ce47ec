"""The time-series store: rows of rollups in, merged measures out. It knows measures, not metrics.

Rows of the speed layer and rows of the batch layer live in tables of their own. An hour is *open* (speed rows answer)
or *closed* (batch rows answer); closing it, replacing it and what is built from it are one transaction. Batch rows
have tiers: minute, hour, day, week, month, the coarser made from the finer. Implementations: `embedded` (DuckDB)
here; Druid when scaled out.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, Protocol, TypeVar

import pyarrow as pa

from viewmeter.model.calendar import Period
from viewmeter.model.time import Interval

T = TypeVar("T")

Table = Literal["speed", "minute", "hour", "day", "week", "month"]
"""Where rows live: those of the speed layer (by the minute), or the batch layer's of one tier."""


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
class Part:
    """Rows of one table with their time inside of the interval.

    `zone` matters for days, weeks and months: those are of a zone (UTC: all tenants have them; another zone: the
    tenants that report in it).
    """

    table: Table
    interval: Interval
    zone: str = "UTC"


@dataclass(frozen=True)
class Top:
    """The first groups by a sum, equal ones in the order of their dimensions (as text, ascending)."""

    measure: str
    largest_first: bool
    count: int


@dataclass(frozen=True)
class Scan:
    """One question to the store.

    `edges_ms` are ascending bucket edges, n + 1 for n buckets (any widths: days of 23 hours too); all are multiples
    of the rollup's grain. Rows outside of [first, last) are not read. `parts` are disjoint and say where to read; none:
    everything from the speed layer's rows. A row belongs to the bucket that holds its time, which is its start. `top`:
    of a question with one bucket, those groups alone.
    """

    rollup: str
    measures: tuple[str, ...]
    edges_ms: tuple[int, ...]
    visible: Visible
    dimensions: tuple[str, ...] = ()
    filters: tuple[Filter, ...] = ()
    parts: tuple[Part, ...] = ()
    top: Top | None = None

    @property
    def interval(self) -> Interval:
        """The range that is read."""
        return Interval(self.edges_ms[0], self.edges_ms[-1])


@dataclass(frozen=True)
class Coverage:
    """Which tables hold what, for one zone (and tenant). All lists are merged and ascend."""

    closed_hours: tuple[Interval, ...]  # batch rows answer there, speed rows everywhere else
    minute_from_ms: int  # minute rows of closed hours reach back to here; 0: nothing was dropped yet
    hour_from_ms: int  # hour rows likewise
    days: tuple[Interval, ...]  # built days of the zone; days without any row count as built
    weeks: tuple[Interval, ...]
    months: tuple[Interval, ...]
    hour_step_ms: int  # how long hour rows are for sure: 60, 30 or 15 minutes
    viewers_from_ms: int  # exact viewers are known by the hour from here on (0: from the beginning)
    waiting_hours: tuple[int, ...] = ()  # starts of open hours that have rows, ascending
    rows_a_day: Mapping[str, int] = field(default_factory=dict)  # about, of day rows by rollup; not there: unknown

    def built(self, kind: Period) -> tuple[Interval, ...]:
        """Return the built periods of that kind."""
        return {"day": self.days, "week": self.weeks, "month": self.months}[kind]


@dataclass(frozen=True)
class HourRun:
    """What a batch run of an hour stands on; saved with its rows."""

    archive_version: int  # of the hour in the archive when its events were read
    seen_commit: int  # the store's last commit *before* the archive was flushed for this run: it knows no later ones
    at_ms: int  # the engine's clock
    marks: tuple[int, ...] = ()  # hours that must run again because of this one (the cascade): in the same transaction


@dataclass(frozen=True)
class ClosedHour:
    """A closed hour and what closed it. `kept`: rows that no job makes (a demo's past); no run may replace it."""

    hour_ms: int
    archive_version: int
    seen_commit: int
    at_ms: int
    kept: bool = False


@dataclass(frozen=True)
class DuePeriod:
    """A day, week or month that is complete and has not been built."""

    kind: Period
    start_ms: int
    zone: str


@dataclass(frozen=True)
class JobRun:
    """One run of a batch job as the history shows it. `number` is given by the store."""

    job: str  # hourly, daily, weekly, monthly …
    interval: Interval
    began_ms: int
    ended_ms: int
    state: str  # done, failed
    rows: int = 0
    details: Mapping[str, Any] = field(default_factory=dict)  # JSON: differences, causes, the error
    number: int = 0


@dataclass(frozen=True)
class StoreFigures:
    """How full the store is."""

    rows: Mapping[str, int] = field(default_factory=dict)  # rollup -> rows of the speed layer
    bytes_on_disk: int = 0
    batch_rows: Mapping[str, int] = field(default_factory=dict)  # "<tier>.<rollup>" -> rows


class HourKeptError(ValueError):
    """The hour's rows come from no job and are kept: a run must not replace them."""


class HourDroppedError(ValueError):
    """The hour's day was built and its hour rows were dropped since: it cannot be replaced any more."""


class HourTouchedError(RuntimeError):
    """Rows came to the open hour behind `seen_commit`: closing it would take them out of answers. It stays open."""


class Snapshot(Protocol):
    """One state of the store: everything asked of it sees the same rows and the same closed hours."""

    def coverage(self, zone: str, tenant_id: str | None = None) -> Coverage:
        """Return what is where, for days of that zone. Days of a zone other than UTC are told for a tenant only."""
        ...

    def scan(self, question: Scan) -> pa.Table:
        """Answer as `TimeSeriesStore.scan` does."""
        ...

    def exact_viewers(self, question: Scan, zone: str = "UTC") -> pa.Table:
        """Count distinct viewers of plays exactly: columns `bucket`, dimensions…, `unique_viewers_exact`.

        Of the question count edges, visible, dimensions and filters, which may be channel_id, video_id and is_bot.
        Closed hours alone are known, and an hour counts in the bucket in which it begins: buckets are whole hours, but
        for edges of a `zone` off the hour. Older than the hours kept (`viewers_from_ms`), only what is a built day or
        month of `zone`, of all that a tenant has or by channel, is. Raises `ValueError` that says so.
        """
        ...

    def cohorts(self, question: Scan) -> pa.Table:
        """Return viewers by the week of their first play: columns `cohort`, `later`, `viewers`.

        `edges_ms` are the starts of weeks of the tenant's zone and the end of the last; visible and filters
        (channel_id) say whose. `cohort` is the index of the first week, `later` how many weeks after it (0: itself),
        `viewers` how many of the cohort played then. Bots are left out.
        """
        ...


class SpeedTables(Protocol):
    """The speed layer's side of the store."""

    def append(self, rows: Mapping[str, pa.Table], commit: Commit) -> None:
        """Add speed-layer rows: rollup name -> table of (time_ms, keys…, measures…).

        Absent measure columns count as 0. HLL columns are list<uint32> of coupons, KLL columns list<float64>.
        """
        ...

    def load(self, rows: Mapping[str, pa.Table]) -> None:
        """Add speed-layer rows that come from no log, in one transaction. Their hours are never closed."""
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

    def compact(self, before_ms: int) -> int:
        """Merge speed rows of equal keys older than `before_ms`; return the number of rows saved."""
        ...


class BatchTables(Protocol):
    """The batch layer's side of the store."""

    def put_hour(self, hour_ms: int, rows: Mapping[str, pa.Table], viewers: pa.Table, run: HourRun) -> None:
        """Replace all batch rows of an hour and close it, in one transaction.

        `rows`: rollup -> table, at the rollup's grain, all measures; absent rollups have no rows. `viewers`: distinct
        (tenant_id, channel_id, video_id, is_bot, viewer_hash) of the hour's plays. Hour rows are made here; days,
        weeks and months that hold the hour and were built are built anew. Raises `HourKeptError`, `HourDroppedError`,
        and `HourTouchedError` for an open hour to which rows came behind `run.seen_commit`, up to the very commit.
        """
        ...

    def put_history(self, interval: Interval, rows: Mapping[str, pa.Table], viewers: pa.Table, at_ms: int) -> None:
        """Close whole hours with rows that come from no log and no archive, in one transaction; they are kept.

        `viewers` has a column `hour_ms` besides. Raises ValueError where one of the hours is closed already.
        """
        ...

    def closed(self, interval: Interval) -> list[ClosedHour]:
        """Return the closed hours of the range, in order."""
        ...

    def stale_hours(self) -> list[int]:
        """Return the closed hours that must run again: rows came since, or they were marked. Kept ones never."""
        ...

    def mark_stale(self, hours: Iterable[int]) -> None:
        """Say that hours must run again; those that are not closed (or are kept) are left out."""
        ...

    def hours_with_rows(self) -> list[int]:
        """Return the open hours that have appended rows, in order; without those that were loaded."""
        ...

    def compare(self, hour_ms: int) -> Mapping[str, tuple[int, int]]:
        """Return each additive measure of a closed hour as (speed layer, batch layer), over all tenants.

        Empty where the speed layer's rows are gone, or the hour is not closed.
        """
        ...

    def set_zones(self, zones: Mapping[str, str], now_ms: int) -> None:
        """Say in which zone each tenant reports; tenants that are not named keep what they had (first: UTC).

        A change holds for days that begin after `now_ms`; the first zone of a tenant holds for ever.
        """
        ...

    def due(self, before_ms: int) -> list[DuePeriod]:
        """Return days, weeks and months to build, in the order to build them in.

        Those that end at or before `before_ms` (up to which the caller has closed every hour that has events), of each
        zone in use, from the first closed hour on.
        """
        ...

    def build(self, kind: Period, start_ms: int, zone: str) -> int:
        """Build the rows of one period: a day from hours, a week or month from days. Return how many there are.

        Idempotent. Raises ValueError where `start_ms` starts no such period or what it is made of is not there.
        """
        ...

    def expire(self, now_ms: int) -> Mapping[str, int]:
        """Drop what is older than the settings say and held by a coarser tier; return rows dropped by table."""
        ...

    def erase_viewer(self, tenant_id: str, viewer_hash: int) -> int:
        """Delete the viewer from the tables of exact viewers and cohorts; return rows deleted. Sketches hold no id."""
        ...

    def note_run(self, run: JobRun) -> int:
        """Keep a run in the history; return its number."""
        ...

    def runs(self, limit: int = 100, before: int | None = None, job: str | None = None) -> Sequence[JobRun]:
        """Return the newest runs first, those with numbers below `before`."""
        ...

    def snapshot(self) -> AbstractContextManager[Snapshot]:
        """Open one state for several questions. Keep it short: it holds one of a bounded number of readers."""
        ...

    def read(self, work: Callable[[Snapshot], T], scans: int) -> T:
        """Return what `work` makes of one state. It asks so many scans of it, and may be called more than once."""
        ...


class TimeSeriesStore(SpeedTables, BatchTables, Protocol):
    """Rollup rows with measures that merge.

    O1   append() makes all rows of all rollups and the commit visible together, or nothing.
    O2   append() of a commit number that is already in is refused: no batch counts twice.
    O3   scan() equals the merge of all appended rows, however they were cut into appends, compacted or not.
    O4   A scan sees one consistent state while appends and compactions go on.
    O5   What append() and put_hour() returned for survives kill -9 and a power cut.
    O6   In a snapshot an hour is answered by exactly one layer: closing or replacing it is seen in all or nothing,
         and closing it takes no row out of answers that the run has not seen.
    O7   put_hour() replaces: the same rows put twice count once.
    O8   The same range has the same merged measures in every tier that holds it (sketches within their error), also
         after one of its hours was replaced.
    O9   An append to a closed hour makes it stale in its own transaction; only a run that saw it makes it fresh.
    O10  Nothing is dropped before the coarser tier holds it, and nothing is answered from a table that lost rows.
    O11  Rows that came from no log (load(), put_history()) are never replaced by a run.
    O12  After erase_viewer() no row names the viewer.
    """

    def scan(self, question: Scan) -> pa.Table:
        """Return merged measures: columns `bucket` (int32 index into edges), dimensions…, measures….

        Additive measures are int64; sketches are serialised DataSketches (binary, HLL lgK 14 / KLL doubles k 200, null
        where empty). Gauges (only rollup `concurrency`) come per *sample*: there a `time_ms` column stands beside
        `bucket`, one row a sample and group. Measures of kind MAX and LAST (only rollup `peaks`) are the largest and
        the latest of their bucket: ask with the dimensions or filters that name one scope. What the speed layer does
        not know is 0 (no sketch) in its parts. Groups without rows are absent.
        """
        ...

    def figures(self) -> StoreFigures:
        """Return rows per rollup and bytes on disk."""
        ...

    def flush(self) -> None:
        """Return when everything appended before is durable and visible to scan()."""
        ...

    def copy_to(self, path: Path) -> None:
        """Write a copy of everything as of one moment to a new file; appends and scans go on."""
        ...

    def close(self) -> None:
        """Close cleanly."""
        ...
