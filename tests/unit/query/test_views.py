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
        "why": "the first proof of playing: a play, a complete, a heartbeat of a playing view, or played time",
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
    assert (exit_["count"], exit_["why"]) == (0, "it was counted and taken back: later events proved the opposite")
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
