"""What is accepted (API section 2), over HTTP, from the real server in a process of its own."""

from __future__ import annotations

import gzip
import json
from collections.abc import Callable
from typing import Any

import pytest
import zstandard
from collecting import BEACON, CMCD, Server, event, now_ms, problem

from viewmeter.collector.dialects import EVENT_CODES
from viewmeter.model.events import EventType
from viewmeter.model.time import HOUR_MS, MINUTE_MS

# Accepted


def test_204_has_no_body_and_the_events_are_durable_when_it_arrives(shared: Server) -> None:
    answer = shared.post([event(view_id="durable", seq=0), event(view_id="durable", seq=1, type="play")])
    assert (answer.status_code, answer.content) == (204, b"")
    assert [row["seq"] for row in shared.events(view_id="durable")] == [0, 1]


def test_every_field_arrives_as_it_was_sent_and_fractions_are_rounded(shared: Server) -> None:
    at = now_ms()
    sent = event(
        view_id="fields",
        type="error",
        ts=at + 0.6,
        seq=3,
        viewer_id="ann",
        position_ms=1000.4,
        duration_ms=600_000,
        played_ms=900.5,
        rebuffered_ms=0,
        rebuffer_count=2,
        startup_ms=812.7,
        bitrate_kbps=2999.6,
        playback_rate=1.25,
        error_code=404,
        error_message="gone",
        player="p/1",
        cdn="edge",
        stream_type="vod",
        fatal=True,
    )
    assert shared.post([sent]).status_code == 204
    row = shared.event(view_id="fields")
    expected = {
        "tenant_id": "acme",
        "channel_id": "c1",
        "video_id": "v1",
        "type": int(EventType.ERROR),
        "ts": at + 1,
        "seq": 3,
        "position_ms": 1000,
        "duration_ms": 600_000,
        "played_ms": 900,
        "rebuffered_ms": 0,
        "rebuffer_count": 2,
        "startup_ms": 813,
        "bitrate_kbps": 3000,
        "playback_rate": 1.25,
        "error_code": "404",
        "error_message": "gone",
        "player": "p/1",
        "cdn": "edge",
        "stream_type": "vod",
        "fatal": 1,
        "blind": False,
        "device_type": "desktop",
        "os": "Windows",
        "browser": "Chrome",
        "is_bot": False,
    }
    assert {name: row[name] for name in expected} == expected
    assert abs(row["received_at"] - at) < 60_000


def test_a_null_field_is_absent_and_an_unknown_field_is_ignored(shared: Server) -> None:
    answer = shared.post([event(view_id="nulls", position_ms=None, viewer_id=None, fatal=None, colour="blue", x={})])
    assert answer.status_code == 204
    row = shared.event(view_id="nulls")
    assert (row["position_ms"], row["fatal"], row["cdn"]) == (-1, -1, "unknown")


def test_a_whole_seq_may_be_written_with_a_point(shared: Server) -> None:
    body = json.dumps([event(view_id="point")]).replace('"seq": 0', '"seq": 7.0')
    assert shared.post(content=body.encode()).status_code == 204
    assert shared.event(view_id="point")["seq"] == 7


def test_long_free_text_is_cut_not_refused(shared: Server) -> None:
    sent = event(view_id="long", type="error", error_message="é" * 5000, player="p" * 300, cdn="c" * 300)
    assert shared.post([sent]).status_code == 204
    row = shared.event(view_id="long")
    assert (len(row["error_message"]), len(row["player"]), len(row["cdn"])) == (1024, 255, 255)


def test_200_counts_when_the_request_prefers_a_representation(shared: Server) -> None:
    events = [event(view_id="prefer"), event(view_id="prefer", seq=-1), event(view_id="prefer", seq=2), 5]
    answer = shared.post(events, headers={"Prefer": "return=representation"})
    assert answer.status_code == 200
    body = answer.json()
    assert body["accepted"] == 2
    assert [(one["index"], one["code"]) for one in body["rejected"]] == [(1, "out_of_range"), (3, "not_an_object")]
    assert answer.headers["preference-applied"] == "return=representation"
    assert [row["seq"] for row in shared.events(view_id="prefer")] == [0, 2]


