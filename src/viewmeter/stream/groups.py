"""Which rollup rows a view counts in: settled once, when its dimensions freeze, and kept as small numbers.

A group is a distinct combination of a rollup's keys (DESIGN 4), numbered from 0. A view knows its number in each
rollup, so that summing events is arithmetic on integers and the words are touched again only when rows are written.
"""

from __future__ import annotations

from typing import Any, Final

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from viewmeter.model.catalogue import ROLLUPS

Array = npt.NDArray[Any]

PER_INTERVAL: Final = ("cdn", "bitrate_bucket")
"""Dimensions that belong to an interval, not to its view; they are no part of a group."""

GROUPED: Final[dict[str, tuple[str, ...]]] = {
    name: tuple(key for key in rollup.keys if key not in PER_INTERVAL)
    for name, rollup in ROLLUPS.items()
    if name != "concurrency"  # keyed as `video` is
}
PARENTS: Final = ("channel", "platform")
"""Rollups whose rows are sums of `video` rows; views need not know their groups."""

VIEW_KEYS: Final = tuple(dict.fromkeys(key for keys in GROUPED.values() for key in keys))
"""Every column of an event that some group needs."""


class Groups:
    """The groups of one rollup."""

    def __init__(self, keys: tuple[str, ...]) -> None:
        self.keys = keys
        self._numbers: dict[tuple[Any, ...], int] = {}
        self._columns: dict[str, Array] = {key: np.empty(16, object) for key in keys}

    def __len__(self) -> int:
        return len(self._numbers)

    def number(self, columns: dict[str, list[Any]]) -> Array:
        """Return the group of each row; new combinations get the next numbers."""
        rows = zip(*(columns[key] for key in self.keys), strict=True)
        known = self._numbers
        out = np.empty(len(columns[self.keys[0]]), np.int32)
        for at, row in enumerate(rows):
            number = known.get(row)
            if number is None:
                number = known[row] = len(known)
                self._remember(number, row)
            out[at] = number
        return out

    def _remember(self, number: int, row: tuple[Any, ...]) -> None:
        for key, value in zip(self.keys, row, strict=True):
            column = self._columns[key]
            if number == len(column):
                self._columns[key] = column = np.concatenate([column, np.empty(number, object)])
            column[number] = value

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
        groups.number({key: table.column(key).to_pylist() for key in groups.keys})
        return groups
