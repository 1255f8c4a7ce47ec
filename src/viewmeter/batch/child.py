"""Computes one hour from files to files: what the engine has a child process do.

In: a `Request` (paths and numbers). Out: a finished result in the out folder. Promised: memory is that of a few parts
and of the rows; the engine's own process is not slowed by it. `python -m viewmeter.batch.child REQUEST` runs one; it
ends by itself when the engine is gone.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Final

import msgspec
import pyarrow as pa

from viewmeter.archive.protocol import ArchiveReader
from viewmeter.batch import files, hour, part, shuffle
from viewmeter.batch.protocol import BatchFailedError
from viewmeter.batch.window import COLUMNS, window_of
from viewmeter.model.time import HOUR_MS

_POLL_S: Final = 0.5


@dataclass(frozen=True)
class Request:
    """An hour to compute."""

    archive: str  # folder of the archive
    out: str  # folder of the result
    about: files.About
    opened: str | None  # folder of the carry of the hour before
    ended: list[str]  # files of ended views, newest first
    part_events: int
    threads: int


Runner = Callable[[Request, Callable[[], bool], float], None]
"""Runs a request; (request, whether to give up, seconds it may take). Raises BatchFailedError."""


def run_here(request: Request, _stopping: Callable[[], bool], _timeout_s: float) -> None:
    """Compute in this process."""
    from viewmeter.archive.embedded_read import EmbeddedArchiveReader

    reader = EmbeddedArchiveReader(Path(request.archive))
    try:
        compute(request, reader)
    finally:
        reader.close()


def run_in_child(request: Request, stopping: Callable[[], bool], timeout_s: float) -> None:
    """Compute in a child process; its last words are the error's."""
    text = msgspec.json.encode(asdict(request)).decode()
    child = subprocess.Popen(
        [sys.executable, "-m", "viewmeter.batch.child", text],
        stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE,
    )  # fmt: skip
    waited = 0.0
    while True:
        try:
            _, said = child.communicate(timeout=_POLL_S)
            break
        except subprocess.TimeoutExpired:
            waited += _POLL_S
            if stopping() or waited > timeout_s:
                child.kill()
                child.communicate()
                reason = "the engine stops" if stopping() else f"it took longer than {timeout_s:g} s"
                raise BatchFailedError(f"the run was ended: {reason}") from None
    if child.returncode:
        last = said.decode(errors="replace").strip().splitlines()[-1:] or [f"exit code {child.returncode}"]
        raise BatchFailedError(f"the run failed: {last[0]}")


def compute(request: Request, reader: ArchiveReader) -> None:
    """Compute the hour part by part and write its result."""
    at = request.about.hour_ms
    events = sum(reader.events(h) for h in (at, at + HOUR_MS) if h in reader.hours())
    parent = os.getppid()
    # The hour after is read for 5 minutes only.
    parts = max(1, -(-reader.events(at) // request.part_events)) if events else 1
    opened = Path(request.opened) if request.opened else None
    ended = [Path(file) for file in request.ended]
    ranges = list(key_ranges(parts))

    def one(number: int, table: pa.Table) -> hour.Digested:
        if os.getppid() != parent:
            raise BatchFailedError("the engine is gone")
        carried = files.read_open(opened, ranges[number])
        return hour.digest(at, part.compute(at, table, carried, lambda wanted: files.find_ended(ended, wanted)))

    with ThreadPoolExecutor(request.threads) as pool:
        if parts < shuffle.PAYS_FROM:
            read = partial(reader.read, window_of(at), COLUMNS)
            done = list(pool.map(lambda n: one(n, read(key_range=ranges[n])), range(parts)))
        else:
            with shuffle.shuffled(reader, window_of(at), ranges, Path(request.out), pool, request.threads) as made:
                done = list(pool.map(lambda n: one(n, made.part(n)), range(parts)))
    files.put_result(hour.finish(at, done), request.about, Path(request.out))


def key_ranges(parts: int) -> Iterator[tuple[int, int]]:
    """Yield ranges of view keys, both ends included, that cover all of them; keys are spread evenly."""
    edges = [-(1 << 63) + ((1 << 64) * i) // parts for i in range(parts + 1)]
    return ((low, high - 1) for low, high in pairwise(edges))


def main() -> None:
    """Run the request on the command line."""
    request = msgspec.json.decode(sys.argv[1].encode(), type=Request)
    try:
        run_here(request, lambda: False, 0)
    except Exception as problem:  # noqa: BLE001  its last words, for the engine
        sys.exit(f"{type(problem).__name__}: {problem}")


if __name__ == "__main__":
    main()
