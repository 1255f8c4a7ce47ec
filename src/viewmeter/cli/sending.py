"""Simulated beacons over HTTP: in real time, faster, or as fast as the server takes them.

In: `SentBeacon`s in the order of arrival. Out: `Sent`. Promised: beacons of one view keep their order, also on the
way: each lane is one connection, so one collector worker and one log partition; memory and connections are bounded; a
refusal for the moment (429, 503, no connection) is retried with backoff. The address of a simulated viewer goes into
X-Forwarded-For, which a server believes only from its trusted proxies.
"""

from __future__ import annotations

import asyncio
import time
import zlib
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Final

import aiohttp
import msgspec

from viewmeter.cli.output import CommandError
from viewmeter.testing.beacons import SentBeacon

LANES: Final = 32
QUEUED_A_LANE: Final = 64
TIMEOUT_S: Final = 30.0
ATTEMPTS: Final = 12
ATTEMPTS_UNHEARD: Final = 5
"""Attempts (3 s) before an address that never answered anything is given up: it is wrong, or the product is down."""
MAX_PAUSE_S: Final = 5.0
RETRIED: Final = frozenset((429, 503))


@dataclass
class Sent:
    """What came of it. `statuses` counts the last answer of each beacon."""

    beacons: int = 0
    events: int = 0
    retries: int = 0
    unanswered: int = 0
    heard: bool = False  # whether anybody has answered yet
    statuses: Counter[int] = field(default_factory=Counter)
    first_problem: str = ""

    @property
    def ok(self) -> bool:
        """Whether every beacon was taken."""
        return not self.unanswered and all(status in (200, 204) for status in self.statuses)


async def send(
    beacons: Iterable[SentBeacon],
    *,
    to: str,
    key: str,
    due: Callable[[int], float] | None,
    lanes: int = LANES,
    progress: Callable[[Sent], None] | None = None,
) -> Sent:
    """Post every beacon. `due` maps its time to the `time.monotonic` it is due at; None = at once."""
    sent = Sent()
    queues: list[asyncio.Queue[SentBeacon | None]] = [asyncio.Queue(QUEUED_A_LANE) for _ in range(lanes)]
    async with asyncio.TaskGroup() as group:
        for queue in queues:
            group.create_task(_lane(queue, f"{to.rstrip('/')}/api/v1/events/beacon", key, sent))
        for number, beacon in enumerate(beacons):
            if due is not None and (wait_s := due(beacon.send_at_ms) - time.monotonic()) > 0:
                await asyncio.sleep(wait_s)
            # By viewer rather than by view: a viewer's views follow each other.
            await queues[zlib.crc32(beacon.plan.viewer_id.encode()) % lanes].put(beacon)
            if progress is not None and number % 100 == 0:
                progress(sent)
        for queue in queues:
            await queue.put(None)
    return sent


async def _lane(queue: asyncio.Queue[SentBeacon | None], url: str, key: str, sent: Sent) -> None:
    async with aiohttp.ClientSession(
        connector=aiohttp.TCPConnector(limit=1), timeout=aiohttp.ClientTimeout(total=TIMEOUT_S)
    ) as session:
        while (beacon := await queue.get()) is not None:
            await _post(session, beacon, url, key, sent)


async def _post(session: aiohttp.ClientSession, beacon: SentBeacon, url: str, key: str, sent: Sent) -> None:
    body = msgspec.json.encode(beacon.events)
    headers = {
        "Content-Type": "application/json",
        "User-Agent": beacon.user_agent,
        "X-Forwarded-For": beacon.ip,
    }
    status, pause_s = 0, 0.1
    for attempt in range(ATTEMPTS):
        clock_ms = time.time_ns() // 1_000_000 + beacon.skew_ms
        try:
            async with session.post(url, params={"key": key, "t": str(clock_ms)}, data=body, headers=headers) as answer:
                status = answer.status
                sent.heard = True
                if status not in RETRIED:
                    if status not in (200, 204) and not sent.first_problem:
                        sent.first_problem = f"{status}: {(await answer.text())[:500]}"
                    break
        except (aiohttp.ClientError, TimeoutError) as failure:
            status = 0
            if not sent.first_problem:
                sent.first_problem = f"{type(failure).__name__}: {failure}"
            if attempt + 1 >= ATTEMPTS_UNHEARD and not sent.heard:
                reason = getattr(failure, "strerror", None) or type(failure).__name__
                raise CommandError(f"nobody answers at {url} ({reason}): start the product, or mend --to") from None
        if attempt + 1 < ATTEMPTS:
            sent.retries += 1
            await asyncio.sleep(pause_s)
            pause_s = min(pause_s * 2, MAX_PAUSE_S)
    sent.beacons += 1
    sent.events += len(beacon.events)
    if status:
        sent.statuses[status] += 1
    else:
        sent.unanswered += 1
    if status in (401, 403):
        raise CommandError(f"the server refuses the key ({sent.first_problem}): give an ingest key (pk_…) as --key")
