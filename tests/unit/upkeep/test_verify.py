"""Verifying a store: equal where batch runs made it, every changed sum named, and what cannot be checked said."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pytest

from viewmeter.archive.embedded import EmbeddedArchive
from viewmeter.batch import files
from viewmeter.batch.child import Request, run_here
from viewmeter.batch.embedded import EmbeddedBatch
from viewmeter.batch.settings import BatchSettings
from viewmeter.eventlog.embedded import EmbeddedLogReader, EmbeddedLogWriter
from viewmeter.model.time import DAY_MS, HOUR_MS, MINUTE_MS, Interval, floor_to
from viewmeter.olap.embedded import DuckDBStore
from viewmeter.olap.protocol import HourRun
from viewmeter.testing.columns import to_table
from viewmeter.upkeep import verify as room
from viewmeter.upkeep.verify import Findings, verify

T0 = floor_to(1_800_000_000_000, DAY_MS)


class Folder:
    """A log, an archive, a store and batch jobs over them."""

    def __init__(self, root: Path) -> None:
        self.now_ms = T0
        clock = lambda: self.now_ms  # noqa: E731
        self.writer = EmbeddedLogWriter(root / "log", 0, clock)
        self.log = EmbeddedLogReader(root / "log")
        self.store = DuckDBStore(root / "store.duckdb")
        self.archive = EmbeddedArchive(root / "archive", self.log, clock)
        settings = BatchSettings(part_events=40, rerun_after_s=0)
        self.batch = EmbeddedBatch(
            self.archive, root / "archive", self.store, root / "batch", clock, settings, runner=self.run
        )
        self.rows: dict[int, tuple[Any, Any, files.About]] = {}

    def run(self, request: Request, stopping: Any, timeout_s: float) -> None:
        run_here(request, stopping, timeout_s)
        tables, viewers = files.rows_of(Path(request.out))
        self.rows[request.about.hour_ms] = (tables, viewers, request.about)

    def send(self, *events: dict[str, Any]) -> None:
        self.writer.append(to_table(events).combine_chunks().to_batches()[0])
        self.archive.flush()

    def check(self) -> Findings:
        return verify(self.archive.reader(), self.store, 72 * HOUR_MS, lambda done, of: None)

    def close(self) -> None:
        self.archive.close()
        self.store.close()
        self.log.close()
        self.writer.close()


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Folder]:
    made = Folder(tmp_path)
    yield made
    made.close()


def a_view(name: str, at_ms: int, beats: int = 4, every_ms: int = 30_000, **more: Any) -> list[dict[str, Any]]:
    kinds = ["request", "play", *["heartbeat"] * beats]
    who = {"tenant_id": "t1", "channel_id": "c1", "video_id": "clip", "view_id": name, "viewer_hash": len(name)} | more
    return [
        {**who, "seq": seq, "type": kind, "ts": at_ms + every_ms * seq, "received_at": at_ms + every_ms * seq + 20,
         "duration_ms": 600_000, "bitrate_kbps": 2_000}
        for seq, kind in enumerate(kinds)
    ]  # fmt: skip


def filled(folder: Folder) -> None:
    """Three hours: views inside of one, one across all, a repeated event, one that fails, another tenant."""
    long = a_view("long", T0 + 50 * MINUTE_MS, beats=150)
    failed = [*a_view("failed", T0 + 70 * MINUTE_MS, beats=0)]
    failed[1] = failed[1] | {"type": "error", "fatal": True}
    other = a_view("other", T0 + 55 * MINUTE_MS, beats=20, tenant_id="t2", cdn="k")
    folder.send(*a_view("short", T0 + MINUTE_MS), *long, *failed, *other, long[3] | {"received_at": T0 + HOUR_MS})
    folder.now_ms = T0 + 4 * HOUR_MS + 30 * MINUTE_MS
    folder.batch.turn()


@pytest.mark.parametrize("part", [20_000, 50])
def test_a_store_that_batch_runs_made_is_equal(folder: Folder, monkeypatch: pytest.MonkeyPatch, part: int) -> None:
    monkeypatch.setattr(room, "PART_EVENTS", part)
    filled(folder)
    found = folder.check()
    assert found.differences == []
    assert (found.hours, found.differing, found.waiting, found.gone, found.kept) == (3, 0, [], 0, 0)
    assert found.compared > 100


def test_a_sum_that_was_changed_is_named_with_both_values(folder: Folder) -> None:
    filled(folder)
    hour = T0 + HOUR_MS
    rows, viewers, about = folder.rows[hour]
    video = rows["video"]
    at = video.schema.get_field_index("played_ms")
    wrong = video.set_column(at, "played_ms", pc.add(video["played_ms"].cast(pa.int64()), 7))
    run = HourRun(about.archive_version, about.seen_commit, about.at_ms)
    folder.store.put_hour(hour, {**rows, "video": wrong}, viewers, run)
    found = folder.check()
    assert {(d.hour_ms, d.rollup, d.measure) for d in found.differences} == {(hour, "video", "played_ms")}
    assert {d.keys["tenant_id"] for d in found.differences} == {"t1", "t2"}
    assert all(d.stored > d.expected for d in found.differences)
    fewer = {name: table for name, table in rows.items() if name != "delivery"}
    folder.store.put_hour(hour, fewer, viewers, run)
    missing = folder.check()
    assert {(d.rollup, d.stored) for d in missing.differences} == {("delivery", 0)}


def test_hours_that_wait_for_a_run_and_those_behind_them_are_not_checked(folder: Folder) -> None:
    filled(folder)
    folder.send(*a_view("late", T0 + 61 * MINUTE_MS))
    found = folder.check()
    assert (found.hours, found.waiting, found.differing) == (1, [T0 + HOUR_MS, T0 + 2 * HOUR_MS], 0)
    folder.batch.turn()
    assert (folder.check().hours, folder.check().differing) == (3, 0)


def test_hours_whose_raw_events_are_gone_are_not_checked(folder: Folder) -> None:
    filled(folder)
    assert folder.archive.drop_before(T0 + HOUR_MS) == 1
    found = folder.check()
    assert (found.hours, found.gone, found.differing) == (0, 3, 0)


def test_hours_that_come_from_no_events_are_told_apart(folder: Folder) -> None:
    filled(folder)
    past = Interval(T0 - DAY_MS, T0 - DAY_MS + HOUR_MS)
    folder.store.put_history(past, {}, _no_viewers(), folder.now_ms)
    found = folder.check()
    assert (found.hours, found.kept, found.differing) == (3, 1, 0)


def _no_viewers() -> Any:
    words = dict.fromkeys(("tenant_id", "channel_id", "video_id"), pa.string())
    return pa.schema({"hour_ms": pa.int64(), **words, "is_bot": pa.bool_(), "viewer_hash": pa.int64()}).empty_table()
