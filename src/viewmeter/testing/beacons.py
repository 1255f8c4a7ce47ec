"""What the players of simulated viewers send, and what the network makes of it.

In: a `Simulation`. Out: `SentBeacon`s in the order of arrival. Promised: never more than ten events a beacon; the
SDK's habit of sending at once on play, buffer, error, exit and with every heartbeat; `delivery()` says exactly what
was lost and repeated, by the same dice.
"""

from __future__ import annotations

import heapq
from collections import Counter
from collections.abc import Iterator
from typing import Any, Final, NamedTuple

from viewmeter.testing.simulator import HEARTBEAT_MS, Plan, Simulation
from viewmeter.testing.subject import Beacon

BATCH: Final = 10
AT_ONCE: Final = ("play", "buffer", "heartbeat", "complete", "error", "exit")
SEVEN: Final = ("play", "pause", "seek", "buffer", "quality_change", "complete", "heartbeat")
BEGINS: Final = {"startup": "request", "play": "play", "stall": "buffer", "pause": "pause", "seek": "seek"}
ENDS: Final = {"complete": "complete", "exit": "exit", "failed": "error"}

Event = dict[str, Any]


class SentBeacon(NamedTuple):
    """One POST. `sent_at` (for `t=`) is the player's clock at sending, `skew_ms` how far that clock is ahead.

    Who sends faster than real time must say `t` = real clock + `skew_ms` instead.
    """

    send_at_ms: int
    ip: str
    user_agent: str
    sent_at: int
    events: list[Event]
    skew_ms: int
    plan: Plan

    def received(self, tenant_id: str = "t1") -> Beacon:
        """Return the beacon as it arrives, for a subject."""
        device = self.plan.device
        seen = {"country": self.plan.country.code, "os": device.os, "browser": device.browser}
        seen["device_type"] = device.device_type
        return Beacon(tenant_id, self.send_at_ms, [event | seen for event in self.events], self.sent_at)


def beacons(simulation: Simulation) -> Iterator[SentBeacon]:
    """Yield every beacon in the order of arrival; memory holds only the views that are going on."""
    waiting: list[tuple[int, int, SentBeacon]] = []
    count = 0
    for plan in sorted(simulation.plans(), key=lambda plan: (plan.start_ms, plan.view_id)):
        while waiting and waiting[0][0] < plan.start_ms:
            yield heapq.heappop(waiting)[2]
        for beacon in _of_view(simulation, plan):
            count += 1
            heapq.heappush(waiting, (beacon.send_at_ms, count, beacon))
    while waiting:
        yield heapq.heappop(waiting)[2]


def delivery(simulation: Simulation) -> dict[str, Counter[str]]:
    """Return per video what arrives: `events` (distinct), `lost_events` (visible as holes), `duplicate_events`."""
    out: dict[str, Counter[str]] = {}
    for plan in simulation.plans():
        seqs = [event["seq"] for beacon in _of_view(simulation, plan) for event in beacon.events]
        distinct = set(seqs)
        found = out.setdefault(plan.video.video_id, Counter())
        found["events"] += len(distinct)
        found["lost_events"] += max(distinct, default=-1) + 1 - len(distinct)
        found["duplicate_events"] += len(seqs) - len(distinct)
    return out


def events(plan: Plan) -> Iterator[Event]:
    """Yield what the player has to say, on the viewer's real clock."""
    seq = 0
    spent: Counter[str] = Counter()
    stalls = 0
    at = plan.start_ms
    began = plan.start_ms
    before = ""
    position = 0
    seven = plan.client == "seven"

    def say(kind: str, now: int, bitrate: int, **more: Any) -> Iterator[Event]:
        nonlocal seq
        if seven and (kind not in SEVEN or (seq == 0 and kind != "play")):
            return
        event: Event = {"type": kind, "ts": now, "view_id": plan.view_id, "seq": seq}
        event |= {"video_id": plan.video.video_id, "channel_id": plan.video.channel_id}
        event |= {"viewer_id": plan.viewer_id, "cdn": plan.cdn, "player": plan.device.player}
        event |= {"stream_type": "vod" if plan.video.duration_ms else "live"}
        event |= {"duration_ms": plan.video.duration_ms, "position_ms": position}
        if kind in ("play", "quality_change", "heartbeat"):
            event["bitrate_kbps"] = bitrate
        if plan.client == "counters":
            event |= {"played_ms": spent["play"], "rebuffered_ms": spent["stall"], "rebuffer_count": stalls}
        yield event | more
        seq += 1

    for phase in plan.phases:
        more: Event = {}
        if phase.kind == "play" and before == "startup" and plan.client == "counters":
            more = {"startup_ms": at - plan.start_ms}
        stalls += phase.kind == "stall"
        position = max(0, position - 10_000) if phase.kind == "seek" else position
        kind = "quality_change" if phase.kind == before == "play" else BEGINS[phase.kind]
        yield from say(kind, at, phase.bitrate_kbps, **more)
        end = at + phase.length_ms
        beat = began + (at - began) // HEARTBEAT_MS * HEARTBEAT_MS + HEARTBEAT_MS
        while at < end:
            step = min(beat, end) - at
            spent[phase.kind] += step
            position += step if phase.kind == "play" else 0
            at += step
            if at == beat and at < end:
                yield from say("heartbeat", at, phase.bitrate_kbps)
            beat += HEARTBEAT_MS
        before = phase.kind
    last = {"fatal": True, "error_code": "MEDIA_ERR_DECODE"} if plan.end == "failed" else {}
    yield from say(ENDS[plan.end], at, plan.phases[-1].bitrate_kbps, **last)


def _of_view(simulation: Simulation, plan: Plan) -> Iterator[SentBeacon]:
    """Yield the beacons of one view with everything the network did to them, not in order."""
    setting = simulation.settings
    rng = simulation.rng("network", plan.view_id)
    skew = _skew(simulation, plan)
    batch: list[Event] = []
    for event in events(plan):
        at = event["ts"]
        if rng.random() >= setting.loss:
            batch.append(event | {"ts": at + skew})
        if not batch or not (event["type"] in AT_ONCE or len(batch) == BATCH):
            continue
        arrives = at + (rng.randrange(setting.disorder_ms) if setting.disorder_ms else 0)
        copies = [arrives]
        if rng.random() < setting.duplicate:
            copies.append(arrives + rng.randrange(1, 5_000))
        for when in copies:
            yield SentBeacon(when, plan.address, plan.device.user_agent, when + skew, batch, skew, plan)
        batch = []
    if batch:
        when = batch[-1]["ts"] - skew
        yield SentBeacon(when, plan.address, plan.device.user_agent, when + skew, batch, skew, plan)


def _skew(simulation: Simulation, plan: Plan) -> int:
    """Return how far the viewer's clock is ahead: never near the 10 s where correction begins."""
    limit = simulation.settings.skew_ms
    skew = simulation.rng("clock", plan.viewer_id).randint(-limit, limit)
    return skew if abs(skew) <= 5_000 or abs(skew) >= 15_000 else 0
