"""The promises of the batch jobs (batch/protocol.py), on the embedded ones with their real log, archive and store."""

from __future__ import annotations

import dataclasses
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hours import clamped
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from viewmeter.archive.embedded import EmbeddedArchive
from viewmeter.batch.child import Request, run_here, run_in_child
from viewmeter.batch.embedded import BatchSettings, EmbeddedBatch
from viewmeter.batch.protocol import BatchFailedError, HourBusyError, HourNotOverError
from viewmeter.eventlog.embedded import EmbeddedLogReader, EmbeddedLogWriter
from viewmeter.live.embedded import MemoryLiveStore
from viewmeter.model.catalogue.measures import ADDITIVE
from viewmeter.model.time import DAY_MS, HOUR_MS, MINUTE_MS, Interval, floor_to
from viewmeter.olap.embedded import DuckDBStore
from viewmeter.olap.protocol import Part, Scan, Visible
from viewmeter.stream.embedded import EmbeddedStream, StreamSettings
from viewmeter.testing import oracle, oracle_views, strategies
from viewmeter.testing.columns import to_table

T0 = floor_to(1_800_000_000_000, DAY_MS)
SUMS = tuple(m.name for m in ADDITIVE if m.name != "late_events")
ENDS = ("ended_views", "measured_views", "watched_views", "content_watched_ms", "content_ms")


class DiedError(BaseException):
    """The process was killed here."""


class Product:
    """Log, archive, store, stream and batch jobs in a folder; the clock is set by hand."""

    def __init__(self, root: Path) -> None:
        self.root, self.now_ms = root, T0
        self.die_after = -1
        self.writer = EmbeddedLogWriter(root / "log", 0, lambda: self.now_ms)
        self.begin()

    def begin(self) -> None:
        clock = lambda: self.now_ms  # noqa: E731
        self.log = EmbeddedLogReader(self.root / "log")
        self.store = DuckDBStore(self.root / "store.duckdb")
        self.archive = EmbeddedArchive(self.root / "archive", self.log, clock)
        self.stream = EmbeddedStream(
            self.log, self.store, MemoryLiveStore(), self.root / "state", clock, StreamSettings(commit_every_ms=0)
        )
        self.stream.recover()
        self.batch = EmbeddedBatch(
            self.archive, self.root / "archive", self.store, self.root / "batch", clock,
            BatchSettings(part_events=40, rerun_after_s=0), runner=self.run,
        )  # fmt: skip

    def run(self, request: Request, stopping: Callable[[], bool], timeout_s: float) -> None:
        self.step()
        run_here(request, stopping, timeout_s)
        self.step()

    def step(self) -> None:
        self.die_after -= 1
        if self.die_after == 0:
            raise DiedError

    def crash(self) -> None:
        """Lose what is not on disk."""
        self.close_readers()
        self.begin()

    def close_readers(self) -> None:
        self.archive.close()
        self.store.close()
        self.log.close()

    def close(self) -> None:
        self.close_readers()
        self.writer.close()

    def send(self, events: list[dict[str, Any]]) -> None:
        self.now_ms = max(self.now_ms, *(e["received_at"] for e in events))
        self.writer.append(to_table(events).combine_chunks().to_batches()[0])
        self.stream.settle()

    def later(self, ms: int) -> None:
        self.now_ms += ms
        self.stream.settle()

    def sums(self, table: Any, interval: Interval) -> dict[str, int]:
        names = (*SUMS, *ENDS) if table != "speed" else SUMS
        question = Scan("video", names, tuple(interval), Visible(None), parts=(Part(table, interval),))
        found = self.store.scan(question)
        return {name: sum(found[name].to_pylist()) for name in names}


@pytest.fixture
def product(tmp_path: Path) -> Iterator[Product]:
    made = Product(tmp_path)
    yield made
    made.close()


@pytest.fixture
def fresh(tmp_path_factory: pytest.TempPathFactory) -> Callable[[], Product]:
    return lambda: Product(tmp_path_factory.mktemp("product"))


