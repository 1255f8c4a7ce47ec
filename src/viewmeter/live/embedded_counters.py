"""Counters of the last minutes by video, channel and tenant: frames of sparse sums.

In: rows of additive measures at a 10 s grain. Out: sums over a scope and a window. Promised: a frame is never
changed once readers can see it (publishing puts a new one in its place), so reading takes no lock. Not done: measures
of a video that are zero take no room; most of a heartbeat's 46 are.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from viewmeter.model.catalogue.measures import ADDITIVE

Array = npt.NDArray[Any]

MEASURE_NAMES: Final = tuple(m.name for m in ADDITIVE)
_WIDTH: Final = 1 << (len(MEASURE_NAMES) - 1).bit_length()
_CHUNKS_MAX: Final = 16
"""Pieces of a frame before they are put together: publishing stays cheap, and reading looks at few pieces."""

Level = tuple[str, ...]
"""(tenant,), (tenant, channel) or (tenant, channel, video)."""


@dataclass(frozen=True)
class Chunk:
    """Sums as sorted cells: `key` = owner * _WIDTH + measure."""

    key: Array
    value: Array

    @staticmethod
    def of(owner: Array, measure: Array, value: Array) -> Chunk:
        """Sum cells of equal owner and measure."""
        key, inverse = np.unique(owner.astype(np.int64) * _WIDTH + measure, return_inverse=True)
        total = np.zeros(len(key), np.int64)
        np.add.at(total, inverse, value)
        return Chunk(key, total)

    @staticmethod
    def joined(chunks: Iterable[Chunk]) -> Chunk:
        """Sum chunks into one."""
        parts = list(chunks)
        key = np.concatenate([c.key for c in parts])
        return Chunk.of(key // _WIDTH, key % _WIDTH, np.concatenate([c.value for c in parts]))

    def add_to(self, sums: Array, owners: Array) -> None:
        """Add the cells of these owners to one sum a measure."""
        starts = np.searchsorted(self.key, owners * _WIDTH)
        ends = np.searchsorted(self.key, (owners + 1) * _WIDTH)
        for start, end in zip(starts.tolist(), ends.tolist(), strict=True):
            sums[self.key[start:end] % _WIDTH] += self.value[start:end]


Frames = Mapping[int, tuple[Chunk, ...]]
"""Start of a frame to its pieces."""


def with_chunk(frames: Frames, time_ms: int, chunk: Chunk, newest_ms: int) -> dict[int, tuple[Chunk, ...]]:
    """Return the frames with one more piece; closed frames become one piece again."""
    pieces = (*frames.get(time_ms, ()), chunk)
    if len(pieces) > _CHUNKS_MAX or (len(pieces) > 1 and time_ms < newest_ms):
        pieces = (Chunk.joined(pieces),)
    return {**frames, time_ms: pieces}


def since(frames: Frames, oldest_ms: int) -> dict[int, tuple[Chunk, ...]]:
    """Return the frames from `oldest_ms` on."""
    return {time_ms: pieces for time_ms, pieces in frames.items() if time_ms >= oldest_ms}


def sums(frames: Frames, owners: Array, start_ms: int, end_ms: int) -> Array:
    """Return one sum a measure over frames that start in `[start_ms, end_ms)`."""
    total = np.zeros(_WIDTH, np.int64)
    if len(owners):
        for time_ms, pieces in frames.items():
            if start_ms <= time_ms < end_ms:
                for piece in pieces:
                    piece.add_to(total, owners)
    return total


@dataclass
class Names:
    """Owners of one level by number. Only the publisher adds; readers look up."""

    number: dict[Level, int] = field(default_factory=dict)
    by_last: dict[str, list[int]] = field(default_factory=dict)  # last word (the id asked for) -> owners
    level: list[Level] = field(default_factory=list)

    def enter(self, level: Level) -> int:
        """Return the owner's number, a new one where it has none."""
        found = self.number.get(level)
        if found is None:
            found = len(self.level)
            self.level.append(level)
            self.by_last.setdefault(level[-1], []).append(found)
            self.number[level] = found
        return found

    def kept(self, owners: Array) -> tuple[Names, Array]:
        """Return names of these owners only, and old number -> new number (-1 = gone)."""
        names, moved = Names(), np.full(len(self.level), -1, np.int64)
        for old in owners.tolist():
            moved[old] = names.enter(self.level[old])
        return names, moved


def owners_in(frames: Frames) -> Array:
    """Return which owners have cells."""
    keys = [piece.key // _WIDTH for pieces in frames.values() for piece in pieces]
    return np.unique(np.concatenate(keys)) if keys else np.zeros(0, np.int64)


def renumbered(frames: Frames, moved: Array) -> dict[int, tuple[Chunk, ...]]:
    """Return the frames with new owner numbers."""
    out: dict[int, tuple[Chunk, ...]] = {}
    for time_ms, pieces in frames.items():
        whole = Chunk.joined(pieces)
        out[time_ms] = (Chunk.of(moved[whole.key // _WIDTH], whole.key % _WIDTH, whole.value),)
    return out
