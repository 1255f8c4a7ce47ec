"""The demo's past: `testing.history` as rows of every rollup, ready for `store.load`.

The generator gives sums by video and by three groupings; what it leaves out is made here: channel and platform rows
(sums over videos), and the sketches' inputs (a viewer a play, dealt to the rows in the order of their plays, so that
every rollup counts the same people).
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from viewmeter.model.catalogue import SPEED_ROLLUPS
from viewmeter.model.sketches import coupons
from viewmeter.testing.history import Columns, History, history
from viewmeter.testing.oracle_metrics import MEASURES

SUMMED: Final = {"channel": ("channel_id",), "platform": ()}
STARTUPS_A_ROW: Final = 8
"""Startup times that are made up a row: enough for plausible quantiles, and few enough for a quick start."""

Array = npt.NDArray[Any]


def tables(setting: History) -> Iterator[dict[str, pa.Table]]:
    """Yield one day after the other as rollup name to rows."""
    for number, day in enumerate(history(setting)):
        rng = np.random.default_rng((setting.seed, number, 1))
        videos = day.pop("video")
        hashes = videos.pop("viewer_hashes")
        order = _by_video(videos)
        videos = {name: values[order] for name, values in videos.items()}
        flat = coupons(np.concatenate([np.asarray(hashes[i], np.int64) for i in order]))
        out = {name: _summed(videos, keys, flat, rng) for name, keys in SUMMED.items()}
        out["video"] = _table("video", videos, flat, rng)
        for name, columns in day.items():
            ordered = _by_video(columns)
            arranged = {column: values[ordered] for column, values in columns.items()}
            out[name] = _table(name, arranged, None if name == "concurrency" else flat, rng)
        yield out


def _by_video(columns: Columns) -> Array:
    """Return the order by time and video; rows of one video keep theirs."""
    _, video = np.unique(columns["video_id"].astype(str), return_inverse=True)
    return np.lexsort((video, columns["time_ms"]))


def _summed(videos: Columns, keys: tuple[str, ...], flat: Array, rng: np.random.Generator) -> pa.Table:
    """Return the rows of a rollup that drops the video."""
    ids = [videos["time_ms"], *(np.unique(videos[key].astype(str), return_inverse=True)[1] for key in keys)]
    order = np.lexsort(tuple(reversed(ids)))
    stacked = np.stack([column[order] for column in ids])
    first = np.flatnonzero(np.r_[True, (stacked[:, 1:] != stacked[:, :-1]).any(axis=0)])
    columns: Columns = {name: videos[name][order][first] for name in ("time_ms", "tenant_id", "is_bot", *keys)}
    for measure in MEASURES:
        columns[measure] = np.add.reduceat(videos[measure][order], first)
    # The viewers of the videos, in the new order of the videos.
    ends = np.cumsum(videos["plays"])
    spans = [flat[end - plays : end] for end, plays in zip(ends[order], videos["plays"][order], strict=True)]
    return _table("channel" if keys else "platform", columns, np.concatenate(spans), rng)


def _table(rollup: str, columns: Columns, flat: Array | None, rng: np.random.Generator) -> pa.Table:
    known = {
        *SPEED_ROLLUPS[rollup].keys,
        "time_ms",
        *(measure.name for measure in SPEED_ROLLUPS[rollup].speed_measures),
    }
    arrays: dict[str, Any] = {name: pa.array(values) for name, values in columns.items() if name in known}
    if flat is not None:
        arrays["viewers_hll"] = _lists(columns["plays"], pa.array(flat, pa.uint32()))
        made = np.minimum(columns["startups"], STARTUPS_A_ROW)
        mean = np.repeat(columns["startup_ms"] / np.maximum(columns["startups"], 1), made)
        arrays["startup_kll"] = _lists(made, pa.array(np.round(mean * rng.lognormal(-0.08, 0.4, len(mean)))))
    return pa.table(arrays)


def _lists(lengths: Array, values: pa.Array) -> pa.Array:
    offsets = np.concatenate(([0], np.cumsum(lengths))).astype(np.int32)
    return pa.ListArray.from_arrays(pa.array(offsets), values)
