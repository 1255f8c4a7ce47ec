"""Every answer of the ingestion addresses (API section 2), over HTTP, from the real server in a process of its own."""

from __future__ import annotations

import gzip
import json
import resource
import signal
import socket
import subprocess
import sys
import threading
import time
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import pytest
import zstandard

from viewmeter.bench.ingest import free_port
from viewmeter.collector.deadletters import DeadLetter, DeadLetters
from viewmeter.collector.dialects import EVENT_CODES
from viewmeter.eventlog.embedded import EmbeddedLogReader
from viewmeter.model.events import EventType
from viewmeter.model.problems import PROBLEMS
from viewmeter.model.time import HOUR_MS, MINUTE_MS

BEACON = "/api/v1/events/beacon"
CMCD = "/api/v1/events/cmcd"
CHROME = (
    "Mozilla/5.0 (Windows NT 10.0; Win64; x64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/131.0.0.0 Safari/537.36"
)
IPHONE = (
    "Mozilla/5.0 (iPhone; CPU iPhone OS 18_1 like Mac OS X) AppleWebKit/605.1.15 (KHTML, like Gecko) "
    "Version/18.1 Mobile/15E148 Safari/604.1"
)
KEYS: dict[str, dict[str, Any]] = {
    "pk_acme": {"id": "k1", "tenant": "acme"},
    "pk_other": {"id": "k2", "tenant": "other"},
    "pk_one": {"id": "k3", "tenant": "acme", "channels": ["c1"]},
    "pk_two": {"id": "k4", "tenant": "acme", "channels": ["c1", "c2"]},
    "pk_site": {"id": "k5", "tenant": "acme", "origins": ["https://a.example", "https://b.example"]},
    "sk_read": {"id": "k6", "tenant": "acme", "scopes": ["read", "rules", "admin"]},
}


def now_ms() -> int:
    return time.time_ns() // 1_000_000


def event(**fields: Any) -> dict[str, Any]:
    return {
        "type": "heartbeat",
        "ts": now_ms(),
        "view_id": "view",
        "seq": 0,
        "video_id": "v1",
        "channel_id": "c1",
        **fields,
    }


@dataclass
class Server:
    """A running collector worker. `url` is its address; `events()` what its log holds."""

    data: Path
    settings: dict[str, Any] = field(default_factory=dict)
    url: str = ""

    def __post_init__(self) -> None:
        port = free_port()
        options = ["--keys", json.dumps(KEYS), "--settings", json.dumps(self.settings)]
        command = [sys.executable, "-m", "viewmeter.bench.ingest_server", str(self.data), str(port), *options]
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        self.url = f"http://127.0.0.1:{port}"
        self.port = port
        assert self.process.stdout is not None
        first = self.process.stdout.readline()
        assert first == "listening\n", first + self.process.stdout.read()
        self.client = httpx.Client(base_url=self.url, timeout=30, headers={"User-Agent": CHROME})

    def post(self, events: Any = None, *, key: str | None = "pk_acme", t: Any = None, **options: Any) -> httpx.Response:
        parameters = {name: value for name, value in (("key", key), ("t", t)) if value is not None}
        if events is not None:
            options["content"] = json.dumps(events).encode()
        return self.client.post(options.pop("path", BEACON), params=parameters, **options)

    def events(self, **wanted: Any) -> list[dict[str, Any]]:
        """Return the durable events, those with these values."""
        reader = EmbeddedLogReader(self.data / "log")
        rows = [row for one in reader.read({}, max_events=10**9) for row in one.events.to_pylist()]
        reader.close()
        return [row for row in rows if all(row[name] == value for name, value in wanted.items())]

    def event(self, **wanted: Any) -> dict[str, Any]:
        (found,) = self.events(**wanted)
        return found

    def letters(self, code: str | None = None) -> list[DeadLetter]:
        letters = DeadLetters(self.data / "dead-letters")
        found, _ = letters.list(code=code, limit=10_000)
        letters.close()
        return list(found)

    def limit_file_size(self, limit: int) -> None:
        """What a full disk is to the server: files cannot grow beyond this."""
        resource.prlimit(self.process.pid, resource.RLIMIT_FSIZE, (limit, resource.RLIM_INFINITY))

    def stop(self) -> int:
        self.client.close()
        self.process.terminate()
        self.process.communicate(timeout=60)
        return self.process.returncode


