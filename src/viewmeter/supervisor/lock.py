"""One product a data folder: the lock in `run/lock`.

The lock belongs to the open file, which the supervisor hands down to its children: as long as one of them still
writes, nobody else starts. The file holds the supervisor's process id, so that a second start can tell a running
product (refused at once) from the last breaths of a killed one (waited for).
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import time
from pathlib import Path
from typing import Final

WAIT_FOR_ORPHANS_S: Final = 40.0
POLL_S: Final = 0.05


class DataFolderInUseError(Exception):
    """Another product runs on the folder; the text says which and what to do."""


def take(data: Path, wait_s: float = WAIT_FOR_ORPHANS_S) -> int:
    """Take the folder's lock and return its file descriptor, or raise `DataFolderInUseError`."""
    run = data / "run"
    run.mkdir(parents=True, exist_ok=True)
    handle = os.open(run / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    deadline = time.monotonic() + wait_s
    while True:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            break
        except BlockingIOError:
            owner = _owner(handle)
            if _alive(owner) or time.monotonic() > deadline:
                os.close(handle)
                who = f"process {owner}" if owner else "another process"
                raise DataFolderInUseError(
                    f"{data} is in use by {who}: stop it first, or choose another folder with --data"
                ) from None
            time.sleep(POLL_S)
    os.ftruncate(handle, 0)
    os.pwrite(handle, str(os.getpid()).encode(), 0)
    return handle


def running(data: Path) -> int | None:
    """Return the process id of the product that runs on the folder, or None."""
    try:
        handle = os.open(data / "run" / "lock", os.O_RDWR | os.O_CLOEXEC)
    except OSError:
        return None
    try:
        fcntl.flock(handle, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return _owner(handle)
    finally:
        os.close(handle)
    return None


def _owner(handle: int) -> int | None:
    with contextlib.suppress(ValueError):
        return int(os.pread(handle, 32, 0))
    return None


def _alive(process: int | None) -> bool:
    if process is None:
        return False
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    # A killed process stays in the table until its parent looks; it holds nothing any more.
    with contextlib.suppress(OSError):
        status = Path(f"/proc/{process}/stat").read_text()
        return status.rpartition(")")[2].split()[0] not in {"Z", "X"}
    return True
