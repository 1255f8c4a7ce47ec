"""Groups of an answer: which there are, in which order, and which of them stand on the page.

In: tables of dimension columns. Out: a number a row (equal words, equal number, over several tables), an order, a
page. Promised: columns all the way, since a store may answer a million groups of which a page shows a thousand; a
page goes on where the one before ended, also when groups came or went between the two.
"""

from __future__ import annotations

import functools
import hashlib
from base64 import urlsafe_b64decode, urlsafe_b64encode
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import msgspec
import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from viewmeter.model.catalogue import METRICS
from viewmeter.model.catalogue.metrics import Histogram
from viewmeter.query.problems import QueryProblem
from viewmeter.query.question import Query

Array = npt.NDArray[Any]


def number_groups(tables: Sequence[pa.Table], dimensions: Sequence[str]) -> list[Array]:
    """Return one group number a row for each table; equal dimensions have equal numbers across tables."""
    sizes = [table.num_rows for table in tables]
    numbers = np.zeros(sum(sizes), np.int64)
    for name in dimensions:
        chunks = [chunk for table in tables for chunk in table[name].chunks]
        column: Any = pa.chunked_array(chunks, pa.string()).combine_chunks()
        codes = pc.dictionary_encode(column)
        wide = numbers * (len(codes.dictionary) + 1) + codes.indices.to_numpy(zero_copy_only=False)
        numbers = np.unique(wide, return_inverse=True)[1]
    return np.split(numbers, np.cumsum(sizes)[:-1])


def _one_bucket(table: pa.Table) -> bool:
    buckets = table["bucket"].to_numpy()
    return not len(buckets) or bool((buckets == buckets[0]).all())


@dataclass(frozen=True)
class Groups:
    """Distinct groups: their words by dimension."""

    words: Mapping[str, pa.Array]
    count: int

    @staticmethod
    def of_rows(table: pa.Table, dimensions: Sequence[str]) -> Groups:
        """Return the groups of a scan in one bucket: its rows."""
        return Groups({name: table[name].combine_chunks() for name in dimensions}, table.num_rows)

    @staticmethod
    def among(tables: Sequence[pa.Table], dimensions: Sequence[str]) -> tuple[Groups, list[Array]]:
        """Return the groups of the tables, and the group of each row."""
        if len(tables) == 1 and "time_ms" not in tables[0].column_names and _one_bucket(tables[0]):
            return Groups.of_rows(tables[0], dimensions), [np.arange(tables[0].num_rows)]
        numbers = number_groups(tables, dimensions)
        every = np.concatenate(numbers) if numbers else np.zeros(0, np.int64)
        _, first, inverse = np.unique(every, return_index=True, return_inverse=True)
        words = {}
        for name in dimensions:
            column = pa.chunked_array([c for t in tables for c in t[name].chunks], pa.string())
            words[name] = column.take(pa.array(first)).combine_chunks()
        sizes = [len(n) for n in numbers]
        return Groups(words, len(first)), np.split(inverse, np.cumsum(sizes)[:-1])


@dataclass(frozen=True)
class Page:
    """Which groups are shown, in order."""

    groups: Array
    next_cursor: str | None
    truncated: bool  # there are groups behind this page


def page(query: Query, groups: Groups, values: Mapping[str, Array], *, in_order: bool = False) -> Page:
    """Order the groups by `order_by` (then by dimensions, so that the order is total) and cut the page out.

    in_order: that is how they come, and of those behind the page there is the first at most.
    """
    order = _Order(query, groups, values)
    if in_order:
        ranked = np.arange(groups.count)
    elif query.cursor:
        ranked = order.ranked()
        ranked = ranked[order.after(ranked, _read_cursor(query)) :]
    else:
        ranked = order.ranked(query.limit + 1)
    shown = ranked[: query.limit]
    more = query.limit < len(ranked)
    return Page(shown, _cursor(query, order.position(int(shown[-1]))) if more else None, more)


def ordering(query: Query) -> tuple[tuple[str, str], ...]:
    """Return what decides the order of groups: `order_by`, else the first metric that has one, largest first."""
    if asked := tuple((name, way) for name, way in query.order_by if name != "time"):
        return asked
    ordered = [name for name in query.metrics if not isinstance(METRICS[name], Histogram)]
    return ((ordered[0], "desc"),) if ordered else ((query.dimensions[0], "asc"),)


