"""A view told: what the rule made of its events, in words."""

from __future__ import annotations

from typing import Any

import pyarrow as pa

from viewmeter.model.events import EVENT_SCHEMA, TYPE_CODES, UNKNOWN
from viewmeter.query.views import explain

START = 1_800_000_000_000
NOW = START + 3_600_000
FILL = {"string": "", "bool": False, "double": -1.0}


def events(*told: tuple[int, float, str, dict[str, Any]]) -> pa.Table:
    """Return events as the archive has them: (seq, seconds, type, what else)."""
    rows = []
    for seq, seconds, kind, more in told:
        row: dict[str, Any] = {}
        for field in EVENT_SCHEMA:
            is_word = pa.types.is_dictionary(field.type)
            row[field.name] = UNKNOWN if is_word else FILL.get(str(field.type), -1)
        at = START + int(seconds * 1000)
        row |= {"tenant_id": "acme", "channel_id": "c1", "video_id": "v1", "view_id": "x", "view_key": 1}
        row |= {"seq": seq, "type": TYPE_CODES[kind], "ts": at, "received_at": at, "country": "DE"} | more
        rows.append(row)
    return pa.Table.from_pylist(rows, schema=EVENT_SCHEMA)


def verdict(found: dict[str, Any], measure: str) -> dict[str, Any]:
    (one,) = [v for v in found["counted"] if v["measure"] == measure]
    return one


WATCHED = (
    (0, 0.0, "request", {}),
    (1, 1.0, "play", {"startup_ms": 1000, "bitrate_kbps": 2400, "cdn": "k"}),
    (2, 11.0, "buffer", {}),
    (3, 13.0, "play", {}),
    (4, 43.0, "complete", {}),
)


def test_a_watched_view_tells_its_intervals_and_what_counted_it() -> None:
    found = explain(events(*WATCHED), NOW)
    assert (found["view_id"], found["video_id"], found["dimensions"]["country"]) == ("x", "v1", "DE")
    assert [(i["state"], i["played_ms"], i["rebuffered_ms"]) for i in found["intervals"]] == [
        ("starting", 0, 0),
        ("playing", 10_000, 0),
        ("rebuffering", 0, 2_000),
        ("playing", 30_000, 0),
    ]
    assert found["intervals"][1]["cdn"] == "k"
    assert found["intervals"][1]["bitrate_kbps"] == 2400
    assert verdict(found, "plays") == {
        "measure": "plays",
        "count": 1,
        "why": "the first proof of playing is `play` (seq 1) at 08:00:01.000, 1 s after `request` (seq 0)",
        "at": "2027-01-15T08:00:01Z",
        "seq": 1,
    }
    assert verdict(found, "engaged_views")["seq"] == 4
    assert (verdict(found, "failures")["count"], verdict(found, "failures")["at"]) == (0, None)
    assert found["measures"]["played_ms"] == 40_000
    assert (found["ended_by"], found["ended_at"], found["state"]) == ("complete", "2027-01-15T08:00:43Z", "ended")
    assert found["time_from"] == "state"


def test_a_view_that_only_asked_is_an_exit_once_it_fell_silent() -> None:
    asked = events((0, 0.0, "request", {}))
    open_still = explain(asked, START + 200_000)
    assert (open_still["ended_at"], verdict(open_still, "exits_before_start")["count"]) == (None, 0)
    over = explain(asked, NOW)
    assert (over["ended_by"], over["ended_at"]) == ("silence", "2027-01-15T08:05:00Z")
    exit_ = verdict(over, "exits_before_start")
    assert (exit_["count"], exit_["seq"], exit_["at"]) == (1, None, "2027-01-15T08:05:00Z")
    assert "nothing proves that the picture moved" in verdict(over, "plays")["why"]


def test_what_was_taken_back_says_so() -> None:
    found = explain(events((0, 0.0, "request", {}), (1, 600.0, "play", {}), (2, 610.0, "exit", {})), NOW)
    exit_ = verdict(found, "exits_before_start")
    assert (exit_["count"], exit_["why"]) == (
        0,
        (
            "counted when it ended by silence at 08:05:00.000; "
            "taken back at 08:10:00.000 by `play` (seq 1), which proves the opposite"
        ),
    )
    assert verdict(found, "plays")["count"] == 1
    assert found["ended_by"] == "silence"


