"""Group commit: many beacons, one fsync, then all are answered.

In: accepted beacons, on the event loop. Out: a future per group that is done when the group is durable. Promised: a
beacon is answered only after its batch is in the log; at most `max_pending_events` wait (beyond it `OverloadedError`);
`close()` loses nothing that waits. One group is with the disk while the next one fills, and commits begin `linger_ms`
apart: what comes after a pause is written at once, what comes in a stream is written together (decision 131).

All Python work is on the event loop; the thread only compresses and writes, which releases the GIL. (A thread that
also builds the batch keeps the loop waiting for the GIL up to 5 ms at a time.)
"""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import structlog

from viewmeter.collector import metrics
from viewmeter.collector.columns import Beacon, Columns, Terms
from viewmeter.collector.settings import CollectorSettings
from viewmeter.eventlog.protocol import LogUnavailableError, LogWriter

_log = structlog.get_logger(__name__)


class OverloadedError(Exception):
    """Too many events wait for the disk."""


class Group:
    """Beacons that become durable together, and the future that says so.

    All of them await one future (a future each costs 5 µs a beacon, shielding this one 3 µs), so whoever awaits it must
    not be cancelled: that would cancel the waiting of all. The collector cancels senders only while it reads.
    """

    __slots__ = ("columns", "done", "events", "take")

    def __init__(self, loop: asyncio.AbstractEventLoop, *, compiled: bool) -> None:
        self.columns = Columns(compiled=compiled)
        self.take = self.columns.take
        self.events = 0
        self.done: asyncio.Future[None] = loop.create_future()


class GroupCommit:
    """Collects beacons into batches of one log. Used from one event loop."""

    def __init__(
        self,
        log: LogWriter,
        settings: CollectorSettings,
        loop: asyncio.AbstractEventLoop,
        monotonic_s: Callable[[], float] = time.monotonic,
    ) -> None:
        self._log = log
        self._monotonic_s = monotonic_s
        self._settings = settings
        self._loop = loop
        self._thread = ThreadPoolExecutor(1, "log-append")
        self._max_pending = settings.max_pending_events
        self._max_batch = settings.max_batch_events
        self._waiting: list[Group] = []
        self._next = self._new_group()
        self._writing: Group | None = None
        self._scheduled = False
        self._began_s = -math.inf  # when the last commit began
        self.pending_events = 0

    def take(
        self, body: bytes, terms: Terms, sent_at: str | None, received_at: int
    ) -> tuple[asyncio.Future[None], tuple[int, int, bool]] | None:
        """Add a plain body of the native dialect; return the future of `submit`, and what `Columns.take` says of it.

        None: the body is for the dialect to decode. Raises as `submit` does.
        """
        room = self._max_pending - self.pending_events
        if room <= 0:
            raise OverloadedError
        group = self._filling()
        if group.take is None:
            return None
        taken = group.take(body, terms, sent_at, received_at, room)
        if taken is None:
            return None
        self._added(group, taken[0])
        return group.done, taken

    def submit(self, beacon: Beacon) -> asyncio.Future[None]:
        """Add a beacon; the future is done when it is durable, and raises `LogUnavailableError` when it cannot be.

        Raises what is wrong with a beacon that cannot be written as columns; its neighbours do not notice.
        """
        count = beacon.events
        if self.pending_events + count > self._max_pending:
            raise OverloadedError
        group = self._filling()
        group.columns.add(beacon)
        self._added(group, count)
        return group.done

    def _filling(self) -> Group:
        """Return the group that takes the next beacon. It may be empty, and is then not scheduled."""
        if self._next.events >= self._max_batch:
            self._next = self._new_group()
        return self._next

    def _new_group(self) -> Group:
        return Group(self._loop, compiled=self._settings.compiled_decoder)

    def _added(self, group: Group, count: int) -> None:
        if not group.events:
            self._waiting.append(group)
        group.events += count
        self.pending_events += count
        if self._writing is None and not self._scheduled:
            self._schedule()

    async def close(self) -> None:
        """Return when everything submitted is durable or failed; then end the thread."""
        while groups := [*self._waiting, *([self._writing] if self._writing else [])]:
            await asyncio.wait([group.done for group in groups])
        self._thread.shutdown()

    def _schedule(self) -> None:
        self._scheduled = True
        wait_s = self._began_s + self._settings.linger_ms / 1000 - self._monotonic_s()
        if wait_s > 0:
            self._loop.call_later(wait_s, self._start)
        else:
            self._loop.call_soon(self._start)

    def _start(self) -> None:
        """Give the oldest group to the disk."""
        self._scheduled = False
        group = self._waiting.pop(0)
        if group is self._next:
            self._next = self._new_group()
        self._began_s = self._monotonic_s()
        self._writing = group
        batch = group.columns.batch()
        started = time.perf_counter()
        future = self._loop.run_in_executor(self._thread, self._log.append, batch)

        def appended(result: asyncio.Future[int]) -> None:
            metrics.COMMIT_SECONDS.observe(time.perf_counter() - started)
            self._finish(group, result.exception())

        future.add_done_callback(appended)

    def _finish(self, group: Group, error: BaseException | None) -> None:
        self._writing = None
        self.pending_events -= group.events
        metrics.COMMIT_EVENTS.observe(group.events)
        metrics.PENDING_EVENTS.set(self.pending_events)
        if group.done.cancelled():  # the loop is being torn down
            return
        if error is None:
            group.done.set_result(None)
        else:
            metrics.LOG_ERRORS.inc()
            if not isinstance(error, LogUnavailableError):
                _log.error("log_append_broken", error=repr(error))
                error = LogUnavailableError(f"the event log failed: {error!r}")
            group.done.set_exception(error)
            group.done.exception()  # mark as seen, in case every sender has gone away
        if self._waiting:
            self._schedule()