def test_another_preference_gets_the_204(shared: Server) -> None:
    assert shared.post([event()], headers={"Prefer": "return=minimal"}).status_code == 204


@pytest.mark.parametrize("content_type", ["application/json", "text/plain;charset=UTF-8", "Application/JSON", None])
def test_content_types_of_beacons(shared: Server, content_type: str | None) -> None:
    headers = {} if content_type is None else {"Content-Type": content_type}
    assert shared.post([event()], headers=headers).status_code == 204


@pytest.mark.parametrize(
    ("encoding", "pack"),
    [
        ("gzip", gzip.compress),
        ("gzip", lambda body: gzip.compress(body[:40]) + gzip.compress(body[40:])),
        ("zstd", zstandard.compress),
        ("identity", bytes),
    ],
)
def test_compressed_bodies(shared: Server, encoding: str, pack: Callable[[bytes], bytes]) -> None:
    view = f"packed {encoding} {pack}"
    body = pack(json.dumps([event(view_id=view)]).encode())
    assert shared.post(content=body, headers={"Content-Encoding": encoding}).status_code == 204
    assert shared.events(view_id=view)


def test_a_body_without_a_length_is_read(shared: Server) -> None:
    body = json.dumps([event(view_id="chunked")]).encode()
    assert shared.post(content=iter([body[:10], body[10:]])).status_code == 204
    assert shared.events(view_id="chunked")


def test_the_key_may_come_as_a_bearer(shared: Server) -> None:
    assert shared.post([event()], key=None, headers={"Authorization": "Bearer pk_acme"}).status_code == 204


def test_500_events_are_not_too_many(shared: Server) -> None:
    assert shared.post([event(view_id="many", seq=seq) for seq in range(500)]).status_code == 204
    assert len(shared.events(view_id="many")) == 500


def test_views_of_one_beacon_may_be_mixed(shared: Server) -> None:
    mixed = [
        event(view_id=f"mixed {n % 3}", seq=n, video_id=f"v{n % 2}", viewer_id=None if n % 2 else "x") for n in range(9)
    ]
    assert shared.post(mixed).status_code == 204
    for n in range(9):
        row = shared.event(view_id=f"mixed {n % 3}", seq=n)
        assert row["video_id"] == f"v{n % 2}"


# Clocks


def test_a_clock_that_is_wrong_by_more_than_10_s_shifts_every_ts(shared: Server) -> None:
    wrong = now_ms() - 30 * 24 * HOUR_MS
    assert shared.post([event(view_id="skew", ts=wrong - 5_000)], t=wrong).status_code == 204
    row = shared.event(view_id="skew")
    assert abs(row["ts"] - (row["received_at"] - 5_000)) <= 1


def test_a_clock_that_is_wrong_by_less_is_left_alone(shared: Server) -> None:
    at = now_ms()
    assert shared.post([event(view_id="little skew", ts=at - 5_000)], t=at - 5_000).status_code == 204
    assert shared.event(view_id="little skew")["ts"] == at - 5_000


@pytest.mark.parametrize("t", ["", "soon", "nan", "-5", "1e400", "99999999999999999"])
def test_a_t_that_is_no_instant_is_ignored(shared: Server, t: str) -> None:
    view = f"t is {t}"
    at = now_ms()
    assert shared.post([event(view_id=view, ts=at)], t=t).status_code == 204
    assert shared.event(view_id=view)["ts"] == at


@pytest.mark.parametrize(
    ("age_ms", "code"),
    [
        (72 * HOUR_MS - MINUTE_MS, None),
        (72 * HOUR_MS + MINUTE_MS, "ts_too_old"),
        (-4 * MINUTE_MS, None),
        (-6 * MINUTE_MS, "ts_in_future"),
    ],
)
def test_events_older_than_72_hours_or_5_minutes_ahead_are_rejected(
    shared: Server, age_ms: int, code: str | None
) -> None:
    answer = shared.post([event(ts=now_ms() - age_ms)])
    if code is None:
        assert answer.status_code == 204
    else:
        (error,) = problem(answer, 422, "invalid_events")["errors"]
        assert error["code"] == code


def test_age_is_judged_after_the_clock_was_corrected(shared: Server) -> None:
    wrong = now_ms() + 400 * HOUR_MS
    assert shared.post([event(ts=wrong)], t=wrong).status_code == 204


