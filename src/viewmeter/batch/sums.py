"""A part's increments summed to the rows of each rollup; and parts put together to the rows of the hour.

In: parts. Out: tables as the speed layer appends them, with the batch layer's measures, ascending by time and words.
Promised: the rows do not depend on how the hour was cut into parts. Minutes for the rollups that the speed layer makes
too; `cross` by the quarter of an hour, which the store joins to hours; `retention` by the hour.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from viewmeter.batch.carry import DIMENSIONS
from viewmeter.batch.codes import Coded, combined
from viewmeter.batch.part import Part
from viewmeter.model import segments as seg
from viewmeter.model.catalogue import ROLLUPS
from viewmeter.model.catalogue.measures import BITRATE_WORDS, MEASURES, bitrate_bucket_codes
from viewmeter.model.content import PERCENTS, retention_steps
from viewmeter.model.summing import Sketched, Summed, sum_again, sum_by, used_rows
from viewmeter.model.time import MINUTE_MS

Array = npt.NDArray[Any]

BY_VIEW: Final = ("audience", "device", "cross")
"""Rollups whose keys a view has, summed from increments; `delivery` has those of the interval besides."""

PARENTS: Final = {"video": "device", "channel": "video", "platform": "video"}
"""Rollups whose rows are sums of another one's: it has all of their keys, and the same grain."""


@dataclass(frozen=True)
class Rows:
    """Rows of one rollup: sums by (time, group), what goes into their sketches, and the words of the groups."""

    summed: Summed
    sketched: Sketched
    keys: dict[str, Coded]  # one row a group

    def table(self, measures: Collection[str] = ()) -> pa.Table:
        """Return them as the store takes them; measures that are 0 throughout are left out, but for `measures`.

        Whole numbers are in the narrowest type that holds a column: a third of the bytes that are written.
        """
        count = len(self.summed.time_ms)
        columns: dict[str, Any] = {"time_ms": self.summed.time_ms}
        columns |= {name: coded.take(self.summed.group).arrow() for name, coded in self.keys.items()}
        for name in MEASURES:
            values = self.summed.sums.get(name)
            if values is not None and values.any():
                columns[name] = in_few_bytes(values)
            elif name in measures:
                columns[name] = np.zeros(count, np.int8)
        return pa.table(columns | self.sketched.columns(count))

    def between(self, start_ms: int, end_ms: int) -> Rows:
        """Return the rows of a range of time, and the groups that they are of."""
        first, behind = np.searchsorted(self.summed.time_ms, [start_ms, end_ms]).tolist()
        group = self.summed.group[first:behind]
        used = np.zeros(len(next(iter(self.keys.values())).codes), bool)
        used[group] = True
        place, groups = np.cumsum(used) - 1, np.flatnonzero(used)
        sums = {name: values[first:behind] for name, values in self.summed.sums.items()}
        entries = {
            name: (rows[some].astype(np.int64) - first, values[some])
            for name, (rows, values) in self.sketched.entries.items()
            for some in [(rows >= first) & (rows < behind)]
        }
        summed = Summed(self.summed.time_ms[first:behind], place[group], sums, np.zeros(0, np.int64))
        return Rows(summed, Sketched(entries), {name: coded.take(groups) for name, coded in self.keys.items()})


def in_few_bytes(values: Array) -> Array:
    """Return whole numbers in the narrowest signed type that holds them: most sums are 0 or a few."""
    low, high = (int(values.min()), int(values.max())) if len(values) else (0, 0)
    for kind in (np.int8, np.int16, np.int32):
        if np.iinfo(kind).min <= low and high <= np.iinfo(kind).max:
            return values.astype(kind)
    return values


def keys_of(name: str) -> tuple[str, ...]:
    """Return the keys of a rollup that belong to views."""
    return tuple(key for key in ROLLUPS[name].keys if key in DIMENSIONS)


class Groups:
    """The groups that a part's views are in."""

    def __init__(self, part: Part) -> None:
        self._columns = {name: Coded.of(part.views.dimensions[name]) for name in DIMENSIONS}

    def of(self, name: str) -> tuple[Array, dict[str, Coded]]:
        """Return each view's group in a rollup, and the words of the groups."""
        keys = keys_of(name)
        first, group = combined([self._columns[key] for key in keys])
        return group, {key: self._columns[key].take(first) for key in keys}


