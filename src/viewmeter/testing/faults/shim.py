"""The shim (`shim.c`) for processes: compiled on first use, switched while they run.

In: the folder whose files are watched, and a work folder outside of it. Out: the environment to start processes with,
`position()` of the journal, and switches. Promised: a switch holds for every process at once, from its next call on.
"""

from __future__ import annotations

import ctypes
import hashlib
import mmap
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Final

SOURCE: Final = Path(__file__).with_name("shim.c")
_PAGE_BYTES: Final = 4096
_FREE, _CLOCK, _SYNCS, _WRITES, _DELAY, _REFUSED, _ASKED = range(7)  # the fields of `struct control`, 8 bytes each
_PATH_AT: Final = 56
_PATH_BYTES: Final = 200


class ShimUnavailableError(Exception):
    """This machine cannot run it; the text says what is missing."""


def compiled(folder: Path | None = None) -> Path:
    """Return the library, compiled now where this source was not yet. Raises `ShimUnavailableError`."""
    if sys.platform != "linux":
        raise ShimUnavailableError("faults are injected by LD_PRELOAD, which needs Linux")
    source = SOURCE.read_bytes()
    name = f"viewmeter-faults-{os.getuid()}-{hashlib.sha256(source).hexdigest()[:16]}.so"
    library = (folder or Path(tempfile.gettempdir())) / name
    if library.exists():
        return library
    compiler = next((found for name in ("cc", "gcc", "clang") if (found := shutil.which(name))), None)
    if compiler is None:
        raise ShimUnavailableError("no C compiler: install gcc or clang to inject faults")
    making = library.with_suffix(f".{os.getpid()}")
    command = [compiler, "-O2", "-Wall", "-shared", "-fPIC", "-o", str(making), str(SOURCE), "-ldl"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise ShimUnavailableError(f"the compiler failed on {SOURCE.name}: {done.stderr[-500:]}")
    making.replace(library)
    return library


class Shim:
    """Watches one folder. `root` must be a real path (no symbolic links); `work` is made, outside of it."""

    def __init__(self, root: Path, work: Path) -> None:
        if root != root.resolve():
            raise ValueError(f"{root} leads through a symbolic link: name {root.resolve()}")
        work.mkdir(parents=True, exist_ok=True)
        self.root = root
        self.journal = work / "journal"
        self.journal.touch()
        self._page = work / "control"
        self._page.write_bytes(bytes(_PAGE_BYTES))
        with self._page.open("r+b") as file:
            self._control = mmap.mmap(file.fileno(), _PAGE_BYTES)
        self._words = (ctypes.c_int64 * (_ASKED + 1)).from_buffer(self._control)
        self._words[_FREE] = -1
        self._library = compiled()

    def environment(self) -> dict[str, str]:
        """Return what processes need in their environment to be watched."""
        return {
            "LD_PRELOAD": str(self._library),
            "VIEWMETER_FAULTS_ROOT": str(self.root),
            "VIEWMETER_FAULTS_JOURNAL": str(self.journal),
            "VIEWMETER_FAULTS_CONTROL": str(self._page),
        }

    def position(self) -> int:
        """Return the end of the journal: whatever happened until now lies before it."""
        return self.journal.stat().st_size

    def full(self, free_bytes: int = 0) -> None:
        """Let files grow by so many bytes more, then answer ENOSPC. Rewriting what is there stays possible."""
        self._words[_FREE] = free_bytes

    def room(self) -> None:
        """End `full`."""
        self._words[_FREE] = -1

    def fail(self, *, syncs: int = 0, writes: int = 0, path: str = "") -> None:
        """Answer EIO to so many of the next syncs and writes of files whose path contains `path` (from the root on).

        After a failed sync, what was written before it counts as dropped: Linux marks such pages clean, and no later
        sync saves them, while readers go on seeing them.
        """
        text = path.encode()
        if len(text) >= _PATH_BYTES:
            raise ValueError("the path is too long")
        self._words[_SYNCS] = self._words[_WRITES] = 0
        self._control[_PATH_AT : _PATH_AT + _PATH_BYTES] = text.ljust(_PATH_BYTES, b"\0")
        self._words[_SYNCS], self._words[_WRITES] = syncs, writes

    def clock(self, offset_s: float) -> None:
        """Move the clock of the day by so much from the true time."""
        self._words[_CLOCK] = round(offset_s * 1_000_000_000)

    def slow_syncs(self, seconds: float) -> None:
        """Let every sync take so long."""
        self._words[_DELAY] = round(seconds * 1_000_000)

    @property
    def refused(self) -> int:
        """How many operations were refused so far."""
        return int(self._words[_REFUSED])

    @property
    def syncs(self) -> int:
        """How many syncs were asked for so far."""
        return int(self._words[_ASKED])
