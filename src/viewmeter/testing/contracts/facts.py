"""Small increments as facts, and the rollup rows they make: written plainly, as the opposite of the engines' columns.

In: facts (one increment each, with every dimension). Out: tables of every rollup, as the speed layer appends them.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa

from viewmeter.model.catalogue import SPEED_ROLLUPS, Rollup
from viewmeter.model.catalogue.measures import ADDITIVE, GAUGES
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
}


@dataclass(frozen=True)
class Fact:
    """One increment: when, whose, and how much of which measures."""

    at_ms: int
    words: Mapping[str, str] = field(default_factory=dict)
    sums: Mapping[str, int] = field(default_factory=dict)
    viewer: int | None = None  # a hash; makes a coupon
    startup_ms: float | None = None  # makes a value of the startup sketch

    def word(self, dimension: str) -> str:
        """Return a dimension's value, or its default."""
        return self.words.get(dimension, WORDS[dimension])


def fact(at_ms: int, viewer: int | None = None, startup_ms: float | None = None, **given: Any) -> Fact:
    """Return a fact: keyword arguments are dimensions (text) and measures (numbers); `at_ms` counts from T0."""
    words = {name: value for name, value in given.items() if name in WORDS}
    sums = {name: value for name, value in given.items() if name not in WORDS}
    return Fact(T0 + at_ms, words, sums, viewer, startup_ms)


def rows_of(facts: Sequence[Fact]) -> dict[str, pa.Table]:
    """Return the facts as rows of every rollup, one row a fact. Gauges go to `concurrency`, the rest elsewhere."""
    gauges = {m.name for m in GAUGES}
    samples = [f for f in facts if gauges & {*f.sums}]
    others = [f for f in facts if {*f.sums} - gauges or f.viewer is not None or f.startup_ms is not None]
    made = {r.name: _table(r, samples if r.name == "concurrency" else others) for r in SPEED_ROLLUPS.values()}
    return {name: table for name, table in made.items() if table.num_rows}


def _table(rollup: Rollup, facts: Iterable[Fact]) -> pa.Table:
    facts = list(facts)
    columns: dict[str, Any] = {"time_ms": pa.array([floor_to(f.at_ms, rollup.grain_ms) for f in facts], pa.int64())}
    for key in rollup.keys:
        words = [f.word(key) for f in facts]
        columns[key] = pa.array([w == "true" for w in words]) if key == "is_bot" else pa.array(words, pa.string())
    summed = GAUGES if rollup.name == "concurrency" else ADDITIVE
    for measure in summed:
        columns[measure.name] = pa.array([f.sums.get(measure.name, 0) for f in facts], pa.int64())
    if rollup.name != "concurrency":
        viewers = [[] if f.viewer is None else coupons(np.array([f.viewer], np.int64)).tolist() for f in facts]
        startups = [[] if f.startup_ms is None else [f.startup_ms] for f in facts]
        columns["viewers_hll"] = pa.array(viewers, pa.list_(pa.uint32()))
        columns["startup_kll"] = pa.array(startups, pa.list_(pa.float64()))
    return pa.table(columns)
