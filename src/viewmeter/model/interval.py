"""The interval rule: what each event of a view counts for. The heart, written once for the embedded engines and Spark.

In: events as columns, sorted by view and `seq`, distinct, and newer than what their views' states have applied; the
states of just these views. Out: increments (view, instant, bitrate, cdn, measure, amount), runs of presence, new holes
in `seq`, and the new states. Promised: a pure function of its arguments; cutting the same events into other batches
gives the same increments. Not done here: putting events in order and dropping duplicates (`ordering.py`), late events
(`late.py`), what only the passing of time tells (`silence.py`).

Source: DESIGN 3; docs/decisions/0001 where its words allow two readings (numbers in comments are its points).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from viewmeter.model import segments as seg
from viewmeter.model.catalogue.measures import BITRATE_BUCKETS, bitrate_bucket_codes
from viewmeter.model.events import EventType, Fatality
from viewmeter.model.following import Rows, State, follow, is_over
from viewmeter.model.increments import Builder, Increments, Presence
from viewmeter.model.once import count_events, count_once, count_plays, is_engaged, take_back_exits
from viewmeter.model.segments import NOWHERE
from viewmeter.model.views import (
    INTERVAL_CAP_MS,
    NEVER,
    SILENCE_MS,
    Base,
    Exited,
    Failed,
    Overlay,
    ViewStates,
)

Array = npt.NDArray[Any]
T = EventType

RULE_COLUMNS: Final = (
    "seq", "type", "ts", "received_at", "played_ms", "rebuffered_ms", "rebuffer_count", "startup_ms", "bitrate_kbps",
    "duration_ms", "fatal", "blind", "cdn",
)  # fmt: skip
"""The event columns that the rule reads; `cdn` as codes, -1 = absent."""


@dataclass(frozen=True)
class Holes:
    """Missing `seq`, both ends inclusive, one row a hole."""

    view: Array
    first: Array
    last: Array


@dataclass(frozen=True)
class EndRows:
    """The views whose one end came in the batch (not: by the silence after it), one row each."""

    view: Array
    upto: Array  # row of the last event before or at the end
    instant: Array
    played: Array  # whether there was a proof of playing by then


@dataclass(frozen=True)
class Trace:
    """How the rule went through the rows: for what asks about whole views (`wholes.py`, `content.py`)."""

    rows: Rows
    state: State
    played: Array  # ms gained at each row
    played_total: Array  # running, with what was carried in
    rebuffered: Array  # ms gained at each row
    rebuffers: Array  # entries at each row
    ends: EndRows
    blind: Array  # by view, as settled so far


@dataclass(frozen=True)
class Outcome:
    """What a batch of events amounts to."""

    increments: Increments
    presence: Presence
    holes: Holes
    states: ViewStates
    trace: Trace


def apply(view: Array, events: dict[str, Array], states: ViewStates) -> Outcome:
    """Apply a batch.

    view: row of `states` of each event, ascending, every row of `states` at least once. events: `RULE_COLUMNS`.
    """
    rows = Rows(view, events, states)
    state = follow(rows)
    out = Increments.builder(rows.segment, state.instant)
    nature = _decide(rows)
    fresh = states.take(np.arange(len(states)))
    played, rebuffered, rebuffers = _times(rows, state, nature, fresh)
    proof = (rows.kind == T.PLAY) | (rows.kind == T.COMPLETE)
    proof |= ~nature.blind[rows.segment] & ((state.base == Base.PLAYING) | (played > 0))
    first_proof = rows.first(proof)
    fresh.blind, fresh.decided = nature.blind, nature.decided
    fresh.counts_played, fresh.counts_rebuffered = nature.counts_played, nature.counts_rebuffered
    fresh.counts_rebuffers = nature.counts_rebuffers

    out.of_interval(
        np.where(rows.has_before, rows.before(state.bitrate), 0),
        np.where(rows.has_before, rows.before(state.cdn), rows.join("cdn", -1)),
    )
    count_events(out, rows.event_rows, rows.kind[rows.event_rows])
    _count_time(rows, state, nature, (played, rebuffered, rebuffers), out)
    _count_shifts(rows, state, out)
    gap, holes = _count_loss(rows, out, fresh)
    _count_firsts(rows, first_proof, nature, out, fresh)
    total = _count_engaged(rows, state, played, nature, out, fresh)
    _count_startup(rows, state, gap, out, fresh)
    ends = _count_end(rows, state, first_proof, out, fresh)
    presence = _presence(rows, state, nature, fresh)
    _carry(rows, state, fresh)
    trace = Trace(rows, state, played, total, rebuffered, rebuffers, ends, nature.blind)
    return Outcome(out.build(), presence, holes, fresh, trace)


@dataclass
class _Nature:
    """What kind of client each view has, settled at its first event other than request (points 4 and 10)."""

    decider: Array  # row of that event; NOWHERE = not in this batch
    decided: Array
    blind: Array
    counts_played: Array
    counts_rebuffered: Array
    counts_rebuffers: Array


def _decide(rows: Rows) -> _Nature:
    states = rows.states
    decider = rows.first(rows.kind != T.REQUEST)
    decider[states.decided] = NOWHERE
    deciding = np.flatnonzero(decider != NOWHERE)
    at = rows.event_rows.searchsorted(decider[deciding])
    nature = _Nature(
        decider,
        states.decided | (decider != NOWHERE),
        states.blind.copy(),
        states.counts_played.copy(),
        states.counts_rebuffered.copy(),
        states.counts_rebuffers.copy(),
    )
    nature.blind[deciding] = rows.events["blind"][at]
    nature.counts_played[deciding] = rows.events["played_ms"][at] >= 0
    nature.counts_rebuffered[deciding] = rows.events["rebuffered_ms"][at] >= 0
    nature.counts_rebuffers[deciding] = rows.events["rebuffer_count"][at] >= 0
    return nature


def _times(rows: Rows, state: State, nature: _Nature, fresh: ViewStates) -> tuple[Array, Array, Array]:
    """Return played ms, rebuffered ms and entries into rebuffering at each row; carry the counters' maxima."""
    lasted = np.where(rows.has_before, state.instant - rows.before(state.instant), 0)
    lasted = np.minimum(lasted, INTERVAL_CAP_MS)
    was_playing = rows.before(state.base) == Base.PLAYING
    was_rebuffering = rows.before(state.rebuffering)
    plays_on = was_playing & ~was_rebuffering & ~rows.before(state.seeking)
    sighted = ~nature.blind[rows.segment] & rows.is_event

    def choose(counter: str, counts: Array, by_state: Array) -> Array:
        if not counts.any():
            return np.where(sighted, by_state, 0)
        maximum = f"max_{counter}"
        carried = getattr(rows.states, maximum)
        total = rows.join(counter, carried)
        # Counters on a request before the decider are not read (point 4).
        unread = rows.is_event & (rows.kind == T.REQUEST)
        if unread.any():
            decided_from = np.where(rows.states.decided, -1, nature.decider)
            total[unread & (np.arange(rows.size) < decided_from[rows.segment])] = 0
        highest = rows.running_max(total)
        setattr(fresh, maximum, np.where(counts, highest[rows.ends], carried))
        return np.where(sighted, np.where(counts[rows.segment], highest - rows.before(highest), by_state), 0)

    played = choose("played_ms", nature.counts_played, np.where(plays_on, lasted, 0))
    rebuffered = choose("rebuffered_ms", nature.counts_rebuffered, np.where(was_playing & was_rebuffering, lasted, 0))
    rebuffers = choose("rebuffer_count", nature.counts_rebuffers, state.enters_rebuffering.astype(np.int64))
    return played, rebuffered, rebuffers


