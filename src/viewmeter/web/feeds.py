"""Live feeds: the realtime object of a scope, computed once a tick and shared by everyone who watches that
scope.

In: a function that computes a scope's figures. Out: Server-Sent Events as bytes. Promised: at most
`max_feeds` scopes and `max_streams` watchers (else 503); a slow watcher skips events, it never holds others
up; nothing is computed for a scope that nobody watches.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import suppress
from typing import Final

import msgspec
import structlog
from prometheus_client import Gauge

from viewmeter.live.protocol import LiveScope
from viewmeter.web.problems import ProblemError

STREAMS: Final = Gauge("viewmeter_api_live_streams", "Open live streams.", multiprocess_mode="livesum")
RETRY_MS: Final = 2_000

_log = structlog.get_logger(__name__)

Compute = Callable[[LiveScope], Awaitable[dict[str, object]]]


class Feeds:
    """All live feeds of this process. Used from its event loop only."""

    def __init__(
        self,
        compute: Compute,
        clock: Callable[[], int],
        every_s: float,
        heartbeat_every_s: float,
        max_streams: int,
        max_feeds: int,
    ) -> None:
        self._compute = compute
        self._clock = clock
        self._every_s = every_s
        self._heartbeat_every_s = heartbeat_every_s
        self._max_streams = max_streams
        self._max_feeds = max_feeds
        self._feeds: dict[LiveScope, _Feed] = {}
        self._streams = 0
        self._closed = False

    @property
    def streams(self) -> int:
        """How many streams are open."""
        return self._streams

    def open(self, scope: LiveScope, allowed: Callable[[], bool]) -> AsyncIterator[bytes]:
        """Return the events of a scope while `allowed()` holds. Raises `ProblemError` (503) at the bounds."""
        if self._closed:
            raise ProblemError("not_ready", "This server is stopping; connect again.")
        if self._streams >= self._max_streams:
            raise ProblemError("too_many_streams", f"{self._streams} streams are open, as many as are allowed.")
        if scope not in self._feeds and len(self._feeds) >= self._max_feeds:
            raise ProblemError("too_many_streams", f"{len(self._feeds)} different scopes are watched already.")
        return self._watch(scope, allowed)

    async def close(self) -> None:
        """End every stream."""
        self._closed = True
        for feed in list(self._feeds.values()):
            feed.end()

    async def _watch(self, scope: LiveScope, allowed: Callable[[], bool]) -> AsyncIterator[bytes]:
        # Joined at the first read, not at open(): an answer that is never read must leave nothing behind.
        feed = self._feeds.get(scope)
        if feed is None:
            feed = self._feeds[scope] = _Feed()
            feed.task = asyncio.create_task(self._run(scope, feed))
        feed.watchers += 1
        self._streams += 1
        STREAMS.set(self._streams)
        try:
            yield f"retry: {RETRY_MS}\n: connected\n\n".encode()
            seen = 0
            while not feed.ended and allowed():
                try:
                    await asyncio.wait_for(feed.wait_beyond(seen), self._heartbeat_every_s)
                except TimeoutError:
                    yield b": heartbeat\n\n"
                    continue
                if feed.number > seen:
                    seen = feed.number
                    yield feed.frame
        finally:
            self._streams -= 1
            STREAMS.set(self._streams)
            feed.watchers -= 1
            if feed.watchers == 0:
                feed.end()
                if self._feeds.get(scope) is feed:
                    del self._feeds[scope]

    async def _run(self, scope: LiveScope, feed: _Feed) -> None:
        loop = asyncio.get_running_loop()
        failing = False
        while not feed.ended:
            began = loop.time()
            try:
                figures = await self._compute(scope)
                feed.publish(event(self._clock(), figures))
                failing = False
            except Exception as error:  # noqa: BLE001 - a feed outlives a bad tick; its watchers get heartbeats
                if not failing:
                    _log.warning("live_feed_failing", error=type(error).__name__, exc_info=error)
                failing = True
            # A tick that took long is followed by a short rest, so that the loop is never the only thing that
            # runs.
            rest = max(self._every_s - (loop.time() - began), self._every_s / 10)
            with suppress(TimeoutError):
                await asyncio.wait_for(feed.stopped.wait(), rest)


class _Feed:
    """The latest event of one scope."""

    def __init__(self) -> None:
        self.number = 0
        self.frame = b""
        self.watchers = 0
        self.task: asyncio.Task[None] | None = None
        self.stopped = asyncio.Event()
        self._next = asyncio.Event()

    @property
    def ended(self) -> bool:
        return self.stopped.is_set()

    def publish(self, frame: bytes) -> None:
        self.number += 1
        self.frame = frame
        self._wake()

    def end(self) -> None:
        self.stopped.set()
        self._wake()

    async def wait_beyond(self, seen: int) -> None:
        """Return when there is an event behind number `seen`, or no more will come."""
        while self.number <= seen and not self.ended:
            await self._next.wait()

    def _wake(self) -> None:
        current, self._next = self._next, asyncio.Event()
        current.set()


def event(now_ms: int, figures: dict[str, object]) -> bytes:
    """Write one `metrics` event. Its id is the instant, so a reader that reconnects can say what it saw
    last."""
    return b"id: %d\nevent: metrics\ndata: %s\n\n" % (now_ms, msgspec.json.encode(figures))
