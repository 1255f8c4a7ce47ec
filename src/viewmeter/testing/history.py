"""Years of plausible history without any event: for the demo, and for benchmarks of queries.

In: a range of time and a seed. Out: a day at a time, for each grouping (a rollup of the catalogue) its rows as
columns. Promised: additive measures of one hour and video have the same sums in every grouping; a daily and weekly
rhythm in each country's own time; the same seed gives the same numbers. Not done: sketches (`viewer_hashes` is there
to feed one), and agreement with any events.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final, NamedTuple

import numpy as np
import numpy.typing as npt

from viewmeter.testing.oracle_metrics import BITRATE_BUCKETS, MEASURES
from viewmeter.testing.simulator import SAMPLE_MS, Settings, Simulation, Video
from viewmeter.testing.world import CDNS, COUNTRIES, DEVICES

HOUR_MS: Final = 3_600_000
DAY_MS: Final = 24 * HOUR_MS
GROUPINGS: Final[dict[str, tuple[str, ...]]] = {
    "video": (),
    "audience": ("country", "region", "city"),
    "device": ("device_type", "os", "browser"),
    "delivery": ("player", "cdn", "asn", "stream_type", "bitrate_bucket"),
}
RHYTHM: Final = np.array(
    [*(28, 18, 12, 9, 8, 9, 14, 22, 30, 36, 40, 43), *(47, 48, 46, 46, 50, 58, 70, 85, 98, 100, 86, 54)]
)
"""Share of the day's best hour, by the hour of local time."""
BY_BUCKET: Final = np.array([0.08, 0.13, 0.18, 0.25, 0.22, 0.13, 0.01])
KBPS: Final = np.array([235, 600, 1_250, 2_400, 4_400, 8_000, 14_000])
PLAYED_SHARE: Final = 0.33
"""What a viewer sees of a video, of at most half an hour of it."""
LONGEST_MS: Final = 1_800_000
LIVE_MS: Final = 5_400_000
FAILED: Final = 0.015
EXITED: Final = 0.03

Array = npt.NDArray[Any]
Columns = dict[str, Array]


class Typical(NamedTuple):
    """How a video is watched: mean time a play, and the shares of plays that complete it and that are engaged."""

    watch_ms: float
    completed: float = 0.18
    engaged: float = 0.77


@dataclass(frozen=True)
class History:
    """`peak_views`: attempts of the most watched video in its best hour. `step_ms` divides a day.

    `fade_ms`: views that are still going on at the end are left out, where a view is that long on average; something
    else (a simulation) tells of them. 0: there are none. `typical`: of each video, most popular first.
    """

    seed: int
    start_ms: int
    days: int = 30
    videos: int = 40
    peak_views: int = 400
    step_ms: int = HOUR_MS
    tenant_id: str = "demo"
    first_day: int = 0  # the days before it are left out
    fade_ms: int = 0
    people: tuple[int, ...] = ()  # hashes of who watches; empty: made up
    typical: tuple[Typical, ...] = ()  # empty: a third of each video

    @property
    def end_ms(self) -> int:
        """Where it ends."""
        return self.start_ms + self.days * DAY_MS


