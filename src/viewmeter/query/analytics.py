"""Questions answered: plan, scan, choose the page, merge, compute, say what stands behind the numbers.

In: a `Query`, what the caller may see, the time and the watermark. Out: an `Answer`. Promised: values are not rounded,
rows of a time series are dense, what a key may not see is as if it did not exist, an answer has at most `rows_max`
rows or is refused, and all of it is of one state of the store: an hour is answered by one layer, wherever it is closed
at that moment. Not done: any clock, any HTTP.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from viewmeter.archive.protocol import ArchiveDamagedError, ArchiveUnavailableError
from viewmeter.live.protocol import LiveScope, LiveStore
from viewmeter.model.calendar import zone_of
from viewmeter.model.catalogue import METRICS
from viewmeter.model.catalogue.expressions import Ref
from viewmeter.model.catalogue.metrics import Formula
from viewmeter.model.time import DAY_MS, HOUR_MS, MINUTE_MS, Interval, floor_to, rfc3339
from viewmeter.olap.errors import ScanTooLargeError
from viewmeter.olap.protocol import Filter, Snapshot, TimeSeriesStore, Top, Visible
from viewmeter.query import content
from viewmeter.query.answer import Answer, Rows
from viewmeter.query.cache import Cache, TracksChanges
from viewmeter.query.compute import Cells, last_samples, metric_order, metric_values
from viewmeter.query.gather import Found, Gathering, Told
from viewmeter.query.groups import Groups, Page, ordering, page
from viewmeter.query.listing import approximation, dimensions_catalogue, metrics_catalogue
from viewmeter.query.parts import Settled
from viewmeter.query.plan import Plan, is_sketch, plan
from viewmeter.query.problems import QueryProblem
from viewmeter.query.question import Query
from viewmeter.query.raw import RawEvents
from viewmeter.query.realtime import realtime_object
from viewmeter.query.settings import QuerySettings

Array = npt.NDArray[Any]
_FILTERED_GROUPS_MAX: Final = 10_000
_PREPARED_MAX: Final = 256
_PREPARED_EDGES_MAX: Final = 100_000
_PREPARED_MS: Final = 5 * MINUTE_MS
"""How a question is put to the store is kept: a dashboard asks the same again each time that events have come. It holds
as long as the same is where (`Gathering.again`), which no event changes."""


@dataclass(frozen=True)
class _Result:
    """What is computed, and may be kept."""

    rows: Rows
    page: Page
    settled: Settled
    told: Told
    watermark_ms: int | None


_Key = tuple[Query, Visible, str]
"""A question (whether or not it is to be explained), who asks, and the zone that they report in."""


class Analytics:
    """Answers for many threads at once."""

    def __init__(
        self,
        store: TimeSeriesStore,
        live: LiveStore,
        settings: QuerySettings | None = None,
        raw: RawEvents | None = None,
    ) -> None:
        self._store, self._live, self._raw = store, live, raw
        self._settings = settings or QuerySettings()
        self._minutes_from_ms = sys.maxsize  # until a first look at the store: nothing is kept by the minute
        self._changes = store if isinstance(store, TracksChanges) else None
        self._cache: Cache[_Result] = Cache(
            self._settings.cache_entries,
            self._settings.cache_rows,
            int(min(self._settings.cache_ttl_s, 300.0) * 1000),
            int(self._settings.cache_open_ttl_s * 1000),
        )
        self._prepared: Cache[Gathering] = Cache(_PREPARED_MAX, _PREPARED_EDGES_MAX, _PREPARED_MS, _PREPARED_MS)

    def query(self, query: Query, visible: Visible, now_ms: int, watermark_ms: int | None, zone: str = "UTC") -> Answer:
        """Answer a question for somebody who sees `visible`. Raises `QueryProblem`.

        `zone` is the tenant's reporting zone; of all tenants together it is UTC, whose days all have.
        """
        key, change = self._place(query, visible, zone)
        kept = self._cache.get(key, change, now_ms)
        if kept is not None:
            return self._again(query, kept, now_ms, watermark_ms)
        result = self._compute(key, now_ms, watermark_ms)
        # Samples of the present move with the clock, also when nothing arrives.
        is_open = query.end_ms > now_ms - MINUTE_MS
        self._cache.put(key, result, len(result.rows), change, now_ms, is_open=is_open)
        return _answer(query, result, now_ms, cached=False)

    def kept(
        self, query: Query, visible: Visible, now_ms: int, watermark_ms: int | None, zone: str = "UTC"
    ) -> Answer | None:
        """Return the answer if it is there already. Reads nothing and waits for nobody: for an event loop."""
        found = self._cache.get(*self._place(query, visible, zone), now_ms)
        return None if found is None else self._again(query, found, now_ms, watermark_ms)

    def _place(self, query: Query, visible: Visible, zone: str) -> tuple[_Key, int]:
        """Return the key that a question has in the cache, and the number of the state that an answer must be of."""
        change = self._changes.change_number(self._around(query)) if self._changes else 0
        return (replace(query, explain=False), visible, zone), change

    def _again(self, query: Query, result: _Result, now_ms: int, watermark_ms: int | None) -> Answer:
        if self._changes:
            result = replace(result, watermark_ms=watermark_ms)  # unchanged up to this one
        return _answer(query, result, now_ms, cached=True)

    def retention(
        self, query: Query, visible: Visible, now_ms: int, watermark_ms: int | None, zone: str = "UTC"
    ) -> dict[str, Any]:
        """Return the curve of the range and filters of a query. Raises `QueryProblem`."""
        with _told():
            return content.retention(self._store, query, visible, zone, now_ms, watermark_ms)

    def cohorts(
        self, channel_id: str | None, weeks: int, visible: Visible, now_ms: int, watermark_ms: int | None,
        zone: str = "UTC",
    ) -> dict[str, Any]:  # fmt: skip
        """Return returning viewers by the week of their first play. Raises `QueryProblem`."""
        with _told():
            return content.cohorts(self._store, channel_id, weeks, visible, zone, now_ms, watermark_ms)

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

    def _compute(self, key: _Key, now_ms: int, watermark_ms: int | None) -> _Result:
        query, visible, zone = key
        prepared = self._prepared.get(key, 0, now_ms)
        planned = prepared.plan if prepared is not None else plan(query, visible, raw=self._raw is not None)

        def work(state: Snapshot) -> _Result:
            ask = prepared.again(state) if prepared is not None else None
            if ask is None:
                settings = self._settings
                ask = Gathering(planned, state, zone, self._raw, settings.raw_events_max, settings.rows_max)
                if ask.lasts:
                    self._prepared.put(key, ask, len(ask.settled.edges), 0, now_ms, is_open=False)
            return self._of_state(planned, ask, now_ms, watermark_ms)

        with _told():
            return self._store.read(work, _scans(planned))

    def _of_state(self, planned: Plan, ask: Gathering, now_ms: int, watermark_ms: int | None) -> _Result:
        query = planned.query
        edges = ask.settled.edges
        self._minutes_from_ms = ask.ground.minutes_from_ms
        groups, chosen, totals = self._choose(planned, ask, now_ms)
        self._check_size(query, len(chosen.groups), len(edges) - 1)
        if totals is not None and len(edges) == 2:
            cells = totals.of(chosen.groups)
        else:
            cells = self._series(planned, ask, groups, chosen, now_ms)
        return _Result(_rows(query, ask.settled, groups, chosen, cells), chosen, ask.settled, ask.told, watermark_ms)

    def _around(self, query: Query) -> Interval:
        """Return the range of which a change may change the answer: rows at its ends may reach beyond them.

        By an hour at most while minutes are kept, else by a day. An answer that was made when they went lives on for
        five minutes at most.
        """
        reach = DAY_MS if query.start_ms < self._minutes_from_ms else HOUR_MS
        return Interval(floor_to(query.start_ms, reach) - reach + HOUR_MS, -floor_to(-query.end_ms, reach))

    def _choose(self, planned: Plan, ask: Gathering, now_ms: int) -> tuple[Groups, Page, Cells | None]:
        """Return the groups over the whole range, the page of them, and, where it is all, their cells."""
        query = planned.query
        if not query.dimensions:
            return Groups({}, 1), Page(np.zeros(1, np.int64), None, False), None
        order = tuple(name for name, _ in ordering(query) if name in METRICS)
        whole = _at_once(query)
        wanted = tuple(dict.fromkeys((*order, *(query.metrics if whole else ()))))
        wanted = wanted or query.metrics[:1]
        edges = (ask.settled.edges[0], ask.settled.edges[-1])
        top = _top(query)
        first = None if top is None else ask.first_groups(edges, wanted, top)
        if first is not None:
            groups, cells = Groups.of_rows(first.table, query.dimensions), Cells.of_rows(first.table)
        else:
            found = ask.ask(edges, wanted)
            groups, numbers = Groups.among([one.table for one in found], query.dimensions)
            cells = _cells(found, numbers, groups.count, edges, now_ms)
        values = {name: metric_order(name, cells) for name in order}
        return groups, page(query, groups, values, in_order=first is not None), cells if whole else None

    def _series(self, planned: Plan, ask: Gathering, groups: Groups, chosen: Page, now_ms: int) -> Cells:
        query, edges = planned.query, ask.settled.edges
        more: tuple[Filter, ...] = ()
        if 0 < len(chosen.groups) < groups.count and len(chosen.groups) <= _FILTERED_GROUPS_MAX:
            more = tuple(
                Filter(name, tuple(dict.fromkeys(groups.words[name].take(pa.array(chosen.groups)).to_pylist())))
                for name in query.dimensions
            )
        found = ask.ask(edges, query.metrics, more)
        tables = [one.table for one in found]
        shown = pa.table({name: groups.words[name].take(pa.array(chosen.groups)) for name in query.dimensions})
        if query.dimensions:
            among, numbers = Groups.among([shown, *tables], query.dimensions)
            place = np.full(among.count, -1, np.int64)
            place[numbers[0]] = np.arange(shown.num_rows)
            numbers = [place[n] for n in numbers[1:]]
        else:
            numbers = [np.zeros(t.num_rows, np.int64) for t in tables]
        return _cells(found, numbers, len(chosen.groups), edges, now_ms)

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


@contextmanager
def _told() -> Iterator[None]:
    """Say in the API's words what store and archive refuse: too much to merge, too long, not to be read."""
    try:
        yield
    except ScanTooLargeError as error:
        raise QueryProblem("too_many_rows", 422, f"the store would merge {error}") from error
    except TimeoutError as error:
        raise QueryProblem("timeout", 504, str(error)) from error
    except (ArchiveDamagedError, ArchiveUnavailableError) as error:
        raise QueryProblem("not_ready", 503, f"raw events cannot be read now: {error}") from error


