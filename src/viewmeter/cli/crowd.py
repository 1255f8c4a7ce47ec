"""The demo's crowd: viewers who come and go at a steady rate, for ever, and an incident that comes back.

In: how many watch at the same time, and the instant at which the demo opens. Out: what their players send, from any
minute on: the hours before the opening go straight into the event log (`write_recent`), what comes after it over
HTTP (`viewers.py`). Promised: both are one stream, so that nothing jumps where one hands over to the other; the same
seed and the same opening give the same viewers. Not done: a rhythm of the day (a demo is looked at for minutes).

A minute and ten seconds after the opening, every ten minutes from then on, and once forty minutes before it, the
viewers of one country on one delivery network stall for two minutes.
"""

from __future__ import annotations

import dataclasses
import heapq
import itertools
import random
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Final

from viewmeter import wiring
from viewmeter.collector.viewers import keyed_hash
from viewmeter.metadata.keys import Tenant
from viewmeter.model.time import MINUTE_MS, floor_to
from viewmeter.testing import simulator
from viewmeter.testing.beacons import SentBeacon, beacons
from viewmeter.testing.columns import to_table
from viewmeter.testing.simulator import Phase, Plan
from viewmeter.testing.world import CDNS

VIDEOS: Final = 24
LONGEST_MINUTES: Final = 30
WATCH_MEDIAN_MS: Final = 200_000
STALL_SHARE: Final = 0.05
SAMPLE_VIEWERS: Final = 4_000
PEOPLE_A_VIEWER: Final = 400
"""Of so many people one watches, so that some come back."""

INCIDENT_FIRST_MS: Final = 70_000
INCIDENT_EVERY_MS: Final = 600_000
INCIDENT_BEFORE_MS: Final = 40 * MINUTE_MS
INCIDENT_MS: Final = 120_000
INCIDENT_COUNTRY: Final = "US"
INCIDENT_CDN: Final = CDNS[0][0]
CALM_MS: Final = 6_000
STALL_MS: Final = (3_000, 8_000)

EVENTS_A_BATCH: Final = 5_000


@dataclass(frozen=True)
class Crowd:
    """Who watches: `viewers` at the same time, about; `opened_ms` is when the demo opens."""

    seed: int
    viewers: int
    opened_ms: int

    @cached_property
    def stay_ms(self) -> float:
        """How long one viewer stays, all views together, on average: presence / stay = arrivals (Little's law)."""
        return sum(plan.length_ms for plan in self._sample) / SAMPLE_VIEWERS

    @cached_property
    def videos(self) -> tuple[simulator.Video, ...]:
        """What there is to watch, most popular first."""
        return _catalogue(self.seed, VIDEOS)

    @cached_property
    def watched(self) -> dict[str, list[Plan]]:
        """Views of each video (most popular first) as the crowd watches it; only those that played."""
        played = [plan for plan in self._sample if plan.started]
        by_video = {video.video_id: [p for p in played if p.video == video] for video in self.videos}
        return {name: plans or played for name, plans in by_video.items()}

    @cached_property
    def _sample(self) -> list[Plan]:
        settings = dataclasses.replace(self._settings(0, SAMPLE_VIEWERS), seed=self.seed)
        return [*simulator.Simulation(settings).plans()]

    def arrivals(self, minute: int) -> int:
        """Return how many viewers come in that minute since the epoch; fractions are a matter of luck."""
        expected = self.viewers * MINUTE_MS / self.stay_ms
        return int(expected + random.Random(f"{self.seed}/{minute}").random())

    def sent(self, since_ms: int, begun_ms: int | None = None) -> Iterator[SentBeacon]:
        """Yield what is sent from `since_ms` on, in order, without end; `begun_ms`: not of viewers who came earlier.

        Holds only the beacons of views that are going on.
        """
        first = since_ms // MINUTE_MS - LONGEST_MINUTES - 1 if begun_ms is None else begun_ms // MINUTE_MS
        waiting: list[tuple[int, int, SentBeacon]] = []
        count = itertools.count()
        for minute in itertools.count(first):
            for beacon in beacons(_Minute(self._settings(minute, self.arrivals(minute)), self)):
                if beacon.send_at_ms >= since_ms:
                    heapq.heappush(waiting, (beacon.send_at_ms, next(count), beacon))
            while waiting and waiting[0][0] < (minute + 1) * MINUTE_MS:
                yield heapq.heappop(waiting)[2]

    def bad(self, at_ms: int) -> bool:
        """Whether an incident is going on."""
        since = at_ms - self.opened_ms
        if -INCIDENT_BEFORE_MS <= since < INCIDENT_MS - INCIDENT_BEFORE_MS:
            return True
        return since >= INCIDENT_FIRST_MS and (since - INCIDENT_FIRST_MS) % INCIDENT_EVERY_MS < INCIDENT_MS

    def _settings(self, minute: int, viewers: int) -> simulator.Settings:
        return simulator.Settings(
            seed=self.seed * 10**9 + minute,
            start_ms=minute * MINUTE_MS,
            viewers=viewers,
            minutes=LONGEST_MINUTES,
            videos=VIDEOS,
            loss=0.0005,
            duplicate=0.002,
            disorder_ms=200,
            watch_median_ms=WATCH_MEDIAN_MS,
            stall_share=STALL_SHARE,
        )


