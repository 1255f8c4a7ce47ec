"""Buckets follow the clock on the wall: days of 23 and 25 hours, half-hour zones, midnights that do not exist."""

from datetime import UTC, datetime, timedelta
from itertools import pairwise
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from viewmeter.model.calendar import zone_of
from viewmeter.model.time import HOUR_MS, MINUTE_MS, Interval, from_ms, to_ms
from viewmeter.query import QueryProblem
from viewmeter.query.question import GRANULARITIES, Granularity
from viewmeter.query.ranges import bucket_edges

ZONES = [
    "UTC", "Europe/Berlin", "America/New_York", "America/Sao_Paulo", "Asia/Kolkata", "Asia/Kathmandu",
    "Australia/Lord_Howe", "Africa/Cairo", "America/Santiago", "Pacific/Apia", "Asia/Beirut", "America/Havana",
]  # fmt: skip


def edges(start: str, end: str, granularity: Granularity, zone: str) -> list[int]:
    interval = Interval(to_ms(datetime.fromisoformat(start)), to_ms(datetime.fromisoformat(end)))
    return list(bucket_edges(interval, granularity, zone_of(zone), 50_000))


def hours(start: str, end: str, granularity: Granularity, zone: str) -> list[float]:
    return [(b - a) / HOUR_MS for a, b in pairwise(edges(start, end, granularity, zone))]


def test_the_day_of_a_clock_change_has_23_or_25_hours() -> None:
    assert hours("2026-03-28T00:00+01:00", "2026-03-31T00:00+02:00", "day", "Europe/Berlin") == [24, 23, 24]
    assert hours("2026-10-24T00:00+02:00", "2026-10-27T00:00+01:00", "day", "Europe/Berlin") == [24, 25, 24]
    assert hours("2026-10-03T00:00+10:30", "2026-10-05T00:00+11:00", "day", "Australia/Lord_Howe") == [24, 23.5]


def test_an_hour_that_comes_twice_is_two_buckets() -> None:
    shown = edges("2026-10-25T00:00+02:00", "2026-10-26T00:00+01:00", "hour", "Europe/Berlin")
    assert len(shown) == 26
    berlin = ZoneInfo("Europe/Berlin")
    assert [from_ms(e, berlin).hour for e in shown[:5]] == [0, 1, 2, 2, 3]


def test_hours_follow_zones_of_half_and_quarter_hours() -> None:
    assert hours("2026-11-24T00:00Z", "2026-11-24T03:00Z", "hour", "Asia/Kolkata") == [0.5, 1, 1, 0.5]
    assert hours("2026-11-24T00:00Z", "2026-11-24T03:00Z", "hour", "Asia/Kathmandu") == [0.25, 1, 1, 0.75]


def test_a_day_without_midnight_starts_at_its_first_instant() -> None:
    """São Paulo, 4 November 2018: clocks went from 00:00 to 01:00."""
    shown = edges("2018-11-03T00:00-03:00", "2018-11-06T00:00-02:00", "day", "America/Sao_Paulo")
    assert [from_ms(e, ZoneInfo("America/Sao_Paulo")).isoformat() for e in shown] == [
        "2018-11-03T00:00:00-03:00", "2018-11-04T01:00:00-02:00",
        "2018-11-05T00:00:00-02:00", "2018-11-06T00:00:00-02:00",
    ]  # fmt: skip


def test_a_day_that_never_was_has_no_bucket() -> None:
    """Samoa went from 29 to 31 December 2011."""
    shown = edges("2011-12-29T00:00-10:00", "2012-01-01T00:00+14:00", "day", "Pacific/Apia")
    assert [from_ms(e, ZoneInfo("Pacific/Apia")).day for e in shown] == [29, 31, 1]


def test_weeks_start_on_monday_and_months_on_the_first() -> None:
    berlin = ZoneInfo("Europe/Berlin")
    weeks = edges("2026-03-18T12:00Z", "2026-04-10T12:00Z", "week", "Europe/Berlin")
    assert [from_ms(e, berlin).isoformat() for e in weeks[1:-1]] == [
        "2026-03-23T00:00:00+01:00", "2026-03-30T00:00:00+02:00", "2026-04-06T00:00:00+02:00",
    ]  # fmt: skip
    months = edges("2025-12-15T00:00Z", "2026-03-02T00:00Z", "month", "UTC")
    assert [from_ms(e).isoformat()[:10] for e in months] == [
        "2025-12-15", "2026-01-01", "2026-02-01", "2026-03-01", "2026-03-02",
    ]  # fmt: skip


def test_the_first_and_last_bucket_are_cut_to_the_range() -> None:
    assert hours("2026-11-24T00:30Z", "2026-11-24T02:15Z", "hour", "UTC") == [0.5, 1, 0.25]
    assert hours("2026-11-24T00:30Z", "2026-11-24T00:45Z", "day", "UTC") == [0.25]


def test_total_is_one_bucket() -> None:
    assert len(edges("2020-01-01T00:00Z", "2026-01-01T00:00Z", "total", "UTC")) == 2


def test_too_many_buckets_are_refused_before_they_are_made() -> None:
    with pytest.raises(QueryProblem) as caught:
        edges("2020-01-01T00:00Z", "2026-01-01T00:00Z", "minute", "UTC")
    assert caught.value.code == "too_many_rows"
    assert "coarser granularity" in caught.value.detail


@given(
    st.sampled_from(ZONES),
    st.sampled_from(GRANULARITIES),
    st.datetimes(datetime(2009, 1, 1), datetime(2027, 1, 1)),  # noqa: DTZ001 - made aware below
    st.integers(1, 60 * 24 * 60),
)
@settings(max_examples=150, deadline=None)
def test_edges_ascend_cover_the_range_and_stand_where_the_local_label_changes(
    zone: str, granularity: Granularity, start: datetime, minutes: int
) -> None:
    first = to_ms(start.replace(second=0, microsecond=0, tzinfo=UTC))
    interval = Interval(first, first + minutes * MINUTE_MS)
    place = zone_of(zone)
    found = bucket_edges(interval, granularity, place, 10**6)
    assert (found[0], found[-1]) == interval
    assert all(a < b for a, b in pairwise(found))
    inner = {*found[1:-1]}

    def label(instant_ms: int) -> object:
        moment = from_ms(instant_ms, place)
        whole = {"minute": 1, "5m": 5, "hour": 60}.get(granularity)
        if whole:
            return moment.date(), moment.utcoffset(), (moment.hour * 60 + moment.minute) // whole
        monday = moment.date() - timedelta(days=moment.weekday())
        return {"day": moment.date(), "week": monday, "month": moment.date().replace(day=1), "total": 0}[granularity]

    for edge in found[1:-1]:
        assert label(edge) != label(edge - MINUTE_MS)
    step = max(MINUTE_MS, minutes * MINUTE_MS // 400 // MINUTE_MS * MINUTE_MS)
    for instant in range(first + step, interval.end_ms, step):
        if not inner & {*range(instant - step + MINUTE_MS, instant + MINUTE_MS, MINUTE_MS)}:
            same_clock = from_ms(instant, place).utcoffset() == from_ms(instant - step, place).utcoffset()
            assert label(instant) == label(instant - step) or not same_clock
