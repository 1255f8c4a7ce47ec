"""The gateway: one public port. Events are answered by this process, every other path by the engine.

In: each request to a collector worker (RSGI). Out: `/api/v1/events/*` goes to the collector's app; the rest is
proxied to the engine's unix socket, bodies streamed both ways, so that Server-Sent Events and exports pass as they
come. Promised: a client that leaves ends the engine's work for it; an engine that is down is a 503 with Retry-After,
never a hang; X-Forwarded-* say who really asked, and only a configured proxy is believed about that. Not done here:
authentication (the engine's), retries (the client's), caching (the engine's).
"""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final
from urllib.parse import quote

import aiohttp
import structlog
import yarl

from viewmeter.collector.proxies import ClientAddress, bare, parse_networks
from viewmeter.model.problems import CONTENT_TYPE, problem

log = structlog.get_logger(__name__)

EVENTS: Final = "/api/v1/events/"

# RFC 9110, 7.6.1: these belong to one connection. `server` and `date` are written anew by this server.
HOP_BY_HOP: Final = frozenset({
    "connection", "keep-alive", "proxy-authenticate", "proxy-authorization", "proxy-connection", "te", "trailer",
    "transfer-encoding", "upgrade",
})  # fmt: skip
REWRITTEN: Final = frozenset({"x-forwarded-for", "x-forwarded-proto", "x-forwarded-host", "forwarded", "expect"})
OWN_ANSWER: Final = frozenset({"server", "date"})

WHOLE_ANSWER_BYTES: Final = 256 * 1024
"""Up to this length an answer is sent in one piece: one wake-up instead of several."""
RETRY_AFTER_S: Final = 1


@dataclass(frozen=True)
class GatewaySettings:
    """Bounds of the proxy. At each of them there is a defined answer."""

    max_requests: int = 512
    """Requests at the engine at the same time, a worker; more are answered 503."""
    max_request_bytes: int = 16 * 1024 * 1024
    """Largest request body that is passed on; more is 413."""
    connect_timeout_s: float = 2.0
    """How long the engine may take to accept a connection; then 503."""
    idle_timeout_s: float = 60.0
    """How long the engine may stay silent in an answer; then 504 (or the stream ends)."""


class _BodyTooLargeError(Exception):
    """The client sent more than the gateway passes on."""