class _Minute(simulator.Simulation):
    """The viewers who come within one minute; how long they stay is as in half an hour of the simulator."""

    def __init__(self, settings: simulator.Settings, crowd: Crowd) -> None:
        super().__init__(settings)
        self._crowd = crowd

    @cached_property
    def videos(self) -> tuple[simulator.Video, ...]:
        """The same ones in every minute."""
        return _catalogue(self._crowd.seed, self.settings.videos)

    def plans(self) -> Iterator[Plan]:
        """Yield the simulator's plans, moved into the minute, with the incidents' stalls."""
        for number, plans in itertools.groupby(super().plans(), key=lambda plan: plan.viewer_id):
            who = _name(self.rng("person", number).randrange(self._crowd.viewers * PEOPLE_A_VIEWER))
            earlier = None
            for plan in plans:
                if earlier is None:
                    earlier = floor_to(plan.start_ms - self.settings.start_ms, MINUTE_MS)
                moved = dataclasses.replace(plan, viewer_id=who, start_ms=plan.start_ms - earlier)
                yield self._with_incident(moved)

    def _with_incident(self, plan: Plan) -> Plan:
        if plan.country.code != INCIDENT_COUNTRY or plan.cdn != INCIDENT_CDN:
            return plan
        rng = self.rng("incident", plan.view_id)
        phases: list[Phase] = []
        at = plan.start_ms
        for phase in plan.phases:
            left_ms = phase.length_ms
            while phase.kind == "play" and left_ms > CALM_MS:
                phases.append(phase._replace(length_ms=CALM_MS))
                at += CALM_MS
                left_ms -= CALM_MS
                if self._crowd.bad(at):
                    phases.append(Phase("stall", rng.randrange(*STALL_MS), phase.bitrate_kbps))
                    at += phases[-1].length_ms
                elif phases[-2:-1] and phases[-2].kind == "play" and phases[-2].bitrate_kbps == phase.bitrate_kbps:
                    phases[-2:] = [phase._replace(length_ms=phases[-2].length_ms + CALM_MS)]
            phases.append(phase._replace(length_ms=left_ms))
            at += left_ms
        return dataclasses.replace(plan, phases=tuple(phases))


def _catalogue(seed: int, videos: int) -> tuple[simulator.Video, ...]:
    return simulator.Simulation(simulator.Settings(seed, 0, videos=videos)).videos


def people(crowd: Crowd, tenant: Tenant) -> tuple[int, ...]:
    """Return the hashes of everybody who may come, as the collector makes them."""
    count = crowd.viewers * PEOPLE_A_VIEWER
    return tuple(keyed_hash(tenant.viewer_secret, _name(number)) for number in range(count))


def _name(number: int) -> str:
    return f"viewer-{number}"


def write_recent(data: Path, tenant: Tenant, crowd: Crowd, since_ms: int) -> int:
    """Write what was sent before the opening into the event log, and return how many events.

    Views that ended before `since_ms` are left out; those that were going on then are there from their beginning. The
    product must not be running. The events are what a collector would have written (see `testing.subject.Beacon`).
    """
    now_ms = since_ms
    written = 0
    batch: list[dict[str, Any]] = []
    log = wiring.log_writer(data, 0, lambda: now_ms)
    try:
        # Whoever came before has left by then: half an hour of viewers less to simulate.
        begun_ms = since_ms - (LONGEST_MINUTES + 1) * MINUTE_MS
        for beacon in crowd.sent(begun_ms, begun_ms):
            if beacon.send_at_ms >= crowd.opened_ms:
                break
            if beacon.plan.start_ms + beacon.plan.length_ms < since_ms:
                continue
            # The viewer goes on live, where the collector hashes the id: the same person must not count twice.
            viewer = keyed_hash(tenant.viewer_secret, beacon.plan.viewer_id)
            batch += [{**event, "viewer_hash": viewer} for event in beacon.received(tenant.id).enriched()]
            if len(batch) >= EVENTS_A_BATCH:
                now_ms = beacon.send_at_ms
                log.append(to_table(batch).combine_chunks().to_batches()[0])
                written += len(batch)
                batch = []
        if batch:
            now_ms = crowd.opened_ms
            log.append(to_table(batch).combine_chunks().to_batches()[0])
    finally:
        log.close()
    return written + len(batch)
