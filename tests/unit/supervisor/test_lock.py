"""One product a data folder, whatever became of the one before."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from viewmeter.supervisor import lock

HOLD = """
import sys, pathlib
from viewmeter.supervisor import lock
lock.take(pathlib.Path(sys.argv[1]))
print("held", flush=True)
sys.stdin.read()
"""


def hold(folder: Path) -> subprocess.Popen[str]:
    process = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(folder)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "held\n"
    return process


def test_a_second_taker_is_refused_at_once_and_told_by_whom(tmp_path: Path) -> None:
    with hold(tmp_path) as owner:
        with pytest.raises(lock.DataFolderInUseError, match=f"in use by process {owner.pid}: stop it first"):
            lock.take(tmp_path)
        assert lock.running(tmp_path) == owner.pid
        owner.kill()


def test_the_lock_of_a_killed_process_is_free(tmp_path: Path) -> None:
    with hold(tmp_path) as owner:
        owner.kill()
    handle = lock.take(tmp_path)
    os.close(handle)
    assert lock.running(tmp_path) is None


def test_orphans_of_a_killed_owner_are_waited_for_within_a_bound(tmp_path: Path) -> None:
    handle = lock.take(tmp_path)  # this process plays the orphan: it holds the lock, but the file names a dead owner
    with hold(tmp_path / "elsewhere") as dead:
        dead.kill()
    os.pwrite(handle, str(dead.pid).ljust(20).encode(), 0)
    with pytest.raises(lock.DataFolderInUseError, match="in use"):
        lock.take(tmp_path, wait_s=0.2)
    os.close(handle)


def test_a_folder_that_was_never_used_has_no_owner(tmp_path: Path) -> None:
    assert lock.running(tmp_path) is None
