"""Which rows answer which piece of a range: disjoint, all of it, as coarse as fits; or a refusal that helps."""

import itertools
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from viewmeter.model.calendar import hour_step_ms, period_of, periods, zone_of
from viewmeter.model.catalogue import ROLLUPS
from viewmeter.model.time import Interval
from viewmeter.olap.protocol import Coverage, Part
from viewmeter.query import QueryProblem
from viewmeter.query.parts import Ground, Kept, merged, minus
from viewmeter.query.question import GRANULARITIES
from viewmeter.testing.contracts.facts import DAY, HOUR, MINUTE, T0

VIDEO, CROSS, AUDIENCE = (Kept.of(ROLLUPS[name]) for name in ("video", "cross", "audience"))
SAMPLES = Kept.of(ROLLUPS["concurrency"])
QUARTER = 15 * MINUTE
LATER = "2027-03-01T00:00:00Z"
ZONES = ["UTC", "Europe/Berlin", "America/New_York", "Asia/Kolkata", "Asia/Kathmandu", "Australia/Lord_Howe"]


def coverage(
    zone: str = "UTC", closed: tuple[int, int] = (-90, 60), minute_from: int = 0, hour_from: int = -30
) -> Coverage:
    """Return what a store holds at T0 + 60 days: all closed days (counted from T0) are built; arguments are days."""
    start, end = T0 + closed[0] * DAY, T0 + closed[1] * DAY
    spans = {}
    for kind in ("day", "week", "month"):
        whole = (p for p in periods(Interval(start, end), kind, zone_of(zone)) if p.end_ms <= end)
        spans[kind] = tuple(merged(whole))
    return Coverage(
        closed_hours=(Interval(start, end),),
        minute_from_ms=T0 + minute_from * DAY,
        hour_from_ms=min(T0 + hour_from * DAY, spans["day"][-1].end_ms),  # nothing goes before its day is built
        days=spans["day"],
        weeks=spans["week"],
        months=spans["month"],
        hour_step_ms=hour_step_ms(zone),
        viewers_from_ms=0,
    )


def parts(ground: Ground, edges: tuple[int, ...], kept: Kept = VIDEO) -> list[tuple[str, float, float]]:
    """Return the parts in hours from T0."""
    found = ground.parts(edges, kept)
    return [(p.table, (p.interval.start_ms - T0) / HOUR, (p.interval.end_ms - T0) / HOUR) for p in found]


# --- by example -----------------------------------------------------------------------------------------------


def test_closed_hours_come_from_batch_rows_and_open_ones_from_the_speed_layer() -> None:
    ground = Ground(coverage(closed=(0, 1)), "UTC")
    assert parts(ground, (T0 + 22 * HOUR, T0 + 26 * HOUR)) == [("hour", 22, 24), ("speed", 24, 26)]


def test_a_piece_of_a_closed_hour_comes_from_its_minutes() -> None:
    ground = Ground(coverage(closed=(0, 1)), "UTC")
    edges = (T0 + 20 * HOUR + 17 * MINUTE, T0 + 23 * HOUR + 5 * MINUTE)
    assert parts(ground, edges) == [
        ("minute", 20 + 17 / 60, 21),
        ("hour", 21, 23),
        ("minute", 23, 23 + 5 / 60),
    ]


def test_whole_months_weeks_and_days_come_from_theirs() -> None:
    # T0 is Friday, 15 January 2027: the month of February, the week of 18 January, days on either side.
    ground = Ground(coverage(), "UTC")
    start, feb, march = T0, T0 + 17 * DAY, T0 + 45 * DAY
    found = parts(ground, (start, march + 12 * HOUR))
    assert found == [
        ("day", 0, 3 * 24),
        ("week", 3 * 24, 17 * 24),
        ("month", (feb - T0) / HOUR, (march - T0) / HOUR),
        ("hour", 45 * 24, 45 * 24 + 12),
    ]


@pytest.mark.parametrize(("rows_a_day", "tables"), [(1_000, {"day"}), (2_000, {"day", "week", "month"})])
def test_sums_are_read_from_days_alone_where_these_are_few(rows_a_day: int, tables: set[str]) -> None:
    ground = Ground(replace(coverage(), rows_a_day={"video": rows_a_day}), "UTC")
    edges = (T0 - 85 * DAY, T0 - 31 * DAY)
    sums = Kept.of(ROLLUPS["video"], sums=True)
    assert {table for table, _, _ in parts(ground, edges, sums)} == tables
    # A sketch of a month is one; those of its days would have to be merged.
    assert {table for table, _, _ in parts(ground, edges, VIDEO)} == {"day", "week", "month"}


