"""The store's file alone, on disks that lose and fail: commits that returned are there, and it opens without help."""

from __future__ import annotations

import os
import random
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest
from watching import EVERY, in_a_checkpoint, shim_below

from viewmeter.olap.embedded import DuckDBStore
from viewmeter.testing.contracts.facts import DAY
from viewmeter.testing.contracts.olap import scan
from viewmeter.testing.faults import CUTS, Disk

COMMITS = 25 if EVERY else 15
MOMENTS = 8 if EVERY else 4
APPENDING = """
    import sys
    from pathlib import Path
    from viewmeter.olap.embedded import DuckDBStore
    from viewmeter.testing.contracts.facts import fact, rows_of
    from viewmeter.testing.contracts.olap import commit

    store = DuckDBStore(Path(sys.argv[1]) / "store.duckdb")
    number = store.last_commit().number if store.last_commit() else 0
    while sys.stdin.readline():
        number += 1
        store.append(rows_of([fact(number, plays=1, viewer=number)]), commit(number))
        print("in", number, file=sys.stderr, flush=True)
        if number % 10 == 0:
            store.compact(1 << 60)
"""


class Appending:
    """Processes, one after the other, that make commit after commit. `acknowledged`: number to end of the journal."""

    def __init__(self, base: Path) -> None:
        self.root = base / "root"
        self.root.mkdir()
        self.shim = shim_below(self.root, base / "shim")
        self.acknowledged: dict[int, int] = {}

    def run(self, commits: int) -> int:
        """Start a process, let it make so many commits, kill it; return how many it made."""
        process = subprocess.Popen(
            [sys.executable, "-c", textwrap.dedent(APPENDING), str(self.root)],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
            env={**os.environ, **self.shim.environment()},
        )
        assert process.stdin is not None
        assert process.stderr is not None
        made = 0
        try:
            for _ in range(commits):
                process.stdin.write("\n")
                process.stdin.flush()
                words = process.stderr.readline().split()
                if len(words) != 2 or words[0] != "in":
                    break  # it has ended, with a traceback
                self.acknowledged[int(words[1])] = self.shim.position()
                made += 1
        finally:
            process.kill()
            process.communicate()
        return made


@pytest.fixture
def appending(tmp_path: Path) -> Appending:
    return Appending(tmp_path.resolve())


def check(path: Path, at_least: int, at_most: int) -> None:
    """Check that the file opens, and holds each commit up to its last one once."""
    store = DuckDBStore(path)
    try:
        last = store.last_commit()
        number = 0 if last is None else last.number
        assert at_least <= number <= at_most
        rows = scan(store, "plays", edges=(0, DAY))
        assert sum(row["plays"] for row in rows) == number
    finally:
        store.close()


def test_O1_O5_a_power_cut_at_any_moment_leaves_whole_commits(
    appending: Appending, dice: random.Random, tmp_path: Path
) -> None:
    assert appending.run(COMMITS) == COMMITS
    disk = Disk(appending.shim.journal)
    first = min(appending.acknowledged.values())
    moments = sorted(dice.randrange(first, appending.shim.position() + 1) for _ in range(MOMENTS))
    skipped = 0
    for at, moment in enumerate(moments):
        if in_a_checkpoint(disk, moment):
            skipped += 1
            continue  # a torn checkpoint is DuckDB's to survive, and it does not always: docs/reliability.md
        sure = max((number for number, end in appending.acknowledged.items() if end <= moment), default=0)
        for kind in CUTS:
            left = tmp_path / f"{at}-{kind}"
            disk.cut(moment, kind, dice, left)
            check(left / "store.duckdb", sure, COMMITS)
    print(f"{len(moments) - skipped} moments, cut in {len(CUTS)} ways each; {skipped} in a checkpoint were skipped")


@pytest.mark.parametrize("failures", [1, 2] if EVERY else [2])
def test_O5_after_a_sync_that_failed_the_next_process_makes_it_good(
    appending: Appending, failures: int, dice: random.Random, tmp_path: Path
) -> None:
    assert appending.run(7) == 7
    appending.shim.fail(syncs=failures, path="/store.duckdb")
    for _ in range(10):
        appending.run(5)
        if appending.shim.refused >= failures:
            break
    assert appending.run(3) == 3
    left = tmp_path / "left"
    Disk(appending.shim.journal).cut(appending.shim.position(), "synced", dice, left)
    last = max(appending.acknowledged)
    check(left / "store.duckdb", last, last)


def test_O5_a_torn_end_of_the_log_costs_what_was_never_synced_only(appending: Appending, tmp_path: Path) -> None:
    assert appending.run(8) == 8
    log = appending.root / "store.duckdb.wal"
    torn = bytearray(log.read_bytes())
    torn[-200:-100] = bytes(100)
    log.write_bytes(torn)
    check(appending.root / "store.duckdb", 7, 8)
    assert log.with_name(log.name + ".torn").read_bytes() == torn
    assert appending.run(2) == 2
