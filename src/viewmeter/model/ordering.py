"""Before the rule: put a batch in order, drop what came twice, hold back what waits for its predecessor.

In: events as they arrived, with the highest `seq` applied of their views and the holes below it. Out: rows to apply
in order, rows that wait, late rows, duplicate rows. A pure function; `now_ms` is an argument.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from viewmeter.model import segments as seg

Array = npt.NDArray[Any]

WAIT_MS: Final = 1_000
"""An event behind a hole waits at most this long from its receipt."""

MAX_HOLES: Final = 64
"""Holes remembered a view. Beyond, the oldest is forgotten: an event that would fill it counts as a duplicate."""


class HoleBook:
    """The holes in `seq` of each view: which missing events may still come. Rare, so a dictionary serves."""

    def __init__(self) -> None:
        self.of: dict[int, list[tuple[int, int]]] = {}

    def add(self, views: Array, firsts: Array, lasts: Array) -> None:
        """Remember new holes (both ends inclusive), one a row, in ascending order a view."""
        for view, first, last in zip(views.tolist(), firsts.tolist(), lasts.tolist(), strict=True):
            holes = self.of.setdefault(view, [])
            holes.append((first, last))
            if len(holes) > MAX_HOLES:
                del holes[0]

    def fill(self, view: int, seq: int) -> bool:
        """Take `seq` out of the view's holes; return False if it was in none: a duplicate."""
        holes = self.of.get(view)
        if not holes:
            return False
        for at, (first, last) in enumerate(holes):
            if first <= seq <= last:
                rest = [(a, b) for a, b in ((first, seq - 1), (seq + 1, last)) if a <= b]
                holes[at : at + 1] = rest
                if not holes:
                    del self.of[view]
                return True
        return False

    def forget(self, views: Array) -> None:
        """Drop the views' holes."""
        if self.of:
            for view in views.tolist():
                self.of.pop(view, None)


@dataclass(frozen=True)
class Order:
    """Row numbers of the batch, by what becomes of them."""

    ready: Array  # sorted by view, then seq
    waiting: Array
    late: Array  # in order of arrival
    duplicate: Array


def order(
    view: Array,
    seq: Array,
    received_at: Array,
    max_seq: Array,
    holes: HoleBook,
    now_ms: int,
    wait_ms: int = WAIT_MS,
) -> Order:
    """Sort a batch out.

    view: any number that identifies the event's view, as `holes` knows it. max_seq: highest seq applied of the row's
    view. wait_ms: 0 lets nothing wait (a flush).
    """
    old = seq <= max_seq
    late, duplicate = _split_old(view, seq, np.flatnonzero(old), holes)
    rows = np.flatnonzero(~old) if old.any() else np.arange(len(seq))
    rows = rows[np.lexsort((seq[rows], view[rows]))]  # stable: of equals, the first that arrived stays first
    if not len(rows):
        return Order(rows, rows, late, duplicate)
    v, s = view[rows], seq[rows]
    opens = seg.opens(v)
    again = np.zeros(len(rows), bool)
    again[1:] = ~opens[1:] & (s[1:] == s[:-1])
    if again.any():
        duplicate = np.sort(np.concatenate([duplicate, rows[again]]))
        rows, v, s, opens = rows[~again], v[~again], s[~again], opens[~again]
    before = np.empty_like(s)
    before[1:] = s[:-1]
    before[opens] = max_seq[rows[opens]]
    gap = s - before != 1
    if not gap.any():
        return Order(rows, rows[:0], late, duplicate)
    received = received_at[rows]
    # Received later than now: the clock was put back, and nobody waits until it has come that far again.
    held = _held(opens, gap, (received <= now_ms - wait_ms) | (received > now_ms + WAIT_MS))
    return Order(rows[~held], rows[held], late, duplicate)


def _held(opens: Array, gap: Array, expired: Array) -> Array:
    """Return which of the sorted rows wait: those behind a gap, up to the last expired row of their view."""
    starts = np.flatnonzero(opens)
    view = np.cumsum(opens) - 1
    gaps = np.cumsum(gap)
    behind = gaps - (gaps[starts] - gap[starts])[view] > 0
    # What precedes an expired row, and what follows it without a gap, goes with it.
    number = np.arange(len(opens))
    last_expired = np.maximum.reduceat(np.where(expired, number, -1), starts)[view]
    freed = (number <= last_expired) | ((last_expired >= 0) & (gaps == gaps[last_expired]))
    held: Array = behind & ~freed
    return held


def _split_old(view: Array, seq: Array, rows: Array, holes: HoleBook) -> tuple[Array, Array]:
    if not len(rows):
        return rows, rows
    fills = np.fromiter(
        (holes.fill(v, s) for v, s in zip(view[rows].tolist(), seq[rows].tolist(), strict=True)),
        bool,
        len(rows),
    )
    return rows[fills], rows[~fills]