def test_repeated_late_and_lost_events_are_told() -> None:
    late = (1, 1.0, "play", {"received_at": START + 50_000})
    again = (4, 43.0, "complete", {"received_at": START + 60_000})
    found = explain(events(WATCHED[0], late, *WATCHED[2:], again, (7, 50.0, "heartbeat", {})), NOW)
    assert found["duplicate_events"] == 1
    assert [(e["seq"], e["duplicate"], e["late"]) for e in found["events"]] == [
        (0, False, False), (1, False, True), (2, False, False), (3, False, False),
        (4, False, False), (4, True, False), (7, False, False),
    ]  # fmt: skip
    assert found["measures"]["lost_events"] == 2
    assert found["measures"]["plays"] == 1


def test_a_player_that_tells_nothing_is_blind() -> None:
    found = explain(events((0, 0.0, "heartbeat", {"blind": True}), (1, 30.0, "play", {"blind": True})), NOW)
    assert found["time_from"] == "unknown"
    assert verdict(found, "blind_plays")["count"] == 1
    assert "played_ms" not in found["measures"]
    assert found["events"][0]["blind"] is True


def whys(found: dict[str, Any]) -> dict[str, str]:
    return {v["measure"]: v["why"] for v in found["counted"]}


def test_each_sentence_tells_this_view_with_its_own_numbers() -> None:
    told = whys(explain(events(*WATCHED), NOW))
    assert told["attempts"] == "its first known event is `request` (seq 0) at 08:00:00.000"
    assert told["completes"] == "its first `complete` is seq 4 at 08:00:43.000"
    assert told["played_ms"] == "40 s: 2 intervals played: 10 s + 30 s"
    assert told["rebuffered_ms"] == "2 s: 1 interval rebuffered: 2 s"
    assert told["rebuffer_count"] == "stalled in mid-play: `buffer` (seq 2) at 08:00:11.000"
    assert told["startups"] == "1 s, as `startup_ms` of its first play, `play` (seq 1), says"
    assert told["engaged_views"] == "with `complete` (seq 4) at 08:00:43.000 it has played 40 s; 30 s is enough"
    assert told["exits_before_start"] == "it played at 08:00:01.000"
    assert told["failures"] == "no `error` in its 5 events"
    assert told["lost_events"] == "every `seq` from 0 to 4 came"
    assert told["blind_plays"].endswith("`play` (seq 1), its first event other than `request`, is not `blind`")


def test_each_event_tells_what_it_changed_and_the_state_after_it() -> None:
    found = explain(events(*WATCHED, (7, 50.0, "heartbeat", {})), NOW)
    assert [(e["state"], e["lost_before"]) for e in found["events"]] == [
        ("starting", 0), ("playing", 0), ("rebuffering", 0), ("playing", 0), ("ended", 0), ("ended", 2),
    ]  # fmt: skip
    third = found["events"][2]
    assert third["changed"] == {
        "events": 1, "events_buffer": 1, "rebuffer_count": 1, "played_ms": 10_000, "played_ms_known_bitrate": 10_000,
        "played_kbit": 24_000_000, "played_ms_1500_3000": 10_000,
    }  # fmt: skip
    assert third["instant"] == "2027-01-15T08:00:11Z"
    assert (found["intervals"][1]["from_seq"], found["intervals"][1]["to_seq"]) == (1, 2)
    assert whys(found)["lost_events"] == "`seq` 5 to 6 never came"
    assert found["not_counted"][0]["reason"] == "after_end"


def test_a_startup_without_a_figure_is_measured_or_the_reason_is_told() -> None:
    request, play = (0, 0.0, "request", {}), (1, 0.82, "play", {})
    measured = whys(explain(events(request, play), NOW))["startups"]
    assert measured == (
        "820 ms from `request` (seq 0) at 08:00:00.000 to its first play, `play` (seq 1) at 08:00:00.820; "
        "nothing is missing between"
    )
    lost = whys(explain(events(request, (2, 0.82, "play", {})), NOW))["startups"]
    assert lost.endswith("events between `request` (seq 0) and it are missing")
    no_request = whys(explain(events(play), NOW))
    assert no_request["startups"].endswith("begins with `play` (seq 1), not with a `request`")
    assert no_request["attempts"].endswith("; the 1 before it never came")


