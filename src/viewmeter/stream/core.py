"""One micro-batch of the speed layer, without I/O: events in, what they change out, views' state kept in memory.

In: tables of `EVENT_SCHEMA` in order of arrival, and the engine's clock as an argument. Out: `Deltas`. Promised: a
deterministic function of the sequence of calls, so that a crashed engine gets its state back by repeating the calls
since the last snapshot (decision 0002). Not done: reading the log, writing rows, threads.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from viewmeter.model import interval, late, ordering, silence
from viewmeter.model import segments as seg
from viewmeter.model.events import EVENT_SCHEMA, UNKNOWN
from viewmeter.model.increments import Increments, Presence
from viewmeter.model.time import HOUR_MS, MINUTE_MS
from viewmeter.model.views import NEVER, ViewStates
from viewmeter.stream.groups import GROUPED, PARENTS, VIEW_KEYS, Coded, Groups
from viewmeter.stream.slots import EMPTY, SlotMap
from viewmeter.stream.viewers import Viewers, pair_keys

Array = npt.NDArray[Any]

REMEMBER_MS: Final = 2 * HOUR_MS
"""A view is remembered for this long after its last event was received."""

GRACE_MS: Final = 1_000
"""Presence is claimed, and silence noticed, as of this long ago: an exit that takes less to arrive is in time. As long
as events wait (`ordering.WAIT_MS`), so that a clock this much ahead settles everything as of the real one."""


MAX_CDNS: Final = 10_000
"""Names of delivery networks that are told apart; more come from somebody who makes them up, and are unknown."""

GROUPS_SPARE: Final = 10_000


@dataclass(frozen=True)
class Deltas:
    """What one micro-batch changed. `view` columns are slots of the core."""

    increments: Increments
    presence: Presence
    viewer_samples: tuple[Array, Array, Array]  # (row of presence, sample instant, sign)
    events: int


class Core:
    """The views and all that is known of them."""

    def __init__(self) -> None:
        self.states = ViewStates.new(0)
        self.keys: Array = np.zeros(0, np.int64)
        self.viewer: Array = np.zeros(0, np.int64)
        self.pair: Array = np.zeros(0, np.int32)
        self.group: dict[str, Array] = {name: np.zeros(0, np.int32) for name in GROUPED if name not in PARENTS}
        self.parents: dict[str, Array] = {name: np.zeros(0, np.int32) for name in PARENTS}  # of each video group
        self.groups = {name: Groups(keys) for name, keys in GROUPED.items()}
        self.viewers = Viewers()
        self.holes = ordering.HoleBook()
        self.cdns: list[str] = []
        self.waiting = EVENT_SCHEMA.empty_table()
        self.minute = 0
        self._described_by: Array = np.zeros(0, np.int64)  # row of this batch that a slot was described by
        self._cdn_codes: dict[str, int] = {}
        self._slots = SlotMap()
        self._free: list[int] = []

    @property
    def views(self) -> int:
        """How many views are remembered."""
        return len(self._slots)

    def step(self, arrived: list[pa.Table], now_ms: int) -> Deltas:
        """Apply what arrived, and what the time alone brings at `now_ms`."""
        table = pa.concat_tables([self.waiting, *arrived])
        parts: list[Increments] = []
        runs: list[Presence] = []
        if table.num_rows:
            self._apply(table, now_ms, parts, runs)
        self._pass_time(now_ms, parts, runs)
        presence = Presence.joined(*runs)
        samples = self.viewers.count(self.pair[presence.view], presence)
        increments = Increments.joined(parts) if parts else Increments.none()
        return Deltas(increments, presence, samples, table.num_rows - self.waiting.num_rows)

    def remembered(self) -> Array:
        """Return the slots in use: of views that were applied, or that have an event waiting."""
        live = self.states.seen.copy()
        waiting = _numpy(self.waiting, "view_key")
        if len(waiting):
            live[self._slots.find(np.unique(waiting))] = True
        return np.flatnonzero(live)

    def restore_lookups(self, cdns: list[str], slots: Array) -> None:
        """Make the look-ups for columns that were just put in from a snapshot."""
        self.cdns = list(cdns)
        self._cdn_codes = {word: code for code, word in enumerate(cdns)}
        self._slots = SlotMap(self.keys[slots], slots)

    def _apply(self, table: pa.Table, now_ms: int, parts: list[Increments], runs: list[Presence]) -> None:
        events = {name: _numpy(table, name) for name in interval.RULE_COLUMNS if name != "cdn"}
        events["cdn"] = self._cdn(table)
        slots = self._slots_of(table)
        states = self.states
        found = ordering.order(slots, events["seq"], events["received_at"], states.max_seq[slots], self.holes, now_ms)
        if len(found.duplicate):
            parts.append(_duplicates(found.duplicate, slots, events))
        if len(found.ready):
            rows = found.ready
            touched, view = _dense(slots[rows])
            self._freeze(table, rows, view, touched)
            outcome = interval.apply(
                view, {name: column[rows] for name, column in events.items()}, states.take(touched)
            )
            states.put(touched, outcome.states)
            parts.append(_of_slots(outcome.increments, touched))
            runs.append(_runs_of_slots(outcome.presence, touched))
            self.holes.add(touched[outcome.holes.view], outcome.holes.first, outcome.holes.last)
        if len(found.late):
            rows = found.late[np.lexsort((events["seq"][found.late], slots[found.late]))]
            touched, view = _dense(slots[rows])
            increments, fresh = late.apply_late(
                view, {name: column[rows] for name, column in events.items()}, states.take(touched)
            )
            states.put(touched, fresh)
            parts.append(_of_slots(increments, touched))
        # In order of arrival, so that of equal `seq` the first still is the first next time.
        self.waiting = table.take(np.sort(found.waiting)).combine_chunks() if len(found.waiting) else table.slice(0, 0)

    def _pass_time(self, now_ms: int, parts: list[Increments], runs: list[Presence]) -> None:
        quiet = silence.silent(self.states, now_ms - GRACE_MS)
        if len(quiet):
            increments, fresh = silence.end(self.states.take(quiet))
            self.states.put(quiet, fresh)
            parts.append(_of_slots(increments, quiet))
        presence, rows, until = silence.presence(self.states, now_ms - GRACE_MS + 1)
        self.states.present_until[rows] = until
        runs.append(presence)

    def _slots_of(self, table: pa.Table) -> Array:
        """Return each event's slot; views never seen get one, with the dimensions of the row that came first."""
        keys = _numpy(table, "view_key")
        slots = self._slots.find(keys)
        missing = np.flatnonzero(slots == EMPTY)
        taken, described_by = missing[:0], missing[:0]
        if len(missing):
            new, first = np.unique(keys[missing], return_index=True)
            taken = self._take_slots(len(new))
            self._slots.put(new, taken)
            self.keys[taken] = new
            slots[missing] = self._slots.find(keys[missing])
            described_by = missing[first]
            self._describe(table, described_by, taken)
            self.pair[taken] = self.viewers.enter(self._pair_keys(taken))
        self._described_by = np.full(len(self.states), NEVER, np.int64)
        self._described_by[taken] = described_by
        return slots

    def _take_slots(self, count: int) -> Array:
        taken = self._free[-count:]
        del self._free[-count:]
        size = len(self.states)
        fresh = count - len(taken)
        if fresh:
            room = max(size + fresh, size * 3 // 2, 4096)
            self.states.grow(room)
            for name in ("keys", "viewer", "pair"):
                setattr(self, name, np.concatenate([c := getattr(self, name), np.zeros(room - len(c), c.dtype)]))
            self.group = {n: np.concatenate([g, np.zeros(room - len(g), g.dtype)]) for n, g in self.group.items()}
            self._free = list(range(room - 1, size + fresh - 1, -1))
            taken += range(size, size + fresh)
        return np.array(taken, np.int64)

    def _describe(self, table: pa.Table, rows: Array, slots: Array) -> None:
        """Take the dimensions of these rows for these views."""
        some = table.select(["viewer_hash", *VIEW_KEYS]).take(rows)
        self.viewer[slots] = _numpy(some, "viewer_hash")
        columns = {key: Coded.of(some.column(key)) for key in VIEW_KEYS}
        for name, of_view in self.group.items():
            of_view[slots] = self.groups[name].number(columns)
        video = self.group["video"][slots]
        for name in PARENTS:
            if len(self.parents[name]) < len(self.groups["video"]):
                self.parents[name] = np.resize(self.parents[name], 2 * len(self.groups["video"]))
            self.parents[name][video] = self.groups[name].number(columns)

    def _freeze(self, table: pa.Table, rows: Array, view: Array, touched: Array) -> None:
        """Settle the dimensions of views whose first event by `seq` is not the row they were described by."""
        new = np.flatnonzero(~self.states.seen[touched])
        first, slots = rows[np.searchsorted(view, new)], touched[new]
        other = self._described_by[slots] != first
        first, slots = first[other], slots[other]
        if len(slots):
            self._describe(table, first, slots)
            self.viewers.leave(self.pair[slots])
            self.pair[slots] = self.viewers.enter(self._pair_keys(slots))

    def _pair_keys(self, slots: Array) -> Array:
        return pair_keys(self.groups["video"].hashes(self.group["video"][slots]), self.viewer[slots])

    def _cdn(self, table: pa.Table) -> Array:
        """Return the events' cdn as codes, -1 where nobody said."""
        out = []
        for chunk in table.column("cdn").chunks:
            codes = np.array([self._cdn_code(word) for word in chunk.dictionary.to_pylist()], np.int32)
            if len(chunk):
                out.append(codes[chunk.indices.to_numpy(zero_copy_only=False)])
        return np.concatenate(out) if out else np.zeros(0, np.int32)

    def _cdn_code(self, word: str) -> int:
        if word == UNKNOWN:
            return -1
        code = self._cdn_codes.get(word)
        if code is None:
            if len(self.cdns) >= MAX_CDNS:
                return -1
            code = self._cdn_codes[word] = len(self.cdns)
            self.cdns.append(word)
        return code

    def forget(self, now_ms: int) -> None:
        """Drop views of which nothing came for two hours. Call it after each step, when its deltas are used up."""
        if now_ms // MINUTE_MS == self.minute:
            return
        self.minute = now_ms // MINUTE_MS
        states = self.states
        old = np.flatnonzero(states.seen & (states.last_received < now_ms - REMEMBER_MS))
        if len(old):
            self.viewers.leave(self.pair[old])
            self.holes.forget(old)
            states.reset(old)
            self._free += old.tolist()
            slots = self.remembered()
            self._slots = SlotMap(self.keys[slots], slots)
            self.pair[slots] = self.viewers.compact()[self.pair[slots]]
            self._drop_groups(slots)

    def _drop_groups(self, slots: Array) -> None:
        """Drop groups that no view is in any more, once they are the most: videos come and go for ever."""
        for name, of_view in self.group.items():
            groups = self.groups[name]
            used = np.unique(of_view[slots])
            if len(groups) > 2 * len(used) + GROUPS_SPARE:
                of_view[slots] = groups.keep(used)[of_view[slots]]
                if name == "video":
                    self.parents = {parent: numbers[used] for parent, numbers in self.parents.items()}


def _numpy(table: pa.Table, name: str) -> Array:
    column: Array = table.column(name).to_numpy()
    return column


def _dense(slots: Array) -> tuple[Array, Array]:
    """Return the distinct slots of an ascending column, and each row's place among them."""
    opens = seg.opens(slots)
    return slots[opens], np.cumsum(opens) - 1


def _of_slots(increments: Increments, touched: Array) -> Increments:
    return Increments(
        touched[increments.view],
        increments.instant,
        increments.bitrate_kbps,
        increments.cdn,
        increments.amounts,
    )


def _runs_of_slots(presence: Presence, touched: Array) -> Presence:
    return Presence(touched[presence.view], presence.first, presence.count, presence.sign)


def _duplicates(rows: Array, slots: Array, events: dict[str, Array]) -> Increments:
    out = Increments.builder(slots[rows], events["ts"][rows])
    out.of_interval(np.zeros(len(rows), np.int32), events["cdn"][rows])
    out.add("duplicate_events", np.arange(len(rows)), 1)
    return out.build()
