"""Finished metrics from merged measures: the last step, where parts are divided.

In: the store's tables, and for each row its cell (group and bucket). Out: one list of values a metric, a value a
cell. Promised: sums stay whole numbers, a value over nothing is None, a cell without rows is 0 for what adds up.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from viewmeter.model.catalogue import METRICS
from viewmeter.model.catalogue.expressions import Ref
from viewmeter.model.catalogue.measures import MEASURES, Kind, Measure
from viewmeter.model.catalogue.metrics import Distinct, Exact, Formula, Gauge, Histogram, Quantile
from viewmeter.model.sketches import hll_estimate, kll_quantile, merge_hll, merge_kll
from viewmeter.model.time import SECOND_MS, floor_to

Array = npt.NDArray[Any]

SAMPLE_MS: Final = 10 * SECOND_MS
_SAMPLE_LAG_MS: Final = 20 * SECOND_MS
"""In a bucket that is still open, samples this old are there for certain; newer ones count as soon as they are."""


@dataclass
class Cells:
    """Merged measures by cell; a cell is a group in a bucket."""

    count: int
    sums: dict[str, Array] = field(default_factory=dict)
    sketches: dict[str, dict[int, bytes]] = field(default_factory=dict)
    samples: dict[tuple[str, str], Array] = field(default_factory=dict)  # (measure, "last" or "max")
    counts: Array | None = None  # exact distinct viewers

    @property
    def nothing(self) -> Array:
        """What nobody had rows of: a 0 in each cell."""
        return np.zeros(self.count, np.int64)

    def summed(self, name: str) -> Array:
        """Return the sum of each cell."""
        return self.sums.get(name, self.nothing)

    def of(self, cells: Array) -> Cells:
        """Return some of the cells, in this order. Only what is no sketch: those are never merged for all."""
        sums = {name: values[cells] for name, values in self.sums.items()}
        samples = {name: values[cells] for name, values in self.samples.items()}
        return Cells(len(cells), sums, {}, samples, None if self.counts is None else self.counts[cells])

    @staticmethod
    def of_rows(table: pa.Table) -> Cells:
        """Return the cells of a scan whose rows are groups in one bucket, without its sketches."""
        names = (name for name in table.column_names if name in MEASURES and MEASURES[name].kind is Kind.ADDITIVE)
        return Cells(table.num_rows, {name: table[name].to_numpy() for name in names})

    def add(self, table: pa.Table, cell: Array) -> None:
        """Add merged measures to what is there. `cell` of each row, -1 = not shown."""
        shown = np.flatnonzero(cell >= 0)
        place = cell[shown]
        for name in table.column_names:
            measure = MEASURES.get(name)
            if measure is None:
                continue
            if measure.kind is Kind.ADDITIVE:
                sums = self.sums.setdefault(name, np.zeros(self.count, np.int64))
                np.add.at(sums, place, table[name].to_numpy()[shown])
            elif measure.kind in (Kind.HLL, Kind.KLL):
                self._add_sketches(measure, table[name].take(pa.array(shown)).to_pylist(), place.tolist())

    def _add_sketches(self, measure: Measure, column: list[bytes | None], place: list[int]) -> None:
        held = self.sketches.setdefault(measure.name, {})
        merge = merge_hll if measure.kind is Kind.HLL else merge_kll
        for cell, sketch in zip(place, column, strict=True):
            if sketch is not None:
                before = held.get(cell)
                held[cell] = sketch if before is None else merge((before, sketch)) or sketch

    def add_samples(self, table: pa.Table, cell: Array, last_sample_ms: Array) -> None:
        """Add samples of gauges; `last_sample_ms` of each cell's bucket."""
        shown = np.flatnonzero(cell >= 0)
        place, time_ms = cell[shown], table["time_ms"].to_numpy()[shown]
        for name in _gauges(table):
            values = table[name].to_numpy()[shown]
            largest, last = self._sampled(name)
            np.maximum.at(largest, place, values)
            is_last = time_ms == last_sample_ms[place]
            np.maximum.at(last, place[is_last], values[is_last])

    def add_peaks(self, table: pa.Table, cell: Array, which: str) -> None:
        """Add what is left of samples: the largest, or the last of buckets that have no samples at their end."""
        shown = np.flatnonzero(cell >= 0)
        for name in _gauges(table):
            values = self._sampled(name)[0 if which == "largest" else 1]
            np.maximum.at(values, cell[shown], table[name].to_numpy()[shown])

    def _sampled(self, name: str) -> tuple[Array, Array]:
        largest = self.samples.setdefault((name, "max"), np.zeros(self.count, np.int64))
        return largest, self.samples.setdefault((name, "last"), np.zeros(self.count, np.int64))

    def add_counts(self, counts: Array, cell: Array) -> None:
        """Add exact counts: each cell has one at most."""
        if self.counts is None:
            self.counts = np.zeros(self.count, np.int64)
        shown = np.flatnonzero(cell >= 0)
        self.counts[cell[shown]] = counts[shown]


