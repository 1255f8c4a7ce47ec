"""Picks a sample of what became durable, and hands it to the figures every few seconds.

In: batches on their way into the log. Out: the same batches in the same log, and figures in a file. Promised: the
sample is of whole views, decided by `view_key` alone, so every worker picks the same ones; a batch is looked at after
it is durable, by the thread that appended it (9 µs a batch; nothing on the event loop); figures are made by a thread of
their own (0.17 µs an accepted event at a ratio of 1 %); at most MAX_WAITING_EVENTS wait for it, more are left out and
counted. What goes wrong here is logged, and never fails an append.
"""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Callable
from typing import Final

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import structlog

from viewmeter.collector import metrics
from viewmeter.collector.quality.figures import FIELDS, Figures, figures_of
from viewmeter.collector.quality.store import FiguresWriter
from viewmeter.eventlog.protocol import LogWriter

_log = structlog.get_logger(__name__)

MAX_WAITING_EVENTS: Final = 100_000
_FLUSH_EVERY_S: Final = 10.0
_PARTS: Final = 1_000_000


def sampled(view_keys: npt.NDArray[np.int64], ratio: float) -> npt.NDArray[np.bool_]:
    """Return which views are in a sample of that ratio. A view of a smaller sample is in every larger one."""
    picked: npt.NDArray[np.bool_] = view_keys.view(np.uint64) % np.uint64(_PARTS) < np.uint64(round(ratio * _PARTS))
    return picked


class QualityMonitor:
    """Makes figures of sampled events. `observe` may be called by any thread."""

    def __init__(self, writer: FiguresWriter, ratio: float, clock: Callable[[], int]) -> None:
        self._writer = writer
        self._ratio = ratio
        self._clock = clock
        self._waiting: list[pa.RecordBatch] = []
        self._waiting_events = 0
        self._lock = threading.Lock()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="quality", daemon=True)
        self._thread.start()

    def observe(self, batch: pa.RecordBatch) -> None:
        """Keep what the sample takes of a batch that is durable."""
        picked = sampled(batch.column("view_key").to_numpy(), self._ratio)
        if not picked.any():
            return
        part = batch if picked.all() else batch.filter(pa.array(picked))
        with self._lock:
            if self._waiting_events + part.num_rows > MAX_WAITING_EVENTS:
                metrics.QUALITY_LEFT_OUT.inc(part.num_rows)
                return
            self._waiting.append(part)
            self._waiting_events += part.num_rows

    def flush(self) -> None:
        """Put what waits into the figures. What goes wrong is logged."""
        with self._lock:
            waiting, self._waiting, self._waiting_events = self._waiting, [], 0
        if not waiting:
            return
        try:
            # One batch of all: each has a fixed price of about a millisecond, and there are hundreds under load.
            (whole,) = pa.Table.from_batches(waiting).unify_dictionaries().combine_chunks().to_batches()
            found = figures_of(whole)
            metrics.QUALITY_LEFT_OUT.inc(self._writer.add(found, self._clock()))
        except (sqlite3.Error, OSError, ValueError) as error:
            metrics.QUALITY_LEFT_OUT.inc(sum(batch.num_rows for batch in waiting))
            _log.warning("quality_not_kept", error=str(error))
            return
        _count(list(found.values()), whole)

    def close(self) -> None:
        """Flush, and end the thread. Idempotent."""
        self._stop.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._stop.wait(_FLUSH_EVERY_S):
            self.flush()
        self.flush()


def _count(found: list[Figures], whole: pa.RecordBatch) -> None:
    """Tell Prometheus, over all tenants and players."""
    metrics.QUALITY_SAMPLED.inc(sum(figures.events for figures in found))
    for name in FIELDS:
        if count := sum(figures.filled.get(name, 0) for figures in found):
            metrics.QUALITY_FILLED.labels(name).inc(count)
    skew = whole.column("received_at").to_numpy() - whole.column("ts").to_numpy()
    for value in (skew / 1_000).tolist():
        metrics.QUALITY_SKEW.observe(value)


class SampledLog:
    """A log whose batches are looked at once they are durable."""

    def __init__(self, log: LogWriter, monitor: QualityMonitor) -> None:
        self._log = log
        self._monitor = monitor

    def append(self, events: pa.RecordBatch) -> int:
        """Make the batch durable; return its offset. Raises `LogUnavailableError`."""
        offset = self._log.append(events)
        try:
            self._monitor.observe(events)
        except Exception as error:  # noqa: BLE001  a batch that is durable must not be refused
            _log.error("quality_sample_failed", error=repr(error))
        return offset

    def close(self) -> None:
        """Put what was sampled into the figures, and release the partition."""
        self._monitor.close()
        self._log.close()
