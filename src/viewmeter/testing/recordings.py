"""What a recording of a real player must count for, from what its `<video>` element did meanwhile.

In: a recording (tests/data/recordings/README.md tells the format). Out: `Expectation`, and `differences()` to
numbers from anywhere. Promised: it reads `sid`, `sn` and `ts` of the records and nothing else of them, so that it
shares no opinion with the CMCD dialect. Tolerances are those that the players themselves need (decision 0022).
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import msgspec

PLAYED_MS: Final = 100
STALL_MS: Final = 10
STARTUP_MS: Final = 20
STARTUP_TOTAL_MS: Final = 400
STARTUP_MSD_MS: Final = 25

OWN_SEEKS: Final = {"dashjs_pause_seek": 1}
"""dash.js jumped over a gap without saying `k`: one stall of under 100 ms more than the viewer saw."""

UNKNOWN_FAILURES: Final = ("dashjs_fatal_error", "shaka_fatal_error", "shaka_fatal_error_debugbuild")
"""Views whose last word is an error. (hls.js does not report its fatal network error at all.)"""


@dataclass(frozen=True)
class Span:
    """A wait: where it began and how long it was, up to the last record."""

    start_ms: int
    duration_ms: int


@dataclass(frozen=True)
class Expectation:
    """What one recording must count for. None: the player does not report it, so that nothing is promised."""

    name: str
    tells_state: bool  # False: Shaka's release builds, everything of time is unknown
    exact: bool  # False: Shaka's debug builds, only attempts and plays are promised
    records: int
    distinct: int  # 0: no record can be attributed
    plays: int
    completes: int
    failures: int
    played_ms: int | None
    stalls: tuple[Span, ...] | None
    startup_ms: int | None  # from the first record to the first `playing`; Shaka: from the load
    startup_from_load_ms: int | None


def expectation(path: Path) -> Expectation:
    """Derive what must come out from the recording's own truth."""
    lines = path.read_bytes().splitlines()
    meta = msgspec.json.decode(lines[0])
    records = [r for line in lines[1:] for r in msgspec.json.decode(line)["body"].splitlines() if r.strip()]
    instants = _instants(records)
    truth, shaka = meta["truth"], meta["player"] == "shaka-player"
    blind = shaka and meta["player_build"] == "release"
    first, last = (instants[0], max(instants.values())) if instants else (0, 0)
    started = truth["started"] and bool(instants)
    return Expectation(
        name=path.stem,
        tells_state=not blind,
        exact=not (shaka and not blind),
        records=len(records),
        distinct=len(instants),
        plays=int(started),
        completes=int(truth["ended"] and not blind and bool(instants)),
        failures=int(path.stem in UNKNOWN_FAILURES),
        played_ms=None if blind else _played_ms(truth, last) if started else 0,
        stalls=None if blind else _stalls(truth, last),
        startup_ms=_startup_ms(truth, blind, first) if started else None,
        startup_from_load_ms=truth["startup_ms"] if started else None,
    )


def _instants(records: Sequence[str]) -> dict[int, int]:
    """Return `ts` by `sn`; of records that name neither, nothing."""
    found = [re.search(r'(?:^|,)sid="[^"]+",sn=(\d+),(?:[^"]*,)?ts=(\d+)', record) for record in records]
    return {int(match[1]): int(match[2]) for match in reversed(found) if match}


def _startup_ms(truth: Mapping[str, Any], blind: bool, first_ms: int) -> int:
    return int(truth["startup_ms"] if blind else truth["first_playing_ms"] - first_ms)


def _stalls(truth: Mapping[str, Any], last_ms: int) -> tuple[Span, ...]:
    return tuple(
        Span(stall["start_ms"], min(stall["duration_ms"], last_ms - stall["start_ms"]))
        for stall in truth["stalls"]
        if stall["start_ms"] < last_ms
    )


def _played_ms(truth: Mapping[str, Any], last_ms: int) -> int:
    """Return the wall time with the picture moving; of a view that did not end, up to its last record."""
    if truth["ended"]:
        return int(truth["played_wall_ms"])
    standing = [(s["start_ms"], s["duration_ms"]) for s in (*truth["stalls"], *truth["pauses"])]
    standing += [(s["start_ms"], s["seeked_ms"]) for s in truth["seeks"]]
    stood = sum(min(start + duration, last_ms) - start for start, duration in standing if start < last_ms)
    return int(last_ms - truth["first_playing_ms"] - stood)


def differences(numbers: Mapping[str, float | None], expected: Expectation) -> list[str]:
    """Return each number that is wrong, as a sentence. A measure that is absent from `numbers` is not judged.

    `numbers`: attempts, plays, blind_plays, completes, failures, played_ms, rebuffer_count, rebuffered_ms,
    startup_ms, events, lost_events, duplicate_events; null where there is nothing.
    """
    e, wrong = expected, list[str]()

    def judge(name: str, value: float | None, tolerance: float = 0) -> None:
        if value is not None and name in numbers and not _near(numbers[name], value, tolerance):
            around = f" (+-{tolerance:g})" if tolerance else ""
            wrong.append(f"{e.name}: {name} is {numbers[name]}, the truth is {value:g}{around}")

    judge("attempts", min(e.distinct, 1))
    judge("plays", e.plays)
    judge("events", e.distinct)
    judge("lost_events", 0)
    judge("duplicate_events", e.records - e.distinct if e.distinct else 0)
    judge("blind_plays", 0 if e.tells_state else e.plays)
    if not e.exact:
        return wrong
    judge("completes", e.completes)
    judge("failures", e.failures)
    judge("played_ms", e.played_ms if e.tells_state else 0, PLAYED_MS)
    own = OWN_SEEKS.get(e.name, 0)
    stalls = e.stalls or ()
    judge("rebuffer_count", len(stalls) + own)
    judge("rebuffered_ms", sum(s.duration_ms for s in stalls), len(stalls) * STALL_MS + own * 100)
    judge("startup_ms", e.startup_ms, STARTUP_MS if e.tells_state else STARTUP_MSD_MS)
    if e.tells_state:
        judge("startup_ms", e.startup_from_load_ms, STARTUP_TOTAL_MS)
    return wrong


def _near(number: float | None, value: float, tolerance: float) -> bool:
    return abs((number or 0) - value) <= tolerance
