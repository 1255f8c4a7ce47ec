"""How many events a collector worker makes durable per second of one core, against the server's own ceiling.

In: nothing but time. Out: a dict of figures. Method: the real application on the real server, as a process; a load
generator, as another process, sends beacons of 10 events of 500 bytes over kept-alive connections and counts 204s.
Both share the machine, so the figure is events per CPU second *of the server* (user and system), which
the generator cannot spoil. The ceiling is measured in the same run, with the same load, on the same server: a
handler that reads the body and answers 204. Then the time to an acknowledgement is taken at 70 % of what was reached,
beacons being due at fixed instants whether or not earlier ones were answered; the ceiling's at the same rate. All of it
in short turns, of which the median counts: what else a machine does comes and goes, and falls on some of them.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
import socket
import statistics
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final, NamedTuple

import msgspec

from viewmeter.bench import ingest_nginx, ingest_rate
from viewmeter.bench.figures import cpu_seconds
from viewmeter.collector.decoder import decoder

EVENTS_PER_BEACON: Final = 10
BYTES_PER_EVENT: Final = 500
CONNECTIONS: Final = 256
RATIO_WANTED: Final = 0.42
EVENTS_WANTED: Final = 85_000
ACK_P99_WANTED_MS: Final = 20.0
COLLECTOR: Final = "collector"
CEILING: Final = "ceiling"
LOAD: Final = 0.7
"""The share of the measured capacity at which acknowledgements are timed."""
_BODIES: Final = 512
_TURNS: Final = 9
_AGENTS: Final = (
    "Mozilla/5.0 (Windows NT 10.0; Win64; x64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/131.0 Safari/537.36",
    "Mozilla/5.0 (iPhone; CPU iPhone OS 18_1 like Mac OS X) AppleWebKit/605.1.15 Version/18.1 Mobile Safari/604.1",
    "Mozilla/5.0 (SMART-TV; Linux; Tizen 7.0) AppleWebKit/537.36 (KHTML, like Gecko) Version/7.0 TV Safari/537.36",
)


class Load(NamedTuple):
    """What the generator saw, and what it cost the server."""

    beacons: int
    refused: int
    wall_s: float
    server_cpu_s: float

    @property
    def events_per_cpu_s(self) -> float:
        """Acknowledged events per CPU second of the server."""
        return self.beacons * EVENTS_PER_BEACON / self.server_cpu_s if self.server_cpu_s else 0.0


def bodies(seed: int, now_ms: int, count: int = _BODIES) -> list[bytes]:
    """Return beacons, each of one view of its own: UUIDs as ids, fractions as browsers send them, 500 bytes an event.

    What the fields leave of 5,000 bytes is the player's name, so that nothing is padding that a decoder may skip.
    """
    rng = random.Random(seed)
    videos = [str(uuid.UUID(int=rng.getrandbits(128))) for _ in range(20_000)]
    channels = [str(uuid.UUID(int=rng.getrandbits(128))) for _ in range(500)]
    made = []
    for _ in range(count):
        view, viewer = (str(uuid.UUID(int=rng.getrandbits(128))) for _ in range(2))
        number = rng.randrange(len(videos))
        start = now_ms - 300_000
        cdn = rng.choice(("edge-a.example.net", "edge-b.example.net"))
        events = [
            {
                "type": "play" if seq == 0 else "heartbeat",
                "ts": start + seq * 30_000 + rng.random(),
                "view_id": view,
                "seq": seq,
                "video_id": videos[number],
                "channel_id": channels[number % len(channels)],
                "viewer_id": viewer,
                "position_ms": seq * 30_000 + rng.random(),
                "duration_ms": 1_800_000,
                "played_ms": seq * 30_000,
                "rebuffered_ms": seq * 10,
                "rebuffer_count": seq // 4,
                "bitrate_kbps": rng.choice((800, 1500, 3000, 6000)),
                "playback_rate": 1,
                "cdn": cdn,
                "stream_type": "vod",
                "player": "viewmeter-sdk/1.0.0 ",
            }
            for seq in range(EVENTS_PER_BEACON)
        ]
        missing = EVENTS_PER_BEACON * BYTES_PER_EVENT - len(msgspec.json.encode(events))
        for event in events:
            event["player"] = str(event["player"]).ljust(20 + missing // EVENTS_PER_BEACON, "+")
        made.append(msgspec.json.encode(events))
    return made


def run(seconds: float = 5.0, seed: int = 1, against: str | None = None) -> dict[str, Any]:
    """Measure, and return the figures. Takes some five times `seconds`. against: "nginx", or None."""
    with tempfile.TemporaryDirectory(prefix="viewmeter-bench-") as folder, contextlib.ExitStack() as running:
        data = Path(folder)
        servers = {
            COLLECTOR: running.enter_context(served(data / "a", ())),
            CEILING: running.enter_context(served(data / "b", ("--ceiling",))),
        }
        if against is not None:
            servers[against] = running.enter_context(ingest_nginx.served(data / "c", free_port()))
        for name, (port, _) in servers.items():  # imports, caches, the first file: not what is measured
            _generate(port, min(1.0, seconds / 4), seed, files=name == against)
        turns = [
            {name: _measure(server, seconds / _TURNS, seed, files=name == against) for name, server in servers.items()}
            for _ in range(_TURNS)
        ]
        collector = _total([turn[COLLECTOR] for turn in turns])
        rate = LOAD * collector.beacons / collector.wall_s
        acks = [
            {name: ingest_rate.measure(servers[name][0], rate, seconds / _TURNS, seed) for name in (COLLECTOR, CEILING)}
            for _ in range(_TURNS)
        ]
    return _figures(turns, acks, against, seed)


def _figures(
    turns: list[dict[str, Load]], acks: list[dict[str, ingest_rate.Acks]], against: str | None, seed: int
) -> dict[str, Any]:
    loads = {name: _total([turn[name] for turn in turns]) for name in turns[0]}
    collector, ceiling = loads[COLLECTOR], loads[CEILING]
    ratios = _ratios(turns, CEILING)
    ours, least = [turn[COLLECTOR] for turn in acks], [turn[CEILING] for turn in acks]
    figures: dict[str, Any] = {
        "name": "ingest",
        "decoder": decoder()[0],
        "events_per_cpu_second": round(collector.events_per_cpu_s),
        "ceiling_events_per_cpu_second": round(ceiling.events_per_cpu_s),
        "ratio_to_ceiling": round(statistics.median(ratios), 3),
        "ratios_of_turns": [round(ratio, 3) for ratio in sorted(ratios)],
        "baseline": "the same server reading the body and answering 204",
        "events_per_wall_second": round(collector.beacons * EVENTS_PER_BEACON / collector.wall_s),
        "acknowledged_events": collector.beacons * EVENTS_PER_BEACON,
        "refused_beacons": collector.refused,
        "load_of_acks": LOAD,
        "beacons_per_second_of_acks": round(statistics.mean(one.per_second for one in ours)),
        "ack_p50_ms": round(statistics.median(one.p50_ms for one in ours), 1),
        "ack_p99_ms": round(statistics.median(one.p99_ms for one in ours), 1),
        "ack_p99_ms_of_turns": [round(one.p99_ms, 1) for one in sorted(ours, key=lambda one: one.p99_ms)],
        "ceiling_ack_p99_ms": round(statistics.median(one.p99_ms for one in least), 1),
        "events_per_beacon": EVENTS_PER_BEACON,
        "bytes_per_event": BYTES_PER_EVENT,
        "connections": CONNECTIONS,
        "seed": seed,
    }
    if against is not None:
        other = loads[against]
        figures[f"{against}_events_per_cpu_second"] = round(other.events_per_cpu_s)
        figures[f"ratio_to_{against}"] = round(statistics.median(_ratios(turns, against)), 3)
        figures[f"{against}_does"] = ingest_nginx.DOES
    figures["passed"] = (
        figures["events_per_cpu_second"] >= EVENTS_WANTED
        and figures["ratio_to_ceiling"] >= RATIO_WANTED
        and figures["ack_p99_ms"] < ACK_P99_WANTED_MS
        and collector.refused + sum(one.refused for one in ours) == 0
    )
    return figures


def _ratios(turns: list[dict[str, Load]], other: str) -> list[float]:
    """Return the collector's events per CPU second by those of another, of each turn."""
    return [turn[COLLECTOR].events_per_cpu_s / turn[other].events_per_cpu_s for turn in turns]