def _count_time(rows: Rows, state: State, nature: _Nature, amounts: tuple[Array, Array, Array], out: Builder) -> None:
    """Count time and rebuffers. A first counter value has no bitrate and its own cdn (point 2)."""
    bitrate, cdn = out.bitrate, out.cdn
    played = amounts[0]
    deciders = nature.decider[nature.decider != NOWHERE]
    own_cdn = rows.join("cdn", -1)
    odd = deciders[(bitrate[deciders] > 0) | (cdn[deciders] != own_cdn[deciders])]
    for name, counts, amount in zip(
        ("played_ms", "rebuffered_ms", "rebuffer_count"),
        (nature.counts_played, nature.counts_rebuffered, nature.counts_rebuffers),
        amounts,
        strict=True,
    ):
        apart = odd[counts[rows.segment[odd]] & (amount[odd] > 0)]
        if len(apart):
            extra = out.extra(rows.segment[apart], state.instant[apart], np.zeros(len(apart), np.int32), own_cdn[apart])
            out.add(name, extra, amount[apart])
            together = amount.copy()
            together[apart] = 0
        else:
            together = amount
        if name == "played_ms":
            played = together
        at = np.flatnonzero(together)
        out.add(name, at, together[at])
    at = np.flatnonzero((played > 0) & (bitrate > 0))
    rate = bitrate[at].astype(np.int64)
    out.add("played_kbit", at, played[at] * rate)
    out.add("played_ms_known_bitrate", at, played[at])
    bucket = bitrate_bucket_codes(rate)
    for code, name in enumerate(BITRATE_BUCKETS, start=1):
        of = at[bucket == code]
        out.add(f"played_ms_{name}", of, played[of])