Start = Callable[..., Server]


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    server = Server(tmp_path_factory.mktemp("collector"), {"trusted_proxies": ["127.0.0.1/32"]})
    yield server
    assert server.stop() == 0


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    started: list[Server] = []

    def make(**settings: Any) -> Server:
        started.append(server := Server(tmp_path / f"data-{len(started)}", settings))
        return server

    yield make
    for server in started:
        server.stop()


def problem(answer: httpx.Response, status: int, code: str) -> dict[str, Any]:
    """Check that the answer is that problem (RFC 9457), and return its body."""
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == "application/problem+json"
    body: dict[str, Any] = answer.json()
    kind = PROBLEMS[code]
    assert (body["code"], body["status"], body["title"]) == (code, status, kind.title)
    assert body["type"] == f"/docs/problems/{code}"
    assert body["detail"]
    return body


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


# Refused beacons


@pytest.mark.parametrize(
    ("body", "status", "code"),
    [
        (b"", 400, "invalid_json"),
        (b"hello", 400, "invalid_json"),
        (b'[{"type":"play"', 400, "invalid_json"),
        (b"[] trailing", 400, "invalid_json"),
        (b"\xff\xfe", 400, "invalid_json"),
        (b"[" * 200_000, 400, "invalid_json"),
        (b"{}", 400, "not_an_array"),
        (b'"text"', 400, "not_an_array"),
        (b"null", 400, "not_an_array"),
        (b"5", 400, "not_an_array"),
        (b"[]", 422, "empty_beacon"),
        (b" [ ] ", 422, "empty_beacon"),
        (b"[1,2]", 422, "invalid_events"),
    ],
)
def test_bodies_without_an_event(shared: Server, body: bytes, status: int, code: str) -> None:
    found = problem(shared.post(content=body), status, code)
    if code == "invalid_events":
        assert [(one["index"], one["code"]) for one in found["errors"]] == [(0, "not_an_object"), (1, "not_an_object")]


@pytest.mark.parametrize(
    ("encoding", "body"),
    [
        ("gzip", b"[]"),
        ("gzip", gzip.compress(b"[" + b" " * 999 + b"]", mtime=0)[:-9]),
        ("gzip", zlib.compress(b"[]")),
        ("zstd", b"[]"),
        ("zstd", gzip.compress(b"[]", mtime=0)),
    ],
)
def test_400_when_the_body_cannot_be_decompressed(shared: Server, encoding: str, body: bytes) -> None:
    problem(shared.post(content=body, headers={"Content-Encoding": encoding}), 400, "invalid_encoding")


def test_401_without_a_key_or_with_a_bad_one(shared: Server) -> None:
    answer = shared.post([event()], key=None)
    problem(answer, 401, "missing_key")
    assert answer.headers["www-authenticate"].startswith("Bearer")
    assert answer.headers["access-control-allow-origin"] == "*", "a page may read why"
    problem(shared.post([event()], key="pk_nobody"), 401, "invalid_key")
    problem(shared.post([event()], key=None, headers={"Authorization": "Basic pk_acme"}), 401, "invalid_key")


def test_403_for_a_key_that_may_not_send(shared: Server) -> None:
    problem(shared.post([event()], key="sk_read"), 403, "missing_scope")


@pytest.mark.parametrize("origin", ["https://evil.example", "https://a.example.evil.example", "http://a.example", None])
def test_403_for_an_origin_that_is_not_on_the_list(shared: Server, origin: str | None) -> None:
    headers = {} if origin is None else {"Origin": origin}
    answer = shared.post([event()], key="pk_site", headers=headers)
    problem(answer, 403, "origin_not_allowed")
    assert "access-control-allow-origin" not in answer.headers


def test_an_origin_on_the_list_is_allowed_by_name(shared: Server) -> None:
    answer = shared.post([event()], key="pk_site", headers={"Origin": "https://b.example"})
    assert answer.status_code == 204
    assert answer.headers["access-control-allow-origin"] == "https://b.example"
    assert answer.headers["vary"] == "origin"
    assert "access-control-allow-credentials" not in answer.headers


