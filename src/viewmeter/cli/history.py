"""The demo's past: `testing.history` as whole hours of every rollup, ready for `store.put_history`.

The generator gives sums by video and by three groupings; what it leaves out is made here: channel and platform rows
(sums over videos), the sketches' inputs (a viewer a play, dealt to the rows in the order of their plays, so that every
rollup counts the same people), what the batch layer knows of whole views, peaks, and where in the content views played.
Not made: `cross`, so filters that mix place and device find the live hours only.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from viewmeter.model.catalogue import ROLLUPS, SPEED_ROLLUPS
from viewmeter.model.sketches import coupons
from viewmeter.model.time import DAY_MS, HOUR_MS, Interval
from viewmeter.testing.history import LONGEST_MS, PLAYED_SHARE, Columns, History, history, lengths_ms
from viewmeter.testing.oracle_metrics import MEASURES

SUMMED: Final = {"channel": ("channel_id",), "platform": ()}
VALUES_A_ROW: Final = 8
"""Startup and watch times that are made up a row: enough for plausible quantiles, and few enough for a quick start."""
ENDS: Final = (
    *("ended_views", "measured_views", "watched_views", "view_rebuffer_ratio_e9"),
    *("content_views", "content_watched_ms", "content_ms"),
)
_WORDS: Final = ("country", "device_type", "os", "browser", "player", "stream_type")

Array = npt.NDArray[Any]


@dataclass(frozen=True)
class Day:
    """Rows of whole hours (of a day, or of several), and who played in each."""

    interval: Interval
    rows: dict[str, pa.Table]
    viewers: pa.Table

    @staticmethod
    def joined(days: Sequence[Day]) -> Day:
        """Return days that follow each other as one."""
        interval = Interval(days[0].interval.start_ms, days[-1].interval.end_ms)
        rows = {name: pa.concat_tables([day.rows[name] for day in days]) for name in days[0].rows}
        return Day(interval, rows, pa.concat_tables([day.viewers for day in days]))

    def split(self, at_ms: int) -> tuple[Day, Day]:
        """Return what lies before an hour, and what from it on."""
        if at_ms == self.interval.end_ms:
            return self, Day(
                Interval(at_ms, at_ms), {n: t.slice(0, 0) for n, t in self.rows.items()}, self.viewers.slice(0, 0)
            )
        first, last = Interval(self.interval.start_ms, at_ms), Interval(at_ms, self.interval.end_ms)
        return self._inside(first), self._inside(last)

    def speed_rows(self) -> dict[str, pa.Table]:
        """Return the rows as the speed layer would have had them."""
        made = {}
        for name, rollup in SPEED_ROLLUPS.items():
            known = {"time_ms", *rollup.keys, *(m.name for m in rollup.speed_measures)}
            made[name] = self.rows[name].select([n for n in self.rows[name].column_names if n in known])
        return made

    def _inside(self, interval: Interval) -> Day:
        rows = {name: _between(table, "time_ms", interval) for name, table in self.rows.items()}
        return Day(interval, rows, _between(self.viewers, "hour_ms", interval))


def days(setting: History) -> Iterator[Day]:
    """Yield one day after the other."""
    lengths = lengths_ms(setting)
    for number, day in enumerate(history(setting)):
        rng = np.random.default_rng((setting.seed, number, 1))
        start_ms = setting.start_ms + (setting.first_day + number) * DAY_MS
        videos = day.pop("video")
        hashes = videos.pop("viewer_hashes")
        order = _by_video(videos)
        videos = _with_ends({name: values[order] for name, values in videos.items()}, lengths)
        people = np.concatenate([np.zeros(0, np.int64), *(np.asarray(hashes[i], np.int64) for i in order)])
        flat = coupons(people)
        out = {name: _summed(videos, keys, flat, rng) for name, keys in SUMMED.items()}
        out["video"] = _table("video", videos, flat, rng)
        for name, columns in day.items():
            ordered = _by_video(columns)
            arranged = {column: values[ordered] for column, values in columns.items()}
            if name == "concurrency":
                out[name] = _table(name, arranged, None, rng)
                out["peaks"] = _peaks(arranged)
            else:
                out[name] = _table(name, _with_ends(arranged, lengths), flat, rng)
        out["retention"] = _retention(videos, lengths, start_ms + DAY_MS - HOUR_MS)
        yield Day(Interval(start_ms, start_ms + DAY_MS), out, _viewers(videos, people))


def _between(table: pa.Table, column: str, interval: Interval) -> pa.Table:
    time = table[column]
    kept: pa.Table = table.filter(pc.and_(pc.greater_equal(time, interval.start_ms), pc.less(time, interval.end_ms)))
    return kept


def _by_video(columns: Columns) -> Array:
    """Return the order by time and video; rows of one video keep theirs."""
    _, video = np.unique(columns["video_id"].astype(str), return_inverse=True)
    return np.lexsort((video, columns["time_ms"]))


def _with_ends(columns: Columns, lengths: dict[str, int]) -> Columns:
    """Add what the batch layer knows of whole views: so much a play of each video, so that every rollup agrees."""
    names, video = np.unique(columns["video_id"].astype(str), return_inverse=True)
    length = np.array([lengths[name] for name in names], np.int64)
    watched = np.array([0.25 + 0.35 * (number * 0.618 % 1) for number in range(len(names))])
    typical = np.round(PLAYED_SHARE * np.minimum(np.where(length > 0, length, 3 * LONGEST_MS), LONGEST_MS))
    plays = columns["plays"]
    return columns | {
        "ended_views": columns["attempts"],
        "measured_views": plays,
        "watched_views": plays,
        "view_rebuffer_ratio_e9": columns["rebuffered_ms"] * (10**9 / typical).astype(np.int64)[video],
        "content_views": plays * (length > 0)[video],
        "content_watched_ms": plays * np.round(length * watched).astype(np.int64)[video],
        "content_ms": plays * length[video],
    }


def _summed(videos: Columns, keys: tuple[str, ...], flat: Array, rng: np.random.Generator) -> pa.Table:
    """Return the rows of a rollup that drops the video."""
    ids = [videos["time_ms"], *(np.unique(videos[key].astype(str), return_inverse=True)[1] for key in keys)]
    order = np.lexsort(tuple(reversed(ids)))
    stacked = np.stack([column[order] for column in ids])
    first = np.flatnonzero(np.r_[True, (stacked[:, 1:] != stacked[:, :-1]).any(axis=0)])
    columns: Columns = {name: videos[name][order][first] for name in ("time_ms", "tenant_id", "is_bot", *keys)}
    for measure in (*MEASURES, *ENDS):
        columns[measure] = np.add.reduceat(videos[measure][order], first)
    # The viewers of the videos, in the new order of the videos.
    ends = np.cumsum(videos["plays"])
    spans = [flat[end - plays : end] for end, plays in zip(ends[order], videos["plays"][order], strict=True)]
    return _table("channel" if keys else "platform", columns, np.concatenate(spans), rng)


def _table(rollup: str, columns: Columns, flat: Array | None, rng: np.random.Generator) -> pa.Table:
    known = {*ROLLUPS[rollup].keys, "time_ms", *(measure.name for measure in ROLLUPS[rollup].measures)}
    arrays: dict[str, Any] = {name: pa.array(values) for name, values in columns.items() if name in known}
    if flat is not None:
        arrays["viewers_hll"] = _lists(columns["plays"], pa.array(flat, pa.uint32()))
        arrays["startup_kll"] = _values(columns["startup_ms"], columns["startups"], 0.4, rng)
        arrays["watch_kll"] = _values(columns["played_ms"], columns["measured_views"], 0.9, rng)
    return pa.table(arrays)


def _values(total: Array, count: Array, spread: float, rng: np.random.Generator) -> pa.Array:
    """Return some values a row whose mean is about total / count."""
    made = np.minimum(count, VALUES_A_ROW)
    mean = np.repeat(total / np.maximum(count, 1), made)
    return _lists(made, pa.array(np.round(mean * rng.lognormal(-spread * spread / 2, spread, len(mean)))))


def _lists(lengths: Array, values: pa.Array) -> pa.Array:
    offsets = np.concatenate(([0], np.cumsum(lengths))).astype(np.int32)
    return pa.ListArray.from_arrays(pa.array(offsets), values)


def _viewers(videos: Columns, people: Array) -> pa.Table:
    """Return who played which video in which hour."""
    plays = videos["plays"]
    made = {
        "hour_ms": np.repeat(videos["time_ms"] - videos["time_ms"] % HOUR_MS, plays),
        **{name: np.repeat(videos[name], plays) for name in ("tenant_id", "channel_id", "video_id", "is_bot")},
        "viewer_hash": people,
    }
    return pa.table(made)


def _peaks(samples: Columns) -> pa.Table:
    """Return the largest and the last sample of every hour and scope."""
    table = pa.table({name: pa.array(values) for name, values in samples.items()})
    scopes = {
        "platform": ("", "", ""),
        "tenant": ("tenant_id", "", ""),
        "channel": ("tenant_id", "channel_id", ""),
        "video": ("tenant_id", "channel_id", "video_id"),
    }
    rows = [_peak(table, scope, columns) for scope, columns in scopes.items()]
    every = pa.concat_tables(rows)
    # Nobody of the past is a bot: whoever counts bots or not sees the same.
    bots = [every.append_column("bots", pa.array([word] * every.num_rows)) for word in ("false", "any")]
    return pa.concat_tables(bots)


def _peak(table: pa.Table, scope: str, columns: tuple[str, str, str]) -> pa.Table:
    keys = [name for name in columns if name]
    gauges = ("concurrent_viewers", "concurrent_views")
    at = table.group_by([*keys, "time_ms"]).aggregate([(name, "sum") for name in gauges]).sort_by("time_ms")
    hour = pc.multiply(pc.divide(at["time_ms"], HOUR_MS), HOUR_MS)
    at = at.append_column("hour_ms", hour)
    found = at.group_by([*keys, "hour_ms"], use_threads=False).aggregate(
        [(f"{name}_sum", how) for how in ("max", "last") for name in gauges]
    )
    made: dict[str, Any] = {"time_ms": found["hour_ms"], "scope": pa.array([scope] * found.num_rows)}
    for name, column in zip(("tenant_id", "channel_id", "video_id"), columns, strict=True):
        made[name] = found[column] if column else pa.array([""] * found.num_rows)
    for how, ours in (("max", "peak"), ("last", "last")):
        made |= {f"{ours}_viewers": found[f"{gauges[0]}_sum_{how}"], f"{ours}_views": found[f"{gauges[1]}_sum_{how}"]}
    return pa.table(made)


def _retention(videos: Columns, lengths: dict[str, int], time_ms: int) -> pa.Table:
    """Return the curve of each video's day, told in its last hour: many leave early, some stay to the end."""
    names, video = np.unique(videos["video_id"].astype(str), return_inverse=True)
    plays = np.bincount(video, videos["plays"], len(names)).astype(np.int64)
    channel = dict(zip(videos["video_id"], videos["channel_id"], strict=True))
    vod = [i for i, name in enumerate(names) if lengths[name] and plays[i]]
    percent = np.arange(100)
    stay = np.array([8 + 30 * (number * 0.618 % 1) for number in vod])
    left = np.round(plays[vod][:, None] * (0.15 + 0.85 * np.exp(-percent[None, :] / stay[:, None]))).astype(np.int64)
    delta = np.diff(left, axis=1, prepend=0)
    row, column = np.nonzero(delta)
    shown = [str(names[vod[i]]) for i in row]
    return pa.table(
        {
            "time_ms": pa.array(np.full(len(row), time_ms, np.int64)),
            "tenant_id": pa.array([str(videos["tenant_id"][0])] * len(row), pa.string()),
            "channel_id": pa.array([channel[name] for name in shown], pa.string()),
            "is_bot": pa.array(np.zeros(len(row), bool)),
            "video_id": pa.array(shown, pa.string()),
            **{name: pa.array(["unknown"] * len(row), pa.string()) for name in _WORDS},
            "percent": pa.array([str(p) for p in column], pa.string()),
            "retention_delta": pa.array(delta[row, column]),
        }
    )
