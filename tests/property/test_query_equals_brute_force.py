"""Whatever rollup, layer, tier, cut, compaction or cache is between: the answer is that of the increments."""

import itertools
import math
import os
from bisect import bisect_left
from collections.abc import Callable, Iterator
from datetime import datetime, timedelta, tzinfo
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, event, given, settings
from hypothesis import strategies as st

from viewmeter.live.embedded import MemoryLiveStore
from viewmeter.model.calendar import zone_of
from viewmeter.model.catalogue import METRICS
from viewmeter.model.time import from_ms, to_ms
from viewmeter.olap.embedded import DuckDBSettings, DuckDBStore
from viewmeter.olap.protocol import Commit, HourRun, Visible
from viewmeter.query import Analytics, QueryProblem, QuerySettings, parse_query
from viewmeter.query.question import GRANULARITIES
from viewmeter.testing import oracle_metrics
from viewmeter.testing.contracts.facts import DAY, HOUR, MINUTE, T0, Fact, fact, hours_of, rows_of

ZONES = ["UTC", "Europe/Berlin", "Asia/Kolkata", "America/St_Johns", "Australia/Lord_Howe"]
BASES = {"no change": 0, "St. John's, forward": 56, "Berlin, forward": 70, "Lord Howe, back by half an hour": 76,
         "Lord Howe, forward": 258, "Berlin, back": 287, "St. John's, back": 294}  # fmt: skip
"""Days from T0 to the five days that are asked about, and which clocks change on one of them."""
QUARTER = 15 * MINUTE
GROUPINGS = [
    ("country", "city"), ("os", "browser", "device_type"),
    ("cdn", "bitrate_bucket"), ("channel_id", "video_id", "is_bot"), ("country", "os", "device_type"),
]  # fmt: skip
RATIOS = (
    "average_watch_duration_ms",
    "completion_rate",
    "rebuffer_ratio",
    "startup_time_avg_ms",
    "playback_failure_rate",
)
SUMS = {"plays": "plays", "attempts": "attempts", "watch_time_ms": "played_ms", "lost_events": "lost_events"}
METRIC_NAMES = [*RATIOS, *SUMS, "unique_viewers"]
OF_CLOSED_HOURS = ["average_percentage_watched", "unique_viewers_exact"]
DAYS = 5


