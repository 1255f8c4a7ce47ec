"""Measured views of YouTube, as events, imported: what the house counts is what the data set says, view by view."""

from __future__ import annotations

import importlib.util
import json
from collections import Counter
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from viewmeter.archive.embedded import EmbeddedArchive
from viewmeter.archive.importing import import_file
from viewmeter.archive.incoming import Owners
from viewmeter.eventlog.embedded import EmbeddedLogReader
from viewmeter.metadata.keys import Tenant
from viewmeter.model.events import EVENT_SCHEMA
from viewmeter.model.time import DAY_MS
from viewmeter.testing import oracle
from viewmeter.testing.columns import to_events
from viewmeter.testing.contracts.archive import ALWAYS, T0
from viewmeter.testing.oracle_metrics import metrics, total

ROOT = Path(__file__).parents[3]
SAMPLE = ROOT / "tests" / "data" / "yt_sessions" / "sample.csv"


@pytest.fixture(scope="module")
def convert() -> ModuleType:
    spec = importlib.util.spec_from_file_location("convert", ROOT / "examples" / "yt_sessions" / "convert.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def sessions(convert: ModuleType) -> list[Any]:
    with SAMPLE.open() as file:
        found: list[Any] = convert.sessions(file)
    assert len(found) > 200, "of 312 rows"
    return found


@pytest.fixture(scope="module")
def facts(
    convert: ModuleType, sessions: list[Any], tmp_path_factory: pytest.TempPathFactory
) -> dict[str, list[oracle.Increment]]:
    """What the events of the archive count for, by view."""
    folder = tmp_path_factory.mktemp("yt")
    known, when = convert.set_ups(sessions), convert.starts(sessions, T0, 7)
    with (folder / "events.jsonl").open("w") as file:
        for session in sessions:
            for event in convert.events(session, when[session.run_id], convert.plan(session, known)):
                file.write(json.dumps(event) + "\n")
    log = EmbeddedLogReader(folder / "log")
    archive = EmbeddedArchive(folder / "archive", log, lambda: T0)
    owner = Tenant("acme", "Acme", b"secret")
    refused: list[Any] = []
    done = import_file(archive, folder / "events.jsonl", Owners({"acme": owner}, owner), T0, refused.append)
    assert refused == []
    events = to_events(archive.read(ALWAYS).select(EVENT_SCHEMA.names))
    assert len(events) == done.events
    assert all(T0 - 7 * DAY_MS <= event["ts"] < T0 for event in events)
    found: dict[str, list[oracle.Increment]] = {session.run_id: [] for session in sessions}
    for fact in oracle.increments(events, T0 + DAY_MS):
        found[fact.view[1]].append(fact)
    archive.close()
    log.close()
    return found


def test_each_view_counts_for_what_was_measured_of_it(
    convert: ModuleType, sessions: list[Any], facts: dict[str, list[oracle.Increment]]
) -> None:
    known = convert.set_ups(sessions)
    for session in sessions:
        sums = total(facts[session.run_id])
        assert sums["plays"] == sums["completes"] == sums["attempts"] == 1
        assert sums["played_ms"] == sum(session.played_ms)
        assert sums["rebuffer_count"] == session.stalls
        made = convert.plan(session, known)
        assert sums["rebuffered_ms"] == sum(made.stalls_ms)
        assert (
            made.startup_ms + sum(made.stalls_ms) <= 1000 * session.over_s + convert.MIN_STALL_MS * session.stalls + 500
        )
        assert (
            len(made.segments) >= session.switches + 1
            or min(ms for ms in session.played_ms if ms) < 2_000
            or (sum(1 for ms in session.played_ms if ms) == 1)
        )


def test_time_by_quality_is_what_was_measured(sessions: list[Any], facts: dict[str, list[oracle.Increment]]) -> None:
    for session in sessions:
        expected: Counter[int] = Counter()
        for kbps, ms in zip(session.kbps, session.played_ms, strict=True):
            expected[kbps] += ms
        found: Counter[int] = Counter()
        for fact in facts[session.run_id]:
            if fact.measure == "played_ms":
                assert fact.bitrate_kbps is not None
                found[fact.bitrate_kbps] += fact.amount
        assert +found == +expected


def test_metrics_of_all_views_are_those_of_the_table(
    convert: ModuleType, sessions: list[Any], facts: dict[str, list[oracle.Increment]]
) -> None:
    found = metrics(total(fact for those in facts.values() for fact in those))
    known = convert.set_ups(sessions)
    plans = [convert.plan(session, known) for session in sessions]
    played = sum(sum(session.played_ms) for session in sessions)
    stalled = sum(sum(plan.stalls_ms) for plan in plans)
    assert found["average_watch_duration_ms"] == pytest.approx(played / len(sessions))
    assert found["rebuffer_ratio"] == pytest.approx(stalled / (played + stalled))
    assert found["rebuffer_frequency"] == pytest.approx(sum(s.stalls for s in sessions) / (played / 60_000))
    assert found["startup_time_avg_ms"] == pytest.approx(sum(plan.startup_ms for plan in plans) / len(plans))
    weighted = sum(kbps * ms for s in sessions for kbps, ms in zip(s.kbps, s.played_ms, strict=True))
    assert found["average_bitrate_kbps"] == pytest.approx(weighted / played)


def test_a_row_gives_the_same_events_each_time(convert: ModuleType, sessions: list[Any]) -> None:
    known = convert.set_ups(sessions)
    session = max(sessions, key=lambda one: one.stalls)
    once, twice = (list(convert.events(session, 0, convert.plan(session, known))) for _ in range(2))
    assert once == twice
    assert [event["seq"] for event in once] == list(range(len(once)))
    assert [event["ts"] for event in once] == sorted(event["ts"] for event in once)
