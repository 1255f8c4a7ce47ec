"""Serving an RSGI application in this process: granian embedded on our own event loop.

In: an application with `drain()`, an address and a port. Out: answers, until SIGTERM or SIGINT. Promised: several
processes may serve one port; on a stop no new connection is taken, requests under way are answered, and only then
`drain()` lets go of the log. A client that takes too long for its headers, or that sends nothing between two requests,
is closed after `header_timeout_s`; at `max_connections` the ones that do nothing make room. HTTP/1.1 only: the server
has no time limit for the first bytes of a connection that may become HTTP/2. Not done here: restarts (the
supervisor's), TLS (a proxy's).
"""

from __future__ import annotations

import asyncio
import gc
import signal
import socket
from collections.abc import Callable, Collection
from dataclasses import dataclass
from typing import Any, Final, Protocol

import structlog
import uvloop
from granian._granian import SocketHolder
from granian.constants import HTTPModes, Interfaces
from granian.http import HTTP1Settings
from granian.server.embed import Server

from viewmeter.collector import connections
from viewmeter.collector.listener import listen, room_for
from viewmeter.collector.metrics import CONNECTIONS, CONNECTIONS_SHED
from viewmeter.collector.proxies import ClientAddress
from viewmeter.collector.settings import CollectorSettings

_log = structlog.get_logger(__name__)

_BACKLOG: Final = 4_096
_MAX_HEADER_BYTES: Final = 64 << 10
"""Headers of one request; beyond it 431. Also how much of a body the server reads ahead."""
_COUNT_EVERY_S: Final = 0.5
_CROWDED: Final = 0.875
"""From this share of `max_connections` on, connections are shed …"""
_ROOMY: Final = 0.75
"""… down to this one."""


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


@dataclass(frozen=True)
class Hooks:
    """What is told about a server's life, and asked.

    on_listening: connections are taken from now on. on_stopping: called before requests under way are waited for, so
    that answers which never end by themselves can be ended. busy: peers that wait for an answer which may take long.
    """

    on_listening: Callable[[], None] | None = None
    on_stopping: Callable[[], None] | None = None
    busy: Callable[[], Collection[str]] = frozenset


def serve(
    app: Served,
    host: str,
    port: int,
    settings: CollectorSettings | None = None,
    hooks: Hooks | None = None,
) -> None:
    """Serve until SIGTERM or SIGINT. Blocks; call it in the main thread."""
    # What is loaded by now lives as long as the process: the collector of cycles need not look at it again and again.
    gc.collect()
    gc.freeze()
    gc.set_threshold(10_000, 20, 20)
    uvloop.run(_serve(app, host, port, settings or CollectorSettings(), hooks or Hooks()))


class _Server(Server):
    """granian on a socket of ours, whose options it does not offer."""

    def __init__(self, app: Served, listener: socket.socket, settings: CollectorSettings, max_connections: int) -> None:
        super().__init__(
            app,
            interface=Interfaces.RSGI,
            http=HTTPModes.http1,
            http1_settings=HTTP1Settings(
                header_read_timeout=int(settings.header_timeout_s * 1000), max_buffer_size=_MAX_HEADER_BYTES
            ),
            websockets=False,
            backlog=_BACKLOG,
            backpressure=max_connections,  # it counts connections, not requests
            log_enabled=False,
        )
        self._listener = listener

    def _init_shared_socket(self) -> None:
        # The descriptor is the server's from here on.
        self._shd = SocketHolder(self._listener.detach(), False, _BACKLOG)  # type: ignore[call-arg, assignment]


async def _serve(app: Served, host: str, port: int, settings: CollectorSettings, hooks: Hooks) -> None:
    loop = asyncio.get_running_loop()
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    allowed = room_for(settings.max_connections)
    if allowed < settings.max_connections:
        _log.warning("fewer_connections", allowed=allowed, wanted=settings.max_connections, raise_with="ulimit -n")
    listener = listen(host, port, _BACKLOG, settings.unacknowledged_s)
    number = listener.getsockname()[1]
    server = _Server(app, listener, settings, allowed)
    running = loop.create_task(server.serve())
    stopping = loop.create_task(stop.wait())
    proxies = ClientAddress(settings.trusted_proxies)
    watching = loop.create_task(_watch(number, allowed, hooks.busy, proxies)) if connections.supported() else None
    if hooks.on_listening is not None:
        loop.call_later(0, hooks.on_listening)
    await asyncio.wait((running, stopping), return_when=asyncio.FIRST_COMPLETED)
    if watching is not None:
        watching.cancel()
    if running.done():
        stopping.cancel()
        await running  # raises what went wrong
        raise RuntimeError(f"the HTTP server on {host}:{port} ended by itself")
    _log.info("serve_draining", host=host, port=port)
    if hooks.on_stopping is not None:
        hooks.on_stopping()
    server.stop()  # type: ignore[no-untyped-call]
    await running
    await app.drain()


async def _watch(port: int, bound: int, busy: Callable[[], Collection[str]], proxies: ClientAddress) -> None:
    """Keep room for newcomers."""
    beside = connections.open_files()
    while True:
        await asyncio.sleep(_COUNT_EVERY_S)
        count = max(0, connections.open_files() - beside)
        CONNECTIONS.set(count)
        if count <= bound * _CROWDED:
            continue
        closed = await asyncio.to_thread(connections.shed, port, count - int(bound * _ROOMY), busy(), proxies)
        CONNECTIONS_SHED.inc(closed)
        _log.warning("connections_shed", open=count, closed=closed, bound=bound)
