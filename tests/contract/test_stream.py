"""The promises of the stream jobs (stream/protocol.py), on the embedded engine with its real log and store."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from viewmeter.eventlog.embedded import EmbeddedLogReader, EmbeddedLogWriter
from viewmeter.live.embedded import MemoryLiveStore
from viewmeter.live.protocol import LiveScope
from viewmeter.model.catalogue.measures import ADDITIVE
from viewmeter.model.time import MINUTE_MS, floor_to
from viewmeter.olap.embedded import DuckDBStore
from viewmeter.olap.protocol import Scan, Visible
from viewmeter.stream.embedded import EmbeddedStream, StreamSettings
from viewmeter.testing import oracle, strategies
from viewmeter.testing.columns import to_table
from viewmeter.testing.scenario import START_MS

NAMES = tuple(m.name for m in ADDITIVE if m.name != "late_events")
ROLLUPS = ("platform", "channel", "video", "device", "audience", "delivery")
BATCH = StreamSettings(commit_every_ms=0, max_batch_events=3)


class Engine:
    """A log, and a stream engine on it that can be lost without warning. The clock is set by hand."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.now_ms = folder, START_MS
        self.writer = EmbeddedLogWriter(folder / "log", 0, lambda: self.now_ms)
        self.begin()

    def begin(self) -> None:
        self.store = DuckDBStore(self.folder / "store.duckdb")
        self.live = MemoryLiveStore()
        self.stream = EmbeddedStream(
            EmbeddedLogReader(self.folder / "log"),
            self.store,
            self.live,
            self.folder / "state",
            lambda: self.now_ms,
            BATCH,
        )
        self.stream.recover()

    def crash(self) -> None:
        """Lose everything that is not on disk."""
        self.store.close()
        self.begin()

    def append(self, events: list[dict[str, Any]]) -> None:
        self.now_ms = max(self.now_ms, events[-1]["received_at"])
        self.writer.append(to_table(events).combine_chunks().to_batches()[0])

    def sums(self, rollup: str) -> dict[str, int]:
        day = 24 * 60 * MINUTE_MS
        edges = (floor_to(START_MS, day) - 8 * day, floor_to(START_MS, day) + 8 * day)
        found = self.store.scan(Scan(rollup, NAMES, edges, Visible(None)))
        return {name: sum(found[name].to_pylist()) for name in NAMES}

    def close(self) -> None:
        self.store.close()
        self.writer.close()


@pytest.fixture
def engine(tmp_path: Path) -> Any:
    made = Engine(tmp_path)
    yield made
    made.close()


@pytest.fixture
def fresh(tmp_path_factory: pytest.TempPathFactory) -> Callable[[], Engine]:
    return lambda: Engine(tmp_path_factory.mktemp("engine"))


def expected(events: list[dict[str, Any]]) -> dict[str, int]:
    sums = dict.fromkeys(NAMES, 0)
    for fact in oracle.increments(events, 1 << 60):
        sums[fact.measure] += fact.amount
    return sums


def a_view(view: str, at_ms: int, count: int = 4) -> list[dict[str, Any]]:
    kinds = ["request", "play", *["heartbeat"] * (count - 2)]
    return [
        {
            "tenant_id": "t1", "channel_id": "c1", "video_id": "clip", "view_id": view, "viewer_hash": 7, "seq": seq,
            "type": kind, "ts": at_ms + 1_000 * seq, "received_at": at_ms + 1_000 * seq + 20,
        }
        for seq, kind in enumerate(kinds)
    ]  # fmt: skip


