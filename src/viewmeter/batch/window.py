"""One part of an hour's events put in order: distinct, by view and `seq`, and which of them the hour owns.

In: raw events of [hour - 5 min, hour + 65 min) of some views, in any order, repeated ones too; where each view stood
before the hour. Out: row numbers by what becomes of them. Promised: an event belongs to the hour in which its instant
(the running maximum of `ts` by `seq`) lies, so that hours cut a view into contiguous stretches of `seq`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from viewmeter.batch.carry import DIMENSIONS, Views
from viewmeter.model import segments as seg
from viewmeter.model.interval import RULE_COLUMNS
from viewmeter.model.ordering import WAIT_MS
from viewmeter.model.time import HOUR_MS, MINUTE_MS, Interval

Array = npt.NDArray[Any]

MARGIN_MS: Final = 5 * MINUTE_MS
"""An event's `ts` lies at most this far from those of its neighbours in `seq`, or its hour does not see it."""

NUMBERS: Final = ("view_key", "viewer_hash", "position_ms", "playback_rate", *(n for n in RULE_COLUMNS if n != "cdn"))
COLUMNS: Final = (*NUMBERS, *DIMENSIONS, "cdn")
"""The columns of raw events that an hour's run reads."""


def window_of(hour_ms: int) -> Interval:
    """Return the range of `ts` that an hour's run reads."""
    return Interval(hour_ms - MARGIN_MS, hour_ms + HOUR_MS + MARGIN_MS)


class Window:
    """The events of some views, as columns."""

    def __init__(self, hour_ms: int, table: pa.Table) -> None:
        self.hour_ms, self.end_ms = hour_ms, hour_ms + HOUR_MS
        self.table = table
        self.columns: dict[str, Array] = {name: table[name].to_numpy() for name in NUMBERS}
        key, seq = self.columns["view_key"], self.columns["seq"]
        order = _order(key, seq, self.columns["received_at"])
        again = np.zeros(len(order), bool)
        key, seq = key[order], seq[order]
        again[1:] = (key[1:] == key[:-1]) & (seq[1:] == seq[:-1])
        self.again = order[again]
        """Rows whose `seq` of their view was received before."""
        self.rows = order[~again]
        """The others, by view and seq; all that follows is by these."""
        self.key, self.seq = key[~again], seq[~again]
        self.ts = self.columns["ts"][self.rows]
        self.opens = seg.opens(self.key)
        self.segment = np.cumsum(self.opens) - 1

    def returning(self, known: Array) -> Array:
        """Return keys of views that are not `known` (ascending) though they seem to have been here before this hour."""
        instant = seg.running_max(self.ts, self.segment)
        inside = np.flatnonzero((instant >= self.hour_ms) & (instant < self.end_ms))
        first = inside[seg.opens(self.key[inside])]
        keys = np.union1d(self.key[first[self.seq[first] > 0]], self.columns["view_key"][self._inside(self.again)])
        return keys[place_of(known, keys) < 0]

    def _inside(self, rows: Array) -> Array:
        ts = self.columns["ts"][rows]
        return rows[(ts >= self.hour_ms) & (ts < self.end_ms)]

    def split(self, views: Views) -> Split:
        """Say what becomes of the rows, given where the views stood."""
        heads = np.flatnonzero(self.opens)
        at = place_of(views.keys, self.key[heads])
        applied = _of(views.states.max_seq, at, -1)
        holes = (applied + 1 > _of(views.events, at, 0))[self.segment]
        applied = applied[self.segment]
        old = self.seq <= applied
        before = _of(views.states.instant, at, np.iinfo(np.int64).min)[self.segment]
        instant = np.maximum(self.ts, before)
        instant[old] = np.iinfo(np.int64).min
        instant = seg.running_max(np.maximum(instant, before), self.segment)
        inside = ~old & (instant >= self.hour_ms) & (instant < self.end_ms)
        rows = np.flatnonzero(inside)
        late = self._late(rows)
        again = self._inside(np.concatenate([self.again, self.rows[old]]))
        pushed = np.flatnonzero(~old & (self.ts < self.end_ms) & (instant >= self.end_ms))
        with np.errstate(over="ignore"):
            mixed = (self.key[pushed] ^ self.seq[pushed] * 0x9E3779B97F4A7C1) * 0x2545F4914F6CDD1D
        fills = np.flatnonzero(old & holes & (self.ts >= self.hour_ms) & (self.ts < self.hour_ms + MARGIN_MS))
        received = self.columns["received_at"][self.rows[fills]]
        return Split(
            self.rows[rows], self.key[rows], late, again, int(np.sum(mixed)), int(received.max(initial=-1)), len(pushed)
        )

    def _late(self, rows: Array) -> Array:
        """Return which owned rows were received more than a second after a later event of their view."""
        received = self.columns["received_at"][self.rows]
        if not len(received):
            return np.zeros(0, bool)
        # The least `received_at` of what follows: a running maximum from the end, of negatives.
        backwards = seg.running_max(-received[::-1], (self.segment[-1] - self.segment)[::-1])
        least = -backwards[::-1]
        behind = np.full(len(received), np.iinfo(np.int64).max - WAIT_MS)
        behind[:-1] = np.where(self.opens[1:], behind[:-1], least[1:])
        late: Array = received[rows] > behind[rows] + WAIT_MS
        return late


@dataclass(frozen=True)
class Split:
    """What becomes of a window's events. Rows are those of its table."""

    rows: Array  # owned by the hour, by view and seq
    key: Array  # of each of them
    late: Array  # of each of them: whether a later event of its view was received more than a second before it
    again: Array  # repeated events whose `ts` lies in the hour
    pushed: int  # a sum over the events whose `ts` lies in the hour, but whose instant does not
    fills_received_at: int  # of the newest event that may fill a hole which the hour before left; -1 = none
    pushed_count: int


def place_of(keys: Array, wanted: Array) -> Array:
    """Return where in `keys` (ascending, distinct) each wanted key is, -1 where it is not."""
    if not len(keys):
        return np.full(len(wanted), -1, np.int64)
    at = np.minimum(np.searchsorted(keys, wanted), len(keys) - 1)
    return np.where(keys[at] == wanted, at, -1)


def _of(column: Array, at: Array, otherwise: int) -> Array:
    """Return the column at rows; `otherwise` where the row is -1."""
    out = np.full(len(at), otherwise, np.int64)
    known = at >= 0
    out[known] = column[at[known]]
    return out


def _order(key: Array, seq: Array, received_at: Array) -> Array:
    """Return the rows by view, seq and arrival.

    Files are sorted by view and seq, and lie one behind the other in time: a stable sort by key alone finds their runs
    and merges them, and only views whose events came in disorder are sorted by seq and arrival too. An eighth of the
    time of sorting by all three.
    """
    order = np.argsort(key, kind="stable")
    key, seq, received_at = key[order], seq[order], received_at[order]
    falls = (seq[1:] < seq[:-1]) | ((seq[1:] == seq[:-1]) & (received_at[1:] < received_at[:-1]))
    falls &= key[1:] == key[:-1]
    if falls.any():
        segment = np.cumsum(seg.opens(key)) - 1
        disordered = np.zeros(segment[-1] + 1, bool)
        disordered[segment[1:][falls]] = True
        at = np.flatnonzero(disordered[segment])
        order[at] = order[at][np.lexsort((received_at[at], seq[at], segment[at]))]
    return order