def test_buckets_of_days_are_never_read_from_weeks() -> None:
    ground = Ground(coverage(), "UTC")
    edges = tuple(T0 + day * DAY for day in range(11))
    assert parts(ground, edges) == [("day", 0, 240)]


def test_rollups_without_days_are_read_by_the_hour() -> None:
    assert parts(Ground(coverage(), "UTC"), (T0, T0 + 2 * DAY), CROSS) == [("hour", 0, 48)]


def test_of_open_hours_the_batch_layers_own_rollups_know_nothing() -> None:
    ground = Ground(coverage(closed=(0, 1)), "UTC")
    assert parts(ground, (T0 + 22 * HOUR, T0 + 26 * HOUR), CROSS) == [("hour", 22, 24)]
    assert ground.open_within(Interval(T0 + 22 * HOUR, T0 + 26 * HOUR)) == [Interval(T0 + 24 * HOUR, T0 + 26 * HOUR)]


def test_a_range_that_reaches_behind_the_minutes_is_widened_to_hours_and_behind_the_hours_to_days() -> None:
    ground = Ground(coverage(minute_from=30, hour_from=0), "UTC")
    end = T0 + 40 * DAY + 7 * MINUTE
    of_hours = ground.settle(Interval(T0 + DAY + 17 * MINUTE, end), "total", "UTC", [VIDEO], 100)
    assert of_hours.edges == (T0 + DAY, end)
    of_days = ground.settle(Interval(T0 - 2 * DAY + 17 * MINUTE, end), "total", "UTC", [VIDEO], 100)
    assert of_days.edges == (T0 - 2 * DAY, end)
    both_ends = ground.settle(Interval(T0 - 5 * DAY + HOUR, T0 - 4 * DAY + HOUR), "day", "UTC", [VIDEO], 100)
    assert both_ends.edges == (T0 - 5 * DAY, T0 - 4 * DAY, T0 - 3 * DAY)


def test_a_finer_granularity_than_the_rows_kept_is_refused_and_told_what_works() -> None:
    ground = Ground(coverage(minute_from=30, hour_from=0), "UTC")
    with pytest.raises(
        QueryProblem, match=r"take granularity hour or coarser, or a range from 2027-02-14T00:00:00Z"
    ) as one:
        ground.settle(Interval(T0 + DAY, T0 + 2 * DAY), "5m", "UTC", [VIDEO], 1000)
    assert one.value.code == "not_covered"
    with pytest.raises(QueryProblem, match="take granularity day or coarser, or a range from 2027-01-15T00:00:00Z on"):
        ground.settle(Interval(T0 - 2 * DAY, T0 + DAY), "hour", "UTC", [VIDEO], 1000)
    with pytest.raises(QueryProblem, match=r"take granularity hour or coarser$"):
        ground.settle(Interval(T0 + 31 * DAY, T0 + 32 * DAY), "minute", "UTC", [CROSS], 5000)


def test_what_is_older_than_rows_without_a_coarser_tier_is_refused() -> None:
    ground = Ground(coverage(minute_from=30, hour_from=0), "UTC")
    with pytest.raises(QueryProblem, match="rollup cross reaches back to 2027-01-15T00:00:00Z only"):
        ground.settle(Interval(T0 - 2 * DAY, T0 + DAY), "total", "UTC", [CROSS], 10)
    with pytest.raises(QueryProblem, match="rollup concurrency reaches back to 2027-02-14T00:00:00Z only"):
        ground.settle(Interval(T0 + DAY, T0 + 40 * DAY), "total", "UTC", [SAMPLES], 10)
    before_everything = Interval(T0 - 200 * DAY, T0 - 100 * DAY)
    assert ground.settle(before_everything, "total", "UTC", [CROSS], 10).edges == tuple(before_everything)


def test_days_of_another_zone_are_exact_while_hours_are_kept_and_of_the_reporting_zone_beyond() -> None:
    ground = Ground(coverage(hour_from=0), "UTC")
    exact = ground.settle(Interval(T0 + DAY, T0 + 4 * DAY), "day", "Asia/Tokyo", [VIDEO], 100)
    assert exact.zone == "Asia/Tokyo"
    assert exact.edges[1] == T0 + DAY + 15 * HOUR
    beyond = ground.settle(Interval(T0 - 4 * DAY, T0 - 2 * DAY), "day", "Asia/Tokyo", [VIDEO], 100)
    assert beyond.zone == "UTC"
    assert beyond.edges == (T0 - 4 * DAY, T0 - 3 * DAY, T0 - 2 * DAY)