def a_view(view: str, at_ms: int, beats: int = 4) -> list[dict[str, Any]]:
    kinds = ["request", "play", *["heartbeat"] * beats]
    return [
        {
            "tenant_id": "t1", "channel_id": "c1", "video_id": "clip", "view_id": view, "viewer_hash": hash(view) % 997,
            "seq": seq, "type": kind, "ts": at_ms + 30_000 * seq, "received_at": at_ms + 30_000 * seq + 20,
        }
        for seq, kind in enumerate(kinds)
    ]  # fmt: skip


def expected(events: list[dict[str, Any]], interval: Interval) -> dict[str, int]:
    later = max(e["ts"] for e in events) + DAY_MS
    sums = dict.fromkeys((*SUMS, *ENDS), 0)
    for fact in oracle.increments(events, later):
        if interval.start_ms <= fact.instant_ms < interval.end_ms and fact.measure in sums:
            sums[fact.measure] += fact.amount
    inside = [v for v in oracle_views.ended_views(events, later) if interval.start_ms <= v.instant_ms < interval.end_ms]
    per_view = oracle_views.per_view_sums(inside)
    return sums | {name: per_view.get(name, 0) for name in ENDS}


def hour(number: int) -> Interval:
    return Interval(T0 + number * HOUR_MS, T0 + (number + 1) * HOUR_MS)


