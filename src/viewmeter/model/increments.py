"""What the interval rule says: amounts of measures at instants, and runs of presence. Columns, sparse by measure.

Most events are heartbeats that touch a handful of the forty measures, so amounts are kept as (rows, values) per measure
rather than as forty dense columns: measured, that is the difference between 0.3 and 1.6 µs an event when summing.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]

SAMPLE_MS: Final = 10_000
"""Concurrency is sampled at the multiples of this."""


@dataclass(frozen=True)
class Increments:
    """Rows (view, instant, bitrate, cdn) and, by measure, which rows add how much.

    view: row of the states given to the rule. instant: ms. bitrate_kbps: 0 = unknown. cdn: code, -1 = unknown.
    amounts: measure -> (rows, int64 amounts). Rows that no measure names are without meaning.
    """

    view: Array
    instant: Array
    bitrate_kbps: Array
    cdn: Array
    amounts: dict[str, tuple[Array, Array]]

    @staticmethod
    def builder(view: Array, instant: Array) -> Builder:
        """Begin with one row for each of the rule's rows."""
        return Builder(view, instant)

    @staticmethod
    def none() -> Increments:
        """Return no increments."""
        nothing = np.zeros(0, np.int64)
        return Increments.builder(nothing, nothing).build()

    @staticmethod
    def joined(parts: list[Increments]) -> Increments:
        """Put increments over the same states end to end."""
        if len(parts) == 1:
            return parts[0]
        offsets = np.cumsum([0, *(len(part.view) for part in parts)])
        amounts: dict[str, list[tuple[Array, Array]]] = {}
        for part, offset in zip(parts, offsets, strict=False):
            for name, (rows, values) in part.amounts.items():
                amounts.setdefault(name, []).append((rows + offset, values))
        return Increments(
            np.concatenate([p.view for p in parts]),
            np.concatenate([p.instant for p in parts]),
            np.concatenate([p.bitrate_kbps for p in parts]),
            np.concatenate([p.cdn for p in parts]),
            {name: _end_to_end(pieces) for name, pieces in amounts.items()},
        )


class Builder:
    """Collects amounts while the rule goes through its steps."""

    def __init__(self, view: Array, instant: Array) -> None:
        self._views = [view]
        self._instants = [instant]
        self.bitrate: Array = np.zeros(len(view), np.int32)
        self.cdn: Array = np.full(len(view), -1, np.int32)
        self._extra_bitrates: list[Array] = []
        self._extra_cdns: list[Array] = []
        self._size = len(view)
        self._amounts: dict[str, list[tuple[Array, Array]]] = {}

    def of_interval(self, bitrate_kbps: Array, cdn: Array) -> None:
        """Set what the rows' intervals played."""
        self.bitrate, self.cdn = bitrate_kbps.astype(np.int32), cdn.astype(np.int32)

    def extra(self, view: Array, instant: Array, bitrate_kbps: Array, cdn: Array) -> Array:
        """Add rows of their own; return their numbers."""
        self._views.append(view)
        self._instants.append(instant)
        self._extra_bitrates.append(np.asarray(bitrate_kbps, np.int32))
        self._extra_cdns.append(np.asarray(cdn, np.int32))
        first, self._size = self._size, self._size + len(view)
        return np.arange(first, self._size)

    def add(self, measure: str, rows: Array, amounts: Array | int) -> None:
        """Add to a measure at rows; one amount for all, or one each."""
        if len(rows):
            values = np.broadcast_to(np.asarray(amounts, np.int64), rows.shape)
            self._amounts.setdefault(measure, []).append((rows, values))

    def build(self) -> Increments:
        """Return all that was added."""
        return Increments(
            np.concatenate(self._views),
            np.concatenate(self._instants),
            np.concatenate([self.bitrate, *self._extra_bitrates]),
            np.concatenate([self.cdn, *self._extra_cdns]),
            {name: _end_to_end(pieces) for name, pieces in self._amounts.items()},
        )


@dataclass(frozen=True)
class Presence:
    """Runs of samples at which a view is present: `count` multiples of 10 s from `first` on.

    sign is 1, or -1 where an earlier run claimed samples that the view's next event denies.
    """

    view: Array
    first: Array  # ms, a multiple of SAMPLE_MS
    count: Array
    sign: Array

    @staticmethod
    def of(view: Array, start: Array, stop: Array, sign: int) -> Presence:
        """Return the samples inside of half-open ranges; ranges without one are dropped."""
        first = -(-start // SAMPLE_MS)
        count = -(-stop // SAMPLE_MS) - first
        some = count > 0
        return Presence(view[some], first[some] * SAMPLE_MS, count[some], np.full(int(some.sum()), sign, np.int64))

    @staticmethod
    def joined(*parts: Presence) -> Presence:
        """Put runs end to end."""
        return Presence(
            np.concatenate([p.view for p in parts]),
            np.concatenate([p.first for p in parts]),
            np.concatenate([p.count for p in parts]),
            np.concatenate([p.sign for p in parts]),
        )

    def samples(self) -> tuple[Array, Array, Array]:
        """Return (view, instant, sign), one row a sample."""
        run, within = spread(self.count)
        return self.view[run], self.first[run] + within * SAMPLE_MS, self.sign[run]


def spread(count: Array) -> tuple[Array, Array]:
    """Return for `count[i]` rows each of i: i itself, and the row's place among its own from 0."""
    of = np.repeat(np.arange(len(count)), count)
    return of, np.arange(len(of)) - np.repeat(np.cumsum(count) - count, count)


def _end_to_end(pieces: list[tuple[Array, Array]]) -> tuple[Array, Array]:
    if len(pieces) == 1:
        return pieces[0]
    return np.concatenate([rows for rows, _ in pieces]), np.concatenate([values for _, values in pieces])
