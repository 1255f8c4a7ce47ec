"""Asking for one plan: its sources read from their layers and tiers, in one state of the store.

In: a plan, a snapshot, the archive where there is one. Out: tables of merged measures with a bucket and dimensions a
row. Promised: everything that one `Gathering` asks sees the same rows and the same closed hours; each piece of the
range is read once. Not done: metrics; what a table's rows mean for a cell is `compute`'s.
"""

from __future__ import annotations

from collections.abc import Sequence
from copy import copy
from dataclasses import dataclass, replace
from typing import Final, Literal, NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from viewmeter.model.catalogue import METRICS
from viewmeter.model.spans import minus
from viewmeter.model.time import HOUR_MS, Interval, rfc3339
from viewmeter.olap.protocol import Coverage, Filter, Part, Scan, Snapshot, Top
from viewmeter.query import gauges
from viewmeter.query.parts import Ground, Kept, Settled
from viewmeter.query.plan import Plan, Source
from viewmeter.query.problems import QueryProblem
from viewmeter.query.raw import RawEvents

Edges = tuple[int, ...]
Layer = Literal["speed", "batch", "archive"]
_PARTS_SHOWN: Final = 50


@dataclass(frozen=True)
class Found:
    """Rows of one scan. `role`: what they are; samples have a `time_ms` each, the others are one row a bucket."""

    table: pa.Table
    role: Literal["sums", "samples", "largest", "last", "exact"] = "sums"


class Told(NamedTuple):
    """What stands behind an answer."""

    layers: tuple[Layer, ...]
    closed_until_ms: int | None
    by_utc_hours: tuple[str, ...]
    explained: dict[str, object]


