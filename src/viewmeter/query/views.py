"""One view, told: its events and what each changed, the intervals between them, why it was counted or not.

In: all events of one view (columns of `EVENT_SCHEMA`), the time. Out: the object that the API answers with. Promised:
it is the interval rule itself that tells, over the view's distinct events by `seq`: what the batch layer counts. What
the events and silence changed adds up to `measures`, and so does the time of the intervals. A pure function. Not done:
finding the events, whether the asker may see them, and the sentences (`verdicts.py`).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from viewmeter.model import interval, silence
from viewmeter.model.calendar import zone_of
from viewmeter.model.events import EVENT_TYPES, UNKNOWN, Fatality
from viewmeter.model.increments import Increments
from viewmeter.model.ordering import WAIT_MS
from viewmeter.model.time import rfc3339
from viewmeter.model.views import SILENCE_MS, Base, Overlay, ViewStates
from viewmeter.query import verdicts
from viewmeter.query.verdicts import Case, Fact

Array = npt.NDArray[Any]

EVENTS_SHOWN: Final = 2_000
"""Events and intervals that are told one by one; sums are of all."""

_FROZEN: Final = (
    "country", "region", "city", "asn", "device_type", "os", "browser", "player", "stream_type", "is_bot",
)  # fmt: skip
_TOLD: Final = (
    "position_ms", "duration_ms", "played_ms", "rebuffered_ms", "rebuffer_count", "startup_ms", "bitrate_kbps",
    "playback_rate",
)  # fmt: skip
_STATES: Final = {
    Base.NONE: "unknown", Base.STARTING: "starting", Base.PLAYING: "playing", Base.PAUSED: "paused",
    Base.ENDED: "ended", Base.FAILED: "failed", Base.GONE: "gone",
}  # fmt: skip
_OF_SILENCE: Final = ("failures", "exits_before_start")
"""What a row that is no event's can count at the end of a view; anything else there is a first counter's."""


@dataclass(frozen=True)
class _Line:
    """The view's distinct events by `seq`, and what came again."""

    events: pa.Table
    again: pa.Table

    @staticmethod
    def of(events: pa.Table) -> _Line:
        received, seq = events["received_at"].to_numpy(), events["seq"].to_numpy()
        order = np.lexsort((np.arange(len(seq)), received, seq))  # first received stands
        first = np.concatenate(([True], np.diff(seq[order]) != 0))
        return _Line(events.take(pa.array(order[first])), events.take(pa.array(order[~first])))

    @cached_property
    def behind(self) -> tuple[Array, Array]:
        """Return how long after a later one of the view each event was received (0: before them all), and its `seq`."""
        received, seq = self.events["received_at"].to_numpy(), self.events["seq"].to_numpy()
        earliest = np.minimum.accumulate(received[::-1])[::-1]
        at_earliest = np.where(received == earliest, seq, np.iinfo(np.int64).max)
        which = np.minimum.accumulate(at_earliest[::-1])[::-1]
        return received - earliest, which


def explain(
    events: pa.Table, now_ms: int, zone: str = "UTC", is_closed: Callable[[int], bool] = lambda _: False
) -> dict[str, Any]:
    """Return what the API tells of a view with at least one event.

    is_closed: whether the hour of an instant is closed. There a view that fell silent has ended, though its events may
    have been received just now.
    """
    line = _Line.of(events)
    clock = zone_of(zone)

    def at(instant_ms: int) -> str:
        return rfc3339(int(instant_ms), clock)

    outcome, cdns = _apply(line.events)
    states, facts = outcome.states, _facts(outcome.increments, outcome.trace.rows.kind[1:])
    fell_silent = len(silence.silent(states, now_ms)) > 0
    fell_silent |= bool(~states.ended[0] and is_closed(int(states.instant[0]) + SILENCE_MS))
    if fell_silent:
        more, states = silence.end(states)
        facts += _facts(more, np.zeros(0, np.uint8))
    ended_ms, ended_by, end_row = _end(outcome, line.events, fell_silent)
    case = Case(line.events, outcome, states, facts, ended_ms, ended_by, end_row, clock)
    changed: dict[int | None, Counter[str]] = {}
    for fact in facts:
        changed.setdefault(fact.index, Counter())[fact.measure] += fact.amount
    sums = Counter[str]()
    for changes in changed.values():
        sums.update(changes)
    first = line.events.slice(0, 1).to_pylist()[0]
    by_silence = _amounts(changed.get(None, Counter()))
    return {
        "view_id": first["view_id"],
        "video_id": first["video_id"],
        "channel_id": first["channel_id"],
        "dimensions": {name: first[name] for name in _FROZEN},
        "started_at": at(outcome.trace.state.instant[1]),
        "ended_at": None if ended_ms is None else at(ended_ms),
        "ended_by": ended_by,
        "state": _STATES[Base(int(states.base[0]))],
        "time_from": "unknown" if states.blind[0] else "counters" if states.counts_played[0] else "state",
        "counted": [_verdict(case, name, sums[name], at) for name in verdicts.NAMES],
        "measures": _amounts(sums),
        "duplicate_events": line.again.num_rows,
        "not_counted": _not_counted(case, line, at),
        "changed_by_silence": by_silence,
        "intervals": _intervals(outcome, line.events["seq"].to_pylist(), cdns, at),
        "events": _timeline(outcome, line, changed, at),
        "truncated": line.events.num_rows > EVENTS_SHOWN,
    }


