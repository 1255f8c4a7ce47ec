"""Small increments as facts, and the rollup rows they make: written plainly, as the opposite of the engines' columns.

In: facts (one increment each, with every dimension). Out: tables of every rollup, as the speed layer appends them
(`rows_of`), or as a batch run of whole hours puts them (`hours_of`).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa

from viewmeter.model.catalogue import ROLLUPS, SPEED_ROLLUPS, Kind, Rollup
from viewmeter.model.catalogue.measures import GAUGES
from viewmeter.model.sketches import coupons
from viewmeter.model.time import floor_to

T0 = 1_800_000_000_000 - 1_800_000_000_000 % 86_400_000
"""A midnight in UTC that tests count from."""
MINUTE = 60_000
HOUR = 60 * MINUTE
DAY = 24 * HOUR

WORDS = {
    "tenant_id": "acme",
    "channel_id": "c1",
    "video_id": "v1",
    "is_bot": "false",
    **dict.fromkeys(("country", "region", "city", "device_type", "os", "browser"), "unknown"),
    **dict.fromkeys(("player", "cdn", "asn", "stream_type", "bitrate_bucket"), "unknown"),
    "percent": "0",
}


@dataclass(frozen=True)
class Fact:
    """One increment: when, whose, and how much of which measures."""

    at_ms: int
    words: Mapping[str, str] = field(default_factory=dict)
    sums: Mapping[str, int] = field(default_factory=dict)
    viewer: int | None = None  # a hash; makes a coupon
    startup_ms: float | None = None  # makes a value of the startup sketch
    watch_ms: float | None = None  # makes a value of the watch time sketch, which the batch layer alone knows

    def word(self, dimension: str) -> str:
        """Return a dimension's value, or its default."""
        return self.words.get(dimension, WORDS[dimension])


def fact(
    at_ms: int,
    viewer: int | None = None,
    startup_ms: float | None = None,
    watch_ms: float | None = None,
    **given: Any,
) -> Fact:
    """Return a fact: keyword arguments are dimensions (text) and measures (numbers); `at_ms` counts from T0."""
    words = {name: value for name, value in given.items() if name in WORDS}
    sums = {name: value for name, value in given.items() if name not in WORDS}
    return Fact(T0 + at_ms, words, sums, viewer, startup_ms, watch_ms)


def rows_of(facts: Sequence[Fact]) -> dict[str, pa.Table]:
    """Return the facts as rows of every rollup, one row a fact. Gauges go to `concurrency`, the rest elsewhere."""
    made = {r.name: _table(r, _of(r, facts), batch=False) for r in SPEED_ROLLUPS.values()}
    return {name: table for name, table in made.items() if table.num_rows}


def hours_of(facts: Sequence[Fact], only: tuple[str, ...] | None = None) -> tuple[dict[str, pa.Table], pa.Table]:
    """Return the facts as a batch run puts them: rows of every rollup, and the viewers of each hour (`hour_ms`).

    `only` some rollups: tests of the others need not wait for all.
    """
    wanted = [r for r in ROLLUPS.values() if only is None or r.name in only]
    made = {
        r.name: _peaks(_of(ROLLUPS["concurrency"], facts))
        if r.name == "peaks"
        else _table(r, _of(r, facts), batch=True)
        for r in wanted
    }
    seen = {
        (floor_to(f.at_ms, HOUR), *(f.word(k) for k in ("tenant_id", "channel_id", "video_id", "is_bot")), f.viewer)
        for f in facts
        if f.viewer is not None
    }
    rows = sorted(seen)
    words = [pa.array([row[i] for row in rows], pa.string()) for i in (1, 2, 3)]
    viewers = pa.table(
        {
            "hour_ms": pa.array([row[0] for row in rows], pa.int64()),
            **dict(zip(("tenant_id", "channel_id", "video_id"), words, strict=True)),
            "is_bot": pa.array([row[4] == "true" for row in rows], pa.bool_()),
            "viewer_hash": pa.array([row[5] for row in rows], pa.int64()),
        }
    )
    return {name: table for name, table in made.items() if table.num_rows}, viewers


def _of(rollup: Rollup, facts: Iterable[Fact]) -> list[Fact]:
    """Return the facts that a rollup has rows of."""
    if rollup.name in ("concurrency", "retention"):
        mine = {m.name for m in rollup.measures}
        return [f for f in facts if mine & {*f.sums}]
    elsewhere = {*(m.name for m in GAUGES), "retention_delta"}
    return [
        f for f in facts if {*f.sums} - elsewhere or any(v is not None for v in (f.viewer, f.startup_ms, f.watch_ms))
    ]


def _table(rollup: Rollup, facts: Sequence[Fact], batch: bool) -> pa.Table:
    columns: dict[str, Any] = {"time_ms": pa.array([floor_to(f.at_ms, rollup.grain_ms) for f in facts], pa.int64())}
    for key in rollup.keys:
        words = [f.word(key) for f in facts]
        columns[key] = pa.array([w == "true" for w in words], pa.bool_()) if key == "is_bot" else pa.array(words)
    lists: dict[str, list[list[Any]]] = {
        "viewers_hll": [[] if f.viewer is None else coupons(np.array([f.viewer], np.int64)).tolist() for f in facts],
        "startup_kll": [[] if f.startup_ms is None else [f.startup_ms] for f in facts],
        "watch_kll": [[] if f.watch_ms is None else [f.watch_ms] for f in facts],
    }
    for measure in rollup.measures if batch else rollup.speed_measures:
        if measure.name in lists:
            kind = pa.uint32() if measure.kind is Kind.HLL else pa.float64()
            columns[measure.name] = pa.array(lists[measure.name], pa.list_(kind))
        else:
            columns[measure.name] = pa.array([f.sums.get(measure.name, 0) for f in facts], pa.int64())
    return pa.table(columns)


def _peaks(samples: Sequence[Fact]) -> pa.Table:
    """Return the largest and last sample of each hour and scope, told plainly: sums at each instant, then over time."""
    at: dict[tuple[Any, ...], dict[int, list[int]]] = {}
    for f in samples:
        for key in _scopes(f):
            counts = at.setdefault((floor_to(f.at_ms, HOUR), *key), {}).setdefault(f.at_ms, [0, 0])
            counts[0] += f.sums.get("concurrent_viewers", 0)
            counts[1] += f.sums.get("concurrent_views", 0)
    rows = [
        (*key, max(v for v, _ in by.values()), max(w for _, w in by.values()), *by[max(by)]) for key, by in at.items()
    ]
    names = ("time_ms", *ROLLUPS["peaks"].keys, "peak_viewers", "peak_views", "last_viewers", "last_views")
    whole = {"time_ms", *names[-4:]}
    return pa.table(
        {
            name: pa.array([row[i] for row in rows], pa.int64() if name in whole else pa.string())
            for i, name in enumerate(names)
        }
    )


def _scopes(f: Fact) -> list[tuple[str, ...]]:
    """Return the keys of `peaks` that a sample counts for."""
    tenant, channel, video = f.word("tenant_id"), f.word("channel_id"), f.word("video_id")
    scopes = [
        ("", "platform", "", ""),
        (tenant, "tenant", "", ""),
        (tenant, "channel", channel, ""),
        (tenant, "video", channel, video),
    ]
    return [(*scope, bots) for scope in scopes for bots in (f.word("is_bot"), "any")]
