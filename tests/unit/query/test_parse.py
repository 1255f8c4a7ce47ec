"""Questions as people write them: what is understood, and how a refusal teaches."""

from datetime import UTC, datetime
from typing import Any

import pytest

from viewmeter.model.problems import PROBLEMS
from viewmeter.model.time import to_ms
from viewmeter.olap.protocol import Filter
from viewmeter.query import Query, QueryProblem, parse_query, query_from_params

NOW = to_ms(datetime(2026, 11, 25, 10, 30, 20, tzinfo=UTC))
DAY = 86_400_000


def parse(**raw: Any) -> Query:
    return parse_query({"metrics": ["plays"], **raw}, now_ms=NOW)


def refusal(**raw: Any) -> QueryProblem:
    with pytest.raises(QueryProblem) as caught:
        parse(**raw)
    problem = caught.value
    assert problem.status == PROBLEMS[problem.code].status == 422
    assert {e["code"] for e in problem.errors} <= {*PROBLEMS}
    return problem


def at(text: str) -> int:
    return to_ms(datetime.fromisoformat(text))


def test_the_documented_example_is_understood() -> None:
    query = parse_query(
        {
            "channel_id": "c1", "video_id": "v1",
            "time_range": {"start": "2026-11-24T00:00:00Z", "end": "2026-11-25T00:00:00Z"},
            "time_zone": "Europe/Berlin", "granularity": "hour", "metrics": ["plays", "rebuffer_ratio"],
            "dimensions": ["country"], "filters": [["is", "country", ["DE", "AT"]], ["is_not", "os", ["iOS"]]],
            "order_by": [["plays", "desc"]], "limit": 100, "explain": False,
        },
        now_ms=NOW,
    )  # fmt: skip
    assert query == Query(
        start_ms=at("2026-11-24T00:00:00Z"),
        end_ms=at("2026-11-25T00:00:00Z"),
        metrics=("plays", "rebuffer_ratio"),
        granularity="hour",
        zone="Europe/Berlin",
        dimensions=("country",),
        filters=(
            Filter("channel_id", ("c1",)),
            Filter("video_id", ("v1",)),
            Filter("country", ("DE", "AT")),
            Filter("os", ("iOS",), negate=True),
        ),
        order_by=(("plays", "desc"),),
        limit=100,
    )


def test_parameters_say_the_same_as_a_body() -> None:
    params = {
        "channel_id": "c1",
        "start": "2026-11-24T00:00:00Z",
        "end": str(at("2026-11-25T00:00:00Z")),
        "metrics": "plays, rebuffer_ratio",
        "dimensions": "country",
        "filters": '[["is","country",["DE","AT"]]]',
        "order_by": "plays:desc,country",
        "limit": "7",
        "explain": "true",
        "granularity": "day",
    }
    body = {
        "channel_id": "c1",
        "time_range": {"start": "2026-11-24T00:00:00Z", "end": "2026-11-25T00:00:00Z"},
        "metrics": ["plays", "rebuffer_ratio"],
        "dimensions": ["country"],
        "filters": [["is", "country", ["DE", "AT"]]],
        "order_by": [["plays", "desc"], ["country", "asc"]],
        "limit": 7,
        "explain": True,
        "granularity": "day",
    }
    assert parse_query(query_from_params(params), now_ms=NOW) == parse_query(body, now_ms=NOW)


@pytest.mark.parametrize(
    ("given", "start", "end"),
    [
        ("24h", "2026-11-24T10:30:00Z", "2026-11-25T10:31:00Z"),
        ("7d", "2026-11-18T10:30:00Z", "2026-11-25T10:31:00Z"),
        ("30d", "2026-10-26T10:30:00Z", "2026-11-25T10:31:00Z"),
        ("90m", "2026-11-25T09:00:00Z", "2026-11-25T10:31:00Z"),
        ("month", "2026-11-01T00:00:00Z", "2026-11-25T10:31:00Z"),
        ({"start": "2026-11-24T00:00:30Z", "end": "2026-11-24T00:01:01Z"}, "2026-11-24T00:00Z", "2026-11-24T00:02Z"),
        ({"start": "2026-11-24T01:00:00+01:00", "end": "2026-11-24T01:00:00Z"}, "2026-11-24T00Z", "2026-11-24T01Z"),
        ({"start": "2026-11-24"}, "2026-11-24T00:00:00Z", "2026-11-25T10:31:00Z"),
    ],
)
def test_ranges_become_whole_minutes(given: Any, start: str, end: str) -> None:
    query = parse(time_range=given)
    assert (query.start_ms, query.end_ms) == (at(start), at(end))


def test_a_time_without_offset_and_the_month_belong_to_the_zone_of_the_query() -> None:
    query = parse(time_range={"start": "2026-11-24", "end": "2026-11-25T12:00:00"}, time_zone="Asia/Kolkata")
    assert query.start_ms == at("2026-11-24T00:00:00+05:30")
    assert query.end_ms == at("2026-11-25T12:00:00+05:30")
    assert parse(time_range="month", time_zone="Asia/Kolkata").start_ms == at("2026-11-01T00:00:00+05:30")


