"""Which rollups answer a query: the smallest that have its dimensions, filters and measures.

In: a `Query` and what the caller may see. Out: a `Plan` of scans, or a `QueryProblem` `not_covered` that says what
would be covered. Promised: this is the one place where tenant and channels of a key enter a question, and every scan
carries them. Not done: running anything.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from viewmeter.model.catalogue import METRICS, SPEED_ROLLUPS, Kind, Metric, Rollup
from viewmeter.model.catalogue.measures import MEASURES
from viewmeter.model.time import rfc3339
from viewmeter.olap.protocol import Filter, Scan, Visible
from viewmeter.query.problems import QueryProblem
from viewmeter.query.question import Query

_GAUGE_GROUPINGS: Final = frozenset(("video_id", "channel_id"))
_GAUGE_FILTERS: Final = frozenset(("video_id", "channel_id", "is_bot"))


@dataclass(frozen=True)
class Source:
    """One rollup and the metrics that are computed from it."""

    rollup: str
    metrics: tuple[str, ...]

    @property
    def measures(self) -> tuple[str, ...]:
        """What to scan: the measures of the metrics, in the order of the catalogue."""
        needed = {measure for name in self.metrics for measure in METRICS[name].measures()}
        return tuple(name for name in MEASURES if name in needed)


@dataclass(frozen=True)
class Plan:
    """How a query is answered."""

    query: Query
    visible: Visible
    sources: tuple[Source, ...]
    filters: tuple[Filter, ...]

    def scan(
        self, source: Source, edges_ms: tuple[int, ...], metrics: tuple[str, ...], more: tuple[Filter, ...] = ()
    ) -> Scan | None:
        """Return the question to the store for some of the metrics; None where the source has none of them."""
        wanted = Source(source.rollup, tuple(name for name in source.metrics if name in metrics))
        if not wanted.metrics:
            return None
        return Scan(
            rollup=source.rollup,
            measures=wanted.measures,
            edges_ms=edges_ms,
            visible=self.visible,
            dimensions=self.query.dimensions,
            filters=(*self.filters, *more),
        )

    def explained(self, buckets: int) -> dict[str, object]:
        """Return the plan as `explain` shows it. The tenant is not in it: the asker knows, others must not."""
        return {
            "range": [rfc3339(self.query.start_ms), rfc3339(self.query.end_ms)],
            "buckets": buckets,
            "scans": [
                {"layer": "speed", "rollup": s.rollup, "metrics": [*s.metrics], "measures": [*s.measures]}
                for s in self.sources
            ],
            "filters": [["is_not" if f.negate else "is", f.dimension, [*f.values]] for f in self.filters],
            "only_channels": None if self.visible.channels is None else [*self.visible.channels],
        }


def plan(query: Query, visible: Visible) -> Plan:
    """Return how to answer the query for somebody who sees `visible`. Raises `QueryProblem` `not_covered`."""
    filters = query.filters
    asked_for = {*query.dimensions, *(f.dimension for f in filters)}
    if "is_bot" not in asked_for:
        filters = (*filters, Filter("is_bot", ("false",)))
    needed = {*query.dimensions, *(f.dimension for f in filters)}
    if visible.channels is not None:
        needed.add("channel_id")
    ordering = tuple(name for name, _ in query.order_by if name in METRICS)
    chosen: dict[str, list[str]] = {}
    for name in dict.fromkeys((*query.metrics, *ordering)):
        metric = METRICS[name]
        rollup = _gauge_rollup(query, needed, metric) if is_gauge(metric) else _smallest(needed, metric)
        if rollup is None:
            raise _not_covered(needed, metric)
        chosen.setdefault(rollup.name, []).append(name)
    sources = tuple(Source(rollup, tuple(metrics)) for rollup, metrics in chosen.items())
    return Plan(query, visible, sources, filters)


def is_gauge(metric: Metric) -> bool:
    """Return whether the metric comes from samples."""
    return all(MEASURES[name].kind is Kind.GAUGE for name in metric.measures())


def rollups_of(metric: Metric) -> list[str]:
    """Return the names of the rollups that have the metric."""
    return [rollup.name for rollup in SPEED_ROLLUPS.values() if _has(rollup, metric)]


def _has(rollup: Rollup, metric: Metric) -> bool:
    return metric.measures() <= {m.name for m in rollup.speed_measures}


def _smallest(needed: set[str], metric: Metric) -> Rollup | None:
    covering = [r for r in SPEED_ROLLUPS.values() if needed <= {*r.dimensions} and _has(r, metric)]
    return min(covering, key=lambda r: r.cost, default=None)


def _gauge_rollup(query: Query, needed: set[str], metric: Metric) -> Rollup:
    """Return the rollup of samples. Viewers of one instant add up over videos, and over nothing else."""
    grouping = {*query.dimensions} - _GAUGE_GROUPINGS
    if grouping or needed - _GAUGE_FILTERS:
        wrong = ", ".join(sorted(grouping | (needed - _GAUGE_FILTERS)))
        raise QueryProblem(
            "not_covered",
            422,
            f"{metric.name} does not add up over {wrong}: it is kept per video, per channel and for all of them. "
            "Ask for it without dimensions, or by video_id or channel_id, with filters on these alone",
            [{"field": "metrics", "code": "not_covered", "detail": f"{metric.name} by or of {wrong}"}],
        )
    return next(r for r in SPEED_ROLLUPS.values() if _has(r, metric))


def _not_covered(needed: set[str], metric: Metric) -> QueryProblem:
    having = [r for r in SPEED_ROLLUPS.values() if _has(r, metric)]
    shown = sorted(needed - {"is_bot", "channel_id", "video_id"})
    kept = {r.name: [d for d in r.dimensions if d not in ("is_bot", "channel_id", "video_id")] for r in having}
    together = "; ".join(" with ".join(names) for names in kept.values() if names)
    return QueryProblem(
        "not_covered",
        422,
        f"no rollup keeps {metric.name} by {' and '.join(shown)} together. Kept together (each also with video_id, "
        f"channel_id and is_bot): {together}. Leave out a dimension or a filter",
        [{"field": "dimensions", "code": "not_covered", "detail": ", ".join(shown)}],
    )
