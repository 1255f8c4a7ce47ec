"""Words of an Arrow table as small integers: what comparisons and groupings of the live store run on."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

Array = npt.NDArray[Any]


class Words:
    """One column of strings: a code a row, and the words behind the codes (possibly with repeats)."""

    def __init__(self, column: pa.ChunkedArray) -> None:
        if not pa.types.is_dictionary(column.type):
            column = column.dictionary_encode()
        encoded: Any = column.unify_dictionaries().combine_chunks()
        if isinstance(encoded, pa.ChunkedArray):  # a column of no chunk stays chunked
            encoded = pa.DictionaryArray.from_arrays(pa.array([], pa.int32()), pa.array([], pa.string()))
        self.codes: Array = encoded.indices.to_numpy(zero_copy_only=False)
        self.words: pa.Array = encoded.dictionary

    def codes_of(self, words: tuple[str, ...]) -> Array:
        """Return the codes that stand for any of the words."""
        is_one = pc.is_in(self.words, value_set=pa.array(words, self.words.type))
        found: Array = np.flatnonzero(is_one.to_numpy(zero_copy_only=False))
        return found

    def among(self, words: tuple[str, ...]) -> Array:
        """Return, row by row, whether the word is one of these."""
        codes = self.codes_of(words)
        if len(codes) == 1:
            one: Array = self.codes == codes[0]
            return one
        wanted = np.zeros(len(self.words) + 1, bool)
        wanted[codes] = True
        return wanted[self.codes]


def flags(column: pa.ChunkedArray) -> Array:
    """Return `is_bot` as booleans, whether it came as bool or as "true"."""
    if not pa.types.is_boolean(column.type):
        column = pc.equal(column.cast(pa.string()), "true")
    values: Array = column.to_numpy().astype(bool)
    return values
