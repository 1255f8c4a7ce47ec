"""The gateway: one public port. Events are answered by this process, every other path by the engine.

In: each request to a collector worker (RSGI). Out: `/api/v1/events/*` goes to the collector's app; the rest is
proxied to the engine's unix socket, bodies streamed both ways, so that Server-Sent Events and exports pass as they
come. Promised: a client that leaves ends the engine's work for it; an engine that is down is a 503 with Retry-After,
never a hang; X-Forwarded-* say who really asked, and only a configured proxy is believed about that; a body that broke
off never reaches the engine as a whole one; one network of clients takes at most half of the seats. Not done here:
authentication (the engine's), retries (the client's), caching (the engine's).
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final
from urllib.parse import quote

import aiohttp
import structlog
import yarl

from viewmeter.collector.bodies import BrokenBodyError, pieces
from viewmeter.collector.proxies import ClientAddress
from viewmeter.collector.rates import network
from viewmeter.metadata.keys import why_unknown
from viewmeter.model.problems import CONTENT_TYPE, Problem, problem
from viewmeter.web.outflow import Outflow, SlowReaderError
from viewmeter.web.seats import Seats

log = structlog.get_logger(__name__)

EVENTS: Final = "/api/v1/events/"

# RFC 9110, 7.6.1: these belong to one connection. `server` and `date` are written anew by this server.
HOP_BY_HOP: Final = frozenset({
    "connection", "keep-alive", "proxy-authenticate", "proxy-authorization", "proxy-connection", "te", "trailer",
    "transfer-encoding", "upgrade",
})  # fmt: skip
REWRITTEN: Final = frozenset({"x-forwarded-for", "x-forwarded-proto", "x-forwarded-host", "forwarded", "expect"})
OWN_ANSWER: Final = frozenset({"server", "date"})
METHODS: Final = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS")

_CANCELLED_WITHIN_S: Final = 5.0
WHOLE_ANSWER_BYTES: Final = 256 * 1024
"""Up to this length an answer is sent in one piece: one wake-up instead of several."""
RETRY_AFTER_S: Final = {503: 1, 504: 5}


@dataclass(frozen=True)
class GatewaySettings:
    """Bounds of the proxy. At each of them there is a defined answer."""

    max_requests: int = 512
    """Requests at the engine at the same time, a worker; more are answered 503 `overloaded`."""
    max_requests_per_network: int = 256
    """How many of them one network of clients may have: a /24, or a /64 of IPv6."""
    max_streams: int = 2_000
    """Live streams at the same time, a worker; more are answered 503 `too_many_streams`. The engine has a bound too."""
    max_streams_per_network: int = 1_000
    """How many of them one network of clients may have."""
    max_request_bytes: int = 1024 * 1024
    """Largest request body that is passed on; more is 413."""
    body_timeout_s: float = 30.0
    """How long a client may take for its body; then 408."""
    send_timeout_s: float = 30.0
    """How long a client may take nothing of an answer that waits for it; then the connection is cut."""
    connect_timeout_s: float = 2.0
    """How long the engine may take to accept a connection; then 503."""
    idle_timeout_s: float = 60.0
    """How long the engine may stay silent in an answer; then 504 (or the stream ends)."""


class _BodyError(Exception):
    """The client's body cannot be passed on; `problem` says why."""

    def __init__(self, code: str, detail: str) -> None:
        super().__init__(code)
        self.problem = problem(code, detail)


class _Visit:
    """One request under way. `who` is the network it comes from, `seats` where it sits."""

    def __init__(self, scope: Any, proto: Any, who: str, seats: Seats) -> None:
        self.scope = scope
        self.proto = proto
        self.who = who
        self.seats = seats

    def move(self, seats: Seats) -> bool:
        """Change to another kind of seat, if there is one."""
        if not seats.take(self.who):
            return False
        self.seats.leave(self.who)
        self.seats = seats
        return True


