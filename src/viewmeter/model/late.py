"""Events that arrive after a later one of their view was applied: they add only what they still can.

In: late events in any order (none a duplicate), with the states of their views. Out: increments at the events' own
instants, without bitrate, and the new states. The batch layer, which sees the whole hour in order, has the last word.
Source: DESIGN 3 "Order"; decision 0001, point 16.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from viewmeter.model import segments as seg
from viewmeter.model.events import EventType, Fatality
from viewmeter.model.increments import Builder, Increments
from viewmeter.model.once import count_events, count_once, count_plays, is_engaged, take_back_exits
from viewmeter.model.segments import NOWHERE
from viewmeter.model.views import Failed, ViewStates

Array = npt.NDArray[Any]
T = EventType


def apply_late(view: Array, events: dict[str, Array], states: ViewStates) -> tuple[Increments, ViewStates]:
    """Apply late events: `view` ascending, every row of `states` at least once; events sorted by seq a view."""
    kind = events["type"]
    starts = np.flatnonzero(np.diff(view, prepend=-1))
    fresh = states.take(np.arange(len(states)))
    out = Increments.builder(view, events["ts"])
    out.of_interval(np.zeros(len(view), np.int32), events["cdn"])
    rows = np.arange(len(view))
    count_events(out, rows, kind)
    out.add("late_events", rows, 1)
    out.add("lost_events", rows, -1)
    fresh.last_received = np.maximum(states.last_received, np.maximum.reduceat(events["received_at"], starts))

    played = _raise_maxima(view, starts, events, states, fresh, out)
    _count_firsts(view, kind, played, events, states, fresh, out)
    total = states.played_ms[view] + seg.running_sum(played, starts, view)
    enough = is_engaged(total, fresh.duration_ms[view]) & ~states.blind[view]
    count_once(out, "engaged_views", seg.first_where(enough, view, len(states)), fresh.engaged)
    fresh.played_ms = total[np.append(starts[1:], len(view)) - 1]
    return out.build(), fresh


def _raise_maxima(
    view: Array, starts: Array, events: dict[str, Array], states: ViewStates, fresh: ViewStates, out: Builder
) -> Array:
    """Add what late counters exceed the running maxima by; return the played time gained at each row."""
    gained = np.zeros(len(view), np.int64)
    for column, counts in (
        ("played_ms", states.counts_played),
        ("rebuffered_ms", states.counts_rebuffered),
        ("rebuffer_count", states.counts_rebuffers),
    ):
        carried = getattr(states, f"max_{column}")
        reads = counts[view] & ~states.blind[view] & (events["type"] != T.REQUEST)
        values = np.where(reads, np.maximum(events[column], carried[view]), carried[view])
        highest = seg.running_max(values, view)
        before = np.empty_like(highest)
        before[1:] = highest[:-1]
        before[starts] = carried
        more = highest - before
        at = np.flatnonzero(more)
        out.add(column, at, more[at])
        setattr(fresh, f"max_{column}", np.maximum.reduceat(highest, starts))
        if column == "played_ms":
            gained = more
    return gained


def _count_firsts(
    view: Array,
    kind: Array,
    played: Array,
    events: dict[str, Array],
    states: ViewStates,
    fresh: ViewStates,
    out: Builder,
) -> None:
    count = len(states)
    first_proof = seg.first_where((kind == T.PLAY) | (kind == T.COMPLETE) | (played > 0), view, count)
    count_plays(out, first_proof, states.blind, fresh)
    count_once(out, "completes", seg.first_where(kind == T.COMPLETE, view, count), fresh.completed)

    fatal = seg.first_where((kind == T.ERROR) & (events["fatal"] == Fatality.FATAL), view, count)
    fatal[states.failed == Failed.FATAL] = NOWHERE
    news = np.flatnonzero(fatal != NOWHERE)
    out.add("failures", fatal[news[states.failed[news] == Failed.NO]], 1)
    fresh.failed[news] = Failed.FATAL

    take_back_exits(out, first_proof, fatal, fresh)

    play = seg.first_where((kind == T.PLAY) & (events["startup_ms"] >= 0), view, count)
    news = count_once(out, "startups", play, fresh.play_seen)
    out.add("startup_ms", play[news], events["startup_ms"][play[news]])