def _at_once(query: Query) -> bool:
    """Say whether to ask everything of all groups at once, where it costs nothing more than to find the page.

    Sketches and series are asked for the groups of the page only.
    """
    return query.granularity == "total" and not any(is_sketch(name) for name in query.metrics)


def _top(query: Query) -> Top | None:
    """Return which groups are on the first page, where the store can tell: the order is that of one sum."""
    (name, way), *others = ordering(query)
    metric = METRICS.get(name)
    if query.cursor or others or not isinstance(metric, Formula) or not isinstance(metric.expr, Ref):
        return None
    return Top(metric.expr.name, way == "desc", query.limit + 1)  # one more says that there is another page


def _scans(planned: Plan) -> int:
    """Return how many scans a plan takes, or two where it is not known to be one."""
    query = planned.query
    return 1 if planned.alone and (not query.dimensions or _at_once(query)) else 2


def _cells(found: list[Found], numbers: list[Array], groups: int, edges: tuple[int, ...], now_ms: int) -> Cells:
    """Put the scans' rows into their cells: group by group, each bucket by bucket."""
    buckets = len(edges) - 1
    cells = Cells(groups * buckets)
    for one, number in zip(found, numbers, strict=True):
        table = one.table
        cell = np.where(number < 0, -1, number * buckets + table["bucket"].to_numpy())
        if one.role == "samples":
            time_ms = table["time_ms"].to_numpy()
            past = time_ms[time_ms <= now_ms]
            newest = int(past.max()) if len(past) else None
            cells.add_samples(table, cell, np.tile(last_samples(edges, now_ms, newest), groups))
        elif one.role in ("largest", "last"):
            cells.add_peaks(table, cell, one.role)
        elif one.role == "exact":
            cells.add_counts(table["unique_viewers_exact"].to_numpy(), cell)
        else:
            cells.add(table, cell)
    return cells


