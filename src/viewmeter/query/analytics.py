"""Questions answered: plan, scan, choose the page, merge, compute, say what stands behind the numbers.

In: a `Query`, what the caller may see, the time and the watermark. Out: an `Answer`. Promised: values are not rounded,
rows of a time series are dense, what a key may not see is as if it did not exist, and an answer has at most
`rows_max` rows or is refused. Not done: any clock, any HTTP.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from viewmeter.live.protocol import LiveScope, LiveStore
from viewmeter.model.calendar import zone_of
from viewmeter.model.catalogue import METRICS
from viewmeter.model.catalogue.measures import MEASURES, Kind
from viewmeter.model.time import MINUTE_MS, Interval, rfc3339
from viewmeter.olap.errors import ScanTooLargeError
from viewmeter.olap.protocol import Filter, TimeSeriesStore, Visible
from viewmeter.query.answer import Answer, Row
from viewmeter.query.cache import Cache, TracksChanges
from viewmeter.query.compute import Cells, last_samples, metric_order, metric_values
from viewmeter.query.groups import Groups, Page, ordering, page
from viewmeter.query.listing import approximation, dimensions_catalogue, metrics_catalogue
from viewmeter.query.plan import Plan, plan
from viewmeter.query.problems import QueryProblem
from viewmeter.query.question import Query
from viewmeter.query.ranges import bucket_edges
from viewmeter.query.realtime import realtime_object
from viewmeter.query.settings import QuerySettings

Array = npt.NDArray[Any]

_FILTERED_GROUPS_MAX: Final = 10_000


@dataclass(frozen=True)
class _Result:
    """What is computed, and may be kept."""

    rows: list[Row]
    page: Page
    plan: dict[str, object]
    watermark_ms: int | None


class Analytics:
    """Answers for many threads at once."""

    def __init__(self, store: TimeSeriesStore, live: LiveStore, settings: QuerySettings | None = None) -> None:
        self._store, self._live = store, live
        self._settings = settings or QuerySettings()
        self._changes = store if isinstance(store, TracksChanges) else None
        self._cache: Cache[_Result] = Cache(
            self._settings.cache_entries,
            self._settings.cache_rows,
            int(min(self._settings.cache_ttl_s, 300.0) * 1000),
            int(self._settings.cache_open_ttl_s * 1000),
        )

    def query(self, query: Query, visible: Visible, now_ms: int, watermark_ms: int | None) -> Answer:
        """Answer a question for somebody who sees `visible`. Raises `QueryProblem`."""
        planned = plan(query, visible)
        key = (replace(query, explain=False), visible)
        interval = Interval(query.start_ms, query.end_ms)
        change = self._changes.change_number(interval) if self._changes else 0
        result = self._cache.get(key, change, now_ms)
        cached = result is not None
        if result is None:
            result = self._compute(planned, now_ms, watermark_ms)
            # Samples of the present move with the clock, also when nothing arrives.
            is_open = query.end_ms > now_ms - MINUTE_MS
            self._cache.put(key, result, len(result.rows), change, now_ms, is_open=is_open)
        elif self._changes:
            result = replace(result, watermark_ms=watermark_ms)  # unchanged up to this one
        return Answer(
            rows=result.rows,
            meta=_meta(query, result, now_ms, cached),
            next_cursor=result.page.next_cursor,
            dimensions=query.dimensions,
            metrics=query.metrics,
        )

    def realtime(self, scope: LiveScope, now_ms: int) -> dict[str, Any]:
        """Return the realtime object of a scope."""
        return realtime_object(scope, self._live.read(scope, now_ms), now_ms)

    def metrics_catalogue(self) -> list[dict[str, Any]]:
        """Return every metric as the API lists it."""
        return metrics_catalogue()

    def dimensions_catalogue(self) -> list[dict[str, Any]]:
        """Return every dimension as the API lists it."""
        return dimensions_catalogue()

    def clear_cache(self) -> None:
        """Forget kept answers; needed only where the store does not tell of changes."""
        self._cache.clear()

    # --- computing -----------------------------------------------------------------------------------------

    def _compute(self, planned: Plan, now_ms: int, watermark_ms: int | None) -> _Result:
        query = planned.query
        edges = bucket_edges(
            Interval(query.start_ms, query.end_ms), query.granularity, zone_of(query.zone), self._settings.rows_max
        )
        groups, chosen, totals = self._choose(planned, now_ms)
        self._check_size(query, len(chosen.groups), len(edges) - 1)
        if totals is not None and len(edges) == 2:
            cells = totals.of(chosen.groups)
        else:
            cells = self._series(planned, edges, groups, chosen, now_ms)
        rows = _rows(query, edges, groups, chosen, cells)
        return _Result(rows, chosen, planned.explained(len(edges) - 1), watermark_ms)

    def _choose(self, planned: Plan, now_ms: int) -> tuple[Groups, Page, Cells | None]:
        """Return the groups over the whole range, the page of them, and, where it is all, their cells."""
        query = planned.query
        if not query.dimensions:
            return Groups({}, 1), Page(np.zeros(1, np.int64), None, False), None
        order = tuple(name for name, _ in ordering(query) if name in METRICS)
        light = [name for name in query.metrics if not _has_sketch(name)]
        # Everything at once where it costs nothing more; sketches and series only for the groups of the page.
        whole = query.granularity == "total" and len(light) == len(query.metrics)
        wanted = tuple(dict.fromkeys((*order, *(query.metrics if whole else ()))))
        wanted = wanted or query.metrics[:1]
        tables = self._scan(planned, (query.start_ms, query.end_ms), wanted, ())
        groups, numbers = Groups.among(tables, query.dimensions)
        cells = _cells(tables, numbers, groups.count, 1, (query.start_ms, query.end_ms), now_ms)
        values = {name: metric_order(name, cells) for name in order}
        return groups, page(query, groups, values), cells if whole else None

    def _series(self, planned: Plan, edges: tuple[int, ...], groups: Groups, chosen: Page, now_ms: int) -> Cells:
        query = planned.query
        more: tuple[Filter, ...] = ()
        if 0 < len(chosen.groups) < groups.count and len(chosen.groups) <= _FILTERED_GROUPS_MAX:
            more = tuple(
                Filter(name, tuple(dict.fromkeys(groups.words[name].take(pa.array(chosen.groups)).to_pylist())))
                for name in query.dimensions
            )
        tables = self._scan(planned, edges, query.metrics, more)
        shown = pa.table({name: groups.words[name].take(pa.array(chosen.groups)) for name in query.dimensions})
        if query.dimensions:
            found, numbers = Groups.among([shown, *tables], query.dimensions)
            place = np.full(found.count, -1, np.int64)
            place[numbers[0]] = np.arange(shown.num_rows)
            numbers = [place[n] for n in numbers[1:]]
        else:
            numbers = [np.zeros(t.num_rows, np.int64) for t in tables]
        return _cells(tables, numbers, len(chosen.groups), len(edges) - 1, edges, now_ms)

    def _scan(
        self, planned: Plan, edges: tuple[int, ...], metrics: tuple[str, ...], more: tuple[Filter, ...]
    ) -> list[pa.Table]:
        scans = (planned.scan(source, edges, metrics, more) for source in planned.sources)
        try:
            return [self._store.scan(question) for question in scans if question is not None]
        except ScanTooLargeError as error:
            raise QueryProblem("too_many_rows", 422, f"the store would merge {error}") from error
        except TimeoutError as error:
            raise QueryProblem("timeout", 504, str(error)) from error

    def _check_size(self, query: Query, groups: int, buckets: int) -> None:
        most = self._settings.rows_max
        if groups * buckets > most:
            fewer = f"a limit of {most // buckets} or less, " if query.dimensions and buckets <= most else ""
            raise QueryProblem(
                "too_many_rows",
                422,
                f"{groups:,} groups in {buckets:,} buckets are {groups * buckets:,} rows, and an answer holds "
                f"{most:,}: take {fewer}a coarser granularity or a shorter range",
            )


def _has_sketch(metric: str) -> bool:
    return any(MEASURES[m].kind in (Kind.HLL, Kind.KLL) for m in METRICS[metric].measures())


def _cells(
    tables: list[pa.Table], numbers: list[Array], groups: int, buckets: int, edges: tuple[int, ...], now_ms: int
) -> Cells:
    """Put the scans' rows into their cells: group by group, each bucket by bucket."""
    cells = Cells(groups * buckets)
    for table, number in zip(tables, numbers, strict=True):
        newest = None
        if "time_ms" in table.column_names and table.num_rows:
            time_ms = table["time_ms"].to_numpy()
            past = time_ms[time_ms <= now_ms]
            newest = int(past.max()) if len(past) else None
        last = np.tile(last_samples(edges, now_ms, newest), groups)
        cell = np.where(number < 0, -1, number * buckets + table["bucket"].to_numpy())
        cells.add(table, cell, last)
    return cells


