"""How long a beacon waits for its acknowledgement at a given rate.

In: a port, beacons a second. Out: percentiles. Method: an open loop. Each beacon is due at an instant of its own, and
its wait counts from then on, also while no connection is free: a server that stalls is charged for every beacon that
came meanwhile, not for the one that it stalled on.
"""

from __future__ import annotations

import asyncio
import subprocess
import sys
import time
from collections import deque
from typing import Final, NamedTuple

from viewmeter.bench.figures import percentile

_TICK_S: Final = 0.001
_MAX_WAITING: Final = 100_000
"""Beacons that are due and not sent; with more the rate is beyond the server, and they count as refused."""


class Acks(NamedTuple):
    """What was seen: answers a second, percentiles of the wait, and beacons that were not acknowledged."""

    per_second: float
    p50_ms: float
    p99_ms: float
    refused: int


def measure(port: int, per_second: float, seconds: float, seed: int) -> Acks:
    """Run the generator as a process of its own."""
    command = [sys.executable, "-m", "viewmeter.bench.ingest_rate", str(port), str(per_second), str(seconds), str(seed)]
    output = subprocess.run(command, capture_output=True, text=True, check=True, timeout=seconds + 60)
    answered, p50_ms, p99_ms, refused = output.stdout.split()
    return Acks(float(answered), float(p50_ms), float(p99_ms), int(refused))


class _Sender:
    """Sends what is due over connections that are free, the longest free one first."""

    def __init__(self, requests: list[bytes]) -> None:
        self.requests = requests
        self.free: deque[_Connection] = deque()
        self.due: deque[float] = deque()
        self.waits: list[float] = []
        self.refused = self.sent = 0

    def send(self) -> None:
        """Send as many as are due and have a connection."""
        while self.due and self.free:
            connection = self.free.popleft()
            connection.due_at = self.due.popleft()
            connection.transport.write(self.requests[self.sent % len(self.requests)])
            self.sent += 1


class _Connection(asyncio.Protocol):
    transport: asyncio.Transport
    due_at = 0.0

    def __init__(self, sender: _Sender) -> None:
        self._sender = sender

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport  # type: ignore[assignment]
        self._sender.free.append(self)

    def data_received(self, data: bytes) -> None:
        """Take the answer; each fits one segment."""
        sender = self._sender
        if data.startswith(b"HTTP/1.1 204"):
            sender.waits.append(time.perf_counter() - self.due_at)
        else:
            sender.refused += 1
        sender.free.append(self)
        sender.send()


async def _send_at(port: int, per_second: float, seconds: float, seed: int) -> Acks:
    from viewmeter.bench.ingest import CONNECTIONS, requests

    sender = _Sender(requests(seed))
    loop = asyncio.get_running_loop()
    for _ in range(CONNECTIONS):
        await loop.create_connection(lambda: _Connection(sender), "127.0.0.1", port)
    started = time.perf_counter()
    planned = 0
    while (now := time.perf_counter()) < started + seconds:
        while planned / per_second <= now - started and len(sender.due) < _MAX_WAITING:
            sender.due.append(started + planned / per_second)
            planned += 1
        sender.send()
        await asyncio.sleep(_TICK_S)
    deadline = time.perf_counter() + 10
    while len(sender.waits) + sender.refused < planned and time.perf_counter() < deadline:
        await asyncio.sleep(_TICK_S)
    unanswered = planned - len(sender.waits)
    waits = sender.waits or [float("inf")]
    middle, late = (percentile(waits, share) * 1000 for share in (0.5, 0.99))
    return Acks(len(sender.waits) / seconds, middle, late, unanswered)


if __name__ == "__main__":
    import uvloop

    acks = uvloop.run(_send_at(int(sys.argv[1]), float(sys.argv[2]), float(sys.argv[3]), int(sys.argv[4])))
    sys.stdout.write(" ".join(map(str, acks)) + "\n")