# Channels


def test_a_key_of_one_channel_supplies_it(shared: Server) -> None:
    sent = event(view_id="supplied")
    del sent["channel_id"]
    assert shared.post([sent, event(view_id="supplied", seq=1)], key="pk_one").status_code == 204
    assert {row["channel_id"] for row in shared.events(view_id="supplied")} == {"c1"}


@pytest.mark.parametrize(("key", "channel"), [("pk_one", "c2"), ("pk_two", "c3")])
def test_an_event_that_names_a_channel_of_someone_else_is_a_mismatch(shared: Server, key: str, channel: str) -> None:
    events = [event(view_id=f"mismatch {key}"), event(view_id=f"mismatch {key}", seq=1, channel_id=channel)]
    answer = shared.post(events, key=key, headers={"Prefer": "return=representation"})
    (rejected,) = answer.json()["rejected"]
    assert (rejected["index"], rejected["code"]) == (1, "channel_mismatch")
    assert [row["seq"] for row in shared.events(view_id=f"mismatch {key}")] == [0]


@pytest.mark.parametrize("key", ["pk_acme", "pk_two"])
def test_without_one_bound_channel_the_event_must_name_it(shared: Server, key: str) -> None:
    (error,) = problem(shared.post([event(channel_id=None)], key=key), 422, "invalid_events")["errors"]
    assert error["code"] == "missing_field"
    assert "channel_id" in error["detail"]


# Rejected events


# A dict is what differs from a good event; anything else stands there as it is.
REJECTED: list[tuple[Any, str, str]] = [
    (5, "not_an_object", "a number"),
    ("x", "not_an_object", "a string"),
    (None, "not_an_object", "null"),
    ([], "not_an_object", "an array"),
    ({}, "missing_field", "`type`, `ts`, `view_id`, `seq`, `video_id` are required"),
    ({"ts": None}, "missing_field", "`ts` is required"),
    ({"type": "watch"}, "unknown_type", "known are request, play"),
    ({"type": 5}, "wrong_type", "`type`"),
    ({"ts": "now"}, "wrong_type", "`ts`"),
    ({"ts": True}, "wrong_type", "`ts`"),
    ({"ts": -1}, "out_of_range", "`ts`"),
    ({"ts": 10**30}, "out_of_range", "`ts`"),
    ({"seq": -1}, "out_of_range", "`seq`"),
    ({"seq": 10_000_001}, "out_of_range", "`seq`"),
    ({"seq": 10**30}, "out_of_range", "`seq`"),
    ({"seq": 1.5}, "wrong_type", "`seq`"),
    ({"view_id": ""}, "wrong_length", "`view_id`"),
    ({"video_id": "v" * 256}, "wrong_length", "256 characters"),
    ({"view_id": 7}, "wrong_type", "`view_id`"),
    ({"video_id": "a\x00b"}, "invalid_text", "U+0000"),
    ({"position_ms": -1}, "out_of_range", "`position_ms`"),
    ({"played_ms": 1e18}, "out_of_range", "`played_ms`"),
    ({"duration_ms": "long"}, "wrong_type", "`duration_ms`"),
    ({"bitrate_kbps": -3}, "out_of_range", "`bitrate_kbps`"),
    ({"playback_rate": -1}, "out_of_range", "`playback_rate`"),
    ({"fatal": "yes"}, "wrong_type", "`fatal`"),
]


@pytest.mark.parametrize(("sent", "code", "says"), REJECTED, ids=[f"{code} {says}" for _, code, says in REJECTED])
def test_a_bad_event_is_rejected_with_its_reason_and_spoils_no_neighbour(
    shared: Server, sent: Any, code: str, says: str
) -> None:
    assert code in EVENT_CODES
    sent = event(**sent) if isinstance(sent, dict) and sent else sent
    view = f"neighbour of {json.dumps(sent)}"[:255]
    answer = shared.post(
        [event(view_id=view), sent, event(view_id=view, seq=1)], headers={"Prefer": "return=representation"}
    )
    assert answer.status_code == 200, answer.text
    (rejected,) = answer.json()["rejected"]
    assert (rejected["index"], rejected["code"]) == (1, code)
    assert says in rejected["detail"]
    assert [row["seq"] for row in shared.events(view_id=view)] == [0, 1]


