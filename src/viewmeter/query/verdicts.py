"""Why a view was counted or not: one sentence a measure, with this view's own events and numbers.

In: a view as the interval rule went through it (`Case`). Out: sentences, and what did not count. Promised: what is said
is read from the rule's own increments and states, not decided again here. Not done: the object around it (`views.py`).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import tzinfo
from functools import cached_property
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from viewmeter.model.events import EVENT_TYPES, EventType, Fatality
from viewmeter.model.interval import Outcome
from viewmeter.model.ordering import WAIT_MS
from viewmeter.model.time import from_ms
from viewmeter.model.views import ENGAGED_MS, INTERVAL_CAP_MS, SILENCE_MS, Base, ViewStates

Array = npt.NDArray[Any]

SHOWN: Final = 6
"""Parts of a sum, or holes, that a sentence names one by one."""


@dataclass(frozen=True)
class Fact:
    """An increment: how much of which measure, at which instant, by which event (its place; None: silence)."""

    measure: str
    amount: int
    instant_ms: int
    index: int | None


@dataclass(frozen=True)
class Case:
    """A view as the rule went through it; `states` is after silence ended it, where it did."""

    events: pa.Table  # distinct, by seq
    outcome: Outcome
    states: ViewStates
    facts: Sequence[Fact]  # by instant
    ended_ms: int | None
    ended_by: str | None
    end_index: int  # of the last event up to the end
    zone: tzinfo

    @cached_property
    def seq(self) -> list[int]:
        """The events' `seq`."""
        found: list[int] = self.events["seq"].to_pylist()
        return found

    @cached_property
    def kinds(self) -> Array:
        """The events' types, as codes."""
        found: Array = self.events["type"].to_numpy()
        return found

    def of(self, measure: str) -> list[Fact]:
        """Return the increments of a measure, by instant."""
        return [fact for fact in self.facts if fact.measure == measure]

    def total(self, measure: str) -> int:
        """Return the sum of a measure."""
        return sum(fact.amount for fact in self.of(measure))

    def value(self, index: int, column: str) -> Any:
        """Return one field of an event."""
        return self.events[column][index].as_py()

    def instant(self, index: int) -> int:
        """Return an event's instant, ms."""
        return int(self.outcome.trace.state.instant[index + 1])

    def first(self, *kinds: EventType) -> int | None:
        """Return the place of the first event of these types."""
        found = np.flatnonzero(np.isin(self.kinds, kinds))
        return int(found[0]) if len(found) else None

    def decider(self) -> int | None:
        """Return the event that settled what kind of player it is: the first other than `request`."""
        found = np.flatnonzero(self.kinds != EventType.REQUEST)
        return int(found[0]) if len(found) else None

    def name(self, index: int) -> str:
        """Write an event: `play` (seq 1)."""
        code = self.value(index, "error_code")
        return f"`{EVENT_TYPES[int(self.kinds[index])]}` (seq {self.seq[index]}{f', {code}' if code else ''})"

    def at(self, instant_ms: int) -> str:
        """Write an instant: the time of day, with the date where it is not the day the view began on."""
        moment, began = from_ms(instant_ms, self.zone), from_ms(self.instant(0), self.zone)
        text = moment.time().isoformat("milliseconds")
        return text if moment.date() == began.date() else f"{moment.date().isoformat()} {text}"

    def named_at(self, index: int) -> str:
        """Write an event with its instant."""
        return f"{self.name(index)} at {self.at(self.instant(index))}"


def why(case: Case, measure: str) -> str:
    """Return why the view counts for a measure, or why not."""
    return _SENTENCES[measure](case)


def seconds(ms: int) -> str:
    """Write a length of time, to the ms: 820 ms, 61.2 s, 30 s."""
    return f"{ms} ms" if abs(ms) < 1_000 else f"{ms / 1000:.3f}".rstrip("0").rstrip(".") + " s"


