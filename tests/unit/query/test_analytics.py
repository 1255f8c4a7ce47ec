"""Questions over a real store: dense rows, pages, gauges, tenancy, the cache, files."""

import csv
import io
from typing import Any

import pyarrow.parquet as pq
import pytest

from viewmeter.model.catalogue import CURVES, DIMENSIONS, METRICS, ROLLUPS
from viewmeter.olap.protocol import Filter, Visible
from viewmeter.query import QueryProblem, QuerySettings, parse_query, plan
from viewmeter.testing.contracts.facts import DAY, HOUR, MINUTE, T0, fact

SECOND = 1_000
NOW = T0 + 2 * DAY


def refused(code: str, house: Any, *args: Any, **kwargs: Any) -> QueryProblem:
    with pytest.raises(QueryProblem) as caught:
        house.ask(*args, **kwargs)
    assert caught.value.code == code
    return caught.value


# --- rows -----------------------------------------------------------------------------------------------------


def test_total_without_dimensions_is_one_row_also_of_nothing(house: Any) -> None:
    found = house.ask([*METRICS])
    assert len(found.rows) == 1
    row = found.rows[0]
    assert row["time"] == "2027-01-15T00:00:00Z"
    for name, metric in METRICS.items():
        if metric.kind in ("additive", "gauge", "exact") or name == "unique_viewers":
            assert row[name] == 0, name
        elif metric.kind == "histogram":
            assert {*row[name].values()} == {0}, name
        else:
            assert row[name] is None, name


def test_rows_of_a_time_series_are_dense_and_half_open(house: Any) -> None:
    house.hold(fact(HOUR, plays=2, played_ms=90), fact(2 * HOUR - 1, plays=1), fact(3 * HOUR, plays=99))
    found = house.ask(["plays", "rebuffer_ratio"], granularity="hour", end=3 * HOUR)
    assert found.rows == [
        {"time": "2027-01-15T00:00:00Z", "plays": 0, "rebuffer_ratio": None},
        {"time": "2027-01-15T01:00:00Z", "plays": 3, "rebuffer_ratio": 0.0},
        {"time": "2027-01-15T02:00:00Z", "plays": 0, "rebuffer_ratio": None},
    ]


def test_groups_are_dense_as_well_and_times_are_of_the_zone(house: Any) -> None:
    house.hold(fact(0, plays=1, country="DE"), fact(HOUR, plays=5, country="AT"))
    found = house.ask("plays", granularity="hour", end=2 * HOUR, dimensions=["country"], time_zone="Europe/Berlin")
    assert found.rows == [
        {"time": "2027-01-15T01:00:00+01:00", "country": "AT", "plays": 0},
        {"time": "2027-01-15T02:00:00+01:00", "country": "AT", "plays": 5},
        {"time": "2027-01-15T01:00:00+01:00", "country": "DE", "plays": 1},
        {"time": "2027-01-15T02:00:00+01:00", "country": "DE", "plays": 0},
    ]


def test_metrics_are_computed_last_from_sums(house: Any) -> None:
    house.hold(
        fact(0, plays=1, played_ms=900, rebuffered_ms=100), fact(HOUR, plays=1, played_ms=100, rebuffered_ms=900)
    )
    row = house.ask(["rebuffer_ratio", "average_watch_duration_ms"]).rows[0]
    assert row["rebuffer_ratio"] == 1000 / 2000
    assert row["average_watch_duration_ms"] == 500
    thirds = house.ask("completion_rate", end=HOUR).rows[0]
    assert thirds["completion_rate"] == 0.0


def test_sums_are_whole_numbers_beyond_what_a_float_holds(house: Any) -> None:
    house.hold(fact(0, played_ms=2**53), fact(0, played_ms=1))
    assert house.ask("watch_time_ms").rows[0]["watch_time_ms"] == 2**53 + 1


def test_bots_are_left_out_unless_asked_for(house: Any) -> None:
    house.hold(fact(0, plays=1), fact(0, plays=10, is_bot="true"))
    assert house.ask("plays").rows[0]["plays"] == 1
    assert house.ask("plays", filters=[["is", "is_bot", ["true", "false"]]]).rows[0]["plays"] == 11
    by_bot = house.ask("plays", dimensions=["is_bot"]).rows
    assert [(r["is_bot"], r["plays"]) for r in by_bot] == [(True, 10), (False, 1)]