_stamp = lru_cache(maxsize=16_384)(rfc3339)
"""The start of a bucket as text: the same ones are asked for again and again, and to write one takes 1.5 us."""


def _rows(query: Query, settled: Settled, groups: Groups, chosen: Page, cells: Cells) -> Rows:
    """Return the rows: groups in the page's order, each with its buckets in the order of time."""
    zone = zone_of(settled.zone)
    times = [_stamp(edge, zone) for edge in settled.edges[:-1]]
    words: list[list[Any]] = []
    for name in query.dimensions:
        column = groups.words[name].take(pa.array(chosen.groups)).to_pylist()
        words.append([word == "true" for word in column] if name == "is_bot" else column)
    values = [metric_values(name, cells) for name in query.metrics]
    names = ("time", *query.dimensions, *query.metrics)
    many = len(times)
    if ("time", "desc") in query.order_by:
        times.reverse()
        values = [[v for at in range(0, len(column), many) for v in column[at : at + many][::-1]] for column in values]
    spread = [[word for word in column for _ in times] for column in words]
    return Rows(names, [times * len(chosen.groups), *spread, *values])


def _answer(query: Query, result: _Result, now_ms: int, *, cached: bool) -> Answer:
    return Answer(
        rows=result.rows,
        meta=_meta(query, result, now_ms, cached),
        next_cursor=result.page.next_cursor,
        dimensions=query.dimensions,
        metrics=query.metrics,
    )


def _meta(query: Query, result: _Result, now_ms: int, cached: bool) -> dict[str, Any]:
    zone = zone_of(result.settled.zone)
    watermark, closed_until = result.watermark_ms, result.told.closed_until_ms
    applied = now_ms if watermark is None else min(now_ms, watermark)
    return {
        "granularity": query.granularity,
        "time_zone": result.settled.zone,
        "start": _stamp(result.settled.edges[0], zone),
        "end": _stamp(result.settled.edges[-1], zone),
        "watermark": None if watermark is None else rfc3339(watermark, zone),
        "sources": [*result.told.layers],
        "partial": query.end_ms > applied or closed_until is not None,
        "closed_until": None if closed_until is None else rfc3339(closed_until, zone),
        "by_utc_hours": [*result.told.by_utc_hours],
        "cached": cached,
        "approximate": {name: approximation(METRICS[name]) for name in query.metrics if is_sketch(name)},
        "truncated": result.page.truncated,
        "plan": result.told.explained if query.explain else None,
    }