def history(setting: History) -> Iterator[dict[str, Columns]]:
    """Yield one day after the other: by grouping (and "concurrency") the columns of its rows.

    Every grouping has `time_ms`, `tenant_id`, `channel_id`, `video_id`, `is_bot`, its dimensions, and MEASURES as
    int64; "video" has `viewer_hashes` besides, one array of int64 a row, a hash for each play. "concurrency" has
    `concurrent_viewers` and `concurrent_views` of the last sample of each step. Rows of nothing but zeros are left out.
    """
    videos = _videos(setting)
    for day in range(setting.first_day, setting.days):
        rng = np.random.default_rng((setting.seed, day))
        start = setting.start_ms + day * DAY_MS
        times = np.arange(start, start + DAY_MS, setting.step_ms)
        attempts = _attempts(setting, rng, times, day)
        rows, cols = np.nonzero(attempts)
        base: Columns = {
            "time_ms": times[rows],
            "channel_id": np.array([v.channel_id for v in videos], dtype=object)[cols],
            "video_id": np.array([v.video_id for v in videos], dtype=object)[cols],
        }
        bad = _incident(setting, times[rows])
        typical = np.array(typical_of(setting))[cols]
        sums = _measures(rng, attempts[rows, cols], typical, bad)
        noise = {name: _shares(rng, name, len(rows)) for name in GROUPINGS if name != "video"}
        out = {"video": _frame(setting, base) | {name: sums[name] for name in MEASURES}}
        out["video"]["viewer_hashes"] = _viewers(setting, rng, cols, sums["plays"])
        live = np.array(["live" if v.duration_ms == 0 else "vod" for v in videos], dtype=object)[cols]
        for name, shares in noise.items():
            out[name] = _split(setting, name, base, sums, shares, live)
        present = np.floor(sums["played_ms"] / setting.step_ms + rng.random(len(rows))).astype(np.int64)
        sampled = base | {"time_ms": base["time_ms"] + setting.step_ms - SAMPLE_MS}
        out["concurrency"] = _frame(setting, sampled) | {
            "concurrent_viewers": present,
            "concurrent_views": present + present // 40,
        }
        yield out


def viewers_at(setting: History, at_ms: int) -> float:
    """Return how many watch at the same time, on average, at an instant of that history (or at its end)."""
    hour = np.array([min(at_ms, setting.end_ms - HOUR_MS)])
    day = int(hour[0] - setting.start_ms) // DAY_MS
    expected = _expected(dataclasses.replace(setting, fade_ms=0, step_ms=HOUR_MS), hour, day)[0]
    watch_ms = np.array(typical_of(setting))[:, 0]
    return float((expected * (1 - FAILED - EXITED) * watch_ms).sum() / HOUR_MS)


def typical_of(setting: History) -> tuple[Typical, ...]:
    """Return how each video is watched, most popular first."""
    lengths = [video.duration_ms or LIVE_MS for video in _videos(setting)]
    return setting.typical or tuple(Typical(PLAYED_SHARE * min(length, LONGEST_MS)) for length in lengths)


def _videos(setting: History) -> tuple[Video, ...]:
    return Simulation(Settings(setting.seed, setting.start_ms, videos=setting.videos)).videos


