"""Increments summed into rollup rows: what the speed layer appends to the store, and what the live store adds.

In: the core and the deltas of one micro-batch. Out: one table a rollup. Only three passes go over all increments
(`audience`, `device`, `delivery`) and one over `video` by 10 s; minutes, channels and the platform sum up that one.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from viewmeter.model.catalogue.measures import ADDITIVE, BITRATE_BUCKETS, bitrate_bucket_codes
from viewmeter.model.events import UNKNOWN
from viewmeter.model.increments import SAMPLE_MS
from viewmeter.model.sketches import coupons
from viewmeter.model.time import MINUTE_MS
from viewmeter.stream.core import Core, Deltas
from viewmeter.stream.groups import GROUPED

Array = npt.NDArray[Any]

_BUCKET_NAMES: Final = np.array([UNKNOWN, *BITRATE_BUCKETS], object)
_NAMES: Final = tuple(measure.name for measure in ADDITIVE)


def bitrate_bucket(kbps: int) -> str:
    """Return the `bitrate_bucket` of a bitrate; 0 is unknown."""
    return str(_BUCKET_NAMES[bitrate_bucket_codes(np.array([kbps]))[0]])


@dataclass(frozen=True)
class Summed:
    """Rows of one grouping: when, which group, and the sums."""

    time_ms: Array
    group: Array
    sums: dict[str, Array]
    row_of: Array  # of each summed row: the row it went into


def rollup_rows(core: Core, deltas: Deltas) -> tuple[dict[str, pa.Table], pa.Table]:
    """Return (rollup -> rows to append, the live counters by 10 s and video). Empty rollups are left out."""
    out: dict[str, pa.Table] = {}
    inc = deltas.increments
    used = _used_rows(inc.amounts, len(inc.view))
    place = np.cumsum(used) - 1
    amounts = {name: (place[rows], values) for name, (rows, values) in inc.amounts.items()}
    view, instant = inc.view[used], inc.instant[used]
    sketched = _Sketched.of(amounts, core.viewer[view])

    by_video = _sum(instant - instant % SAMPLE_MS, core.group["video"][view], amounts)
    live = _table(core, "video", by_video, None)
    if len(view):
        minute = instant - instant % MINUTE_MS
        for name in ("audience", "device"):
            summed = _sum(minute, core.group[name][view], amounts)
            out[name] = _table(core, name, summed, sketched.at(summed.row_of))
        out["delivery"] = _delivery(core, minute, view, inc.bitrate_kbps[used], inc.cdn[used], amounts, sketched)
        _sum_up(core, by_video, sketched.at(by_video.row_of), out)
    concurrency = _concurrency(core, deltas)
    if concurrency.num_rows:
        out["concurrency"] = concurrency
    return out, live


def _used_rows(amounts: Mapping[str, tuple[Array, Array]], count: int) -> Array:
    used = np.zeros(count, bool)
    for rows, _ in amounts.values():
        used[rows] = True
    return used


@dataclass(frozen=True)
class _Sketched:
    """What goes into sketches: where, and which values."""

    viewers: tuple[Array, Array]  # rows, HLL coupons
    startups: tuple[Array, Array]  # rows, ms

    @classmethod
    def of(cls, amounts: Mapping[str, tuple[Array, Array]], viewer: Array) -> _Sketched:
        none = (np.zeros(0, np.int64), np.zeros(0, np.int64))
        plays = amounts.get("plays", none)[0]
        rows, values = amounts.get("startup_ms", none)
        return cls((plays, coupons(viewer[plays])), (rows, values.astype(np.float64)))

    def at(self, row_of: Array) -> _Sketched:
        """Return the same, of summed rows."""
        return _Sketched((row_of[self.viewers[0]], self.viewers[1]), (row_of[self.startups[0]], self.startups[1]))

    def columns(self, count: int) -> dict[str, pa.Array]:
        """Return the list columns of a table of `count` rows."""
        return {
            "viewers_hll": _lists(*self.viewers, count, pa.uint32(), distinct=True),
            "startup_kll": _lists(*self.startups, count, pa.float64(), distinct=False),
        }


def _lists(rows: Array, values: Array, count: int, kind: pa.DataType, *, distinct: bool) -> pa.Array:
    """Return one list a row; `distinct` drops equal values of a row (coupons are a set)."""
    order = np.lexsort((values, rows))
    rows, values = rows[order], values[order]
    if distinct and len(rows):
        keep = np.ones(len(rows), bool)
        keep[1:] = (rows[1:] != rows[:-1]) | (values[1:] != values[:-1])
        rows, values = rows[keep], values[keep]
    offsets = np.searchsorted(rows, np.arange(count + 1)).astype(np.int32)
    return pa.ListArray.from_arrays(pa.array(offsets), pa.array(values, kind))


def _sum(time_ms: Array, group: Array, amounts: Mapping[str, tuple[Array, Array]]) -> Summed:
    """Sum by (time, group)."""
    if not len(time_ms):
        return Summed(time_ms, group, {}, np.zeros(0, np.int64))
    steps, step = _steps(time_ms)
    width = int(group.max()) + 1
    key = step * width + group
    span = width * len(steps)
    if span <= 4 * len(key) + 4096:  # dense enough to count in place instead of sorting
        present = np.zeros(span, bool)
        present[key] = True
        keys = np.flatnonzero(present)
        number = np.cumsum(present) - 1
        row_of = number[key]
    else:
        keys, row_of = np.unique(key, return_inverse=True)
    count = len(keys)
    sums = {
        name: np.bincount(row_of[rows], weights=values, minlength=count).astype(np.int64)
        for name, (rows, values) in amounts.items()
    }
    return Summed(steps[keys // width], (keys % width).astype(np.int64), sums, row_of)


def _steps(time_ms: Array) -> tuple[Array, Array]:
    """Return the distinct times, or a dense range that holds them, and each row's place in it."""
    low = int(time_ms.min())
    span = (int(time_ms.max()) - low) // SAMPLE_MS + 1
    if span > 1_000:  # a replay of hours
        return np.unique(time_ms, return_inverse=True)
    return low + SAMPLE_MS * np.arange(span), (time_ms - low) // SAMPLE_MS


