"""Answers of raw events: the batch layer's rule over the hours that a question touches, grouped by any dimensions.

In: the archive, the carries that closed hours left, a question. Out: what the store's scan would say if a rollup had
these dimensions. Promised: R1 equal to the store where a rollup has them; R2 hours that are not over count what has
happened by now; R3 memory is that of one part of an hour and of the groups; R4 one question at a time, the others wait
or time out. An hour begins from the carry of the hour before; where there is none, from the nearest carry before that,
with the hours between computed on the way. Not done: gauges, curves, a budget (`events` tells, the planner decides).
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from viewmeter.archive.protocol import ArchiveReader
from viewmeter.batch import files, part, sums
from viewmeter.batch.carry import DIMENSIONS, nothing
from viewmeter.batch.codes import Coded, combined
from viewmeter.batch.part import key_ranges
from viewmeter.batch.settings import BatchSettings
from viewmeter.batch.window import COLUMNS, window_of
from viewmeter.model.catalogue import Kind
from viewmeter.model.catalogue.measures import (
    ADDITIVE,
    BITRATE_WORDS,
    MEASURES,
    SKETCHES,
    VIEW_ENDS,
    bitrate_bucket_codes,
)
from viewmeter.model.increments import SAMPLE_MS
from viewmeter.model.sketches import of_lists
from viewmeter.model.summing import Amounts, Sketched, sum_by, used_rows
from viewmeter.model.time import HOUR_MS, Interval, floor_to
from viewmeter.olap.errors import ScanTooLargeError
from viewmeter.olap.protocol import ClosedHour, Scan

Array = npt.NDArray[Any]

_OF_INTERVALS: Final = ("cdn", "bitrate_bucket")
KNOWN: Final = frozenset((*DIMENSIONS, *_OF_INTERVALS))
"""Dimensions that events can be grouped and filtered by."""

_MEASURES: Final = frozenset(m.name for m in (*ADDITIVE, *SKETCHES, *VIEW_ENDS))
_TRIES: Final = 5
"""Carries are replaced beside a question; it begins anew then."""

_REACH_FOR_S: Final = 60.0
_WHOLE: Final = Coded(np.zeros(0, np.int64), pa.array([""]))


@dataclass(frozen=True)
class _Step:
    """One hour on the way. `carry`: what to begin with; None: what the step before left, or nothing at the first."""

    hour_ms: int
    wanted: bool
    carry: Path | None
    begins: bool  # nothing of the step before counts


class ArchivedEvents:
    """`RawEvents` of the query room, over the archive and the folder of the batch jobs."""

    def __init__(
        self,
        archive: ArchiveReader,
        folder: Path,
        clock: Callable[[], int],
        settings: BatchSettings | None = None,
        *,
        refresh: Callable[[], None] | None = None,
        closed: Callable[[Interval], Sequence[ClosedHour]] | None = None,
        groups_max: int = 2_000_000,
        wait_s: float = 10.0,
    ) -> None:
        """`refresh` archives what is durable. `closed` tells of hours that have rows, also older than all events."""
        self._archive, self._carries, self._clock = archive, folder / "carry", clock
        self._settings = settings or BatchSettings()
        self._refresh, self._closed = refresh, closed
        self._groups_max, self._wait_s = groups_max, wait_s
        self._turn = threading.Lock()
        self._reach: tuple[float, int | None, int] | None = None

    # --- what the planner asks ---------------------------------------------------------------------------------

    def events(self, pieces: Sequence[Interval]) -> int:
        """Return how many events the hours hold that would be computed."""
        archived = self._archive.hours()
        return sum(self._archive.events(s.hour_ms) for s in self._steps(pieces) if s.hour_ms in archived)

    def reach_ms(self) -> int:
        """Return the first hour with events, where rows tell of hours before it; 0 where none do."""
        first = min(self._archive.hours(), default=None)
        known, now = self._reach, time.monotonic()
        if known is None or known[1] != first or now > known[0] + _REACH_FOR_S:
            before = self._closed(Interval(0, 1 << 53 if first is None else first)) if self._closed else ()
            reach = 0 if not before else before[-1].hour_ms + HOUR_MS if first is None else first
            known = self._reach = (now, first, reach)
        return known[2]

    def scan(self, question: Scan, pieces: Sequence[Interval]) -> pa.Table:
        """Answer as the store's scan does. Raises ValueError, `ScanTooLargeError`, `ArchiveDamagedError`, TimeoutError.

        Groups are those that anything happened in, also where all measures asked for are 0.
        """
        _check(question)
        with self._one_at_a_time():
            if self._refresh is not None and pieces and pieces[-1].end_ms > floor_to(self._clock(), HOUR_MS):
                self._refresh()
            for attempt in range(_TRIES):
                try:
                    return self._answer(question, pieces)
                except FileNotFoundError:  # a carry was replaced by a later run's
                    if attempt == _TRIES - 1:
                        raise
        raise AssertionError("the loop above returns or raises")

    @contextmanager
    def _one_at_a_time(self) -> Iterator[None]:
        if not self._turn.acquire(timeout=self._wait_s):
            raise TimeoutError(f"other questions read raw events; this one waited for {self._wait_s:g} s: ask again")
        try:
            yield
        finally:
            self._turn.release()

    # --- which hours -------------------------------------------------------------------------------------------

    def _steps(self, pieces: Sequence[Interval]) -> list[_Step]:
        """Return the hours to compute, in order."""
        wanted = sorted({h for p in pieces for h in range(floor_to(p.start_ms, HOUR_MS), p.end_ms, HOUR_MS)})
        carries, archived = self._folders(), sorted(self._archive.hours())
        steps: list[_Step] = []
        for hour in wanted:
            # An hour right behind another goes on from a carry all the same: that is what its rows were made from.
            before = carries.get(hour - HOUR_MS)
            if before is not None or (steps and steps[-1].hour_ms == hour - HOUR_MS):
                steps.append(_Step(hour, True, before, begins=before is not None))
                continue
            last = max((h for h in carries if h < hour), default=None)
            first = min([h for h in archived if h < hour], default=hour) if last is None else last + HOUR_MS
            if steps and steps[-1].hour_ms >= first:
                first, last = steps[-1].hour_ms + HOUR_MS, None
                begins = False
            else:
                begins = True
            start = None if last is None else carries[last]
            steps += [
                _Step(at, at == hour, start if at == first else None, begins=begins and at == first)
                for at in range(first, hour + 1, HOUR_MS)
            ]
        return steps

    def _folders(self) -> dict[int, Path]:
        """Return the folder of each hour that has a carry."""
        newest: dict[int, tuple[int, Path]] = {}
        for folder in self._carries.iterdir() if self._carries.is_dir() else ():
            hour, _, number = folder.name.partition("-")
            if hour.isdigit() and number.isdigit():
                newest[int(hour)] = max(newest.get(int(hour), (-1, folder)), (int(number), folder))
        return {hour: folder for hour, (_, folder) in newest.items()}

    # --- answering ---------------------------------------------------------------------------------------------

    def _answer(self, question: Scan, pieces: Sequence[Interval]) -> pa.Table:
        steps, found = self._steps(pieces), list[sums.Rows]()
        asked = _Asked(question, tuple(pieces))
        archived = self._archive.hours()
        most = max((self._archive.events(s.hour_ms) for s in steps if s.hour_ms in archived), default=0)
        for keys in key_ranges(max(1, -(-most // self._settings.part_events))):
            for rows in self._of_views(keys, steps, asked):
                found.append(rows)
                if sum(len(r.summed.time_ms) for r in found) > self._groups_max:
                    found = [sums.together(found)]
                    if len(found[0].summed.time_ms) > self._groups_max:
                        raise ScanTooLargeError(self._groups_max)
        return _table(question, sums.together(found) if found else None)

    def _of_views(self, keys: tuple[int, int], steps: Sequence[_Step], asked: _Asked) -> Iterator[sums.Rows]:
        """Yield what the views with these keys amount to, hour by hour."""
        folders = self._folders()
        opened, ended = nothing(), list[tuple[int, pa.Table]]()
        now_ms = self._clock()
        for step in steps:
            if step.begins:
                opened = nothing() if step.carry is None else asked.of_tenant(files.read_open(step.carry, keys))
                ended = [(hour, table) for hour, table in ended if hour not in folders]
            if step.hour_ms > now_ms:
                return
            find = _Remembered(step.hour_ms, ended, folders, self._settings.remember_h * HOUR_MS)
            events = asked.of_tenant(self._archive.read(window_of(step.hour_ms), COLUMNS, key_range=keys))
            if not events.num_rows and not opened.num_rows:
                continue
            done = part.compute(step.hour_ms, events, opened, find, until_ms=now_ms)
            opened = done.kept_open
            ended.append((step.hour_ms, done.kept_ended))
            if step.wanted:
                rows = asked.rows(done)
                if rows is not None:
                    yield rows


@dataclass(frozen=True)
class _Remembered:
    """Finds ended views: in what was computed on the way, then in the carries of the hours before."""

    hour_ms: int
    computed: Sequence[tuple[int, pa.Table]]
    folders: Mapping[int, Path]
    remember_ms: int

    def __call__(self, keys: Array) -> pa.Table:
        since = self.hour_ms - self.remember_ms
        own = {hour: table for hour, table in self.computed if since <= hour < self.hour_ms}
        others = {h for h in self.folders if since <= h < self.hour_ms} - own.keys()
        found, left = [nothing()], keys
        for hour in sorted(own.keys() | others, reverse=True):
            if not len(left):
                break
            if hour in own:
                rows = own[hour].filter(pc.is_in(own[hour]["view_key"], value_set=pa.array(left)))
            else:
                rows = files.find_ended([self.folders[hour] / "ended.parquet"], left)
            if rows.num_rows:
                found.append(rows)
                left = np.setdiff1d(left, rows["view_key"].to_numpy())
        return pa.concat_tables(found)


@dataclass(frozen=True)
class _Asked:
    """A question, applied to parts."""

    question: Scan
    pieces: tuple[Interval, ...]

    def of_tenant(self, table: pa.Table) -> pa.Table:
        """Drop other tenants' rows: a view is of one tenant, so nothing that is asked for depends on them."""
        tenant = self.question.visible.tenant_id
        if tenant is None or not table.num_rows:
            return table
        coded = Coded.of(table["tenant_id"])
        own = np.array([word == tenant for word in coded.words.to_pylist()])[coded.codes]
        return table if own.all() else table.filter(pa.array(own))

    def rows(self, done: part.Part) -> sums.Rows | None:
        """Return the sums by bucket and group; None where nothing is asked for."""
        inc, question = done.increments, self.question
        kept = used_rows(inc.amounts, len(inc.view)) & self._inside(inc.instant)
        kept[kept] = self._seen(done, inc.view[kept], inc.cdn[kept], inc.bitrate_kbps[kept])
        if not kept.any():
            return None
        place = np.cumsum(kept) - 1
        amounts: Amounts = {
            name: (place[rows[some]], values[some])
            for name, (rows, values) in inc.amounts.items()
            for some in [kept[rows]]
        }
        columns = {"": Coded(np.zeros(int(kept.sum()), np.int64), _WHOLE.words)}
        for name in question.dimensions:
            columns[name] = _column(done, name, inc.view[kept], inc.cdn[kept], inc.bitrate_kbps[kept])
        first, group = combined([*columns.values()])
        bucket = np.searchsorted(question.edges_ms, inc.instant[kept], side="right") - 1
        wanted = {name: at for name, at in amounts.items() if name in question.measures}
        summed = sum_by(bucket.astype(np.int64) * SAMPLE_MS, group, wanted)  # buckets instead of times
        sketched = Sketched.of(amounts, done.views.viewer[inc.view[kept]])
        measured, watched_ms = done.watched()
        some = kept[measured]
        sketched.entries["watch_kll"] = (place[measured[some]], watched_ms[some])
        entries = {name: at for name, at in sketched.entries.items() if name in question.measures}
        keys = {name: column.take(first) for name, column in columns.items()}
        return sums.Rows(summed, Sketched(entries).at(summed.row_of), keys)

    def _inside(self, instant: Array) -> Array:
        edges = self.question.edges_ms
        inside = np.zeros(len(instant), bool)
        for start, end in self.pieces:
            inside |= (instant >= max(start, edges[0])) & (instant < min(end, edges[-1]))
        return inside

    def _seen(self, done: part.Part, view: Array, cdn: Array, bitrate: Array) -> Array:
        """Return which increments are visible and pass the filters."""
        question, seen = self.question, np.ones(len(view), bool)
        conditions = [(f.dimension, f.values, f.negate) for f in question.filters]
        if question.visible.tenant_id is not None:
            conditions.append(("tenant_id", (question.visible.tenant_id,), False))
        if question.visible.channels is not None:
            conditions.append(("channel_id", question.visible.channels, False))
        for name, values, negate in conditions:
            column = _column(done, name, view, cdn, bitrate)
            wanted = {*values}
            passes = np.array([(word in wanted) != negate for word in _words(column)], bool)
            seen &= passes[column.codes]
        return seen


