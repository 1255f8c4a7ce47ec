"""Local days, weeks and months, against the standard library's own clock."""

from datetime import UTC, datetime
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from viewmeter.model.calendar import hour_step_ms, period_of, periods, zone_of
from viewmeter.model.time import DAY_MS, HOUR_MS, MINUTE_MS, Interval, from_ms, to_ms

ZONES = ("UTC", "Europe/Berlin", "America/Sao_Paulo", "Asia/Kolkata", "Asia/Kathmandu", "Australia/Lord_Howe",
         "Pacific/Apia", "America/St_Johns")  # fmt: skip


def at(text: str, zone: str) -> int:
    return to_ms(datetime.fromisoformat(text).replace(tzinfo=ZoneInfo(zone)))


@given(
    instant=st.integers(to_ms(datetime(2000, 1, 1, tzinfo=UTC)), to_ms(datetime(2036, 1, 1, tzinfo=UTC))),
    kind=st.sampled_from(["day", "week", "month"]),
    zone=st.sampled_from(ZONES),
)
def test_a_period_holds_its_instant_and_shares_its_local_date(instant: int, kind: str, zone: str) -> None:
    where = zone_of(zone)
    period = period_of(instant, kind, where)  # type: ignore[arg-type]
    assert period.start_ms <= instant < period.end_ms
    first, last = from_ms(period.start_ms, where), from_ms(period.end_ms - 1, where)
    before, after = from_ms(period.start_ms - 1, where), from_ms(period.end_ms, where)
    key = {
        "day": lambda t: t.date(),
        "week": lambda t: t.isocalendar()[:2],
        "month": lambda t: (t.year, t.month),
    }[kind]
    assert key(first) == key(last)
    assert key(before) != key(first)
    assert key(after) != key(last)
    assert period.start_ms % hour_step_ms(zone) == 0


@pytest.mark.parametrize(("day", "hours"), [("2026-03-29", 23), ("2026-10-25", 25), ("2026-06-01", 24)])
def test_a_day_is_as_long_as_its_zone_makes_it(day: str, hours: int) -> None:
    period = period_of(at(f"{day}T12:00", "Europe/Berlin"), "day", zone_of("Europe/Berlin"))
    assert period.end_ms - period.start_ms == hours * HOUR_MS


def test_a_day_that_the_zone_skipped_does_not_exist() -> None:
    """Samoa went from 29 to 31 December 2011."""
    start = at("2011-12-29T00:00", "Pacific/Apia")
    days = list(periods(Interval(start, start + 2 * DAY_MS), "day", zone_of("Pacific/Apia")))
    assert [from_ms(d.start_ms, ZoneInfo("Pacific/Apia")).day for d in days] == [29, 31]


@pytest.mark.parametrize(
    ("zone", "minutes"),
    [("UTC", 60), ("Europe/Berlin", 60), ("Asia/Kolkata", 30), ("Australia/Lord_Howe", 30), ("Asia/Kathmandu", 15)],
)
def test_hour_rows_are_as_long_as_the_offsets_allow(zone: str, minutes: int) -> None:
    assert hour_step_ms(zone) == minutes * MINUTE_MS