def _count_shifts(rows: Rows, state: State, out: Builder) -> None:
    at = np.flatnonzero(rows.kind == T.QUALITY_CHANGE)
    if not len(at):
        return
    new = rows.join("bitrate_kbps", 0)[at]
    old = rows.before(state.bitrate)[at]
    out.add("upshifts", at[(new > 0) & (old > 0) & (new > old)], 1)
    out.add("downshifts", at[(new > 0) & (old > 0) & (new < old)], 1)


def _count_loss(rows: Rows, out: Builder, fresh: ViewStates) -> tuple[Array, Holes]:
    """Count holes in `seq`; return the size of the one before each row, and the holes themselves."""
    seq = rows.join("seq", rows.states.max_seq)
    before = rows.before(seq)
    gap = np.where(rows.is_event, seq - before - 1, 0)
    at = np.flatnonzero(gap)
    out.add("lost_events", at, gap[at])
    between = at[rows.has_before[at]]  # a hole before the first event is none between request and play
    fresh.gap_since_first[rows.segment[between]] = True
    fresh.max_seq = seq[rows.ends]
    return gap, Holes(rows.segment[at], before[at] + 1, seq[at] - 1)


def _count_firsts(rows: Rows, first_proof: Array, nature: _Nature, out: Builder, fresh: ViewStates) -> None:
    out.add("attempts", rows.starts[~rows.states.seen] + 1, 1)
    count_plays(out, first_proof, nature.blind, fresh)
    count_once(out, "completes", rows.first(rows.kind == T.COMPLETE), fresh.completed)
    fresh.seen[:] = True


def _count_engaged(rows: Rows, state: State, played: Array, nature: _Nature, out: Builder, fresh: ViewStates) -> Array:
    """Point 1: 30 s, or half of the content where its length is known, whichever comes first. Return played so far."""
    played = played.copy()
    played[rows.starts] = rows.states.played_ms
    total = seg.running_sum(played, rows.starts, rows.segment)
    enough = is_engaged(total, state.duration) & ~nature.blind[rows.segment]
    count_once(out, "engaged_views", rows.first(enough), fresh.engaged)
    fresh.played_ms = total[rows.ends]
    return total


def _count_startup(rows: Rows, state: State, gap: Array, out: Builder, fresh: ViewStates) -> None:
    """Point 8: of the first play: its own figure, or the time since a request with nothing missing between."""
    states = rows.states
    opening = rows.starts + 1
    requested = ~states.seen & (rows.kind[opening] == T.REQUEST)
    fresh.requested_at = np.where(requested, state.instant[opening], states.requested_at)
    play = rows.first(rows.kind == T.PLAY)
    news = np.flatnonzero((play != NOWHERE) & ~states.play_seen)
    if not len(news):
        return
    fresh.play_seen[news] = True
    at = play[news]
    told = rows.join("startup_ms", NEVER)[at]
    first_gap = rows.first(rows.has_before & (gap > 0))
    whole = ~states.gap_since_first[news] & (first_gap[news] > at) & (fresh.requested_at[news] != NEVER)
    value = np.where(told >= 0, told, state.instant[at] - fresh.requested_at[news])
    has = (told >= 0) | whole
    out.add("startup_ms", at[has], value[has])
    out.add("startups", at[has], 1)


