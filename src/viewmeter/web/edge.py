"""The edge of the API: what holds for every request, whatever answers it.

In: an ASGI application. Out: the same with a request id, security headers, an access log and request metrics.
Promised: the log names the route, never the path, the address, the query string or a body.
"""

from __future__ import annotations

import re
import secrets
import time
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any, Final, cast

import structlog
from prometheus_client import Counter, Histogram

from viewmeter.model.problems import CONTENT_TYPE, problem
from viewmeter.web.problems import ANSWERED, REQUEST_ID

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[MutableMapping[str, Any], Receive, Send], Awaitable[None]]

KEY_ID: Final = "viewmeter.key_id"
_GIVEN_ID: Final = re.compile(rb"[A-Za-z0-9._-]{8,64}")

REQUESTS: Final = Counter("viewmeter_api_requests", "Answers of the API.", ("method", "route", "status"))
SECONDS: Final = Histogram(
    "viewmeter_api_request_seconds",
    "Time to the first byte of an answer.",
    ("route",),
    buckets=(0.005, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 30.0),
)

_log = structlog.get_logger("viewmeter.access")

# Pages load nothing but our own files; answers of the API load nothing at all.
CSP: Final = (
    b"default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; font-src 'self'; connect-src 'self';"
    b" manifest-src 'self'; base-uri 'none'; form-action 'self'; frame-ancestors 'none'"
)
HEADERS: Final = (
    (b"content-security-policy", CSP),
    (b"x-content-type-options", b"nosniff"),
    (b"x-frame-options", b"DENY"),
    (b"referrer-policy", b"same-origin"),
    (b"cross-origin-opener-policy", b"same-origin"),
    (b"cross-origin-resource-policy", b"same-origin"),
    (b"permissions-policy", b"camera=(), geolocation=(), microphone=()"),
)


class Edge:
    """The outermost layer."""

    def __init__(self, app: App, access_log: bool, close_streams: Callable[[], Awaitable[None]]) -> None:
        self._app = app
        self._access_log = access_log
        self.close_streams = close_streams
        """Ends the answers that would never end by themselves; for a server that drains."""

    async def __call__(self, scope: MutableMapping[str, Any], receive: Receive, send: Send) -> None:
        """Answer one request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        scope[REQUEST_ID] = request_id = _request_id(scope)
        exchange = _Exchange(scope, send, request_id)
        with structlog.contextvars.bound_contextvars(request_id=request_id):
            try:
                await self._app(scope, receive, exchange.send)
            except Exception as error:  # noqa: BLE001 - the last place that can still answer
                _log.error("request_failed", error=type(error).__name__, exc_info=error)
                await exchange.fail()
            finally:
                self._record(exchange)

    def _record(self, exchange: _Exchange) -> None:
        scope = exchange.scope
        # Unknown addresses share one name: strangers must not grow our metrics.
        route = scope.get("path_template") or "(none)"
        method = scope["method"] if scope["method"] in _METHODS else "(other)"
        REQUESTS.labels(method, route, exchange.status).inc()
        SECONDS.labels(route).observe(exchange.first_byte_s)
        if self._access_log:
            _log.info(
                "request",
                method=method,
                route=route,
                status=exchange.status,
                code=scope.get(ANSWERED),
                ms=round(exchange.first_byte_s * 1000, 1),
                key=scope.get(KEY_ID),
            )


_METHODS: Final = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})


class _Exchange:
    """One request on its way out."""

    def __init__(self, scope: MutableMapping[str, Any], send: Send, request_id: str) -> None:
        self.scope = scope
        self.status = 0  # the client left before there was an answer
        self._send = send
        self._request_id = request_id
        self._began = time.perf_counter()
        self.first_byte_s = 0.0

    async def send(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self.status = message["status"]
            self.first_byte_s = time.perf_counter() - self._began
            message["headers"] = _with_defaults(list(message.get("headers", ())), self._request_id)
        await self._send(message)

    async def fail(self) -> None:
        if self.status:
            return  # the answer has begun; all that is left is to end it
        body = problem("internal", request_id=self._request_id).body()
        headers = [(b"content-type", CONTENT_TYPE.encode()), (b"content-length", str(len(body)).encode())]
        await self.send({"type": "http.response.start", "status": 500, "headers": headers})
        await self._send({"type": "http.response.body", "body": body, "more_body": False})


def _with_defaults(headers: list[tuple[bytes, bytes]], request_id: str) -> list[tuple[bytes, bytes]]:
    present = {name.lower() for name, _ in headers}
    headers += [header for header in HEADERS if header[0] not in present]
    if b"cache-control" not in present:
        headers.append((b"cache-control", b"no-store"))
    headers.append((b"x-request-id", request_id.encode()))
    return headers


def _request_id(scope: MutableMapping[str, Any]) -> str:
    """Return the id that a proxy gave the request, or a new one."""
    for name, value in scope.get("headers", ()):
        if name.lower() == b"x-request-id" and _GIVEN_ID.fullmatch(value):
            return cast("bytes", value).decode()
    return secrets.token_hex(8)
