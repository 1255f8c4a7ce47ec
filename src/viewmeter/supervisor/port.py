"""The public port: reserved by the supervisor, served by the workers.

All workers listen with SO_REUSEPORT, so a second product of the same user could join in silently and take half of the
beacons. The supervisor therefore asks for the port alone first, and then holds it by a bound socket that never listens
(the kernel hands connections to listening sockets only).
"""

from __future__ import annotations

import errno
import socket


class PortError(Exception):
    """The port cannot be had; the text says why and what to do."""


def reserve(host: str, port: int) -> socket.socket:
    """Return a socket that holds the port; port 0 takes a free one."""
    try:
        family, _, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[0]
    except socket.gaierror as problem:
        raise PortError(f"cannot listen on {host!r}: {problem.strerror}; give an address as --host") from None
    probe = socket.socket(family, socket.SOCK_STREAM)
    holder = socket.socket(family, socket.SOCK_STREAM)
    try:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        probe.bind(address)
        probe.listen(1)  # only listening tells for sure that no one else is there
        taken = probe.getsockname()
        probe.close()
        holder.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        holder.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        holder.bind(taken)
    except OSError as problem:
        probe.close()
        holder.close()
        if problem.errno == errno.EADDRINUSE:
            raise PortError(
                f"port {port} of {host} is in use: stop what listens there, or give another one as --port"
            ) from None
        raise PortError(f"cannot listen on {host}:{port}: {problem.strerror}") from None
    return holder


def url(host: str, port: int) -> str:
    """Return the address to reach a listening host at, from this machine."""
    reachable = {"0.0.0.0": "127.0.0.1", "::": "[::1]"}.get(host, f"[{host}]" if ":" in host else host)
    return f"http://{reachable}:{port}"