def _count_end(rows: Rows, state: State, first_proof: Array, out: Builder, fresh: ViewStates) -> EndRows:
    """Count failures and exits before start: at fatal errors, at the one end of the view, and what is taken back."""
    states, kind, instant = rows.states, rows.kind, state.instant
    fatality = rows.join("fatal", 0)
    fatal = (kind == T.ERROR) & (fatality == Fatality.FATAL)
    speaks = (kind == T.PLAY) | (kind == T.COMPLETE)
    unclear = (kind == T.ERROR) & ~np.isin(fatality, (Fatality.FATAL, Fatality.GOES_ON))
    unclear[rows.starts] = states.last_word_error
    last_word = rows.carried_on(unclear, (unclear & rows.is_event) | speaks)
    fresh.last_word_error = last_word[rows.ends]

    silent = rows.has_before & (instant - rows.before(instant) > SILENCE_MS)
    end = rows.first((kind == T.COMPLETE) | (kind == T.EXIT) | fatal | silent)
    end[states.ended] = NOWHERE
    ending = np.flatnonzero(end != NOWHERE)
    at = end[ending]
    by_silence = silent[at]
    upto = at - by_silence  # silence ends the view before this row is read (point 6)
    first_fatal = rows.first(fatal)
    first_fatal[states.failed == Failed.FATAL] = NOWHERE
    failed = first_fatal[ending] <= upto
    gave_up = last_word[upto] & ~failed
    played = states.played[ending] | (first_proof[ending] <= upto)
    left = ~played & ~failed & ~gave_up
    when = np.where(by_silence, instant[upto] + SILENCE_MS, instant[at])
    # Silence has rows of its own, at its own instant; any other end is an event's row.
    where = at.copy()
    apart = by_silence & (gave_up | left)
    where[apart] = out.extra(ending[apart], when[apart], state.bitrate[upto[apart]], state.cdn[upto[apart]])
    out.add("failures", where[gave_up], 1)
    out.add("exits_before_start", where[left], 1)
    fresh.ended[ending] = True

    # From here on, rows at or behind `since` take back.
    since = np.where(states.failed == Failed.UNKNOWN, 0, NOWHERE)
    since[ending[gave_up]] = upto[gave_up] + 1
    back = seg.first_where(
        speaks & rows.is_event & (np.arange(rows.size) >= since[rows.segment]), rows.segment, len(states)
    )
    back[back > first_fatal] = NOWHERE
    out.add("failures", back[back != NOWHERE], -1)
    counts = (first_fatal != NOWHERE) & ((since > first_fatal) | (back < first_fatal))
    out.add("failures", first_fatal[counts], 1)
    fresh.failed = np.where(since != NOWHERE, np.uint8(Failed.UNKNOWN), states.failed)
    fresh.failed[back != NOWHERE] = Failed.NO
    fresh.failed[first_fatal != NOWHERE] = Failed.FATAL

    fresh.exited[ending[left]] = Exited.COUNTED
    take_back_exits(out, first_proof, first_fatal, fresh)
    return EndRows(ending, upto, when, played)


def _presence(rows: Rows, state: State, nature: _Nature, fresh: ViewStates) -> Presence:
    """Return runs of presence of the closed intervals, and what an earlier guess claimed too much (point 11)."""
    states, instant = rows.states, state.instant
    active = (state.base == Base.STARTING) | (state.base == Base.PLAYING) | (rows.kind == T.PAUSE)
    active |= nature.blind[rows.segment]
    active &= rows.is_event
    over = is_over(state.base)
    active_at = np.where(active & ~over, instant, NEVER)  # what is over is present again only by an active event
    active_at[rows.starts] = states.last_active
    active_at = rows.carried_on(active_at, active | over)
    alive = active_at != NEVER

    # An event that is older than what was claimed meanwhile: take that back, and claim anew from the event on.
    opening = instant[rows.starts + 1]
    excess = np.flatnonzero(states.present_until > opening)
    taken = Presence.of(excess, opening[excess], states.present_until[excess], -1)
    claimed = np.minimum(states.present_until, opening)
    start = np.maximum(rows.before(instant), claimed[rows.segment])
    stop = np.minimum(instant, rows.before(active_at) + INTERVAL_CAP_MS)
    at = np.flatnonzero(rows.has_before & rows.is_event & rows.before(alive) & (stop > start))
    runs = Presence.of(rows.segment[at], start[at], stop[at], 1)
    fresh.present_until = instant[rows.ends]
    fresh.last_active = active_at[rows.ends]
    return Presence.joined(taken, runs)


def _carry(rows: Rows, state: State, fresh: ViewStates) -> None:
    """Put what is known after the last event of each view into the new states."""
    ends, states = rows.ends, rows.states
    fresh.instant = state.instant[ends]
    received = rows.join("received_at", states.last_received)
    fresh.last_received = np.maximum.reduceat(received, rows.starts)
    fresh.base = state.base[ends]
    fresh.overlay = np.where(
        state.seeking[ends], Overlay.SEEKING, np.where(state.rebuffering[ends], Overlay.REBUFFERING, 0)
    ).astype(np.uint8)
    fresh.bitrate_kbps = state.bitrate[ends].astype(np.int32)
    fresh.cdn = state.cdn[ends]
    fresh.duration_ms = state.duration[ends]
