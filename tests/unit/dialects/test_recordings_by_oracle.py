"""Recordings of real players against the truth of their `<video>` elements: dialect and oracle, no clock."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec
import pytest

from viewmeter.collector.dialects import Rejection
from viewmeter.collector.dialects.cmcd import decode
from viewmeter.testing import oracle
from viewmeter.testing.oracle_metrics import total
from viewmeter.testing.recordings import OWN_SEEKS, STALL_MS, differences, expectation

LONG_AFTER_MS = 10_000_000


def take(path: Path) -> tuple[list[dict[str, Any]], list[Rejection]]:
    """Decode a recording POST by POST, as a collector would."""
    events: list[dict[str, Any]] = []
    rejected: list[Rejection] = []
    for line in path.read_bytes().splitlines()[1:]:
        post = msgspec.json.decode(line)
        got = decode(post["body"].encode(), channel_id="c")
        rejected += got.rejected
        events += [
            {**msgspec.structs.asdict(e), "tenant_id": "t", "received_at": post["received_at_ms"]} for e in got.events
        ]
    return events, rejected


def measured(events: list[dict[str, Any]]) -> dict[str, int]:
    now_ms = max((e["received_at"] for e in events), default=0) + LONG_AFTER_MS
    return total(oracle.increments(events, now_ms))


def test_a_recording_counts_for_what_its_viewer_saw(recording: Path) -> None:
    events, rejected = take(recording)
    expected = expectation(recording)
    assert differences(measured(events), expected) == []
    assert len(rejected) == (0 if expected.distinct else expected.records)
    assert len({(r.code, r.detail) for r in rejected}) <= 1


def test_each_stall_is_found_where_it_was(recording: Path) -> None:
    expected = expectation(recording)
    if not expected.exact or not expected.tells_state or recording.stem in OWN_SEEKS:
        return  # nothing is promised of each stall: decision 0022
    events, _ = take(recording)
    found, since = list[tuple[int, int]](), None
    for distinct, _again in oracle.views(events).values():
        after = oracle.moments(distinct)
        for moment in after:
            if moment.rebuffering and since is None:
                since = moment.instant
            elif since is not None and (not moment.rebuffering or moment is after[-1]):
                found.append((since, moment.instant - since))
                since = None
    stalls = expected.stalls or ()
    assert [start for start, _ in found] == pytest.approx([s.start_ms for s in stalls], abs=STALL_MS)
    assert [length for _, length in found] == pytest.approx([s.duration_ms for s in stalls], abs=STALL_MS)


def test_duplicates_change_no_number(recording: Path) -> None:
    events, _ = take(recording)
    once, twice = measured(events), measured([*events, *map(dict, events)])
    assert twice.pop("duplicate_events") == once.pop("duplicate_events") + len(events)
    assert twice == once


def test_the_order_of_arrival_changes_no_number(recording: Path) -> None:
    events, _ = take(recording)
    assert measured(events[::-1]) == measured(events)
