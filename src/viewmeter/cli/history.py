"""The demo's past: `testing.history` as whole hours of every rollup, ready for `store.put_history`.

The generator gives sums by video and by three groupings; what it leaves out is made here: channel and platform rows
(sums over videos), the sketches' inputs (a viewer a play, dealt to the rows in the order of their plays, so that every
rollup counts the same people), what the batch layer knows of whole views, peaks, and where in the content views played.
Watch times, and from them all that is told of whole views, are drawn from a sample of views of each video, so that the
past looks like the views that follow it.
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
from viewmeter.testing.history import Columns, History, history
from viewmeter.testing.oracle_metrics import MEASURES

SUMMED: Final = {"channel": ("channel_id",), "platform": ()}
VALUES_A_PLAY: Final = 1 / 20
"""Startup and watch times that are made up: enough for plausible quantiles, and few enough for a quick start."""
STARTUP_SPREAD: Final = 0.6
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


@dataclass(frozen=True)
class Sample:
    """Views of each video: its length (0 is live), and the played time of each view, ms."""

    length_ms: dict[str, int]
    watch_ms: dict[str, Array]

    def content_ms(self, video: str) -> float:
        """Return how much of the content a view sees on average; rewatched parts count again, up to its length."""
        return float(np.minimum(self.watch_ms[video], self.length_ms[video]).mean())

    def curve(self, video: str) -> Array:
        """Return for each percent of the content the share of the views that get there."""
        edges = np.arange(100) * self.length_ms[video] / 100
        watched = np.sort(self.watch_ms[video])
        return 1 - np.searchsorted(watched, edges, side="left") / len(watched)

    def draw(self, videos: Array, count: Array, rng: np.random.Generator) -> Array:
        """Return for each row `count` watch times of its video, one row after the other."""
        names, video = np.unique(videos.astype(str), return_inverse=True)
        pools = [self.watch_ms[name] for name in names]
        sizes = np.array([len(pool) for pool in pools])
        first = np.cumsum(sizes) - sizes
        row = np.repeat(video, count)
        drawn: Array = np.concatenate(pools)[first[row] + (rng.random(len(row)) * sizes[row]).astype(np.int64)]
        return drawn.astype(np.float64)


def days(setting: History, sample: Sample) -> Iterator[Day]:
    """Yield one day after the other."""
    for number, day in enumerate(history(setting)):
        rng = np.random.default_rng((setting.seed, number, 1))
        start_ms = setting.start_ms + (setting.first_day + number) * DAY_MS
        videos = day.pop("video")
        hashes = videos.pop("viewer_hashes")
        order = _by_video(videos)
        videos = _with_ends({name: values[order] for name, values in videos.items()}, sample)
        people = np.concatenate([np.zeros(0, np.int64), *(np.asarray(hashes[i], np.int64) for i in order)])
        flat = coupons(people)
        lists = _Lists.of(videos, flat, sample, rng)
        out = {name: _summed(videos, keys, lists) for name, keys in SUMMED.items()}
        out["video"] = _table("video", videos, lists)
        for name, columns in day.items():
            ordered = _by_video(columns)
            arranged = {column: values[ordered] for column, values in columns.items()}
            if name == "concurrency":
                out[name] = _table(name, arranged, None)
                out["peaks"] = _peaks(arranged)
            else:
                arranged = _with_ends(arranged, sample)
                out[name] = _table(name, arranged, _Lists.of(arranged, flat, sample, rng))
        out["retention"] = _retention(videos, sample, rng)
        yield Day(Interval(start_ms, start_ms + DAY_MS), out, _viewers(videos, people))


@dataclass(frozen=True)
class _Lists:
    """The inputs of a rollup's sketches: how many each row has, and all of them one row after the other."""

    viewers: tuple[Array, Array]
    startup: tuple[Array, Array]
    watch: tuple[Array, Array]

    @staticmethod
    def of(columns: Columns, coupons_of_plays: Array, sample: Sample, rng: np.random.Generator) -> _Lists:
        plays = columns["plays"]
        # Rounded by chance, so that rows of minutes have as many a play as rows of hours.
        count = (plays * VALUES_A_PLAY + rng.random(len(plays))).astype(np.int64)
        startup = np.repeat(columns["startup_ms"] / np.maximum(columns["startups"], 1), count)
        startup = startup * rng.lognormal(-(STARTUP_SPREAD**2) / 2, STARTUP_SPREAD, len(startup))
        watch = sample.draw(columns["video_id"], count, rng)
        return _Lists((plays, coupons_of_plays), (count, np.round(startup)), (count, watch))

    def merged(self, order: Array, first: Array) -> _Lists:
        """Return the lists of rows that are put in this order and summed from each `first` on."""

        def one(lists: tuple[Array, Array]) -> tuple[Array, Array]:
            count, values = lists
            ends = np.cumsum(count)
            spans = [values[end - n : end] for end, n in zip(ends[order], count[order], strict=True)]
            return np.add.reduceat(count[order], first), np.concatenate(spans)

        return _Lists(one(self.viewers), one(self.startup), one(self.watch))


