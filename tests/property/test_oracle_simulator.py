"""The simulator knows what its viewers did before any event exists; the oracle finds out from the events."""

from __future__ import annotations

import random
from dataclasses import replace
from typing import Any

import pytest

from viewmeter.testing.beacons import beacons, delivery
from viewmeter.testing.scenario import START_MS
from viewmeter.testing.simulator import PLANNED, Settings, Simulation
from viewmeter.testing.subject import OracleSubject, Question

EXACT = Settings(seed=11, start_ms=START_MS, viewers=150, minutes=8, videos=12, clients=(0.7, 0.3, 0.0))
SCOPES = {"videos": "video_id", "channels": "channel_id"}
FILTERS = {"countries": "country", "device_types": "device_type"}


def watched(settings: Settings) -> tuple[dict[str, Any], OracleSubject]:
    simulation = Simulation(settings)
    truth = simulation.truth()
    subject = OracleSubject()
    for beacon in beacons(simulation):
        subject.feed(beacon.received())
    subject.settle(START_MS + 86_400_000)
    return truth, subject


def questions(truth: dict[str, Any]) -> list[tuple[dict[str, Any], Question]]:
    scoped = [
        (answer, Question("", "t1", **{scope: name}))
        for kind, scope in SCOPES.items()
        for name, answer in truth[kind].items()
    ]
    filtered = [
        (answer, Question("", "t1", filters={dimension: name}))
        for kind, dimension in FILTERS.items()
        for name, answer in truth[kind].items()
    ]
    return [*scoped, *filtered, (truth["platform"], Question("", "t1"))]


def test_a_heartbeat_in_the_wait_of_a_seek_is_all_that_players_without_counters_get_wrong() -> None:
    truth, subject = watched(replace(EXACT, seed=11, viewers=100, clients=(0.0, 1.0, 0.0)))
    answer, everything = truth["platform"], Question("", "t1")
    below, above = answer["tolerance"]["watch_time_ms"]
    assert below == 0
    assert above > 0, "a seed with such a heartbeat"
    assert subject.answer(replace(everything, metric="watch_time_ms")) == answer["watch_time_ms"] + above
    for metric in ("rebuffered_ms", "rebuffer_count", "plays", "completes", "seeks", "peak_concurrent_viewers"):
        assert subject.answer(replace(everything, metric=metric)) == answer[metric], metric


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_without_loss_the_oracle_finds_exactly_what_the_viewers_did(seed: int) -> None:
    settings = replace(EXACT, seed=seed)
    truth, subject = watched(settings)
    wrong = [
        (question, metric, answer[metric], got)
        for answer, question in questions(truth)
        for metric in (*sorted(PLANNED), "unique_viewers_exact", "peak_concurrent_viewers")
        if (got := subject.answer(replace(question, metric=metric))) != pytest.approx(answer[metric], rel=1e-12)
    ]
    assert not wrong, f"{settings}"


def test_duplicates_disorder_and_skewed_clocks_change_nothing_that_counts() -> None:
    settings = replace(EXACT, seed=4, duplicate=0.05, disorder_ms=3_000, skew_ms=600_000, clients=(1.0, 0.0, 0.0))
    truth, subject = watched(settings)
    for answer, question in questions(truth):
        for metric in sorted(PLANNED - {"peak_concurrent_viewers"}):
            got = subject.answer(replace(question, metric=metric))
            assert got == pytest.approx(answer[metric], rel=1e-12), (settings, question, metric)


def test_seven_event_clients_are_right_within_the_stated_tolerance() -> None:
    settings = replace(EXACT, seed=5, clients=(0.2, 0.2, 0.6))
    truth, subject = watched(settings)
    for answer, question in questions(truth):
        exact = ("attempts", "plays", "completes", "failures", "seeks", "pauses", "rebuffer_count", "startups")
        for metric in exact:
            assert subject.answer(replace(question, metric=metric)) == answer[metric], (settings, question, metric)
        for metric, (below, above) in answer["tolerance"].items():
            got = subject.answer(replace(question, metric=metric))
            assert got is not None
            assert answer[metric] - below <= got <= answer[metric] + above, (settings, question, metric)


def test_loss_is_found_exactly_as_it_happened() -> None:
    settings = replace(EXACT, seed=6, loss=0.1, duplicate=0.1, disorder_ms=2_000)
    _, subject = watched(settings)
    for video, arrived in delivery(Simulation(settings)).items():
        for measure, number in arrived.items():
            assert subject.answer(Question(measure, "t1", video_id=video)) == number, (settings, video, measure)


def test_counters_keep_the_watch_time_through_loss() -> None:
    settings = replace(EXACT, seed=7, loss=0.05, clients=(1.0, 0.0, 0.0))
    truth, subject = watched(settings)
    got = subject.answer(Question("watch_time_ms", "t1"))
    assert got == pytest.approx(truth["platform"]["watch_time_ms"], rel=0.02)
    assert got is not None
    assert got <= truth["platform"]["watch_time_ms"]


def test_the_same_seed_gives_the_same_bytes_and_another_seed_does_not() -> None:
    def said(seed: int) -> list[Any]:
        settings = replace(EXACT, seed=seed, viewers=20, loss=0.1, duplicate=0.1, disorder_ms=900, skew_ms=60_000)
        return [(b.send_at_ms, b.ip, b.sent_at, b.events) for b in beacons(Simulation(settings))]

    random.seed(99)
    assert said(1) == said(1)
    assert said(1) != said(2)


def test_beacons_come_in_the_order_of_time_with_at_most_ten_events() -> None:
    sent = list(beacons(Simulation(replace(EXACT, seed=8, disorder_ms=5_000))))
    assert [b.send_at_ms for b in sent] == sorted(b.send_at_ms for b in sent)
    assert {1} <= {len(b.events) for b in sent} <= set(range(1, 11))
    assert all(b.sent_at == b.send_at_ms + b.skew_ms for b in sent)
