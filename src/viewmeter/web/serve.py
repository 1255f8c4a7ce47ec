"""Runs the API on a unix socket inside the engine process.

In: an ASGI application and the path of the socket. Out: nothing; returns after SIGTERM or SIGINT (or `stop`),
once the answers that had begun are written. Promised: a socket file that a killed process left behind does
not matter; only the owner may connect, since the gateway behind it is trusted with the client's address.
"""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import socket
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any, Final

import structlog
import uvloop
from granian.constants import HTTPModes, Interfaces
from granian.server.embed import Server

from viewmeter.collector.listener import room_for
from viewmeter.web.edge import Edge

BACKLOG: Final = 4_096
MAX_CONNECTIONS: Final = 16_384
"""Only the gateways connect, each with a bound of its own; their sum must stay below this one."""
_log = structlog.get_logger(__name__)


def serve_engine(
    app: Edge,
    uds_path: Path,
    on_listening: Callable[[], None] | None = None,
    drain_timeout_s: float = 10.0,
) -> None:
    """Serve until SIGTERM or SIGINT. Blocks; call it from the main thread, which is where signals arrive."""
    uvloop.run(serve(app, uds_path, on_listening, drain_timeout_s))


async def serve(
    app: Edge,
    uds_path: Path,
    on_listening: Callable[[], None] | None = None,
    drain_timeout_s: float = 10.0,
    stop: asyncio.Event | None = None,
) -> None:
    """Serve on the running loop until `stop` is set; without one, until a signal arrives (main thread
    only)."""
    ended = stop or asyncio.Event()
    if stop is None:
        for number in (signal.SIGTERM, signal.SIGINT):
            asyncio.get_running_loop().add_signal_handler(number, ended.set)
    _remove_dead_socket(uds_path)
    logging.getLogger("_granian").setLevel(logging.ERROR)  # it announces itself at every start
    server = Server(
        app,
        uds=uds_path,
        interface=Interfaces.ASGI,
        http=HTTPModes.http1,
        backlog=BACKLOG,
        backpressure=room_for(MAX_CONNECTIONS),
        websockets=False,
        log_enabled=False,
    )
    # Whoever may connect is believed what it says about the client.
    previous = os.umask(0o177)
    running = asyncio.create_task(server.serve())
    try:
        await _wait_for_socket(uds_path, running)
    finally:
        os.umask(previous)
    if on_listening is not None:
        on_listening()
    await asyncio.wait({running, waiting := asyncio.create_task(ended.wait())}, return_when=asyncio.FIRST_COMPLETED)
    waiting.cancel()
    await _drain(app, server, running, drain_timeout_s)


async def _drain(app: Edge, server: Server, running: asyncio.Task[Any], timeout_s: float) -> None:
    # Live streams never end by themselves, and the server waits for every answer that has begun.
    await app.close_streams()
    if not running.done():
        server.stop()  # type: ignore[no-untyped-call]
    done, _ = await asyncio.wait({running}, timeout=timeout_s)
    if not done:
        _log.warning("answers_cut_off", after_s=timeout_s)
        running.cancel()
        with suppress(asyncio.CancelledError):
            await running
    else:
        running.result()


async def _wait_for_socket(path: Path, running: asyncio.Task[Any]) -> None:
    while not path.exists():
        if running.done():
            running.result()
            raise RuntimeError(f"The API could not listen on {path.name}.")
        await asyncio.sleep(0.005)


def _remove_dead_socket(path: Path) -> None:
    """Remove the socket file of a process that was killed; refuse to take the place of one that lives."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if not path.exists():
        return
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.settimeout(1.0)
        try:
            probe.connect(str(path))
        except OSError:
            path.unlink(missing_ok=True)
            return
    raise RuntimeError(f"Another engine already listens on {path.name}; stop it first.")
