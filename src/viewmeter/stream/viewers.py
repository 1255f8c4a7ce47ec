"""Distinct viewers from the presence of views: a viewer with two tabs on one video counts once.

In: runs of presence of views. Out: samples to add to or take from a video's concurrency. State: for each
(video, viewer), how many of its views were present at each of the last 64 samples (10 min 40 s): counters of two
bits, kept as two masks, exact up to three tabs. Samples older than the masks count as nobody else's.
"""

from __future__ import annotations

from itertools import pairwise
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from viewmeter.model import segments as seg
from viewmeter.model.increments import SAMPLE_MS, Presence, spread
from viewmeter.stream.slots import EMPTY, SlotMap

Array = npt.NDArray[Any]

_BITS: Final = 64
_COLUMNS: Final = ("keys", "top", "low", "high", "views")


def pair_keys(video_hashes: Array, viewer_hashes: Array) -> Array:
    """Return a 64-bit key of (video, viewer): splitmix64's finaliser over both."""
    with np.errstate(over="ignore"):
        x = viewer_hashes.astype(np.uint64) ^ (video_hashes.astype(np.uint64)) * np.uint64(0x9E3779B97F4A7C15)
        x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        mixed: Array = (x ^ (x >> np.uint64(31))).view(np.int64)
    return mixed


class Viewers:
    """Pairs of video and viewer, each with its counted samples. Pairs are numbered; numbers are never reused."""

    def __init__(self) -> None:
        self.keys: Array = np.zeros(0, np.int64)
        self.top: Array = np.zeros(0, np.int64)  # sample number of the masks' highest bit
        self.low: Array = np.zeros(0, np.uint64)
        self.high: Array = np.zeros(0, np.uint64)
        self.views: Array = np.zeros(0, np.int32)  # how many views of the pair are remembered
        self._slots = SlotMap()
        self._count = 0

    def __len__(self) -> int:
        return self._count

    def enter(self, keys: Array) -> Array:
        """Return the pair of each new view, and count the view to it."""
        distinct, inverse, times = np.unique(keys, return_inverse=True, return_counts=True)
        slots = self._slots.find(distinct)
        missing = np.flatnonzero(slots == EMPTY)
        slots[missing] = self._count + np.arange(len(missing))
        self._slots.put(distinct[missing], slots[missing])
        self._reserve(self._count + len(missing))
        self._count += len(missing)
        self.keys[slots[missing]] = distinct[missing]
        self.views[slots] += times.astype(np.int32)
        return slots[inverse].astype(np.int32)

    def leave(self, pairs: Array) -> None:
        """Forget that many views of the pairs."""
        np.subtract.at(self.views, pairs, 1)

    def columns(self) -> dict[str, Array]:
        """Return all that is known, one row a pair."""
        return {name: getattr(self, name)[: self._count] for name in _COLUMNS}

    @classmethod
    def restored(cls, columns: dict[str, Array]) -> Viewers:
        """Return the viewers that `columns()` returned."""
        viewers = cls()
        for name in _COLUMNS:
            setattr(viewers, name, columns[name])
        viewers._count = len(viewers.keys)
        viewers._slots = SlotMap(viewers.keys, np.arange(viewers._count))
        return viewers

    def rename(self, pairs: Array, keys: Array) -> None:
        """Give pairs other keys."""
        self.keys[pairs] = keys
        self._slots = SlotMap(self.keys[: self._count], np.arange(self._count))

    def compact(self) -> Array:
        """Drop pairs without views; return the new number of each old pair."""
        keep = self.views[: self._count] > 0
        for name in _COLUMNS:
            setattr(self, name, getattr(self, name)[: self._count][keep])
        self._count = len(self.keys)
        self._slots = SlotMap(self.keys, np.arange(self._count))
        return (np.cumsum(keep) - 1).astype(np.int32)

    def _reserve(self, count: int) -> None:
        if count > len(self.keys):
            room = max(count, 2 * len(self.keys), 1024)
            for name in _COLUMNS:
                old = getattr(self, name)
                new = np.zeros(room, old.dtype)
                new[: len(old)] = old
                setattr(self, name, new)

    def count(self, pairs: Array, runs: Presence) -> tuple[Array, Array, Array]:
        """Return (run, sample instant, +1 or -1), one row a sample that changes the number of viewers."""
        order = np.lexsort((runs.first, pairs))
        sorted_pairs = pairs[order]
        opens = seg.opens(sorted_pairs)
        if opens.all():
            bits = self._mark(pairs, runs.first // SAMPLE_MS, runs.count, runs.sign)
            return _expand([(np.arange(len(pairs)), bits)], runs)
        starts = np.flatnonzero(opens)
        rank = np.arange(len(order)) - starts[np.cumsum(opens) - 1]
        parts = []
        by_rank = np.argsort(rank, kind="stable")
        bounds = np.searchsorted(rank[by_rank], np.arange(rank.max(initial=-1) + 2))
        # One round holds at most one run a pair; ordinary traffic has one round or two.
        for begin, stop in pairwise(bounds.tolist()):
            rows = order[by_rank[begin:stop]]
            parts.append(
                (rows, self._mark(pairs[rows], runs.first[rows] // SAMPLE_MS, runs.count[rows], runs.sign[rows]))
            )
        return _expand(parts, runs)

    def _mark(self, pairs: Array, first: Array, count: Array, sign: Array) -> Array:
        """Count distinct pairs' samples up or down; return those that came or went, bit 0 = the run's first."""
        newer = np.maximum(first + count - 1 - self.top[pairs], 0)
        shift = np.minimum(newer, _BITS - 1).astype(np.uint64)
        kept = newer < _BITS
        low = np.where(kept, self.low[pairs] >> shift, 0).astype(np.uint64)
        high = np.where(kept, self.high[pairs] >> shift, 0).astype(np.uint64)
        top = self.top[pairs] + newer
        run = (np.uint64(1) << count.astype(np.uint64)) - np.uint64(1)
        place = first - top + (_BITS - 1)  # of the run's first sample; below 0 the masks do not reach
        inside = place >= 0
        shift = np.where(inside, place, 0).astype(np.uint64)
        wanted = np.where(inside, run << shift, 0).astype(np.uint64)
        some = low | high
        up = sign > 0
        moves = np.where(up, wanted & ~(low & high), wanted & some)
        changed = np.where(up, moves & ~some, moves & low & ~high)
        carry = moves & np.where(up, low, ~low)
        self.low[pairs] = low ^ moves
        self.high[pairs] = high ^ carry
        self.top[pairs] = top
        return np.where(inside, changed >> shift, run)


def _expand(parts: list[tuple[Array, Array]], runs: Presence) -> tuple[Array, Array, Array]:
    if not parts:
        none = np.zeros(0, np.int64)
        return none, none, none
    rows = np.concatenate([rows for rows, _ in parts])
    bits = np.concatenate([bits for _, bits in parts])
    some = bits != 0
    rows, bits = rows[some], bits[some]
    run, within = spread(runs.count[rows])
    on = (bits[run] >> within.astype(np.uint64)) & np.uint64(1) != 0
    run, within = run[on], within[on]
    row = rows[run]
    return row, runs.first[row] + within * SAMPLE_MS, runs.sign[row]
