"""Words as small ascending numbers, and distinct combinations of them: how an hour's rows are grouped.

In: Arrow columns of words. Out: codes in the order of the words, so that rows sorted by code are sorted by word,
whatever files they came from: a rerun of an hour gives the same bytes. Columns only: an hour may have a million rows.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from viewmeter.model import segments as seg

Array = npt.NDArray[Any]


@dataclass(frozen=True)
class Coded:
    """A column: `words[codes]`, the words distinct and ascending (false before true)."""

    codes: Array
    words: pa.Array

    @classmethod
    def of(cls, column: pa.ChunkedArray) -> Coded:
        """Encode a column of words (dictionary or not) or of booleans, without nulls."""
        if pa.types.is_boolean(column.type):
            codes = column.combine_chunks().cast(pa.int8()).to_numpy(zero_copy_only=False).astype(np.int64)
            return cls(codes, pa.array([False, True]))
        if not pa.types.is_dictionary(column.type):
            column = column.dictionary_encode()
        if not len(column):
            return cls(np.zeros(0, np.int64), pa.array([], pa.string()))
        chunks = column.unify_dictionaries()
        words = chunks.chunk(0).dictionary
        order = pc.sort_indices(words).to_numpy()
        rank = np.empty(len(order), np.int64)
        rank[order] = np.arange(len(order))
        codes = np.concatenate([chunk.indices.to_numpy(zero_copy_only=False) for chunk in chunks.chunks])
        return cls(rank[codes], words.take(pa.array(order)))

    def take(self, rows: Array) -> Coded:
        """Return the column at rows."""
        return Coded(self.codes[rows], self.words)

    def arrow(self) -> pa.Array:
        """Return the column as Arrow: booleans, or dictionary-encoded words."""
        if pa.types.is_boolean(self.words.type):
            return pa.array(self.codes.astype(bool))
        return pa.DictionaryArray.from_arrays(pa.array(self.codes.astype(np.int32)), self.words)


def combined(columns: list[Coded]) -> tuple[Array, Array]:
    """Return a row of each distinct combination, and which combination each row has; ascending by the words."""
    coded = ((column.codes, max(1, len(column.words))) for column in columns)
    key, span = seg.one_key(coded, len(columns[0].codes))
    if span <= 4 * len(key) + 4096:  # dense enough to count in place instead of sorting
        first = np.full(span, -1, np.int64)
        first[key[::-1]] = np.arange(len(key) - 1, -1, -1)
        kept = np.flatnonzero(first >= 0)
        number = np.empty(span, np.int64)
        number[kept] = np.arange(len(kept))
        return first[kept], number[key]
    order = np.argsort(key, kind="stable")
    opens = seg.opens(key[order])
    row_of = np.empty(len(key), np.int64)
    row_of[order] = np.cumsum(opens) - 1
    return order[opens], row_of