def test_an_error_counts_by_its_word_or_by_being_the_last_and_the_sentence_says_which() -> None:
    play = (0, 0.0, "play", {})
    fatal = explain(events(play, (1, 5.0, "error", {"fatal": 1, "error_code": "E7"})), NOW)
    assert whys(fatal)["failures"] == "`error` (seq 1, E7) at 08:00:05.000 says `fatal: true`"
    last_word = explain(events(play, (1, 5.0, "error", {}), (2, 6.0, "exit", {})), NOW)
    assert verdict(last_word, "failures") == {
        "measure": "failures",
        "count": 1,
        "why": "it ended by exit at 08:00:06.000, and its last word was `error` (seq 1) at 08:00:05.000, "
        "which does not say whether it is fatal",
        "at": "2027-01-15T08:00:06Z",
        "seq": 2,
    }
    silent = explain(events(play, (1, 5.0, "error", {})), NOW)
    assert (silent["changed_by_silence"], verdict(silent, "failures")["seq"]) == ({"failures": 1}, None)
    open_still = explain(events(play, (1, 5.0, "error", {})), START + 60_000)
    assert whys(open_still)["failures"].startswith("not yet: its last word is `error` (seq 1)")
    back = explain(events(play, (1, 5.0, "error", {}), (2, 6.0, "exit", {}), (3, 60.0, "play", {})), NOW)
    assert whys(back)["failures"].endswith("taken back at 08:01:00.000 by `play` (seq 3): it went on")


def test_an_open_view_says_when_it_would_end() -> None:
    told = whys(explain(events((0, 0.0, "request", {})), START + 60_000))
    assert told["exits_before_start"] == (
        "it has not ended; it ends by silence if nothing is received until 08:05:00.000"
    )
    assert told["plays"].endswith("no heartbeat outside of a pause, no played time in its one event")


def test_what_did_not_count_has_its_reason() -> None:
    found = explain(
        events(
            (0, 0.0, "play", {}),
            (1, 100.0, "heartbeat", {}),  # 100 s of playing count 60
            (2, 90.0, "heartbeat", {"received_at": START + 101_000}),  # a clock put back
            (3, 110.0, "heartbeat", {"received_at": START + 116_500}),  # 1.5 s after the next
            (4, 115.0, "heartbeat", {}),
            (4, 115.0, "heartbeat", {"received_at": START + 117_000}),
            (5, 600.0, "exit", {}),  # silence before it
        ),
        NOW,
    )
    told = [(n["seq"], n["reason"], n["detail"]) for n in found["not_counted"]]
    late = "received 1.5 s after seq 4, which waits 1 s: real time rewrote no interval for it; "
    late += "the closed hour counts it in its place"
    after = "it comes after the view's end (by silence at 08:06:55.000): from here on sums grow; "
    after += "what is told of whole views does not"
    cut = "425 s of 485 s since seq 4 do not count: at most 60 s; the view had ended by silence at 08:06:55.000"
    assert told == [
        (1, "interval", "40 s of 100 s since seq 0 do not count: at most 60 s"),
        (2, "out_of_order", "its `ts` lies 10 s before an earlier event's, so it counts at that one's instant"),
        (3, "late", late),
        (4, "duplicate", "came again 2 s after the first of this `seq`, which alone counts"),
        (5, "after_end", after),
        (5, "interval", cut),
    ]


def test_a_silent_view_of_a_closed_hour_has_ended_though_its_events_came_just_now() -> None:
    asked = events((0, 0.0, "request", {"received_at": NOW}))
    assert explain(asked, NOW + 1_000)["ended_by"] is None
    ends_at = START + 300_000
    told = explain(asked, NOW + 1_000, is_closed=lambda instant_ms: instant_ms == ends_at)
    assert (told["ended_by"], verdict(told, "exits_before_start")["count"]) == ("silence", 1)


def test_an_event_that_comes_within_a_second_of_a_later_one_is_waited_for() -> None:
    found = explain(events((0, 0.0, "play", {}), (1, 10.0, "pause", {"received_at": START + 12_000}),
                           (2, 11.0, "play", {})), NOW)  # fmt: skip
    assert (found["events"][1]["behind_ms"], found["events"][1]["late"]) == (1_000, False)
    assert found["not_counted"] == []


def test_a_counters_first_value_is_an_interval_from_nowhere_and_one_that_falls_adds_nothing() -> None:
    found = explain(
        events(
            (3, 0.0, "heartbeat", {"played_ms": 30_000}),
            (4, 30.0, "heartbeat", {"played_ms": 20_000}),
            (5, 60.0, "heartbeat", {"played_ms": 61_200}),
        ),
        NOW,
    )
    first = found["intervals"][0]
    assert (first["from_seq"], first["to_seq"], first["start"], first["played_ms"]) == (None, 3, None, 30_000)
    assert sum(i["played_ms"] for i in found["intervals"]) == found["measures"]["played_ms"] == 61_200
    assert whys(found)["played_ms"] == (
        "61.2 s by its player's own count, `played_ms`, which rose with 2 of its 3 events"
    )
    fallen = "`played_ms` 20000 is below 30000, told before: disorder, which adds nothing"
    assert [(n["seq"], n["reason"], n["detail"]) for n in found["not_counted"]] == [(4, "counter", fallen)]
