"""kill -9 of everything, again and again, under load: every acknowledged event counts exactly once.

`VIEWMETER_TEST_KILLS` sets how often (default 30; `make faults` 300), `VIEWMETER_TEST_SEED` when.
"""

from __future__ import annotations

import os
import random
import time

from load import Load
from running import Product, StartProduct, wait_until

KILLS = int(os.environ.get("VIEWMETER_TEST_KILLS", "30"))
CHECKED_AGAIN = 10


def test_kill_9_at_any_moment_loses_nothing_and_counts_nothing_twice(start_product: StartProduct) -> None:
    seed = int(os.environ.get("VIEWMETER_TEST_SEED", time.time_ns() % 1_000_000))
    print(f"VIEWMETER_TEST_SEED={seed}")
    dice = random.Random(seed)
    product = start_product("--workers", "2")
    loads: list[Load] = []
    for cycle in range(KILLS):
        load = Load(product, f"kill-{cycle}").start()
        moment = dice.randrange(1, 200)
        wait_until(f"{moment} beacons", lambda load=load, moment=moment: len(load.acknowledged) >= moment)
        product.kill()
        load.stop()
        if dice.random() < 0.25:
            kill_while_starting(product, dice)
        product.restart()
        product.flush()
        load.check()
        loads.append(load)
    # What was right after its own crash must have stayed right through the later ones.
    for load in dice.sample(loads, min(CHECKED_AGAIN, len(loads))):
        load.check()
    acknowledged = sum(len(load.acknowledged) for load in loads)
    print(f"{KILLS} kills, {acknowledged} acknowledged beacons, all of them counted once")
    assert acknowledged >= KILLS


def kill_while_starting(product: Product, dice: random.Random) -> None:
    """Kill the recovery itself, at one of its steps."""
    run = product.data / "run"
    mark = run / dice.choice(("url", "engine.sock"))
    mark.unlink(missing_ok=True)
    product.start_again()
    wait_until(f"{mark.name} of the starting product", mark.exists)
    product.kill()
