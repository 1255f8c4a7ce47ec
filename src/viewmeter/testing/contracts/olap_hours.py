"""Closing hours, replacing them, and staleness (olap/protocol.py, O5 to O7, O9, O11); see `olap_batch.py`."""

from __future__ import annotations

import threading
from collections.abc import Callable

import pytest

from viewmeter.model.time import Interval
from viewmeter.olap.protocol import (
    HourKeptError,
    HourTouchedError,
    JobRun,
    Scan,
    Snapshot,
    TimeSeriesStore,
)
from viewmeter.testing.contracts.facts import DAY, HOUR, MINUTE, T0, fact, hours_of, rows_of
from viewmeter.testing.contracts.olap import ACME, commit
from viewmeter.testing.contracts.olap_asking import ask, build_due, part, put, run_of, total
from viewmeter.testing.contracts.olap_hammer import Hammer


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

    def test_O6_work_on_one_state_begins_anew_when_an_hour_closes_under_it(self, store: TimeSeriesStore) -> None:
        store.append(rows_of([fact(0, plays=1)]), commit(1))
        tries: list[tuple[int, int]] = []

        def work(state: Snapshot) -> int:
            closed = len(state.coverage("UTC").closed_hours)
            if not tries:
                tries.append((closed, -1))
                closing = threading.Thread(target=put, args=(store, 0, [fact(0, plays=100)]))
                closing.start()
                closing.join()
            (row,) = ask(state, "plays", parts=part("minute" if closed else "speed"))
            tries.append((closed, row["plays"]))
            return int(row["plays"])

        assert store.read(lambda state: len(state.coverage("UTC").closed_hours), scans=1) == 0
        assert store.read(work, scans=1) in (1, 100)
        assert tries[-1] in ((0, 1), (1, 100)), "an hour of one state was read from the layer of another"
        assert store.read(lambda state: len(state.coverage("UTC").closed_hours), scans=1) == 1
        for scans in (1, 2):
            assert store.read(lambda state: ask(state, "plays", parts=part("minute"))[0]["plays"], scans) == 100

    def test_O6_the_first_rows_of_an_hour_are_seen_to_wait(self, store: TimeSeriesStore) -> None:
        def waiting() -> tuple[int, ...]:
            return store.read(lambda state: state.coverage("UTC").waiting_hours, scans=1)

        for number, hour in enumerate((0, HOUR, HOUR, 2 * HOUR), 1):
            store.append(rows_of([fact(hour, plays=1)]), commit(number))
            assert waiting()[-1] == T0 + hour
        assert waiting() == (T0, T0 + HOUR, T0 + 2 * HOUR)

    def test_O6_no_answer_shows_an_hour_twice_or_not_at_all(self, store: TimeSeriesStore) -> None:
        """Hours close, are replaced and get built while rows arrive; every answer holds all committed rows once."""
        hammer = Hammer(store)
        assert hammer.run() == []
        plays = hammer.close_all()
        assert store.stale_hours() == []
        assert total(store) == plays

    def test_O6_an_open_hour_is_not_closed_by_a_run_that_missed_a_commit_of_it(self, store: TimeSeriesStore) -> None:
        store.append(rows_of([fact(0, plays=1)]), commit(1))
        store.append(rows_of([fact(0, plays=1)]), commit(2))
        for _ in range(2):
            with pytest.raises(HourTouchedError, match="commit 2"):
                put(store, 0, [fact(0, plays=1)], run_of(seen=1))
            assert store.closed(Interval(T0, T0 + HOUR)) == []
            assert total(store) == 2
            store.compact(T0 + DAY)  # which keeps the number of the last one
        store.append(rows_of([fact(HOUR, plays=1)]), commit(3))  # of another hour
        put(store, 0, [fact(0, plays=2)], run_of(seen=2))
        assert total(store) == 3
        put(store, 0, [fact(0, plays=2, seeks=1)], run_of(seen=1))  # what is closed never had the newer rows
        assert store.stale_hours() == [T0]

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
        put(store, 0, [fact(0, plays=5)], run_of(seen=1, version=3))
        build_due(store, DAY)
        store.append(rows_of([fact(0, plays=1)]), commit(2))
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
        put(store, 0, [fact(0, plays=1)])
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
