"""Every refusal of the ingestion addresses (API section 2), over HTTP."""

from __future__ import annotations

import gzip
import json
import resource
import socket
import zlib
from collections.abc import Callable
from pathlib import Path

import pytest
import zstandard
from collecting import BEACON, CMCD, Server, Start, event, problem

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
    assert int(answer.headers["access-control-max-age"]) >= 86_400, "players ask once a day"
    assert "access-control-allow-credentials" not in answer.headers


def test_a_preflight_knows_the_list_of_the_key_in_its_address(shared: Server) -> None:
    good = shared.client.options(BEACON, params={"key": "pk_site"}, headers={"Origin": "https://a.example"})
    assert good.headers["access-control-allow-origin"] == "https://a.example"
    bad = shared.client.options(BEACON, params={"key": "pk_site"}, headers={"Origin": "https://evil.example"})
    assert "access-control-allow-origin" not in bad.headers


def test_404_and_405(shared: Server) -> None:
    problem(shared.client.post("/api/v1/events/other"), 404, "not_found")
    for method in ("GET", "PUT", "PATCH", "DELETE"):
        for path in (BEACON, CMCD):
            answer = shared.client.request(method, path)
            problem(answer, 405, "method_not_allowed")
            assert answer.headers["allow"] == "POST, OPTIONS"
    answer = shared.client.head(BEACON)
    assert (answer.status_code, answer.headers["allow"], answer.content) == (405, "POST, OPTIONS", b"")


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
