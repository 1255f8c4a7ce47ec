"""The live stream over a real connection: events, sharing, bounds, and every way in which it ends."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace

import httpx
import pytest

from viewmeter.live.protocol import LiveScope
from viewmeter.web.services import Services

from .conftest import Served, World, changed

WAIT = threading.Event()  # never set: `WAIT.wait(s)` is a pause that a test may poll with


def events(lines: Iterator[str]) -> Iterator[dict[str, str]]:
    """Read Server-Sent Events as a browser does."""
    event: dict[str, str] = {}
    for line in lines:
        if line:
            name, _, value = line.partition(":")
            event[name or "comment"] = value.strip()
        elif event:
            yield event
            event = {}


def eventually(condition: Callable[[], bool]) -> None:
    for _ in range(3_000):
        if condition():
            return
        WAIT.wait(0.01)
    pytest.fail("did not happen within 30 s")


def streams(served: Served) -> int:
    return int(served.app._app.state.feeds.streams)  # type: ignore[attr-defined]


def test_the_stream_sends_the_realtime_object_again_and_again(api: httpx.Client, world: World) -> None:
    world.plays("t", "c", "v", 3)
    key = world.key("t", "read")
    plain = api.get("/api/v1/analytics/realtime/v", headers=key).json()
    with api.stream("GET", "/api/v1/live?video_id=v", headers=key) as answer:
        assert answer.headers["content-type"].startswith("text/event-stream")
        assert answer.headers["cache-control"] == "no-store"
        heard = events(answer.iter_lines())
        assert next(heard).get("retry") == "2000"
        for _ in range(3):
            event = next(item for item in heard if "data" in item)
            assert event["event"] == "metrics"
            assert event["id"]
            assert json.loads(event["data"]) == plain


@pytest.mark.parametrize(
    ("search", "viewers"), [("", 8), ("?channel_id=c1", 3), ("?channel_id=c1&video_id=v", 3), ("?video_id=v", 8)]
)
def test_a_stream_is_of_a_video_a_channel_or_all(api: httpx.Client, world: World, search: str, viewers: int) -> None:
    world.plays("t", "c1", "v", 3)
    world.plays("t", "c2", "v", 5)
    world.plays("other", "c1", "v", 7)
    with api.stream("GET", f"/api/v1/live{search}", headers=world.key("t", "read")) as answer:
        event = next(item for item in events(answer.iter_lines()) if "data" in item)
        assert json.loads(event["data"])["concurrent_viewers"] == viewers


def test_two_watchers_of_one_scope_share_one_computation(world: World, start: Callable[[Services], Served]) -> None:
    asked: list[LiveScope] = []
    inner = world.services.analytics

    class Counting:
        def realtime(self, scope: LiveScope, now_ms: int) -> dict[str, object]:
            asked.append(scope)
            return {"n": len(asked), **inner.realtime(scope, now_ms)}

    served = start(replace(world.services, analytics=Counting()))  # type: ignore[arg-type]
    first, second = world.key("t", "read"), world.key("t", "read")
    with (
        served.client() as one,
        served.client() as two,
        one.stream("GET", "/api/v1/live", headers=first) as a,
        two.stream("GET", "/api/v1/live", headers=second) as b,
    ):
        heard_a, heard_b = events(a.iter_lines()), events(b.iter_lines())
        seen_a = {json.loads(next(item for item in heard_a if "data" in item)["data"])["n"] for _ in range(4)}
        seen_b = {json.loads(next(item for item in heard_b if "data" in item)["data"])["n"] for _ in range(4)}
        assert seen_a & seen_b, "the same computation reached both"
        assert len(set(asked)) == 1


def test_when_the_last_watcher_leaves_nothing_is_computed_any_more(
    world: World, start: Callable[[Services], Served]
) -> None:
    served = start(world.services)
    with served.client() as api, api.stream("GET", "/api/v1/live", headers=world.key("t", "read")) as answer:
        heard = events(answer.iter_lines())
        next(heard)
        assert streams(served) == 1
    eventually(lambda: streams(served) == 0)
    eventually(lambda: not served.app._app.state.feeds._feeds)  # type: ignore[attr-defined]


def test_streams_and_scopes_are_bounded(world: World, start: Callable[[Services], Served]) -> None:
    served = start(changed(world.services, max_streams=2, max_feeds=1))
    key = world.key("t", "read")
    with served.client() as api, api.stream("GET", "/api/v1/live", headers=key) as a:
        heard_a = events(a.iter_lines())  # kept: a reader that is thrown away closes its connection
        next(heard_a)
        other = api.get("/api/v1/live?video_id=v", headers=key)
        assert (other.status_code, other.json()["code"]) == (503, "too_many_streams")
        with api.stream("GET", "/api/v1/live", headers=key) as b:
            heard_b = events(b.iter_lines())
            next(heard_b)
            third = api.get("/api/v1/live", headers=key)
            assert (third.status_code, third.json()["code"]) == (503, "too_many_streams")
            assert int(third.headers["retry-after"]) > 0


def test_a_stream_ends_when_its_key_is_revoked(api: httpx.Client, world: World) -> None:
    key, text = world.metadata.create_key("t", "read")
    with api.stream("GET", "/api/v1/live", headers={"Authorization": f"Bearer {text}"}) as answer:
        heard = events(answer.iter_lines())
        next(heard)
        world.metadata.revoke_key(key.id)
        world.services.directory.refresh()
        assert len(list(heard)) < 100


def test_a_stream_ends_when_the_server_stops(world: World, start: Callable[[Services], Served]) -> None:
    served = start(world.services)
    with served.client() as api, api.stream("GET", "/api/v1/live", headers=world.key("t", "read")) as answer:
        heard = events(answer.iter_lines())
        next(heard)
        stopping = threading.Thread(target=served.stop)
        stopping.start()
        list(heard)
        stopping.join(30)
    assert not served.socket.exists()


def test_while_figures_cannot_be_computed_the_stream_is_kept_open_by_heartbeats_and_then_goes_on(
    world: World, start: Callable[[Services], Served]
) -> None:
    broken = threading.Event()
    broken.set()
    inner = world.services.analytics

    class Sometimes:
        def realtime(self, scope: LiveScope, now_ms: int) -> dict[str, object]:
            if broken.is_set():
                raise RuntimeError("not now")
            return inner.realtime(scope, now_ms)

    served = start(replace(world.services, analytics=Sometimes()))  # type: ignore[arg-type]
    with served.client() as api, api.stream("GET", "/api/v1/live", headers=world.key("t", "read")) as answer:
        heard = events(answer.iter_lines())
        next(heard)
        assert next(heard) == {"comment": "heartbeat"}
        broken.clear()
        assert next(item for item in heard if "data" in item)["event"] == "metrics"


@pytest.mark.parametrize("search", ["video_id=", "channel_id=" + "x" * 256])
def test_an_id_that_cannot_exist_is_refused(api: httpx.Client, world: World, search: str) -> None:
    answer = api.get(f"/api/v1/live?{search}", headers=world.key("t", "read"))
    assert (answer.status_code, answer.json()["code"]) == (422, "validation_failed")
