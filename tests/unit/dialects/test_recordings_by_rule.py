"""Recordings through the speed layer, POST by POST on the clock on which they arrived: its order, wait and state."""

from __future__ import annotations

from collections import Counter
from itertools import groupby
from pathlib import Path
from typing import Any

import msgspec
import pytest

from viewmeter.collector.dialects.cmcd import decode
from viewmeter.stream.core import Core
from viewmeter.testing import oracle
from viewmeter.testing.columns import to_table
from viewmeter.testing.oracle_metrics import total
from viewmeter.testing.recordings import differences, expectation

LONG_AFTER_MS = 3_600_000


def posts(path: Path) -> list[list[dict[str, Any]]]:
    found = []
    for line in path.read_bytes().splitlines()[1:]:
        post = msgspec.json.decode(line)
        server = {"tenant_id": "t", "received_at": post["received_at_ms"], "viewer_hash": 1}
        events = [msgspec.structs.asdict(e) for e in decode(post["body"].encode(), channel_id="c").events]
        found.append([{**e, **server, "ts": round(e["ts"])} for e in events])
    return [events for events in found if events]


def counted(batches: list[list[dict[str, Any]]]) -> Counter[str]:
    """Apply each batch at its own arrival, and let an hour pass."""
    core, sums = Core(), Counter[str]()
    steps = [([to_table(batch)], batch[-1]["received_at"]) for batch in batches]
    end = steps[-1][1] + LONG_AFTER_MS if steps else 0
    for tables, now_ms in [*steps, ([], end - LONG_AFTER_MS + 2_000), ([], end)]:
        for measure, (_rows, amounts) in core.step(tables, now_ms).increments.amounts.items():
            sums[measure] += int(amounts.sum())
    return sums


@pytest.mark.parametrize("batch_ms", [0, 500], ids=["each_post", "half_a_second"])
def test_a_recording_counts_for_what_its_viewer_saw_also_as_it_arrives(recording: Path, batch_ms: int) -> None:
    arrived = posts(recording)
    if batch_ms:
        grouped = groupby(arrived, key=lambda events: events[0]["received_at"] // batch_ms)
        arrived = [[event for post in group for event in post] for _, group in grouped]
    sums = counted(arrived)
    names = ("attempts", "plays", "blind_plays", "completes", "failures", "exits_before_start", "events")
    names += ("played_ms", "rebuffer_count", "rebuffered_ms", "startup_ms", "lost_events", "duplicate_events")
    numbers = {name: sums[name] for name in names}
    assert differences(numbers, expectation(recording)) == []
    events = [event for batch in arrived for event in batch]
    whole = total(oracle.increments(events, max((e["received_at"] for e in events), default=0) + LONG_AFTER_MS))
    if not sums["late_events"]:
        assert numbers == {name: whole[name] for name in names}
