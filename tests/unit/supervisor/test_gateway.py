"""The gateway on a real server, in front of a real engine socket: what passes, what is said when it cannot."""

from __future__ import annotations

import asyncio
import contextlib
import json
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from aiohttp import web
from granian.constants import Interfaces
from granian.server.embed import Server

from viewmeter.collector import connections
from viewmeter.supervisor import port
from viewmeter.web.gateway import Gateway, GatewaySettings
from viewmeter.web.seats import Seats


class Events:
    """Stands where the collector's application stands: the gateway must hand its paths over untouched."""

    def __rsgi_init__(self, loop: Any) -> None: ...

    def __rsgi_del__(self, loop: Any) -> None: ...

    async def __rsgi__(self, scope: Any, proto: Any) -> None:
        proto.response_str(200, [("content-type", "text/plain")], f"events: {scope.path}")

    async def drain(self) -> None: ...


async def told(request: web.Request) -> web.Response:
    body = await request.read()
    return web.json_response(
        {
            "method": request.method,
            "path": request.raw_path,
            "headers": {name.lower(): value for name, value in request.headers.items()},
            "body": body.decode("latin-1") if len(body) < 1000 else len(body),
        },
        status=int(request.query.get("status", "200")),
        headers=[
            ("Set-Cookie", "a=1"),
            ("Set-Cookie", "b=2"),
            ("X-Kept", "yes"),
            ("Connection", "keep-alive, X-Hop"),
            ("X-Hop", "no"),
        ],
    )


class Engine:
    """A server on the engine's socket; `left` is set when the client of a stream is gone."""

    def __init__(self) -> None:
        self.left = asyncio.Event()
        self.sent = 0

    async def stream(self, request: web.Request) -> web.StreamResponse:
        answer = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
        await answer.prepare(request)
        try:
            for number in range(1_000):
                await answer.write(f"data: {number}\n\n".encode())
                await asyncio.sleep(0.01)
        finally:
            self.left.set()
        return answer

    async def big(self, _: web.Request) -> web.StreamResponse:
        return web.Response(body=b"x" * 3_000_000)

    async def endless(self, request: web.Request) -> web.StreamResponse:
        answer = web.StreamResponse(headers={"Content-Type": request.query["type"]})
        await answer.prepare(request)
        try:
            while self.sent < 500_000_000:
                await answer.write(b"x" * 65_536)
                self.sent += 65_536
        finally:
            self.left.set()
        return answer

    async def stuck(self, _: web.Request) -> web.StreamResponse:
        await asyncio.sleep(60)
        return web.Response()


Running = tuple[aiohttp.ClientSession, Engine, Gateway]


@contextlib.asynccontextmanager
async def running(
    folder: Path, *, engine_up: bool = True, trusted: tuple[str, ...] = (), **bounds: Any
) -> AsyncIterator[Running]:
    engine_socket = folder / "engine.sock"
    engine = Engine()
    application = web.Application()
    application.router.add_get("/stream", engine.stream)
    application.router.add_get("/big", engine.big)
    application.router.add_get("/stuck", engine.stuck)
    application.router.add_get("/endless", engine.endless)
    application.router.add_route("*", "/{rest:.*}", told)
    runner = web.AppRunner(application, handler_cancellation=True)
    await runner.setup()
    if engine_up:
        await web.UnixSite(runner, str(engine_socket)).start()
    gateway = Gateway(Events(), engine_socket, trusted, GatewaySettings(**bounds))
    holder = port.reserve("127.0.0.1", 0)
    number = holder.getsockname()[1]
    server = Server(gateway, address="127.0.0.1", port=number, interface=Interfaces.RSGI, log_enabled=False)
    serving = asyncio.create_task(server.serve())
    try:
        async with aiohttp.ClientSession(
            f"http://127.0.0.1:{number}", timeout=aiohttp.ClientTimeout(total=30)
        ) as client:
            await listening(number)
            yield client, engine, gateway
    finally:
        gateway.close_streams()
        server.stop()
        await serving
        await gateway.drain()
        await runner.cleanup()
        holder.close()


async def listening(number: int) -> None:
    while True:
        with contextlib.suppress(OSError):
            _, writer = await asyncio.open_connection("127.0.0.1", number)
            writer.close()
            return
        await asyncio.sleep(0.01)


def through(folder: Path, body: Callable[..., Awaitable[None]], **settings: Any) -> None:
    """Run `body(client, engine, gateway)` against a running gateway."""

    async def run() -> None:
        async with running(folder, **settings) as parts:
            await body(*parts)

    asyncio.run(run())


def test_events_stay_here_and_the_rest_goes_to_the_engine(tmp_path: Path) -> None:
    async def body(client: aiohttp.ClientSession, *_: Any) -> None:
        async with client.post("/api/v1/events/beacon?key=pk", data=b"[]") as answer:
            assert await answer.text() == "events: /api/v1/events/beacon"
        async with client.get("/api/v1/eventsx") as answer:
            assert (await answer.json())["path"] == "/api/v1/eventsx"

    through(tmp_path, body)