def _amounts(sums: Counter[str]) -> dict[str, int]:
    return {name: amount for name, amount in sorted(sums.items()) if amount}


def _apply(events: pa.Table) -> tuple[interval.Outcome, list[str]]:
    """Run the rule over the view; return its outcome and the words of its cdn codes."""
    words = events["cdn"].cast(pa.string()).to_pylist()
    cdns = [word for word in dict.fromkeys(words) if word != UNKNOWN]
    code = {word: number for number, word in enumerate(cdns)}
    columns = {name: events[name].to_numpy() for name in interval.RULE_COLUMNS if name != "cdn"}
    columns["cdn"] = np.array([code.get(word, -1) for word in words], np.int32)
    return interval.apply(np.zeros(events.num_rows, np.int64), columns, ViewStates.new(1)), cdns


def _facts(part: Increments, kinds: Array) -> list[Fact]:
    """Return the increments, each with the event (by place) that brought it; none: silence did.

    kinds: of the events that were applied. Row 0 is the state before the first; rows behind the events are apart:
    of an end by silence, or of a first counter, which has no bitrate (decision 0001, point 2).
    """
    deciders = np.flatnonzero(kinds != interval.T.REQUEST)
    facts = []
    for measure, (rows, values) in part.amounts.items():
        for row, value in zip(rows.tolist(), values.tolist(), strict=True):
            index: int | None = row - 1
            if row > len(kinds) or not len(kinds):
                index = None if measure in _OF_SILENCE else int(deciders[0])
            facts.append(Fact(measure, value, int(part.instant[row]), index))
    facts.sort(key=lambda fact: fact.instant_ms)
    return facts


def _end(outcome: interval.Outcome, events: pa.Table, fell_silent: bool) -> tuple[int | None, str | None, int]:
    """Return when the view ended, by what (an event's type, or silence), and the place of its last event by then."""
    found = outcome.trace.ends
    if not len(found.view):
        last = events.num_rows - 1
        return (int(outcome.states.instant[0]) + SILENCE_MS, "silence", last) if fell_silent else (None, None, last)
    row, instant = int(found.upto[0]), int(found.instant[0])
    by_event = row >= 1 and int(outcome.trace.state.instant[row]) == instant
    return instant, EVENT_TYPES[int(events["type"][row - 1].as_py())] if by_event else "silence", row - 1


def _verdict(case: Case, name: str, count: int, at: Any) -> dict[str, Any]:
    facts = case.of(name)
    last = facts[-1] if facts and count else None
    told = None if last is None or last.index is None else case.seq[last.index]
    return {
        "measure": name,
        "count": count,
        "why": verdicts.why(case, name),
        "at": at(last.instant_ms) if last else None,
        "seq": told,
    }


def _state_after(state: Any, row: int) -> str:
    if state.seeking[row] or state.rebuffering[row]:
        return (Overlay.SEEKING if state.seeking[row] else Overlay.REBUFFERING).name.lower()
    return _STATES[Base(int(state.base[row]))]