def test_a_plus_that_arrives_as_a_space_is_still_an_offset() -> None:
    raw = query_from_params({"metrics": "plays", "start": "2026-11-24T00:00:00 01:00", "end": str(NOW)})
    assert parse_query(raw, now_ms=NOW).start_ms == at("2026-11-23T23:00:00Z")


@pytest.mark.parametrize(
    ("raw", "code", "field", "teaches"),
    [
        ({"metrics": ["playz"]}, "unknown_metric", "metrics[0]", "plays"),
        ({"metrics": []}, "invalid_query", "metrics", "at least one"),
        ({"metrics": 7}, "invalid_query", "metrics", "list of names"),
        ({"dimensions": ["countri"]}, "unknown_dimension", "dimensions[0]", "country"),
        ({"granularity": "daily"}, "invalid_granularity", "granularity", "day"),
        ({"time_zone": "Europe/Berlinn"}, "invalid_time_zone", "time_zone", "Europe/Berlin"),
        ({"time_zone": "../etc/passwd"}, "invalid_time_zone", "time_zone", "IANA"),
        ({"time_zone": "Europe"}, "invalid_time_zone", "time_zone", "IANA"),
        ({"time_range": "yesterday"}, "invalid_time_range", "time_range", "24h"),
        ({"time_range": {"start": "x"}}, "invalid_time_range", "time_range.start", "RFC 3339"),
        ({"time_range": {"end": NOW}}, "invalid_time_range", "time_range.start", "missing"),
        ({"time_range": {"start": NOW, "end": NOW}}, "invalid_time_range", "time_range", "after the start"),
        ({"time_range": {"start": 10**20}}, "invalid_time_range", "time_range.start", "1970"),
        ({"time_range": {"start": float("nan")}}, "invalid_time_range", "time_range.start", "1970"),
        ({"time_range": {"start": True}}, "invalid_time_range", "time_range.start", "1970"),
        ({"time_range": 5}, "invalid_time_range", "time_range", "24h"),
        ({"filters": [["is", "country"]]}, "invalid_filter", "filters[0]", "three parts"),
        ({"filters": [["eq", "country", ["DE"]]]}, "invalid_filter", "filters[0][0]", "is_not"),
        ({"filters": [["is", "kountry", ["DE"]]]}, "unknown_dimension", "filters[0][1]", "country"),
        ({"filters": [["is", "country", []]]}, "invalid_filter", "filters[0][2]", "values"),
        ({"filters": [["is", "is_bot", ["maybe"]]]}, "invalid_filter", "filters[0][2]", "true or false"),
        ({"filters": "country=DE"}, "invalid_filter", "filters", "list"),
        ({"order_by": [["playz", "desc"]]}, "invalid_query", "order_by[0]", "plays"),
        ({"order_by": [["events_by_type", "desc"]]}, "invalid_query", "order_by[0]", "histogram"),
        ({"limit": 0}, "invalid_query", "limit", "10,000"),
        ({"limit": 10_001}, "invalid_query", "limit", "10,000"),
        ({"limit": True}, "invalid_query", "limit", "number"),
        ({"channel_id": ["c1"]}, "invalid_query", "channel_id", "one id"),
        ({"explain": "yes"}, "invalid_query", "explain", "true or false"),
        ({"metric": ["plays"]}, "invalid_query", "metric", "metrics"),
    ],
)  # fmt: skip
def test_a_refusal_names_the_field_and_what_would_be_right(
    raw: dict[str, Any], code: str, field: str, teaches: str
) -> None:
    problem = refusal(**raw)
    found = {e["field"]: e for e in problem.errors}
    assert found[field]["code"] == code
    assert teaches in found[field]["detail"]


def test_all_that_is_wrong_is_said_at_once() -> None:
    problem = refusal(metrics=["playz"], granularity="x", limit=-1)
    assert {e["field"] for e in problem.errors} == {"metrics[0]", "granularity", "limit"}
    assert "2 more" in problem.detail


@pytest.mark.parametrize(
    ("params", "code"),
    [
        ({"filters": "country=DE"}, "invalid_filter"),
        ({"order_by": "[oops"}, "invalid_query"),
        ({"metrix": "plays"}, "invalid_query"),
        ({"start": "2026-11-24", "time_range": "24h"}, "invalid_time_range"),
    ],
)
def test_parameters_that_cannot_be_read_are_refused(params: dict[str, str], code: str) -> None:
    with pytest.raises(QueryProblem) as caught:
        query_from_params({"metrics": "plays", **params})
    assert caught.value.code == code


def test_a_filter_takes_one_value_without_a_list_and_truths_as_they_are() -> None:
    assert parse(filters=[["is", "country", "DE"]]).filters == (Filter("country", ("DE",)),)
    assert parse(filters=[["is", "is_bot", [True]]]).filters == (Filter("is_bot", ("true",)),)
    assert parse(filters=[["is", "asn", [3320]]]).filters == (Filter("asn", ("3320",)),)