class Gateway:
    """RSGI application of a collector worker; `events` is the collector's own."""

    def __init__(self, events: Any, engine: Path, trusted_proxies: Sequence[str], settings: GatewaySettings) -> None:
        self._events = events
        self._engine = engine
        self._clients = ClientAddress(trusted_proxies)
        self._settings = settings
        self._session: aiohttp.ClientSession | None = None
        self._requests = Seats(settings.max_requests, settings.max_requests_per_network)
        self._live = Seats(settings.max_streams, settings.max_streams_per_network)
        self._peers: set[str] = set()
        self._closing = False
        self._streams: set[asyncio.Future[None]] = set()

    def __rsgi_init__(self, loop: asyncio.AbstractEventLoop) -> None:
        """Pass the server's start on to the collector."""
        self._events.__rsgi_init__(loop)

    def __rsgi_del__(self, loop: asyncio.AbstractEventLoop) -> None:
        """Pass the server's end on to the collector."""
        self._events.__rsgi_del__(loop)

    def close_streams(self) -> None:
        """End live streams, which never end by themselves, and take no more: browsers come again by themselves.

        Called when a stop begins, before requests under way are waited for.
        """
        self._closing = True
        for stream in tuple(self._streams):
            stream.cancel()

    def busy(self) -> Collection[str]:
        """Return the peers that wait for an answer of the engine, as `address:port`."""
        return frozenset(self._peers)

    async def drain(self) -> None:
        """Return when the collector has let go of its log and the engine's connections are closed."""
        self.close_streams()
        await self._events.drain()
        if self._session is not None:
            await self._session.close()

    def __rsgi__(self, scope: Any, proto: Any) -> Any:
        """Answer one request. Not a coroutine itself: events, the hot path, pay for one comparison only."""
        if scope.path.startswith(EVENTS):
            return self._events.__rsgi__(scope, proto)
        return self._forward(scope, proto)

    async def _forward(self, scope: Any, proto: Any) -> None:
        if scope.proto != "http":
            proto.close(403)
            return
        wrong = _unfit(scope)
        if wrong is not None:
            _answer(proto, wrong)
            return
        who = network(self._clients.of(scope.client, scope.headers.get_all("x-forwarded-for")))
        if not self._requests.take(who):
            _answer(proto, problem("overloaded", "Too many requests are open at this server. Try again in a second."))
            return
        visit = _Visit(scope, proto, who, self._requests)
        self._peers.add(scope.client)
        work = asyncio.ensure_future(self._exchange(visit))
        gone = asyncio.ensure_future(proto.client_disconnect())
        try:
            await asyncio.wait((work, gone), return_when=asyncio.FIRST_COMPLETED)
        finally:
            gone.cancel()
            try:
                await _ended(work)
            finally:
                visit.seats.leave(who)
                self._peers.discard(scope.client)

    async def _exchange(self, visit: _Visit) -> None:
        """Pass the request on and the answer back."""
        scope, proto = visit.scope, visit.proto
        declared = scope.headers.get("content-length")
        if declared is not None and declared.isdigit() and int(declared) > self._settings.max_request_bytes:
            _answer(proto, self._too_large().problem)
            return
        has_body = declared not in (None, "0") or "transfer-encoding" in scope.headers
        url = yarl.URL.build(
            scheme="http",
            host="engine",
            path=quote(scope.path, safe="/:@!$&'()*+,;=~-._"),
            query_string=scope.query_string,
            encoded=True,
        )
        try:
            async with self._client().request(
                scope.method,
                url,
                headers=self._request_headers(scope),
                data=self._body(proto, chunked=declared is None) if has_body else None,
                allow_redirects=False,
            ) as answer:
                await self._pass_back(visit, answer)
        except _BodyError as fault:
            _answer(proto, fault.problem)
        except TimeoutError:
            _answer(proto, problem("timeout", "The engine did not answer in time. Ask for less, or try again later."))
        except aiohttp.ClientError as failure:
            failure.__traceback__ = None  # else this frame, and with it the client's body, stays as long as the error
            if isinstance(failure.__cause__, _BodyError):
                _answer(proto, failure.__cause__.problem)
                return
            log.warning("engine not reachable", reason=type(failure).__name__)
            _answer(
                proto, problem("engine_unavailable", "The engine is starting or restarting. Try again in a second.")
            )

    async def _pass_back(self, visit: _Visit, answer: aiohttp.ClientResponse) -> None:
        proto = visit.proto
        dropped = HOP_BY_HOP | OWN_ANSWER | _named_by_connection(answer.headers.getall("connection", ()))
        headers = [(name.lower(), value) for name, value in answer.headers.items() if name.lower() not in dropped]
        if visit.scope.method == "HEAD" or answer.status in (204, 304):
            proto.response_empty(answer.status, headers)
            return
        length = answer.content_length
        if length is not None and length <= WHOLE_ANSWER_BYTES:
            proto.response_bytes(answer.status, headers, await answer.read())
            return
        live = answer.content_type == "text/event-stream"
        if live and not visit.move(self._live):
            _answer(proto, problem("too_many_streams"))
            return
        stream = proto.response_stream(answer.status, headers)
        mine = asyncio.current_task()
        if mine is not None and live:
            if self._closing:
                return
            self._streams.add(mine)
            mine.add_done_callback(self._streams.discard)
        await self._stream(visit, answer, stream, 0.0 if live else self._settings.send_timeout_s)

    async def _stream(self, visit: _Visit, answer: aiohttp.ClientResponse, stream: Any, patience_s: float) -> None:
        """Pass a long answer back piece by piece, as fast as the client takes it.

        The status is sent: an engine that dies now, or a client that is too slow, can only be told by the end.
        """
        scope = visit.scope
        outflow = Outflow(int(scope.server.rpartition(":")[2]), scope.client, patience_s, asyncio.sleep)
        try:
            async for part in answer.content.iter_any():
                await stream.send_bytes(part)
                await outflow.handed_over(len(part))
        except SlowReaderError:
            log.info("client did not take its answer")
        except (aiohttp.ClientError, TimeoutError) as failure:
            log.warning("answer of the engine was cut", reason=type(failure).__name__)
        finally:
            outflow.close()

    def _client(self) -> aiohttp.ClientSession:
        """Return the connections to the engine; made at the first request, inside of the server's loop."""
        if self._session is None:
            settings = self._settings
            self._session = aiohttp.ClientSession(
                connector=aiohttp.UnixConnector(
                    str(self._engine), limit=settings.max_requests + settings.max_streams, keepalive_timeout=10
                ),
                auto_decompress=False,
                cookie_jar=aiohttp.DummyCookieJar(),
                skip_auto_headers=("User-Agent", "Accept", "Accept-Encoding", "Content-Type"),
                timeout=aiohttp.ClientTimeout(
                    total=None, sock_connect=settings.connect_timeout_s, sock_read=settings.idle_timeout_s
                ),
                read_bufsize=64 * 1024,
            )
        return self._session

    async def _body(self, proto: Any, *, chunked: bool) -> AsyncIterator[bytes]:
        """Yield the client's body. Raises `_BodyError`.

        An error that is raised here is kept by the HTTP client for a while, with all frames and contexts that it went
        through. None of them may hold the body, since the server ends the connection only when nobody does.
        """
        loop = asyncio.get_running_loop()
        deadline = loop.time() + self._settings.body_timeout_s
        total = 0
        fault: _BodyError | None = None
        body: AsyncIterator[bytes] | None = pieces(proto, chunked=chunked)
        while fault is None and body is not None:
            part = b""
            try:
                async with asyncio.timeout_at(deadline):
                    part = await anext(body, b"")
            except TimeoutError:
                bound = f"{self._settings.body_timeout_s:g} s"
                fault = _BodyError("body_timeout", f"The body did not arrive within {bound}.")
            except BrokenBodyError as error:
                fault = _BodyError("invalid_body", f"The body is not read on: {error}.")
            total += len(part)
            if total > self._settings.max_request_bytes:
                fault = self._too_large()
            if part and fault is None:
                yield bytes(part)
            else:
                body = proto = None
        if fault is not None:
            raise fault

    def _request_headers(self, scope: Any) -> list[tuple[str, str]]:
        given = list(scope.headers.items())
        dropped = HOP_BY_HOP | REWRITTEN | _named_by_connection(scope.headers.get_all("connection"))
        headers = [(name, value) for name, value in given if name not in dropped]
        believed = self._clients.trusts(scope.client)
        forwarded = [value for name, value in given if name == "x-forwarded-for"]
        proto = scope.headers.get("x-forwarded-proto") if believed else None
        host = scope.headers.get("x-forwarded-host") if believed else None
        headers.append(("x-forwarded-for", self._clients.of(scope.client, forwarded)))
        headers.append(("x-forwarded-proto", proto if proto in ("http", "https") else scope.scheme))
        headers.append(("x-forwarded-host", host or scope.authority or scope.headers.get("host") or ""))
        return headers

    def _too_large(self) -> _BodyError:
        return _BodyError("body_too_large_request", f"Send at most {self._settings.max_request_bytes:,} bytes.")


