"""What answers a query: the smallest rollups that have its dimensions, filters and measures, or else raw events.

In: a `Query` and what the caller may see. Out: a `Plan` of sources, or a `QueryProblem` `not_covered` that says what
would be covered. Promised: this is the one place where tenant and channels of a key enter a question, and every scan
carries them. Not done: which layer and tier each piece of the range is read from (`parts`), and running anything.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property, lru_cache
from typing import Final, Literal

from viewmeter.model.catalogue import METRICS, ROLLUPS, Kind, Metric, Rollup
from viewmeter.model.catalogue.measures import MEASURES
from viewmeter.model.catalogue.metrics import Exact, Gauge
from viewmeter.olap.protocol import Filter, Scan, Visible
from viewmeter.query.parts import Kept
from viewmeter.query.problems import QueryProblem
from viewmeter.query.question import Query

_SCOPES: Final = frozenset(("video_id", "channel_id"))
_SAMPLES: Final = "concurrency"
PEAKS: Final = "peaks"
_NO_ANSWERS: Final = frozenset((_SAMPLES, PEAKS, "retention"))
"""Rollups that are asked in a way of their own."""

SAMPLES_KEPT: Final = Kept(
    "concurrent viewers", ("minute", "hour", "day", "week", "month"), speed=True, hourly=True, begins=True
)
EXACT_KEPT: Final = Kept("exact viewers", ("hour", "day", "month"), speed=False, hourly=True, begins=True, viewers=True)


@dataclass(frozen=True)
class Source:
    """Where some of the metrics come from.

    `rollup`: rows of the store. `gauge`: samples, and where they are gone the peaks of a scope. `exact`: the viewers
    themselves. `raw`: events of the archive, which no rollup keeps in these dimensions.
    """

    kind: Literal["rollup", "gauge", "exact", "raw"]
    rollup: str
    metrics: tuple[str, ...]

    @cached_property
    def measures(self) -> tuple[str, ...]:
        """What to scan: the measures of the metrics, in the order of the catalogue."""
        needed = {measure for name in self.metrics for measure in METRICS[name].measures()}
        return tuple(name for name in MEASURES if name in needed)

    @cached_property
    def kept(self) -> Kept | None:
        """Return what rows there are of it; None: events, which can be cut anywhere."""
        if self.kind == "gauge":
            return SAMPLES_KEPT
        if self.kind == "exact":
            return EXACT_KEPT
        if self.kind == "raw":
            return None
        sums = all(MEASURES[name].kind is Kind.ADDITIVE for name in self.measures)
        return Kept.of(ROLLUPS[self.rollup], sums=sums)

    @property
    def mixed(self) -> bool:
        """Whether it answers for dimensions that no speed rows keep together: raw events can fill its gaps."""
        return self.kind == "raw" or (self.kind == "rollup" and ROLLUPS[self.rollup].batch_only)

    def among(self, metrics: tuple[str, ...]) -> Source | None:
        """Return the source for some of its metrics; None where it has none of them."""
        return _among(self, metrics)


@lru_cache(maxsize=1_024)
def _among(source: Source, metrics: tuple[str, ...]) -> Source | None:
    wanted = tuple(name for name in source.metrics if name in metrics)
    return replace(source, metrics=wanted) if wanted else None


@dataclass(frozen=True)
class Plan:
    """How a query is answered."""

    query: Query
    visible: Visible
    sources: tuple[Source, ...]
    filters: tuple[Filter, ...]

    @property
    def alone(self) -> Source | None:
        """The rows that answer everything, where they are of one rollup and need no raw events beside them."""
        source, *others = self.sources
        return source if source.kind == "rollup" and not source.mixed and not others else None

    def scan(self, source: Source, edges_ms: tuple[int, ...], more: tuple[Filter, ...] = ()) -> Scan:
        """Return the question to the store, without parts."""
        return Scan(
            rollup=source.rollup,
            measures=source.measures,
            edges_ms=edges_ms,
            visible=self.visible,
            dimensions=self.query.dimensions,
            filters=(*self.filters, *more),
        )


def plan(query: Query, visible: Visible, *, raw: bool = False) -> Plan:
    """Return how to answer the query for somebody who sees `visible`. Raises `QueryProblem` `not_covered`.

    `raw`: whether events can be asked for what no rollup keeps.
    """
    filters = query.filters
    asked_for = {*query.dimensions, *(f.dimension for f in filters)}
    if "is_bot" not in asked_for:
        filters = (*filters, Filter("is_bot", ("false",)))
    needed = {*query.dimensions, *(f.dimension for f in filters)}
    if visible.channels is not None:
        needed.add("channel_id")
    ordering = tuple(name for name, _ in query.order_by if name in METRICS)
    chosen: dict[tuple[Literal["rollup", "gauge", "exact", "raw"], str], list[str]] = {}
    for name in dict.fromkeys((*query.metrics, *ordering)):
        metric = METRICS[name]
        if isinstance(metric, Gauge):
            _check_scope({*query.dimensions} - _SCOPES, needed, metric, "does not add up over")
            chosen.setdefault(("gauge", _SAMPLES), []).append(name)
        elif isinstance(metric, Exact):
            _check_scope(set(), needed, metric, "is not counted by")
            chosen.setdefault(("exact", ""), []).append(name)
        elif rollup := _smallest(needed, metric):
            chosen.setdefault(("rollup", rollup.name), []).append(name)
        elif raw:
            chosen.setdefault(("raw", ""), []).append(name)
        else:
            raise _not_covered(needed, metric)
    sources = tuple(Source(kind, rollup, tuple(metrics)) for (kind, rollup), metrics in chosen.items())
    return Plan(query, visible, sources, filters)


def rollups_of(metric: Metric) -> list[str]:
    """Return the names of the rollups that have the metric."""
    having = [rollup.name for rollup in ROLLUPS.values() if _has(rollup, metric)]
    return [*having, PEAKS] if isinstance(metric, Gauge) else having


def _has(rollup: Rollup, metric: Metric) -> bool:
    needed = metric.measures()
    return bool(needed) and needed <= {m.name for m in rollup.measures}


def _smallest(needed: set[str], metric: Metric) -> Rollup | None:
    covering = [
        r for r in ROLLUPS.values() if r.name not in _NO_ANSWERS and needed <= {*r.dimensions} and _has(r, metric)
    ]
    return min(covering, key=lambda r: r.cost, default=None)


def _check_scope(grouping: set[str], needed: set[str], metric: Metric, why: str) -> None:
    """Refuse what samples and viewers do not tell. Viewers of one instant add up over videos, and over nothing else."""
    if grouping or needed - _SCOPES - {"is_bot"}:
        wrong = ", ".join(sorted(grouping | (needed - _SCOPES - {"is_bot"})))
        raise QueryProblem(
            "not_covered",
            422,
            f"{metric.name} {why} {wrong}: it is kept per video, per channel and for all of them. "
            "Ask for it without dimensions, or by video_id or channel_id, with filters on these alone",
            [{"field": "metrics", "code": "not_covered", "detail": f"{metric.name} by or of {wrong}"}],
        )


def _not_covered(needed: set[str], metric: Metric) -> QueryProblem:
    having = [r for r in ROLLUPS.values() if r.name not in _NO_ANSWERS and _has(r, metric)]
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


@lru_cache(maxsize=1_024)
def is_sketch(metric: str) -> bool:
    """Return whether the metric comes from a sketch, so that it is approximate and costs more."""
    return any(MEASURES[m].kind in (Kind.HLL, Kind.KLL) for m in METRICS[metric].measures())
