"""Sketches through the store: minutes become hours, days, weeks and months, and a question merges what is left of each.

Law as in `tests/unit/model/test_sketch_error.py`: root mean square at most 1.1 times the error that the answer states,
no answer above 4 times. A seed is a video; all share a store that goes through the life of a real one: hours are
closed, periods built, what is too old dropped, and then the query API's own parser, planner and merge are asked.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pytest
from sketch_errors import RMS_MOST, SINGLE_MOST, rank_error, startups, told, watch_times

from viewmeter.live.embedded import MemoryLiveStore
from viewmeter.model.catalogue import ROLLUPS
from viewmeter.model.catalogue.measures import HLL_RELATIVE_ERROR, KLL_RANK_ERROR
from viewmeter.model.sketches import coupons
from viewmeter.model.time import DAY_MS, HOUR_MS, MINUTE_MS, Interval, to_ms
from viewmeter.olap.embedded import DuckDBStore
from viewmeter.olap.protocol import Visible
from viewmeter.query import Analytics, QuerySettings, parse_query
from viewmeter.query.parts import Ground, Kept

ALL = os.environ.get("VIEWMETER_TEST_SKETCHES") == "all"
SEEDS = 200 if ALL else 20
VIEWS, VIEWERS = 30_000, 20_000
"""Of a seed: so many views by so many people, of whom some never come and others come again, in any hour."""
HOURS_A_DAY = 24 if ALL else 3
AT_ONCE = 5 * DAY_MS
"""Hours are closed in pieces of this length: planning the statements takes longer than the rows of a day."""

START_MS = to_ms(datetime.fromisoformat("2027-01-27T00:00:00Z"))
TODAY_MS = to_ms(datetime.fromisoformat("2027-03-18T00:00:00Z"))
CLOSED_MS = TODAY_MS + 15 * HOUR_MS
END_MS = CLOSED_MS - 23 * MINUTE_MS
"""Days of January, February as a month, two weeks, three days, fourteen hours of today, and minutes."""
QUANTILES = {
    "startup_time_p50_ms": 0.5, "startup_time_p95_ms": 0.95, "watch_duration_p50_ms": 0.5,
    "watch_duration_p90_ms": 0.9, "watch_duration_p95_ms": 0.95, "watch_duration_p99_ms": 0.99,
}  # fmt: skip

Array = npt.NDArray[Any]


@dataclass
class Seed:
    """The views of one video, in the order of time: the truth."""

    at_ms: Array
    viewer: Array
    startup: Array
    watched: Array

    @staticmethod
    def drawn(number: int) -> Seed:
        rng = np.random.default_rng((number, VIEWS))
        days = np.arange(START_MS, TODAY_MS, DAY_MS)
        hours = days[:, None] + rng.permuted(np.tile(np.arange(24), (len(days), 1)), axis=1)[:, :HOURS_A_DAY] * HOUR_MS
        rows = hours.ravel() + rng.integers(0, 60, hours.size) * MINUTE_MS
        today = TODAY_MS + rng.choice(15 * 60, 15 * HOURS_A_DAY // 3, replace=False) * MINUTE_MS
        at = np.sort(rng.choice(np.concatenate([rows, today]), VIEWS))
        people = rng.integers(-(2**63), 2**63 - 1, VIEWERS, dtype=np.int64)
        return Seed(at, rng.choice(people, VIEWS), startups(rng, VIEWS), watch_times(rng, VIEWS))

    def rows(self, number: int, interval: Interval) -> dict[str, list[Any]]:
        """Return the rows of the video by the minute, sketches as the lists that the batch layer hands over."""
        low, high = np.searchsorted(self.at_ms, interval)
        minutes, first = np.unique(self.at_ms[low:high], return_index=True)

        def split(values: Array) -> list[Array]:
            return np.split(values[low:high], first[1:]) if len(minutes) else []

        return {
            "time_ms": minutes.tolist(),
            "video_id": [f"seed-{number}"] * len(minutes),
            "viewers_hll": [np.unique(coupons(people)) for people in split(self.viewer)],
            "startup_kll": split(self.startup),
            "watch_kll": split(self.watched),
        }


def table(rows: list[dict[str, list[Any]]]) -> pa.Table:
    columns = {name: [value for one in rows for value in one[name]] for name in rows[0]}
    count = len(columns["time_ms"])
    words = {"tenant_id": ["acme"] * count, "channel_id": ["c"] * count, "is_bot": [False] * count}
    hll = pa.array(columns.pop("viewers_hll"), pa.list_(pa.uint32()))
    return pa.table({**words, **columns, "viewers_hll": hll})


NOBODY = pa.table(
    {
        **{name: pa.array([], pa.string()) for name in ("tenant_id", "channel_id", "video_id")},
        **{name: pa.array([], pa.int64()) for name in ("viewer_hash", "hour_ms")},
        "is_bot": pa.array([], pa.bool_()),
    }
)
"""Exact viewers are not asked for."""


@pytest.fixture(scope="module")
def seeds() -> list[Seed]:
    return [Seed.drawn(number) for number in range(SEEDS)]


@pytest.fixture(scope="module")
def analytics(seeds: list[Seed], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Analytics]:
    """A store with all of them, as old as it would be: no hours beyond 30 days, no minutes beyond one."""
    store = DuckDBStore(tmp_path_factory.mktemp("store") / "store.duckdb")
    for start in range(START_MS, CLOSED_MS, AT_ONCE):
        interval = Interval(start, min(start + AT_ONCE, CLOSED_MS))
        rows = table([seed.rows(number, interval) for number, seed in enumerate(seeds)])
        store.put_history(interval, {"video": rows}, NOBODY, CLOSED_MS)
    for period in store.due(CLOSED_MS):
        store.build(period.kind, period.start_ms, period.zone)
    dropped = store.expire(CLOSED_MS)
    assert sum(dropped.values()) > 0
    with store.snapshot() as snapshot:
        parts = Ground(snapshot.coverage("UTC"), "UTC").parts((START_MS, END_MS), Kept.of(ROLLUPS["video"]))
    assert {part.table for part in parts} == {"minute", "hour", "day", "week", "month"}
    yield Analytics(store, MemoryLiveStore(), QuerySettings())
    store.close()


def answers(
    analytics: Analytics, metrics: list[str], granularity: str
) -> Iterator[tuple[int, Interval, dict[str, Any]]]:
    """Yield (seed, what the row is of, the row) of every row of an answer."""
    asked = {
        "metrics": metrics, "dimensions": ["video_id"], "time_range": {"start": START_MS, "end": END_MS},
        "granularity": granularity, "limit": 10_000,
    }  # fmt: skip
    found = analytics.query(parse_query(asked, now_ms=CLOSED_MS), Visible("acme"), CLOSED_MS, CLOSED_MS)
    assert found.meta["sources"] == ["batch"]
    assert {*found.meta["approximate"]} == {*metrics}
    if granularity == "total":
        assert [to_ms(datetime.fromisoformat(found.meta[edge])) for edge in ("start", "end")] == [START_MS, END_MS]
    starts = sorted({to_ms(datetime.fromisoformat(row["time"])) for row in found.rows})
    following = dict(zip(starts, [*starts[1:], END_MS], strict=True))
    for row in found.rows:
        at = to_ms(datetime.fromisoformat(row["time"]))
        yield int(row["video_id"].removeprefix("seed-")), Interval(max(at, START_MS), following[at]), row


@pytest.mark.parametrize("granularity", ["total", "month", "week"])
def test_unique_viewers_of_all_tiers_err_by_what_is_stated(
    seeds: list[Seed], analytics: Analytics, granularity: str
) -> None:
    errors = []
    for number, interval, row in answers(analytics, ["unique_viewers"], granularity):
        low, high = np.searchsorted(seeds[number].at_ms, interval)
        errors.append(row["unique_viewers"] / len(np.unique(seeds[number].viewer[low:high])) - 1)
    assert len(errors) >= SEEDS
    rms, largest = told(f"`unique_viewers` of the store, by {granularity}", errors, HLL_RELATIVE_ERROR)
    assert rms <= RMS_MOST
    assert largest <= SINGLE_MOST


@pytest.mark.parametrize("granularity", ["total", "month", "week"])
@pytest.mark.parametrize("of", ["startup", "watch"])
def test_percentiles_of_all_tiers_err_by_less_than_what_is_stated(
    seeds: list[Seed], analytics: Analytics, granularity: str, of: str
) -> None:
    quantiles = {name: quantile for name, quantile in QUANTILES.items() if name.startswith(of)}
    errors = []
    for number, interval, row in answers(analytics, [*quantiles], granularity):
        low, high = np.searchsorted(seeds[number].at_ms, interval)
        values = seeds[number].startup if of == "startup" else seeds[number].watched
        ordered = np.sort(values[low:high])
        errors += [rank_error(row[name], quantile, ordered) for name, quantile in quantiles.items()]
    assert len(errors) >= SEEDS * len(quantiles)
    rms, largest = told(f"percentiles ({of}) of the store, by {granularity}", errors, KLL_RANK_ERROR)
    assert rms <= RMS_MOST
    assert largest <= SINGLE_MOST
