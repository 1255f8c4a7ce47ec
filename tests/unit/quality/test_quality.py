"""The quality monitor: figures of a sample that are those of plain Python, bounded and readable by any process."""

from __future__ import annotations

import itertools
import sqlite3
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from viewmeter.collector import metrics
from viewmeter.collector.quality import sample
from viewmeter.collector.quality.figures import FIELDS, NUMBERS, SKEW, Figures, figures_of, merged, shown
from viewmeter.collector.quality.sample import QualityMonitor, SampledLog, sampled
from viewmeter.collector.quality.store import KEEP_DAYS, OTHERS, FiguresReader, FiguresWriter
from viewmeter.eventlog.protocol import LogUnavailableError
from viewmeter.model.events import UNKNOWN
from viewmeter.model.time import DAY_MS
from viewmeter.testing.columns import to_table
from viewmeter.testing.strategies import event_lists

NOW = 1_764_000_000_000


def batch_of(events: list[dict[str, Any]]) -> pa.RecordBatch:
    (batch,) = to_table(events).combine_chunks().to_batches()
    return batch


def event(player: str = "hls.js-1.7", tenant: str = "acme", view: str = "v", **fields: Any) -> dict[str, Any]:
    words = dict.fromkeys(
        ("country", "region", "city", "asn", "device_type", "os", "browser", "cdn", "stream_type"), UNKNOWN
    )
    identity = {"tenant_id": tenant, "channel_id": "c", "video_id": "f", "view_id": view, "viewer_hash": 1, "seq": 0}
    return {**words, **identity, "type": "play", "ts": NOW, "received_at": NOW + 250, "player": player} | fields


def plainly(events: list[dict[str, Any]]) -> dict[tuple[str, str], dict[str, Any]]:
    """The same figures by loops over rows."""
    groups: dict[tuple[str, str], list[dict[str, Any]]] = {}
    for row in batch_of(events).to_pylist():
        groups.setdefault((row["tenant_id"], row["player"]), []).append(row)
    return {
        group: {
            "events": len(rows),
            "filled": {n: c for n in FIELDS if (c := sum(row[n] not in (-1, "", UNKNOWN) for row in rows))},
            "ends": {n: (min(some), max(some)) for n in NUMBERS if (some := [row[n] for row in rows if row[n] >= 0])},
            "skew": sorted(row["received_at"] - row["ts"] for row in rows),
        }
        for group, rows in groups.items()
    }


