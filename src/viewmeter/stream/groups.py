"""Which rollup rows a view counts in: settled once, when its dimensions freeze, and kept as small numbers.

A group is a distinct combination of a rollup's keys (DESIGN 4), numbered from 0. A view knows its number in each
rollup, so that summing events is arithmetic on integers and the words are touched again only when rows are written.
"""

from __future__ import annotations

from typing import Any, Final

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from viewmeter.model import segments as seg
from viewmeter.model.catalogue import SPEED_ROLLUPS
from viewmeter.model.events import view_key

Array = npt.NDArray[Any]

PER_INTERVAL: Final = ("cdn", "bitrate_bucket")
"""Dimensions that belong to an interval, not to its view; they are no part of a group."""

GROUPED: Final[dict[str, tuple[str, ...]]] = {
    name: tuple(key for key in rollup.keys if key not in PER_INTERVAL)
    for name, rollup in SPEED_ROLLUPS.items()
    if name != "concurrency"  # keyed as `video` is
}
PARENTS: Final = ("channel", "platform")
"""Rollups whose rows are sums of `video` rows; views need not know their groups."""

VIEW_KEYS: Final = tuple(dict.fromkeys(key for keys in GROUPED.values() for key in keys))
"""Every column of an event that some group needs."""


class Coded:
    """A column as small integers and the values behind them."""

    def __init__(self, codes: Array, words: Array) -> None:
        self.codes, self.words = codes, words

    @classmethod
    def of(cls, column: pa.ChunkedArray) -> Coded:
        """Encode a column of words (dictionary or not) or of booleans."""
        if not pa.types.is_dictionary(column.type):
            column = column.dictionary_encode()
        encoded = column.unify_dictionaries().combine_chunks()
        words = np.array(encoded.dictionary.to_pylist(), object)
        return cls(encoded.indices.to_numpy(zero_copy_only=False).astype(np.int64), words)

    def values(self, rows: Array) -> list[Any]:
        """Return the values at rows."""
        out: list[Any] = self.words[self.codes[rows]].tolist()
        return out


def _distinct(columns: list[Coded]) -> tuple[Array, Array]:
    """Return a row of each distinct combination, and which combination each row has."""
    coded = ((column.codes, max(1, len(column.words))) for column in columns)
    key, _ = seg.one_key(coded, len(columns[0].codes))
    _, first, row_of = np.unique(key, return_index=True, return_inverse=True)
    return first, row_of


class Groups:
    """The groups of one rollup."""

    def __init__(self, keys: tuple[str, ...]) -> None:
        self.keys = keys
        self._numbers: dict[tuple[Any, ...], int] = {}
        self._columns: dict[str, Array] = {key: np.empty(16, object) for key in keys}
        self._hashes = np.empty(16, np.int64)

    def __len__(self) -> int:
        return len(self._numbers)

    def number(self, columns: dict[str, Coded]) -> Array:
        """Return the group of each row; new combinations get the next numbers."""
        mine = [columns[key] for key in self.keys]
        first, row_of = _distinct(mine)
        rows = zip(*(column.values(first) for column in mine), strict=True)
        known = self._numbers
        numbers = np.empty(len(first), np.int32)
        for at, row in enumerate(rows):
            number = known.get(row)
            numbers[at] = self._add(row) if number is None else number
        return numbers[row_of]

    def _add(self, row: tuple[Any, ...]) -> int:
        number = self._numbers[row] = len(self._numbers)
        for key, value in zip(self.keys, row, strict=True):
            column = self._columns[key]
            if number == len(column):
                self._columns[key] = column = np.concatenate([column, np.empty(number, object)])
            column[number] = value
        if number == len(self._hashes):
            self._hashes = np.concatenate([self._hashes, np.empty(number, np.int64)])
        self._hashes[number] = view_key(*("\0".join(map(str, part)) for part in (row[:1], row[1:])))
        return number

    def hashes(self, numbers: Array) -> Array:
        """Return a 64-bit hash of each group's words, which outlives its number."""
        found: Array = self._hashes[numbers]
        return found

    def keep(self, numbers: Array) -> Array:
        """Drop all groups but these (ascending); return the new number of each old one (of dropped ones: any)."""
        size = len(self)
        self._numbers = {}
        columns, self._columns = self._columns, {key: np.empty(16, object) for key in self.keys}
        for row in zip(*(columns[key][numbers].tolist() for key in self.keys), strict=True):
            self._add(row)
        new = np.zeros(size, np.int32)
        new[numbers] = np.arange(len(numbers))
        return new

    def words(self, key: str, numbers: Array) -> pa.Array:
        """Return a key's values for groups, as Arrow."""
        kind = pa.bool_() if key == "is_bot" else pa.string()
        return pa.array(self._columns[key][numbers], kind)

    def table(self) -> pa.Table:
        """Return all groups, in order."""
        everyone = np.arange(len(self))
        return pa.table({key: self.words(key, everyone) for key in self.keys})

    @classmethod
    def restored(cls, table: pa.Table) -> Groups:
        """Return the groups that `table()` returned."""
        groups = cls(tuple(table.column_names))
        for row in zip(*(table.column(key).to_pylist() for key in groups.keys), strict=True):
            groups._add(row)
        return groups