def test_any_origin_is_allowed_where_the_key_has_no_list(shared: Server) -> None:
    answer = shared.post([event()], headers={"Origin": "https://any.example"})
    assert answer.headers["access-control-allow-origin"] == "*"
    refused = shared.post([], headers={"Origin": "https://any.example"})
    assert refused.headers["access-control-allow-origin"] == "*"
    assert "retry-after" in refused.headers["access-control-expose-headers"]


@pytest.mark.parametrize("path", [BEACON, CMCD])
def test_preflights_are_answered(shared: Server, path: str) -> None:
    headers = {
        "Origin": "https://any.example",
        "Access-Control-Request-Method": "POST",
        "Access-Control-Request-Headers": "content-type",
    }
    answer = shared.client.options(path, params={"key": "pk_acme"}, headers=headers)
    assert (answer.status_code, answer.content) == (204, b"")
    assert answer.headers["access-control-allow-origin"] == "*"
    assert "POST" in answer.headers["access-control-allow-methods"]
    assert {"content-type", "authorization", "content-encoding", "prefer"} <= set(
        answer.headers["access-control-allow-headers"].split(", ")
    )
    assert int(answer.headers["access-control-max-age"]) > 0
    assert "access-control-allow-credentials" not in answer.headers


def test_a_preflight_knows_the_list_of_the_key_in_its_address(shared: Server) -> None:
    good = shared.client.options(BEACON, params={"key": "pk_site"}, headers={"Origin": "https://a.example"})
    assert good.headers["access-control-allow-origin"] == "https://a.example"
    bad = shared.client.options(BEACON, params={"key": "pk_site"}, headers={"Origin": "https://evil.example"})
    assert "access-control-allow-origin" not in bad.headers


def test_404_and_405(shared: Server) -> None:
    problem(shared.client.post("/api/v1/events/other"), 404, "not_found")
    answer = shared.client.get(BEACON)
    problem(answer, 405, "method_not_allowed")
    assert answer.headers["allow"] == "POST, OPTIONS"


def test_413_for_too_large_a_body_with_or_without_its_length(shared: Server) -> None:
    body = b"[" + b" " * (1 << 20) + b"]"
    problem(shared.post(content=body), 413, "body_too_large")
    problem(shared.post(content=iter([body])), 413, "body_too_large")
    assert shared.post(content=b" " * ((1 << 20) - 400) + json.dumps([event()]).encode()).status_code == 204


@pytest.mark.parametrize(("encoding", "pack"), [("gzip", gzip.compress), ("zstd", zstandard.compress)])
def test_413_for_a_bomb_whose_memory_is_never_taken(
    shared: Server, encoding: str, pack: Callable[[bytes], bytes]
) -> None:
    bomb = pack(b"[" + b" " * 300_000_000 + b"]")
    assert len(bomb) < 1 << 20
    problem(shared.post(content=bomb, headers={"Content-Encoding": encoding}), 413, "body_too_large")
    status = Path(f"/proc/{shared.process.pid}/status").read_text()
    peak_kib = int(status.partition("VmHWM:")[2].split()[0])
    assert peak_kib < 300_000


def test_413_for_more_than_500_events(shared: Server) -> None:
    body = problem(shared.post([event(seq=seq) for seq in range(501)]), 413, "too_many_events")
    assert "501" in body["detail"]


@pytest.mark.parametrize("content_type", ["text/html", "multipart/form-data; boundary=x", "application/cmcd"])
def test_415_for_another_content_type(shared: Server, content_type: str) -> None:
    answer = shared.post([event()], headers={"Content-Type": content_type})
    body = problem(answer, 415, "unsupported_media_type")
    assert "application/json" in body["detail"]


@pytest.mark.parametrize("encoding", ["br", "deflate", "gzip, gzip"])
def test_415_for_another_encoding(shared: Server, encoding: str) -> None:
    answer = shared.post([event()], headers={"Content-Encoding": encoding})
    problem(answer, 415, "unsupported_content_encoding")


