"""Arithmetic over segments: rows sorted by group, where each group starts afresh.

All functions are columnar; `starts` are the first rows of the segments, ascending, the first one 0.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Final

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]

NOWHERE: Final = np.iinfo(np.int64).max
"""Row number of what does not occur; larger than every row, so that comparisons of order just work."""


def opens(group: Array) -> Array:
    """Return where a new group begins in a sorted column."""
    first = np.ones(len(group), bool)
    np.not_equal(group[1:], group[:-1], out=first[1:])
    return first


def one_key(columns: Iterable[tuple[Array, int]], count: int) -> tuple[Array, int]:
    """Return one number for each of `count` combinations of codes, and what all of them are below.

    columns: (codes, below what they are). The numbers are in the order of the first column, then of the second, ….
    """
    key, span = np.zeros(count, np.int64), 1
    for codes, size in columns:
        if span * size > 1 << 62:
            _, key = np.unique(key, return_inverse=True)
            span = count
        key, span = key * size + codes, span * size
    return key, span


def numbered(key: Array, span: int) -> tuple[Array, Array]:
    """Return the distinct numbers of `key`, ascending, and each row's place among them; all are in [0, span)."""
    if span > 4 * len(key) + 4096:
        distinct, number = np.unique(key, return_inverse=True)
        return distinct, number
    present = np.zeros(span, bool)  # dense enough to count in place instead of sorting
    present[key] = True
    return np.flatnonzero(present), (np.cumsum(present) - 1)[key]


def order(major: Array, minor: Array) -> Array:
    """Return the rows by two columns of whole numbers, `major` not negative; rows of equals stay in order.

    One stable sort, which finds the runs that are in order already, where both fit into one number.
    """
    if not len(major):
        return np.zeros(0, np.int64)
    low = minor.min()
    span = int(minor.max()) - int(low) + 1
    if span >= (1 << 62) // (int(major.max()) + 1):
        return np.lexsort((minor, major))
    return np.argsort(major.astype(np.int64) * span + (minor - low), kind="stable")


def last_where(condition: Array, starts: Array) -> Array:
    """Return for each row the last row up to it where the condition held, never before its segment's start.

    A segment's first row is taken where none held: callers put the carried state there.
    """
    rows = np.where(condition, np.arange(len(condition)), 0)
    rows[starts] = starts
    last: Array = np.maximum.accumulate(rows)
    return last


def running_max(values: Array, segment: Array) -> Array:
    """Return the running maximum inside each segment (`segment` = its number, ascending from 0)."""
    if len(values) == 0:
        return values
    low = values.min()
    span = int(values.max() - low) + 1
    if span >= (1 << 62) // (int(segment[-1]) + 1):
        # Ranks keep the order and are at most as many as rows: no overflow for any values.
        distinct, values = np.unique(values, return_inverse=True)
        by_rank: Array = distinct[running_max(values, segment)]
        return by_rank
    lift = segment * span
    highest: Array = np.maximum.accumulate(values - low + lift) - lift + low
    return highest


def running_sum(values: Array, starts: Array, segment: Array) -> Array:
    """Return the running sum inside each segment."""
    total = np.cumsum(values)
    before = total[starts] - values[starts]
    sums: Array = total - before[segment]
    return sums


def first_where(condition: Array, segment: Array, segments: int) -> Array:
    """Return each segment's first row where the condition holds, or `NOWHERE`."""
    first = np.full(segments, NOWHERE, np.int64)
    rows = np.flatnonzero(condition)
    if len(rows):
        of = segment[rows]
        head = opens(of)
        first[of[head]] = rows[head]
    return first
