"""One view, told: its events, the intervals between them, and why it was counted or not.

In: all events of one view (columns of `EVENT_SCHEMA`), the time. Out: the object that the API answers with. Promised:
it is the interval rule itself that tells, over the view's distinct events by `seq`: what the batch layer counts. A pure
function. Not done: finding the events, and whether the asker may see them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from viewmeter.model import interval, silence
from viewmeter.model.calendar import zone_of
from viewmeter.model.events import EVENT_TYPES, UNKNOWN, Fatality
from viewmeter.model.increments import Increments
from viewmeter.model.time import rfc3339
from viewmeter.model.views import SILENCE_MS, Base, Overlay, ViewStates

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
_VERDICTS: Final[dict[str, tuple[str, str]]] = {
    "attempts": ("its first event", "no event of it is known"),
    "plays": (
        "the first proof of playing: a play, a complete, a heartbeat of a playing view, or played time",
        "nothing proves that the picture moved: no play, no complete, no played time",
    ),
    "blind_plays": (
        "its player does not tell its state: it proves presence, and no time",
        "its player tells its state",
    ),
    "completes": ("its first complete", "no complete came"),
    "failures": (
        "a fatal error, or an error of unknown fatality that was its last word at the end",
        "no fatal error came, and no error was its last word",
    ),
    "exits_before_start": (
        "it ended without play and without failure",
        "it played or failed, or has not ended",
    ),
    "engaged_views": (
        "played time reached 30 s, or half of the content",
        "played time reached neither 30 s nor half of the content",
    ),
    "startups": (
        "the time from request to first frame is known, from the first play",
        "no startup time: the first play told none, and the view does not begin with a request next to it",
    ),
}
"""What is counted once a view: why it was, and why not."""


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


def explain(events: pa.Table, now_ms: int, zone: str = "UTC") -> dict[str, Any]:
    """Return what the API tells of a view with at least one event."""
    line = _Line.of(events)
    clock = zone_of(zone)

    def at(instant_ms: int) -> str:
        return rfc3339(int(instant_ms), clock)

    outcome, cdns = _apply(line.events)
    states, parts = outcome.states, [outcome.increments]
    fell_silent = len(silence.silent(states, now_ms)) > 0
    if fell_silent:
        more, states = silence.end(states)
        parts.append(more)
    seq = line.events["seq"].to_numpy()
    sums, firsts = _amounts(parts, seq)
    first = line.events.slice(0, 1).to_pylist()[0]
    return {
        "view_id": first["view_id"],
        "video_id": first["video_id"],
        "channel_id": first["channel_id"],
        "dimensions": {name: first[name] for name in _FROZEN},
        "started_at": at(outcome.trace.state.instant[1]),
        "ended_at": _ended_at(outcome, states, fell_silent, at),
        "ended_by": _ended_by(outcome, line.events, fell_silent),
        "state": _STATES[Base(int(states.base[0]))],
        "time_from": _time_from(states),
        "counted": [_verdict(name, sums, firsts, at) for name in _VERDICTS],
        "measures": {name: amount for name, amount in sorted(sums.items()) if amount},
        "duplicate_events": line.again.num_rows,
        "intervals": _intervals(outcome, cdns, at),
        "events": _timeline(line, at),
        "truncated": line.events.num_rows > EVENTS_SHOWN,
    }


def _apply(events: pa.Table) -> tuple[interval.Outcome, list[str]]:
    """Run the rule over the view; return its outcome and the words of its cdn codes."""
    words = events["cdn"].cast(pa.string()).to_pylist()
    cdns = [word for word in dict.fromkeys(words) if word != UNKNOWN]
    code = {word: number for number, word in enumerate(cdns)}
    columns = {name: events[name].to_numpy() for name in interval.RULE_COLUMNS if name != "cdn"}
    columns["cdn"] = np.array([code.get(word, -1) for word in words], np.int32)
    return interval.apply(np.zeros(events.num_rows, np.int64), columns, ViewStates.new(1)), cdns


def _amounts(parts: Sequence[Increments], seq: Array) -> tuple[dict[str, int], dict[str, tuple[int, int | None]]]:
    """Return the sum of each measure, and the instant and `seq` of what counted it first (no seq: time alone did)."""
    sums: dict[str, int] = {}
    firsts: dict[str, tuple[int, int | None]] = {}
    for number, part in enumerate(parts):
        for name, (rows, values) in part.amounts.items():
            sums[name] = sums.get(name, 0) + int(values.sum())
            row = int(rows[0])
            of_event = number == 0 and 1 <= row <= len(seq)  # row 0 is the state before the first event
            firsts.setdefault(name, (int(part.instant[row]), int(seq[row - 1]) if of_event else None))
    return sums, firsts


def _verdict(name: str, sums: dict[str, int], firsts: dict[str, tuple[int, int | None]], at: Any) -> dict[str, Any]:
    count = sums.get(name, 0)
    why, why_not = _VERDICTS[name]
    instant, seq = firsts.get(name, (None, None))
    if not count and instant is not None:
        why_not = "it was counted and taken back: later events proved the opposite"
    return {
        "measure": name,
        "count": count,
        "why": why if count else why_not,
        "at": at(instant) if count and instant is not None else None,
        "seq": seq if count else None,
    }


def _ended_at(outcome: interval.Outcome, states: ViewStates, fell_silent: bool, at: Any) -> str | None:
    if len(outcome.trace.ends.view):
        return str(at(outcome.trace.ends.instant[0]))
    return str(at(states.instant[0] + SILENCE_MS)) if fell_silent else None


def _ended_by(outcome: interval.Outcome, events: pa.Table, fell_silent: bool) -> str | None:
    """Return what ended the view: the type of an event, or silence; None while it is open."""
    found = outcome.trace.ends
    if not len(found.view):
        return "silence" if fell_silent else None
    row = int(found.upto[0])
    by_event = row >= 1 and int(outcome.trace.state.instant[row]) == int(found.instant[0])
    return EVENT_TYPES[int(events["type"][row - 1].as_py())] if by_event else "silence"


def _time_from(states: ViewStates) -> str:
    """Return where played time comes from."""
    if bool(states.blind[0]):
        return "unknown"
    return "counters" if bool(states.counts_played[0]) else "state"


def _intervals(outcome: interval.Outcome, cdns: Sequence[str], at: Any) -> list[dict[str, Any]]:
    """Return what lies between neighbours: state after the first of them, time gained by the second."""
    state, trace = outcome.trace.state, outcome.trace
    found = []
    for row in range(1, min(len(state.instant) - 1, EVENTS_SHOWN)):
        overlay = Overlay.SEEKING if state.seeking[row] else Overlay.REBUFFERING if state.rebuffering[row] else None
        cdn = int(state.cdn[row])
        found.append(
            {
                "start": at(state.instant[row]),
                "end": at(state.instant[row + 1]),
                "state": overlay.name.lower() if overlay else _STATES[Base(int(state.base[row]))],
                "played_ms": int(trace.played[row + 1]),
                "rebuffered_ms": int(trace.rebuffered[row + 1]),
                "bitrate_kbps": int(state.bitrate[row]) or None,
                "cdn": cdns[cdn] if cdn >= 0 else None,
            }
        )
    return found


def _timeline(line: _Line, at: Any) -> list[dict[str, Any]]:
    """Return the events by `seq`, those that came again marked, what a player did not tell left out."""
    received = line.events["received_at"].to_numpy()
    late = received > np.minimum.accumulate(received[::-1])[::-1]  # a later one was here before it
    rows = [(row, False, bool(behind)) for row, behind in zip(line.events.to_pylist(), late, strict=True)]
    rows += [(row, True, False) for row in line.again.to_pylist()]
    rows.sort(key=lambda r: (r[0]["seq"], r[1], r[0]["received_at"]))
    found = []
    for row, again, behind in rows[:EVENTS_SHOWN]:
        told = {name: row[name] for name in _TOLD if row[name] >= 0 and not (name == "bitrate_kbps" and not row[name])}
        if row["fatal"] != Fatality.UNKNOWN:
            told["fatal"] = Fatality(row["fatal"]) == Fatality.FATAL
        told |= {name: row[name] for name in ("error_code", "error_message") if row[name]}
        told |= {"cdn": row["cdn"]} if row["cdn"] != UNKNOWN else {}
        told |= {"blind": True} if row["blind"] else {}
        found.append(
            {
                "seq": row["seq"],
                "type": EVENT_TYPES[row["type"]],
                "ts": at(row["ts"]),
                "received_at": at(row["received_at"]),
                "duplicate": again,
                "late": behind,
                **told,
            }
        )
    return found