@st.composite
def facts(draw: st.DrawFn, base: int) -> Fact:
    words = {
        "tenant_id": st.sampled_from(["acme", "acme", "other"]),
        "channel_id": st.sampled_from(["c1", "c2"]),
        "video_id": st.sampled_from(["v1", "v2"]),
        "is_bot": st.sampled_from(["false", "false", "true"]),
        "country": st.sampled_from(["DE", "AT"]),
        "city": st.sampled_from(["x", "y"]),
        "os": st.sampled_from(["iOS", "Linux"]),
        "browser": st.sampled_from(["a", "b"]),
        "cdn": st.sampled_from(["k", "l"]),
        "bitrate_bucket": st.sampled_from(["0_300", "unknown"]),
    }
    sums = {
        "plays": st.integers(0, 3), "blind_plays": st.integers(0, 1), "attempts": st.integers(0, 3),
        "completes": st.integers(0, 2), "failures": st.integers(-1, 1), "played_ms": st.integers(0, 10**6),
        "rebuffered_ms": st.integers(0, 10**4), "startup_ms": st.integers(0, 10**4), "startups": st.integers(0, 2),
        "lost_events": st.integers(-2, 2), "content_watched_ms": st.integers(0, 90), "content_ms": st.integers(0, 90),
    }  # fmt: skip
    return fact(
        base - T0 + draw(st.integers(0, DAYS * DAY // MINUTE - 1)) * MINUTE,
        viewer=draw(st.one_of(st.none(), st.integers(1, 6))),
        **{name: draw(strategy) for name, strategy in {**words, **sums}.items()},
    )


@st.composite
def questions(draw: st.DrawFn, base: int) -> dict[str, Any]:
    possible = draw(st.sampled_from(GROUPINGS))
    dimensions = draw(st.lists(st.sampled_from(possible), unique=True, max_size=2))
    filtered = draw(st.lists(st.sampled_from(possible), unique=True, max_size=1))
    values = {"country": "DE", "city": "x", "os": "iOS", "browser": "a", "device_type": "unknown", "cdn": "k",
              "bitrate_bucket": "unknown", "channel_id": "c1", "video_id": "v1", "is_bot": "true"}  # fmt: skip
    start = draw(st.integers(0, DAYS * DAY // MINUTE - 2))
    length = draw(st.integers(1, DAYS * DAY // MINUTE - start))
    granularity = draw(st.sampled_from([g for g in GRANULARITIES if g != "minute" or length < 500]))
    known = [*METRIC_NAMES, OF_CLOSED_HOURS[0], *(OF_CLOSED_HOURS[1:] if "channel_id" in possible else ())]
    return {
        "metrics": draw(st.lists(st.sampled_from(known), unique=True, min_size=1, max_size=4)),
        "dimensions": dimensions,
        "filters": [[draw(st.sampled_from(["is", "is_not"])), d, [values[d]]] for d in filtered],
        "time_range": {"start": base + start * MINUTE, "end": base + (start + length) * MINUTE},
        "granularity": granularity,
        "time_zone": draw(st.sampled_from(ZONES)),
    }


def brute_force(
    everything: list[Fact], closed: set[int], question: dict[str, Any], visible: Visible
) -> dict[Any, dict[str, Any]]:
    """Return key (time, words…) -> metrics, straight from the facts; `closed` are the hours that batch rows answer."""
    found: dict[Any, list[Fact]] = {}
    asked = {*question["dimensions"], *(f[1] for f in question["filters"])}
    by_hours_alone = bool(asked & {"country", "city"}) and bool(asked & {"os", "browser", "device_type"})
    for one in everything:
        inside = question["time_range"]["start"] <= one.at_ms < question["time_range"]["end"]
        inside &= not by_hours_alone or one.at_ms // HOUR in closed
        mine = visible.tenant_id in (None, one.word("tenant_id"))
        mine &= visible.channels is None or one.word("channel_id") in visible.channels
        kept = all((one.word(d) in v) == (how == "is") for how, d, v in question["filters"])
        if "is_bot" not in asked:
            kept &= one.word("is_bot") == "false"
        if inside and mine and kept:
            words = tuple(one.word(d) == "true" if d == "is_bot" else one.word(d) for d in question["dimensions"])
            found.setdefault((_bucket(one.at_ms, question), *words), []).append(one)
    return {key: _metrics(members, closed) for key, members in found.items()}


def _bucket(at_ms: int, question: dict[str, Any]) -> int:
    """Return the start of the local bucket, cut to the range."""
    zone, granularity = zone_of(question["time_zone"]), question["granularity"]
    moment = from_ms(at_ms, zone)
    if granularity == "total":
        return int(question["time_range"]["start"])
    if granularity in ("day", "week", "month"):
        back = {"day": 0, "week": moment.weekday(), "month": moment.day - 1}[granularity]
        first = moment.date() - timedelta(days=back)
        # The first quarter of an hour whose local date is that of the period's first day, or later.
        quarters = range(at_ms - (back + 2) * DAY, at_ms + QUARTER, QUARTER)
        quarters = range(quarters.start - quarters.start % QUARTER, quarters.stop, QUARTER)
        start = quarters[bisect_left(quarters, first, key=lambda q: from_ms(q, zone).date())]
    elif granularity == "hour":
        start = at_ms  # an hour of the clock ends where its name or the clock's offset changes
        while _hour(start - MINUTE, zone) == _hour(at_ms, zone):
            start -= MINUTE
    else:
        start = at_ms - at_ms % {"5m": 5 * MINUTE, "minute": MINUTE}[granularity]
    return max(start, question["time_range"]["start"])


def _hour(at_ms: int, zone: tzinfo) -> tuple[Any, ...]:
    moment = from_ms(at_ms, zone)
    return moment.date(), moment.hour, moment.utcoffset()


def _metrics(members: list[Fact], closed: set[int]) -> dict[str, Any]:
    sums: dict[str, int] = {}
    for one in members:
        for name, amount in one.sums.items():
            sums[name] = sums.get(name, 0) + amount
    finished = oracle_metrics.metrics(sums)
    exact = [f for f in members if f.at_ms // HOUR in closed]
    watched, length = (sum(f.sums.get(n, 0) for f in exact) for n in ("content_watched_ms", "content_ms"))
    return {
        **{name: finished[name] for name in RATIOS},
        **{name: sums[measure] for name, measure in SUMS.items()},
        "unique_viewers": len({f.viewer for f in members if f.viewer is not None}),
        "unique_viewers_exact": len({f.viewer for f in exact if f.viewer is not None}),
        "average_percentage_watched": watched / length if length else None,
    }


@pytest.fixture
def new_store(tmp_path: Path) -> Iterator[Callable[[], DuckDBStore]]:
    made: list[DuckDBStore] = []
    numbers = itertools.count()

    def new() -> DuckDBStore:
        settings = DuckDBSettings(threads=1, readers=1, keep_minutes_h=20, keep_hours_d=2)
        made.append(DuckDBStore(tmp_path / f"{next(numbers)}.duckdb", settings))
        return made[-1]

    yield new
    for store in made:
        store.close()


@given(data=st.data())
@settings(
    max_examples=int(os.environ.get("VIEWMETER_TEST_QUESTIONS") or 12),
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow, HealthCheck.data_too_large],
    phases=[Phase.explicit, Phase.reuse, Phase.generate],  # a store an example: shrinking would take minutes
)
def test_a_query_over_rollups_layers_and_tiers_is_the_brute_force_over_their_increments(
    new_store: Callable[[], DuckDBStore], data: st.DataObject
) -> None:
    which = data.draw(st.sampled_from([*BASES]))
    base = T0 + BASES[which] * DAY
    everything = data.draw(st.lists(facts(base), min_size=1, max_size=25))
    store = new_store()
    cut = data.draw(st.integers(0, len(everything)))
    store.append(rows_of(everything[:cut]), Commit(1, base, {}, base))
    if data.draw(st.booleans()):
        store.compact(base + data.draw(st.integers(0, 3)) * DAY)
    store.append(rows_of(everything[cut:]), Commit(2, base, {}, base))
    if data.draw(st.booleans()):
        store.compact(base + DAYS * DAY)
    reporting = data.draw(st.sampled_from(ZONES))
    store.set_zones({"acme": reporting, "other": reporting}, base - 9 * DAY)
    closed = _close(store, everything, data, base)
    cached = Analytics(store, MemoryLiveStore())
    plain = Analytics(store, MemoryLiveStore(), QuerySettings(cache_entries=0))
    now = base + DAYS * DAY + HOUR
    answered = 0
    for question in data.draw(st.lists(questions(base), min_size=4, max_size=8)):
        visible = data.draw(
            st.sampled_from([Visible("acme"), Visible("acme", ("c1",)), Visible(None), Visible("other", ("c2", "c9"))])
        )
        zone = "UTC" if visible.tenant_id is None else reporting
        query = parse_query(question, now_ms=now)
        try:
            answer = plain.query(query, visible, now, now, zone)
        except QueryProblem as refused:
            _check_refusal(refused, closed)
            continue
        answered += 1
        for _ in range(2):
            again = cached.query(query, visible, now, now, zone)
            assert again.rows == answer.rows
        given = [to_ms(datetime.fromisoformat(answer.meta[name])) for name in ("start", "end")]
        assert given[0] <= query.start_ms < query.end_ms <= given[1]
        asked = {
            **question,
            "time_range": {"start": given[0], "end": given[1]},
            "time_zone": answer.meta["time_zone"],
        }
        _compare(answer.rows, brute_force(everything, closed, asked, visible), asked)
    event(which)
    event(f"answered {answered > 0}, closed {len(closed) > 0}")


def _close(store: DuckDBStore, everything: list[Fact], data: st.DataObject, base: int) -> set[int]:
    """Close some of the hours, build what is complete, drop what is old; return the closed hours."""
    hours = sorted({f.at_ms // HOUR for f in everything})
    how_far = data.draw(st.integers(0, len(hours)))
    chosen = hours[:how_far]  # in order, as the jobs close them
    for hour in chosen:
        rows, viewers = hours_of([f for f in everything if f.at_ms // HOUR == hour])
        store.put_hour(hour * HOUR, rows, viewers.drop_columns("hour_ms"), HourRun(1, 2, base))
    if how_far and data.draw(st.booleans()):
        until = hours[how_far] * HOUR if how_far < len(hours) else base + DAYS * DAY
        while due := store.due(until):
            for period in due:
                store.build(period.kind, period.start_ms, period.zone)
        if data.draw(st.booleans()):
            store.expire(base + DAYS * DAY)
    return {*chosen}


def _check_refusal(refused: QueryProblem, closed: set[int]) -> None:
    """Say whether it was right to refuse: only what closed hours cannot be cut at, or do not hold any more."""
    assert refused.code == "not_covered", refused.detail
    assert closed, refused.detail
    assert any(hint in refused.detail for hint in ("take granularity", "reaches back to", "exact viewers")), (
        refused.detail
    )


def _compare(rows: list[dict[str, Any]], expected: dict[Any, dict[str, Any]], question: dict[str, Any]) -> None:
    nothing = _metrics([fact(0, **dict.fromkeys(SUMS.values(), 0))], set())
    seen = set()
    for row in rows:
        at = to_ms(datetime.fromisoformat(row["time"]))
        key = (at, *(row[d] for d in question["dimensions"]))
        assert key not in seen
        seen.add(key)
        wanted = expected.get(key, nothing)
        for name in question["metrics"]:
            assert name in METRICS
            if wanted[name] is None:
                assert row[name] is None, (key, name)
            else:
                assert math.isclose(row[name], wanted[name], rel_tol=1e-12, abs_tol=1e-12), (key, name)
    # Groups are those that the ordering metric has rows of: an exact count has none where nobody played.
    by_exact = question["metrics"][0] == "unique_viewers_exact"
    assert {key for key, wanted in expected.items() if not by_exact or wanted["unique_viewers_exact"]} <= seen
