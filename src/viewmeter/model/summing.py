"""Increments summed by time and group: what the speed layer does with a micro-batch, and the batch layer with an hour.

In: rows (time, group) and sparse amounts by measure. Out: one row for each (time, group) that occurs, and what goes
into its sketches. Columns only; words are the callers' business. Promised: sums are exact up to 2^53.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from viewmeter.model import segments as seg
from viewmeter.model.increments import SAMPLE_MS
from viewmeter.model.sketches import coupons

Array = npt.NDArray[Any]
Amounts = Mapping[str, tuple[Array, Array]]
"""Measure to (rows, amounts)."""

_SHORT_BITS: Final = np.uint64(32)
_SHORT: Final = np.uint64((1 << 32) - 1)


@dataclass(frozen=True)
class Summed:
    """Rows of one grouping, ascending by time, then group: when, which group, and the sums."""

    time_ms: Array
    group: Array
    sums: dict[str, Array]
    row_of: Array  # of each summed row: the row it went into


def used_rows(amounts: Amounts, count: int) -> Array:
    """Return which of `count` rows some measure names."""
    used = np.zeros(count, bool)
    for rows, _ in amounts.values():
        used[rows] = True
    return used


def sum_by(time_ms: Array, group: Array, amounts: Amounts) -> Summed:
    """Sum by (time, group); times are multiples of 10 s."""
    if not len(time_ms):
        return Summed(time_ms, group, {}, np.zeros(0, np.int64))
    steps, step = _steps(time_ms)
    width = int(group.max()) + 1
    key = step * width + group
    keys, row_of = seg.numbered(key, width * len(steps))
    count = len(keys)
    sums = {
        name: np.bincount(row_of[rows], weights=values, minlength=count).astype(np.int64)
        for name, (rows, values) in amounts.items()
    }
    return Summed(steps[keys // width], (keys % width).astype(np.int64), sums, row_of)


def _steps(time_ms: Array) -> tuple[Array, Array]:
    """Return the distinct times, or a dense range that holds them, and each row's place in it."""
    low = int(time_ms.min())
    span = (int(time_ms.max()) - low) // SAMPLE_MS + 1
    if span > 1_000:  # a replay of hours
        return np.unique(time_ms, return_inverse=True)
    return low + SAMPLE_MS * np.arange(span), (time_ms - low) // SAMPLE_MS


def sum_again(time_ms: Array, group: Array, summed: Summed) -> Summed:
    """Sum sums by other times and groups, one of each a row of `summed`."""
    everywhere = np.arange(len(time_ms))
    return sum_by(time_ms, group, {name: (everywhere, values) for name, values in summed.sums.items()})


@dataclass(frozen=True)
class Sketched:
    """What goes into sketches, by column: (rows, values). `*_hll` holds HLL coupons, `*_kll` plain values."""

    entries: dict[str, tuple[Array, Array]]

    @classmethod
    def of(cls, amounts: Amounts, viewer: Array) -> Sketched:
        """Take viewers of plays and startup times; `viewer`: hash of each row."""
        none = (np.zeros(0, np.int64), np.zeros(0, np.int64))
        plays = amounts.get("plays", none)[0]
        rows, values = amounts.get("startup_ms", none)
        return cls({"viewers_hll": (plays, coupons(viewer[plays])), "startup_kll": (rows, values.astype(np.float64))})

    def at(self, row_of: Array) -> Sketched:
        """Return the same, of summed rows."""
        return Sketched({name: (row_of[rows], values) for name, (rows, values) in self.entries.items()})

    def columns(self, count: int) -> dict[str, pa.Array]:
        """Return the list columns of a table of `count` rows."""
        return {
            name: lists(rows, values, count, pa.uint32(), distinct=True)
            if name.endswith("_hll")
            else lists(rows, values, count, pa.float64(), distinct=False)
            for name, (rows, values) in self.entries.items()
        }


def lists(rows: Array, values: Array, count: int, kind: pa.DataType, *, distinct: bool) -> pa.Array:
    """Return one ascending list a row; `distinct` drops equal values of a row (coupons are a set)."""
    if _are_short(values) and count < 1 << 31:
        # A row and its value are one number then, and sorting numbers takes a tenth of sorting by two columns.
        key = np.sort(rows.astype(np.uint64) << _SHORT_BITS | values.astype(np.uint64))
        rows, values = (key >> _SHORT_BITS).astype(np.int64), (key & _SHORT).astype(values.dtype)
    else:
        order = np.lexsort((values, rows))
        rows, values = rows[order], values[order]
    if distinct and len(rows):
        keep = seg.opens(rows) | seg.opens(values)
        rows, values = rows[keep], values[keep]
    offsets = np.zeros(count + 1, np.int32)
    np.cumsum(np.bincount(rows, minlength=count), out=offsets[1:])
    return pa.ListArray.from_arrays(pa.array(offsets), pa.array(values, kind))


def _are_short(values: Array) -> bool:
    """Return whether all are whole numbers of 32 bits."""
    if values.dtype == np.uint32 or not len(values):
        return True
    return bool(values.min() >= 0 and values.max() <= _SHORT and (values == np.rint(values)).all())
