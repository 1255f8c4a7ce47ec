"""The scenario language: it reads what it says it reads, and teaches where it cannot."""

from __future__ import annotations

import pytest

from viewmeter.testing.scenario import Arrival, ScenarioError, duration_ms, parse, run
from viewmeter.testing.subject import Beacon, OracleSubject

EXPECT = "expect clip: plays 1\n"


def arrivals(text: str) -> list[Arrival]:
    return [step for step in parse(text + EXPECT).steps if isinstance(step, Arrival)]


def test_a_wrong_number_is_reported_with_its_line() -> None:
    text = "view v1\n  0s play | 10s exit\nexpect clip: plays 2, watch_time 10s, average_watch_duration null\n"
    line = "line 3: expect clip: plays 2, watch_time 10s, average_watch_duration null\n"
    got = [str(difference) for difference in run(parse(text), OracleSubject())]
    assert got == [
        f"{line}  plays: want 2.0, got 1",
        f"{line}  average_watch_duration_ms: want None, got 10000.0",
    ]


@pytest.mark.parametrize(
    ("text", "ms"),
    [("0s", 0), ("250ms", 250), ("1.5s", 1_500), ("1m30s", 90_000), ("2h", 7_200_000), ("-5s", -5_000)],
)
def test_a_time_is_a_number_with_its_unit(text: str, ms: int) -> None:
    assert duration_ms(text) == ms


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("vew v1\n", "line 1: `vew` is no statement"),
        ("  0s play\n", "line 1: events belong below a `view` line"),
        ("view\n", "line 1: a view has a name"),
        ("view v1\n  0s playing\n", "line 2: after the time stands what happened: request, play"),
        ("view v1\n  zero play\n", "line 2: `zero` is not a time; write for example"),
        ("view v1\n  0s play | \n", "line 2: there is nothing between two `|`"),
        ("view v1\n  0s play bitrat=3\n", "line 2: `bitrat=3` sets no field"),
        ("view v1\n  0s play bitrate=fast\n", "line 2: `bitrate_kbps` is a number"),
        ("view v1\n  0s error fatal=maybe\n", "line 2: `fatal` is true or false"),
        ("view v1\n  0s play | repeat 7\n", "line 2: `repeat` names a number that was sent: [0]"),
        ("view v1\n  received 5s 0s play\n", "line 2: write `received 50s"),
        ("view v1 from A/B/C/D\n", "line 1: after `from` stands country/region/city"),
        ("expect clip\n", "line 1: write `expect clip: plays 1"),
        ("expect clip: plays\n", "line 1: `plays` is not a metric and its value"),
        ("expect clip: rebuffer 3\n", "line 1: there is no metric `rebuffer`; near it: "),
        ("expect clip: plays many\n", "line 1: `many` is no value"),
        ("expect clip: concurrent_viewers 1\n", "line 1: `concurrent_viewers` is asked at an instant"),
        ("expect clip colour=red: plays 1\n", "line 1: `colour=red` is no range"),
        ("view v1\n  0s play\n", "a scenario without any `expect` line proves nothing"),
    ],
)
def test_an_error_says_where_and_what_would_be_right(text: str, problem: str) -> None:
    with pytest.raises(ScenarioError) as caught:
        parse(text)
    assert str(caught.value).startswith(problem)


def test_seq_counts_up_and_lost_skips() -> None:
    got = arrivals("view v1 seq=2\n  0s play | lost | 1s pause | lost 3 | 2s exit | repeat 4\n")
    assert [a.event["seq"] for a in got] == [2, 4, 8, 4]


def test_a_second_view_line_goes_on_with_the_view() -> None:
    got = arrivals("view v1 from DE\n  0s play\nview v2\n  0s play\nview v1 on tv\n  9s exit\n")
    assert [(a.event["view_id"], a.event["seq"], a.event["country"]) for a in got if "country" in a.event] == [
        ("v1", 0, "DE"),
        ("v1", 1, "DE"),
    ]
    assert got[-1].event["device_type"] == "tv"


def test_a_beacon_says_on_the_wire_only_what_a_player_knows() -> None:
    event = {"type": "play", "ts": 5, "view_id": "v", "seq": 0, "country": "DE", "is_bot": True, "played_ms": None}
    beacon = Beacon("t1", 100_000, [event], sent_at=40_000)
    assert beacon.wire() == [{"type": "play", "ts": 5, "view_id": "v", "seq": 0, "played_ms": None}]
    (enriched,) = beacon.enriched()
    assert enriched["ts"] == 60_005
    assert (enriched["country"], enriched["is_bot"], enriched["os"]) == ("DE", True, "unknown")
    assert "played_ms" not in enriched


@pytest.mark.parametrize(
    ("events", "in_order"),
    [
        ("0s play | 5s pause | 9s exit", True),
        ("0s play | lost | 5s pause", True),
        ("0s play | 5s pause received=8s | 7s exit", False),
        ("0s play | 5s pause | repeat 0 received=9s", True),
        ("0s play seq=1 received=5s | 1s request seq=0 received=5s", True),
    ],
)
def test_a_scenario_knows_whether_an_event_in_it_is_late(events: str, in_order: bool) -> None:
    assert parse(f"view v1\n  {events}\n{EXPECT}").in_order is in_order