class Gathering:
    """One plan over one snapshot: settled once, then asked as often as needed.

    What it found out is good for every snapshot of a store in which the same is where: `again`.
    """

    def __init__(
        self, planned: Plan, snapshot: Snapshot, zone: str, raw: RawEvents | None, raw_budget: int, rows_max: int
    ) -> None:
        self.plan, self._snapshot, self._raw, self._budget = planned, snapshot, raw, raw_budget
        self.ground, self._looked_at = _ground(planned, snapshot, zone)
        self._scans: dict[tuple[Source, Edges, Top | None], Scan] = {}
        self._filled: frozenset[Source] = frozenset()  # whose gaps raw events fill
        self.settled = self._settle(rows_max)
        self.told = Told(tuple(self._layers()), self._closed_until_ms(), self._by_utc_hours(), self._explained())

    @property
    def lasts(self) -> bool:
        """Whether it may be good for another snapshot: raw events, where they have a say, are others each time."""
        return not any(source.mixed for source in self.plan.sources)

    def again(self, snapshot: Snapshot) -> Gathering | None:
        """Return the same over another snapshot; None where something else is where. Only of one that `lasts`."""
        tenant_id = self.plan.visible.tenant_id
        if any(snapshot.coverage(zone, tenant_id) != coverage for zone, coverage in self._looked_at.items()):
            return None
        other = copy(self)
        other._snapshot = snapshot
        return other

    # --- the range ---------------------------------------------------------------------------------------------

    def _settle(self, rows_max: int) -> Settled:
        """Choose the edges: as asked where raw events can fill what rows cannot be cut at, else as rows allow."""
        sources = self.plan.sources
        needed = [source.kept for source in sources if source.kept is not None and not source.mixed]
        mixed = [source for source in sources if source.mixed]
        query = self.plan.query
        interval = Interval(query.start_ms, query.end_ms)

        def settle(kept: Sequence[Kept]) -> Settled:
            return self.ground.settle(interval, query.granularity, query.zone, kept, rows_max)

        if not mixed:
            return settle(needed)
        settled = settle(needed)
        pieces = {source: self._uncovered(source, settled.edges) for source in mixed}
        self._filled = frozenset(mixed)
        if self._within_budget(pieces):
            return settled
        if any(source.kind == "raw" for source in mixed):
            raise self._too_much_raw(pieces)
        # Too many events: whole hours from rows, and of hours that are still open nothing where they hold too many.
        settled = settle([*needed, *(source.kept for source in mixed if source.kept is not None)])
        if not self._within_budget({source: self._uncovered(source, settled.edges) for source in mixed}):
            self._filled = frozenset()
        return settled

    def _uncovered(self, source: Source, edges: Edges) -> tuple[Interval, ...]:
        """Return what of the range the source's rows do not answer."""
        spans = [part.interval for part in self._parts(source, edges)]
        return tuple(minus([Interval(edges[0], edges[-1])], spans))

    def _within_budget(self, pieces: dict[Source, tuple[Interval, ...]]) -> bool:
        if not any(pieces.values()):
            return True
        if self._raw is None or any(p and p[0].start_ms < self._raw.reach_ms() for p in pieces.values()):
            return False
        return sum(self._raw.events(p) for p in pieces.values() if p) <= self._budget

    def _too_much_raw(self, pieces: dict[Source, tuple[Interval, ...]]) -> QueryProblem:
        assert self._raw is not None
        shown = ", ".join(sorted({*self.plan.query.dimensions, *(f.dimension for f in self.plan.filters)}))
        reach = self._raw.reach_ms()
        if reach and any(p and p[0].start_ms < reach for p in pieces.values()):
            why = f"the archive reaches back to {rfc3339(reach)}: start there or later"
        else:
            events = sum(self._raw.events(p) for p in pieces.values() if p)
            why = (
                f"the range holds {events:,} of them, and a query reads at most {self._budget:,}: take a shorter range"
            )
        detail = (
            f"no rollup keeps {shown} together, so raw events would have to answer: {why}, or leave out a dimension "
            "or a filter"
        )
        return QueryProblem("not_covered", 422, detail, [{"field": "time_range", "code": "not_covered", "detail": why}])

    # --- asking ------------------------------------------------------------------------------------------------

    def first_groups(self, edges: Edges, metrics: tuple[str, ...], top: Top) -> Found | None:
        """Return the rows of the first groups by a sum; None where they must be found among all of them."""
        source = self.plan.alone and self.plan.alone.among(metrics)
        if source is None or top.measure not in source.measures:
            return None
        return self._of_rollup(source, edges, top)

    def ask(self, edges: Edges, metrics: tuple[str, ...], more: tuple[Filter, ...] = ()) -> list[Found]:
        """Return the rows of some of the metrics, bucket by bucket. Raises `QueryProblem`."""
        found: list[Found] = []
        for whole in self.plan.sources:
            source = whole.among(metrics)
            if source is not None:
                found += self._ask(whole, source, edges, more)
        return found

    def _ask(self, whole: Source, source: Source, edges: Edges, more: tuple[Filter, ...]) -> list[Found]:
        if source.kind == "rollup" and not whole.mixed and not more:
            return [self._of_rollup(source, edges)]
        question = self.plan.scan(source, edges, more)
        parts = self._parts(source, edges)
        if source.kind == "gauge":
            samples = gauges.of_samples(parts)
            found = [Found(self._snapshot.scan(replace(question, parts=samples)), "samples")] if samples else []
            peaks = gauges.peak_scans(self.plan, source, edges, self.ground, more)
            reach_ms = self.ground.minutes_from_ms
            for scan, role in peaks:
                found.append(Found(gauges.as_samples(self.plan, source, self._snapshot.scan(scan), reach_ms), role))
            return found
        if source.kind == "exact":
            return [Found(self._exact(question), "exact")]
        found = [Found(self._snapshot.scan(replace(question, parts=parts)))] if parts else []
        pieces = self._pieces(whole, edges)
        if pieces and self._raw is not None:
            found.append(Found(self._raw.scan(question, pieces)))
        return found or [Found(_empty(question))]

    def _of_rollup(self, source: Source, edges: Edges, top: Top | None = None) -> Found:
        """Ask a rollup that needs no raw events; asked again, the question to the store is the same object."""
        key = (source, edges, top)
        scan = self._scans.get(key)
        if scan is None:
            question = self.plan.scan(source, edges)
            scan = self._scans[key] = replace(question, parts=self._parts(source, edges), top=top)
        return Found(self._snapshot.scan(scan) if scan.parts else _empty(scan))

    def _exact(self, question: Scan) -> pa.Table:
        edges, buckets = _rounded(question.edges_ms, self.ground.hour_step_ms)
        if len(edges) < 2:
            return _empty(question, "unique_viewers_exact")
        try:
            found = self._snapshot.exact_viewers(replace(question, edges_ms=edges), self.ground.zone)
        except ValueError as error:
            detail = f"unique_viewers_exact: {error}"
            raise QueryProblem(
                "not_covered", 422, detail, [{"field": "metrics", "code": "not_covered", "detail": detail}]
            ) from error
        return _renumbered(found, buckets)

    def _parts(self, source: Source, edges: Edges) -> tuple[Part, ...]:
        return () if source.kept is None else self.ground.parts(edges, source.kept)

    def _pieces(self, source: Source, edges: Edges) -> tuple[Interval, ...]:
        """Return what raw events answer."""
        return self._uncovered(source, edges) if source in self._filled else ()

    # --- what stands behind it -----------------------------------------------------------------------------------

    def _layers(self) -> list[Layer]:
        """Return the layers that answered."""
        used: set[Layer] = set()
        for source in self.plan.sources:
            used |= {_layer(part) for part in self._parts(source, self.settled.edges)}
            if self._pieces(source, self.settled.edges):
                used.add("archive")
        order: tuple[Layer, ...] = ("speed", "batch", "archive")
        return [layer for layer in order if layer in used]

    def _by_utc_hours(self) -> tuple[str, ...]:
        """Return the metrics that are cut at another instant than the edges say.

        Peaks and exact viewers are kept by whole hours of UTC. Where a zone's bucket begins inside of one, that hour is
        in the bucket before, in which it begins itself.
        """
        edges = self.settled.edges
        inside = [edge for edge in edges if edge % HOUR_MS]
        found: list[str] = []
        for source in self.plan.sources if inside else ():
            if source.kept is None or not source.kept.hourly:
                continue
            parts = self._parts(source, edges)
            rows = gauges.of_peaks(parts) if source.kind == "gauge" else parts
            if any(part.interval.start_ms <= edge <= part.interval.end_ms for part in rows for edge in inside):
                found += source.metrics
        return tuple(found)

    def _explained(self) -> dict[str, object]:
        """Return the plan as `explain` shows it. The tenant is not in it: the asker knows, others must not."""
        edges = self.settled.edges
        scans: list[dict[str, object]] = []
        for source in self.plan.sources:
            parts = [_told(part) for part in self._parts(source, edges)]
            pieces = self._pieces(source, edges)
            parts += [{"layer": "archive", "table": "events", "range": _range(piece)} for piece in pieces]
            scans.append(
                {
                    "rollup": source.rollup or None,
                    "kind": source.kind,
                    "metrics": [*source.metrics],
                    "measures": [*source.measures],
                    "parts": parts[:_PARTS_SHOWN],
                    "more_parts": max(0, len(parts) - _PARTS_SHOWN),
                }
            )
        visible = self.plan.visible
        return {
            "range": _range(Interval(edges[0], edges[-1])),
            "buckets": len(edges) - 1,
            "zone_of_days": self.ground.zone,
            "scans": scans,
            "filters": [["is_not" if f.negate else "is", f.dimension, [*f.values]] for f in self.plan.filters],
            "only_channels": None if visible.channels is None else [*visible.channels],
        }

    def _closed_until_ms(self) -> int | None:
        """Return up to when the range's hours are closed, where something asked for is known of these alone.

        None: everything asked for is known of open hours as well, or no hour in which something happened is open.
        """
        waiting = (s for s in self.plan.sources if s not in self._filled)
        if not any(METRICS[name].batch_only for source in waiting for name in source.metrics):
            mixed = any(s.mixed and s not in self._filled for s in self.plan.sources)
            if not mixed:
                return None
        whole = Interval(self.settled.edges[0], self.settled.edges[-1])
        return self.ground.known_until(whole)


