"""The body of a request, whole and decompressed, or what is wrong with it.

In: the wire. Out: bytes. Promised: a body that broke off is never taken for a whole one; no body is larger than the
limit, before and after decompression, nor costs more than some ms to unpack; all bodies that are being read together
hold at most `max_reading_bytes` (small ones aside, which the number of connections bounds). Not done here: the time
limit (`app._tick` cancels who takes too long, and this room says so).
"""

from __future__ import annotations

import asyncio
import zlib
from collections.abc import AsyncIterator, Awaitable
from typing import Final

import zstandard
from granian.rsgi import ProtocolClosed, ProtocolError  # type: ignore[attr-defined]  # re-exported

from viewmeter.collector import answers
from viewmeter.collector.answers import Answer, Headers, ProblemError
from viewmeter.collector.settings import CollectorSettings
from viewmeter.collector.wire import RequestHeaders, Wire

SMALL_BYTES: Final = 32 << 10
"""Bodies up to here are read in one go: a beacon of ten events has 5 KB. 12,288 connections hold 384 MiB at worst."""
_DRAINED_BYTES: Final = 8 << 20
"""A body that is too large is read up to here and thrown away, since most clients read no answer before they have
written everything."""
_MAX_MEMBERS: Final = 16
"""gzip members or zstd frames of one body. A body of nothing but empty members took 0.7 s."""
_FREE_CHUNKS: Final = 64
_LEAST_CHUNK_BYTES: Final = 64
"""A chunk costs the server as much as a beacon does, so beyond the first ones they must hold something."""
_SLICE_BYTES: Final = 256
"""zstd input at a time: a block of 4 bytes may become 128 KiB, so this is at most 8 MiB of output."""

BREAKS: Final = (asyncio.CancelledError, ProtocolClosed, ProtocolError)
"""What reading a body raises when the sender takes too long or breaks off."""


def small_bytes(settings: CollectorSettings) -> int:
    """Return how large a body may be that is read in one go."""
    return min(SMALL_BYTES, settings.max_body_bytes)


class BrokenBodyError(Exception):
    """The body is not read on; the text says why."""


async def pieces(wire: Wire, *, chunked: bool) -> AsyncIterator[bytes]:
    """Yield the pieces of a whole body. Raises `BrokenBodyError`. chunked: the sender decides how large they are.

    The server yields one empty piece at the end of a body. Where the body breaks off it yields another one before, and
    says nothing else (granian 2.8); so it does for trailers.
    """
    ended = False
    count = size = 0
    async for piece in wire:
        if ended:
            raise BrokenBodyError("the body broke off, its chunks are malformed, or it has trailers")
        if piece:
            count += 1
            size += len(piece)
            if chunked and count > _FREE_CHUNKS + size // _LEAST_CHUNK_BYTES:
                why = f"its first {count} chunks hold {size} bytes: send {_LEAST_CHUNK_BYTES} bytes or more in each, "
                raise BrokenBodyError(why + "or the body in one piece with a Content-Length")
            yield piece
        else:
            ended = True