def _between(table: pa.Table, column: str, interval: Interval) -> pa.Table:
    time = table[column]
    kept: pa.Table = table.filter(pc.and_(pc.greater_equal(time, interval.start_ms), pc.less(time, interval.end_ms)))
    return kept


def _by_video(columns: Columns) -> Array:
    """Return the order by time and video; rows of one video keep theirs."""
    _, video = np.unique(columns["video_id"].astype(str), return_inverse=True)
    return np.lexsort((video, columns["time_ms"]))


def _with_ends(columns: Columns, sample: Sample) -> Columns:
    """Add what the batch layer knows of whole views: so much a play of each video, so that every rollup agrees."""
    names, video = np.unique(columns["video_id"].astype(str), return_inverse=True)
    length = np.array([sample.length_ms[name] for name in names], np.int64)
    watched = np.array([sample.content_ms(name) for name in names])
    typical = np.array([sample.watch_ms[name].mean() for name in names])
    plays = columns["plays"]
    return columns | {
        "ended_views": columns["attempts"],
        "measured_views": plays,
        "watched_views": plays,
        "view_rebuffer_ratio_e9": columns["rebuffered_ms"] * (10**9 / typical).astype(np.int64)[video],
        "content_views": plays * (length > 0)[video],
        "content_watched_ms": plays * np.round(watched).astype(np.int64)[video],
        "content_ms": plays * length[video],
    }


def _summed(videos: Columns, keys: tuple[str, ...], lists: _Lists) -> pa.Table:
    """Return the rows of a rollup that drops the video."""
    ids = [videos["time_ms"], *(np.unique(videos[key].astype(str), return_inverse=True)[1] for key in keys)]
    order = np.lexsort(tuple(reversed(ids)))
    stacked = np.stack([column[order] for column in ids])
    first = np.flatnonzero(np.r_[True, (stacked[:, 1:] != stacked[:, :-1]).any(axis=0)])
    columns: Columns = {name: videos[name][order][first] for name in ("time_ms", "tenant_id", "is_bot", *keys)}
    for measure in (*MEASURES, *ENDS):
        columns[measure] = np.add.reduceat(videos[measure][order], first)
    return _table("channel" if keys else "platform", columns, lists.merged(order, first))


def _table(rollup: str, columns: Columns, lists: _Lists | None) -> pa.Table:
    known = {*ROLLUPS[rollup].keys, "time_ms", *(measure.name for measure in ROLLUPS[rollup].measures)}
    arrays: dict[str, Any] = {name: pa.array(values) for name, values in columns.items() if name in known}
    if lists is not None:
        arrays["viewers_hll"] = _lists(lists.viewers[0], pa.array(lists.viewers[1], pa.uint32()))
        arrays["startup_kll"] = _lists(lists.startup[0], pa.array(lists.startup[1]))
        arrays["watch_kll"] = _lists(lists.watch[0], pa.array(lists.watch[1]))
    return pa.table(arrays)


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


def _retention(videos: Columns, sample: Sample, rng: np.random.Generator) -> pa.Table:
    """Return the curve of each hour and video of a known length."""
    names, video = np.unique(videos["video_id"].astype(str), return_inverse=True)
    hour_ms = videos["time_ms"] - videos["time_ms"] % HOUR_MS
    hours, hour = np.unique(hour_ms, return_inverse=True)
    plays = np.zeros((len(hours), len(names)))
    np.add.at(plays, (hour, video), videos["plays"])
    vod = np.array([sample.length_ms[name] > 0 for name in names])
    curves = np.array([sample.curve(name) if known else np.zeros(100) for name, known in zip(names, vod, strict=True)])
    # Rounded by the same chance over a whole curve, so that it never rises and its mean is kept.
    left = np.floor(plays[:, :, None] * curves[None, :, :] + rng.random((len(hours), len(names), 1)) * vod[:, None])
    delta = np.diff(left.astype(np.int64), axis=2, prepend=0)
    row, column, percent = np.nonzero(delta)
    channel = dict(zip(videos["video_id"], videos["channel_id"], strict=True))
    channels = np.array([channel[name] for name in names], dtype=object)
    tenant = np.full(len(row), videos["tenant_id"][0], dtype=object)
    return pa.table(
        {
            "time_ms": pa.array(hours[row]),
            "tenant_id": pa.array(tenant, pa.string()),
            "channel_id": pa.array(channels[column], pa.string()),
            "is_bot": pa.array(np.zeros(len(row), bool)),
            "video_id": pa.array(names.astype(object)[column], pa.string()),
            **{name: pa.array(np.full(len(row), "unknown", dtype=object), pa.string()) for name in _WORDS},
            "percent": pa.array(np.arange(100).astype(str).astype(object)[percent], pa.string()),
            "retention_delta": pa.array(delta[row, column, percent]),
        }
    )
