"""Which stretches of the content a view played: pieces by interval, put together to runs.

In: how the rule went through a batch, the positions and rates that its events told, and what each view brought along.
Out: `Contents` for the next batch; of ended views the distinct content and the retention steps. Promised: pure,
columnar, and independent of the cut into batches. Source: DESIGN 4 (`average_percentage_watched`, `retention`);
decision 0085 settles what its words leave open (numbers in comments are its points).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from viewmeter.model import segments as seg
from viewmeter.model.events import EventType
from viewmeter.model.interval import Trace

Array = npt.NDArray[Any]

JUMP_MS: Final = 2_000
"""A told position this far from the expected one, or less, goes on with the run: players round and buffer."""

MAX_RUNS: Final = 1_000
"""Runs kept a view. Later ones of a view with more are left out: its distinct content is then a lower bound."""

PERCENTS: Final = 100


@dataclass(frozen=True)
class Runs:
    """Stretches of content `[begin, end)` in ms, ascending by view; of one view in the order of playing."""

    view: Array
    begin: Array
    end: Array

    @staticmethod
    def none() -> Runs:
        """Return no runs."""
        return Runs(*(np.zeros(0, np.int64) for _ in range(3)))

    def where(self, keep: Array) -> Runs:
        """Return those that the mask keeps."""
        return Runs(self.view[keep], self.begin[keep], self.end[keep])


@dataclass
class Contents:
    """What each view brings along: one entry a view, and its runs."""

    position: Array  # where the playhead is expected, ms; -1 = never told and nothing played
    rate: Array  # last known; 1 where never told
    broken: Array  # a seek or a jump came since the last run's last piece
    runs: Runs

    @staticmethod
    def new(count: int) -> Contents:
        """Return `count` views of which nothing is known."""
        return Contents(np.full(count, -1, np.int64), np.ones(count), np.zeros(count, bool), Runs.none())


def follow(trace: Trace, position_ms: Array, playback_rate: Array, before: Contents, open_before: Array) -> Contents:
    """Return the contents after the batch.

    position_ms, playback_rate: of the events, -1 = not told. open_before: views whose end had not come before. Of a
    view that ends in the batch, what it plays after its end is left out; of one that ended before, everything is.
    """
    rows = trace.rows
    told = _joined(rows, position_ms, before.position)
    rate = _joined(rows, playback_rate, before.rate)
    known = rate > 0
    known[rows.starts] = True
    rate = rows.carried_on(rate, known)
    length = (trace.played * rows.before(rate)).astype(np.int64)
    length[rows.starts] = 0
    position = _positions(rows, told, length)

    seeks = rows.is_event & (rows.kind == EventType.SEEK)
    was = rows.before(position)
    met = rows.is_event & (told >= 0) & (was >= 0)
    breaks = seeks | (met & (np.abs(told - (was + length)) > JUMP_MS))
    carried = np.bincount(before.runs.view, minlength=len(before.rate))
    number = breaks.astype(np.int64)
    number[rows.starts] = np.where((carried > 0) & ~before.broken, carried - 1, carried)
    number = seg.running_sum(number, rows.starts, rows.segment)

    upto = np.where(open_before, seg.NOWHERE, -1)
    upto[trace.ends.view] = trace.ends.upto
    at = np.flatnonzero((length > 0) & (np.arange(rows.size) <= upto[rows.segment]))
    # Point 3: before any position was told, the first one told says where the piece ended.
    blank = was[at] < 0
    begin = np.where(blank, np.where((told[at] >= 0) & ~seeks[at], np.maximum(told[at] - length[at], 0), 0), was[at])
    pieces = rows.segment[at], rows.before(number)[at], begin, begin + length[at]
    runs, last = _runs(before.runs, pieces, len(before.rate))
    ends = rows.ends
    return Contents(position[ends], rate[ends], (number[ends] > last) | (last >= MAX_RUNS), runs)


def _joined(rows: Any, values: Array, carried: Array) -> Array:
    out = np.empty(rows.size, values.dtype)
    out[rows.event_rows] = values
    out[rows.starts] = carried
    return out


def _positions(rows: Any, told: Array, length: Array) -> Array:
    """Return the playhead after each row: told, else the last one and what was played since; -1 = unknown."""
    advanced = seg.running_sum(length, rows.starts, rows.segment)
    fixed = told >= 0
    last = seg.last_where(fixed, rows.starts)
    anchor = told[last]
    since = advanced - advanced[last]
    advance = np.where(since > 0, since, -1)
    position: Array = np.where(anchor >= 0, anchor + since, advance)
    return position


def _runs(carried: Runs, pieces: tuple[Array, Array, Array, Array], views: int) -> tuple[Runs, Array]:
    """Put pieces (view, run number, begin, end) to the carried runs; return them, and each view's last number."""
    view, number, begin, end = pieces
    if len(carried.view):
        first = np.searchsorted(carried.view, carried.view)
        place = np.arange(len(carried.view)) - first
        view = np.concatenate([carried.view, view])
        number = np.concatenate([place, number])
        begin, end = np.concatenate([carried.begin, begin]), np.concatenate([carried.end, end])
        order = seg.order(view, number)
        view, number, begin, end = view[order], number[order], begin[order], end[order]
    last = np.full(views, -1, np.int64)
    if not len(view):
        return Runs.none(), last
    opens = seg.opens(view)
    opens[1:] |= number[1:] != number[:-1]
    at = np.flatnonzero(opens)
    runs = Runs(view[at], np.minimum.reduceat(begin, at), np.maximum.reduceat(end, at))
    last[view] = number  # ascending by view: the last one written stands
    rank = np.arange(len(at)) - np.searchsorted(runs.view, runs.view)
    if len(rank) and rank.max() >= MAX_RUNS:
        runs = runs.where(rank < MAX_RUNS)
    return runs, last


def clipped(runs: Runs, duration_ms: Array) -> Runs:
    """Return the parts of the runs inside of the content; `duration_ms` by view, 0 or less: nothing of it."""
    length = duration_ms[runs.view]
    begin, end = np.clip(runs.begin, 0, None), np.minimum(runs.end, length)
    return Runs(runs.view, begin, end).where(begin < end)


def distinct_ms(runs: Runs, views: int) -> Array:
    """Return for each of `views` views how much of the content its runs cover, each ms once."""
    covered = np.zeros(views, np.int64)
    if len(runs.view):
        order = seg.order(runs.view, runs.begin)
        view, begin, end = runs.view[order], runs.begin[order], runs.end[order]
        opens = seg.opens(view)
        segment = np.cumsum(opens) - 1
        reached = seg.running_max(end, segment)
        before = np.empty_like(reached)
        before[1:] = reached[:-1]
        before[opens] = 0
        np.add.at(covered, view, np.maximum(end - np.maximum(begin, before), 0))
    return covered


def retention_steps(runs: Runs, duration_ms: Array) -> tuple[Array, Array, Array]:
    """Return (view, percent, +1 or -1): where clipped runs begin, and the percent behind each one's last."""
    length = duration_ms[runs.view]
    first = runs.begin * PERCENTS // length
    behind = (runs.end * PERCENTS - 1) // length + 1
    ends = behind < PERCENTS
    return (
        np.concatenate([runs.view, runs.view[ends]]),
        np.concatenate([first, behind[ends]]),
        np.concatenate([np.ones(len(first), np.int64), np.full(int(ends.sum()), -1, np.int64)]),
    )