def test_sketches_count_a_viewer_once_over_buckets_and_groups(house: Any) -> None:
    house.hold(*(fact(i * HOUR, viewer=i % 3, plays=1, country="DE", startup_ms=float(i)) for i in range(9)))
    found = house.ask(["unique_viewers", "startup_time_p50_ms"])
    assert found.rows[0]["unique_viewers"] == 3
    assert found.rows[0]["startup_time_p50_ms"] == 4.0
    assert found.meta["approximate"] == {
        "unique_viewers": {"relative_standard_error": 0.0081},
        "startup_time_p50_ms": {"rank_error": 0.0133},
    }
    by_hour = house.ask("unique_viewers", granularity="hour", end=10 * HOUR, dimensions=["country"]).rows
    assert [r["unique_viewers"] for r in by_hour] == [1] * 9 + [0]


# --- gauges ---------------------------------------------------------------------------------------------------


def test_peaks_are_maxima_of_samples_added_over_videos(house: Any) -> None:
    house.hold(
        fact(0, concurrent_viewers=5, video_id="a"),
        fact(0, concurrent_viewers=1, video_id="b"),
        fact(10 * SECOND, concurrent_viewers=2, video_id="a"),
        fact(10 * SECOND, concurrent_viewers=7, video_id="b"),
    )
    assert house.ask("peak_concurrent_viewers").rows[0]["peak_concurrent_viewers"] == 9
    by_video = house.ask("peak_concurrent_viewers", dimensions=["video_id"]).rows
    assert {r["video_id"]: r["peak_concurrent_viewers"] for r in by_video} == {"a": 5, "b": 7}
    by_channel = house.ask("peak_concurrent_viewers", dimensions=["channel_id"]).rows
    assert [r["peak_concurrent_viewers"] for r in by_channel] == [9]


def test_concurrent_viewers_of_a_bucket_are_its_last_sample(house: Any) -> None:
    house.hold(
        fact(40 * SECOND, concurrent_viewers=4),
        fact(50 * SECOND, concurrent_viewers=3),
        fact(60 * SECOND, concurrent_viewers=2),
    )
    found = house.ask("concurrent_viewers", granularity="minute", end=3 * MINUTE).rows
    assert [r["concurrent_viewers"] for r in found] == [3, 0, 0]  # nobody at 1:50, so there is no row


def test_an_open_bucket_ends_at_its_newest_sample(house: Any) -> None:
    house.hold(fact(0, concurrent_viewers=4), fact(10 * SECOND, concurrent_viewers=3))

    def now(seconds: int) -> int:
        found = house.ask("concurrent_viewers", granularity="hour", end=HOUR, now_ms=T0 + seconds * SECOND)
        count: int = found.rows[0]["concurrent_viewers"]
        return count

    assert now(15) == 3
    assert now(29) == 3
    assert now(45) == 0  # samples of 20 s ago are there for certain, and nobody is in them


@pytest.mark.parametrize("dimension", [d for d in DIMENSIONS if d not in ("video_id", "channel_id")])
def test_peaks_by_anything_else_are_not_covered(house: Any, dimension: str) -> None:
    problem = refused("not_covered", house, "peak_concurrent_viewers", dimensions=[dimension])
    assert dimension in problem.detail
    assert "video_id" in problem.detail


def test_plays_and_peaks_in_one_answer_come_from_two_rollups(house: Any) -> None:
    house.hold(
        fact(0, plays=2, video_id="a"), fact(0, plays=9, video_id="b"), fact(0, concurrent_viewers=3, video_id="a")
    )
    found = house.ask(["plays", "peak_concurrent_viewers"], dimensions=["video_id"], explain=True)
    assert [(r["video_id"], r["plays"], r["peak_concurrent_viewers"]) for r in found.rows] == [("b", 9, 0), ("a", 2, 3)]
    assert [s["rollup"] for s in found.meta["plan"]["scans"]] == ["video", "concurrency"]


# --- planning -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("raw", "rollup"),
    [
        ({}, "platform"),
        ({"channel_id": "c1"}, "channel"),
        ({"dimensions": ["channel_id"]}, "channel"),
        ({"video_id": "v1"}, "video"),
        ({"dimensions": ["os"]}, "device"),
        ({"dimensions": ["city"], "filters": [["is", "country", ["DE"]]]}, "audience"),
        ({"dimensions": ["cdn"], "video_id": "v1"}, "delivery"),
    ],
)
def test_the_smallest_rollup_that_covers_is_taken(raw: dict[str, Any], rollup: str) -> None:
    query = parse_query({"metrics": ["plays"], **raw}, now_ms=NOW)
    assert [s.rollup for s in plan(query, Visible("acme")).sources] == [rollup]


