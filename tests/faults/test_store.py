"""The store's file alone, on disks that lose and fail: commits that returned are there, and it opens without help."""

from __future__ import annotations

import itertools
import os
import random
import subprocess
import sys
import textwrap
from collections.abc import Callable
from pathlib import Path

import duckdb
import pytest
from structlog.testing import capture_logs
from watching import BLOCK_BYTES, EVERY, in_a_checkpoint, shim_below

from viewmeter.model.time import Interval
from viewmeter.olap.embedded import DuckDBStore
from viewmeter.olap.embedded_seals import seal_torn_blocks
from viewmeter.testing.contracts.facts import DAY, HOUR, T0
from viewmeter.testing.contracts.olap import scan
from viewmeter.testing.contracts.olap_asking import total
from viewmeter.testing.faults import CUTS, Disk
from viewmeter.testing.faults.journal import Op, records

COMMITS = 25 if EVERY else 15
MOMENTS = 8 if EVERY else 4
MAKING = 20 if EVERY else 8  # operations of a first opening, of which the file's own are the first
HEADERS_BYTES = 12_288
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
CLOSING = """
    import sys
    from pathlib import Path
    from viewmeter.olap.embedded import DuckDBStore
    from viewmeter.testing.contracts.facts import HOUR, fact
    from viewmeter.testing.contracts.olap_asking import put

    store = DuckDBStore(Path(sys.argv[1]) / "store.duckdb")
    number = 0
    while sys.stdin.readline():
        number += 1
        store.erase_viewer("acme", number)  # and a checkpoint: DuckDB makes its log anew at the next commit
        put(store, number * HOUR, [fact(number * HOUR, plays=1, viewer=number)])
        print("in", number, file=sys.stderr, flush=True)
"""


class Appending:
    """Processes, one after the other, that make commit after commit. `acknowledged`: number to end of the journal."""

    def __init__(self, base: Path, script: str = APPENDING) -> None:
        self.script = script
        self.root = base / "root"
        self.root.mkdir()
        self.shim = shim_below(self.root, base / "shim")
        self.acknowledged: dict[int, int] = {}

    def run(self, commits: int) -> int:
        """Start a process, let it make so many commits, kill it; return how many it made."""
        process = subprocess.Popen(
            [sys.executable, "-c", textwrap.dedent(self.script), str(self.root)],
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

    def sure(self, moment: int) -> int:
        """Return the last commit that had been acknowledged at a moment of the journal."""
        return max((number for number, end in self.acknowledged.items() if end <= moment), default=0)


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
    inside = 0
    for at, moment in enumerate(moments):
        inside += in_a_checkpoint(disk, moment)
        for kind in CUTS:
            left = tmp_path / f"{at}-{kind}"
            disk.cut(moment, kind, dice, left)
            check(left / "store.duckdb", appending.sure(moment), COMMITS)
    print(f"{len(moments)} moments, cut in {len(CUTS)} ways each; {inside} in a checkpoint")


def test_O5_an_hour_whose_closing_returned_is_closed_after_a_power_cut(dice: random.Random, tmp_path: Path) -> None:
    closing = Appending(tmp_path.resolve(), CLOSING)
    assert closing.run(3) == 3
    disk = Disk(closing.shim.journal)
    for number, moment in closing.acknowledged.items():
        for kind in CUTS:
            left = tmp_path / f"{number}-{kind}"
            disk.cut(moment, kind, dice, left)
            store = DuckDBStore(left / "store.duckdb")
            try:
                closed = [one.hour_ms for one in store.closed(Interval(T0, T0 + DAY))]
                assert closed[:number] == [T0 + HOUR * (n + 1) for n in range(number)], (kind, number)
                assert total(store) == len(closed)
            finally:
                store.close()


def test_O1_O5_a_power_cut_at_any_write_of_a_checkpoint_leaves_whole_commits(
    appending: Appending, dice: random.Random, tmp_path: Path, record_property: Callable[[str, object], None]
) -> None:
    assert appending.run(21) == 21  # two checkpoints, behind the tenth and the twentieth
    ends = [record.end for record in records(appending.shim.journal) if record.end > appending.acknowledged[20]]
    disk = Disk(appending.shim.journal)
    sealed = cuts = 0
    for end in ends:
        if not in_a_checkpoint(disk, end):
            continue
        for kind in CUTS if EVERY else ("sectors",):
            left = tmp_path / f"{end}-{kind}"
            disk.cut(end, kind, dice, left)
            with capture_logs() as said:
                check(left / "store.duckdb", appending.sure(end), 21)
            cuts += 1
            if any(line["event"] == "store_block_sealed" for line in said):
                sealed += 1
                check(left / "store.duckdb", appending.sure(end), 21)  # after the checkpoint of its end, too
    record_property("cuts", cuts)
    record_property("blocks_sealed", sealed)
    print(f"{cuts} cuts, {sealed} of which left a block to be sealed")
    assert cuts >= 10
    assert sealed, "no cut tore a block that the store needs: nothing was proven"


def test_O5_a_power_cut_while_the_file_is_made_leaves_none_or_a_whole_one(
    appending: Appending, dice: random.Random, tmp_path: Path
) -> None:
    assert appending.run(1) == 1
    making = list(itertools.islice(records(appending.shim.journal), MAKING))
    assert any(record.op is Op.RENAME for record in making)
    disk = Disk(appending.shim.journal)
    for record in making:
        for kind in CUTS if EVERY else ("all", "sectors"):
            left = tmp_path / f"{record.end}-{kind}"
            disk.cut(record.end, kind, dice, left)
            check(left / "store.duckdb", 0, 0)


def test_O5_a_block_that_no_power_cut_tore_is_left_alone(appending: Appending) -> None:
    path = appending.root / "store.duckdb"
    assert appending.run(11) == 11
    log = path.with_name(path.name + ".wal")
    assert log.stat().st_size
    with duckdb.connect(path, read_only=True) as db:
        metadata = {row[0] for row in db.execute("SELECT block_id FROM pragma_metadata_info()").fetchall()}
    blocks = range((path.stat().st_size - HEADERS_BYTES) // BLOCK_BYTES)
    data = next(block for block in blocks if block not in metadata)
    damage(path, data)
    with_damage = path.read_bytes()
    assert seal_torn_blocks(path, log) == 0, "it is no metadata"
    assert path.read_bytes() == with_damage
    damage(path, min(metadata))
    with_damage = path.read_bytes()
    log.write_bytes(b"")
    assert seal_torn_blocks(path, log) == 0, "no log: the store was closed, nothing was being written"
    assert path.read_bytes() == with_damage
    with pytest.raises(duckdb.Error, match="Corrupt database file"):
        DuckDBStore(path)


def damage(path: Path, block: int) -> None:
    """Change a byte in the middle of a block."""
    with path.open("r+b") as file:
        file.seek(HEADERS_BYTES + block * BLOCK_BYTES + BLOCK_BYTES // 2)
        byte = file.read(1)
        file.seek(-1, os.SEEK_CUR)
        file.write(bytes([byte[0] ^ 1]))


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
