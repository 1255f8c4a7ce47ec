"""The embedded log alone, on a failing disk: what `append` returned for survives, and nothing else comes to light."""

from __future__ import annotations

import os
import random
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path

import pytest
from watching import shim_below

from viewmeter.eventlog.embedded import EmbeddedLogReader
from viewmeter.testing.faults import CUTS, Disk

APPENDING = """
    import sys, time
    from pathlib import Path
    from viewmeter.eventlog import embedded
    from viewmeter.eventlog.embedded import EmbeddedLogReader, EmbeddedLogWriter
    from viewmeter.eventlog.protocol import LogUnavailableError
    from viewmeter.testing.contracts.eventlog import batch

    root, read_too = Path(sys.argv[1]) / "log", sys.argv[2] == "beside a reader"
    if sys.argv[2] == "in small files":
        embedded._FILE_BYTES = 1
    writer = EmbeddedLogWriter(root, 0, lambda: 1_764_000_000_000)
    reader = EmbeddedLogReader(root) if read_too else None
    for number in range(40):
        if sys.stdin.readline() == "":
            break
        try:
            writer.append(batch(number))
            print("good", number, file=sys.stderr, flush=True)
        except LogUnavailableError:
            print("bad", number, file=sys.stderr, flush=True)
        if reader is not None:
            reader.read({})
"""


class Appending:
    """A process that appends batch after batch, one at a time, as it is told."""

    def __init__(self, base: Path, manner: str) -> None:
        self.base = base.resolve()
        self.manner = manner
        self.root = self.base / "root"
        self.root.mkdir()
        self.shim = shim_below(self.root, self.base / "shim")
        self.process = subprocess.Popen(
            [sys.executable, "-c", textwrap.dedent(APPENDING), str(self.root), manner],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,  # the room's own log
            stderr=subprocess.PIPE,
            text=True,
            env={**os.environ, **self.shim.environment()},
        )
        self.good: list[int] = []
        self.bad: list[int] = []

    def append(self, times: int = 1) -> None:
        assert self.process.stdin is not None
        assert self.process.stderr is not None
        for _ in range(times):
            self.process.stdin.write("\n")
            self.process.stdin.flush()
            state, number = self.process.stderr.readline().split()
            {"good": self.good, "bad": self.bad}[state].append(int(number))

    def after_a_cut(self, kind: str, seed: int) -> list[int]:
        """Return what a reader finds after a power cut now."""
        left = self.base / f"{kind}-{seed}"
        Disk(self.shim.journal).cut(self.shim.position(), kind, random.Random(seed), left)  # type: ignore[arg-type]
        return found(left / "log")

    def end(self) -> None:
        self.process.kill()
        self.process.communicate()


def found(root: Path) -> list[int]:
    reader = EmbeddedLogReader(root)
    try:
        numbers = [seq for one in reader.read({}) for seq in one.events.column("seq").to_pylist()]
        assert reader.damaged() == []
        return numbers
    finally:
        reader.close()


@pytest.fixture(params=["alone", "beside a reader", "in small files"])
def appending(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Appending]:
    process = Appending(tmp_path, request.param)
    yield process
    process.end()


@pytest.mark.parametrize("failures", [1, 2, 3, 4, 5])
@pytest.mark.parametrize("begun", [0, 3], ids=["in the first append", "later"])
def test_L1_L2_a_file_whose_sync_failed_is_trusted_no_more(appending: Appending, failures: int, begun: int) -> None:
    appending.append(begun)
    appending.shim.fail(syncs=failures, path="/p00/")
    while appending.shim.refused < failures:
        appending.append()
    appending.append(3)
    if (
        appending.manner != "in small files"
    ):  # else the sync may have been that of a file before, whose rows have theirs
        assert appending.bad or not begun, "a sync that failed was answered as a success"
    assert len(appending.good) >= begun + 3
    for kind in CUTS:
        for seed in range(3):
            assert appending.after_a_cut(kind, seed) == appending.good, kind
    appending.end()
    assert found(appending.root / "log") == appending.good, "as it stands without a cut"


@pytest.mark.parametrize("kind", ["full", "writes"])
def test_L1_L2_a_disk_that_takes_no_writes_heals(appending: Appending, kind: str) -> None:
    appending.append(3)
    if kind == "full":
        appending.shim.full(5_000)
    else:
        appending.shim.fail(writes=2, path="/p00/")
    while len(appending.bad) < 2 and appending.shim.refused < 2:
        appending.append()
    appending.shim.room()
    appending.append(3)
    for cut in CUTS:
        assert appending.after_a_cut(cut, 1) == appending.good, cut