def test_a_half_hour_zone_needs_minutes_or_half_hours() -> None:
    ground = Ground(coverage(minute_from=30), "UTC")
    found = ground.settle(Interval(T0 + 31 * DAY, T0 + 32 * DAY), "day", "Asia/Kolkata", [VIDEO], 100)
    assert found.zone == "Asia/Kolkata"
    assert [p[0] for p in parts(ground, found.edges)] == ["hour", "minute", "hour"]  # 18:00 is cut at 18:30
    older = ground.settle(Interval(T0 + DAY, T0 + 3 * DAY), "day", "Asia/Kolkata", [VIDEO], 100)
    assert older.zone == "UTC"
    of_half_hours = Ground(coverage("Asia/Kolkata", minute_from=30), "Asia/Kolkata")
    same = of_half_hours.settle(Interval(T0 + DAY, T0 + 3 * DAY), "day", "Asia/Kolkata", [VIDEO], 100)
    assert same.zone == "Asia/Kolkata"
    assert {p[0] for p in parts(of_half_hours, same.edges)} == {"hour", "day"}


def test_everything_asked_for_together_is_cut_at_the_same_edges() -> None:
    ground = Ground(coverage(minute_from=30, hour_from=0), "UTC")
    found = ground.settle(Interval(T0 + 35 * DAY + MINUTE, T0 + 36 * DAY), "total", "UTC", [VIDEO, CROSS], 10)
    assert found.edges == (T0 + 35 * DAY, T0 + 36 * DAY)


# --- for any range ----------------------------------------------------------------------------------------------


@st.composite
def grounds(draw: st.DrawFn) -> tuple[Ground, Coverage, str]:
    zone = draw(st.sampled_from(ZONES))
    hour_from = draw(st.integers(-80, 20))
    minute_from = draw(st.integers(hour_from, 60))
    closed = (draw(st.integers(-90, -60)), draw(st.integers(-10, 60)))
    made = coverage(zone, closed, minute_from, hour_from)
    return Ground(made, zone), made, zone


@given(
    made=grounds(),
    start=st.integers(-100 * 96, 60 * 96),
    length=st.integers(1, 90 * 96),
    granularity=st.sampled_from(GRANULARITIES),
    asked=st.sampled_from(ZONES),
    kept=st.sampled_from([VIDEO, AUDIENCE, CROSS]),
)
@settings(max_examples=150, deadline=None)
def test_parts_are_disjoint_cover_the_range_and_are_the_coarsest_that_fit(
    made: tuple[Ground, Coverage, str], start: int, length: int, granularity: str, asked: str, kept: Kept
) -> None:
    ground, covers, zone = made
    wanted = Interval(T0 + start * QUARTER, T0 + (start + length) * QUARTER)
    try:
        settled = ground.settle(wanted, granularity, asked, [kept], 2_000)  # type: ignore[arg-type]
    except QueryProblem:
        return  # what is refused, and how, is said by example
    edges = settled.edges
    whole = Interval(edges[0], edges[-1])
    assert whole.start_ms <= wanted.start_ms < wanted.end_ms <= whole.end_ms
    found = ground.parts(edges, kept)
    spans = [p.interval for p in found]
    assert spans == sorted(spans)
    assert all(a.end_ms <= b.start_ms for a, b in itertools.pairwise(spans))
    unanswered = minus([whole], spans)
    assert unanswered == ([] if kept.speed else ground.open_within(whole))
    for quarter in range(whole.start_ms - whole.start_ms % QUARTER, whole.end_ms, QUARTER):
        if quarter >= whole.start_ms and not _gap(quarter, unanswered):
            assert _table_at(quarter, found) == _expected(quarter, edges, covers, zone, kept)


def _gap(at: int, gaps: list[Interval]) -> bool:
    return any(g.start_ms <= at < g.end_ms for g in gaps)


def _table_at(at: int, found: tuple[Part, ...]) -> str:
    (table,) = [p.table for p in found if p.interval.start_ms <= at < p.interval.end_ms]
    return table