def _attempts(case: Case) -> str:
    before = f"; the {case.seq[0]} before it never came" if case.seq[0] else ""
    return f"its first known event is {case.named_at(0)}{before}"


def _plays(case: Case) -> str:
    facts = case.of("plays")
    if not facts or facts[0].index is None:
        rest = "" if case.states.blind[0] else ", no heartbeat outside of a pause, no played time"
        return f"nothing proves that the picture moved: no `play`, no `complete`{rest} in {_events(case)}"
    index = facts[0].index
    since = f", {seconds(case.instant(index) - case.instant(0))} after {case.name(0)}" if index else ""
    proof = f"the first proof of playing is {case.named_at(index)}{since}"
    if case.kinds[index] in (EventType.PLAY, EventType.COMPLETE):
        return proof
    gained = int(case.outcome.trace.played[index + 1])
    if gained:
        return f"{proof}: it brings {seconds(gained)} of played time"
    return f"{proof}: nothing said otherwise before it, so it beats because the picture moves"


def _blind_plays(case: Case) -> str:
    decider = case.decider()
    if decider is not None and case.states.blind[0]:
        said = f"{case.name(decider)}, its first event other than `request`, says `blind`: its player hides its state"
        return said if case.total("plays") else f"{said}, but it is no play"
    if decider is None:
        return "it is no play: nothing but `request` came"
    return f"its player tells its state: {case.name(decider)}, its first event other than `request`, is not `blind`"


def _completes(case: Case) -> str:
    first = case.first(EventType.COMPLETE)
    if first is None:
        return f"no `complete` in {_events(case)}; the last is {case.named_at(len(case.seq) - 1)}"
    more = int((case.kinds == EventType.COMPLETE).sum()) - 1
    return f"its first `complete` is seq {case.seq[first]} at {case.at(case.instant(first))}" + (
        f"; {more} more of them count nothing" if more else ""
    )


def _failures(case: Case) -> str:
    facts = case.of("failures")
    if not facts:
        return _no_failure(case)
    told = "; ".join(_failure(case, fact) for fact in facts)
    return told if case.total("failures") else f"{told}: it went on"


def _failure(case: Case, fact: Fact) -> str:
    when = case.at(fact.instant_ms)
    if fact.amount < 0:
        by = "" if fact.index is None else f" by {case.name(fact.index)}"
        return f"taken back at {when}{by}"
    if fact.index is not None and case.value(fact.index, "fatal") == Fatality.FATAL:
        return f"{case.name(fact.index)} at {when} says `fatal: true`"
    errors = np.flatnonzero(case.kinds[: case.end_index + 1] == EventType.ERROR)
    last = case.named_at(int(errors[-1]))
    return (
        f"it ended by {case.ended_by} at {when}, and its last word was {last}, which does not say whether it is fatal"
    )


def _no_failure(case: Case) -> str:
    errors = np.flatnonzero(case.kinds == EventType.ERROR)
    if not len(errors):
        return f"no `error` in {_events(case)}"
    last = int(errors[-1])
    if case.states.last_word_error[0] and case.ended_ms is None:
        return f"not yet: its last word is {case.named_at(last)}; it counts if the view ends so"
    count = f"{len(errors)} `error` events" if len(errors) > 1 else "one `error`"
    return f"{count}, the last {case.named_at(last)}, and none is fatal or its last word at its end"


def _exits(case: Case) -> str:
    facts = case.of("exits_before_start")
    ended = f"it ended by {case.ended_by} at {case.at(case.ended_ms)}" if case.ended_ms is not None else ""
    if len(facts) == 1:
        return f"{ended}, without any proof of playing and without a failure before"
    if facts:
        back = facts[-1]
        by = "" if back.index is None else f" by {case.name(back.index)}"
        return f"counted when {ended}; taken back at {case.at(back.instant_ms)}{by}, which proves the opposite"
    for measure, said in (("plays", "it played"), ("failures", "it failed")):
        found = case.of(measure)
        if found and case.total(measure):
            return f"{said} at {case.at(found[0].instant_ms)}"
    if case.ended_ms is None:
        last = int(case.states.last_received[0]) + SILENCE_MS
        return f"it has not ended; it ends by silence if nothing is received until {case.at(last)}"
    return f"{ended}; it was a failure then"


