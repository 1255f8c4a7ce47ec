"""Bounds: memory, queries, and beacons that are too old (rates: `test_rates.py`)."""

from __future__ import annotations

import pytest
from beacons_of_tests import T0, event

from viewmeter.collector.dialects import Decoded
from viewmeter.collector.intake import clock_shift, take
from viewmeter.collector.recent import Recent
from viewmeter.collector.request import parse_query
from viewmeter.collector.settings import CollectorSettings


def test_recent_keeps_at_least_its_size_and_at_most_twice() -> None:
    made: list[int] = []
    recent: Recent[int, int] = Recent(lambda key: made.append(key) or key * 2, 10)  # type: ignore[func-returns-value]
    assert [recent[n] for n in range(10)] == [n * 2 for n in range(10)]
    made.clear()
    assert [recent[n] for n in range(10)] == [n * 2 for n in range(10)]
    assert made == []
    for n in range(1000):
        assert recent[n] == n * 2
    assert len(recent) <= 20
    recent.clear()
    assert len(recent) == 0


@pytest.mark.parametrize(
    ("sent_at", "shift"),
    [
        (None, 0),
        ("", 0),
        ("x", 0),
        ("inf", 0),
        ("-1", 0),
        (str(T0), 0),
        (str(T0 - 10_000), 0),
        (str(T0 + 10_000), 0),
        (str(T0 - 10_001), 10_001),
        (str(T0 + 10_001), -10_001),
        ("0", T0),
        (f"{T0 - 20_000}.4", 20_000),
    ],
)
def test_a_clock_is_corrected_when_it_differs_by_more_than_10_s(sent_at: str | None, shift: int) -> None:
    assert clock_shift(sent_at, T0, 10_000) == shift


def test_the_ends_of_what_is_accepted_are_inclusive() -> None:
    settings = CollectorSettings()
    oldest, newest = T0 - settings.max_age_ms, T0 + settings.max_ahead_ms
    events = [event(ts=oldest - 1), event(ts=oldest), event(ts=newest), event(ts=newest + 1)]
    taken = take(Decoded(events), None, None, T0, settings)
    assert [(one.index, one.code) for one in taken.rejected] == [(0, "ts_too_old"), (3, "ts_in_future")]
    assert taken.events[1] == (oldest, newest)


def test_places_in_the_body_survive_what_the_dialect_rejected() -> None:
    decoded = Decoded([event(ts=0), event()], [], places=[2, 5])
    taken = take(decoded, None, None, T0, CollectorSettings())
    assert [one.index for one in taken.rejected] == [2]


def test_an_event_that_was_taken_apart_is_written_as_native() -> None:
    (rejected,) = take(Decoded([event(ts=0)]), None, None, T0, CollectorSettings()).rejected
    assert rejected.written_as == "native"


@pytest.mark.parametrize(
    ("text", "query"),
    [
        ("", {"": ""}),
        ("key=pk_a&t=5", {"key": "pk_a", "t": "5"}),
        ("key=pk%5Fa", {"key": "pk_a"}),
        ("key=a&key=b", {"key": "b"}),
        ("flag", {"flag": ""}),
    ],
)
def test_queries(text: str, query: dict[str, str]) -> None:
    assert parse_query(text) == query