def _ground(planned: Plan, snapshot: Snapshot, zone: str) -> tuple[Ground, dict[str, Coverage]]:
    """Return the reporting zone's ground; UTC's where older days were not built in that zone (it was another then).

    And the coverage that was looked at, by zone.
    """
    query = planned.query
    looked_at = {zone: snapshot.coverage(zone, planned.visible.tenant_id)}
    ground = Ground(looked_at[zone], zone)
    if zone == "UTC" or ground.has_days(Interval(query.start_ms, query.end_ms)):
        return ground, looked_at
    looked_at["UTC"] = snapshot.coverage("UTC", planned.visible.tenant_id)
    return Ground(looked_at["UTC"], "UTC"), looked_at


def _rounded(edges: Edges, step_ms: int) -> tuple[Edges, npt.NDArray[np.int64]]:
    """Return edges of whole steps, and the bucket of each of theirs among the given ones.

    An edge inside of a step is never one of rows that are read: such an hour is open. So it can be moved to the step's
    start, and buckets that vanish by it have no rows.
    """
    given = np.asarray(edges, np.int64)
    moved = given - given % step_ms
    kept = np.flatnonzero(np.diff(moved))
    return tuple(moved[[*kept, *([-1] if len(kept) else [])]].tolist()), kept


def _renumbered(table: pa.Table, buckets: npt.NDArray[np.int64]) -> pa.Table:
    column = table.schema.get_field_index("bucket")
    numbers = buckets[table["bucket"].to_numpy()] if table.num_rows else np.zeros(0, np.int64)
    changed: pa.Table = table.set_column(column, "bucket", pa.array(numbers.astype(np.int32)))
    return changed


def _empty(question: Scan, *more: str) -> pa.Table:
    names = {"bucket": pa.int32(), **dict.fromkeys(question.dimensions, pa.string())}
    columns = {name: pa.array([], kind) for name, kind in names.items()}
    return pa.table({**columns, **{name: pa.array([], pa.int64()) for name in (*question.measures, *more)}})


def _layer(part: Part) -> Layer:
    return "speed" if part.table == "speed" else "batch"


def _told(part: Part) -> dict[str, object]:
    return {"layer": _layer(part), "table": part.table, "range": _range(part.interval)}


def _range(interval: Interval) -> list[str]:
    return [rfc3339(interval.start_ms), rfc3339(interval.end_ms)]