def _expected(setting: History, times: Array, day: int) -> Array:
    """Return attempts to expect by (time, video): Zipf-like popularity, rhythm of the countries, a week, growth."""
    hours = times // HOUR_MS
    weights = np.array([country.weight for country in COUNTRIES])
    local = np.array([RHYTHM[(hours + country.utc_offset_h) % 24] for country in COUNTRIES])
    rhythm = (weights[:, None] * local).sum(axis=0) / weights.sum() / 80
    popularity = 1 / np.arange(1, setting.videos + 1) ** 1.1
    weekend = np.where((times // DAY_MS + 3) % 7 >= 5, 1.25, 1.0)
    growth = 1 + 0.3 * day / max(1, setting.days)
    level = rhythm * weekend * growth * setting.peak_views * setting.step_ms / HOUR_MS
    if setting.fade_ms:
        level = level * (1 - np.exp(-(setting.end_ms - times - setting.step_ms / 2) / setting.fade_ms))
    expected: Array = level[:, None] * popularity[None, :]
    return expected


def _attempts(setting: History, rng: np.random.Generator, times: Array, day: int) -> Array:
    """Return attempts by (time, video): what is to be expected, and chance."""
    expected = _expected(setting, times, day)
    drawn: Array = rng.poisson(expected * rng.gamma(20, 1 / 20, expected.shape))
    return drawn


def _incident(setting: History, times: Array) -> Array:
    """Return where one evening, four days before the end, stalling took 20 times as long."""
    evening = (setting.start_ms + max(0, setting.days - 4) * DAY_MS) // DAY_MS * DAY_MS + 19 * HOUR_MS
    return (times >= evening) & (times < evening + 2 * HOUR_MS)


def _measures(rng: np.random.Generator, attempts: Array, typical: Array, bad: Array) -> Columns:
    """Return every measure of each (time, video), in proportions that one sees; typical: of each row's video."""
    n = len(attempts)
    out: Columns = {name: np.zeros(n, np.int64) for name in MEASURES}
    out["attempts"] = attempts.astype(np.int64)
    out["failures"] = rng.binomial(attempts, np.where(bad, 5 * FAILED, FAILED))
    out["exits_before_start"] = rng.binomial(attempts - out["failures"], EXITED)
    plays = out["plays"] = attempts - out["failures"] - out["exits_before_start"]
    out["startups"] = plays
    out["startup_ms"] = np.round(plays * rng.normal(950, 60, n) * np.where(bad, 2.2, 1)).astype(np.int64)
    watch_ms, completed, engaged = typical.T
    out["completes"] = rng.binomial(plays, completed)
    more = np.clip((engaged - completed) / np.maximum(1 - completed, 1e-9), 0, 1)
    out["engaged_views"] = out["completes"] + rng.binomial(plays - out["completes"], more)
    played = np.round(plays * watch_ms * np.clip(rng.normal(1, 0.12, n), 0.3, 2.7))
    buckets = np.round(played[:, None] * BY_BUCKET[None, :]).astype(np.int64)
    for i, bucket in enumerate(BITRATE_BUCKETS):
        out[f"played_ms_{bucket}"] = buckets[:, i]
    out["played_ms"] = out["played_ms_known_bitrate"] = buckets.sum(axis=1)
    out["played_kbit"] = (buckets * KBPS[None, :]).sum(axis=1)
    out["rebuffer_count"] = rng.poisson(plays * 0.3 * np.where(bad, 8, 1))
    out["rebuffered_ms"] = np.round(out["rebuffer_count"] * rng.normal(2_100, 150, n) * np.where(bad, 2.5, 1))
    out["rebuffered_ms"] = out["rebuffered_ms"].astype(np.int64)
    out["seeks"], out["pauses"] = rng.poisson(plays * 0.4), rng.poisson(plays * 0.25)
    out["upshifts"], out["downshifts"] = rng.poisson(plays * 0.8), rng.poisson(plays * 0.3)
    out["events_request"] = out["attempts"]
    out["events_play"] = plays + out["rebuffer_count"] + out["seeks"] + out["pauses"]
    out["events_pause"], out["events_seek"] = out["pauses"], out["seeks"]
    out["events_buffer"], out["events_complete"] = out["rebuffer_count"], out["completes"]
    out["events_quality_change"] = out["upshifts"] + out["downshifts"]
    out["events_heartbeat"] = out["played_ms"] // 30_000
    out["events_error"] = out["failures"]
    out["events_exit"] = attempts - out["completes"] - out["failures"]
    out["events"] = np.sum([out[name] for name in MEASURES if name.startswith("events_")], axis=0)
    out["lost_events"] = rng.binomial(out["events"], 0.0004)
    out["duplicate_events"] = rng.binomial(out["events"], 0.002)
    return out


def _members(grouping: str) -> tuple[list[tuple[str, ...]], Array]:
    """Return the members of a grouping (values of its dimensions) and their shares."""
    members: list[tuple[str, ...]]
    if grouping == "audience":
        members = [(c.code, *city) for c in COUNTRIES for city in c.cities]
        weights = [c.weight * part for c in COUNTRIES for part in (0.65, 0.35)]
    elif grouping == "device":
        members = [(d.device_type, d.os, d.browser) for d in DEVICES]
        weights = [d.weight for d in DEVICES]
    else:
        players = sorted({d.player for d in DEVICES})
        by_player = {p: sum(d.weight for d in DEVICES if d.player == p) for p in players}
        members = [(p, cdn, "unknown") for p in players for cdn, _ in CDNS]
        weights = [by_player[p] * share for p in players for _, share in CDNS]
    return members, np.array(weights) / np.sum(weights)


def _shares(rng: np.random.Generator, grouping: str, n: int) -> Array:
    """Return for each of n rows the running shares of the members, up to 1, with some noise."""
    _, shares = _members(grouping)
    drawn = rng.gamma(shares * 60 + 0.05, 1, (n, len(shares)))
    running: Array = np.cumsum(drawn, axis=1) / drawn.sum(axis=1, keepdims=True)
    running[:, -1] = 1.0
    return running


def _parts(total: Array, running: Array) -> Array:
    """Divide whole numbers by running shares, so that the parts add up to them exactly: (rows, members)."""
    edges = np.floor(total[:, None] * running).astype(np.int64)
    edges[:, -1] = total
    return np.diff(edges, axis=1, prepend=0)


def _split(setting: History, grouping: str, base: Columns, sums: Columns, running: Array, live: Array) -> Columns:
    members, _ = _members(grouping)
    n, m = running.shape
    parts = {name: _parts(sums[name], running).ravel() for name in MEASURES}
    columns = {name: np.repeat(values, m) for name, values in base.items()}
    names = GROUPINGS[grouping]
    for i in range(len(members[0])):
        columns[names[i]] = np.tile(np.array([member[i] for member in members], dtype=object), n)
    if grouping == "delivery":
        columns["stream_type"] = np.repeat(live, m)
        columns, parts = _by_bucket(columns, parts)
    kept = np.any([values != 0 for values in parts.values()], axis=0)
    return {k: v[kept] for k, v in (_frame(setting, columns) | parts).items()}


def _by_bucket(columns: Columns, parts: Columns) -> tuple[Columns, Columns]:
    """Divide delivery rows by bitrate: played time into its buckets, everything else at an unknown bitrate."""
    labels = ("unknown", *BITRATE_BUCKETS)
    n = len(columns["time_ms"])
    played = {bucket: parts[f"played_ms_{bucket}"] for bucket in BITRATE_BUCKETS}
    # Division by running shares may leave a bucket row a few ms off its row's total; played time is their sum.
    zeros = np.zeros(n, np.int64)
    of_bucket = {"played_ms", "played_ms_known_bitrate", "played_kbit"}
    out: Columns = {}
    for name, values in parts.items():
        rows = [zeros if name in of_bucket or name.startswith("played_ms_") else values]
        for i, bucket in enumerate(BITRATE_BUCKETS):
            if name == f"played_ms_{bucket}" or name in ("played_ms", "played_ms_known_bitrate"):
                rows.append(played[bucket])
            elif name == "played_kbit":
                rows.append(played[bucket] * KBPS[i])
            else:
                rows.append(zeros)
        out[name] = np.concatenate(rows)
    stretched = {name: np.tile(values, len(labels)) for name, values in columns.items()}
    stretched["bitrate_bucket"] = np.repeat(np.array(labels, dtype=object), n)
    return stretched, out


def _frame(setting: History, columns: Columns) -> Columns:
    n = len(columns["time_ms"])
    return {
        "time_ms": columns["time_ms"],
        "tenant_id": np.full(n, setting.tenant_id, dtype=object),
        "is_bot": np.zeros(n, bool),
        **{name: values for name, values in columns.items() if name != "time_ms"},
    }


def _viewers(setting: History, rng: np.random.Generator, videos: Array, plays: Array) -> Array:
    """Return a hash for each play, of each row; viewers return, as the popular ones of a pool do."""
    made_up = np.random.default_rng((setting.seed, 10**6)).integers(-(2**63), 2**63 - 1, setting.peak_views * 200)
    pool = np.array(setting.people, np.int64) if setting.people else made_up
    total = int(plays.sum())
    crowd = len(pool) // 5
    # A video's audience is a fifth of the pool, starting somewhere of its own; a square favours the regulars.
    place = (rng.random(total) ** 2 * crowd).astype(np.int64) + np.repeat(videos * 7919, plays)
    hashes = np.split(pool[place % len(pool)], np.cumsum(plays)[:-1])
    out = np.empty(len(plays), dtype=object)
    out[:] = hashes
    return out
