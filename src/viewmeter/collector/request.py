"""Who sends a beacon, whether they may, and its body.

In: an RSGI scope. Out: `Admitted` and the decompressed bytes. Promised: the cheap refusals come first (rate, key,
origin, type) and no body is read for them; memory for a body is bounded before and after decompression.
"""

from __future__ import annotations

import zlib
from collections.abc import AsyncIterator, Callable
from typing import Any, Final, NamedTuple, Protocol
from urllib.parse import parse_qsl

import zstandard

from viewmeter.collector import answers
from viewmeter.collector.agents import NO_HINTS, Hints, hints_of
from viewmeter.collector.answers import Headers, ProblemError
from viewmeter.collector.proxies import ClientAddress
from viewmeter.collector.rates import RateLimit
from viewmeter.collector.settings import CollectorSettings
from viewmeter.metadata.keys import Key, KeyDirectory, KeysUnavailableError

_MAX_QUERY_CHARS: Final = 4_096
_DRAINED_BYTES: Final = 8 << 20
"""A body that is too large is read up to here and thrown away, since most clients read no answer before they have
written everything."""


class RequestHeaders(Protocol):
    """Headers as RSGI gives them; names in lower case."""

    def get(self, key: str, default: Any = None) -> Any:
        """Return the first header of that name."""
        ...

    def get_all(self, key: str) -> list[Any]:
        """Return all headers of that name."""
        ...


class Scope(Protocol):
    """A request as RSGI describes it."""

    client: str
    method: str
    path: str
    query_string: str

    @property
    def headers(self) -> RequestHeaders:
        """The headers."""
        ...


class Wire(Protocol):
    """The other end of a request: the body in, the answer out."""

    async def __call__(self) -> bytes:
        """Return the whole body."""
        ...

    def __aiter__(self) -> AsyncIterator[bytes]:
        """Yield the body in pieces."""
        ...

    def response_empty(self, status: int, headers: Headers) -> None:
        """Answer without a body."""
        ...

    def response_bytes(self, status: int, headers: Headers, body: bytes) -> None:
        """Answer with a body."""
        ...


class Admitted(NamedTuple):
    """A sender that may send. `headers` go on every answer. `anonymous`: it asked not to be followed."""

    key: Key
    address: str
    user_agent: str
    query: dict[str, str]
    headers: Headers
    hints: Hints = NO_HINTS
    anonymous: bool = False


class Door:
    """Admits requests."""

    def __init__(self, settings: CollectorSettings, keys: KeyDirectory, monotonic_s: Callable[[], float]) -> None:
        self._keys = keys
        self._monotonic_s = monotonic_s
        self._retry_after_s = settings.retry_after_s
        self._gpc, self._dnt = settings.respect_gpc, settings.respect_dnt
        self._addresses = ClientAddress(settings.trusted_proxies)
        burst = settings.rate_burst_seconds
        self._of_address = RateLimit(settings.requests_per_second_per_address, burst)
        self._of_key = RateLimit(settings.requests_per_second_per_key, burst)
        self._policy = ", ".join(
            f'"{name}";q={int(limit.per_second * burst)};w={burst:g}'
            for name, limit in (("address", self._of_address), ("key", self._of_key))
        )

    def admit(self, scope: Scope, headers: RequestHeaders, content_types: frozenset[str]) -> Admitted:
        """Return who sends. `headers` are those of `scope`, which copies them each time. Raises `ProblemError`."""
        now_s = self._monotonic_s()
        forwarded = headers.get_all("x-forwarded-for") if self._addresses.uses_forwarded else ()
        address = self._addresses.of(scope.client, forwarded)
        wait_s = self._of_address.take(address, now_s)
        if wait_s:
            raise ProblemError(self._too_fast("address", self._of_address, wait_s, answers.ANY_ORIGIN))
        query = parse_query(scope.query_string)
        key = self._key(headers.get("authorization"), query)
        if key.origins:
            origin = headers.get("origin")
            cors = answers.cors(origin, key.origins)
        else:
            origin, cors = None, answers.ANY_ORIGIN
        if "ingest" not in key.scopes:
            detail = "the key lacks the scope ingest: players send with a pk_… key"
            raise ProblemError(answers.refusal("missing_scope", detail, cors))
        if key.origins and origin not in key.origins:
            detail = f"the key is for {', '.join(key.origins)}; the request comes from {str(origin)[:100]}"
            raise ProblemError(answers.refusal("origin_not_allowed", detail, cors))
        wait_s = self._of_key.take(key.id, now_s)
        if wait_s:
            raise ProblemError(self._too_fast("key", self._of_key, wait_s, cors))
        content_type = headers.get("content-type")
        if content_type and content_type not in content_types and media_type(content_type) not in content_types:
            names = ", ".join(sorted(content_types))
            detail = f"Content-Type is {content_type[:100]!r}; send one of {names}, or none"
            raise ProblemError(answers.refusal("unsupported_content_type", detail, cors))
        anonymous = (self._gpc and headers.get("sec-gpc") == "1") or (self._dnt and headers.get("dnt") == "1")
        return Admitted(key, address, headers.get("user-agent") or "", query, cors, hints_of(headers), anonymous)

    def allowance(self, address: str) -> Headers:
        """Return the RateLimit headers. They go on answers that somebody reads: a 204 of sendBeacon nobody does."""
        left = self._of_address.left(address, self._monotonic_s())
        return [("ratelimit-policy", self._policy), ("ratelimit", f'"address";r={left};t=1')]

    def preflight(self, scope: Scope) -> answers.Answer:
        """Answer a browser that asks whether it may send; the key is known where it stands in the URL."""
        text = parse_query(scope.query_string).get("key")
        try:
            key = self._keys.find(text) if text else None
        except KeysUnavailableError:
            key = None  # the request itself will hear of it
        return answers.preflight(answers.cors(scope.headers.get("origin"), key.origins if key else ()))

    def _key(self, authorization: str | None, query: dict[str, str]) -> Key:
        text = query.get("key")
        if authorization:
            scheme, _, value = authorization.partition(" ")
            if scheme.lower() != "bearer":
                detail = "Authorization has another scheme than Bearer: send `Authorization: Bearer pk_…`"
                raise ProblemError(answers.refusal("invalid_key", detail, answers.ANY_ORIGIN))
            text = value.strip()
        if not text:
            raise ProblemError(answers.refusal("missing_key", "", answers.ANY_ORIGIN))
        try:
            key = self._keys.find(text)
        except KeysUnavailableError as error:
            seconds = self._retry_after_s
            answer = answers.refusal("metadata_unavailable", "", answers.ANY_ORIGIN, retry_after_s=seconds)
            raise ProblemError(answer) from error
        if key is None:
            detail = "the key does not exist or was revoked: `viewmeter keys list` shows those that do"
            raise ProblemError(answers.refusal("invalid_key", detail, answers.ANY_ORIGIN))
        return key

    def _too_fast(self, who: str, limit: RateLimit, wait_s: float, cors: Headers) -> answers.Answer:
        seconds = max(1, int(wait_s) + 1)
        headers = [*cors, ("ratelimit-policy", self._policy), ("ratelimit", f'"{who}";r=0;t={seconds}')]
        detail = f"this {who} sends more than {limit.per_second} requests a second; wait {seconds} s"
        return answers.refusal("rate_limited", detail, headers, retry_after_s=seconds)