def _table(core: Core, name: str, summed: Summed, sketched: _Sketched | None) -> pa.Table:
    groups = core.groups[name]
    columns: dict[str, Any] = {"time_ms": summed.time_ms}
    columns |= {key: groups.words(key, summed.group) for key in GROUPED[name]}
    columns |= _measures(summed)
    if sketched is not None:
        columns |= sketched.columns(len(summed.time_ms))
    return pa.table(columns)


def _measures(summed: Summed) -> dict[str, Array]:
    return {name: summed.sums[name] for name in _NAMES if name in summed.sums}


def _sum_up(core: Core, by_video: Summed, sketched: _Sketched, out: dict[str, pa.Table]) -> None:
    """Sum 10 s of videos to minutes of videos, and those to channels and the platform."""
    minute = by_video.time_ms - by_video.time_ms % MINUTE_MS
    videos = _again(minute, by_video.group, by_video)
    at_videos = sketched.at(videos.row_of)
    out["video"] = _table(core, "video", videos, at_videos)
    for name, parent in core.parents.items():
        above = _again(videos.time_ms, parent[videos.group], videos)
        out[name] = _table(core, name, above, at_videos.at(above.row_of))


def _again(time_ms: Array, group: Array, summed: Summed) -> Summed:
    everywhere = np.arange(len(time_ms))
    return _sum(time_ms, group, {name: (everywhere, values) for name, values in summed.sums.items()})


def _delivery(
    core: Core,
    minute: Array,
    view: Array,
    kbps: Array,
    cdn: Array,
    amounts: Mapping[str, tuple[Array, Array]],
    sketched: _Sketched,
) -> pa.Table:
    """Sum by what the view has (player, network, stream type) and what the interval had (cdn, bitrate)."""
    buckets, cdns = len(_BUCKET_NAMES), len(core.cdns) + 1
    group = (core.group["delivery"][view].astype(np.int64) * cdns + cdn + 1) * buckets + bitrate_bucket_codes(kbps)
    distinct, group = np.unique(group, return_inverse=True)
    summed = _sum(minute, group, amounts)
    made = distinct[summed.group]
    words = core.groups["delivery"]
    of_view = made // buckets // cdns
    cdn_names = np.array([UNKNOWN, *core.cdns], object)
    return pa.table(
        {
            "time_ms": summed.time_ms,
            **{key: words.words(key, of_view) for key in GROUPED["delivery"]},
            "cdn": pa.array(cdn_names[made // buckets % cdns], pa.string()),
            "bitrate_bucket": pa.array(_BUCKET_NAMES[made % buckets], pa.string()),
            **_measures(summed),
            **sketched.at(summed.row_of).columns(len(summed.time_ms)),
        }
    )


def _concurrency(core: Core, deltas: Deltas) -> pa.Table:
    """Sum the samples of who is present by video."""
    view, at, sign = deltas.presence.samples()
    run, viewer_at, viewer_sign = deltas.viewer_samples
    video = core.group["video"]
    views = _sum(at, video[view], {"concurrent_views": (np.arange(len(at)), sign)})
    viewers = _sum(
        viewer_at,
        video[deltas.presence.view[run]],
        {"concurrent_viewers": (np.arange(len(viewer_at)), viewer_sign)},
    )
    of_views, of_viewers = np.arange(len(views.group)), np.arange(len(viewers.group)) + len(views.group)
    summed = _sum(
        np.concatenate([views.time_ms, viewers.time_ms]),
        np.concatenate([views.group, viewers.group]),
        {name: (of_views, sums) for name, sums in views.sums.items()}
        | {name: (of_viewers, sums) for name, sums in viewers.sums.items()},
    )
    groups = core.groups["video"]
    return pa.table(
        {
            "time_ms": summed.time_ms,
            **{key: groups.words(key, summed.group) for key in GROUPED["video"]},
            **summed.sums,
        }
    )