@given(events=strategies.event_lists(max_views=3, max_events=10), shift=st.integers(0, HOUR_MS - 1), data=st.data())
@settings(deadline=None, max_examples=10, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_B1_closed_hours_are_what_the_oracle_says_and_B2_whatever_step_a_run_dies_at(
    fresh: Callable[[], Product], events: list[dict[str, Any]], shift: int, data: st.DataObject
) -> None:
    product = fresh()
    base = min(e["ts"] for e in events)
    events = clamped(events, floor_to(T0 - base, HOUR_MS) + HOUR_MS + shift)
    events = [{**e, "received_at": e["ts"] + 100 + i} for i, e in enumerate(events)]
    events.sort(key=lambda e: e["received_at"])
    product.send(events)
    product.later(3 * HOUR_MS)
    product.die_after = data.draw(st.integers(0, 6))
    try:
        product.batch.turn()
    except DiedError:
        product.crash()
        product.batch.turn()
    everything = Interval(T0 - 2 * DAY_MS, T0 + 2 * DAY_MS)
    got = product.sums("hour", everything)
    assert got == expected(events, everything)
    assert product.batch.turn() is None
    assert product.sums("hour", everything) == got
    product.close()


def test_B1_an_hour_computed_in_a_child_process_is_the_same(product: Product) -> None:
    events = a_view("v", T0 + 59 * MINUTE_MS)
    product.send(events)
    product.later(2 * HOUR_MS)
    product.batch._runner = run_in_child
    product.batch.run_hour(T0 + HOUR_MS)
    assert [product.sums("hour", hour(n)) for n in (0, 1)] == [expected(events, hour(n)) for n in (0, 1)]


def test_B2_a_run_repeated_gives_the_same_rows(product: Product) -> None:
    product.send(a_view("v", T0))
    product.later(2 * HOUR_MS)
    first = product.batch.run_hour(T0)
    before = product.sums("minute", hour(0))
    again = product.batch.run_hour(T0)
    assert again.number > first.number
    assert product.sums("minute", hour(0)) == before


def test_B2_a_run_that_fails_leaves_the_hour_as_it_was_and_is_tried_again(product: Product) -> None:
    product.send(a_view("v", T0))
    product.later(2 * HOUR_MS)

    def broken(*_: Any) -> None:
        raise BatchFailedError("the child was killed")

    works, product.batch._runner = product.batch._runner, broken
    product.batch.turn()
    product.batch.turn()
    assert product.batch.check() == "the child was killed"
    assert [run.state for run in product.batch.history()] == ["failed"]
    assert not product.store.closed(hour(0))
    product.batch._runner = works
    product.batch.turn()
    assert product.batch.check() is None
    assert product.sums("hour", hour(0))["plays"] == 1


def test_B3_a_late_event_runs_its_hour_again_and_the_following_ones_it_changes(product: Product) -> None:
    events = a_view("v", T0 + 55 * MINUTE_MS, beats=20)
    late = events.pop(3)
    other = a_view("w", T0 + 3 * HOUR_MS)
    product.send(events)
    product.later(3 * HOUR_MS)
    product.send(other)
    product.later(3 * HOUR_MS)
    product.batch.turn()
    ran = len(product.batch.history())
    product.send([{**late, "received_at": product.now_ms}])
    assert product.batch.stale() == [T0]
    product.batch.flush()
    assert product.batch.stale() == []
    assert [product.sums("hour", hour(n)) for n in (0, 1, 3)] == [
        expected([*events, late, *other], hour(n)) for n in (0, 1, 3)
    ]
    again = [run.interval.start_ms for run in product.batch.history()[: len(product.batch.history()) - ran]]
    assert T0 in again
    assert T0 + 3 * HOUR_MS not in again  # of views that the late event has nothing to do with


def test_B4_hours_are_closed_in_order_and_missed_ones_are_caught_up(product: Product) -> None:
    for number in (0, 2, 5):
        product.send(a_view(f"v{number}", T0 + number * HOUR_MS))
    product.later(2 * HOUR_MS)
    product.batch.turn()
    closed = [one.hour_ms for one in product.store.closed(Interval(T0, T0 + DAY_MS))]
    assert {T0, T0 + 2 * HOUR_MS, T0 + 5 * HOUR_MS} <= {*closed}
    order = [run.interval.start_ms for run in reversed(product.batch.history()) if run.job == "hourly"]
    assert order == sorted(order)


def test_B4_an_hour_whose_events_keep_coming_stays_open_and_holds_up_none_behind_it(product: Product) -> None:
    """Nothing that was answered is missing from a later answer: the first closing waits for a run that saw it all."""
    events = [*a_view("v", T0 + 55 * MINUTE_MS, beats=20), *a_view("w", T0 + HOUR_MS)]
    product.send(sorted(events, key=lambda e: e["received_at"]))
    product.later(3 * HOUR_MS)
    computes, coming = product.batch._runner, [a_view(f"late{n}", T0 + n * MINUTE_MS) for n in range(5)]

    def disturbed(request: Request, stopping: Callable[[], bool], timeout_s: float) -> None:
        computes(request, stopping, timeout_s)
        if request.about.hour_ms == T0 and coming:
            late = [{**event, "received_at": product.now_ms} for event in coming.pop()]
            events.extend(late)
            product.send(late)

    def answered() -> tuple[bool, int]:
        closed = bool(product.store.closed(hour(0)))
        return closed, product.sums("minute" if closed else "speed", hour(0))["plays"]

    product.batch._runner = disturbed
    product.batch.turn()
    assert answered() == (False, 2), "real time answers"
    assert product.store.closed(hour(1)), "the hour behind it is closed"
    product.batch.turn()
    assert len(coming) == 4, "an hour that was touched rests for a while"
    assert product.batch.check() is None
    with pytest.raises(HourBusyError, match="stays open"):
        product.batch.run_hour(T0)
    assert answered() == (False, 5), "three more tries"
    product.later(5 * MINUTE_MS)
    product.batch.turn()
    assert answered() == (False, 6)
    product.later(5 * MINUTE_MS)
    product.batch.turn()
    assert answered() == (True, 6)
    assert product.batch.stale() == []
    assert [product.sums("hour", hour(n)) for n in (0, 1)] == [expected(events, hour(n)) for n in (0, 1)]


def test_B4_an_hour_that_is_not_over_is_refused_and_not_closed(product: Product) -> None:
    product.send(a_view("v", T0))
    product.batch.turn()
    assert not product.store.closed(hour(0))
    with pytest.raises(HourNotOverError, match="not over"):
        product.batch.run_hour(T0)
    with pytest.raises(HourNotOverError, match="not over"):
        product.batch.run_day(T0)


def test_B4_a_complete_day_is_built_from_its_hours(product: Product) -> None:
    for number in (0, 7, 23):
        product.send(a_view(f"v{number}", T0 + number * HOUR_MS))
    product.later(3 * HOUR_MS)
    run = product.batch.run_day(T0)
    assert run.state == "done"
    day = Interval(T0, T0 + DAY_MS)
    assert product.sums("day", day) == product.sums("hour", day)
    assert product.sums("day", day)["plays"] == 3


def test_B5_flush_does_nothing_where_nothing_changed(product: Product) -> None:
    product.send(a_view("v", T0))
    product.batch.flush()
    assert product.batch.history() == []


def test_B5_flush_runs_an_hour_once_however_fast_its_events_come(product: Product) -> None:
    product.send(a_view("v", T0))
    product.later(2 * HOUR_MS)
    product.batch.turn()
    computes, runs = product.batch._runner, 0

    def disturbed(request: Request, stopping: Callable[[], bool], timeout_s: float) -> None:
        nonlocal runs
        computes(request, stopping, timeout_s)
        runs += 1
        product.send([{**event, "received_at": product.now_ms} for event in a_view(f"later{runs}", T0)])

    product.batch._runner = disturbed
    product.send([{**event, "received_at": product.now_ms} for event in a_view("late", T0)])
    product.batch.flush()
    assert runs == 1
    assert product.sums("minute", hour(0))["plays"] == 2, "what was durable at the call is in"
    assert product.batch.stale() == [T0], "what came meanwhile is the next one's"


def test_B5_a_flush_that_gives_up_says_what_is_left_and_the_hours_run_all_the_same(product: Product) -> None:
    product.send(a_view("v", T0))
    product.later(2 * HOUR_MS)
    product.batch.turn()
    computes, may_run = product.batch._runner, threading.Event()

    def held(request: Request, stopping: Callable[[], bool], timeout_s: float) -> None:
        may_run.wait()
        computes(request, stopping, timeout_s)

    product.batch._runner = held
    product.send([{**event, "received_at": product.now_ms} for event in a_view("late", T0)])
    product.batch.start()
    try:
        with pytest.raises(TimeoutError, match=r"1 closed hours .* still wait .* the first of them 2027-01-15T00"):
            product.batch.flush(0.05)
        may_run.set()
        product.batch.flush(60)
        assert product.sums("minute", hour(0))["plays"] == 2
    finally:
        may_run.set()
        product.batch.stop()


def test_B6_an_hour_cut_into_parts_gives_the_same_rows(product: Product, fresh: Callable[[], Product]) -> None:
    events = [event for n in range(30) for event in a_view(f"v{n}", T0 + n * MINUTE_MS)]
    events.sort(key=lambda e: e["received_at"])
    whole = fresh()
    whole.batch._settings = dataclasses.replace(whole.batch._settings, part_events=1_000_000)
    for one in (product, whole):
        one.send(events)
        one.later(2 * HOUR_MS)
        one.batch.turn()
    assert product.sums("minute", hour(0)) == whole.sums("minute", hour(0)) == expected(events, hour(0))
    whole.close()


def test_where_events_came_in_order_the_speed_layer_had_said_the_same(product: Product) -> None:
    events = [event for n in range(5) for event in a_view(f"v{n}", T0 + n * MINUTE_MS)]
    events.sort(key=lambda e: e["received_at"])
    for event in events:
        product.send([event])
    product.later(2 * HOUR_MS)
    run = product.batch.run_hour(T0)
    assert run.details["differences"] == {}
    assert run.details["compared"] > 20


def test_a_difference_to_the_speed_layer_is_reported_with_its_cause(product: Product) -> None:
    events = a_view("v", T0, beats=10)
    late = {**events.pop(4), "received_at": T0 + 20 * MINUTE_MS}
    product.send(events)
    product.send([late])
    product.later(2 * HOUR_MS)
    run = product.batch.run_hour(T0)
    assert run.details["late_events"] == 1
    assert set(run.details["differences"]) <= {*SUMS, "late_events"}
    if run.details["differences"]:
        assert "1 events arrived" in run.details["cause"]