def _column(done: part.Part, name: str, view: Array, cdn: Array, bitrate: Array) -> Coded:
    """Return a dimension of increments."""
    if name == "cdn":
        return Coded(cdn.astype(np.int64) + 1, done.cdn_words)
    if name == "bitrate_bucket":
        return Coded(bitrate_bucket_codes(bitrate), pa.array(BITRATE_WORDS))
    return Coded.of(done.views.dimensions[name]).take(view)


def _words(column: Coded) -> list[str]:
    """Return the words as answers spell them."""
    return [str(word).lower() if isinstance(word, bool) else word for word in column.words.to_pylist()]


def _table(question: Scan, rows: sums.Rows | None) -> pa.Table:
    """Return the answer's columns: sums, and sketches serialised, null where a group has none."""
    measures = [MEASURES[name] for name in dict.fromkeys(question.measures)]
    count = 0 if rows is None else len(rows.summed.time_ms)
    bucket = np.zeros(0, np.int32) if rows is None else (rows.summed.time_ms // SAMPLE_MS).astype(np.int32)
    columns: dict[str, Any] = {"bucket": bucket}
    for name in question.dimensions:
        coded = None if rows is None else rows.keys[name].take(rows.summed.group)
        words = [] if coded is None else pa.array(_words(coded), pa.string()).take(pa.array(coded.codes))
        columns[name] = pa.array(words, pa.string())
    lists = {} if rows is None else rows.sketched.columns(count)
    for measure in measures:
        if measure.kind is Kind.ADDITIVE:
            none = np.zeros(count, np.int64)
            columns[measure.name] = none if rows is None else rows.summed.sums.get(measure.name, none)
        else:
            some = lists.get(measure.name)
            columns[measure.name] = pa.nulls(count, pa.binary()) if some is None else of_lists(some, measure.kind)
    return pa.table(columns)


def _check(question: Scan) -> None:
    """Raise ValueError for what events cannot tell."""
    asked = {*question.dimensions, *(f.dimension for f in question.filters)}
    if unknown := asked - KNOWN:
        raise ValueError(f"events have no dimension {', '.join(sorted(unknown))}; there are {', '.join(sorted(KNOWN))}")
    if unknown := {*question.measures} - _MEASURES:
        raise ValueError(f"raw events are not asked for {', '.join(sorted(unknown))}")