@pytest.mark.parametrize(
    ("raw", "code"),
    [(b'{"type":"play","view_id":"\xff"}', "invalid_text"), (b'{"ts":1e999,"type":"play"}', "malformed")],
)
def test_an_event_that_no_parser_takes_spoils_no_neighbour(shared: Server, raw: bytes, code: str) -> None:
    good = json.dumps(event(view_id=f"beside {code}")).encode()
    answer = shared.post(content=b"[" + raw + b"," + good + b"]", headers={"Prefer": "return=representation"})
    assert [(one["index"], one["code"]) for one in answer.json()["rejected"]] == [(0, code)]
    assert shared.events(view_id=f"beside {code}")


def test_rejected_events_are_dead_letters_with_reason_time_and_what_was_sent(shared: Server) -> None:
    sent = event(view_id="a letter", seq=-5, viewerId="ann")  # misspelt: whose field it is nobody can know
    old = event(view_id="an old letter", ts=now_ms() - 100 * HOUR_MS)
    before = now_ms()
    problem(shared.post([sent, old]), 422, "invalid_events")
    letter = next(one for one in shared.letters("out_of_range") if b"a letter" in one.raw)
    assert json.loads(letter.raw) == sent | {"viewerId": None}
    assert (letter.tenant_id, letter.key_id, letter.dialect, letter.complete) == ("acme", "k1", "native", True)
    assert "`seq` is -5" in letter.detail
    assert before - 1 <= letter.received_at <= now_ms()
    old_letter = next(one for one in shared.letters("ts_too_old") if b"an old letter" in one.raw)
    assert json.loads(old_letter.raw)["ts"] == old["ts"]


# CMCD


def test_cmcd_is_answered_204_and_becomes_events(shared: Server) -> None:
    line = f'cid="v1",e=ps,sid="cmcd view",sn=0,sta=p,ts={now_ms()},v=2\n'
    answer = shared.post(path=CMCD, content=line.encode(), key="pk_one", headers={"Content-Type": "application/cmcd"})
    assert answer.status_code == 204, answer.text
    assert shared.event(view_id="cmcd view")["channel_id"] == "c1"


def test_cmcd_takes_the_channel_of_the_address(shared: Server) -> None:
    line = f'cid="v1",e=ps,sid="cmcd channel",sn=0,sta=p,ts={now_ms()},v=2'
    answer = shared.client.post(
        CMCD, params={"key": "pk_acme", "channel_id": "c9"}, content=line, headers={"Content-Type": "text/cmcd"}
    )
    assert answer.status_code == 204, answer.text
    assert shared.event(view_id="cmcd channel")["channel_id"] == "c9"


@pytest.mark.parametrize(
    ("named", "known_as"),
    [("hls.js 1.7", "hls.js 1.7"), ("", "unknown"), (" \0", "unknown"), ("p" * 65, "p" * 64), ("\0ü", "ü")],
)
def test_cmcd_takes_the_name_of_the_player_from_the_address(shared: Server, named: str, known_as: str) -> None:
    view = f"cmcd player {len(named)} {known_as}"
    line = f'cid="v1",e=ps,sid="{view}",sn=0,sta=p,ts={now_ms()},v=2'
    parameters = {"key": "pk_one", "player": named}
    answer = shared.client.post(CMCD, params=parameters, content=line.encode(), headers={"Content-Type": "text/cmcd"})
    assert answer.status_code == 204, answer.text
    assert shared.event(view_id=view)["player"] == known_as


def test_a_native_event_names_its_own_player(shared: Server) -> None:
    answer = shared.client.post(
        BEACON, params={"key": "pk_one", "player": "hls.js"}, json=[event(view_id="own player")]
    )
    assert answer.status_code == 204, answer.text
    assert shared.event(view_id="own player")["player"] == "unknown"


def test_cmcd_of_another_content_type_is_415(shared: Server) -> None:
    answer = shared.post(path=CMCD, content=b"x", headers={"Content-Type": "application/json"})
    problem(answer, 415, "unsupported_media_type")