def rows_of(hour_ms: int, part: Part, groups: Groups) -> dict[str, Rows]:
    """Return the rows of one part, by rollup."""
    inc = part.increments
    used = used_rows(inc.amounts, len(inc.view))
    place = np.cumsum(used) - 1
    amounts = {name: (place[rows], values) for name, (rows, values) in inc.amounts.items()}
    view, instant = inc.view[used], inc.instant[used]
    sketched = Sketched.of(amounts, part.views.viewer[view])
    rows, watched_ms = part.watched()
    sketched.entries["watch_kll"] = (place[rows], watched_ms)
    minute = instant - instant % MINUTE_MS
    out: dict[str, Rows] = {}
    for name in BY_VIEW:
        group, keys = groups.of(name)
        grain_ms = ROLLUPS[name].grain_ms
        time_ms = minute if grain_ms == MINUTE_MS else minute - minute % grain_ms
        summed = sum_by(time_ms, group[view], amounts)
        out[name] = Rows(summed, sketched.at(summed.row_of), keys)
    group, keys = groups.of("delivery")
    bitrate, cdn = inc.bitrate_kbps[used], inc.cdn[used].astype(np.int64)
    buckets, cdns = len(BITRATE_WORDS), len(part.cdns) + 1
    span = len(next(iter(keys.values())).codes) * cdns * buckets
    made, group = seg.numbered((group[view] * cdns + cdn + 1) * buckets + bitrate_bucket_codes(bitrate), span)
    summed = sum_by(minute, group, amounts)
    keys = {name: coded.take(made // buckets // cdns) for name, coded in keys.items()}
    keys["cdn"] = Coded(made // buckets % cdns, part.cdn_words)
    keys["bitrate_bucket"] = Coded(made % buckets, pa.array(BITRATE_WORDS))
    out["delivery"] = Rows(summed, sketched.at(summed.row_of), keys)
    out["retention"] = _retention(hour_ms, part, groups)
    return {name: rows for name, rows in out.items() if len(rows.summed.time_ms)}


def _retention(hour_ms: int, part: Part, groups: Groups) -> Rows:
    view, percent, sign = retention_steps(part.content, part.content_duration)
    group, keys = groups.of("retention")
    span = len(next(iter(keys.values())).codes) * PERCENTS
    made, of = seg.numbered(group[view] * PERCENTS + percent, span)
    summed = sum_by(np.full(len(view), hour_ms), of, {"retention_delta": (np.arange(len(view)), sign)})
    keys = {name: coded.take(made // PERCENTS) for name, coded in keys.items()}
    keys["percent"] = Coded(made % PERCENTS, pa.array([str(p) for p in range(PERCENTS)]))
    return Rows(summed, Sketched({}), keys)


def together(parts: list[Rows]) -> Rows:
    """Return the rows of several parts as one, ascending by time and words."""
    keys, row_of = one_numbering([part.keys for part in parts])
    time_ms = np.concatenate([part.summed.time_ms for part in parts])
    offsets = np.cumsum([0, *(len(next(iter(part.keys.values())).codes) for part in parts)])
    group = np.concatenate(
        [row_of[offset + part.summed.group] for part, offset in zip(parts, offsets[:-1], strict=True)]
    )
    starts = np.cumsum([0, *(len(part.summed.time_ms) for part in parts)])
    entries: dict[str, tuple[Array, Array]] = {}
    for column in parts[0].sketched.entries:
        found = [part.sketched.entries[column] for part in parts]
        rows = np.concatenate([start + rows for start, (rows, _) in zip(starts[:-1], found, strict=True)])
        entries[column] = (rows, np.concatenate([values for _, values in found]))
    summed = sum_by(time_ms, group, _EndToEnd(parts, starts))
    return Rows(summed, Sketched(entries).at(summed.row_of), keys)


class _EndToEnd(Mapping[str, tuple[Array, Array]]):
    """The sums of parts by measure, without zeros. Made when they are asked for: all at once are gigabytes."""

    def __init__(self, parts: list[Rows], starts: Array) -> None:
        self._parts, self._starts = parts, starts
        self._names = [name for name in MEASURES if any(name in part.summed.sums for part in parts)]

    def __iter__(self) -> Iterator[str]:
        return iter(self._names)

    def __len__(self) -> int:
        return len(self._names)

    def __getitem__(self, name: str) -> tuple[Array, Array]:
        rows, values = [], []
        for part, start in zip(self._parts, self._starts, strict=False):
            sums = part.summed.sums.get(name)
            if sums is not None:
                at = np.flatnonzero(sums)
                rows.append(start + at)
                values.append(sums[at])
        return np.concatenate(rows), np.concatenate(values)


def one_numbering(parts: list[dict[str, Coded]]) -> tuple[dict[str, Coded], Array]:
    """Return all groups once, ascending by their words, and the new number of each old one, part after part."""
    columns = {name: Coded.of(pa.chunked_array([part[name].arrow() for part in parts])) for name in parts[0]}
    first, row_of = combined(list(columns.values()))
    return {name: coded.take(first) for name, coded in columns.items()}, row_of


def parents(name: str, rows: Rows) -> dict[str, Rows]:
    """Return the rows of the rollups that are sums of this one's."""
    made = {name: rows}
    for parent, child in PARENTS.items():
        if child in made:
            made[parent] = _coarser(made[child], keys_of(parent))
    del made[name]
    return made


def _coarser(rows: Rows, keys: tuple[str, ...]) -> Rows:
    first, group = combined([rows.keys[key] for key in keys])
    summed = sum_again(rows.summed.time_ms, group[rows.summed.group], rows.summed)
    return Rows(summed, rows.sketched.at(summed.row_of), {key: rows.keys[key].take(first) for key in keys})
