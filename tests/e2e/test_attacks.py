"""Good clients while others attack: each of their beacons is taken; how long that takes is measured, with and without.

Part of `make faults`. `VIEWMETER_TEST_ATTACK_S` sets how long each attack goes on (default 5);
`VIEWMETER_TEST_ATTACKS_JSON` names a file for the summary, which is printed too.
"""

from __future__ import annotations

import json
import multiprocessing
import os
import statistics
import time
from collections import Counter
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest
from attacking import ATTACKS, Attack
from raw_http import beacon
from running import Product, StartProduct, children
from test_hostile_clients import many_files  # noqa: F401 - a fixture

SECONDS = float(os.environ.get("VIEWMETER_TEST_ATTACK_S", "5"))
SUMMARY = os.environ.get("VIEWMETER_TEST_ATTACKS_JSON", "")
BETWEEN_S = 0.005
LEAST = 100  # beacons, so that a p99 is one


@pytest.mark.skipif(not os.environ.get("VIEWMETER_TEST_EVERY_FAULT"), reason="`make faults` has it")
@pytest.mark.usefixtures("many_files")
def test_good_clients_are_served_during_each_attack(start_product: StartProduct) -> None:
    product = start_product("--workers", "1")
    good_beacons(product, 1)  # what is slow at first only
    summary = {"nobody attacks": good_beacons(product, SECONDS)}
    for name, attack in ATTACKS.items():
        summary[name] = attacked(product, attack)
    summary["nobody attacks any more"] = good_beacons(product, SECONDS)
    text = json.dumps(summary, indent=2)
    print(text)
    if SUMMARY:
        Path(SUMMARY).parent.mkdir(parents=True, exist_ok=True)
        Path(SUMMARY).write_text(text + "\n")
    refused = {name: found["statuses"] for name, found in summary.items() if set(found["statuses"]) != {204}}
    assert not refused, refused


def attacked(product: Product, attack: Attack) -> dict[str, Any]:
    """Measure good clients while the attack goes on."""
    context = multiprocessing.get_context("spawn")
    begun, ended = context.Event(), context.Event()
    attacker = context.Process(target=attack, args=(product.base_url, product.ingest_key, begun, ended), daemon=True)
    attacker.start()
    try:
        assert begun.wait(120), "the attack did not begin"
        found = good_beacons(product, SECONDS)
        assert attacker.is_alive(), "the attacker gave up: nothing was proven"
    finally:
        ended.set()
        attacker.join(30)
        attacker.kill()
    return found


def good_beacons(product: Product, seconds: float) -> dict[str, Any]:
    """Send one beacon after the other on one connection; return what was answered and how long it took."""
    took_ms: list[float] = []
    statuses: Counter[int] = Counter()
    worker = psutil.Process(children(product)["worker"].pid)
    cpu_s = sum(worker.cpu_times()[:2])
    begun = time.monotonic()
    with httpx.Client(base_url=product.base_url, timeout=60) as client:
        while time.monotonic() - begun < seconds or len(took_ms) < LEAST:
            asked = time.perf_counter()
            body = beacon("good", len(took_ms))
            answer = client.post("/api/v1/events/beacon", params={"key": product.ingest_key}, content=body)
            took_ms.append((time.perf_counter() - asked) * 1_000)
            statuses[answer.status_code] += 1
            time.sleep(BETWEEN_S)
    cuts = statistics.quantiles(took_ms, n=100)
    return {
        "beacons": len(took_ms),
        "statuses": dict(statuses),
        "p50_ms": round(cuts[49], 2),
        "p99_ms": round(cuts[98], 2),
        "worker_cpu": round((sum(worker.cpu_times()[:2]) - cpu_s) / (time.monotonic() - begun), 3),
        "worker_rss_mib": worker.memory_info().rss >> 20,
    }