def test_method_query_body_status_and_cookies_pass_both_ways(tmp_path: Path) -> None:
    async def body(client: aiohttp.ClientSession, *_: Any) -> None:
        for method in ("GET", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"):
            async with client.request(method, "/a/b%20c?x=%26&y=a+b&status=418", data=b'{"q":1}') as answer:
                said = await answer.json()
                assert answer.status == 418
                assert (said["method"], said["path"], said["body"]) == (
                    method,
                    "/a/b%20c?x=%26&y=a+b&status=418",
                    '{"q":1}',
                )
                assert answer.headers.getall("Set-Cookie") == ["a=1", "b=2"]
                assert answer.headers["X-Kept"] == "yes"
                assert "X-Hop" not in answer.headers  # named by Connection: it belongs to the engine's connection
        async with client.head("/anything") as answer:
            assert answer.status == 200
            assert int(answer.headers["Content-Length"]) > 0
            assert await answer.read() == b""

    through(tmp_path, body)


def test_headers_of_one_connection_are_not_passed_on(tmp_path: Path) -> None:
    async def body(client: aiohttp.ClientSession, *_: Any) -> None:
        sent = {"Connection": "keep-alive, X-Mine", "X-Mine": "1", "TE": "trailers", "Upgrade": "x", "X-Other": "2"}
        async with client.get("/h", headers=sent) as answer:
            headers = (await answer.json())["headers"]
        assert headers["x-other"] == "2"
        assert not headers.keys() & {"x-mine", "te", "upgrade"}

    through(tmp_path, body)


def test_nobody_can_choose_an_address_by_a_header(tmp_path: Path) -> None:
    async def body(client: aiohttp.ClientSession, *_: Any) -> None:
        sent = {
            "X-Forwarded-For": "6.6.6.6",
            "X-Forwarded-Proto": "https",
            "X-Forwarded-Host": "evil",
            "Forwarded": "for=6",
        }
        async with client.get("/h", headers=sent) as answer:
            headers = (await answer.json())["headers"]
        assert headers["x-forwarded-for"] == "127.0.0.1"
        assert headers["x-forwarded-proto"] == "http"
        assert headers["x-forwarded-host"] == headers["host"]
        assert "forwarded" not in headers

    through(tmp_path, body)


def test_a_trusted_proxy_is_believed(tmp_path: Path) -> None:
    async def body(client: aiohttp.ClientSession, *_: Any) -> None:
        sent = {
            "X-Forwarded-For": "6.6.6.6, 8.8.8.8",
            "X-Forwarded-Proto": "https",
            "X-Forwarded-Host": "watch.example",
        }
        async with client.get("/h", headers=sent) as answer:
            headers = (await answer.json())["headers"]
        # Read from the right: 8.8.8.8 spoke to the proxy, and what it says about 6.6.6.6 is nobody's business.
        assert headers["x-forwarded-for"] == "8.8.8.8"
        assert headers["x-forwarded-proto"] == "https"
        assert headers["x-forwarded-host"] == "watch.example"

    through(tmp_path, body, trusted=("127.0.0.0/8",))


def test_a_live_stream_arrives_as_it_is_sent_and_ends_with_its_client(tmp_path: Path) -> None:
    async def body(client: aiohttp.ClientSession, engine: Engine, _: Gateway) -> None:
        async with client.get("/stream") as answer:
            assert answer.content_type == "text/event-stream"
            assert await answer.content.readline() == b"data: 0\n"
            assert not engine.left.is_set()
        await asyncio.wait_for(engine.left.wait(), 10)

    through(tmp_path, body)


def test_a_stop_ends_live_streams(tmp_path: Path) -> None:
    async def body(client: aiohttp.ClientSession, engine: Engine, gateway: Gateway) -> None:
        async with client.get("/stream") as answer:
            await answer.content.readline()
            gateway.close_streams()
            with contextlib.suppress(aiohttp.ClientError):
                await answer.read()
        await asyncio.wait_for(engine.left.wait(), 10)

    through(tmp_path, body)


def test_large_answers_and_bodies_pass_in_pieces(tmp_path: Path) -> None:
    async def body(client: aiohttp.ClientSession, *_: Any) -> None:
        async with client.get("/big") as answer:
            assert len(await answer.read()) == 3_000_000
        async with client.post("/up", data=b"y" * 900_000) as answer:
            assert (await answer.json())["body"] == 900_000

    through(tmp_path, body)


@pytest.mark.parametrize("chunked", [True, False])
def test_a_body_beyond_the_bound_is_413(chunked: bool, tmp_path: Path) -> None:
    async def pieces() -> AsyncIterator[bytes]:
        for _ in range(100):
            yield b"z" * 1_000

    async def body(client: aiohttp.ClientSession, *_: Any) -> None:
        async with client.post("/up", data=pieces() if chunked else b"z" * 100_000) as answer:
            assert answer.status == 413
            assert json.loads(await answer.read())["code"] == "body_too_large_request"

    through(tmp_path, body, max_request_bytes=20_000)


def test_an_engine_that_is_down_is_503_with_retry_after(tmp_path: Path) -> None:
    async def body(client: aiohttp.ClientSession, *_: Any) -> None:
        for send in (client.get("/x"), client.post("/x", data=b"{}")):
            async with send as answer:
                assert answer.status == 503
                assert answer.headers["Content-Type"] == "application/problem+json"
                assert int(answer.headers["Retry-After"]) >= 1
                assert json.loads(await answer.read())["code"] == "engine_unavailable"

    through(tmp_path, body, engine_up=False)


def test_an_engine_that_does_not_answer_is_504(tmp_path: Path) -> None:
    async def body(client: aiohttp.ClientSession, *_: Any) -> None:
        async with client.get("/stuck") as answer:
            assert answer.status == 504
            assert json.loads(await answer.read())["code"] == "timeout"

    through(tmp_path, body, idle_timeout_s=0.05)


async def refused(client: aiohttp.ClientSession, path: str, code: str) -> bool:
    async with client.get(path) as answer:
        return answer.status == 503 and json.loads(await answer.read())["code"] == code


@pytest.mark.parametrize("bound", ["max_requests", "max_requests_per_network"])
def test_more_requests_than_the_bound_are_told_to_come_again(tmp_path: Path, bound: str) -> None:
    async def body(client: aiohttp.ClientSession, *_: Any) -> None:
        async def wait_for_the_engine() -> None:
            while await refused(client, "/stuck", "overloaded"):  # the other request came first
                await asyncio.sleep(0)

        waiting = asyncio.create_task(wait_for_the_engine())
        while not await refused(client, "/x", "overloaded"):
            await asyncio.sleep(0.01)
        waiting.cancel()
        while await refused(client, "/x", "overloaded"):  # its seat is free once the gateway notices that it left
            await asyncio.sleep(0.01)

    through(tmp_path, body, **{bound: 1})


@pytest.mark.parametrize("bound", ["max_streams", "max_streams_per_network"])
def test_live_streams_have_a_bound_of_their_own_and_leave_room_for_requests(tmp_path: Path, bound: str) -> None:
    async def body(client: aiohttp.ClientSession, *_: Any) -> None:
        async with client.get("/stream") as first:
            await first.content.readline()
            assert await refused(client, "/stream", "too_many_streams")
            assert not await refused(client, "/x", "overloaded")
        while await refused(client, "/stream", "too_many_streams"):
            await asyncio.sleep(0.01)

    through(tmp_path, body, max_requests=1, **{bound: 1})


@pytest.mark.skipif(not connections.supported(), reason="only Linux tells what a client has taken")
@pytest.mark.parametrize("media", ["text/csv", "text/event-stream"])
def test_a_client_that_does_not_read_its_answer_is_cut_off_before_it_costs_memory(tmp_path: Path, media: str) -> None:
    async def body(client: aiohttp.ClientSession, engine: Engine, _: Gateway) -> None:
        with socket.socket() as silent:
            silent.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4_096)
            silent.setblocking(False)
            assert client._base_url is not None
            loop = asyncio.get_running_loop()
            await loop.sock_connect(silent, ("127.0.0.1", client._base_url.port))
            request = f"GET /endless?type={media} HTTP/1.1\r\nHost: a\r\n\r\n"
            await loop.sock_sendall(silent, request.encode())
            await asyncio.wait_for(engine.left.wait(), 20)
        # Not the 500 MB that there are: what waits here, and what the buffers of two sockets hold.
        assert engine.sent < 30_000_000, engine.sent
        assert not await refused(client, "/x", "overloaded")

    through(tmp_path, body, send_timeout_s=0.2)


def test_a_client_that_reads_slowly_gets_all_of_its_answer(tmp_path: Path) -> None:
    async def body(client: aiohttp.ClientSession, *_: Any) -> None:
        size = 0
        async with client.get("/big") as answer:
            while piece := await answer.content.read(200_000):
                size += len(piece)
                await asyncio.sleep(0.02)
        assert size == 3_000_000

    through(tmp_path, body, send_timeout_s=2.0)


def test_seats_are_bounded_in_all_and_for_each() -> None:
    seats = Seats(total=3, each=2)
    assert [seats.take(name) for name in ("a", "a", "a", "b", "c")] == [True, True, False, True, False]
    seats.leave("a")
    assert seats.take("c")
    assert seats.count == 3
