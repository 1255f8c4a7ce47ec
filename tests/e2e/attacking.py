"""Attackers, each for a process of its own, so that they do not share an interpreter with those who measure.

In: the address, an ingest key, an event that says when to stop. Out: nothing; what the server answers is read and
thrown away, and a connection that it closes is opened anew.
"""

from __future__ import annotations

import contextlib
import resource
import socket
from collections.abc import Callable
from multiprocessing.synchronize import Event
from urllib.parse import urlsplit

from test_hostile_clients import BOMBS, IDLE

SLOW_CLIENTS = 500
CHUNKING_CLIENTS = 8
CHUNKS_AT_ONCE = 200
Attack = Callable[[str, str, Event, Event], None]


class _Swarm:
    """So many connections; each has sent `first`."""

    def __init__(self, url: str, count: int, first: bytes) -> None:
        self.where, self.first = urlsplit(url), first
        self.clients = [self._connect() for _ in range(count)]

    def _connect(self) -> socket.socket | None:
        with contextlib.suppress(OSError):
            client = socket.create_connection((self.where.hostname or "", self.where.port or 0), timeout=5)
            client.sendall(self.first)
            client.setblocking(False)
            return client
        return None

    def send(self, data: bytes) -> None:
        """Send it on each connection, as far as the server takes it now."""
        for at, client in enumerate(self.clients):
            try:
                if client is None:
                    raise ConnectionResetError
                client.send(data)
                if client.recv(65_536) == b"":
                    raise ConnectionResetError
            except BlockingIOError:
                continue
            except OSError:
                if client is not None:
                    client.close()
                self.clients[at] = self._connect()


def slowloris(url: str, key: str, begun: Event, ended: Event) -> None:
    """Headers that never end, a byte each 50 ms."""
    swarm = _Swarm(url, SLOW_CLIENTS, f"POST /api/v1/events/beacon?key={key} HTTP/1.1\r\nHost: a\r\nX: ".encode())
    begun.set()
    while not ended.wait(0.05):
        swarm.send(b"a")


def one_byte_chunks(url: str, key: str, begun: Event, ended: Event) -> None:
    """Bodies in chunks of one byte, as fast as the server reads them."""
    head = f"POST /api/v1/events/beacon?key={key} HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n".encode()
    swarm = _Swarm(url, CHUNKING_CLIENTS, head)
    begun.set()
    while not ended.wait(0.001):
        swarm.send(b"1\r\n \r\n" * CHUNKS_AT_ONCE)


def bombs(url: str, key: str, begun: Event, ended: Event) -> None:
    """Compressed bodies that grow a thousand times and more, one after the other."""
    where = urlsplit(url)
    begun.set()
    while not ended.is_set():
        for encoding, body, _ in BOMBS.values():
            head = (
                f"POST /api/v1/events/beacon?key={key} HTTP/1.1\r\nHost: a\r\nConnection: close\r\n"
                f"Content-Encoding: {encoding}\r\nContent-Length: {len(body)}\r\n\r\n"
            )
            with (
                contextlib.suppress(OSError),
                socket.create_connection((where.hostname or "", where.port or 0), timeout=5) as client,
            ):
                client.sendall(head.encode() + body)
                while client.recv(65_536):
                    pass


def idle(url: str, key: str, begun: Event, ended: Event) -> None:
    """Connections that say nothing."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    swarm = _Swarm(url, IDLE, b"")
    begun.set()
    ended.wait()
    del swarm


ATTACKS: dict[str, Attack] = {
    "slowloris": slowloris,
    "one-byte chunks": one_byte_chunks,
    "gzip and zstd bombs": bombs,
    "10,000 idle connections": idle,
}
