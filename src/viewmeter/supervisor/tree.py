"""The tree: engine and collectors start together, the engine stops last.

A collector answers 204 by its log alone, so it may outlive the engine: while the engine starts again, beacons are still
taken and every other path answers 503 with Retry-After (see `web/gateway.py`).
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import shutil
import signal
import sys
from pathlib import Path
from typing import Any, Final

import structlog

from viewmeter.collector.rates import share_buckets
from viewmeter.supervisor import port
from viewmeter.supervisor.assignment import Assignment, dump
from viewmeter.supervisor.child import Child

log = structlog.get_logger(__name__)

POLL_S: Final = 0.02
MAX_FAILED_STARTS: Final = 3
READY_TIMEOUT_S: Final = 5.0


class StartError(Exception):
    """The product cannot start; the text says what to look at."""


class Tree:
    """All processes of one product."""

    def __init__(self, assignment: Assignment, keep_open: tuple[int, ...]) -> None:
        self._assignment = assignment
        self._settings = assignment.server
        self._stop = asyncio.Event()
        self._hurry = asyncio.Event()
        metrics = assignment.run / "metrics"
        shutil.rmtree(metrics, ignore_errors=True)  # counters of processes that are gone
        metrics.mkdir(parents=True)
        environment = {
            "PROMETHEUS_MULTIPROC_DIR": str(metrics),
            # Two malloc arenas rather than eight a core: threads that rarely allocate together keep 100 MB otherwise.
            "MALLOC_ARENA_MAX": "2",
        }

        buckets = share_buckets()

        def child(name: str, module: str, partition: int) -> Child:
            return Child(
                name,
                module,
                dump(dataclasses.replace(assignment, partition=partition, buckets=buckets)),
                keep_open=(*keep_open, buckets),
                environment=environment,
                max_delay_s=self._settings.max_restart_delay_s,
            )

        self.engine = child("engine", "viewmeter.supervisor.engine", 0)
        self.collectors = [child(f"collector-{i}", "viewmeter.supervisor.worker", i) for i in range(assignment.workers)]

    async def run(self) -> None:
        """Start everything, stay until a signal asks to stop, drain."""
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self.stop)
        watcher: asyncio.Task[None] | None = None
        try:
            self._assignment.socket.unlink(missing_ok=True)  # left by a killed one
            self.engine.start()
            for collector in self.collectors:
                collector.start()
            await self._engine_listens()
            watcher = loop.create_task(self._announce())
            await self._stop.wait()
        finally:
            if watcher is not None:
                watcher.cancel()
            await self._drain()

    def stop(self) -> None:
        """Begin to drain; called again (Ctrl-C twice), do not wait any longer."""
        if self._stop.is_set():
            self._hurry.set()
        self._stop.set()

    async def _engine_listens(self) -> None:
        """Return when the engine has started for the first time; give up where it cannot."""
        loop = asyncio.get_running_loop()
        deadline = loop.time() + self._settings.start_timeout_s
        while not await _listens(self._assignment.socket):
            if self._stop.is_set():
                return
            if self.engine.deaths >= MAX_FAILED_STARTS:
                raise StartError(
                    f"the engine ended {MAX_FAILED_STARTS} times while starting: its last message above says why"
                )
            if loop.time() > deadline:
                raise StartError(
                    f"the engine does not listen after {self._settings.start_timeout_s:g} s: "
                    "raise server.start_timeout_s if its recovery needs longer"
                )
            await asyncio.sleep(POLL_S)

    async def _announce(self) -> None:
        """Say once that the product is ready."""
        assignment = self._assignment
        where = port.url(assignment.host, assignment.port)
        while not await _ready(assignment.host, assignment.port):
            await asyncio.sleep(POLL_S)
        log.info("ready", url=where, workers=assignment.workers)
        print(f"Viewmeter is ready at {where}", file=sys.stdout, flush=True)  # noqa: T201 - for the person who started it

    async def _drain(self) -> None:
        """Collectors finish their answers; then the engine applies what they made durable and saves its state."""
        log.info("draining")
        timeout_s = self._settings.drain_timeout_s
        work = asyncio.gather(*(collector.drain(timeout_s) for collector in self.collectors))
        await self._unless_hurried(work)
        await self._unless_hurried(asyncio.ensure_future(self.engine.drain(timeout_s)))
        for child in (*self.collectors, self.engine):
            child.kill()
        log.info("stopped")

    async def _unless_hurried(self, work: asyncio.Future[Any]) -> None:
        hurry = asyncio.ensure_future(self._hurry.wait())
        await asyncio.wait((work, hurry), return_when=asyncio.FIRST_COMPLETED)
        hurry.cancel()


async def _listens(socket: Path) -> bool:
    try:
        _, writer = await asyncio.open_unix_connection(socket)
    except OSError:
        return False
    writer.close()
    return True


async def _ready(host: str, number: int) -> bool:
    """Ask `/readyz` over the public port, as a load balancer would."""
    address = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)
    with contextlib.suppress(OSError, TimeoutError, asyncio.IncompleteReadError):
        async with asyncio.timeout(READY_TIMEOUT_S):
            reader, writer = await asyncio.open_connection(address, number)
            writer.write(b"GET /readyz HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
            status = await reader.readline()
            writer.close()
            return b" 200 " in status
    return False