def test_a_key_of_channels_never_reads_a_rollup_without_channels() -> None:
    query = parse_query({"metrics": ["plays", "peak_concurrent_viewers"]}, now_ms=NOW)
    sources = plan(query, Visible("acme", ("c1",))).sources
    assert all("channel_id" in ROLLUPS[s.rollup].dimensions for s in sources)


def test_mixed_dimensions_are_refused_with_what_goes_together(house: Any) -> None:
    problem = refused("not_covered", house, "plays", dimensions=["country", "asn"])
    assert "device_type with os with browser" in problem.detail
    assert "country with device_type with os with browser with player with stream_type" in problem.detail
    refused("not_covered", house, "plays", dimensions=["country"], filters=[["is", "cdn", ["x"]]])


# --- order, pages, bounds -------------------------------------------------------------------------------------


def test_groups_come_by_order_by_with_unknown_values_last(house: Any) -> None:
    house.hold(
        fact(0, plays=4, completes=1, country="a"),
        fact(0, plays=4, completes=2, country="b"),
        fact(0, attempts=4, country="c"),
        fact(0, plays=1, completes=1, country="d"),
    )

    def order(**raw: Any) -> str:
        rows = house.ask(["completion_rate", "plays"], dimensions=["country"], **raw).rows
        return "".join(r["country"] for r in rows)

    assert order() == "dbac"
    assert order(order_by=[["completion_rate", "asc"]]) == "abdc"
    assert order(order_by=[["plays", "desc"], ["country", "desc"]]) == "badc"
    assert order(order_by=[["country", "desc"]]) == "dcba"
    assert order(order_by=[["attempts", "desc"]]) == "cabd"


@pytest.mark.parametrize("way", ["asc", "desc"])
@pytest.mark.parametrize("granularity", ["total", "hour"])
@pytest.mark.parametrize("by", ["completion_rate", "country", "unique_viewers"])
def test_pages_put_together_are_the_whole(house: Any, way: str, granularity: str, by: str) -> None:
    house.hold(
        *(
            fact(i % 2 * HOUR, plays=i % 4, completes=i % 3, viewer=i, country=f"c{i:02}", city=f"x{i % 5}")
            for i in range(23)
        )
    )
    asked = {
        "metrics": ["plays", "completion_rate", "unique_viewers"], "dimensions": ["country", "city"], "end": 2 * HOUR,
        "granularity": granularity, "order_by": [[by, way]],
    }  # fmt: skip
    whole = house.ask(**asked)
    assert (whole.next_cursor, whole.meta["truncated"]) == (None, False)
    rows, cursor, pages = [], None, 0
    while pages == 0 or cursor:
        found = house.ask(**asked, limit=5, cursor=cursor)
        assert found.meta["truncated"] == (found.next_cursor is not None)
        rows += found.rows
        cursor = found.next_cursor
        pages += 1
    assert pages == 5
    assert rows == whole.rows


def test_a_page_goes_on_where_the_last_one_ended_though_groups_came_in_between(house: Any) -> None:
    house.hold(*(fact(0, plays=10 - i, country=f"c{i}") for i in range(4)))
    first = house.ask("plays", dimensions=["country"], limit=2)
    house.hold(fact(0, plays=99, country="new"))
    second = house.ask("plays", dimensions=["country"], limit=2, cursor=first.next_cursor)
    assert [r["country"] for r in second.rows] == ["c2", "c3"]


def test_a_cursor_of_another_query_or_of_nobody_is_refused(house: Any) -> None:
    house.hold(*(fact(0, plays=1, country=f"c{i}") for i in range(4)))
    cursor = house.ask("plays", dimensions=["country"], limit=2).next_cursor
    refused("invalid_cursor", house, "events", dimensions=["country"], limit=2, cursor=cursor)
    for broken in ("x", "", "!!", cursor[:-4], "WzEsMl0"):
        if broken:
            refused("invalid_cursor", house, "plays", dimensions=["country"], limit=2, cursor=broken)


