"""What every time-series store holds on its batch side (olap/protocol.py, O5 to O12).

A suite for one implementation subclasses `BatchTablesContract` and gives three fixtures: `store`, an empty one,
`fresh_store`, a function that makes more of them, and `reopened`, a function that opens what is durable of `store` as
after kill -9. The store under test keeps minutes 24 hours, hours 30 days and exact viewers 62 days (the defaults).
"""

from __future__ import annotations

import itertools
import threading
from collections.abc import Callable, Iterable, Sequence
from typing import Any, Final

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from viewmeter.model.calendar import Period, periods, zone_of
from viewmeter.model.catalogue.measures import HLL_RELATIVE_ERROR, KLL_RANK_ERROR
from viewmeter.model.sketches import hll_estimate, kll_quantile
from viewmeter.model.time import Interval, floor_to
from viewmeter.olap.protocol import (
    Coverage,
    Filter,
    HourDroppedError,
    HourKeptError,
    HourRun,
    JobRun,
    Part,
    Scan,
    Snapshot,
    Table,
    TimeSeriesStore,
    Visible,
)
from viewmeter.testing.contracts.facts import DAY, HOUR, MINUTE, T0, Fact, fact, hours_of, rows_of
from viewmeter.testing.contracts.olap import ACME, commit

Rows = list[dict[str, Any]]
KOLKATA, BERLIN = "Asia/Kolkata", "Europe/Berlin"


def run_of(seen: int = 0, version: int = 1, marks: tuple[int, ...] = ()) -> HourRun:
    """Return a run as the batch jobs have it."""
    return HourRun(version, seen, T0, marks)


def put(
    store: TimeSeriesStore,
    hour: int,
    facts: Sequence[Fact],
    run: HourRun | None = None,
    only: tuple[str, ...] | None = None,
) -> None:
    """Close an hour (counted from T0) with those of the facts that lie in it; `only` some rollups: it is quicker."""
    start = T0 + hour
    rows, viewers = hours_of([f for f in facts if start <= f.at_ms < start + HOUR], only)
    store.put_hour(start, rows, viewers.drop_columns(["hour_ms"]), run or run_of())


def build_due(store: TimeSeriesStore, before: int) -> None:
    """Build everything that is complete at an instant counted from T0."""
    for one in store.due(T0 + before):
        store.build(one.kind, one.start_ms, one.zone)


def layers(coverage: Coverage, interval: Interval, tier: Table) -> tuple[Part, ...]:
    """Plan plainly: closed hours from one tier, open ones from the speed layer."""
    parts: list[Part] = []
    at = interval.start_ms
    for closed in coverage.closed_hours:
        start, end = max(closed.start_ms, interval.start_ms), min(closed.end_ms, interval.end_ms)
        if start < end:
            parts += [Part("speed", Interval(at, start)), Part(tier, Interval(start, end))]
            at = end
    return (*parts, Part("speed", Interval(at, interval.end_ms)))


def ask(
    state: Snapshot,
    *measures: str,
    parts: Iterable[Part],
    rollup: str = "video",
    edges: Sequence[int] = (0, DAY),
    visible: Visible = ACME,
    dimensions: tuple[str, ...] = (),
    filters: tuple[Filter, ...] = (),
) -> Rows:
    """Ask; `edges` count from T0. Rows come sorted."""
    at = tuple(T0 + edge for edge in edges)
    table = state.scan(Scan(rollup, measures, at, visible, dimensions, filters, tuple(parts)))
    keys = [n for n in ("bucket", "time_ms", *dimensions) if n in table.column_names]
    return table.sort_by([(k, "ascending") for k in keys]).to_pylist()  # type: ignore[no-any-return]


def total(store: TimeSeriesStore, measure: str = "plays", tier: Table = "minute", days: float = 1) -> int:
    """Return one measure over the first days, as the plain plan answers it."""
    with store.snapshot() as state:
        end = int(days * DAY)
        parts = layers(state.coverage("UTC"), Interval(T0, T0 + end), tier)
        rows = ask(state, measure, parts=parts, edges=(0, end))
    return rows[0][measure] if rows else 0


def part(table: Table, start: int = 0, end: int = DAY, zone: str = "UTC") -> tuple[Part, ...]:
    """Return one part, counted from T0."""
    return (Part(table, Interval(T0 + start, T0 + end), zone),)


