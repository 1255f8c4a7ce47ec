"""The model of the disk, by the shim on small programs: what was synced stays, what was not may go."""

from __future__ import annotations

import os
import random
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest
from watching import shim_below

from viewmeter.testing.faults import CUTS, Disk
from viewmeter.testing.faults.disk import Before, before

TIMES = 20


class Program:
    """Runs Python text below a shim, in the watched folder."""

    def __init__(self, base: Path) -> None:
        self.base = base.resolve()
        self.root = self.base / "root"
        self.root.mkdir()
        self.shim = shim_below(self.root, self.base / "shim")
        self.cuts = 0

    def run(self, text: str) -> str:
        code = "import os\n" + WRITE + textwrap.dedent(text)
        done = subprocess.run(
            [sys.executable, "-c", code],
            cwd=self.root,
            env={**os.environ, **self.shim.environment()},
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    def left(self, kind: str, seed: int, before: Before | None = None) -> dict[str, bytes]:
        """Return the files after a cut now: relative path to contents."""
        self.cuts += 1
        into = self.base / f"cut-{self.cuts}"
        disk = Disk(self.shim.journal, before)
        disk.cut(self.shim.position(), kind, random.Random(seed), into)  # type: ignore[arg-type]
        return {str(p.relative_to(into)): p.read_bytes() for p in into.rglob("*") if p.is_file()}


@pytest.fixture
def program(tmp_path: Path) -> Program:
    return Program(tmp_path)


WRITE = """
def write(name, data, sync=True, at=0):
    f = os.open(name, os.O_RDWR | os.O_CREAT)
    os.pwrite(f, data, at)
    if sync: os.fsync(f)
    os.close(f)
def sync(folder="."):
    f = os.open(folder, os.O_RDONLY)
    os.fsync(f)
    os.close(f)
"""


@pytest.mark.parametrize("kind", CUTS)
def test_what_was_synced_with_its_name_stays(program: Program, kind: str) -> None:
    program.run("write('a', b'x' * 5000); sync(); write('a', b'y' * 5000, sync=False, at=5000)")
    for seed in range(TIMES):
        assert program.left(kind, seed)["a"].startswith(b"x" * 5000)


def test_what_was_not_synced_is_lost_in_whole_in_part_or_not_at_all(program: Program) -> None:
    program.run("write('a', b''); sync(); write('a', b'y' * 5000, sync=False)")
    assert program.left("synced", 0)["a"] == b""
    assert program.left("all", 0)["a"] == b"y" * 5000
    sectors = [program.left("sectors", seed)["a"] for seed in range(TIMES)]
    assert any(0 < left.count(b"y") < 5000 and b"\0" in left for left in sectors), "parts survive in any order"
    torn = [program.left("prefix", seed)["a"] for seed in range(TIMES)]
    assert all(set(left) <= {ord("y")} for left in torn)
    assert any(0 < len(left) < 5000 and len(left) % 512 == 0 for left in torn), "the last write is torn at a sector"


def test_a_name_is_safe_only_with_its_folder(program: Program) -> None:
    program.run("os.mkdir('d'); write('d/a', b'1'); sync('d')")
    assert program.left("synced", 0) == {}, "the folder's own name was not synced"
    program.run("sync(); write('d/b', b'2')")
    assert program.left("synced", 0) == {"d/a": b"1"}
    assert program.left("all", 0) == {"d/a": b"1", "d/b": b"2"}


def test_a_rename_has_both_names_or_neither(program: Program) -> None:
    program.run("write('a', b'1'); write('b', b'2'); sync(); os.rename('b', 'a'); write('c', b'3')")
    found = {tuple(sorted(program.left("sectors", seed).items())) for seed in range(TIMES)}
    before, after = (("a", b"1"), ("b", b"2")), (("a", b"2"),)
    assert found == {before, after, (*after, ("c", b"3"))}


def test_removed_and_cut_files_come_back_until_it_is_synced(program: Program) -> None:
    program.run("write('a', b'1234'); write('b', b'2'); sync(); os.unlink('b'); os.truncate('a', 2)")
    program.run("f = os.open('a', os.O_RDWR); os.ftruncate(f, 1)")
    assert program.left("synced", 0) == {"a": b"1234", "b": b"2"}
    assert program.left("all", 0) == {"a": b"1"}


def test_after_a_failed_sync_no_later_one_saves_what_was_written_before(program: Program) -> None:
    program.run("write('a', b'old!'); sync()")
    program.shim.fail(syncs=1, path="/a")
    said = program.run(
        """
        f = os.open('a', os.O_RDWR)
        os.pwrite(f, b'lost', 0)
        try: os.fsync(f)
        except OSError as e: print(e.errno)
        os.pwrite(f, b'kept', 4)
        os.fsync(f)
        print(os.pread(f, 9, 0).decode())
        """
    )
    assert said.split() == ["5", "lostkept"], "the program itself sees all of it"
    assert program.left("all", 0) == {"a": b"old!kept"}


def test_a_full_disk_takes_what_fits_and_heals(program: Program) -> None:
    program.run("write('a', b'1' * 100)")
    program.shim.full(10)
    said = program.run(
        """
        f = os.open('a', os.O_RDWR)
        print(os.pwrite(f, b'2' * 50, 0), os.pwrite(f, b'3' * 50, 100))
        for action in (lambda: os.pwrite(f, b'4', 110), lambda: os.mkdir('d'), lambda: os.open('b', os.O_CREAT)):
            try: action()
            except OSError as e: print(e.errno)
        """
    )
    assert said.split() == ["50", "10", "28", "28", "28"], "rewriting needs no room"
    program.shim.room()
    program.run("os.mkdir('d')")


def test_the_clock_jumps_for_all_who_ask(program: Program) -> None:
    program.shim.clock(3600)
    ask = "import time, datetime; print(time.time() - time.clock_gettime(time.CLOCK_REALTIME), time.time_ns() // 10**9)"
    difference, now = map(float, program.run(ask).split())
    program.shim.clock(0)
    _, before = map(float, program.run(ask).split())
    assert abs(difference) < 60
    assert 3500 < now - before < 3700


def test_watching_may_begin_on_a_folder_with_files(program: Program, tmp_path: Path) -> None:
    (program.root / "d").mkdir()
    (program.root / "d" / "a").write_bytes(b"1234")
    start = before(program.root, tmp_path / "before")
    program.run("write('d/a', b'ab'); write('d/b', b'2', sync=False); sync('d')")
    assert program.left("synced", 0, start) == {"d/a": b"ab34", "d/b": b""}


def test_a_folder_is_recorded_before_what_another_process_puts_into_it(program: Program) -> None:
    program.run(
        """
        children = [os.fork() for _ in range(2)]
        for i in range(500):
            os.makedirs(f"{i}/{os.getpid()}", exist_ok=True)
        if not all(children): os._exit(0)
        for child in children: assert os.waitpid(child, 0)[1] == 0
        """
    )
    disk = Disk(program.shim.journal, None)
    assert (
        disk.unsafe_bytes(program.shim.position()) == 0
    )  # follows the journal, which raises where a folder is missing