class Bodies:
    """Reads the bodies of one worker."""

    def __init__(self, settings: CollectorSettings) -> None:
        self._limit = settings.max_body_bytes
        self._small = small_bytes(settings)
        self._max_held = settings.max_reading_bytes
        self._retry_after_s = settings.retry_after_s
        self._timeout_s = settings.body_timeout_s
        self._held = 0

    def read(self, request: RequestHeaders, wire: Wire, headers: Headers) -> Awaitable[bytes]:
        """Return the body, decompressed. `headers` go on a refusal. Raises `ProblemError`, and what is in `BREAKS`."""
        length = request.get("content-length")
        if (
            length is not None
            and length.isdigit()
            and int(length) <= self._small
            and request.get("content-encoding") is None
        ):
            return wire()
        return self._read(request, wire, headers)

    def broken(self, error: BaseException, headers: Headers) -> Answer:
        """Return the answer to a body whose reading raised one of `BREAKS`."""
        if isinstance(error, asyncio.CancelledError):
            detail = f"the body did not arrive within {self._timeout_s:g} s"
            return answers.refusal("body_timeout", detail, [*headers, ("connection", "close")])
        return self._incomplete(headers)

    async def _read(self, request: RequestHeaders, wire: Wire, headers: Headers) -> bytes:
        coding = ", ".join(request.get_all("transfer-encoding")).strip().lower()
        if coding not in ("", "chunked"):
            detail = f"Transfer-Encoding is {coding[:50]!r}; send chunked, or a Content-Length"
            raise ProblemError(answers.refusal("invalid_body", detail, headers))
        encoding = (", ".join(request.get_all("content-encoding")) or "identity").strip().lower()
        if encoding not in ("identity", "gzip", "x-gzip", "zstd"):
            detail = f"Content-Encoding is {encoding[:50]!r}; send gzip, zstd or none"
            raise ProblemError(answers.refusal("unsupported_content_encoding", detail, headers))
        body = await self._read_bounded(request, wire, headers)
        if encoding == "identity":
            return body
        return (unpack_zstd if encoding == "zstd" else unpack_gzip)(body, self._limit, headers)

    async def _read_bounded(self, request: RequestHeaders, wire: Wire, headers: Headers) -> bytes:
        length = request.get("content-length")
        declared = int(length) if length is not None and length.isdigit() else None
        if declared is not None and declared > self._limit and (declared > _DRAINED_BYTES or "expect" in request):
            raise ProblemError(too_large(headers, self._limit, "the body"))
        kept: list[bytes] = []
        size = held = 0
        try:
            async for piece in pieces(wire, chunked=declared is None):
                size += len(piece)
                if size > self._limit:
                    kept.clear()
                    if size > _DRAINED_BYTES:
                        break
                    continue
                kept.append(piece)
                held += len(piece)
                self._held += len(piece)
                if self._held > self._max_held:
                    raise ProblemError(answers.refusal("overloaded", "", headers, retry_after_s=self._retry_after_s))
        except BrokenBodyError as error:
            raise ProblemError(self._incomplete(headers, str(error))) from None
        finally:
            self._held -= held
        if size > self._limit:
            raise ProblemError(too_large(headers, self._limit, "the body"))
        if declared is not None and size != declared:
            raise ProblemError(self._incomplete(headers))
        return b"".join(kept)

    @staticmethod
    def _incomplete(headers: Headers, why: str = "the body broke off") -> Answer:
        detail = f"nothing of the beacon was accepted: {why}"
        return answers.refusal("invalid_body", detail, [*headers, ("connection", "close")])


def too_large(headers: Headers, limit: int, what: str) -> Answer:
    """Return the answer to a body beyond the limit."""
    detail = f"{what} has more than {limit} bytes; split the events over several beacons"
    return answers.refusal("body_too_large", detail, headers)


def unpack_gzip(body: bytes, limit: int, headers: Headers) -> bytes:
    """Return the bytes of one or more gzip members, never holding more than `limit` of them."""
    unpacked = b""
    rest = body
    for _ in range(_MAX_MEMBERS):
        stream = zlib.decompressobj(wbits=31)
        try:
            unpacked += stream.decompress(rest, limit + 1 - len(unpacked))
        except zlib.error as error:
            raise _undecodable("gzip", str(error), headers) from error
        if len(unpacked) > limit:
            raise ProblemError(too_large(headers, limit, "the decompressed body"))
        if not stream.eof:
            raise _undecodable("gzip", "it ends too early", headers)
        rest = stream.unused_data
        if not rest:
            return unpacked
    raise _undecodable("gzip", f"it has more than {_MAX_MEMBERS} members", headers)


def unpack_zstd(body: bytes, limit: int, headers: Headers) -> bytes:
    """Return the bytes of one or more zstd frames, holding at most 8 MiB more than `limit` of them."""
    unpacked: list[bytes] = []
    left = limit
    rest = memoryview(body)
    decompressor = zstandard.ZstdDecompressor(max_window_size=1 << 23)
    for _ in range(_MAX_MEMBERS):
        stream = decompressor.decompressobj()
        used = 0
        try:
            while used < len(rest) and not stream.eof:
                piece = stream.decompress(rest[used : used + _SLICE_BYTES])
                used = min(used + _SLICE_BYTES, len(rest))
                unpacked.append(piece)
                left -= len(piece)
                if left < 0:
                    raise ProblemError(too_large(headers, limit, "the decompressed body"))
        except zstandard.ZstdError as error:
            raise _undecodable("zstd", str(error), headers) from error
        if not stream.eof:
            raise _undecodable("zstd", "it ends too early", headers)
        rest = rest[used - len(stream.unused_data) :]
        if not len(rest):
            return b"".join(unpacked)
    raise _undecodable("zstd", f"it has more than {_MAX_MEMBERS} frames", headers)


def _undecodable(encoding: str, why: str, headers: Headers) -> ProblemError:
    detail = f"Content-Encoding is {encoding}, but the body is not: {why}"
    return ProblemError(answers.refusal("invalid_encoding", detail, headers))