def _gauges(table: pa.Table) -> list[str]:
    return [name for name in table.column_names if name in MEASURES and MEASURES[name].kind is Kind.GAUGE]


def last_samples(edges_ms: tuple[int, ...], now_ms: int, newest_ms: int | None) -> Array:
    """Return the instant of each bucket's last sample.

    A sample at which nobody was present has no row, so the last row of a bucket is not its last sample. A bucket that
    is still open ends at its newest sample (`newest_ms`, of whoever was scanned), or `_SAMPLE_LAG_MS` ago.
    """
    settled = floor_to(now_ms - _SAMPLE_LAG_MS, SAMPLE_MS)
    newest = settled if newest_ms is None else max(settled, min(newest_ms, now_ms))
    ends = np.asarray(edges_ms[1:], np.int64)
    return np.minimum((ends - 1) // SAMPLE_MS * SAMPLE_MS, newest)


def metric_values(name: str, cells: Cells) -> list[Any]:
    """Return the metric's value of each cell, as JSON has it."""
    metric = METRICS[name]
    if isinstance(metric, Formula):
        if isinstance(metric.expr, Ref):
            return _whole(cells.summed(metric.expr.name))
        return [None if math.isnan(v) else v for v in _formula(metric, cells).tolist()]
    if isinstance(metric, Histogram):
        columns = [_whole(cells.summed(m.name)) for m in metric.buckets.values()]
        return [dict(zip(metric.buckets, row, strict=True)) for row in zip(*columns, strict=True)]
    if isinstance(metric, Gauge):
        return _whole(cells.samples.get((metric.sample.name, metric.over_time), cells.nothing))
    if isinstance(metric, Exact):
        return _whole(cells.nothing if cells.counts is None else cells.counts)
    if isinstance(metric, Distinct):
        # An estimate of a count is a whole number; for few viewers that makes it the very count.
        counts = [0] * cells.count
        for cell, sketch in cells.sketches.get(metric.sketch.name, {}).items():
            counts[cell] = round(hll_estimate(sketch))
        return counts
    if isinstance(metric, Quantile):
        values: list[float | None] = [None] * cells.count
        for cell, sketch in cells.sketches.get(metric.sketch.name, {}).items():
            values[cell] = kll_quantile(sketch, metric.quantile)
        return values
    raise TypeError(f"{name}: no way to compute a {type(metric).__name__} is known; add it here")


def metric_order(name: str, cells: Cells) -> Array:
    """Return the metric's values as floats to sort by; NaN where there is none."""
    metric = METRICS[name]
    if isinstance(metric, Formula):
        return _formula(metric, cells)
    return np.array([math.nan if v is None else v for v in metric_values(name, cells)], np.float64)


def _formula(metric: Formula, cells: Cells) -> Array:
    if isinstance(metric.expr, Ref):
        return cells.summed(metric.expr.name).astype(np.float64)
    columns: Mapping[str, Array] = {n: cells.summed(n).astype(np.float64) for n in metric.measures()}
    return np.broadcast_to(metric.evaluate(columns), (cells.count,))


def _whole(values: Array) -> list[int]:
    found: list[int] = values.tolist()
    return found
