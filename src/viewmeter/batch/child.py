"""Computes one hour from files to files: what the engine has a child process do.

In: a `Request` (paths and numbers). Out: a finished result in the out folder. A large hour is done in steps
(`steps.py`) by this process and workers beside it (`crew.py`), a small one at once. Promised: memory is that of a part
or of a range of time, for each process; the engine's own process is not slowed by it. `python -m viewmeter.batch.child
REQUEST` runs one; it ends by itself when the engine is gone.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Final

import msgspec

from viewmeter.archive.protocol import ArchiveReader
from viewmeter.batch import files, hour, part, shuffle
from viewmeter.batch.crew import Crew, serve
from viewmeter.batch.protocol import BatchFailedError
from viewmeter.batch.steps import Plan, Steps
from viewmeter.batch.window import COLUMNS, window_of
from viewmeter.model.time import HOUR_MS

_POLL_S: Final = 0.5
_MEMORY: Final = {
    # Columns of megabytes come and go all the time. Given back to the kernel each time, a third of the CPU time went
    # into getting empty pages: glibc is told to keep them, and Arrow to use glibc.
    "ARROW_DEFAULT_MEMORY_POOL": "system",
    "MALLOC_MMAP_THRESHOLD_": str(1 << 30),
    "MALLOC_TRIM_THRESHOLD_": str(1 << 28),
    "MALLOC_TOP_PAD_": str(1 << 26),
}


@dataclass(frozen=True)
class Request:
    """An hour to compute."""

    archive: str  # folder of the archive
    out: str  # folder of the result
    about: files.About
    opened: str | None  # folder of the carry of the hour before
    ended: list[str]  # files of ended views, newest first
    part_events: int
    processes: int


Runner = Callable[[Request, Callable[[], bool], float], None]
"""Runs a request; (request, whether to give up, seconds it may take). Raises BatchFailedError."""


def run_here(request: Request, _stopping: Callable[[], bool], _timeout_s: float, *, workers: bool = False) -> None:
    """Compute in this process, and where asked in others beside it."""
    from viewmeter.archive.embedded_read import EmbeddedArchiveReader

    reader = EmbeddedArchiveReader(Path(request.archive))
    try:
        compute(request, reader, workers=workers)
    finally:
        reader.close()


def run_in_child(request: Request, stopping: Callable[[], bool], timeout_s: float) -> None:
    """Compute in a child process; its last words are the error's."""
    child = subprocess.Popen(
        [sys.executable, "-m", "viewmeter.batch.child", _text(request)],
        stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, env=_MEMORY | os.environ,
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


def compute(request: Request, reader: ArchiveReader, *, workers: bool = False) -> None:
    """Compute the hour and write its result. `workers`: whether a large one may have processes beside this one."""
    at = request.about.hour_ms
    events = sum(reader.events(h) for h in (at, at + HOUR_MS) if h in reader.hours())
    # The hour after is read for 5 minutes only.
    parts = max(1, -(-reader.events(at) // request.part_events)) if events else 1
    if parts >= shuffle.PAYS_FROM:
        _compute_in_steps(request, reader, parts, request.processes - 1 if workers else 0)
        return
    opened = Path(request.opened) if request.opened else None
    ended = [Path(file) for file in request.ended]
    done = []
    for keys in part.key_ranges(parts):
        table = reader.read(window_of(at), COLUMNS, key_range=keys)
        carried = files.read_open(opened, keys)
        computed = part.compute(at, table, carried, lambda wanted: files.find_ended(ended, wanted))
        done.append(hour.digest(at, computed))
    files.put_result(hour.finish(at, done), request.about, Path(request.out))


def _compute_in_steps(request: Request, reader: ArchiveReader, parts: int, beside: int) -> None:
    out, parent = Path(request.out), os.getppid()
    making = files.begin(out)
    scratch = files.begin(out.with_name(f"{out.name}-parts"))
    plan = Plan(
        request.about.hour_ms, request.opened, request.ended, parts, beside + 1, str(scratch), str(making)
    )  # fmt: skip
    steps = Steps(plan, reader)

    def do(step: str, number: int) -> None:
        if os.getppid() != parent:
            raise BatchFailedError("the engine is gone")
        steps.do(step, number)

    command = [sys.executable, "-m", "viewmeter.batch.child", "--worker", request.archive, _text(plan)]
    try:
        with Crew(do, command, beside) as crew:
            crew.each("cut", range(plan.stretches))
            crew.each("compute", range(parts))
            crew.each("join", range(len(plan.joins)))
        left = json.loads((making / "left.json").read_text())
        (making / "left.json").unlink()
        stages = {step: (round(crew.wall_s[step], 3), round(crew.cpu_s[step], 3)) for step in crew.wall_s}
        about = replace(request.about, handover=left["handover"], counts=hour.Counts(**left["counts"]), stages=stages)
        files.finish(making, about, out)
    finally:
        for folder in (making, scratch):
            shutil.rmtree(folder, ignore_errors=True)


def _text(said: Request | Plan) -> str:
    return msgspec.json.encode(asdict(said)).decode()


def main() -> None:
    """Run the request on the command line, or be a worker of a run."""
    from viewmeter.archive.embedded_read import EmbeddedArchiveReader

    if sys.argv[1] == "--worker":
        archive, plan = sys.argv[2:]
        serve(Steps(msgspec.json.decode(plan.encode(), type=Plan), EmbeddedArchiveReader(Path(archive))).do)
        return
    request = msgspec.json.decode(sys.argv[1].encode(), type=Request)
    try:
        run_here(request, lambda: False, 0, workers=True)
    except Exception as problem:  # noqa: BLE001  its last words, for the engine
        sys.exit(f"{type(problem).__name__}: {problem}")


if __name__ == "__main__":
    main()