def _rows(query: Query, edges: tuple[int, ...], groups: Groups, chosen: Page, cells: Cells) -> list[Row]:
    """Return the rows: groups in the page's order, each with its buckets in the order of time."""
    zone = zone_of(query.zone)
    times = [rfc3339(edge, zone) for edge in edges[:-1]]
    backwards = ("time", "desc") in query.order_by
    buckets = range(len(times))[::-1] if backwards else range(len(times))
    words: list[list[Any]] = []
    for name in query.dimensions:
        column = groups.words[name].take(pa.array(chosen.groups)).to_pylist()
        words.append([word == "true" for word in column] if name == "is_bot" else column)
    values = [metric_values(name, cells) for name in query.metrics]
    names = ("time", *query.dimensions, *query.metrics)
    rows: list[Row] = []
    for index in range(len(chosen.groups)):
        group = tuple(column[index] for column in words)
        for bucket in buckets:
            cell = index * len(times) + bucket
            rows.append(dict(zip(names, (times[bucket], *group, *(v[cell] for v in values)), strict=True)))
    return rows


def _meta(query: Query, result: _Result, now_ms: int, cached: bool) -> dict[str, Any]:
    zone = zone_of(query.zone)
    watermark = result.watermark_ms
    applied = now_ms if watermark is None else min(now_ms, watermark)
    return {
        "granularity": query.granularity,
        "time_zone": query.zone,
        "start": rfc3339(query.start_ms, zone),
        "end": rfc3339(query.end_ms, zone),
        "watermark": None if watermark is None else rfc3339(watermark, zone),
        "sources": ["speed"],
        "partial": query.end_ms > applied,
        "cached": cached,
        "approximate": {name: approximation(METRICS[name]) for name in query.metrics if _has_sketch(name)},
        "truncated": result.page.truncated,
        "plan": result.plan if query.explain else None,
    }