class ClosedHoursContract:
    """Closing, replacing, staleness: O5 to O7, O9, O11."""

    def test_O6_an_hour_is_answered_by_the_speed_layer_until_it_is_closed(self, store: TimeSeriesStore) -> None:
        store.append(rows_of([fact(0, plays=1), fact(HOUR, plays=10)]), commit(1))
        assert store.hours_with_rows() == [T0, T0 + HOUR]
        assert total(store) == 11
        put(store, 0, [fact(0, plays=100, ended_views=7)])
        assert store.hours_with_rows() == [T0 + HOUR]
        assert total(store) == 110
        assert total(store, "ended_views") == 7
        assert [one.hour_ms for one in store.closed(Interval(T0, T0 + DAY))] == [T0]

    def test_O6_a_snapshot_that_is_open_sees_no_hour_close(self, store: TimeSeriesStore) -> None:
        store.append(rows_of([fact(0, plays=1)]), commit(1))
        with store.snapshot() as state:
            before = state.coverage("UTC")
            closing = threading.Thread(target=put, args=(store, 0, [fact(0, plays=100)]))
            closing.start()
            closing.join()
            assert state.coverage("UTC") == before
            assert ask(state, "plays", parts=part("minute")) == []
        assert total(store) == 100

    def test_O6_no_answer_shows_an_hour_twice_or_not_at_all(self, store: TimeSeriesStore) -> None:
        """Hours close, are replaced and get built while rows arrive; every snapshot must hold all committed rows once.

        Each append adds one play to each of four hours; closing an hour moves what the speed layer had of it when the
        run began. So by hour: what a snapshot shows is never less than what was there before, and 4 hours agree
        within the appends that came meanwhile.
        """
        hours, rounds = [0, HOUR, 2 * HOUR, 3 * HOUR], 12
        appended, failures = [0], []
        done = threading.Event()
        put(store, 4 * HOUR, [fact(4 * HOUR, plays=1)])

        def append() -> None:
            for number in range(1, rounds * 2 + 1):
                store.append(rows_of([fact(hour, plays=1) for hour in hours]), commit(number))
                appended[0] = number

        def close() -> None:
            rng = itertools.cycle(hours)
            for turn in range(rounds):
                hour = next(rng)
                seen = store.last_commit()
                number = 0 if seen is None else seen.number
                some = [fact(hour + MINUTE * i, plays=1) for i in range(number)]
                put(store, hour, some, run_of(number), only=("video", "platform"))
                if turn == rounds // 2:
                    store.build("day", T0, "UTC") if not store.hours_with_rows() else None

        def guarded(what: Callable[[], None]) -> Callable[[], None]:
            def work() -> None:
                try:
                    what()
                except BaseException as failure:
                    failures.append(failure)

            return work

        def watch() -> None:
            """Every hour shows all appends up to the run that closed it, and nothing of anybody else."""
            while not done.is_set():
                low = appended[0]
                with store.snapshot() as state:
                    coverage = state.coverage("UTC")
                    parts = layers(coverage, Interval(T0, T0 + 5 * HOUR), "minute")
                    edges = (0, HOUR, 2 * HOUR, 3 * HOUR, 4 * HOUR, 5 * HOUR)
                    shown = {row["bucket"]: row["plays"] for row in ask(state, "plays", parts=parts, edges=edges)}
                    again = {row["bucket"]: row["plays"] for row in ask(state, "plays", parts=parts, edges=edges)}
                    closed = {t for i in coverage.closed_hours for t in range(i.start_ms, i.end_ms, HOUR)}
                    speed = {
                        row["bucket"]: row["plays"] for row in ask(state, "plays", parts=part("speed"), edges=edges)
                    }
                high = appended[0] + 1
                assert shown == again
                assert shown[4] == 1
                for bucket, hour in enumerate(hours):
                    if T0 + hour not in closed:
                        assert low <= shown.get(bucket, 0) <= high
                        assert shown.get(bucket, 0) == speed.get(bucket, 0)
                    else:
                        assert shown.get(bucket, 0) <= speed.get(bucket, 0)

        threads = [threading.Thread(target=guarded(work)) for work in (append, close)]
        readers = [threading.Thread(target=guarded(watch)) for _ in range(2)]
        for thread in (*threads, *readers):
            thread.start()
        for thread in threads:
            thread.join()
        done.set()
        for thread in readers:
            thread.join()
        assert failures == []
        for hour in hours:
            put(store, hour, [fact(hour + MINUTE * i, plays=1) for i in range(rounds * 2)], run_of(rounds * 2))
        assert store.stale_hours() == []
        assert total(store) == 4 * rounds * 2 + 1

    def test_O7_the_same_rows_put_twice_count_once(self, store: TimeSeriesStore) -> None:
        facts = [fact(0, plays=1, viewer=1), fact(MINUTE, plays=2, viewer=2), fact(0, concurrent_viewers=3)]
        for _ in range(2):
            put(store, 0, facts)
        assert total(store) == 3
        assert total(store, tier="hour") == 3
        with store.snapshot() as state:
            assert state.exact_viewers(Scan("video", (), (T0, T0 + HOUR), ACME)).to_pylist() == [
                {"bucket": 0, "unique_viewers_exact": 2}
            ]
            assert ask(state, "concurrent_viewers", rollup="concurrency", parts=part("minute")) == [
                {"bucket": 0, "time_ms": T0, "concurrent_viewers": 3}
            ]

    def test_O5_a_closed_hour_and_its_tiers_survive(
        self, store: TimeSeriesStore, reopened: Callable[[], TimeSeriesStore]
    ) -> None:
        store.append(rows_of([fact(0, plays=1)]), commit(1))
        put(store, 0, [fact(0, plays=5)], run_of(seen=0, version=3))
        build_due(store, DAY)
        again = reopened()
        assert total(again) == total(again, tier="hour") == total(again, tier="day") == 5
        assert again.stale_hours() == [T0]
        assert again.closed(Interval(T0, T0 + HOUR))[0].archive_version == 3
        again.close()

    def test_O9_an_append_to_a_closed_hour_makes_it_stale_until_a_run_saw_it(self, store: TimeSeriesStore) -> None:
        store.append(rows_of([fact(0, plays=1)]), commit(1))
        put(store, 0, [fact(0, plays=1)], run_of(seen=1))
        assert store.stale_hours() == []
        store.append(rows_of([fact(0, plays=1), fact(5 * HOUR, plays=1)]), commit(2))
        assert store.stale_hours() == [T0]
        assert total(store) == 2  # the old rows of the closed hour, and the open one
        put(store, 0, [fact(0, plays=1)], run_of(seen=1))
        assert store.stale_hours() == [T0]
        store.compact(T0 + DAY)
        assert store.stale_hours() == [T0]
        put(store, 0, [fact(0, plays=2)], run_of(seen=2))
        assert store.stale_hours() == []
        assert total(store) == 3

    def test_O9_rows_that_came_between_the_run_and_its_end_are_not_forgotten(self, store: TimeSeriesStore) -> None:
        store.append(rows_of([fact(0, plays=1)]), commit(1))
        seen = store.last_commit()
        assert seen is not None
        store.append(rows_of([fact(0, plays=1)]), commit(2))
        put(store, 0, [fact(0, plays=1)], run_of(seen=seen.number))
        assert store.stale_hours() == [T0]

    def test_O9_a_run_marks_the_hours_that_it_changes_in_its_own_transaction(self, store: TimeSeriesStore) -> None:
        put(store, HOUR, [fact(HOUR, plays=1)])
        put(store, 0, [fact(0, plays=1)], run_of(marks=(T0 + HOUR, T0 + 9 * HOUR)))
        assert store.stale_hours() == [T0 + HOUR]  # an hour that is open needs no mark
        put(store, HOUR, [fact(HOUR, plays=1)])
        assert store.stale_hours() == []
        store.mark_stale([T0, T0 + HOUR, T0 + 2 * HOUR])
        assert store.stale_hours() == [T0, T0 + HOUR]

    def test_O11_loaded_rows_are_never_replaced(self, store: TimeSeriesStore) -> None:
        store.load(rows_of([fact(0, plays=3)]))
        assert store.hours_with_rows() == []
        with pytest.raises(HourKeptError):
            put(store, 0, [fact(0, plays=1)])
        store.compact(T0 + DAY)
        with pytest.raises(HourKeptError):
            put(store, 0, [fact(0, plays=1)])
        assert total(store) == 3

    def test_O11_history_is_closed_kept_and_in_every_tier(self, store: TimeSeriesStore) -> None:
        facts = [fact(hour * HOUR, plays=1, viewer=hour % 5) for hour in range(24)]
        rows, viewers = hours_of(facts)
        store.put_history(Interval(T0, T0 + DAY), rows, viewers, T0 + DAY)
        build_due(store, DAY)
        assert total(store) == total(store, tier="hour") == total(store, tier="day") == 24
        with pytest.raises(HourKeptError):
            put(store, HOUR, [fact(HOUR, plays=1)])
        with pytest.raises(ValueError, match="closed already"):
            store.put_history(Interval(T0, T0 + HOUR), {}, viewers.slice(0, 0), T0 + DAY)
        with pytest.raises(ValueError, match="is closed"):
            store.load(rows_of([fact(0, plays=1)]))
        store.append(rows_of([fact(0, plays=1)]), commit(1))
        store.mark_stale([T0])
        assert store.stale_hours() == []
        with store.snapshot() as state:
            edges = (T0, T0 + 2 * HOUR, T0 + DAY)
            found = state.exact_viewers(Scan("video", (), edges, ACME)).sort_by("bucket")
            assert found["unique_viewers_exact"].to_pylist() == [2, 5]

    def test_both_layers_are_compared_while_both_have_rows(self, store: TimeSeriesStore) -> None:
        store.append(rows_of([fact(0, plays=3, seeks=1)]), commit(1))
        assert store.compare(T0) == {}
        put(store, 0, [fact(0, plays=2, seeks=1)], run_of(seen=1))
        found = store.compare(T0)
        assert (found["plays"], found["seeks"], found["pauses"]) == ((3, 2), (1, 1), (0, 0))
        store.expire(T0 + DAY)
        assert store.compare(T0) == {}

    def test_rows_outside_of_the_hour_or_unknown_are_refused_and_leave_nothing(self, store: TimeSeriesStore) -> None:
        rows, viewers = hours_of([fact(HOUR, plays=1)])
        viewers = viewers.drop_columns(["hour_ms"])
        with pytest.raises(ValueError, match="outside"):
            store.put_hour(T0, rows, viewers, run_of())
        with pytest.raises(ValueError, match="whole hours"):
            store.put_hour(T0 + 1, {}, viewers, run_of())
        with pytest.raises(ValueError, match="nothing"):
            store.put_hour(T0, {"nothing": rows["video"]}, viewers, run_of())
        assert store.closed(Interval(T0, T0 + DAY)) == []

    def test_the_history_of_runs_is_paged_newest_first(self, store: TimeSeriesStore) -> None:
        for hour in range(5):
            job = "hourly" if hour % 2 == 0 else "daily"
            interval = Interval(T0 + hour * HOUR, T0 + (hour + 1) * HOUR)
            number = store.note_run(JobRun(job, interval, T0, T0 + 1, "done", hour, {"plays": [1, 2]}))
            assert number == hour + 1
        assert [run.rows for run in store.runs(limit=2)] == [4, 3]
        assert [run.rows for run in store.runs(before=4)] == [2, 1, 0]
        assert [run.rows for run in store.runs(job="daily")] == [3, 1]
        assert store.runs(limit=1)[0].details == {"plays": [1, 2]}