def test_an_answer_that_would_be_too_large_is_refused_with_a_way_out(house: Any) -> None:
    house.with_settings(QuerySettings(rows_max=100))
    house.hold(*(fact(0, plays=1, country=f"c{i}") for i in range(10)))
    problem = refused("too_many_rows", house, "plays", granularity="hour", dimensions=["country"])
    assert "limit of 4" in problem.detail
    assert len(house.ask("plays", granularity="hour", dimensions=["country"], limit=4).rows) == 96
    refused("too_many_rows", house, "plays", granularity="minute")


# --- tenancy --------------------------------------------------------------------------------------------------


def test_what_a_key_may_not_see_is_as_if_it_did_not_exist(house: Any) -> None:
    house.hold(
        fact(0, plays=1, tenant_id="acme", channel_id="c1"),
        fact(0, plays=2, tenant_id="acme", channel_id="c2"),
        fact(0, plays=4, tenant_id="other", channel_id="c1", country="XX"),
        fact(0, concurrent_viewers=8, tenant_id="other", channel_id="c1"),
    )
    mine, creator, nobody = Visible("acme"), Visible("acme", ("c2",)), Visible("nobody")
    assert house.ask("plays", mine).rows[0]["plays"] == 3
    assert house.ask("plays", creator).rows[0]["plays"] == 2
    assert house.ask("plays", Visible(None)).rows[0]["plays"] == 7
    assert house.ask("peak_concurrent_viewers", mine).rows[0]["peak_concurrent_viewers"] == 0
    assert [r["country"] for r in house.ask("plays", mine, dimensions=["country"]).rows] == ["unknown"]
    for visible, given in ((creator, {"channel_id": "c1"}), (nobody, {"video_id": "v1"}), (nobody, {})):
        foreign = house.ask(["plays", "unique_viewers"], visible, **given)
        missing = house.ask(["plays", "unique_viewers"], visible, channel_id="no such channel")
        assert foreign.rows == missing.rows
        assert foreign.meta == {**missing.meta, "cached": foreign.meta["cached"]}


def test_no_filter_widens_what_a_key_sees(house: Any) -> None:
    house.hold(fact(0, plays=1, channel_id="c1"), fact(0, plays=2, channel_id="c2"))
    creator = Visible("acme", ("c2",))
    assert house.ask("plays", creator, filters=[["is", "channel_id", ["c1", "c2"]]]).rows[0]["plays"] == 2
    assert house.ask("plays", creator, filters=[["is_not", "channel_id", ["c2"]]]).rows[0]["plays"] == 0


def test_the_cache_tells_tenants_and_channels_apart(house: Any) -> None:
    house.hold(
        fact(0, plays=1, channel_id="c1"), fact(0, plays=2, channel_id="c2"), fact(0, plays=4, tenant_id="other")
    )
    for _ in range(2):
        for visible, plays in (
            (Visible("acme"), 3),
            (Visible("acme", ("c1",)), 1),
            (Visible("acme", ("c2",)), 2),
            (Visible("other"), 4),
            (Visible(None), 7),
        ):
            assert house.ask("plays", visible).rows[0]["plays"] == plays


# --- cache and meta -------------------------------------------------------------------------------------------


def test_an_answer_is_cached_until_rows_of_its_range_arrive(house: Any) -> None:
    house.hold(fact(0, plays=1))
    assert house.ask("plays").meta["cached"] is False
    assert house.ask("plays").meta["cached"] is True
    house.hold(fact(DAY + HOUR, plays=5))  # outside of the range
    assert house.ask("plays").meta["cached"] is True
    house.hold(fact(HOUR, plays=2))
    found = house.ask("plays")
    assert (found.meta["cached"], found.rows[0]["plays"]) == (False, 3)
    house.store.compact(NOW)
    assert house.ask("plays").meta["cached"] is True


def test_a_cached_answer_lives_5_minutes_and_one_of_the_present_1_second(house: Any) -> None:
    house.hold(fact(0, plays=1))
    for end, now_ms, lives in ((HOUR, NOW, 300 * SECOND), (HOUR, T0 + HOUR - 1, SECOND)):
        assert house.ask("plays", end=end, now_ms=now_ms).meta["cached"] is False
        assert house.ask("plays", end=end, now_ms=now_ms + lives - 1).meta["cached"] is True
        assert house.ask("plays", end=end, now_ms=now_ms + lives).meta["cached"] is False
        house.analytics.clear_cache()


def test_a_cache_of_no_entries_keeps_nothing(house: Any) -> None:
    house.with_settings(QuerySettings(cache_entries=0))
    assert [house.ask("plays").meta["cached"] for _ in range(2)] == [False, False]


