"""The client connections of this process, as the kernel knows them; and which of them go when there are too many.

In: a port, and who must stay. Out: connections closed. Why at all: the HTTP server stops accepting at its bound, so
that some thousand idle connections would shut everybody else out until they time out. As nginx does, those that do
nothing are closed first. Linux only (`/proc/self/fd`, TCP_INFO); elsewhere newcomers wait for the time-outs.

Promised: a connection is only ever closed by `shutdown` on a descriptor of our own, never by its number, which the
server may have given to another one meanwhile.
"""

from __future__ import annotations

import contextlib
import os
import socket
import struct
from collections import Counter
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from viewmeter.collector.proxies import ClientAddress, bare
from viewmeter.collector.rates import network

_FILES: Final = Path("/proc/self/fd")
_TCP_INFO: Final = getattr(socket, "TCP_INFO", None)
_TIMES: Final = struct.Struct("=44xI4xI64xQQ")
"""tcpi_last_data_sent, tcpi_last_data_recv (ms ago), tcpi_bytes_acked, tcpi_bytes_received."""
_IDLE_MS: Final = 2_000
"""A connection without a byte either way for so long is idle."""


@dataclass(frozen=True)
class Connection:
    """One client's connection. `idle_ms`: since the last byte; `acknowledged`: bytes of ours that arrived, ever."""

    peer: str
    idle_ms: int
    acknowledged: int
    received: int


def supported() -> bool:
    """Say whether connections can be seen on this system."""
    return _TCP_INFO is not None and _FILES.is_dir()


def open_files() -> int:
    """Return how many files this process has open."""
    return len(os.listdir(_FILES))  # noqa: PTH208 - 5 ms for 16,000, a third of what Path needs


def look(client: socket.socket) -> Connection | None:
    """Return what the kernel knows of a connection; None: it is none any more."""
    try:
        info = client.getsockopt(socket.IPPROTO_TCP, _TCP_INFO or 0, _TIMES.size)
        host, port = client.getpeername()[:2]
    except OSError:
        return None
    if len(info) < _TIMES.size:
        return None
    sent_ms, received_ms, acknowledged, received = _TIMES.unpack(info)
    return Connection(f"{bare(host)}:{port}", min(sent_ms, received_ms), acknowledged, received)


def clients(port: int) -> Iterator[tuple[socket.socket, Connection]]:
    """Yield the connections that clients have to `port`. Each socket is valid until the next one is asked for."""
    for name in os.listdir(_FILES):  # noqa: PTH208
        try:
            mine = os.dup(int(name))
        except OSError:
            continue
        try:
            client = socket.socket(fileno=mine)
        except OSError:  # no socket
            os.close(mine)
            continue
        with client:
            if client.family not in (socket.AF_INET, socket.AF_INET6) or client.type != socket.SOCK_STREAM:
                continue
            with contextlib.suppress(OSError):
                if client.getsockname()[1] == port and (seen := look(client)) is not None:
                    yield client, seen


def find(port: int, peer: str) -> socket.socket | None:
    """Return a descriptor of our own of the connection from `peer` (`address:port`); None: there is none any more."""
    wanted = f"{bare(peer)}:{peer.rpartition(':')[2]}"
    for client, seen in clients(port):
        if seen.peer == wanted:
            return client.dup()
    return None


def shed(port: int, count: int, busy: Collection[str], proxies: ClientAddress) -> int:
    """Close up to `count` connections of clients; return how many.

    First those that are idle, longest first. Where that is not enough, those of the network with the most connections,
    the ones that sent least first: who drips headers byte by byte is never idle. Not those of `busy` peers, which wait
    for an answer, nor of proxies, which are many clients in one.
    """
    known = [seen for _, seen in clients(port) if seen.peer not in busy]
    idle = sorted((seen for seen in known if seen.idle_ms >= _IDLE_MS), key=lambda seen: -seen.idle_ms)
    doomed = {seen.peer for seen in idle[:count]}
    if len(doomed) < count:
        rest = [seen for seen in known if seen.peer not in doomed and not proxies.trusts(seen.peer)]
        networks = {seen.peer: network(bare(seen.peer)) for seen in rest}
        if rest:
            (largest, _), *_ = Counter(networks.values()).most_common(1)
            dripping = sorted((s for s in rest if networks[s.peer] == largest), key=lambda seen: seen.received)
            doomed |= {seen.peer for seen in dripping[: count - len(doomed)]}
    closed = 0
    for client, seen in clients(port):
        if seen.peer in doomed:
            with contextlib.suppress(OSError):
                client.shutdown(socket.SHUT_RDWR)
                closed += 1
    return closed
