"""Where in a video views played, and who came back: curves and cohorts, which have addresses of their own.

In: a question of `parse` (range, zone, filters) or a number of weeks, and what the caller may see. Out: the objects
that the API answers with. Promised: what a key may see enters through `Visible` alone, and all of an answer is of one
state of the store. Both are of closed hours; `meta.closed_until` says up to when that is all of the range.
"""

from __future__ import annotations

from typing import Any, Final

import numpy as np

from viewmeter.model.calendar import period_of, zone_of
from viewmeter.model.catalogue import CURVES, ROLLUPS
from viewmeter.model.time import DAY_MS, Interval, rfc3339
from viewmeter.olap.protocol import Filter, Part, Scan, Snapshot, TimeSeriesStore, Visible
from viewmeter.query.parts import Ground, Kept
from viewmeter.query.problems import QueryProblem
from viewmeter.query.question import Query

WEEKS_MAX: Final = 52
_PERCENTS: Final = 100
_VIEWS: Final = ("content_views", "content_ms")


def retention(
    store: TimeSeriesStore, query: Query, visible: Visible, zone: str, now_ms: int, watermark_ms: int | None
) -> dict[str, Any]:
    """Return the curve: 100 buckets, each with the share of measured views that played there. Raises `QueryProblem`.

    A view that sees a place again counts there again, so a share may be more than 1; null over no view.
    """
    filters = query.filters
    if not any(f.dimension == "is_bot" for f in filters):
        filters = (*filters, Filter("is_bot", ("false",)))
    views = _smallest({f.dimension for f in filters})
    kept = [Kept.of(ROLLUPS["retention"]), Kept.of(ROLLUPS[views])]
    with store.snapshot() as snapshot:
        ground = _ground(snapshot, visible, zone, query)
        settled = ground.settle(Interval(query.start_ms, query.end_ms), "total", query.zone, kept, 1)

        def scan(rollup: str, measures: tuple[str, ...], dimensions: tuple[str, ...] = ()) -> Any:
            parts = [p for p in ground.parts(settled.edges, Kept.of(ROLLUPS[rollup])) if p.table != "speed"]
            return _scan(snapshot, Scan(rollup, measures, settled.edges, visible, dimensions, filters), parts)

        deltas = scan("retention", ("retention_delta",), ("percent",))
        sums = scan(views, _VIEWS)
        known_until = ground.known_until(Interval(*settled.edges))
    watched = np.zeros(_PERCENTS, np.int64)
    if deltas is not None:
        np.add.at(watched, deltas["percent"].to_numpy().astype(np.int64), deltas["retention_delta"].to_numpy())
    content_views, content_ms = (0 if sums is None else int(sums[name].to_numpy().sum()) for name in _VIEWS)
    length_s = content_ms / content_views / 1000 if content_views else None
    return {
        "buckets": [
            _bucket(i, views_there, content_views, length_s) for i, views_there in enumerate(_running(watched))
        ],
        "views": content_views,
        "meta": {
            **_meta(Interval(*settled.edges), settled.zone, watermark_ms, now_ms, known_until),
            "formula": CURVES["retention"].formula(),
        },
    }


def _running(deltas: Any) -> list[int]:
    found: list[int] = np.cumsum(deltas).tolist()
    return found


def _bucket(percent: int, there: int, views: int, length_s: float | None) -> dict[str, Any]:
    from_ratio = percent / _PERCENTS
    return {
        "from_ratio": from_ratio,
        "viewers_ratio": there / views if views else None,
        "seconds": None if length_s is None else from_ratio * length_s,
        "views": there,
    }


def cohorts(
    store: TimeSeriesStore, channel_id: str | None, weeks: int, visible: Visible, zone: str, now_ms: int,
    watermark_ms: int | None,
) -> dict[str, Any]:  # fmt: skip
    """Return viewers by the week of their first play, and how many of them came again in each later week.

    Weeks are the reporting zone's; the last one runs. A viewer is known again by the site's own `viewer_id`.
    """
    edges = _weeks(now_ms, weeks, zone)
    filters = () if channel_id is None else (Filter("channel_id", (channel_id,)),)
    whole = Interval(edges[0], edges[-1])
    with store.snapshot() as snapshot:
        found = snapshot.cohorts(Scan("channel", (), edges, visible, (), filters)).to_pylist()
        ground = Ground(snapshot.coverage(zone, visible.tenant_id), zone)
        known_until = ground.known_until(Interval(whole.start_ms, now_ms))
    counts = {(row["cohort"], row["later"]): row["viewers"] for row in found}
    clock = zone_of(zone)
    return {
        "cohorts": [
            {
                "week": rfc3339(edges[cohort], clock),
                "viewers": counts.get((cohort, 0), 0),
                "returned": [counts.get((cohort, later), 0) for later in range(1, weeks - cohort)],
            }
            for cohort in range(weeks)
        ],
        "meta": _meta(whole, zone, watermark_ms, now_ms, known_until),
    }


def _weeks(now_ms: int, weeks: int, zone: str) -> tuple[int, ...]:
    """Return the starts of the last weeks, the one that runs among them, and its end."""
    last = period_of(now_ms, "week", zone_of(zone))
    edges = [last.end_ms, last.start_ms]
    while len(edges) <= weeks:
        edges.append(period_of(edges[-1] - DAY_MS, "week", zone_of(zone)).start_ms)
    return tuple(reversed(edges))


def _ground(snapshot: Snapshot, visible: Visible, zone: str, query: Query) -> Ground:
    ground = Ground(snapshot.coverage(zone, visible.tenant_id), zone)
    if zone == "UTC" or ground.has_days(Interval(query.start_ms, query.end_ms)):
        return ground
    return Ground(snapshot.coverage("UTC", visible.tenant_id), "UTC")


def _smallest(needed: set[str]) -> str:
    """Return the rollup that counts the views. Raises `QueryProblem` for what the curve is not kept by."""
    known = {*ROLLUPS["retention"].dimensions} - {"percent"}
    if missing := needed - known:
        detail = (
            f"filters: retention is kept by {', '.join(sorted(known))}, not by {', '.join(sorted(missing))}: "
            "leave that filter out"
        )
        raise QueryProblem("not_covered", 422, detail, [{"field": "filters", "code": "not_covered", "detail": detail}])
    return "video" if needed <= {*ROLLUPS["video"].dimensions} else "cross"


def _scan(snapshot: Snapshot, question: Scan, parts: list[Part]) -> Any:
    """Return the rows; None where nothing is kept of the range. Edges are moved to whole hours, as parts are."""
    if not parts:
        return None
    edges = (parts[0].interval.start_ms, parts[-1].interval.end_ms)
    return snapshot.scan(
        Scan(
            question.rollup, question.measures, edges, question.visible, question.dimensions, question.filters,
            tuple(parts),
        )
    )  # fmt: skip


def _meta(
    interval: Interval, zone: str, watermark_ms: int | None, now_ms: int, known_until: int | None
) -> dict[str, Any]:
    clock = zone_of(zone)
    applied = now_ms if watermark_ms is None else min(now_ms, watermark_ms)
    return {
        "time_zone": zone,
        "start": rfc3339(interval.start_ms, clock),
        "end": rfc3339(interval.end_ms, clock),
        "watermark": None if watermark_ms is None else rfc3339(watermark_ms, clock),
        "sources": ["batch"],
        "partial": interval.end_ms > applied or known_until is not None,
        "closed_until": None if known_until is None else rfc3339(known_until, clock),
    }