def _engaged(case: Case) -> str:
    if case.states.blind[0]:
        return "its played time is unknown"
    facts, trace = case.of("engaged_views"), case.outcome.trace
    index = facts[0].index if facts else len(case.seq) - 1
    assert index is not None  # time alone engages nobody
    played, duration = int(trace.played_total[index + 1]), int(trace.state.duration[index + 1])
    half = f"half of the content's {seconds(duration)}"
    if not facts:
        return f"it played {seconds(played)}, less than {seconds(ENGAGED_MS)}" + (
            f" and less than {half}" if duration > 0 else ""
        )
    enough = seconds(ENGAGED_MS) if played >= ENGAGED_MS else half
    return f"with {case.named_at(index)} it has played {seconds(played)}; {enough} is enough"


def _startups(case: Case) -> str:
    play, facts = case.first(EventType.PLAY), case.of("startup_ms")
    if play is None:
        return f"no `play` in {_events(case)}"
    if case.total("startups"):
        took = seconds(sum(fact.amount for fact in facts))
        if case.value(play, "startup_ms") >= 0:
            return f"{took}, as `startup_ms` of its first play, {case.name(play)}, says"
        return f"{took} from {case.named_at(0)} to its first play, {case.named_at(play)}; nothing is missing between"
    none = f"its first play, {case.name(play)}, has no `startup_ms`"
    if case.kinds[0] != EventType.REQUEST:
        return f"{none}, and the view begins with {case.name(0)}, not with a `request`"
    return f"{none}, and events between {case.name(0)} and it are missing"


def _played(case: Case) -> str:
    return _time(case, "played_ms", bool(case.states.counts_played[0]), "played")


def _rebuffered(case: Case) -> str:
    return _time(case, "rebuffered_ms", bool(case.states.counts_rebuffered[0]), "rebuffered")


def _time(case: Case, measure: str, counts: bool, word: str) -> str:
    if case.states.blind[0]:
        return "unknown, which is not 0: its player does not tell its state"
    amounts = [fact.amount for fact in case.of(measure)]
    total = seconds(sum(amounts))
    if counts:
        return f"{total} by its player's own count, `{measure}`, which rose with {len(amounts)} of {_events(case)}"
    if not amounts:
        return f"between no two events had it {word}"
    parts = " + ".join(seconds(amount) for amount in amounts[:SHOWN]) + (" + …" if len(amounts) > SHOWN else "")
    return f"{total}: {len(amounts)} {'interval' if len(amounts) == 1 else 'intervals'} {word}: {parts}"


def _rebuffers(case: Case) -> str:
    if case.states.blind[0]:
        return "unknown, which is not 0: its player does not tell its state"
    facts = case.of("rebuffer_count")
    if case.states.counts_rebuffers[0]:
        return f"by its player's own count, `rebuffer_count`, which rose with {len(facts)} of {_events(case)}"
    if not facts:
        return "no `buffer` came while it was playing and not seeking"
    named = ", ".join(case.named_at(fact.index) for fact in facts[:SHOWN] if fact.index is not None)
    return f"stalled in mid-play: {named}" + (", …" if len(facts) > SHOWN else "")


def _lost(case: Case) -> str:
    before = [-1, *case.seq]
    holes = [(a + 1, b - 1) for a, b in zip(before, case.seq, strict=False) if b - a > 1]
    if not holes:
        return f"every `seq` from 0 to {case.seq[-1]} came"
    named = ", ".join(f"{a}" if a == b else f"{a} to {b}" for a, b in holes[:SHOWN])
    return f"`seq` {named}{', …' if len(holes) > SHOWN else ''} never came"


def _events(case: Case) -> str:
    return f"its {len(case.seq)} events" if len(case.seq) > 1 else "its one event"


