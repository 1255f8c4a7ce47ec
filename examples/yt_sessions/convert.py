"""Measured YouTube views as events: `python convert.py ifip_networking.csv.gz > events.jsonl`, then `viewmeter import`.

The data set (github.com/csieber/yt-dataset, MIT; Sieber, Heegaard, Hossfeld, Kellerer, IFIP Networking 2016) has one
row a view: counts and sums, no times of events. Real here: how long each view played in which quality, how often it
stalled, how much longer than the video it took. Made here: in which order. What a row says is what its events add up
to. The same row gives the same events. Needs nothing but Python.
"""

from __future__ import annotations

import argparse
import csv
import gzip
import json
import random
import sys
import time
from bisect import bisect_left
from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple

ITAGS = (160, 133, 134, 135, 136)  # 144p to 720p
HEARTBEAT_MS = 10_000
WAITING_MS = (
    30_000  # between heartbeats while the picture stands; some stalls take 20 minutes, and 5 of silence end a view
)
NEAR_S = 5.0
MIN_STALL_MS = 100


class Session(NamedTuple):
    """One view, as measured."""

    run_id: str
    start_s: float
    video: str
    category: str
    length_s: float
    over_s: float  # wall time beyond the video's length
    stalls: int
    switches: int
    link: float  # bytes a second
    played_ms: tuple[int, ...]  # by itag
    kbps: tuple[int, ...]  # by itag


def sessions(lines: Iterable[str]) -> list[Session]:
    """Return the rows that can be rebuilt: watched to the end, and not cut short."""
    found = []
    for row in csv.DictReader(lines):
        number = {name: float(value or 0) for name, value in row.items() if _is_number(value)}
        played = tuple(round(number.get(f"pl_time_spent_itag{itag}", 0) * 1000) for itag in ITAGS)
        length = number["vid_length"]
        if abs(sum(played) / 1000 - length) <= NEAR_S and number["run_overlength"] >= 0 and sum(played) > 0:
            found.append(
                Session(
                    row["run_id"], number["run_start"], row["yt_id"], row["vid_category"], length,
                    number["run_overlength"], round(number["pl_buffering_events"]),
                    round(number["pl_assumed_switches"]), number["net_avg_shaping_rate"], played,
                    tuple(round(8 * number.get(f"br_avg_i{itag}", 0) / 1000) for itag in ITAGS),
                )
            )  # fmt: skip
    return found


def _is_number(text: str | None) -> bool:
    try:
        float(text or 0)
    except ValueError:
        return False
    return True


def set_ups(of: list[Session]) -> list[tuple[float, float]]:
    """Return (link, seconds beyond the video) of views without a stall: what setting up and loading the page took."""
    return sorted((session.link, session.over_s) for session in of if session.stalls == 0)


class Plan(NamedTuple):
    """What a view's events will add up to."""

    startup_ms: int
    stalls_ms: list[int]
    segments: list[tuple[int, int]]  # itag's place, ms


def plan(session: Session, known: list[tuple[float, float]]) -> Plan:
    """Decide what the row leaves open; the row's id is the seed."""
    rng = random.Random(session.run_id)
    if known:
        at = bisect_left(known, (session.link, 0.0))
        near = known[max(0, at - 25) : at + 25]
        set_up = min(rng.choice(near)[1], session.over_s)
    else:
        set_up = min(15.0, session.over_s)
    startup = round(1000 * min(rng.uniform(0.5, 3), max(set_up, 0.2)))
    budget = max(round(1000 * (session.over_s - set_up)), MIN_STALL_MS * session.stalls)
    stalls = _split(rng, budget, session.stalls, MIN_STALL_MS) if session.stalls else []
    return Plan(startup, stalls, _segments(rng, session))


def _split(rng: random.Random, total: int, parts: int, least: int) -> list[int]:
    """Return whole numbers of at least `least` that add up to the total."""
    weights = [rng.gammavariate(2, 1) for _ in range(parts)]
    free = total - least * parts
    cuts = [round(free * sum(weights[: i + 1]) / sum(weights)) for i in range(parts)]
    return [least + b - a for a, b in zip([0, *cuts], cuts, strict=False)]


