"""`bench speed`: events a CPU-second from the log to committed rollups, all four jobs, and of the interval rule alone.

In: sizes. Out: figures as a dict. The baseline of the same run is reading: the same log into Arrow tables and nothing
else. CPU time of the whole process counts, the store's threads too, so another load on the machine does not flatter.
"""

from __future__ import annotations

import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from viewmeter.model import interval
from viewmeter.model.views import ViewStates
from viewmeter.testing.synthetic import Synthetic

START_MS = 1_795_600_000_000
AIM_PER_S = 200_000
LOG_ROWS = 2_000  # events of one group commit under load


class _Clock:
    def __init__(self) -> None:
        self.now_ms = START_MS

    def __call__(self) -> int:
        return self.now_ms


def run(seconds: float = 8.0, active: int = 500_000, seed: int = 1) -> dict[str, Any]:
    """Return the figures: `seconds` of events at the speed aimed at, after each of `active` views was met once."""
    from viewmeter.eventlog.embedded import EmbeddedLogReader, EmbeddedLogWriter
    from viewmeter.live.embedded import MemoryLiveStore
    from viewmeter.olap.embedded import DuckDBStore
    from viewmeter.stream.embedded import EmbeddedStream, StreamSettings

    events = int(seconds * AIM_PER_S)
    crowd = Synthetic(seed, START_MS, active=active).batches(active + events, batch_rows=LOG_ROWS)
    clock = _Clock()
    with tempfile.TemporaryDirectory() as folder:
        writer, reader = EmbeddedLogWriter(Path(folder) / "log", 0, clock), EmbeddedLogReader(Path(folder) / "log")
        store = DuckDBStore(Path(folder) / "store.duckdb")
        warm = _append(writer, crowd, active)
        clock.now_ms = warm + 1_500
        settings = StreamSettings(snapshot_every_s=1 << 30, compact_every_s=1 << 30)
        stream = EmbeddedStream(reader, store, MemoryLiveStore(), Path(folder) / "state", clock, settings)
        stream.recover()
        stream.settle()
        after = dict(reader.ends())
        clock.now_ms = _append(writer, crowd, events) + 1_500
        read = _cpu(lambda: _read(reader, after, settings.max_batch_events))
        whole = _cpu(stream.settle)
        views = stream.figures().views
        store.close()
        writer.close()
    rule = _rule(seed, active)
    return {
        "events": events,
        "active_views": views,
        "events_per_cpu_s": round(events / whole),
        "rule_events_per_cpu_s": round(rule),
        "baseline": "reading the same log into Arrow tables",
        "baseline_events_per_cpu_s": round(events / read),
        "ratio": round(read / whole, 4),
    }


def _append(writer: Any, crowd: Any, events: int) -> int:
    """Append that many events; return the last `received_at`."""
    last = 0
    while events > 0:
        batch: pa.RecordBatch = next(crowd)
        writer.append(batch)
        events -= batch.num_rows
        last = batch.column("received_at")[-1].as_py()
    return last


def _read(reader: Any, after: dict[int, int], max_events: int) -> None:
    while batches := reader.read(after, None, max_events):
        for batch in batches:
            pa.Table.from_batches([batch.events])
            after = {**after, batch.partition: batch.offset}


def _cpu(work: Any) -> float:
    start = time.process_time()
    work()
    return time.process_time() - start


def _rule(seed: int, active: int) -> float:
    """Return events a CPU-second of `interval.apply` alone, over the second and third round of a crowd."""
    batches = list(Synthetic(seed, START_MS, active=active).batches(3 * active, batch_rows=active))
    states, spent, counted = ViewStates.new(0), 0.0, 0
    known = np.zeros(0, np.int64)
    for batch in batches:
        table = pa.Table.from_batches([batch])
        keys = table["view_key"].to_numpy()
        fresh = np.setdiff1d(keys, known)
        states.grow(len(states) + len(fresh))
        known = np.concatenate([known, fresh])
        order = np.argsort(known)
        view = order[np.searchsorted(known, keys, sorter=order)]
        rows = np.lexsort((table["seq"].to_numpy(), view))
        touched, dense = np.unique(view[rows], return_inverse=True)
        columns = {n: table[n].to_numpy()[rows] for n in interval.RULE_COLUMNS if n != "cdn"}
        columns["cdn"] = np.full(len(rows), -1, np.int32)
        mine = states.take(touched)
        start = time.process_time()
        outcome = interval.apply(dense, columns, mine)
        spent += time.process_time() - start
        counted += len(rows)
        states.put(touched, outcome.states)
        del outcome  # as the stream jobs do: its trace would keep memory from the next batch
    return counted / spent
