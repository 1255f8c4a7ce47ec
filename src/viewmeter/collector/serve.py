"""Serving an RSGI application in this process: granian embedded on our own event loop.

In: an application with `drain()`, an address and a port. Out: answers, until SIGTERM or SIGINT. Promised: several
processes may serve one port (SO_REUSEPORT; the kernel spreads connections); on a stop no new connection is taken,
requests under way are answered, and only then `drain()` lets go of the log. Not done here: restarts (the supervisor's).
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import signal
from collections.abc import Callable
from typing import Any, Protocol

import structlog
import uvloop
from granian.constants import HTTPModes, Interfaces
from granian.http import HTTP1Settings
from granian.server.embed import Server

_log = structlog.get_logger(__name__)


class Served(Protocol):
    """An RSGI application that can be drained."""

    def __rsgi_init__(self, loop: asyncio.AbstractEventLoop) -> None:
        """Begin on the server's event loop."""
        ...

    async def __rsgi__(self, scope: Any, proto: Any) -> None:
        """Answer one request."""
        ...

    async def drain(self) -> None:
        """Return when nothing is under way any more."""
        ...


def serve(
    app: Served,
    host: str,
    port: int,
    *,
    backlog: int = 1024,
    max_requests: int = 4096,
    on_listening: Callable[[], None] | None = None,
    on_stopping: Callable[[], None] | None = None,
) -> None:
    """Serve until SIGTERM or SIGINT. Blocks; call it in the main thread.

    max_requests: requests under way at once; more wait in their sockets.
    on_listening: called once connections are taken. on_stopping: called before requests under way are waited for, so
    that answers which never end by themselves can be ended.
    """
    # What is loaded by now lives as long as the process: the collector of cycles need not look at it again and again.
    gc.collect()
    gc.freeze()
    gc.set_threshold(10_000, 20, 20)
    uvloop.run(_serve(app, host, port, backlog, max_requests, on_listening, on_stopping))


async def _serve(
    app: Served,
    host: str,
    port: int,
    backlog: int,
    max_requests: int,
    on_listening: Callable[[], None] | None,
    on_stopping: Callable[[], None] | None,
) -> None:
    loop = asyncio.get_running_loop()
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    server = Server(
        app,
        address=host,
        port=port,
        interface=Interfaces.RSGI,
        http=HTTPModes.auto,
        http1_settings=HTTP1Settings(header_read_timeout=15_000),
        websockets=False,
        backlog=backlog,
        backpressure=max_requests,
        log_enabled=False,
    )
    running = loop.create_task(server.serve())
    stopping = loop.create_task(stop.wait())
    if on_listening is not None:
        loop.call_later(0, _when_listening, loop, host, port, on_listening)
    await asyncio.wait((running, stopping), return_when=asyncio.FIRST_COMPLETED)
    if running.done():
        stopping.cancel()
        await running  # raises what went wrong, such as a port that is taken
        raise RuntimeError(f"the HTTP server on {host}:{port} ended by itself")
    _log.info("serve_draining", host=host, port=port)
    if on_stopping is not None:
        on_stopping()
    server.stop()  # type: ignore[no-untyped-call]
    await running
    await app.drain()


def _when_listening(loop: asyncio.AbstractEventLoop, host: str, port: int, on_listening: Callable[[], None]) -> None:
    async def probe() -> None:
        while True:
            with contextlib.suppress(OSError):
                _, writer = await asyncio.open_connection(host, port)
                writer.close()
                on_listening()
                return
            await asyncio.sleep(0.01)

    loop.create_task(probe())
