"""kill -9 of everything, again and again, under load: every acknowledged event counts exactly once.

Before the whole group goes, the engine or one collector may go alone, while the others keep working; after it, the
recovery itself may be killed. `VIEWMETER_TEST_KILLS` sets how often (default 6; `make faults` 200),
`VIEWMETER_TEST_SEED` when and what.
"""

from __future__ import annotations

import contextlib
import os
import random
import time
from collections import Counter
from collections.abc import Callable

import psutil
import pytest
from load import Load
from running import Product, StartProduct, children, wait_until

KILLS = int(os.environ.get("VIEWMETER_TEST_KILLS", "6"))
LOTS = 4 if KILLS > 20 else 2  # each on a folder of its own, so that several processors share the work
CHECKED_AGAIN = 5
BEACONS_MAX = 150
FIRST = {"nothing": 0.6, "engine": 0.2, "worker": 0.2}  # what is killed alone, before everything is
KILLED_WHILE_STARTING = 0.2


@pytest.mark.parametrize("lot", range(LOTS))
def test_kill_9_at_any_moment_loses_nothing_and_counts_nothing_twice(
    lot: int, start_product: StartProduct, record_property: Callable[[str, object], None]
) -> None:
    seed = int(os.environ.get("VIEWMETER_TEST_SEED", time.time_ns() % 1_000_000))
    print(f"VIEWMETER_TEST_SEED={seed}")
    dice = random.Random(seed * LOTS + lot)
    kills = len(range(lot, KILLS, LOTS))
    product = start_product("--workers", "2")
    loads: list[Load] = []
    killed: Counter[str] = Counter()
    for cycle in range(kills):
        load = Load(product, f"kill-{cycle}").start()
        try:
            wait_for_beacons(load, dice.randrange(1, BEACONS_MAX))
            (first,) = dice.choices([*FIRST], [*FIRST.values()])
            if first != "nothing":
                kill_one(product, first)
                wait_for_beacons(load, dice.randrange(1, BEACONS_MAX))
            product.kill()
        finally:
            load.stop()
        killed.update(("group", first))
        if dice.random() < KILLED_WHILE_STARTING:
            kill_while_starting(product, dice)
            killed["recovery"] += 1
        product.restart()
        product.flush()
        load.send_again()
        product.flush()
        load.check()
        loads.append(load)
    # What was right after its own crash must have stayed right through the later ones.
    for load in dice.sample(loads, min(CHECKED_AGAIN, len(loads))):
        load.check()
    acknowledged = sum(len(load.acknowledged) for load in loads)
    repeated = sum(load.repeated for load in loads)
    print(f"killed {dict(killed)}; {acknowledged} beacons acknowledged, all counted once; {repeated} events sent twice")
    record_property("kills", dict(killed))
    record_property("acknowledged_beacons", acknowledged)
    assert killed["group"] == kills
    assert acknowledged >= kills


def wait_for_beacons(load: Load, more: int) -> None:
    """Wait until so many more beacons were acknowledged; without any, say what the answers were instead."""
    wanted = len(load.acknowledged) + more
    with load.explained():
        wait_until(f"{wanted} acknowledged beacons", lambda: len(load.acknowledged) >= wanted)


def kill_one(product: Product, module: str) -> None:
    """Kill the engine, or one collector, and nothing else; it is started again while beacons keep coming."""
    found = children(product).get(module)
    if found is not None:
        with contextlib.suppress(psutil.NoSuchProcess):
            found.kill()


def kill_while_starting(product: Product, dice: random.Random) -> None:
    """Kill the recovery itself, at one of its steps."""
    run = product.data / "run"
    mark = run / dice.choice(("url", "engine.sock"))
    mark.unlink(missing_ok=True)
    product.start_again()
    wait_until(f"{mark.name} of the starting product", mark.exists)
    product.kill()