def _intervals(outcome: interval.Outcome, seq: list[int], cdns: Sequence[str], at: Any) -> list[dict[str, Any]]:
    """Return what lies between neighbours: state after the first of them, time gained by the second.

    What the first event's counters bring was played before it: an interval from nowhere.
    """
    state, trace = outcome.trace.state, outcome.trace
    before = bool(trace.played[1] or trace.rebuffered[1] or trace.rebuffers[1])
    found = []
    for row in range(0 if before else 1, min(len(state.instant) - 1, EVENTS_SHOWN)):
        cdn = int(state.cdn[row])
        found.append(
            {
                "from_seq": seq[row - 1] if row else None,
                "to_seq": seq[row],
                "start": at(state.instant[row]) if row else None,
                "end": at(state.instant[row + 1]),
                "lasted_ms": int(state.instant[row + 1] - state.instant[row]) if row else None,
                "state": _state_after(state, row) if row else "unknown",
                "played_ms": int(trace.played[row + 1]),
                "rebuffered_ms": int(trace.rebuffered[row + 1]),
                "rebuffer_count": int(trace.rebuffers[row + 1]),
                "bitrate_kbps": (int(state.bitrate[row]) or None) if row else None,
                "cdn": cdns[cdn] if row and cdn >= 0 else None,
            }
        )
    return found


def _timeline(
    outcome: interval.Outcome, line: _Line, changed: dict[int | None, Counter[str]], at: Any
) -> list[dict[str, Any]]:
    """Return the events by `seq`, those that came again marked, what a player did not tell left out."""
    state, seq = outcome.trace.state, line.events["seq"].to_numpy()
    holes = np.diff(seq, prepend=-1) - 1
    behind, _ = line.behind
    found = []
    for index, row in enumerate(line.events.slice(0, EVENTS_SHOWN).to_pylist()):
        told = _as_sent(row, at)
        told |= {"duplicate": False, "late": bool(behind[index] > WAIT_MS), "behind_ms": int(behind[index])}
        told |= {"lost_before": int(holes[index]), "instant": at(state.instant[index + 1])}
        told |= {"state": _state_after(state, index + 1), "changed": _amounts(changed.get(index, Counter()))}
        found.append((row["seq"], False, row["received_at"], told))
    for row in line.again.slice(0, EVENTS_SHOWN).to_pylist():
        nothing = {"duplicate": True, "late": False, "behind_ms": 0, "lost_before": 0, "instant": None, "state": None}
        found.append((row["seq"], True, row["received_at"], _as_sent(row, at) | nothing | {"changed": {}}))
    found.sort(key=lambda f: f[:3])
    return [told for *_, told in found[:EVENTS_SHOWN]]


def _as_sent(row: dict[str, Any], at: Any) -> dict[str, Any]:
    """Return an event as its player sent it."""
    told = {"seq": row["seq"], "type": EVENT_TYPES[row["type"]], "ts": at(row["ts"])}
    told |= {"received_at": at(row["received_at"])}
    told |= {name: row[name] for name in _TOLD if row[name] >= 0 and not (name == "bitrate_kbps" and not row[name])}
    if row["fatal"] != Fatality.UNKNOWN:
        told["fatal"] = Fatality(row["fatal"]) == Fatality.FATAL
    told |= {name: row[name] for name in ("error_code", "error_message") if row[name]}
    told |= {"cdn": row["cdn"]} if row["cdn"] != UNKNOWN else {}
    return told | ({"blind": True} if row["blind"] else {})


def _not_counted(case: Case, line: _Line, at: Any) -> list[dict[str, Any]]:
    """Return what did not count, or not where it was sent, by `seq`, with the reason."""
    found = verdicts.not_counted(case, *line.behind)
    received = dict(zip(case.seq, line.events["received_at"].to_pylist(), strict=True))
    for seq, again in zip(line.again["seq"].to_pylist(), line.again["received_at"].to_pylist(), strict=True):
        later = verdicts.seconds(again - received[seq])
        detail = f"came again {later} after the first of this `seq`, which alone counts"
        found.append((seq, again, "duplicate", detail))
    found.sort()
    return [
        {"seq": seq, "reason": reason, "at": at(instant), "detail": detail}
        for seq, instant, reason, detail in found[:EVENTS_SHOWN]
    ]