def _measure(server: tuple[int, int], seconds: float, seed: int, *, files: bool = False) -> Load:
    port, pid = server
    cpu_before = cpu_seconds(pid)
    started = time.perf_counter()
    sent, refused = _generate(port, seconds, seed, files=files)
    return Load(sent, refused, time.perf_counter() - started, cpu_seconds(pid) - cpu_before)


def _total(loads: list[Load]) -> Load:
    beacons, refused, wall_s, cpu_s = (sum(column) for column in zip(*loads, strict=True))
    return Load(int(beacons), int(refused), wall_s, cpu_s)


@contextlib.contextmanager
def served(data: Path, options: tuple[str, ...]) -> Iterator[tuple[int, int]]:
    """Run the server on a free port; yield (port, process id); stop it in the end."""
    port = free_port()
    command = [sys.executable, "-m", "viewmeter.bench.ingest_server", str(data), str(port), *options]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            if not any(line.strip() == "listening" for line in process.stdout):  # log lines may come before
                raise RuntimeError("the server of the benchmark did not start; its error stands above")
            yield port, process.pid
        finally:
            process.terminate()
            process.wait(30)


def free_port() -> int:
    """Return a port of loopback that is free now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _generate(port: int, seconds: float, seed: int, *, files: bool = False) -> tuple[int, int]:
    """Run the generator as a process of its own; return (204s, others)."""
    command = [sys.executable, "-m", "viewmeter.bench.ingest", str(port), str(seconds), str(seed)]
    command += ["files"] if files else []
    output = subprocess.run(command, capture_output=True, text=True, check=True, timeout=seconds + 60)
    sent, refused = output.stdout.split()
    return int(sent), int(refused)


class _Connection(asyncio.Protocol):
    """One kept-alive connection: the next beacon goes out when the answer to the last one is in."""

    def __init__(self, requests: list[bytes], start: int, until: float, closed: asyncio.Event) -> None:
        self._requests = requests
        self._next = start
        self._until = until
        self._closed = closed
        self.sent = self.refused = 0
        self._transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Send the first beacon."""
        assert isinstance(transport, asyncio.Transport) or hasattr(transport, "write")
        self._transport = transport  # type: ignore[assignment]
        self._send()

    def data_received(self, data: bytes) -> None:
        """Count the answer (each fits one segment), send the next beacon."""
        if data.startswith(b"HTTP/1.1 204"):
            self.sent += 1
        else:
            self.refused += 1
        if time.perf_counter() < self._until:
            self._send()
        elif self._transport is not None:
            self._transport.close()

    def connection_lost(self, error: Exception | None) -> None:  # noqa: ARG002
        """Tell the generator that this one is done."""
        self._closed.set()

    def _send(self) -> None:
        assert self._transport is not None
        self._transport.write(self._requests[self._next % len(self._requests)])
        self._next += 1