@settings(max_examples=60, deadline=None)
@given(event_lists(), st.integers(1, 5))
def test_figures_are_those_of_plain_python_however_batches_are_cut(events: list[dict[str, Any]], cuts: int) -> None:
    if not events:
        return
    whole = batch_of(events)
    edges = sorted({0, len(events), *(len(events) * n // cuts for n in range(cuts))})
    parts: dict[tuple[str, str], list[Figures]] = {}
    for start, end in itertools.pairwise(edges):
        for group, figures in figures_of(whole.slice(start, end - start)).items():
            parts.setdefault(group, []).append(figures)
    wanted = plainly(events)
    assert parts.keys() == wanted.keys()
    for group, several in parts.items():
        found = merged(several)
        seen = shown(group, found)
        assert (found.events, found.filled) == (wanted[group]["events"], wanted[group]["filled"])
        assert sum(found.types.values()) == found.events
        ends = {name: (some["min"], some["max"]) for name, some in seen["values"].items()}  # type: ignore[attr-defined]
        assert ends == wanted[group]["ends"]
        skew: Any = seen[SKEW]
        ranked = wanted[group]["skew"]
        assert (skew["min"], skew["median"], skew["max"]) == (ranked[0], ranked[(len(ranked) - 1) // 2], ranked[-1])


@pytest.mark.parametrize(
    ("player", "name", "version"),
    [
        ("hls.js-1.7.4", "hls.js", "1.7.4"),
        ("shaka player/5.2", "shaka player", "5.2"),
        ("dash.js v5", "dash.js", "5"),
        ("web_2.0-beta.1", "web", "2.0-beta.1"),
        ("hls.js", "hls.js", None),
        ("unknown", "unknown", None),
        ("1.7", "1.7", None),
    ],
)
def test_a_player_may_name_its_version(player: str, name: str, version: str | None) -> None:
    seen = shown(("acme", player), figures_of(batch_of([event(player)]))[("acme", player)])
    assert (seen["player"], seen["version"]) == (name, version)


def test_a_sample_is_of_whole_views_and_a_larger_one_holds_the_smaller() -> None:
    keys = np.random.default_rng(7).integers(-(2**63), 2**63 - 1, 200_000)
    one, ten = sampled(keys, 0.01), sampled(keys, 0.1)
    assert (ten | ~one).all()
    assert 1_800 < one.sum() < 2_200
    assert sampled(keys, 1).all()
    assert not sampled(keys, 0).any()
    assert (sampled(keys, 0.01) == one).all()


def monitor(folder: Path, worker: int = 0, ratio: float = 1.0) -> QualityMonitor:
    return QualityMonitor(FiguresWriter(folder, worker), ratio, lambda: NOW)


def test_workers_figures_are_one_answer(tmp_path: Path) -> None:
    for worker in range(2):
        observed = monitor(tmp_path, worker)
        for _ in range(3):
            observed.observe(batch_of([event(), event("dash.js-5.2", cdn="a"), event(tenant="other")]))
            observed.flush()
        observed.close()
    reader = FiguresReader(tmp_path, 1.0)
    found, cursor = reader.page(None, NOW)
    assert [(group, figures.events) for group, figures in found] == [
        (("acme", "dash.js-5.2"), 6), (("acme", "hls.js-1.7"), 6), (("other", "hls.js-1.7"), 6)
    ]  # fmt: skip
    assert cursor is None
    assert [group for group, _ in reader.page("other", NOW)[0]] == [("other", "hls.js-1.7")]


def test_pages_are_the_whole_list_each_once(tmp_path: Path) -> None:
    for worker in range(3):
        for day in range(2):
            players = [f"p{n:02d}" for n in range(worker, 20, 2)]
            found = figures_of(batch_of([event(player) for player in players]))
            FiguresWriter(tmp_path, worker).add(found, NOW - day * DAY_MS)
    reader = FiguresReader(tmp_path, 1.0)
    whole, _ = reader.page(None, NOW, days=2)
    seen: list[Any] = []
    cursor = None
    while True:
        part, cursor = reader.page(None, NOW, days=2, limit=3, cursor=cursor)
        seen += part
        if cursor is None:
            break
    assert [(group, figures.events) for group, figures in seen] == [(group, figures.events) for group, figures in whole]
    assert len(seen) == 20
    with pytest.raises(ValueError, match="next_cursor"):
        reader.page(None, NOW, cursor="zz")


def test_days_are_apart_and_old_ones_go(tmp_path: Path) -> None:
    found = figures_of(batch_of([event()]))
    for day in range(KEEP_DAYS + 2):
        FiguresWriter(tmp_path, 0).add(found, NOW + day * DAY_MS)
    last = NOW + (KEEP_DAYS + 1) * DAY_MS
    reader = FiguresReader(tmp_path, 1.0)
    assert [figures.events for _, figures in reader.page(None, last)[0]] == [1]
    assert [figures.events for _, figures in reader.page(None, last, days=99)[0]] == [KEEP_DAYS]


def test_too_many_players_share_a_row_and_too_many_tenants_are_left_out(tmp_path: Path) -> None:
    events = [event(f"p{n:02d}", f"t{n:02d}") for n in range(10)] + [event(f"more{n}", "t00") for n in range(5)]
    writer = FiguresWriter(tmp_path, 0, max_groups=4)
    left_out = writer.add(figures_of(batch_of(events)), NOW)
    found, _ = FiguresReader(tmp_path, 1.0).page(None, NOW)
    assert len(found) <= 8
    assert any(player == OTHERS for (_, player), _ in found)
    assert sum(figures.events for _, figures in found) + left_out == len(events)
    assert left_out > 0


def test_what_waits_is_bounded_and_what_is_left_out_is_counted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sample, "MAX_WAITING_EVENTS", 5)
    monkeypatch.setattr(sample, "_FLUSH_EVERY_S", 3_600)
    observed = monitor(tmp_path)
    before = metrics.QUALITY_LEFT_OUT._value.get()
    for _ in range(4):
        observed.observe(batch_of([event(), event()]))
    observed.close()
    assert metrics.QUALITY_LEFT_OUT._value.get() == before + 4
    assert [figures.events for _, figures in FiguresReader(tmp_path, 1.0).page(None, NOW)[0]] == [4]


class Memory:
    """A log in memory, or one that refuses."""

    def __init__(self, refuses: bool = False) -> None:
        self.refuses = refuses
        self.batches: list[pa.RecordBatch] = []

    def append(self, events: pa.RecordBatch) -> int:
        if self.refuses:
            raise LogUnavailableError("full")
        self.batches.append(events)
        return len(self.batches)

    def close(self) -> None:
        self.batches.append(None)


def test_only_what_became_durable_is_counted(tmp_path: Path) -> None:
    log = Memory()
    written = SampledLog(log, monitor(tmp_path))
    assert written.append(batch_of([event()])) == 1
    log.refuses = True
    with pytest.raises(LogUnavailableError):
        written.append(batch_of([event()]))
    written.close()
    assert log.batches[-1] is None
    assert [figures.events for _, figures in FiguresReader(tmp_path, 1.0).page(None, NOW)[0]] == [1]


def test_a_monitor_that_fails_refuses_no_batch(tmp_path: Path) -> None:
    observed = monitor(tmp_path)
    log = Memory()
    written = SampledLog(log, observed)
    assert written.append(pa.record_batch({"no": ["event"]})) == 1
    written.append(batch_of([event()]))
    (tmp_path / "w00.sqlite").mkdir()  # the file cannot be opened
    observed.flush()
    written.close()
    assert FiguresReader(tmp_path / "elsewhere", 1.0).page(None, NOW) == ([], None)


def test_the_thread_ends_with_the_log(tmp_path: Path) -> None:
    before = threading.active_count()
    written = SampledLog(Memory(), monitor(tmp_path))
    written.close()
    written.close()
    assert threading.active_count() <= before


def test_no_view_and_no_viewer_is_in_the_file(tmp_path: Path) -> None:
    observed = monitor(tmp_path)
    observed.observe(batch_of([event(view="a known view", error_message="a known text")]))
    observed.close()
    for path in tmp_path.iterdir():
        assert b"known" not in path.read_bytes()
    with sqlite3.connect(tmp_path / "w00.sqlite") as connection:
        assert connection.execute("SELECT count(*) FROM figures").fetchone() == (1,)
