"""The demo's live viewers: a crowd without end, and an incident that comes back.

In: a `Crowd` as a line on stdin. Out: beacons to the product of that folder, until stdin ends, which is when the
product has ended. A minute after the start, and every ten minutes from then on, the viewers of one country and one
delivery network stall for two minutes.
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import itertools
import os
import shutil
import signal
import sys
import time
import webbrowser
from collections.abc import AsyncIterator, Coroutine, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import aiohttp
import msgspec

from viewmeter.cli.output import say
from viewmeter.cli.sending import send
from viewmeter.supervisor import lock
from viewmeter.testing import beacons, simulator
from viewmeter.testing.simulator import Phase, Plan
from viewmeter.testing.world import CDNS, COUNTRIES

POLL_S: Final = 0.2
READY_WITHIN_S: Final = 120.0

WAVE_MINUTES: Final = 4.0
"""Viewers come in waves that overlap by half, so that the crowd neither grows nor ends."""
BEFORE_MINUTES: Final = 6.0
"""What was sent in the minutes before the start is sent at once, so that the first look finds a full house."""
INCIDENT_FIRST_S: Final = 60.0
INCIDENT_EVERY_S: Final = 600.0
INCIDENT_MINUTES: Final = 2.0
CALM_MS: Final = 10_000
STALL_MS: Final = (2_000, 6_000)
INCIDENT_COUNTRY: Final = "BR"


@dataclass(frozen=True)
class Crowd:
    """What the viewers' process is told."""

    data: str
    key: str
    signin_token: str
    viewers: int
    seed: int
    remove: bool  # the folder, at the end
    open_browser: bool


class Incident(simulator.Simulation):
    """Viewers of one country behind one delivery network that has gone bad."""

    def plans(self) -> Iterator[Plan]:
        """Yield the usual plans, moved to that country and network, where nobody watches ten seconds in peace."""
        country = next(place for place in COUNTRIES if place.code == INCIDENT_COUNTRY)
        for plan in super().plans():
            rng = self.rng("incident", plan.view_id)
            phases: list[Phase] = []
            for phase in plan.phases:
                left_ms = phase.length_ms
                while phase.kind == "play" and left_ms > CALM_MS:
                    phases.append(phase._replace(length_ms=CALM_MS))
                    phases.append(Phase("stall", rng.randrange(*STALL_MS), phase.bitrate_kbps))
                    left_ms -= CALM_MS
                phases.append(phase._replace(length_ms=left_ms))
            address = f"{rng.choice(country.networks)}.{rng.randrange(1, 255)}"
            yield dataclasses.replace(plan, country=country, address=address, cdn=CDNS[0][0], phases=tuple(phases))


def main() -> None:
    """Follow the product from its start to its end."""
    for number in (signal.SIGINT, signal.SIGTERM):  # the end comes by the pipe, after the product's own
        signal.signal(number, signal.SIG_IGN)
    crowd = msgspec.json.decode(sys.stdin.buffer.readline(), type=Crowd)
    with contextlib.suppress(Exception):  # nothing that goes wrong here may look like the product's fault
        asyncio.run(_until_stdin_ends(_watch(crowd)))
    if crowd.remove:
        deadline = time.monotonic() + READY_WITHIN_S
        while lock.running(Path(crowd.data)) is not None and time.monotonic() < deadline:
            time.sleep(POLL_S)
        shutil.rmtree(crowd.data, ignore_errors=True)


async def _until_stdin_ends(work: Coroutine[Any, Any, None]) -> None:
    loop = asyncio.get_running_loop()
    ended = loop.run_in_executor(None, _read_to_end)
    task = loop.create_task(work)
    await asyncio.wait((ended, task), return_when=asyncio.FIRST_COMPLETED)
    if not ended.done():
        await ended
    task.cancel()
    with contextlib.suppress(asyncio.CancelledError, Exception):
        await task


def _read_to_end() -> None:
    while os.read(0, 4096):
        pass


async def _watch(crowd: Crowd) -> None:
    url = await _ready(Path(crowd.data))
    link = f"{url}/signin?token={crowd.signin_token}"
    say(f"dashboard   {link}   (works once)")
    if crowd.open_browser and (
        os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY") or sys.platform == "darwin"
    ):
        webbrowser.open(link)
    async with asyncio.TaskGroup() as group:
        group.create_task(_forever(crowd, url, group))
        group.create_task(_incidents(crowd, url))


async def _ready(data: Path) -> str:
    async with (
        aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=5)) as session,
        asyncio.timeout(READY_WITHIN_S),
    ):
        while True:
            with contextlib.suppress(OSError, aiohttp.ClientError, TimeoutError):
                url = (data / "run" / "url").read_text().strip()
                async with session.get(f"{url}/readyz") as answer:
                    if answer.status == 200:
                        return url
            await asyncio.sleep(POLL_S)


async def _forever(crowd: Crowd, url: str, group: asyncio.TaskGroup) -> None:
    half_s = WAVE_MINUTES * 60 / 2
    async for number in _every(half_s, begun=time.monotonic() - BEFORE_MINUTES * 60):
        ago_ms = max(0, round((BEFORE_MINUTES * 60 - number * half_s) * 1000))
        simulation = simulator.Simulation(_wave(crowd, number, crowd.viewers, WAVE_MINUTES, ago_ms))
        group.create_task(_send(simulation, url, crowd.key))


async def _incidents(crowd: Crowd, url: str) -> None:
    await asyncio.sleep(INCIDENT_FIRST_S)
    async for number in _every(INCIDENT_EVERY_S):
        setting = _wave(crowd, 1_000_000 + number, max(10, crowd.viewers // 2), INCIDENT_MINUTES)
        await _send(Incident(setting), url, crowd.key)


def _wave(crowd: Crowd, number: int, viewers: int, minutes: float, ago_ms: int = 0) -> simulator.Settings:
    return simulator.Settings(
        seed=crowd.seed * 10_000_000 + number,
        start_ms=time.time_ns() // 1_000_000 - ago_ms,
        viewers=viewers,
        minutes=minutes,
        videos=24,
        loss=0.0005,
        duplicate=0.002,
        disorder_ms=200,
    )


async def _every(seconds: float, begun: float | None = None) -> AsyncIterator[int]:
    begun = time.monotonic() if begun is None else begun
    for number in itertools.count():
        await asyncio.sleep(max(0.0, begun + number * seconds - time.monotonic()))
        yield number


async def _send(simulation: simulator.Simulation, url: str, key: str) -> None:
    start_ms = simulation.settings.start_ms
    begun = time.monotonic() - (time.time_ns() // 1_000_000 - start_ms) / 1000
    await send(
        beacons.beacons(simulation),
        to=url,
        key=key,
        due=lambda at_ms: begun + (at_ms - start_ms) / 1000,
        lanes=8,
    )


if __name__ == "__main__":
    main()
