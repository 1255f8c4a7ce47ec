"""Viewers at the same time, where the samples are gone: the peaks that the batch layer keeps by the hour and scope.

In: a plan, peaks' parts of the range. Out: scans of the rollup `peaks`, and what they found as tables like those of
samples. Promised: peaks never add up. A scope is platform, tenant, channel or video; a group that would need the sum
of two of them is refused (`not_covered`) with what would work.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Any, Final, Literal

import pyarrow as pa

from viewmeter.model.catalogue import METRICS
from viewmeter.model.catalogue.measures import MEASURES, Kind
from viewmeter.model.catalogue.metrics import Gauge
from viewmeter.model.time import Interval, rfc3339
from viewmeter.olap.protocol import Filter, Part, Scan
from viewmeter.query.parts import Ground
from viewmeter.query.plan import PEAKS, SAMPLES_KEPT, Plan, Source
from viewmeter.query.problems import QueryProblem

Role = Literal["largest", "last"]

_SAMPLED: Final = ("speed", "minute")


def of_samples(parts: Sequence[Part]) -> tuple[Part, ...]:
    """Return the parts that are read from samples."""
    return tuple(part for part in parts if part.table in _SAMPLED)


def of_peaks(parts: Sequence[Part]) -> tuple[Part, ...]:
    """Return the parts that are read from peaks."""
    return tuple(part for part in parts if part.table not in _SAMPLED)


def peak_scans(
    planned: Plan, source: Source, edges: tuple[int, ...], ground: Ground, more: tuple[Filter, ...]
) -> list[tuple[Scan, Role]]:
    """Return what to ask of peaks: the largest over all of their parts, the last of where a bucket ends in them."""
    parts = of_peaks(ground.parts(edges, SAMPLES_KEPT))
    bots = _bots(planned.filters)
    if not parts or not bots:
        return []
    hourly = {metric.hourly for name in source.metrics if isinstance(metric := METRICS[name], Gauge)}
    scope, identity = _scope(planned)
    filters = (
        *more,
        *(f for f in planned.filters if f.dimension in ("channel_id", "video_id")),
        Filter("scope", (scope,)),
        Filter("bots", (bots,)),
    )
    dimensions = (*planned.query.dimensions, *(name for name in identity if name not in planned.query.dimensions))
    scans: list[tuple[Scan, Role]] = []
    lasts = _lasts(edges, parts, ground)
    asked: tuple[tuple[Kind, Role, tuple[Part, ...]], ...] = ((Kind.MAX, "largest", parts), (Kind.LAST, "last", lasts))
    for kind, role, where in asked:
        measures = tuple(name for name in MEASURES if any(m.name == name and m.kind is kind for m in hourly))
        if measures and where:
            scans.append((Scan(PEAKS, measures, edges, planned.visible, dimensions, filters, where), role))
    return scans


def _scope(planned: Plan) -> tuple[str, tuple[str, ...]]:
    """Return whose peaks answer, and what tells one of them from another."""
    asked = {*planned.query.dimensions, *(f.dimension for f in planned.filters)}
    whose: tuple[str, ...] = ("tenant_id",) if planned.visible.tenant_id is None else ()
    if "video_id" in asked:
        return "video", (*whose, "channel_id", "video_id")
    if "channel_id" in asked or planned.visible.channels is not None:
        return "channel", (*whose, "channel_id")
    return ("platform", ()) if planned.visible.tenant_id is None else ("tenant", ())


def _bots(filters: Sequence[Filter]) -> str:
    """Return who is counted, as peaks call it; "" where the filters leave nobody."""
    left = {"true", "false"}
    for f in filters:
        if f.dimension == "is_bot":
            left &= {"true", "false"} - {*f.values} if f.negate else {*f.values}
    return "any" if len(left) == 2 else "".join(left)


def _lasts(edges: tuple[int, ...], parts: Sequence[Part], ground: Ground) -> tuple[Part, ...]:
    """Return, for each bucket that ends in peaks, the row it ends in."""
    found: list[Part] = []
    for start_ms, end_ms in pairwise(edges):
        part = next((p for p in parts if p.interval.start_ms < end_ms <= p.interval.end_ms), None)
        if part is None:
            continue
        row = ground.row(part, end_ms - 1)
        if row.start_ms < start_ms:
            continue
        if found and found[-1].table == part.table and found[-1].interval.end_ms == row.start_ms:
            found[-1] = Part(part.table, Interval(found[-1].interval.start_ms, row.end_ms), part.zone)
        else:
            found.append(Part(part.table, row, part.zone))
    return tuple(found)


def as_samples(planned: Plan, source: Source, found: pa.Table, reach_ms: int) -> pa.Table:
    """Return peaks under the names of the samples that they are of. Raises `QueryProblem` where they would add up."""
    identity = [name for name in _scope(planned)[1] if name not in planned.query.dimensions]
    group = ["bucket", *planned.query.dimensions]
    # MAX over a bucket is one row an identity; two rows in one group are two peaks that nobody can add.
    if identity and found.num_rows:
        whose = found.select([*planned.query.dimensions, *identity]).group_by([*planned.query.dimensions, *identity])
        distinct: Any = whose.aggregate([])
        groups = distinct.group_by([*planned.query.dimensions]).aggregate([]) if planned.query.dimensions else None
        if distinct.num_rows > (1 if groups is None else groups.num_rows):
            raise _no_sum(planned, source, reach_ms)
    names = {m.hourly.name: m.sample.name for n in source.metrics if isinstance(m := METRICS[n], Gauge)}
    columns = {name: found[name] for name in group}
    columns |= {sample: found[peak] for peak, sample in names.items() if peak in found.column_names}
    return pa.table(columns)


def _no_sum(planned: Plan, source: Source, reach_ms: int) -> QueryProblem:
    what, by = ("videos", "channel_id and video_id") if _scope(planned)[0] == "video" else ("channels", "channel_id")
    since = f"ask from {rfc3339(reach_ms)} on, where every sample is kept, or " if reach_ms else ""
    detail = (
        f"{', '.join(source.metrics)}: what is kept of older hours are peaks of each of the {what}, and peaks do not "
        f"add up: {since}group by {by}, or name one of them"
    )
    return QueryProblem("not_covered", 422, detail, [{"field": "metrics", "code": "not_covered", "detail": detail}])
