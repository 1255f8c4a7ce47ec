"""`bench batch`: how fast one hour of raw events becomes exact rows, and in how much memory.

In: how many events. Out: figures as a dict; `put_…` is the way of the rows into a store, which the engine does when
they are finished. The hour lies in an archive as the product writes it, and is computed by the child process of the
product with its default settings: 2 processes, from files to a finished result. Bars: 400 K events a second of wall
clock on 2 cores, 4 GB (the peak of the proportional set size of all processes of the run together, looked at five times
a second). Baseline of the same run: reading the same columns of the same files by pyarrow with as many threads, and
nothing else. The archive is made once and kept in the cache folder of the user: 20 MB for 2 million events, 400 MB for
20 million.
"""

from __future__ import annotations

import contextlib
import json
import os
import resource
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Final

import pyarrow as pa
import pyarrow.parquet as pq

from viewmeter.archive.embedded import ArchiveSettings, EmbeddedArchive
from viewmeter.batch.child import Request, run_in_child
from viewmeter.batch.files import About, about_of, rows_of
from viewmeter.batch.settings import BatchSettings
from viewmeter.batch.window import COLUMNS
from viewmeter.bench.figures import cache_folder
from viewmeter.bench.product import pss_bytes
from viewmeter.eventlog.embedded import EmbeddedLogReader
from viewmeter.model.time import HOUR_MS
from viewmeter.olap.embedded import DuckDBStore
from viewmeter.olap.protocol import HourRun
from viewmeter.testing.synthetic import ROUND_MS, Synthetic

START_MS: Final = 1_795_600_800_000 // HOUR_MS * HOUR_MS
EVENTS_PER_S: Final = 400_000
BAR_EVENTS_PER_S: Final = 400_000.0
BAR_BYTES: Final = 4_000_000_000
BAR_ARCHIVE_BYTES: Final = 35.0
_LOOK_EVERY_S: Final = 0.2
_TIMEOUT_S: Final = 1_800.0
_VERSION: Final = 1
"""Of what is generated: a folder of another one is not used."""


def run(seconds: float = 5.0, events: int | None = None) -> dict[str, Any]:
    """Return events a second, peak memory, seconds of each step, the ratio to reading. `events`: default 2 million."""
    count = events or round(seconds * EVENTS_PER_S)
    archive = prepared(count)
    # A process of its own: its children are those of the run and nobody else's.
    command = [sys.executable, "-m", "viewmeter.bench.batch", str(archive)]
    said = subprocess.run(command, capture_output=True, text=True, timeout=_TIMEOUT_S, check=False)
    if said.returncode:
        raise RuntimeError(f"the run failed: {said.stderr.strip().splitlines()[-1:]}")
    found: dict[str, Any] = json.loads(said.stdout)
    per_s = found["events"] / found["wall_s"]
    return {
        **found,
        "events_per_s": per_s,
        "events_per_cpu_s": found["events"] / found["cpu_s"],
        "bar_events_per_s": BAR_EVENTS_PER_S,
        "ratio_to_bar": per_s / BAR_EVENTS_PER_S,
        "bar_peak_bytes": BAR_BYTES,
        "baseline_read_events_per_s": found["events"] / found["read_s"],
        "ratio_to_reading": found["read_s"] / found["wall_s"],
        "bar_archive_bytes_per_event": BAR_ARCHIVE_BYTES,
        "load": os.getloadavg()[0],
    }


def prepared(count: int) -> Path:
    """Return the folder of an archive with one hour of so many events; made unless it is there."""
    cache = cache_folder()
    folder = cache / f"bench-batch-{_VERSION}-{count}"
    if folder.is_dir():
        return folder
    cache.mkdir(parents=True, exist_ok=True)
    making = Path(tempfile.mkdtemp(prefix="bench-batch-", dir=cache))
    try:
        _fill(making, count)
        making.rename(folder)
    except BaseException:
        shutil.rmtree(making, ignore_errors=True)
        raise
    return folder


