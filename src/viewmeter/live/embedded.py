"""Live counters in memory: published by the engine's thread, read by the threads of the web server.

In: what each micro-batch changed. Out: the figures of a scope now. Promised: V1 to V4; reading takes no lock and
blocks nobody, since each publish puts a new state in place of the old one. Deliberately not done: surviving a restart
(the speed layer fills it again) and bots (left out at the door).
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from viewmeter.live import embedded_counters as counters
from viewmeter.live.embedded_columns import Words, flags
from viewmeter.live.embedded_counters import Chunk, Frames, Names
from viewmeter.live.embedded_presence import Crowd, Presence
from viewmeter.live.protocol import HOP_MS, PLAYS_MINUTES, WINDOW_MS, LiveFigures, LiveScope, LiveUpdate
from viewmeter.model.time import MINUTE_MS, SECOND_MS, floor_to
from viewmeter.olap.protocol import Visible

Array = npt.NDArray[Any]

_LEVELS: Final = 3  # tenant, channel, video
_AHEAD_MS: Final = 10_000  # a client clock that far ahead is not corrected, so its events count as now
_PLAYS: Final = counters.MEASURE_NAMES.index("plays")


@dataclass(frozen=True)
class MemoryLiveSettings:
    """Bounds of the live store."""

    exact_views: int = 20_000
    """Up to so many present views every read counts anew; above, once a second for each scope."""

    cached_scopes: int = 10_000
    """Scopes whose count is kept for that second."""

    forget_every: int = 300
    """Publishes between looks for names that have no counters any more."""


@dataclass(frozen=True)
class _State:
    """All that readers see, in one reference."""

    names: tuple[Names, ...] = field(default_factory=lambda: tuple(Names() for _ in range(_LEVELS)))
    frames: tuple[Frames, ...] = ({},) * _LEVELS
    minutes: tuple[Frames, ...] = ({},) * _LEVELS
    presence: Presence | None = None
    watermark_ms: int | None = None


class MemoryLiveStore:
    """`LiveStore` in the memory of this process."""

    def __init__(self, settings: MemoryLiveSettings | None = None) -> None:
        self._settings = settings or MemoryLiveSettings()
        self._publishing = threading.Lock()
        self._state = _State()
        self._published = 0
        self._crowds: dict[tuple[LiveScope, int], Crowd] = {}
        self._crowds_of: Presence | None = None

    # --- writing -------------------------------------------------------------------------------------------

    def publish(self, update: LiveUpdate) -> None:
        """Add the counters and replace who is present."""
        with self._publishing:
            state = self._state
            if update.counters.num_rows:
                state = _with_counters(state, update.counters, update.at_ms)
            state = _without_old(state, update.at_ms)
            self._published += 1
            if self._published % self._settings.forget_every == 0:
                state = _without_idle_owners(state)
            present = state.presence if update.present is None else Presence(update.present)
            self._state = replace(state, presence=present, watermark_ms=update.watermark_ms)

    def flush(self) -> None:
        """Return when everything published is readable: when a publish that was begun is done."""
        with self._publishing:
            pass

    # --- reading -------------------------------------------------------------------------------------------

    def read(self, scope: LiveScope, now_ms: int) -> LiveFigures:
        """Return the figures of a scope at `now_ms`; zeros where nothing is known."""
        state = self._state
        level, owners = _owners(state, scope)
        window_end = floor_to(now_ms, HOP_MS)
        window = counters.sums(state.frames[level], owners, window_end - WINDOW_MS, now_ms + _AHEAD_MS + 1)
        crowd = self._crowd(state, scope, now_ms)
        return LiveFigures(
            concurrent_viewers=crowd.viewers,
            concurrent_views=crowd.views,
            mean_played_ms=crowd.mean_played_ms,
            countries=crowd.countries,
            window=dict(zip(counters.MEASURE_NAMES, window.tolist(), strict=False)),
            plays_per_minute=_plays_per_minute(state.minutes[level], owners, now_ms),
            watermark_ms=state.watermark_ms,
        )

    def top_videos(self, visible: Visible, now_ms: int, limit: int) -> list[tuple[str, str, int]]:
        """Return (channel_id, video_id, concurrent viewers), most watched first."""
        presence = self._state.presence
        return [] if presence is None or limit < 1 else presence.top_videos(visible, now_ms, limit)

    def _crowd(self, state: _State, scope: LiveScope, now_ms: int) -> Crowd:
        presence = state.presence
        if presence is None:
            return Crowd(0, 0, None, {})
        if len(presence) <= self._settings.exact_views:
            return presence.crowd(scope, now_ms)
        if self._crowds_of is not presence:
            self._crowds, self._crowds_of = {}, presence
        cache, key = self._crowds, (scope, now_ms // SECOND_MS)
        found = cache.get(key)
        if found is None:
            if len(cache) >= self._settings.cached_scopes:
                cache.clear()
            found = cache[key] = presence.crowd(scope, now_ms)
        return found


# --- publishing -----------------------------------------------------------------------------------------------


def _with_counters(state: _State, table: pa.Table, at_ms: int) -> _State:
    people = ~flags(table["is_bot"])
    table = table.filter(pa.array(people)) if not people.all() else table
    time_ms = table["time_ms"].to_numpy()
    owners = _enter(state.names, table)
    row, measure, value = _cells(table)
    frames, minutes = list(state.frames), list(state.minutes)
    newest = max([floor_to(at_ms, HOP_MS), *state.frames[0]])
    for level in range(_LEVELS):
        owner = owners[level][row]
        frames[level] = _with_cells(frames[level], time_ms[row], owner, measure, value, newest)
        played = measure == _PLAYS
        minute = time_ms[row[played]] // MINUTE_MS * MINUTE_MS
        minutes[level] = _with_cells(
            minutes[level], minute, owner[played], measure[played], value[played], floor_to(at_ms, MINUTE_MS)
        )
    return replace(state, frames=tuple(frames), minutes=tuple(minutes))


def _cells(table: pa.Table) -> tuple[Array, Array, Array]:
    """Return (row, measure, value) of all that is not 0."""
    parts = []
    for number, name in enumerate(counters.MEASURE_NAMES):
        if name in table.column_names:
            column = table[name].to_numpy()
            rows = np.flatnonzero(column)
            parts.append((rows, np.full(len(rows), number), column[rows]))
    if not parts:
        none = np.zeros(0, np.int64)
        return none, none, none
    rows, measures, values = (np.concatenate(part) for part in zip(*parts, strict=True))
    return rows, measures, values


def _enter(names: tuple[Names, ...], table: pa.Table) -> tuple[Array, ...]:
    """Return the owner of each row on each level. Python runs once a distinct video, not once a row."""
    words = [Words(table[column]) for column in ("tenant_id", "channel_id", "video_id")]
    code = np.zeros(table.num_rows, np.int64)
    for column in words:
        code = code * len(column.words) + column.codes
    _, first, inverse = np.unique(code, return_index=True, return_inverse=True)
    texts = [w.words.take(pa.array(w.codes[first])).to_pylist() for w in words]
    levels = list(zip(*texts, strict=True))
    return tuple(
        np.array([names[depth].enter(level[: depth + 1]) for level in levels], np.int64)[inverse]
        for depth in range(_LEVELS)
    )


def _with_cells(frames: Frames, time_ms: Array, owner: Array, measure: Array, value: Array, newest: int) -> Frames:
    for start in np.unique(time_ms).tolist():
        inside = time_ms == start
        chunk = Chunk.of(owner[inside], measure[inside], value[inside])
        frames = counters.with_chunk(frames, start, chunk, newest)
    return frames


def _without_old(state: _State, at_ms: int) -> _State:
    frames_from = floor_to(at_ms, HOP_MS) - WINDOW_MS - MINUTE_MS  # a minute of slack for readers' clocks
    minutes_from = floor_to(at_ms, MINUTE_MS) - (PLAYS_MINUTES + 1) * MINUTE_MS
    return replace(
        state,
        frames=tuple(counters.since(f, frames_from) for f in state.frames),
        minutes=tuple(counters.since(m, minutes_from) for m in state.minutes),
    )


def _without_idle_owners(state: _State) -> _State:
    """Forget owners without counters: memory follows what was published within the hour (V3)."""
    names: list[Names] = []
    frames: list[Frames] = []
    minutes: list[Frames] = []
    for level in range(_LEVELS):
        used = np.union1d(counters.owners_in(state.frames[level]), counters.owners_in(state.minutes[level]))
        if 2 * len(used) > len(state.names[level].level):  # renumbering costs more than the few names hold
            names.append(state.names[level])
            frames.append(state.frames[level])
            minutes.append(state.minutes[level])
            continue
        kept, moved = state.names[level].kept(used)
        names.append(kept)
        frames.append(counters.renumbered(state.frames[level], moved))
        minutes.append(counters.renumbered(state.minutes[level], moved))
    return replace(state, names=tuple(names), frames=tuple(frames), minutes=tuple(minutes))


# --- reading --------------------------------------------------------------------------------------------------


def _owners(state: _State, scope: LiveScope) -> tuple[int, Array]:
    """Return the level that holds the scope, and its owners there."""
    visible = scope.visible
    if scope.video_id is not None:
        level, found = 2, _named(state.names[2], (scope.video_id,))
    elif scope.channel_id is not None:
        level, found = 1, _named(state.names[1], (scope.channel_id,))
    elif visible.channels is not None:
        level, found = 1, _named(state.names[1], visible.channels)
    elif visible.tenant_id is not None:
        level, found = 0, _named(state.names[0], (visible.tenant_id,))
    else:
        level, found = 0, iter(range(len(state.names[0].level)))
    names = state.names[level].level
    owners = [number for number in found if _covers(scope, names[number])]
    return level, np.array(owners, np.int64)


def _named(names: Names, ids: tuple[str, ...]) -> Iterator[int]:
    return (number for word in dict.fromkeys(ids) for number in tuple(names.by_last.get(word, ())))


def _covers(scope: LiveScope, level: counters.Level) -> bool:
    """Return whether the scope's key may see the owner, and its channel is the one asked for (V4)."""
    visible = scope.visible
    if visible.tenant_id is not None and level[0] != visible.tenant_id:
        return False
    if len(level) > 1:
        if visible.channels is not None and level[1] not in visible.channels:
            return False
        return scope.channel_id is None or level[1] == scope.channel_id
    return True


def _plays_per_minute(minutes: Frames, owners: Array, now_ms: int) -> list[int]:
    end = floor_to(now_ms, MINUTE_MS)
    starts = range(end - PLAYS_MINUTES * MINUTE_MS, end, MINUTE_MS)
    return [
        int(counters.sums({start: minutes[start]}, owners, start, start + 1)[_PLAYS]) if start in minutes else 0
        for start in starts
    ]