def requests(seed: int, *, files: bool = False) -> list[bytes]:
    """Return whole requests. `files`: as PUT to an address each, for a server that writes each body to its file."""
    rng = random.Random(seed)
    now_ms = time.time_ns() // 1_000_000
    posted = f"POST /api/v1/events/beacon?key=pk_bench&t={now_ms}"
    return [
        (
            f"{f'PUT /{place}' if files else posted} HTTP/1.1\r\n"
            f"Host: 127.0.0.1\r\nUser-Agent: {rng.choice(_AGENTS)}\r\nContent-Type: application/json\r\n"
            f"Origin: https://example.org\r\nContent-Length: {len(body)}\r\n\r\n"
        ).encode()
        + body
        for place, body in enumerate(bodies(seed, now_ms))
    ]


async def _send_for(port: int, seconds: float, seed: int, files: bool) -> tuple[int, int]:
    sent = requests(seed, files=files)
    loop = asyncio.get_running_loop()
    until = time.perf_counter() + seconds
    connections = []
    for i in range(CONNECTIONS):
        closed = asyncio.Event()
        made = _Connection(sent, i * _BODIES // CONNECTIONS, until, closed)
        await loop.create_connection(lambda made=made: made, "127.0.0.1", port)  # type: ignore[misc]
        connections.append((made, closed))
    for _, closed in connections:
        await asyncio.wait_for(closed.wait(), seconds + 30)
    return sum(made.sent for made, _ in connections), sum(made.refused for made, _ in connections)


if __name__ == "__main__":
    import uvloop

    counts = uvloop.run(_send_for(int(sys.argv[1]), float(sys.argv[2]), int(sys.argv[3]), sys.argv[4:] == ["files"]))
    sys.stdout.write(f"{counts[0]} {counts[1]}\n")
