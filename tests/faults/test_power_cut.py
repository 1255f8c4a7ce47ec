"""Power cuts: what was not synced is thrown away, kept or torn, and every acknowledged event still counts once.

Load runs on a product whose writes are recorded; then the folder is made as it may be after a cut at several random
moments of that time, and the product starts on each. Half of the cuts hit the recovery itself. `VIEWMETER_TEST_CUTS`
sets how many (default 2; `make faults` 50), `VIEWMETER_TEST_SEED` when and how. A checkpoint of the store writes most
of the bytes of a journal, so many moments are inside one; they are counted.
"""

from __future__ import annotations

import os
import random
import shutil
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass

import pytest
from load import Load
from running import Product, wait_until
from watching import Starter, Watched, in_a_checkpoint

from viewmeter.testing.faults import CUTS, Cut, Disk
from viewmeter.testing.faults.disk import before

CUTS_ASKED = int(os.environ.get("VIEWMETER_TEST_CUTS", "2"))
LOTS = max(1, min(4, CUTS_ASKED // 2))  # so that several processors share the work
CUTS_A_LOAD = 10  # of which half hit the recovery
BEACONS = 400
MOST_SYNC_DELAY_S = 0.004


@pytest.mark.parametrize("lot", range(LOTS))
def test_a_power_cut_at_any_moment_loses_nothing_and_counts_nothing_twice(
    lot: int, watched: Starter, dice: random.Random, record_property: Callable[[str, object], None]
) -> None:
    wanted = len(range(lot, CUTS_ASKED, LOTS))
    tally: Counter[str] = Counter()
    while tally["cuts"] < wanted:
        rounds = min(CUTS_A_LOAD, wanted - tally["cuts"]) // 2 or 1
        loaded, load, from_position = run_load(watched, dice, f"cut-{tally['cuts']}")
        tally["acknowledged beacons"] += len(load.acknowledged)
        disk = Disk(loaded.shim.journal)
        for moment in moments(loaded, dice, rounds, from_position):
            cut_and_check(watched, dice, Moment(loaded, disk, moment), load, tally)
        shutil.rmtree(loaded.product.data.parent)
    print(f"power cuts: {dict(sorted(tally.items()))}, lost 0, twice 0")
    record_property("cuts", dict(tally))
    assert tally["cuts"] >= wanted
    assert tally["unsafe bytes"], "no cut took anything away: nothing was proven"


@dataclass(frozen=True)
class Moment:
    """A moment in the journal of a product that ran."""

    of: Watched
    disk: Disk
    position: int


def moments(of: Watched, dice: random.Random, wanted: int, first: int = 0) -> list[int]:
    """Draw moments of a journal, rising."""
    end = of.shim.position()
    return sorted(dice.randrange(first, end) for _ in range(wanted))


def run_load(watched: Starter, dice: random.Random, channel: str) -> tuple[Watched, Load, int]:
    """Run a product under load, then end it at once. Returns it, the load, and where in its journal the load began."""
    loaded = watched.new("--workers", "2")
    loaded.shim.slow_syncs(dice.random() * MOST_SYNC_DELAY_S)
    begun = loaded.shim.position()
    load = Load(loaded.product, channel, stamp=loaded.shim.position).start()
    try:
        with load.explained():
            wait_until("enough acknowledged beacons", lambda: len(load.acknowledged) >= BEACONS)
    finally:
        load.stop()
        loaded.product.kill()
    return loaded, load, begun


def cut_and_check(watched: Starter, dice: random.Random, moment: Moment, load: Load, tally: Counter[str]) -> None:
    """Cut, start, check; then cut the start and what followed, start again and check again."""
    first, load = cut(watched, dice, moment, load, tally)
    check(first, load)
    first.product.kill()
    ended = [first]
    for position in moments(first, dice, 1):
        second_moment = Moment(first, Disk(first.shim.journal, first.before), position)
        second, load = cut(watched, dice, second_moment, load, tally)
        check(second, load)
        second.product.kill()
        ended.append(second)
    for done in ended:
        shutil.rmtree(done.product.data.parent)


def cut(watched: Starter, dice: random.Random, moment: Moment, load: Load, tally: Counter[str]) -> tuple[Watched, Load]:
    """Start on what a cut leaves. Returns the product and the load as its clients knew it at that moment."""
    kind: Cut = dice.choice(CUTS)
    unsafe = moment.disk.unsafe_bytes(moment.position)
    tally["in a checkpoint"] += in_a_checkpoint(moment.disk, moment.position)
    left = watched.folder()
    moment.disk.cut(moment.position, kind, dice, left)
    print(f"cut {kind} at {moment.position} of {left.parent.name}: {unsafe} bytes were not safe")
    tally.update({"cuts": 1, kind: 1, "unsafe bytes": unsafe})
    started = watched.again(left, moment.of.product, before(left, left.parent / "before"))
    return started, as_known_at(load, started, moment)


def as_known_at(load: Load, started: Watched, moment: Moment) -> Load:
    """Return the load with what was acknowledged by then; the rest is uncertain."""
    acknowledged = {video for video, stamp in load.stamps.items() if stamp <= moment.position}
    sent = load.acknowledged | load.uncertain
    known = Load(started.product, load.channel, stamp=started.shim.position)
    known.acknowledged, known.uncertain = acknowledged, sent - acknowledged
    known.repeats_unsure = load.repeated
    # For a later cut of this run: these were acknowledged before it began.
    known.stamps = dict.fromkeys(acknowledged, 0)
    return known


def check(started: Watched, load: Load) -> None:
    """Check what is there, send again what was not acknowledged, and check that."""
    product: Product = started.product
    product.flush()
    load.check()
    load.send_again()
    product.flush()
    load.check()
