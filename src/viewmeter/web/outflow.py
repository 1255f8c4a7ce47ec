"""How much of a streamed answer the client has not taken yet.

In: the client's address and the bytes that were handed to the server. Out: whether to go on. Why: the server's stream
takes any number of bytes at once and keeps what the client does not read in memory, without a bound (granian 2.8); only
the kernel knows what arrived. Promised: at most about `MAX_OUTSTANDING` bytes of an answer wait for its client. Linux
only; elsewhere answers are bounded by what the engine makes of one question.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import Awaitable, Callable
from typing import Final

from viewmeter.collector import connections

MAX_OUTSTANDING: Final = 1 << 20
_LOOK_EVERY_BYTES: Final = 256 << 10
_PAUSE_S: Final = 0.02


class SlowReaderError(Exception):
    """The client does not take the answer."""


class Outflow:
    """One streamed answer. `patience_s`: how long the client may take nothing; 0: it is not waited for at all."""

    def __init__(self, port: int, peer: str, patience_s: float, sleep: Callable[[float], Awaitable[None]]) -> None:
        self._where = (port, peer)
        self._patience_s = patience_s
        self._sleep = sleep
        self._client: socket.socket | None = None
        self._known = connections.supported()
        self._handed_over = 0
        self._looked_at = 0
        self._acknowledged_before = 0

    async def handed_over(self, count: int) -> None:
        """Note `count` more bytes; return when more may follow. Raises `SlowReaderError` once the client is cut off."""
        self._handed_over += count
        if not self._known or self._handed_over - self._looked_at < _LOOK_EVERY_BYTES:
            return
        self._looked_at = self._handed_over
        if self._client is None and not await self._find():
            return
        waited_s = 0.0
        acknowledged = self._acknowledged()
        while self._handed_over - acknowledged > MAX_OUTSTANDING:
            if waited_s >= self._patience_s:
                self._cut()
                raise SlowReaderError
            await self._sleep(_PAUSE_S)
            waited_s += _PAUSE_S
            if (now := self._acknowledged()) != acknowledged:
                acknowledged, waited_s = now, 0.0

    def close(self) -> None:
        """Let go of the connection."""
        if self._client is not None:
            self._client.close()

    async def _find(self) -> bool:
        """Find the connection. What of this answer arrived before is not known: 256 KiB of error at most."""
        self._client = await asyncio.to_thread(connections.find, *self._where)
        if self._client is None:
            self._known = False
            return False
        seen = connections.look(self._client)
        self._acknowledged_before = seen.acknowledged if seen is not None else 0
        return True

    def _acknowledged(self) -> int:
        seen = connections.look(self._client) if self._client is not None else None
        if seen is None:  # the client is gone: the server notices by itself
            return self._handed_over
        return seen.acknowledged - self._acknowledged_before

    def _cut(self) -> None:
        if self._client is not None:
            with contextlib.suppress(OSError):
                self._client.shutdown(socket.SHUT_RDWR)