def test_429_says_when_to_come_back(start: Start) -> None:
    server = start(requests_per_second_per_key=2, rate_burst_seconds=1.0)
    answers = [server.post([event()]) for _ in range(6)]
    limited = next(answer for answer in answers if answer.status_code == 429)
    problem(limited, 429, "rate_limited")
    assert int(limited.headers["retry-after"]) >= 1
    assert limited.headers["ratelimit"].startswith('"key";r=0;t=')
    assert '"key";q=2;w=1' in limited.headers["ratelimit-policy"]
    assert answers[0].status_code == 204
    assert server.post([event()], key="pk_other").status_code == 204, "another key has a bucket of its own"


def test_429_by_address_comes_before_the_key_is_looked_at(start: Start) -> None:
    server = start(requests_per_second_per_address=1, rate_burst_seconds=1.0, trusted_proxies=["127.0.0.1"])
    codes = [server.post([event()], key="pk_nobody").status_code for _ in range(5)]
    assert codes[0] == 401
    assert 429 in codes
    other = server.post([event()], headers={"X-Forwarded-For": "203.0.113.9"})
    assert other.status_code == 204, "another address has a bucket of its own"


def test_the_default_limits_admit_5000_requests_a_second() -> None:
    from viewmeter.collector.settings import CollectorSettings

    defaults = CollectorSettings()
    assert defaults.requests_per_second_per_address >= 5_000
    assert defaults.requests_per_second_per_key >= 5_000


def test_503_while_the_disk_is_full_nothing_of_it_is_kept_and_it_heals_by_itself(start: Start) -> None:
    server = start()
    assert server.post([event(view_id="before")]).status_code == 204
    server.limit_file_size(1)
    answer = server.post([event(view_id="during")])
    problem(answer, 503, "log_unavailable")
    assert int(answer.headers["retry-after"]) >= 1
    server.limit_file_size(resource.RLIM_INFINITY)
    assert server.post([event(view_id="after")]).status_code == 204
    assert [row["view_id"] for row in server.events()] == ["before", "after"]


def test_503_when_too_many_events_wait(start: Start) -> None:
    server = start(max_pending_events=3)
    answer = server.post([event(seq=seq) for seq in range(4)])
    problem(answer, 503, "overloaded")
    assert int(answer.headers["retry-after"]) >= 1
    assert server.post([event()]).status_code == 204


def test_a_sender_that_never_ends_its_body_is_cut_off_and_the_others_are_served(start: Start) -> None:
    server = start(body_timeout_s=0.1)
    with socket.create_connection(("127.0.0.1", server.port), timeout=30) as slow:
        slow.sendall(f"POST {BEACON}?key=pk_acme HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\n[".encode())
        assert server.post([event()]).status_code == 204
        answer = slow.recv(1000)
        assert answer == b"" or not answer.startswith(b"HTTP/1.1 2")
    assert server.post([event()]).status_code == 204


# Who and where


def test_viewers_are_known_again_by_their_id_and_differ_between_tenants(shared: Server) -> None:
    for view, key in (("who 1", "pk_acme"), ("who 2", "pk_acme"), ("who 3", "pk_other")):
        assert shared.post([event(view_id=view, viewer_id="ann")], key=key).status_code == 204
    first, second, third = (shared.event(view_id=f"who {n}")["viewer_hash"] for n in (1, 2, 3))
    assert first == second != third


def test_without_an_id_a_viewer_is_an_address_and_a_user_agent(shared: Server) -> None:
    senders = [("198.51.100.1", CHROME), ("198.51.100.1", CHROME), ("198.51.100.2", CHROME), ("198.51.100.1", IPHONE)]
    for n, (address, agent) in enumerate(senders):
        headers = {"X-Forwarded-For": address, "User-Agent": agent}
        assert shared.post([event(view_id=f"fallback {n}")], headers=headers).status_code == 204
    assert shared.post([event(view_id="fallback 4")], key="pk_other", headers=headers).status_code == 204
    hashes = [shared.event(view_id=f"fallback {n}")["viewer_hash"] for n in range(5)]
    assert hashes[0] == hashes[1]
    assert len(set(hashes)) == 4