class Gateway:
    """RSGI application of a collector worker; `events` is the collector's own."""

    def __init__(self, events: Any, engine: Path, trusted_proxies: Sequence[str], settings: GatewaySettings) -> None:
        self._events = events
        self._engine = engine
        self._clients = ClientAddress(trusted_proxies)
        self._trusted = parse_networks(trusted_proxies)
        self._settings = settings
        self._session: aiohttp.ClientSession | None = None
        self._active = 0
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
        if self._active >= self._settings.max_requests:
            _answer(proto, "overloaded", "Too many requests are open at this server. Try again in a second.")
            return
        self._active += 1
        work = asyncio.ensure_future(self._exchange(scope, proto))
        gone = asyncio.ensure_future(proto.client_disconnect())
        try:
            await asyncio.wait((work, gone), return_when=asyncio.FIRST_COMPLETED)
        finally:
            self._active -= 1
            gone.cancel()
            if not work.done():
                work.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await work

    async def _exchange(self, scope: Any, proto: Any) -> None:
        """Pass the request on and the answer back."""
        declared = scope.headers.get("content-length")
        if declared is not None and declared.isdigit() and int(declared) > self._settings.max_request_bytes:
            self._too_large(proto)
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
                data=self._body(proto) if has_body else None,
                allow_redirects=False,
            ) as answer:
                await self._pass_back(scope.method, answer, proto)
        except _BodyTooLargeError:
            self._too_large(proto)
        except TimeoutError:
            _answer(proto, "timeout", "The engine did not answer in time. Ask for less, or try again later.")
        except aiohttp.ClientError as failure:
            if isinstance(failure.__cause__, _BodyTooLargeError):
                self._too_large(proto)
                return
            log.warning("engine not reachable", reason=type(failure).__name__)
            _answer(proto, "engine_unavailable", "The engine is starting or restarting. Try again in a second.")

    async def _pass_back(self, method: str, answer: aiohttp.ClientResponse, proto: Any) -> None:
        dropped = HOP_BY_HOP | OWN_ANSWER | _named_by_connection(answer.headers.get("connection"))
        headers = [(name.lower(), value) for name, value in answer.headers.items() if name.lower() not in dropped]
        if method == "HEAD" or answer.status in (204, 304):
            proto.response_empty(answer.status, headers)
            return
        length = answer.content_length
        if length is not None and length <= WHOLE_ANSWER_BYTES:
            proto.response_bytes(answer.status, headers, await answer.read())
            return
        stream = proto.response_stream(answer.status, headers)
        mine = asyncio.current_task()
        if mine is not None and answer.content_type == "text/event-stream":
            if self._closing:
                return
            self._streams.add(mine)
            mine.add_done_callback(self._streams.discard)
        # From here on the status is sent: an engine that dies now can only be told by the end of the stream.
        try:
            async for part in answer.content.iter_any():
                await stream.send_bytes(part)
        except (aiohttp.ClientError, TimeoutError) as failure:
            log.warning("answer of the engine was cut", reason=type(failure).__name__)

    def _client(self) -> aiohttp.ClientSession:
        """Return the connections to the engine; made at the first request, inside of the server's loop."""
        if self._session is None:
            settings = self._settings
            self._session = aiohttp.ClientSession(
                connector=aiohttp.UnixConnector(str(self._engine), limit=settings.max_requests, keepalive_timeout=10),
                auto_decompress=False,
                cookie_jar=aiohttp.DummyCookieJar(),
                skip_auto_headers=("User-Agent", "Accept", "Accept-Encoding", "Content-Type"),
                timeout=aiohttp.ClientTimeout(
                    total=None, sock_connect=settings.connect_timeout_s, sock_read=settings.idle_timeout_s
                ),
                read_bufsize=64 * 1024,
            )
        return self._session

    async def _body(self, proto: Any) -> AsyncIterator[bytes]:
        total = 0
        async for part in proto:
            total += len(part)
            if total > self._settings.max_request_bytes:
                raise _BodyTooLargeError
            yield bytes(part)

    def _request_headers(self, scope: Any) -> list[tuple[str, str]]:
        given = list(scope.headers.items())
        dropped = HOP_BY_HOP | REWRITTEN | _named_by_connection(scope.headers.get("connection"))
        headers = [(name, value) for name, value in given if name not in dropped]
        believed = self._is_trusted(bare(scope.client))
        forwarded = [value for name, value in given if name == "x-forwarded-for"]
        proto = scope.headers.get("x-forwarded-proto") if believed else None
        host = scope.headers.get("x-forwarded-host") if believed else None
        headers.append(("x-forwarded-for", self._clients.of(scope.client, forwarded)))
        headers.append(("x-forwarded-proto", proto or scope.scheme))
        headers.append(("x-forwarded-host", host or scope.authority or scope.headers.get("host") or ""))
        if scope.authority and "host" not in scope.headers:  # HTTP/2 names the host in the request line
            headers.append(("host", scope.authority))
        return headers

    def _is_trusted(self, address: str) -> bool:
        if not self._trusted:
            return False
        with contextlib.suppress(ValueError):
            parsed = ipaddress.ip_address(address)
            return any(parsed in network for network in self._trusted)
        return False

    def _too_large(self, proto: Any) -> None:
        bound = self._settings.max_request_bytes
        _answer(proto, "body_too_large_request", f"Send at most {bound:,} bytes.")


def _named_by_connection(value: str | None) -> frozenset[str]:
    if value is None:
        return frozenset()
    return frozenset(name.strip().lower() for name in value.split(","))


def _answer(proto: Any, code: str, detail: str) -> None:
    told = problem(code, detail)
    headers = [("content-type", CONTENT_TYPE), ("cache-control", "no-store")]
    if told.status == 503:
        headers.append(("retry-after", str(RETRY_AFTER_S)))
    with contextlib.suppress(Exception):  # the client may be gone: nobody is left to tell
        proto.response_bytes(told.status, headers, told.body())