def media_type(content_type: str) -> str:
    """Return a Content-Type without its parameters."""
    return content_type.partition(";")[0].strip().lower()


def parse_query(text: str) -> dict[str, str]:
    """Return the query's parameters; the last of a name counts."""
    text = text[:_MAX_QUERY_CHARS]
    if "%" in text or "+" in text:
        return dict(parse_qsl(text))
    found = {}
    for part in text.split("&"):
        name, _, value = part.partition("=")
        found[name] = value
    return found


def is_plain(request: RequestHeaders, limit: int) -> bool:
    """True where the body may be taken as it comes: its length is known and small enough, and it is not compressed."""
    length = request.get("content-length")
    return length is not None and length.isdigit() and int(length) <= limit and request.get("content-encoding") is None


async def read_body(request: RequestHeaders, wire: Wire, headers: Headers, limit: int) -> bytes:
    """Return any body, decompressed. Raises `ProblemError`."""
    encoding = (request.get("content-encoding") or "identity").strip().lower()
    if encoding not in ("identity", "gzip", "x-gzip", "zstd"):
        detail = f"Content-Encoding is {encoding[:50]!r}; send gzip, zstd or none"
        raise ProblemError(answers.refusal("unsupported_content_encoding", detail, headers))
    body = await _read_bounded(wire, headers, limit)
    if encoding == "identity":
        return body
    return (unpack_zstd if encoding == "zstd" else unpack_gzip)(body, limit, headers)


async def _read_bounded(wire: Wire, headers: Headers, limit: int) -> bytes:
    pieces: list[bytes] = []
    size = 0
    async for piece in wire:
        size += len(piece)
        if size <= limit:
            pieces.append(piece)
        else:
            pieces.clear()
        if size > _DRAINED_BYTES:
            break
    if size > limit:
        raise ProblemError(_too_large(headers, limit, "the body"))
    return b"".join(pieces)


def _too_large(headers: Headers, limit: int, what: str) -> answers.Answer:
    detail = f"{what} has more than {limit} bytes; split the events over several beacons"
    return answers.refusal("body_too_large", detail, headers)


def unpack_gzip(body: bytes, limit: int, headers: Headers) -> bytes:
    """Return the bytes of one or more gzip members, never holding more than `limit` of them."""
    unpacked = b""
    rest = body
    try:
        while rest:
            stream = zlib.decompressobj(wbits=31)
            unpacked += stream.decompress(rest, limit + 1 - len(unpacked))
            if len(unpacked) > limit:
                raise ProblemError(_too_large(headers, limit, "the decompressed body"))
            if not stream.eof:
                raise zlib.error("it ends too early")
            rest = stream.unused_data
    except zlib.error as error:
        detail = f"Content-Encoding is gzip, but the body is not: {error}"
        raise ProblemError(answers.refusal("invalid_encoding", detail, headers)) from error
    return unpacked


def unpack_zstd(body: bytes, limit: int, headers: Headers) -> bytes:
    """Return the bytes of a zstd body, never holding more than `limit` of them."""
    try:
        reader = zstandard.ZstdDecompressor(max_window_size=1 << 23).stream_reader(body, read_across_frames=True)
        pieces: list[bytes] = []
        left = limit + 1
        while left > 0 and (piece := reader.read(left)):
            pieces.append(piece)
            left -= len(piece)
    except zstandard.ZstdError as error:
        detail = f"Content-Encoding is zstd, but the body is not: {error}"
        raise ProblemError(answers.refusal("invalid_encoding", detail, headers)) from error
    if left <= 0:
        raise ProblemError(_too_large(headers, limit, "the decompressed body"))
    return b"".join(pieces)
