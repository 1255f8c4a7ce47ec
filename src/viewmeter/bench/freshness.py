"""How old is what the realtime answer shows: from the 204 of an event to the answer that counts it, under load.

The load (20 K events/s from another process) shares the machine with the product. Each probe sends one play of a video
of its own and asks for that video until it counts. Bar: 1.5 s at the 99th percentile; the baseline of the same run is
the same probe without any load.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
import time
from typing import Any, Final

import aiohttp

from viewmeter.bench.figures import percentile
from viewmeter.bench.product import Product, running

EVENTS_PER_S: Final = 20_000
BAR_MS: Final = 1_500.0
PROBES_AT_ONCE: Final = 8
ASK_EVERY_S: Final = 0.05
GIVE_UP_S: Final = 20.0
WARM_UP_S: Final = 3.0


def run(seconds: float = 15.0, events_per_s: float = EVENTS_PER_S) -> dict[str, Any]:
    """Return percentiles of the freshness with and without load, and what the machine did meanwhile."""
    with running(workers=1) as product:
        quiet = asyncio.run(_probe_for(product, min(seconds / 3, 5.0), "quiet"))
        before, begun = product.cpu_seconds(), time.monotonic()
        loaded, traffic = asyncio.run(_under_load(product, seconds, events_per_s))
        after, took_s = product.cpu_seconds(), time.monotonic() - begun
    p99 = percentile(loaded, 0.99)
    return {
        "p50_ms": percentile(loaded, 0.5),
        "p99_ms": p99,
        "max_ms": max(loaded),
        "probes": len(loaded),
        "bar_ms": BAR_MS,
        "ratio_to_bar": p99 / BAR_MS,
        "without_load_p50_ms": percentile(quiet, 0.5),
        "without_load_p99_ms": percentile(quiet, 0.99),
        "asked_events_per_s": events_per_s,
        "traffic": traffic,
        "cores_used": {role: (after[role] - before.get(role, 0.0)) / took_s for role in after},
        "machine_cores": os.cpu_count(),
    }


async def _under_load(product: Product, seconds: float, events_per_s: float) -> tuple[list[float], dict[str, Any]]:
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "viewmeter.bench.traffic", product.url, product.ingest_key),
        *(str(events_per_s), str(seconds + WARM_UP_S)),
        stdout=asyncio.subprocess.PIPE,
    )
    await asyncio.sleep(WARM_UP_S)  # until the rate is steady
    found = await _probe_for(product, seconds, "loaded")
    output, _ = await process.communicate()
    return found, json.loads(output)


async def _probe_for(product: Product, seconds: float, name: str) -> list[float]:
    ages: list[float] = []
    until = time.monotonic() + seconds

    async def lane(number: int, session: aiohttp.ClientSession) -> None:
        turn = 0
        while time.monotonic() < until:
            ages.append(await _age_ms(session, product, f"probe-{name}-{number}-{turn}"))
            turn += 1

    async with aiohttp.ClientSession(product.url) as session, asyncio.TaskGroup() as group:
        for number in range(PROBES_AT_ONCE):
            group.create_task(lane(number, session))
    return ages


async def _age_ms(session: aiohttp.ClientSession, product: Product, video: str) -> float:
    """Return ms from the acknowledgement of a play to the first answer that counts it."""
    event = {
        "type": "play", "ts": time.time_ns() // 1_000_000, "view_id": video, "seq": 0, "video_id": video,
        "channel_id": "probe",
    }  # fmt: skip
    async with session.post("/api/v1/events/beacon", params={"key": product.ingest_key}, json=[event]) as answer:
        if answer.status != 204:
            raise RuntimeError(f"the probe was answered {answer.status}: {await answer.text()}")
    acknowledged = time.monotonic()
    headers = {"Authorization": f"Bearer {product.secret_key}"}
    while time.monotonic() < acknowledged + GIVE_UP_S:
        async with session.get(f"/api/v1/analytics/realtime/{video}", headers=headers) as answer:
            figures = await answer.json()
        if figures["plays_last_5m"] >= 1 and figures["concurrent_viewers"] >= 1:
            return (time.monotonic() - acknowledged) * 1000
        await asyncio.sleep(ASK_EVERY_S)
    raise RuntimeError(f"an acknowledged play is not in the realtime answer after {GIVE_UP_S:g} s")