def _fill(root: Path, count: int) -> None:
    """Write the hour as it is after its small files were merged: large files one after the other in time."""
    rounds = HOUR_MS // ROUND_MS
    crowd = Synthetic(1, START_MS, active=-(-count // rounds)).batches(count)
    with tempfile.TemporaryDirectory() as scratch, contextlib.closing(EmbeddedLogReader(Path(scratch))) as log:
        archive = EmbeddedArchive(root, log, lambda: START_MS + HOUR_MS)
        with contextlib.closing(archive):
            for number, events in enumerate(_chunks(crowd, ArchiveSettings().file_events)):
                archive.add(events, str(number), START_MS + HOUR_MS)


def _chunks(batches: Iterator[pa.RecordBatch], rows: int) -> Iterator[pa.Table]:
    held: list[pa.RecordBatch] = []
    for batch in batches:
        held.append(batch)
        if sum(b.num_rows for b in held) >= rows:
            yield pa.Table.from_batches(held)
            held = []
    if held:
        yield pa.Table.from_batches(held)


def _measure(archive: Path) -> dict[str, float]:
    """Read, then compute."""
    settings = BatchSettings()
    read = _read(archive, settings.processes)
    begun = time.perf_counter()
    _read(archive, settings.processes)  # the second time: the files are in the page cache for what is compared to it
    read_s = time.perf_counter() - begun
    with tempfile.TemporaryDirectory() as scratch:
        request = Request(
            archive=str(archive),
            out=str(Path(scratch) / "out"),
            about=About(START_MS, START_MS + HOUR_MS, 1, 0),
            opened=None,
            ended=[],
            part_events=settings.part_events,
            processes=settings.processes,
        )
        begun = time.perf_counter()
        with _watching() as peak:
            run_in_child(request, lambda: False, _TIMEOUT_S)
        wall_s = time.perf_counter() - begun
        used = resource.getrusage(resource.RUSAGE_CHILDREN)
        about = about_of(Path(request.out))
        counted = about.counts.events
        put = _put(Path(request.out), Path(scratch))
    if counted != read:
        raise RuntimeError(f"{counted:,} events were counted of {read:,}")
    return {
        **put,
        "events": counted,
        "wall_s": wall_s,
        "cpu_s": used.ru_utime + used.ru_stime,
        "cpu_system_s": used.ru_stime,
        "peak_bytes": max(peak),
        **{f"{step}_s": wall for step, (wall, _) in about.stages.items()},
        **{f"{step}_cpu_s": cpu for step, (_, cpu) in about.stages.items()},
        "archive_bytes_per_event": sum(file.stat().st_size for file in archive.rglob("*.parquet")) / counted,
        "read_s": read_s,
    }


def _put(out: Path, scratch: Path) -> dict[str, float]:
    """Close the hour in a new store, as the engine does in its own process; it does so when the child has ended."""
    about = about_of(out)
    rows, viewers = rows_of(out)
    with contextlib.closing(DuckDBStore(scratch / "store.duckdb")) as store:
        before, begun = resource.getrusage(resource.RUSAGE_SELF), time.perf_counter()
        store.put_hour(about.hour_ms, rows, viewers, HourRun(about.archive_version, about.seen_commit, about.at_ms))
        wall_s, after = time.perf_counter() - begun, resource.getrusage(resource.RUSAGE_SELF)
    return {
        "put_rows": sum(table.num_rows for table in rows.values()),
        "put_wall_s": wall_s,
        "put_cpu_s": after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime,
    }


@contextlib.contextmanager
def _watching() -> Iterator[list[int]]:
    """Keep looking at the memory of all processes below this one; yield what was seen, in bytes."""
    seen, over = [0], threading.Event()

    def look() -> None:
        while not over.wait(_LOOK_EVERY_S):
            seen.append(sum(_pss_or_nothing(process) for process in _below(os.getpid())))

    looking = threading.Thread(target=look)
    looking.start()
    try:
        yield seen
    finally:
        over.set()
        looking.join()


def _below(process: int) -> list[int]:
    """Return the processes that a process started, and those that they did."""
    found: list[int] = []
    for task in Path(f"/proc/{process}/task").iterdir():
        with contextlib.suppress(OSError):
            found += [int(child) for child in (task / "children").read_text().split()]
    return found + [further for child in found for further in _below_or_none(child)]


def _below_or_none(process: int) -> list[int]:
    try:
        return _below(process)
    except OSError:
        return []  # it ended


def _pss_or_nothing(process: int) -> int:
    try:
        return pss_bytes(process)
    except OSError:
        return 0  # it ended


def _read(archive: Path, threads: int) -> int:
    """Read the columns that a run needs, file by file; return how many rows."""

    def one(path: Path) -> int:
        with pq.ParquetFile(path) as file:
            groups = range(file.num_row_groups)
            return sum(file.read_row_group(g, columns=[*COLUMNS], use_threads=False).num_rows for g in groups)

    with ThreadPoolExecutor(threads) as pool:
        return sum(pool.map(one, sorted(archive.rglob("*.parquet"))))


if __name__ == "__main__":
    json.dump(_measure(Path(sys.argv[1])), sys.stdout)