@given(events=strategies.event_lists(max_views=2, max_events=8, ordered=True), data=st.data())
@settings(deadline=None, max_examples=12, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_S1_every_event_counts_once_over_any_number_of_crashes(
    fresh: Callable[[], Engine], events: list[dict[str, Any]], data: st.DataObject
) -> None:
    engine = fresh()
    rest = events
    while rest:
        count = data.draw(st.integers(1, len(rest)))
        engine.append(rest[:count])
        rest = rest[count:]
        for happening in data.draw(st.lists(st.sampled_from(("turn", "turn", "save", "crash")), max_size=4)):
            if happening == "turn":
                engine.stream.turn()
            elif happening == "save":
                engine.stream.save_state()
            else:
                engine.crash()
    engine.now_ms += 3_600_000
    engine.stream.settle()
    engine.crash()
    assert {rollup: engine.sums(rollup) for rollup in ROLLUPS} == dict.fromkeys(ROLLUPS, expected(events))
    engine.close()


def test_S1_an_event_that_waited_for_its_predecessor_survives_a_crash(engine: Engine) -> None:
    first, second, third, _ = a_view("v", START_MS)
    engine.append([first, third])
    engine.stream.turn()
    engine.stream.save_state()
    engine.crash()
    assert engine.stream.figures().waiting_events == 1
    engine.append([second])
    engine.stream.turn()
    assert engine.sums("video")["events"] == 3
    assert engine.sums("video")["lost_events"] == 0


def test_S2_flush_returns_when_all_that_is_durable_is_in_store_and_live_answers(engine: Engine) -> None:
    engine.stream.start()
    engine.append(a_view("v1", START_MS)[:1] + a_view("v2", START_MS)[1:2])  # v2 waits for its seq 0
    engine.stream.flush()
    assert engine.sums("video")["attempts"] == 2
    figures = engine.live.read(LiveScope(Visible("t1"), video_id="clip"), engine.now_ms)
    assert figures.window["attempts"] == 2
    assert figures.concurrent_views == 2
    engine.stream.stop()


def test_S2_a_flush_that_cannot_be_met_in_time_says_so(engine: Engine) -> None:
    with pytest.raises(TimeoutError, match="did not catch up"):
        engine.stream.flush(timeout_s=0.01)  # the jobs were never started


@given(events=strategies.event_lists(max_views=2, max_events=8, ordered=True), data=st.data())
@settings(deadline=None, max_examples=8, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_S3_events_in_order_give_the_same_sums_however_they_were_cut(
    fresh: Callable[[], Engine], events: list[dict[str, Any]], data: st.DataObject
) -> None:
    sums = []
    for _ in range(2):
        engine, rest = fresh(), events
        while rest:
            count = data.draw(st.integers(1, len(rest)))
            engine.append(rest[:count])
            rest = rest[count:]
            if data.draw(st.booleans()):
                engine.stream.turn()
        engine.stream.settle()
        sums.append({rollup: engine.sums(rollup) for rollup in ROLLUPS})
        engine.close()
    assert sums[0] == sums[1]


def test_S4_a_view_silent_for_five_minutes_ends_with_no_further_event(engine: Engine) -> None:
    engine.append(a_view("v", START_MS)[:1])
    engine.stream.turn()
    assert engine.sums("video")["exits_before_start"] == 0
    engine.now_ms += 310_000
    engine.stream.turn()
    assert engine.sums("video")["exits_before_start"] == 1


def test_what_was_live_is_live_again_after_a_crash(engine: Engine) -> None:
    engine.append(a_view("v", START_MS))
    engine.stream.settle()
    engine.crash()
    figures = engine.live.read(LiveScope(Visible("t1"), video_id="clip"), engine.now_ms)
    assert figures.window["plays"] == 1
    assert figures.concurrent_viewers == 1


def test_S1_holds_when_the_state_folder_was_deleted(engine: Engine) -> None:
    events = a_view("v", START_MS, count=9)
    for event in events[:6]:
        engine.append([event])
        engine.stream.turn()
    engine.stream.save_state()
    shutil.rmtree(engine.folder / "state")
    engine.crash()
    assert engine.stream.figures().views == 1
    engine.append(events[2:])  # four of them again
    engine.now_ms += 3_600_000
    engine.stream.settle()
    sums = engine.sums("video")
    assert sums.pop("duplicate_events") == 4
    assert sums == {name: amount for name, amount in expected(events).items() if name != "duplicate_events"}


def test_a_view_forgotten_after_two_hours_frees_its_place(engine: Engine) -> None:
    engine.append(a_view("v", START_MS))
    engine.stream.turn()
    assert engine.stream.figures().views == 1
    engine.now_ms += 2 * 3_600_000 + 61_000
    engine.stream.turn()
    assert engine.stream.figures().views == 0
    engine.append([{**e, "view_id": "w", "received_at": engine.now_ms, "ts": engine.now_ms} for e in a_view("w", 0)])
    engine.stream.settle()
    assert engine.sums("video")["attempts"] == 2


def test_a_commit_that_fails_is_tried_again_and_nothing_is_left_out(
    engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    append, failures = engine.store.append, [OSError("disk full"), OSError("disk full")]

    def flaky(rows: Any, commit: Any) -> None:
        if failures:
            raise failures.pop()
        append(rows, commit)

    monkeypatch.setattr(engine.store, "append", flaky)
    monkeypatch.setattr("viewmeter.stream.embedded._RETRIES_S", (0, 0, 0))
    engine.append(a_view("v", START_MS))
    engine.stream.settle()
    assert engine.sums("video")["events"] == 4


def test_groups_of_forgotten_views_are_dropped_and_the_others_keep_their_words(
    engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("viewmeter.stream.core.GROUPS_SPARE", 1)
    old = [{**e, "video_id": f"v{n}", "channel_id": f"c{n}"} for n in range(9) for e in a_view(f"old{n}", START_MS)]
    engine.append(old)
    engine.stream.turn()
    later = START_MS + 2 * 3_600_000 + 70_000
    engine.append([{**e, "video_id": "v8", "channel_id": "c8"} for e in a_view("new", later)])
    engine.stream.turn()  # forgets the old views
    engine.append([{**e, "seq": e["seq"] + 4, "ts": e["ts"] + 9_000} for e in a_view("new", later)[2:]])
    engine.stream.settle()
    found = engine.store.scan(
        Scan(
            "channel",
            ("events",),
            (floor_to(later, MINUTE_MS), floor_to(later, MINUTE_MS) + 600_000),
            Visible("t1"),
            ("channel_id",),
        )
    )
    assert {row["channel_id"]: row["events"] for row in found.to_pylist()} == {"c8": 6}
    assert len(engine.stream._core.groups["video"]) == 1


def test_the_watermark_never_passes_the_moment_at_which_the_log_was_looked_at(
    engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine.append(a_view("v", START_MS))
    looked, step = engine.now_ms, engine.stream._core.step

    def slow(*arguments: Any) -> Any:
        engine.now_ms += 5_000  # what arrives meanwhile is not in
        return step(*arguments)

    monkeypatch.setattr(engine.stream._core, "step", slow)
    engine.stream.settle()
    found = engine.store.last_commit()
    assert found is not None
    assert found.watermark_ms <= looked
