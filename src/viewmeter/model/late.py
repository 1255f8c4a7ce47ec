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
from viewmeter.model.events import EVENT_TYPES, EventType, Fatality
from viewmeter.model.increments import Builder, Increments
from viewmeter.model.segments import NOWHERE
from viewmeter.model.views import ENGAGED_MS, Exited, Failed, ViewStates

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
    out.add("events", rows, 1)
    out.add("late_events", rows, 1)
    out.add("lost_events", rows, -1)
    for code, word in enumerate(EVENT_TYPES):
        out.add(f"events_{word}", rows[kind == code], 1)
    out.add("seeks", rows[kind == T.SEEK], 1)
    out.add("pauses", rows[kind == T.PAUSE], 1)
    fresh.last_received = np.maximum(states.last_received, np.maximum.reduceat(events["received_at"], starts))

    played = _raise_maxima(view, starts, events, states, fresh, out)
    _count_firsts(view, kind, played, events, states, fresh, out)
    total = states.played_ms[view] + seg.running_sum(played, starts, view)
    long = fresh.duration_ms[view]
    enough = ~states.blind[view] & ((total >= ENGAGED_MS) | ((long > 0) & (2 * total >= long)))
    first = seg.first_where(enough, view, len(states))
    news = np.flatnonzero((first != NOWHERE) & ~states.engaged)
    out.add("engaged_views", first[news], 1)
    fresh.engaged[news] = True
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
    news = np.flatnonzero((first_proof != NOWHERE) & ~states.played)
    out.add("plays", first_proof[news], 1)
    out.add("blind_plays", first_proof[news[states.blind[news]]], 1)
    fresh.played[news] = True

    complete = seg.first_where(kind == T.COMPLETE, view, count)
    news = np.flatnonzero((complete != NOWHERE) & ~states.completed)
    out.add("completes", complete[news], 1)
    fresh.completed[news] = True

    fatal = seg.first_where((kind == T.ERROR) & (events["fatal"] == Fatality.FATAL), view, count)
    fatal[states.failed == Failed.FATAL] = NOWHERE
    news = np.flatnonzero(fatal != NOWHERE)
    out.add("failures", fatal[news[states.failed[news] == Failed.NO]], 1)
    fresh.failed[news] = Failed.FATAL

    redeemed = np.minimum(first_proof, fatal)
    redeemed[states.exited != Exited.COUNTED] = NOWHERE
    out.add("exits_before_start", redeemed[redeemed != NOWHERE], -1)
    fresh.exited[redeemed != NOWHERE] = Exited.TAKEN_BACK

    play = seg.first_where((kind == T.PLAY) & (events["startup_ms"] >= 0), view, count)
    news = np.flatnonzero((play != NOWHERE) & ~states.play_seen)
    out.add("startup_ms", play[news], events["startup_ms"][play[news]])
    out.add("startups", play[news], 1)
    fresh.play_seen[news] = True