def _expected(at: int, edges: tuple[int, ...], covers: Coverage, zone: str, kept: Kept) -> str:
    """Return the coarsest table of which the row that holds the instant lies whole between two edges."""
    closed = covers.closed_hours[0]
    for kind in ("month", "week", "day"):
        row = period_of(at, kind, zone_of(zone))
        built = any(b.start_ms <= row.start_ms and row.end_ms <= b.end_ms for b in covers.built(kind))
        if kind in kept.tiers and built and _whole(row, edges) and not _in_month(row, kind, edges, covers, zone, kept):
            return kind
    if not closed.start_ms <= at < closed.end_ms:
        return "speed"
    step = HOUR if kept.hourly else covers.hour_step_ms
    row = Interval(at - at % step, at - at % step + step)
    first_day = next(
        p
        for p in periods(Interval(covers.hour_from_ms - 1, T0 + 99 * DAY), "day", zone_of(zone))
        if p.start_ms >= covers.hour_from_ms
    )
    if at >= first_day.start_ms and _whole(row, edges) and row.end_ms <= closed.end_ms:
        return "hour"
    return "minute"


def _in_month(row: Interval, kind: str, edges: tuple[int, ...], covers: Coverage, zone: str, kept: Kept) -> bool:
    """Say whether a week lies partly in a month that is read as such: it is not read then."""
    if kind != "week" or "month" not in kept.tiers:
        return False
    for end in (row.start_ms, row.end_ms - 1):
        month = period_of(end, "month", zone_of(zone))
        built = any(b.start_ms <= month.start_ms and month.end_ms <= b.end_ms for b in covers.months)
        if built and _whole(month, edges):
            return True
    return False


def _whole(row: Interval, edges: tuple[int, ...]) -> bool:
    return (
        edges[0] <= row.start_ms and row.end_ms <= edges[-1] and not any(row.start_ms < e < row.end_ms for e in edges)
    )


@pytest.mark.parametrize("zone", ZONES)
def test_a_leap_year_and_days_of_23_and_25_hours_are_whole_days(zone: str) -> None:
    start = 1_830_297_600_000  # 2028-01-01T00:00:00Z
    year = Interval(start - start % DAY, start - start % DAY + 366 * DAY)
    days = tuple(merged(periods(year, "day", zone_of(zone))))
    base = coverage(zone)
    full = Coverage(days, 0, 0, days, (), (), base.hour_step_ms, 0)
    first, last = days[0].start_ms, days[0].end_ms
    edges = (first, *(p.end_ms for p in periods(Interval(first, last), "day", zone_of(zone))))
    assert len(edges) - 1 in (366, 367)
    assert [p.table for p in Ground(full, zone).parts(edges, VIDEO)] == ["day"]
    lengths = {(b - a) / HOUR for a, b in itertools.pairwise(edges)}
    assert lengths == {
        "UTC": {24.0}, "Asia/Kolkata": {24.0}, "Asia/Kathmandu": {24.0},
        "Australia/Lord_Howe": {23.5, 24.0, 24.5},
    }.get(zone, {23.0, 24.0, 25.0})  # fmt: skip


def test_what_closed_hours_alone_know_is_missing_from_the_first_open_hour_with_rows_on() -> None:
    base = coverage()

    def known(*closed: tuple[int, int], waiting: tuple[int, ...] = ()) -> list[float | None]:
        spans = tuple(Interval(T0 + a * HOUR, T0 + b * HOUR) for a, b in closed)
        hours = tuple(T0 + hour * HOUR for hour in waiting)
        ground = Ground(replace(base, closed_hours=spans, waiting_hours=hours, days=(), weeks=(), months=()), "UTC")
        found = [ground.known_until(Interval(T0, T0 + end * HOUR)) for end in (4, 8)]
        return [None if at is None else (at - T0) / HOUR for at in found]

    assert known((0, 8)) == [None, None]
    assert known((0, 1), (3, 8)) == [None, None]  # nobody watched from 1 to 3
    assert known((0, 1), (3, 8), waiting=(2,)) == [2, 2]
    assert known((0, 1), (5, 7)) == [None, 7]  # from 7 on it may yet come; at 4 it is known that nothing did
    assert known((0, 1), (5, 7), waiting=(7,)) == [None, 7]
    assert known((0, 1), waiting=(3, 6)) == [3, 3]
    assert known((0, 1)) == [1, 1]
    assert known() == [0, 0]