class TiersContract:
    """Coarser rows, zones, what is dropped: O8 and O10."""

    @given(data=st.data())
    @settings(
        max_examples=6,
        deadline=None,
        suppress_health_check=[HealthCheck.function_scoped_fixture],
        phases=[Phase.explicit, Phase.reuse, Phase.generate],  # a store an example: shrinking would take minutes
    )
    def test_O8_every_tier_has_the_same_measures_after_any_replacement(
        self, fresh_store: Callable[[], TimeSeriesStore], data: st.DataObject
    ) -> None:
        """Facts over a change of the clock in Berlin (28 March 2027), in days of three zones."""
        zone = data.draw(st.sampled_from(["UTC", KOLKATA, BERLIN]))
        spans_of: dict[Period, int] = {"day": 3, "week": 10, "month": 20}
        kind, days = data.draw(st.sampled_from([*spans_of.items()]))
        base = 71 * DAY
        facts = data.draw(st.lists(_facts(base), min_size=1, max_size=8))
        late = data.draw(st.lists(_facts(base), max_size=3))
        store = fresh_store()
        store.set_zones({"acme": zone}, T0)
        for hour in sorted({floor_to(f.at_ms - T0, HOUR) for f in facts}):
            put(store, hour, facts, only=("video",))
        build_due(store, base + days * DAY)
        for hour in sorted({floor_to(f.at_ms - T0, HOUR) for f in late}):
            put(store, hour, [*facts, *late], only=("video",))
        build_due(store, base + days * DAY)
        spans = list(periods(Interval(T0 + base, T0 + base + 2 * DAY), kind, zone_of(zone)))
        edges = [span.start_ms - T0 for span in spans] + [spans[-1].end_ms - T0]
        whole = Interval(spans[0].start_ms, spans[-1].end_ms)
        with store.snapshot() as state:
            answers = [
                _readable(
                    ask(state, *_MEASURES, parts=[Part(tier, whole, zone)], edges=edges, dimensions=("video_id",))
                )
                for tier in _tiers(kind)
            ]
        assert answers[0] == answers[1] == answers[2]
        store.close()

    def test_O8_a_week_that_was_built_takes_up_a_day_before_all_others(self, store: TimeSeriesStore) -> None:
        put(store, DAY, [fact(DAY, plays=1)], only=("video",))
        build_due(store, 5 * DAY)
        put(store, 0, [fact(0, plays=10)], only=("video",))
        build_due(store, 5 * DAY)
        week = next(iter(periods(Interval(T0, T0 + 1), "week", zone_of("UTC"))))
        with store.snapshot() as state:
            edges = (week.start_ms - T0, week.end_ms - T0)
            assert state.coverage("UTC").weeks == (week,)
            assert ask(state, "plays", parts=part("week", *edges), edges=edges) == [{"bucket": 0, "plays": 11}]

    def test_O8_peaks_are_largest_and_last_over_any_tier(self, store: TimeSeriesStore) -> None:
        seen = {0: 5, 10_000: 9, HOUR: 4, 3 * HOUR: 7, DAY: 1}
        facts = [fact(at, concurrent_viewers=n, concurrent_views=n + 1) for at, n in seen.items()]
        for hour in (0, HOUR, 3 * HOUR, DAY):
            put(store, hour, facts)
        build_due(store, 2 * DAY)
        mine = (Filter("scope", ("video",)), Filter("bots", ("any",)))
        with store.snapshot() as state:
            found = [
                ask(state, "peak_viewers", "last_viewers", "peak_views", rollup="peaks", edges=(0, DAY, 2 * DAY),
                    filters=mine, parts=part(tier, 0, 2 * DAY))
                for tier in ("hour", "day")
            ]  # fmt: skip
        assert found[0] == found[1]
        assert found[0] == [
            {"bucket": 0, "peak_viewers": 9, "last_viewers": 7, "peak_views": 10},
            {"bucket": 1, "peak_viewers": 1, "last_viewers": 1, "peak_views": 2},
        ]

    def test_O8_sketches_stay_within_their_error_through_every_tier(self, store: TimeSeriesStore) -> None:
        """20,000 viewers and times in a day: too many for lists, so coarse rows hold thinned ones and sketches."""
        count, hours = 20_000, 24
        facts = [
            fact((i % hours) * HOUR, viewer=i * 7_919, startup_ms=float(i), watch_ms=float(i), plays=1)
            for i in range(count)
        ]
        rows, viewers = hours_of(facts, ("platform",))
        store.put_history(Interval(T0, T0 + DAY), rows, viewers, T0 + DAY)
        build_due(store, DAY)
        with store.snapshot() as state:
            for tier in TIERS:
                (row,) = ask(state, "plays", "viewers_hll", "startup_kll", "watch_kll", rollup="platform",
                             parts=part(tier))  # fmt: skip
                assert row["plays"] == count
                assert hll_estimate(row["viewers_hll"]) == pytest.approx(count, rel=3 * HLL_RELATIVE_ERROR)
                for name, quantile in itertools.product(("startup_kll", "watch_kll"), (0.1, 0.5, 0.95)):
                    value = kll_quantile(row[name], quantile)
                    assert value is not None
                    assert abs(value / count - quantile) < 2 * KLL_RANK_ERROR

    def test_O8_a_day_is_that_of_the_zone_and_everybody_has_days_in_UTC(self, store: TimeSeriesStore) -> None:
        store.set_zones({"acme": KOLKATA}, T0)
        at = {18 * HOUR + 29 * MINUTE: 1, 18 * HOUR + 30 * MINUTE: 10, DAY + HOUR: 100}
        facts = [fact(when, plays=n) for when, n in at.items()]
        facts += [fact(18 * HOUR + 30 * MINUTE, plays=5, tenant_id="other")]
        for hour in (18 * HOUR, DAY + HOUR):
            put(store, hour, facts)
        build_due(store, 3 * DAY)
        local = 18 * HOUR + 30 * MINUTE  # midnight in Kolkata
        with store.snapshot() as state:
            acme, other = state.coverage(KOLKATA, "acme"), state.coverage(KOLKATA, "other")
            assert (acme.hour_step_ms, state.coverage("UTC").hour_step_ms) == (30 * MINUTE, HOUR)
            assert acme.days[0].start_ms == T0 + local - DAY
            assert other.days == ()
            days = ask(state, "plays", parts=part("day", local - DAY, local + 2 * DAY, KOLKATA),
                       edges=(local - DAY, local, local + DAY), visible=Visible(None))  # fmt: skip
            assert days == [{"bucket": 0, "plays": 1}, {"bucket": 1, "plays": 110}]
            utc = ask(state, "plays", parts=part("day", 0, 2 * DAY), edges=(0, DAY, 2 * DAY), visible=Visible(None))
            assert utc == [{"bucket": 0, "plays": 16}, {"bucket": 1, "plays": 100}]

    def test_a_zone_that_is_changed_holds_from_the_next_day_on(self, store: TimeSeriesStore) -> None:
        put(store, 0, [fact(0, plays=1)])
        store.set_zones({"acme": BERLIN}, T0 + 5 * HOUR)
        put(store, 5 * DAY, [fact(5 * DAY, plays=1)])
        build_due(store, 7 * DAY)
        with store.snapshot() as state:
            assert state.coverage(BERLIN, "acme").days[0].start_ms == T0 + DAY - HOUR
            assert state.coverage("UTC").days[0].start_ms == T0

    def test_days_come_due_when_nothing_in_them_is_open_and_weeks_after_their_days(
        self, store: TimeSeriesStore
    ) -> None:
        store.append(rows_of([fact(HOUR, plays=1)]), commit(1))
        put(store, 0, [fact(0, plays=1)])
        assert store.due(T0 + DAY) == []
        with pytest.raises(ValueError, match="not closed"):
            store.build("day", T0, "UTC")
        put(store, HOUR, [fact(HOUR, plays=1)], run_of(seen=1))
        assert [(d.kind, d.start_ms) for d in store.due(T0 + DAY)] == [("day", T0)]
        with pytest.raises(ValueError, match="starts at"):
            store.build("day", T0 + HOUR, "UTC")
        with pytest.raises(ValueError, match="reports in"):
            store.build("day", T0 - 5 * HOUR - 30 * MINUTE, KOLKATA)
        week = next(iter(periods(Interval(T0, T0 + 1), "week", zone_of("UTC"))))
        with pytest.raises(ValueError, match="build it first"):
            store.build("week", week.start_ms, "UTC")
        kinds = [d.kind for d in store.due(week.end_ms)]
        assert kinds == ["day"] * ((week.end_ms - T0) // DAY) + ["week"]
        build_due(store, week.end_ms - T0)
        assert store.due(week.end_ms) == []

    def test_O10_minutes_go_after_a_day_and_hours_only_when_their_day_is_built(self, store: TimeSeriesStore) -> None:
        store.append(rows_of([fact(0, plays=3), fact(HOUR, plays=4)]), commit(1))
        put(store, 0, [fact(0, plays=3)], run_of(seen=1))
        store.expire(T0 + 2 * DAY)
        with store.snapshot() as state:
            coverage = state.coverage("UTC")
            assert (coverage.minute_from_ms, coverage.hour_from_ms) == (T0 + DAY, T0 - 28 * DAY)
            assert ask(state, "plays", parts=part("minute")) == []
            assert ask(state, "plays", parts=part("speed", HOUR)) == [{"bucket": 0, "plays": 4}]  # open: it stays
        assert total(store, tier="hour") == 7
        store.expire(T0 + 40 * DAY)
        assert total(store, tier="hour") == 7  # the day is not built: an hour is open
        put(store, HOUR, [fact(HOUR, plays=4)], run_of(seen=1))
        build_due(store, 40 * DAY)
        store.expire(T0 + 40 * DAY)
        with store.snapshot() as state:
            assert state.coverage("UTC").hour_from_ms == T0 + 10 * DAY
            assert ask(state, "plays", parts=part("hour")) == []
        assert total(store, tier="day") == 7
        assert sum(store.figures().rows.values()) == 0
        with pytest.raises(HourDroppedError):
            put(store, 0, [fact(0, plays=1)])
        with pytest.raises(ValueError, match="gone"):
            store.build("day", T0, "UTC")
        store.expire(T0 + 4 * 366 * DAY)
        assert total(store, tier="day") == 0

    def test_O10_an_old_hour_may_come_late_where_its_day_is_not_built(self, store: TimeSeriesStore) -> None:
        put(store, 50 * DAY, [fact(50 * DAY, plays=1)])
        build_due(store, 60 * DAY)
        store.expire(T0 + 90 * DAY)
        put(store, 0, [fact(0, plays=2, viewer=3)])
        store.expire(T0 + 90 * DAY)
        build_due(store, 60 * DAY)
        assert total(store, tier="day") == 2
        store.expire(T0 + 90 * DAY)
        with store.snapshot() as state:
            assert ask(state, "plays", parts=part("hour")) == []

    def test_parts_that_overlap_and_tiers_that_a_rollup_has_not_are_refused(self, store: TimeSeriesStore) -> None:
        with store.snapshot() as state, pytest.raises(ValueError, match="twice"):
            ask(state, "plays", parts=[*part("speed"), *part("minute", HOUR, 2 * HOUR)])
        with store.snapshot() as state, pytest.raises(ValueError, match="no day tier"):
            ask(state, "plays", rollup="cross", parts=part("day"))
        with store.snapshot() as state:
            assert ask(state, "plays", rollup="cross", parts=part("speed")) == []

    def test_mixed_rollups_are_there_by_the_hour(self, store: TimeSeriesStore) -> None:
        facts = [fact(0, plays=1, country="DE", os="iOS"), fact(MINUTE, plays=2, country="DE", os="Linux")]
        facts += [fact(0, retention_delta=1, percent="0"), fact(0, retention_delta=-1, percent="40")]
        put(store, 0, facts)
        build_due(store, DAY)
        both = (Filter("country", ("DE",)), Filter("os", ("iOS",)))
        with store.snapshot() as state:
            assert ask(state, "plays", rollup="cross", parts=part("hour"), filters=both) == [{"bucket": 0, "plays": 1}]
            for tier in ("hour", "day"):
                found = ask(state, "retention_delta", rollup="retention", dimensions=("percent",), parts=part(tier))
                assert [(row["percent"], row["retention_delta"]) for row in found] == [("0", 1), ("40", -1)]


class ViewersContract:
    """Exact viewers, cohorts and erasing: O12."""

    def test_exact_viewers_are_distinct_over_hours_and_by_channel(self, store: TimeSeriesStore) -> None:
        facts = [
            fact(0, viewer=1, plays=1), fact(HOUR, viewer=1, plays=1), fact(HOUR, viewer=2, plays=1),
            fact(0, viewer=1, plays=1, channel_id="c2"), fact(0, viewer=9, plays=1, is_bot="true"),
            fact(0, viewer=1, plays=1, tenant_id="other"),
        ]  # fmt: skip
        for hour in (0, HOUR):
            put(store, hour, facts)
        people = (Filter("is_bot", ("false",)),)
        with store.snapshot() as state:

            def count(*edges: int, **given: Any) -> Rows:
                scan = Scan("video", (), tuple(T0 + e for e in edges), **{"visible": ACME, "filters": people, **given})
                found = state.exact_viewers(scan)
                return found.sort_by([(n, "ascending") for n in found.column_names]).to_pylist()  # type: ignore[no-any-return]

            name = "unique_viewers_exact"
            assert count(0, HOUR, 2 * HOUR) == [{"bucket": 0, name: 1}, {"bucket": 1, name: 2}]
            assert count(0, 2 * HOUR) == [{"bucket": 0, name: 2}]
            assert count(0, 2 * HOUR, filters=()) == [{"bucket": 0, name: 3}]
            assert count(0, 2 * HOUR, visible=Visible("acme", ("c2",))) == [{"bucket": 0, name: 1}]
            assert count(0, 2 * HOUR, dimensions=("channel_id",)) == [
                {"bucket": 0, "channel_id": "c1", name: 2},
                {"bucket": 0, "channel_id": "c2", name: 1},
            ]
            with pytest.raises(ValueError, match="whole hours"):
                count(0, MINUTE)
            with pytest.raises(ValueError, match="country"):
                count(0, HOUR, dimensions=("country",))

    def test_counts_of_days_and_months_outlive_the_hours(self, store: TimeSeriesStore) -> None:
        facts = [fact(day * DAY, viewer=day % 3, plays=1, channel_id=f"c{day % 2}") for day in range(-14, 17, 4)]
        facts += [fact(0, viewer=7, plays=1)]
        for hour in sorted({f.at_ms - T0 for f in facts}):
            put(store, hour, facts, only=())
        build_due(store, 17 * DAY)  # 1 January 2027 is 14 days before T0
        store.expire(T0 + 100 * DAY)
        month = (T0 - 14 * DAY, T0 + 17 * DAY)
        with store.snapshot() as state:
            day = state.exact_viewers(Scan("video", (), (T0, T0 + DAY), ACME))
            assert day.to_pylist() == [{"bucket": 0, "unique_viewers_exact": 1}]
            assert state.exact_viewers(Scan("video", (), month, ACME)).to_pylist() == [
                {"bucket": 0, "unique_viewers_exact": 4}
            ]
            one = Scan("video", (), month, Visible("acme", ("c1",)), filters=(Filter("channel_id", ("c1",)),))
            assert state.exact_viewers(one).to_pylist() == [{"bucket": 0, "unique_viewers_exact": 1}]
            with pytest.raises(ValueError, match="not held by the hour"):
                state.exact_viewers(Scan("video", (), (T0, T0 + 2 * DAY), ACME))
            with pytest.raises(ValueError, match="not held by the hour"):
                state.exact_viewers(Scan("video", (), month, Visible("acme", ("c0", "c1"))))

    def test_cohorts_follow_viewers_from_their_first_week(self, store: TimeSeriesStore) -> None:
        """T0 is a Friday; weeks from the Monday before: 1 comes every week, 2 in the first two, 3 in the last two."""
        monday = -4 * DAY
        week = 7 * DAY
        seen = {0: (1, 2), 1: (1, 2), 2: (1, 3), 3: (1, 3)}
        facts = [fact(monday + n * week, viewer=v, plays=1) for n, viewers in seen.items() for v in viewers]
        facts += [fact(monday, viewer=8, plays=1, is_bot="true"), fact(monday, viewer=2, plays=1, channel_id="c2")]
        for n in seen:
            put(store, monday + n * week, facts)
        build_due(store, monday + 3 * week)  # the last week is told by its hours
        with store.snapshot() as state:

            def cohorts(first: int, **given: Any) -> dict[tuple[int, int], int]:
                edges = tuple(T0 + monday + n * week for n in range(first, 5))
                rows = state.cohorts(Scan("video", (), edges, ACME, **given)).to_pylist()
                return {(row["cohort"], row["later"]): row["viewers"] for row in rows}

            whole = {(0, 0): 2, (0, 1): 2, (0, 2): 1, (0, 3): 1, (2, 0): 1, (2, 1): 1}
            assert cohorts(0) == whole
            assert cohorts(1) == {(1, 0): 1, (1, 1): 1}  # 1 and 2 were there before
            only = (Filter("channel_id", ("c2",)),)
            assert cohorts(0, filters=only) == {(0, 0): 1}

    def test_O12_after_erasing_no_row_names_the_viewer(
        self, store: TimeSeriesStore, reopened: Callable[[], TimeSeriesStore]
    ) -> None:
        monday = -4 * DAY
        facts = [fact(monday + n * HOUR, viewer=v, plays=1) for n in range(2) for v in (1, 2)]
        facts += [fact(monday, viewer=1, plays=1, tenant_id="other")]
        for hour in (monday, monday + HOUR):
            put(store, hour, facts)
        build_due(store, 7 * DAY)
        assert store.erase_viewer("acme", 1) == 3  # two hours and a week
        assert store.erase_viewer("acme", 1) == 0
        for one in (store, reopened()):
            with one.snapshot() as state:
                edges = (T0 + monday, T0 + monday + DAY)
                assert state.exact_viewers(Scan("video", (), edges, ACME))["unique_viewers_exact"].to_pylist() == [1]
                other = state.exact_viewers(Scan("video", (), edges, Visible("other")))
                assert other["unique_viewers_exact"].to_pylist() == [1]
                weeks = (T0 + monday, T0 + monday + 7 * DAY)
                assert state.cohorts(Scan("video", (), weeks, ACME))["viewers"].to_pylist() == [1]


class BatchTablesContract(ClosedHoursContract, TiersContract, ViewersContract):
    """All promises of the batch side as tests."""


TIERS: Final[tuple[Table, ...]] = ("minute", "hour", "day")
_MEASURES = ("plays", "played_ms", "ended_views", "viewers_hll", "startup_kll", "watch_kll")


def _facts(base: int) -> st.SearchStrategy[Fact]:
    return st.builds(
        fact,
        st.integers(0, 2 * 24 * 4 - 8).map(lambda quarter: base + quarter * 15 * MINUTE),
        viewer=st.one_of(st.none(), st.integers(-5, 5)),
        startup_ms=st.one_of(st.none(), st.integers(0, 5000).map(float)),
        watch_ms=st.one_of(st.none(), st.integers(0, 5000).map(float)),
        video_id=st.sampled_from(["v1", "v2"]),
        plays=st.integers(-1, 5),
        played_ms=st.integers(0, 10**12),
        ended_views=st.integers(0, 3),
    )


def _tiers(kind: Period) -> tuple[Table, ...]:
    return ("minute", "hour", kind)


def _readable(rows: Rows) -> Rows:
    return [
        {
            **row,
            "viewers_hll": round(hll_estimate(row["viewers_hll"])),
            "startup_kll": kll_quantile(row["startup_kll"], 0.5),
            "watch_kll": kll_quantile(row["watch_kll"], 0.9),
        }
        for row in rows
    ]
