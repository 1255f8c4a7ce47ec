"""The public port of one worker: its listening socket, and as many open files as its connections need.

In: an address and bounds. Out: a socket that shares the port with the other workers (SO_REUSEPORT; the kernel spreads
connections). Promised: a client that vanished, or that never reads its answer, is dropped by the kernel after
`unacknowledged_s`. Not done here: accepting (the server's), reserving the port (the supervisor's).
"""

from __future__ import annotations

import resource
import socket
from typing import Final

_KEEPALIVE_S: Final = 30
_FILES_BESIDE: Final = 4_096
"""Open files of a process beside those of its clients: log, databases, connections to the engine."""


def listen(host: str, port: int, backlog: int, unacknowledged_s: float) -> socket.socket:
    """Return the listening socket. Accepted connections inherit its options."""
    family, _, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[0]
    listener = socket.socket(family, socket.SOCK_STREAM)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if hasattr(socket, "TCP_USER_TIMEOUT"):  # Linux
            listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, int(unacknowledged_s * 1000))
            listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, _KEEPALIVE_S)
        listener.bind(address)
        listener.listen(backlog)
        listener.setblocking(False)
    except OSError:
        listener.close()
        raise
    return listener


def room_for(connections: int) -> int:
    """Raise the limit of open files as far as `connections` need it and it may; return how many it allows."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = connections + _FILES_BESIDE
    allowed = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
    if soft != resource.RLIM_INFINITY and soft < allowed:
        resource.setrlimit(resource.RLIMIT_NOFILE, (allowed, hard))
        soft = allowed
    if soft == resource.RLIM_INFINITY or soft >= wanted:
        return connections
    return max(1, soft - min(_FILES_BESIDE, soft // 2))
