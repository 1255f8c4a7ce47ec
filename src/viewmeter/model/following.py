"""The state of views through a batch: a base and two overlays after each event, by forward fills instead of a loop.

In: sorted events with the carried states. Out: `Rows` (every look back is the row before) and `State` (columns).
Promised: what DESIGN 3 says under "The state of a view", row by row. Not done: counting; that is the interval rule's.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from viewmeter.model import segments as seg
from viewmeter.model.events import EventType, Fatality
from viewmeter.model.views import Base, Overlay, ViewStates

Array = npt.NDArray[Any]
T = EventType

_BASE_OF: Final = np.zeros(len(EventType), np.uint8)
for _kind, _base in {
    T.REQUEST: Base.STARTING,
    T.PLAY: Base.PLAYING,
    T.PAUSE: Base.PAUSED,
    T.COMPLETE: Base.ENDED,
    T.EXIT: Base.GONE,
}.items():
    _BASE_OF[_kind] = _base

_SEEK_GOES_ON: Final = np.zeros(len(EventType), bool)
_SEEK_GOES_ON[[T.BUFFER, T.QUALITY_CHANGE, T.OTHER]] = True

_OVER: Final = np.zeros(len(Base), bool)
_OVER[[Base.ENDED, Base.FAILED, Base.GONE]] = True


def is_over(base: Array) -> Array:
    """Return where the base is ended, failed or gone."""
    return _OVER[base]


class Rows:
    """The batch with each view's carried state as a row before its events, so that every look back is `row - 1`."""

    def __init__(self, view: Array, events: dict[str, Array], states: ViewStates) -> None:
        count, views = len(view), len(states)
        self.states = states
        self.event_rows = np.arange(1, count + 1) + view
        sizes = np.bincount(view, minlength=views)
        self.starts = np.concatenate([[0], np.cumsum(sizes + 1)[:-1]])
        self.ends = self.starts + sizes  # each view's last event
        self.size = count + views
        self.segment = np.repeat(np.arange(views), sizes + 1)
        self.is_event = np.ones(self.size, bool)
        self.is_event[self.starts] = False
        self.events = events
        self.kind = self.join("type", np.full(views, 255, np.uint8))
        self.has_before = np.ones(self.size, bool)  # the row before is an event or a state that has seen one
        self.has_before[self.starts] = False
        self.has_before[self.starts + 1] = states.seen

    def join(self, column: str, carried: Array | int) -> Array:
        """Return the event column with the carried value at each view's head."""
        values = self.events[column]
        out = np.empty(self.size, values.dtype)
        out[self.event_rows] = values
        out[self.starts] = carried
        return out

    def before(self, values: Array) -> Array:
        """Return the value of the row before each row (meaningless at the heads)."""
        out = np.empty_like(values)
        out[1:] = values[:-1]
        out[0] = values[0]
        return out

    def carried_on(self, values: Array, known: Array) -> Array:
        """Return the last known value up to each row; the head counts as known."""
        return values[seg.last_where(known, self.starts)]

    def first(self, condition: Array) -> Array:
        """Return each view's first event where the condition holds."""
        return seg.first_where(condition & self.is_event, self.segment, len(self.states))

    def running_max(self, values: Array) -> Array:
        """Return the running maximum of each view."""
        return seg.running_max(values, self.segment)


@dataclass
class State:
    """State after each row: base and overlays, and what is known of the stream."""

    instant: Array
    base: Array
    seeking: Array
    rebuffering: Array
    enters_rebuffering: Array
    bitrate: Array
    cdn: Array
    duration: Array


def follow(rows: Rows) -> State:
    """Follow base and overlays through the rows: forward fills, no loop."""
    states, starts, kind = rows.states, rows.starts, rows.kind
    fatal = rows.join("fatal", 0)
    is_base = np.zeros(rows.size, np.uint8)
    is_base[rows.event_rows] = _BASE_OF[kind[rows.event_rows]]
    error = kind == T.ERROR
    is_base[error & (fatal == Fatality.FATAL)] = Base.FAILED
    is_base[error & (fatal == Fatality.HALTED)] = Base.PAUSED
    sets_base = is_base > 0
    is_base[starts] = states.base
    base = rows.carried_on(is_base, sets_base)
    beats = (kind == T.HEARTBEAT) & ~rows.join("blind", carried=False)
    if (base[beats] == Base.NONE).any():
        last_beat = seg.last_where(beats, starts)
        base = np.where((base == Base.NONE) & (last_beat > starts[rows.segment]), np.uint8(Base.PLAYING), base)

    goes_on = np.zeros(rows.size, bool)
    goes_on[rows.event_rows] = _SEEK_GOES_ON[kind[rows.event_rows]]
    is_seek = kind == T.SEEK
    is_seek[starts] = states.overlay == Overlay.SEEKING
    seeking = rows.carried_on(is_seek, ~goes_on)
    stalls = (kind == T.BUFFER) & (base == Base.PLAYING) & ~seeking
    moves_on = sets_base | (kind == T.SEEK)
    is_stall = stalls.copy()
    is_stall[starts] = states.overlay == Overlay.REBUFFERING
    rebuffering = rows.carried_on(is_stall, stalls | moves_on)

    bitrate = rows.join("bitrate_kbps", states.bitrate_kbps)
    cdn = rows.join("cdn", states.cdn)
    duration = rows.join("duration_ms", states.duration_ms)
    ts = rows.join("ts", states.instant)
    unseen = starts[~states.seen]
    ts[unseen] = ts[unseen + 1]
    return State(
        instant=rows.running_max(ts),
        base=base,
        seeking=seeking,
        rebuffering=rebuffering,
        enters_rebuffering=stalls & ~rows.before(rebuffering),
        bitrate=rows.carried_on(bitrate, bitrate > 0),
        cdn=rows.carried_on(cdn, cdn >= 0),
        duration=rows.carried_on(duration, duration >= 0),
    )
