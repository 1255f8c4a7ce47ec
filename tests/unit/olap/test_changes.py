"""The number of a range rises with each change in it, and only then."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from viewmeter.model.time import DAY_MS, HOUR_MS, Interval
from viewmeter.olap.embedded_changes import Changes

T0 = 20_000 * DAY_MS
SOME_HOURS = st.lists(st.integers(0, 24 * 6).map(lambda hour: T0 + hour * HOUR_MS), max_size=40)
INSTANTS = st.integers(T0 - DAY_MS, T0 + 7 * DAY_MS)


@given(st.lists(SOME_HOURS, max_size=6), INSTANTS, INSTANTS)
def test_the_number_of_a_range_is_that_of_the_last_change_in_any_of_its_hours(
    noted: list[list[int]], one: int, other: int
) -> None:
    changes, interval = Changes(), Interval(min(one, other), max(one, other) + 1)
    last = 0
    for number, hours in enumerate(noted, 1):
        changes.note(hours)
        if any(hour < interval.end_ms and hour + HOUR_MS > interval.start_ms for hour in hours):
            last = number
    assert changes.number(interval) == last


def test_what_is_too_much_to_remember_has_changed_everywhere() -> None:
    changes = Changes()
    changes.note([hour * HOUR_MS for hour in range(100_001)])
    assert changes.number(Interval(T0, T0 + 1)) == 1
    changes.note([T0])
    assert changes.number(Interval(T0, T0 + 1)) == 2
    assert changes.number(Interval(T0 + DAY_MS, T0 + DAY_MS + 1)) == 1