def _segments(rng: random.Random, session: Session) -> list[tuple[int, int]]:
    """Walk between neighbouring qualities, so that each has its time."""
    used = [place for place, ms in enumerate(session.played_ms) if ms > 0]
    most = min(session.played_ms[place] for place in used) // 2 or 1
    steps = max(len(used), min(session.switches + 1, most)) if len(used) > 1 else 1
    walk = list(range(len(used)))
    while len(walk) < steps:
        here = walk[-1]
        walk.append(rng.choice([n for n in (here - 1, here + 1) if 0 <= n < len(used)]))
    left = {which: _split(rng, session.played_ms[used[which]], walk.count(which), 1) for which in range(len(used))}
    return [(used[which], left[which].pop()) for which in walk]


def events(session: Session, start_ms: int, made: Plan) -> Iterator[dict[str, Any]]:
    """Yield the view's events."""
    rng = random.Random(session.run_id + " stalls")
    whole = sum(ms for _, ms in made.segments)
    stalls = sorted(
        zip(rng.sample(range(1, max(whole, len(made.stalls_ms) + 2)), len(made.stalls_ms)), made.stalls_ms, strict=True)
    )
    clock = start_ms
    played = stalled = count = seq = 0

    def say(kind: str, **more: Any) -> dict[str, Any]:
        nonlocal seq
        seq += 1
        return {
            "type": kind, "ts": clock, "view_id": session.run_id, "seq": seq - 1, "video_id": session.video,
            "channel_id": session.category, "duration_ms": round(session.length_s * 1000), "position_ms": played,
            "played_ms": played, "rebuffered_ms": stalled, "rebuffer_count": count, "player": "youtube-2015",
            "device_type": "desktop", "stream_type": "vod", **more,
        }  # fmt: skip

    yield say("request")
    clock += made.startup_ms
    first = True
    beat = HEARTBEAT_MS
    for place, ms in made.segments:
        kind = {"startup_ms": made.startup_ms} if first else {}
        yield say("play" if first else "quality_change", bitrate_kbps=session.kbps[place], **kind)
        first = False
        end = played + ms
        while played < end:
            until = min([end, beat, *(at for at, _ in stalls[:1])])
            clock += until - played
            played = until
            if stalls and stalls[0][0] == played:
                _, wait = stalls.pop(0)
                count += 1
                yield say("buffer")
                for passed in range(0, wait, WAITING_MS):
                    if passed:
                        yield say("heartbeat")
                    clock += min(WAITING_MS, wait - passed)
                    stalled += min(WAITING_MS, wait - passed)
                yield say("play", bitrate_kbps=session.kbps[place])
            if played == beat:
                beat += HEARTBEAT_MS
                if played < end:
                    yield say("heartbeat")
    yield say("complete")


def starts(of: list[Session], end_ms: int, days: float) -> dict[str, int]:
    """Return when each view starts: the months of 2015, pressed into `days` before the end."""
    first, last = min(s.start_s for s in of), max(s.start_s for s in of)
    longest = max(sum(s.played_ms) + round(s.over_s * 1000) for s in of)
    span = max(1.0, days * 86_400_000 - longest - 60_000)
    return {
        s.run_id: round(end_ms - longest - 60_000 - span + span * (s.start_s - first) / max(1.0, last - first))
        for s in of
    }


def main() -> None:
    """Write the events of a file to stdout, a JSON object a line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("file", help="ifip_networking.csv.gz, or the same as plain CSV")
    parser.add_argument("--days", type=float, default=7, help="press all views into so many days (default 7)")
    parser.add_argument(
        "--end-ms", type=int, default=time.time_ns() // 1_000_000, help="the last day's end (default now)"
    )
    asked = parser.parse_args()
    with (gzip.open if asked.file.endswith(".gz") else open)(asked.file, "rt") as file:
        found = sessions(file)
    known, when = set_ups(found), starts(found, asked.end_ms, asked.days)
    for session in found:
        for event in events(session, when[session.run_id], plan(session, known)):
            sys.stdout.write(json.dumps(event) + "\n")


if __name__ == "__main__":
    main()