def test_explain_shows_the_plan_and_does_not_change_the_answer(house: Any) -> None:
    house.hold(fact(0, plays=1, country="DE"))
    plain = house.ask("plays", dimensions=["country"])
    explained = house.ask("plays", dimensions=["country"], explain=True)
    assert explained.rows == plain.rows
    assert explained.meta["cached"] is True
    assert plain.meta["plan"] is None
    assert explained.meta["plan"]["scans"][0]["rollup"] == "audience"


def test_meta_says_how_fresh_and_how_complete_the_answer_is(house: Any) -> None:
    meta = house.ask("plays", now_ms=T0 + HOUR, watermark_ms=T0 + HOUR - 500, end=2 * HOUR).meta
    assert meta["watermark"] == "2027-01-15T00:59:59.500Z"
    assert meta["partial"] is True
    assert meta["sources"] == ["speed"]
    assert house.ask("plays").meta["partial"] is False
    assert house.ask("plays", watermark_ms=T0).meta["partial"] is True
    assert house.ask("plays", watermark_ms=None).meta["watermark"] is None


# --- files and lists ------------------------------------------------------------------------------------------


def test_csv_and_parquet_have_the_same_rows(house: Any) -> None:
    house.hold(fact(0, plays=1, events_play=3, country='D"E,'), fact(HOUR, plays=2, country="AT"))
    asked = {"dimensions": ["country", "is_bot"], "granularity": "hour", "end": 2 * HOUR, "time_zone": "Asia/Kolkata"}
    metrics = ["plays", "completion_rate", "events_by_type"]
    found = house.ask(metrics, **{**asked, "filters": [["is", "is_bot", ["false"]]]})
    lines = list(csv.DictReader(io.StringIO(found.to_csv(), newline="")))
    table = pq.read_table(io.BytesIO(found.to_parquet())).to_pylist()
    assert len(found.rows) == len(lines) == len(table) == 6
    for row, line, record in zip(found.rows, lines, table, strict=True):
        assert line["time"] == row["time"] == record["time"].isoformat()
        assert line["country"] == row["country"] == record["country"]
        assert line["is_bot"] == "false"
        assert record["is_bot"] is False
        assert int(line["plays"]) == row["plays"] == record["plays"]
        assert (float(line["completion_rate"]) if line["completion_rate"] else None) == row["completion_rate"]
        assert record["completion_rate"] == row["completion_rate"]
        assert int(line["events_by_type.play"]) == row["events_by_type"]["play"] == record["events_by_type.play"]


def test_files_of_no_rows_have_their_columns(house: Any) -> None:
    found = house.ask("plays", dimensions=["country"])
    assert found.to_csv() == "time,country,plays\r\n"
    assert pq.read_table(io.BytesIO(found.to_parquet())).column_names == ["time", "country", "plays"]


def test_the_catalogue_lists_every_metric_and_dimension_with_its_rollups(house: Any) -> None:
    metrics = {m["name"]: m for m in house.analytics.metrics_catalogue()}
    assert [*metrics] == [*METRICS, *CURVES]
    assert metrics["retention"]["address"] == "/api/v1/analytics/retention/{video_id}"
    assert metrics["qoe_score"]["parts"]["startup"] == "800 / (8 + startup_ms / startups / 1000)"
    assert metrics["watch_duration_p95_ms"]["batch_only"] is True
    assert metrics["plays"]["batch_only"] is False
    assert metrics["unique_viewers"]["error"] == 0.0081
    assert metrics["plays"]["error"] is None
    assert metrics["qoe_score"]["version"] == "qoe_v1"
    assert metrics["peak_concurrent_viewers"]["rollups"] == ["concurrency", "peaks"]
    assert all(m["formula"] and m["doc"] for m in metrics.values())
    assert [name for name, m in metrics.items() if not m["rollups"]] == ["unique_viewers_exact"]
    dimensions = {d["name"]: d for d in house.analytics.dimensions_catalogue()}
    assert [*dimensions] == [*DIMENSIONS]
    assert dimensions["country"]["rollups"] == ["audience", "cross", "retention"]


def test_filters_of_a_plan_keep_the_default_of_bots_apart() -> None:
    query = parse_query({"metrics": ["plays"]}, now_ms=NOW)
    assert plan(query, Visible("acme")).filters == (Filter("is_bot", ("false",)),)