async def _ended(work: asyncio.Future[None]) -> None:
    """Return when the work has ended, told to where it has not; raises what it raised.

    A write to a client that leaves at that very moment may never return, not even when it is cancelled. Nobody's seat
    is held for it.
    """
    if not work.done():
        work.cancel()
        await asyncio.wait({work}, timeout=_CANCELLED_WITHIN_S)
        if not work.done():
            log.warning("a request that was cancelled does not end")
            return
    with contextlib.suppress(asyncio.CancelledError):
        await work  # also for its error, which would keep the connection with all frames that it went through


def _unfit(scope: Any) -> Problem | None:
    """Return what is wrong with a request that cannot be passed on, before anything of it is."""
    headers = scope.headers
    if scope.method not in METHODS:
        return problem("method_not_allowed", f"{scope.method[:20]} is not a method of this server.")
    hosts = headers.get_all("host")
    if len(hosts) > 1 or (not hosts and scope.http_version == "1.1"):
        return problem("invalid_request", f"The request has {len(hosts)} Host headers; HTTP/1.1 asks for one.")
    if not scope.path.startswith("/"):
        return problem("invalid_request", "The address of a request begins with a slash.")
    coding = ", ".join(headers.get_all("transfer-encoding")).strip().lower()
    if coding not in ("", "chunked"):
        return problem("invalid_request", f"Transfer-Encoding is {coding[:50]!r}; send chunked, or a Content-Length.")
    if "authorization" in headers and headers.get("authorization") is None:  # not ASCII, as in `sk_…`
        return problem("invalid_key", why_unknown("…"))
    return None


def _named_by_connection(values: Sequence[str]) -> frozenset[str]:
    return frozenset(name.strip().lower() for value in values for name in value.split(","))


def _answer(proto: Any, told: Problem) -> None:
    headers = [("content-type", CONTENT_TYPE), ("cache-control", "no-store")]
    if told.status in RETRY_AFTER_S:
        headers.append(("retry-after", str(RETRY_AFTER_S[told.status])))
    if told.status == 401:
        headers.append(("www-authenticate", 'Bearer realm="viewmeter"'))
    if told.status == 405:
        headers.append(("allow", ", ".join(METHODS)))
    if told.status == 408:
        headers.append(("connection", "close"))
    with contextlib.suppress(Exception):  # the client may be gone: nobody is left to tell
        proto.response_bytes(told.status, headers, told.body())