_SENTENCES: Final[dict[str, Callable[[Case], str]]] = {
    "attempts": _attempts, "plays": _plays, "blind_plays": _blind_plays, "completes": _completes,
    "failures": _failures, "exits_before_start": _exits, "engaged_views": _engaged, "startups": _startups,
    "played_ms": _played, "rebuffered_ms": _rebuffered, "rebuffer_count": _rebuffers, "lost_events": _lost,
}  # fmt: skip
NAMES: Final = tuple(_SENTENCES)
"""The measures that a sentence is said about."""

_COUNTERS: Final = ("played_ms", "rebuffered_ms", "rebuffer_count")


def not_counted(case: Case, behind: Array, later_seq: Array) -> list[tuple[int, int, str, str]]:
    """Return (seq, instant, reason, detail) of what did not count, or only in the closed hour.

    behind: how long after a later event each was received; later_seq: the `seq` of that one.
    """
    found: list[tuple[int, int, str, str]] = []

    def say(index: int, reason: str, detail: str) -> None:
        found.append((case.seq[index], case.instant(index), reason, detail))

    for index in np.flatnonzero(behind > WAIT_MS).tolist():
        detail = f"received {seconds(int(behind[index]))} after seq {later_seq[index]}, which waits {seconds(WAIT_MS)}"
        say(index, "late", f"{detail}: real time rewrote no interval for it; the closed hour counts it in its place")
    ts = case.events["ts"].to_numpy()
    instants = case.outcome.trace.state.instant[1:]
    for index in np.flatnonzero(ts < instants).tolist():
        back = seconds(int(instants[index] - ts[index]))
        say(
            index, "out_of_order", f"its `ts` lies {back} before an earlier event's, so it counts at that one's instant"
        )
    for index, detail in _short_intervals(case):
        say(index, "interval", detail)
    for index, detail in _fallen_counters(case):
        say(index, "counter", detail)
    if case.ended_ms is not None and case.end_index < len(case.seq) - 1:
        late = f"it comes after the view's end (by {case.ended_by} at {case.at(case.ended_ms)})"
        say(case.end_index + 1, "after_end", f"{late}: from here on sums grow; what is told of whole views does not")
    return found


def _short_intervals(case: Case) -> list[tuple[int, str]]:
    """Return the events whose interval lasted longer than it counts for."""
    state, found = case.outcome.trace.state, []
    lasted = np.diff(state.instant[1:])
    by_state = not case.states.blind[0] and not case.states.counts_played[0]
    for index in np.flatnonzero(lasted > INTERVAL_CAP_MS).tolist():
        told = []
        if by_state and state.base[index + 1] == Base.PLAYING and not state.seeking[index + 1]:
            over = seconds(int(lasted[index]) - INTERVAL_CAP_MS)
            told.append(
                f"{over} of {seconds(int(lasted[index]))} since seq {case.seq[index]} do not count: at most 60 s"
            )
        if lasted[index] > SILENCE_MS and index == case.end_index and case.ended_by == "silence":
            told.append(f"the view had ended by silence at {case.at(case.instant(index) + SILENCE_MS)}")
        if told:
            found.append((index + 1, "; ".join(told)))
    return found


def _fallen_counters(case: Case) -> list[tuple[int, str]]:
    """Return the events with a counter below what it was before."""
    found = []
    for name, counts in zip(
        _COUNTERS,
        (case.states.counts_played, case.states.counts_rebuffered, case.states.counts_rebuffers),
        strict=True,
    ):
        if not counts[0]:
            continue
        values = case.events[name].to_numpy().copy()
        values[: case.decider()] = -1  # requests before it, whose counters are not read
        highest = np.maximum.accumulate(values)
        for index in np.flatnonzero((values >= 0) & (values < highest)).tolist():
            detail = f"`{name}` {values[index]} is below {highest[index]}, told before: disorder, which adds nothing"
            found.append((index, detail))
    return found
