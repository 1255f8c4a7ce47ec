"""How small the archive's files are, and how fast they are written and read.

Events of simulated viewers (`testing/simulator.py`) go through the log into an archive of one hour, as in the product.
Baseline: the same events in the order of arrival by pyarrow's own defaults (snappy, dictionaries for everything).
"""

from __future__ import annotations

import contextlib
import tempfile
import time
import uuid
from pathlib import Path
from typing import Any, Final

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from viewmeter.archive.embedded import ArchiveSettings, EmbeddedArchive
from viewmeter.eventlog.embedded import EmbeddedLogReader, EmbeddedLogWriter
from viewmeter.model.time import HOUR_MS, Interval
from viewmeter.testing.beacons import beacons
from viewmeter.testing.columns import to_table
from viewmeter.testing.simulator import Settings, Simulation

START_MS: Final = 1_764_000_000_000 // HOUR_MS * HOUR_MS
EVENTS_A_SECOND: Final = 12_000
"""How many events the simulator makes while the benchmark's time passes, about."""

BATCH_EVENTS: Final = 2_000
LOOKUPS: Final = 20


def run(seconds: float = 10.0) -> dict[str, Any]:
    """Return bytes an event, events a second in and out, and ms to find one view."""
    events = _events(max(20_000, round(seconds * EVENTS_A_SECOND)))
    count = events.num_rows
    with tempfile.TemporaryDirectory(prefix="viewmeter-bench-") as scratch, contextlib.ExitStack() as opened:
        root = Path(scratch)
        with contextlib.closing(EmbeddedLogWriter(root / "log", 0, lambda: START_MS)) as writer:
            for batch in events.to_batches(BATCH_EVENTS):
                writer.append(batch)
        log_bytes = sum(path.stat().st_size for path in (root / "log").rglob("*.sqlite*"))
        log = opened.enter_context(contextlib.closing(EmbeddedLogReader(root / "log")))
        archive = EmbeddedArchive(root / "archive", log, lambda: START_MS, ArchiveSettings())
        opened.callback(archive.close)
        begun = time.perf_counter()
        archive.flush()
        write_s = time.perf_counter() - begun
        begun = time.perf_counter()
        found = archive.read(Interval(0, 2**60))
        read_s = time.perf_counter() - begun
        views = found["view_id"].slice(0, LOOKUPS * 50).to_pylist()[::50]
        begun = time.perf_counter()
        for view in views:
            archive.view("bench", view)
        view_ms = (time.perf_counter() - begun) / len(views) * 1000
        baseline = _baseline(events, root / "plain.parquet")
        size = archive.figures().bytes
    return {
        "events": count,
        "bytes_per_event": size / count,
        "bytes_per_event_in_the_log": log_bytes / count,
        "write_events_per_s": count / write_s,
        "read_events_per_s": count / read_s,
        "view_ms": view_ms,
        "baseline_bytes_per_event": baseline["bytes"] / count,
        "baseline_write_events_per_s": count / baseline["write_s"],
        "baseline_read_events_per_s": count / baseline["read_s"],
        "size_ratio": size / baseline["bytes"],
        "read_ratio": baseline["read_s"] / read_s,
    }


def _events(wanted: int) -> pa.Table:
    """Return about so many events of simulated viewers, in the order of arrival."""
    simulation = Simulation(Settings(seed=7, start_ms=START_MS, viewers=wanted // 9, minutes=50, disorder_ms=2_000))
    rows: list[dict[str, Any]] = []
    rng = np.random.default_rng(7)
    hashes: dict[str, int] = {}
    for beacon in beacons(simulation):
        for event in beacon.received("bench").events:
            viewer = hashes.setdefault(event["viewer_id"], int(rng.integers(-(2**63), 2**63 - 1)))
            view = str(uuid.uuid5(uuid.NAMESPACE_URL, event["view_id"]))  # as long and as random as players make them
            rows.append(
                dict(event)
                | {"tenant_id": "bench", "received_at": beacon.send_at_ms + 40, "viewer_hash": viewer, "view_id": view}
            )
        if len(rows) >= wanted:
            break
    return to_table(rows).unify_dictionaries()


def _baseline(events: pa.Table, path: Path) -> dict[str, float]:
    begun = time.perf_counter()
    pq.write_table(events, path)
    written = time.perf_counter()
    pq.ParquetFile(path).read(use_threads=False)
    return {
        "bytes": float(path.stat().st_size),
        "write_s": written - begun,
        "read_s": time.perf_counter() - written,
    }
