"""Replaying recordings: what arrives at a server is what was recorded, in its order."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

from viewmeter.collector.dialects.cmcd import decode
from viewmeter.testing.replay import Post, ReplayError, ReplaySettings, due_s, read_posts, replay, shift_cmcd

NOW = 1_800_000_000_000
HLS = Path(__file__).parents[2] / "data" / "recordings" / "hlsjs_pause_seek.jsonl"
Answer = Callable[[int], web.Response]


@dataclass
class Server:
    """A server on loopback that remembers what it got; `answer` is told how many requests came before."""

    url: str = ""
    got: list[dict[str, Any]] = field(default_factory=list)
    answer: Answer = lambda _: web.Response(status=204)

    async def handle(self, request: web.Request) -> web.Response:
        body = await request.read()
        seen = {"path": request.path, "query": dict(request.query), "headers": request.headers, "body": body}
        self.got.append(seen)
        return self.answer(len(self.got) - 1)


@pytest.fixture
def server() -> Iterator[Server]:
    made, loop, up = Server(), asyncio.new_event_loop(), threading.Event()

    async def start() -> web.AppRunner:
        app = web.Application()
        app.router.add_route("*", "/{tail:.*}", made.handle)
        runner = web.AppRunner(app)
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        made.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
        return runner

    def run() -> None:
        runner = loop.run_until_complete(start())
        up.set()
        loop.run_forever()
        loop.run_until_complete(runner.cleanup())
        loop.close()

    thread = threading.Thread(target=run)
    thread.start()
    assert up.wait(30)
    yield made
    loop.call_soon_threadsafe(loop.stop)
    thread.join(30)


def native(folder: Path, *lines: dict[str, Any], name: str = "native.jsonl") -> Path:
    path = folder / name
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return path


def test_bodies_arrive_byte_for_byte_in_the_order_of_the_file(server: Server) -> None:
    recorded = [json.loads(line) for line in HLS.read_text().splitlines()[1:]]
    summary = replay([HLS], to=server.url, key="pk_x", now_ms=NOW, fast=True, channel_id="c1")
    assert [g["body"] for g in server.got] == [r["body"].encode() for r in recorded]
    assert {g["path"] for g in server.got} == {"/api/v1/events/cmcd"}
    assert server.got[0]["query"] == {"key": "pk_x", "channel_id": "c1"}
    assert server.got[0]["headers"]["User-Agent"] == recorded[0]["headers"]["user-agent"]
    assert server.got[0]["headers"]["Content-Type"] == "application/cmcd"
    assert (summary.posts, summary.statuses, summary.ok) == (len(recorded), {204: len(recorded)}, True)


def test_shifted_to_now_the_recording_ends_now_and_nothing_else_changes(server: Server) -> None:
    recorded = [json.loads(line) for line in HLS.read_text().splitlines()[1:]]
    shift = NOW - max(r["received_at_ms"] for r in recorded)
    replay([HLS], to=server.url, key="pk_x", now_ms=NOW, fast=True, shift_to_now=True)
    for got, was in zip(server.got, recorded, strict=True):
        new, old = (decode(body, channel_id=None).events for body in (got["body"], was["body"].encode()))
        assert [e.ts - shift for e in new] == [e.ts for e in old]
        assert shift_cmcd(got["body"], -shift) == was["body"].encode()


def test_at_a_speed_the_recording_ends_when_its_replay_does() -> None:
    ends = [
        replay_shift_of(speed) + json.loads(HLS.read_text().splitlines()[-1])["received_at_ms"] for speed in (1.0, 2.0)
    ]
    posts = list(read_posts(HLS))
    length = max(p.received_at_ms for p in posts) - posts[0].received_at_ms
    assert ends == [NOW + length, NOW + round(length / 2)]


def replay_shift_of(speed: float) -> int:
    from viewmeter.testing.replay import _Recording

    return _Recording.scan(HLS, NOW, speed, True).shift_ms


def test_posts_are_due_as_far_apart_as_they_came_divided_by_the_speed() -> None:
    post = Post(received_at_ms=3_000, path="/", body=b"")
    assert due_s(post, 1_000, 1) == 2
    assert due_s(post, 1_000, 4) == 0.5
    assert due_s(post, 1_000, float("inf")) == 0
    assert due_s(post, 9_000, 1) == 0


def test_only_ts_is_moved_not_what_looks_like_it_in_a_string() -> None:
    body = b'ts=5,url="http://x/a,ts=5,b",tsx=5,v=2\nv=2,ts=7\r\na="\\",ts=9,"'
    assert shift_cmcd(body, 100) == b'ts=105,url="http://x/a,ts=5,b",tsx=5,v=2\nv=2,ts=107\r\na="\\",ts=9,"'


def test_native_beacons_are_posted_with_their_sending_time(server: Server, tmp_path: Path) -> None:
    events = [{"type": "play", "ts": 900, "view_id": "v", "seq": 0, "video_id": "a"}]
    path = native(tmp_path, {"received_at_ms": 1_000, "t": 990, "body": events})
    replay([path], to=server.url, key="pk_x", now_ms=NOW, fast=True)
    replay([path], to=server.url + "/", key="pk_x", now_ms=NOW, fast=True, shift_to_now=True)
    plain, moved = server.got
    assert json.loads(plain["body"]) == events
    assert plain["path"] == "/api/v1/events/beacon"
    assert plain["query"] == {"key": "pk_x", "t": "990"}
    assert json.loads(moved["body"])[0]["ts"] == NOW - 100
    assert moved["query"]["t"] == str(NOW - 10)


def test_a_refusal_for_the_moment_is_tried_again_before_the_next_post(server: Server) -> None:
    busy = {0: 503, 1: 429}
    server.answer = lambda n: web.Response(status=busy.get(n, 204), headers={"Retry-After": "0"})
    summary = replay([HLS], to=server.url, key="pk_x", now_ms=NOW, fast=True)
    bodies = [g["body"] for g in server.got]
    assert bodies[0] == bodies[1] == bodies[2] != bodies[3]
    assert (summary.retries, summary.ok, summary.statuses) == (2, True, {204: summary.posts})


def test_a_post_that_is_refused_for_good_is_counted_and_explained(server: Server, tmp_path: Path) -> None:
    server.answer = lambda n: web.Response(status=(422, 503)[min(n, 1)], text="no event", headers={"Retry-After": "0"})
    lines = [{"received_at_ms": i, "body": []} for i in (1, 2)]
    path = native(tmp_path, *lines)
    settings = ReplaySettings(attempts=3)
    summary = replay([path], to=server.url, key="pk_x", now_ms=NOW, fast=True, settings=settings)
    assert (summary.statuses, summary.ok, summary.retries) == ({422: 1, 503: 1}, False, 2)
    assert "answered 422: no event" in summary.problems[0]
    assert str(summary) == "2 posts of 1 files: 1 x 422, 1 x 503 (2 retries)"


def test_without_a_server_nothing_is_answered_and_the_summary_says_so(server: Server, tmp_path: Path) -> None:
    path = native(tmp_path, {"received_at_ms": 1, "body": []})
    settings = ReplaySettings(attempts=1)
    summary = replay([path], to="http://127.0.0.1:1", key="pk_x", now_ms=NOW, fast=True, settings=settings)
    assert (summary.unanswered, summary.ok, summary.statuses) == (1, False, {})
    assert "no answer" in summary.problems[0]


def test_several_files_each_keep_their_order(server: Server, tmp_path: Path) -> None:
    paths = [
        native(tmp_path, *({"received_at_ms": i, "body": [name, i]} for i in range(20)), name=name)
        for name in ("a", "b", "c")
    ]
    done: list[tuple[int, int]] = []
    settings = ReplaySettings(concurrent_files=2)
    summary = replay(
        paths,
        to=server.url,
        key="pk_x",
        now_ms=NOW,
        fast=True,
        settings=settings,
        progress=lambda *at: done.append(at),
    )
    got = [json.loads(g["body"]) for g in server.got]
    for name in ("a", "b", "c"):
        assert [i for n, i in got if n == name] == list(range(20))
    assert (summary.files, summary.posts, done[-1]) == (3, 60, (60, 60))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "holds no beacon"),
        ("not json\n", "line 1: this is no JSON"),
        ('{"player": "x"}\n{"player": "x"}\n', "line 2: a recorded beacon has"),
        ('{"received_at_ms": "1", "body": ""}\n', "line 1: a recorded beacon has"),
        ("[1]\n", "line 1: a recorded beacon has"),
    ],
)
def test_a_file_that_is_no_recording_is_refused_before_anything_is_sent(
    server: Server, tmp_path: Path, text: str, message: str
) -> None:
    path = tmp_path / "bad.jsonl"
    path.write_text(text)
    with pytest.raises(ReplayError, match=message):
        replay([HLS, path], to=server.url, key="pk_x", now_ms=NOW, fast=True)
    assert server.got == []


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"to": "127.0.0.1:8080"}, "no address"),
        ({"speed": 0}, "above 0"),
        ({"files": []}, "no file"),
        ({"files": [Path("nowhere.jsonl")]}, "cannot be read"),
    ],
)
def test_wrong_arguments_are_refused_with_what_would_be_right(arguments: dict[str, Any], message: str) -> None:
    given = {"files": [HLS], "to": "http://127.0.0.1:1", "key": "pk_x", "now_ms": NOW, **arguments}
    with pytest.raises(ReplayError, match=message):
        replay(given.pop("files"), **given)
