"""Processes that stand still, and clocks that jump: nothing is lost or counted twice, and the figures stay fresh.

`VIEWMETER_TEST_STOPPED_S` sets how long a process stands still (default 1; `make faults` 30).
"""

from __future__ import annotations

import os
import random
import signal
import time
from collections.abc import Callable

import pytest
from load import Load
from running import children, wait_until
from watching import EVERY, Starter

STOPPED_S = float(os.environ.get("VIEWMETER_TEST_STOPPED_S", "1"))
MORE = 60
HOUR_S = 3600
FRESH_WITHIN_S = 20.0  # generous: a busy machine; a figure that waits for the clock would take an hour


def more(load: Load, beacons: int = MORE) -> None:
    wanted = len(load.acknowledged) + beacons
    with load.explained():
        wait_until(f"{wanted} acknowledged beacons", lambda: len(load.acknowledged) >= wanted, 120)


def check(load: Load) -> None:
    load.product.flush()
    load.check()
    load.send_again()
    load.product.flush()
    load.check()


@pytest.mark.parametrize("module", ["engine", "worker"] if EVERY else ["engine"])
def test_a_process_that_stood_still_goes_on_where_it_was(
    watched: Starter, module: str, record_property: Callable[[str, object], None]
) -> None:
    started = watched.new("--workers", "2")
    load = Load(started.product, f"stopped-{module}").start()
    try:
        more(load)
        process = children(started.product)[module]
        process.send_signal(signal.SIGSTOP)
        try:
            before, until = len(load.acknowledged), time.monotonic() + STOPPED_S
            wait_until("the process to have stood still for a while", lambda: time.monotonic() > until, STOPPED_S + 10)
            if module == "engine":
                assert len(load.acknowledged) > before, "beacons are taken while the engine stands still"
        finally:
            process.send_signal(signal.SIGCONT)
        more(load)
    finally:
        load.stop()
    check(load)
    record_property("stood_still_s", STOPPED_S)
    record_property("acknowledged_beacons", len(load.acknowledged))
    print(f"{module} stood still for {STOPPED_S:g} s: {len(load.acknowledged)} acknowledged, all counted once")


@pytest.mark.parametrize("jumps", [(1,), (-1,), (1, 0), (-1, 0)] if EVERY else [(-1, 0)], ids=str)
def test_a_clock_that_jumps_an_hour_loses_and_doubles_nothing(
    watched: Starter, dice: random.Random, jumps: tuple[int, ...]
) -> None:
    started = watched.new("--workers", "2", quick=dice.random() < 0.5)
    load = Load(started.product, "jumps").start()
    load.period = {"start": (time.time_ns() // 1_000_000) - 86_400_000, "end": time.time_ns() // 1_000_000 + 86_400_000}
    try:
        more(load)
        for hours in jumps:
            started.shim.clock(hours * HOUR_S)
            more(load)
            seen = len(load.acknowledged)
            with load.explained():  # without a flush
                wait_until(
                    "the figures to follow the new clock", lambda n=seen: len(load.counted()) >= n, FRESH_WITHIN_S
                )
    finally:
        load.stop()
    check(load)
    started.product.kill()
    started.product.restart()
    check(load)
