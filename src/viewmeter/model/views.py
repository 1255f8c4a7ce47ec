"""The state of views, as columns: what the interval rule carries from one batch of events to the next.

One row a view. Nothing in here knows how views are found, stored or dropped; that is the engine's business.
Instants are ms since the epoch, `NEVER` where there is none.
"""

from __future__ import annotations

import enum
from collections.abc import Iterator
from typing import Any, Final

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]

NEVER: Final = -1
INTERVAL_CAP_MS: Final = 60_000
"""Time by state counts at most this long an interval; presence lasts this long after an active event."""
SILENCE_MS: Final = 300_000
"""A view ends when nothing of it came for longer than this."""
ENGAGED_MS: Final = 30_000


class Base(enum.IntEnum):
    """What the player is about."""

    NONE = 0
    STARTING = 1
    PLAYING = 2
    PAUSED = 3
    ENDED = 4
    FAILED = 5
    GONE = 6


class Overlay(enum.IntEnum):
    """What stands in the way of playing."""

    NONE = 0
    SEEKING = 1
    REBUFFERING = 2


class Failed(enum.IntEnum):
    """Whether the view counts as failed, and by what."""

    NO = 0
    FATAL = 1
    UNKNOWN = 2  # its last word was an error of unknown fatality; a later play takes it back


class Exited(enum.IntEnum):
    """Whether the view counts as an exit before start."""

    NO = 0
    COUNTED = 1
    TAKEN_BACK = 2


FIELDS: Final[dict[str, tuple[str, int]]] = {
    "seen": ("?", 0),
    "max_seq": ("i8", -1),
    "instant": ("i8", NEVER),  # running maximum of ts
    "last_received": ("i8", NEVER),
    "base": ("u1", Base.NONE),
    "overlay": ("u1", Overlay.NONE),
    "decided": ("?", 0),  # an event other than request was seen: blind and counters are settled
    "blind": ("?", 0),
    "counts_played": ("?", 0),
    "counts_rebuffered": ("?", 0),
    "counts_rebuffers": ("?", 0),
    "max_played_ms": ("i8", 0),
    "max_rebuffered_ms": ("i8", 0),
    "max_rebuffer_count": ("i8", 0),
    "played_ms": ("i8", 0),  # total so far, from counters or state
    "bitrate_kbps": ("i4", 0),  # 0 = unknown
    "cdn": ("i4", -1),  # a code of the caller's; -1 = unknown
    "duration_ms": ("i8", -1),
    "played": ("?", 0),
    "completed": ("?", 0),
    "failed": ("u1", Failed.NO),
    "exited": ("u1", Exited.NO),
    "engaged": ("?", 0),
    "ended": ("?", 0),  # the end came; it comes once
    "play_seen": ("?", 0),  # the first `play` was read: startup is settled
    "last_word_error": ("?", 0),  # an error of unknown fatality, no play or complete since
    "requested_at": ("i8", NEVER),  # instant of the first event, where that is a request
    "gap_since_first": ("?", 0),
    "last_active": ("i8", NEVER),  # NEVER again once the view is ended, failed or gone
    "present_until": ("i8", NEVER),  # presence was emitted up to here
}


class ViewStates:
    """Columns of view state, each an attribute named in `FIELDS`."""

    seen: Array
    max_seq: Array
    instant: Array
    last_received: Array
    base: Array
    overlay: Array
    decided: Array
    blind: Array
    counts_played: Array
    counts_rebuffered: Array
    counts_rebuffers: Array
    max_played_ms: Array
    max_rebuffered_ms: Array
    max_rebuffer_count: Array
    played_ms: Array
    bitrate_kbps: Array
    cdn: Array
    duration_ms: Array
    played: Array
    completed: Array
    failed: Array
    exited: Array
    engaged: Array
    ended: Array
    play_seen: Array
    last_word_error: Array
    requested_at: Array
    gap_since_first: Array
    last_active: Array
    present_until: Array

    def __init__(self, columns: dict[str, Array]) -> None:
        self.__dict__.update(columns)

    @classmethod
    def new(cls, count: int) -> ViewStates:
        """Return `count` views of which nothing is known."""
        return cls({name: np.full(count, fill, dtype) for name, (dtype, fill) in FIELDS.items()})

    def __len__(self) -> int:
        return len(self.seen)

    def columns(self) -> Iterator[tuple[str, Array]]:
        """Yield (name, column)."""
        return ((name, self.__dict__[name]) for name in FIELDS)

    def take(self, rows: Array) -> ViewStates:
        """Return copies of the rows."""
        return ViewStates({name: column[rows] for name, column in self.columns()})

    def put(self, rows: Array, states: ViewStates) -> None:
        """Overwrite the rows (distinct) with `states`."""
        for name, column in self.columns():
            column[rows] = states.__dict__[name]

    def reset(self, rows: Array) -> None:
        """Forget all about the rows."""
        for name, (_, fill) in FIELDS.items():
            self.__dict__[name][rows] = fill

    def grow(self, count: int) -> None:
        """Make room for `count` views in all."""
        extra = ViewStates.new(count - len(self))
        for name in FIELDS:
            self.__dict__[name] = np.concatenate([self.__dict__[name], extra.__dict__[name]])