@pytest.mark.parametrize(
    ("forwarded", "country"),
    [
        ("8.8.8.8", "US"),
        ("8.8.8.8, 127.0.0.1", "US"),
        ("8.8.8.8:443", "US"),
        ("2001:4860:4860::8888", "US"),
        ("[2001:4860:4860::8888]:443", "US"),
        ("::ffff:8.8.8.8", "US"),
        ("8.8.8.8, 193.0.6.139", "NL"),
        ("nonsense", "unknown"),
        ("10.1.2.3", "unknown"),
    ],
)
def test_the_country_is_that_of_the_last_address_which_no_trusted_proxy_has(
    shared: Server, forwarded: str, country: str
) -> None:
    view = f"from {forwarded}"
    answer = shared.post([event(view_id=view)], headers={"X-Forwarded-For": forwarded})
    assert answer.status_code == 204
    assert shared.event(view_id=view)["country"] == country


def test_nobody_chooses_an_address_where_no_proxy_is_trusted(start: Start) -> None:
    server = start()
    assert server.post([event()], headers={"X-Forwarded-For": "8.8.8.8"}).status_code == 204
    assert server.event()["country"] == "unknown"


def test_no_address_is_written_to_disk(start: Start) -> None:
    server = start(trusted_proxies=["127.0.0.1"])
    address = "203.0.113.77"
    for sent in (event(), event(seq=-1), event(viewer_id="ann", seq=1)):
        server.post([sent], headers={"X-Forwarded-For": address})
    server.process.terminate()
    output, _ = server.process.communicate(timeout=60)
    assert address not in output
    packed = socket.inet_aton(address)
    for path in server.data.rglob("*"):
        if path.is_file():
            assert address.encode() not in path.read_bytes(), path
            assert packed not in path.read_bytes(), path


def test_the_device_comes_from_the_user_agent(shared: Server) -> None:
    assert shared.post([event(view_id="phone")], headers={"User-Agent": IPHONE}).status_code == 204
    row = shared.event(view_id="phone")
    assert (row["device_type"], row["os"], row["browser"], row["is_bot"]) == ("phone", "iOS", "Mobile Safari", False)


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


# Durability


class Senders:
    """Threads that send beacons of one event each until told to stop; `acknowledged` are the seqs answered 204."""

    def __init__(self, server: Server, count: int) -> None:
        self.acknowledged: list[int] = []
        self.other: list[int] = []
        self._stop = threading.Event()
        self._url = server.url + BEACON
        self._threads = [threading.Thread(target=self._send, args=(n * 100_000,)) for n in range(count)]
        for thread in self._threads:
            thread.start()

    def _send(self, seq: int) -> None:
        with httpx.Client(timeout=30) as client:
            while not self._stop.is_set():
                seq += 1
                try:
                    answer = client.post(self._url, params={"key": "pk_acme"}, json=[event(seq=seq)])
                except httpx.HTTPError:
                    return
                (self.acknowledged if answer.status_code == 204 else self.other).append(seq)

    def wait_for(self, count: int) -> None:
        while len(self.acknowledged) < count and any(thread.is_alive() for thread in self._threads):
            time.sleep(0.01)

    def end(self) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join(60)


def test_beacons_that_arrive_together_share_a_commit(start: Start) -> None:
    server = start()
    senders = Senders(server, 8)
    senders.wait_for(200)
    senders.end()
    reader = EmbeddedLogReader(server.data / "log")
    batches = reader.ends()[0]
    reader.close()
    assert sorted(row["seq"] for row in server.events()) == sorted(senders.acknowledged)
    assert batches < len(senders.acknowledged)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_what_was_acknowledged_is_there_after_a_stop_or_a_kill_under_load(start: Start, number: signal.Signals) -> None:
    server = start()
    senders = Senders(server, 8)
    senders.wait_for(100)
    server.process.send_signal(number)
    code = server.process.wait(60)
    senders.end()
    assert code == (0 if number == signal.SIGTERM else -number)
    durable = {row["seq"] for row in server.events()}
    assert set(senders.acknowledged) <= durable
    if number == signal.SIGTERM:
        assert durable == set(senders.acknowledged), "a stop gives every answer that is due"


def test_after_a_kill_the_next_start_goes_on(start: Start, tmp_path: Path) -> None:
    server = start()
    server.post([event(view_id="first")])
    server.process.kill()
    server.process.wait()
    again = Server(server.data)
    assert again.post([event(view_id="second")]).status_code == 204
    assert [row["view_id"] for row in again.events()] == ["first", "second"]
    assert again.stop() == 0