class _Order:
    """A total order of groups: by each key in turn, unknown values last, then by the dimensions."""

    def __init__(self, query: Query, groups: Groups, values: Mapping[str, Array]) -> None:
        keys = [(name, way) for name, way in ordering(query) if name in values or name in query.dimensions]
        taken = {name for name, _ in keys}
        keys += [(name, "asc") for name in query.dimensions if name not in taken]
        self._keys, self._groups, self._values = keys, groups, values

    def ranked(self, most: int | None = None) -> Array:
        """Return the groups in order; with `most`, the first ones alone, so many at least where there are."""
        among = self._foremost(most)
        columns: list[Array] = []
        for name, way in self._keys:
            if name in self._values:
                column = self._values[name][among]
            else:
                column = _ranks(self._groups.words[name].take(pa.array(among)))
            columns.append(-column if way == "desc" else column)  # NaN is last either way
        return among[np.lexsort(columns[::-1])]

    def _foremost(self, most: int | None) -> Array:
        """Return the groups among which the first ones are: all that the first key does not put behind them."""
        every = np.arange(self._groups.count)
        name, way = self._keys[0]
        if most is None or most >= len(every) or name not in self._values:
            return every
        column = -self._values[name] if way == "desc" else self._values[name]
        last = np.partition(column, most - 1)[most - 1]  # NaN is last here too
        return every if np.isnan(last) else np.flatnonzero(column <= last)

    def position(self, group: int) -> list[Any]:
        """Return where a group stands, as it is kept in a cursor."""
        return [self._at(name, group) for name, _ in self._keys]

    def after(self, ranked: Array, position: list[Any]) -> int:
        """Return how many groups stand at or before the position."""
        if len(position) != len(self._keys) or not all(
            isinstance(p, str) if name not in self._values else isinstance(p, int | float | None)
            for (name, _), p in zip(self._keys, position, strict=True)
        ):
            raise _bad_cursor()
        low, high = 0, len(ranked)
        while low < high:
            middle = (low + high) // 2
            if self._compare(self.position(int(ranked[middle])), position) > 0:
                high = middle
            else:
                low = middle + 1
        return low

    def _at(self, name: str, group: int) -> Any:
        if name not in self._values:
            return self._groups.words[name][group].as_py()
        value = float(self._values[name][group])
        return None if np.isnan(value) else value

    def _compare(self, left: list[Any], right: list[Any]) -> int:
        for (_, way), a, b in zip(self._keys, left, right, strict=True):
            if a == b:
                continue
            if a is None or b is None:
                return 1 if a is None else -1
            return (1 if a > b else -1) * (-1 if way == "desc" else 1)
        return 0


def _ranks(words: pa.Array) -> Array:
    """Return each word's rank as text. Python compares by code point, as UTF-8 bytes do."""
    ranks: Array = pc.rank(words, sort_keys="ascending", tiebreaker="dense").to_numpy().astype(np.int64)
    return ranks


@functools.lru_cache(maxsize=1024)
def _fingerprint(query: Query) -> str:
    """Return what a cursor belongs to: the question without its page, and without a range that moves with time."""
    said = (query.metrics, query.granularity, query.zone, query.dimensions, query.filters, query.order_by)
    return hashlib.blake2b(repr(said).encode(), digest_size=6).hexdigest()


def _cursor(query: Query, position: list[Any]) -> str:
    return urlsafe_b64encode(msgspec.json.encode([_fingerprint(query), position])).decode().rstrip("=")


def _read_cursor(query: Query) -> list[Any]:
    text = query.cursor or ""
    try:
        made = urlsafe_b64decode(text + "=" * (-len(text) % 4))
        fingerprint, position = msgspec.json.decode(made, type=tuple[str, list[Any]])
    except (ValueError, msgspec.DecodeError) as error:
        raise _bad_cursor() from error
    if fingerprint != _fingerprint(query):
        raise _bad_cursor()
    return position


def _bad_cursor() -> QueryProblem:
    detail = "cursor: it is not one of this query; send next_cursor of the answer before, with the same query"
    return QueryProblem(
        "invalid_cursor", 422, detail, [{"field": "cursor", "code": "invalid_cursor", "detail": detail}]
    )
