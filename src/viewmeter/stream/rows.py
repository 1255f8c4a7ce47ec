"""Increments summed into rollup rows: what the speed layer appends to the store, and what the live store adds.

In: the core and the deltas of one micro-batch. Out: one table a rollup. Only three passes go over all increments
(`audience`, `device`, `delivery`) and one over `video` by 10 s; minutes, channels and the platform sum up that one.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from viewmeter.model.catalogue.measures import ADDITIVE, BITRATE_WORDS, bitrate_bucket_codes
from viewmeter.model.events import UNKNOWN
from viewmeter.model.increments import SAMPLE_MS
from viewmeter.model.summing import Sketched, Summed, sum_again, sum_by, used_rows
from viewmeter.model.time import MINUTE_MS
from viewmeter.stream.core import Core, Deltas
from viewmeter.stream.groups import GROUPED

Array = npt.NDArray[Any]

_BUCKET_NAMES: Final = np.array(BITRATE_WORDS, object)
_NAMES: Final = tuple(measure.name for measure in ADDITIVE)


def bitrate_bucket(kbps: int) -> str:
    """Return the `bitrate_bucket` of a bitrate; 0 is unknown."""
    return BITRATE_WORDS[int(bitrate_bucket_codes(np.array([kbps]))[0])]


def rollup_rows(core: Core, deltas: Deltas) -> tuple[dict[str, pa.Table], pa.Table]:
    """Return (rollup -> rows to append, the live counters by 10 s and video). Empty rollups are left out."""
    out: dict[str, pa.Table] = {}
    inc = deltas.increments
    used = used_rows(inc.amounts, len(inc.view))
    place = np.cumsum(used) - 1
    amounts = {name: (place[rows], values) for name, (rows, values) in inc.amounts.items()}
    view, instant = inc.view[used], inc.instant[used]
    sketched = Sketched.of(amounts, core.viewer[view])

    by_video = sum_by(instant - instant % SAMPLE_MS, core.group["video"][view], amounts)
    live = _table(core, "video", by_video, None)
    if len(view):
        minute = instant - instant % MINUTE_MS
        for name in ("audience", "device"):
            summed = sum_by(minute, core.group[name][view], amounts)
            out[name] = _table(core, name, summed, sketched.at(summed.row_of))
        out["delivery"] = _delivery(core, minute, view, inc.bitrate_kbps[used], inc.cdn[used], amounts, sketched)
        _sum_up(core, by_video, sketched.at(by_video.row_of), out)
    concurrency = _concurrency(core, deltas)
    if concurrency.num_rows:
        out["concurrency"] = concurrency
    return out, live


def _table(core: Core, name: str, summed: Summed, sketched: Sketched | None) -> pa.Table:
    groups = core.groups[name]
    columns: dict[str, Any] = {"time_ms": summed.time_ms}
    columns |= {key: groups.words(key, summed.group) for key in GROUPED[name]}
    columns |= _measures(summed)
    if sketched is not None:
        columns |= sketched.columns(len(summed.time_ms))
    return pa.table(columns)


def _measures(summed: Summed) -> dict[str, Array]:
    return {name: summed.sums[name] for name in _NAMES if name in summed.sums}


def _sum_up(core: Core, by_video: Summed, sketched: Sketched, out: dict[str, pa.Table]) -> None:
    """Sum 10 s of videos to minutes of videos, and those to channels and the platform."""
    minute = by_video.time_ms - by_video.time_ms % MINUTE_MS
    videos = sum_again(minute, by_video.group, by_video)
    at_videos = sketched.at(videos.row_of)
    out["video"] = _table(core, "video", videos, at_videos)
    for name, parent in core.parents.items():
        above = sum_again(videos.time_ms, parent[videos.group], videos)
        out[name] = _table(core, name, above, at_videos.at(above.row_of))


def _delivery(
    core: Core,
    minute: Array,
    view: Array,
    kbps: Array,
    cdn: Array,
    amounts: Mapping[str, tuple[Array, Array]],
    sketched: Sketched,
) -> pa.Table:
    """Sum by what the view has (player, network, stream type) and what the interval had (cdn, bitrate)."""
    buckets, cdns = len(_BUCKET_NAMES), len(core.cdns) + 1
    group = (core.group["delivery"][view].astype(np.int64) * cdns + cdn + 1) * buckets + bitrate_bucket_codes(kbps)
    distinct, group = np.unique(group, return_inverse=True)
    summed = sum_by(minute, group, amounts)
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
    views = sum_by(at, video[view], {"concurrent_views": (np.arange(len(at)), sign)})
    viewers = sum_by(
        viewer_at,
        video[deltas.presence.view[run]],
        {"concurrent_viewers": (np.arange(len(viewer_at)), viewer_sign)},
    )
    of_views, of_viewers = np.arange(len(views.group)), np.arange(len(viewers.group)) + len(views.group)
    summed = sum_by(
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
