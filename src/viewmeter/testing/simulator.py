"""Synthetic viewers whose truth is known before any event exists.

In: `Settings` (a seed and sizes). Out: `plans()`, what every viewer will really do; `truth()`, sums of those plans
and nothing else; `beacons.beacons()`, what their players send. Promised: the same seed gives the same bytes, the
time is an argument. Not done: rules of counting. A plan is a list of phases with lengths, and the truth adds them up.
"""

from __future__ import annotations

import math
import random
from bisect import bisect
from collections import Counter, defaultdict
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from functools import cached_property
from itertools import accumulate, pairwise
from typing import Any, Final, NamedTuple

from viewmeter.testing.oracle_metrics import metrics
from viewmeter.testing.world import CDNS, COUNTRIES, DEVICES, LADDER_KBPS, TITLES, Country, Device

HEARTBEAT_MS: Final = 30_000
SAMPLE_MS: Final = 10_000
PRESENT_IN_PAUSE_MS: Final = 60_000
CLIENTS: Final = ("counters", "state", "seven")


@dataclass(frozen=True)
class Settings:
    """How many viewers, of what kind, and how badly the network treats what they send.

    `clients`: shares of players that send cumulative counters, all event types without counters, and only the
    seven types of the original brief. Rates are of events (`loss`) and of beacons (`duplicate`).
    """

    seed: int
    start_ms: int
    viewers: int = 100
    minutes: float = 10
    videos: int = 40
    loss: float = 0.0
    duplicate: float = 0.0
    disorder_ms: int = 0
    skew_ms: int = 0
    clients: tuple[float, float, float] = (0.7, 0.15, 0.15)
    watch_median_ms: int = 120_000
    stall_share: float = 0.2
    failure_rate: float = 0.03
    exit_before_start_rate: float = 0.04


class Video(NamedTuple):
    """Something to watch; `duration_ms` 0 is live."""

    video_id: str
    channel_id: str
    duration_ms: int


class Phase(NamedTuple):
    """A stretch of a view: `startup`, `play`, `stall`, `pause` or `seek`, its length, and the rendition."""

    kind: str
    length_ms: int
    bitrate_kbps: int


@dataclass(frozen=True)
class Plan:
    """What one viewer really does in one view. `end`: complete, exit or failed."""

    view_id: str
    viewer_id: str
    video: Video
    country: Country
    address: str
    device: Device
    cdn: str
    client: str
    start_ms: int
    phases: tuple[Phase, ...]
    end: str

    @property
    def length_ms(self) -> int:
        """From the request to the end."""
        return sum(phase.length_ms for phase in self.phases)

    @property
    def started(self) -> bool:
        """Whether the picture ever moved."""
        return any(phase.kind == "play" for phase in self.phases)


class Simulation:
    """One world of viewers, made from a seed."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings

    def rng(self, *names: object) -> random.Random:
        """Return the dice of one named thing, so that none depends on how often another was rolled."""
        return random.Random("/".join(map(str, (self.settings.seed, *names))))

    @cached_property
    def videos(self) -> tuple[Video, ...]:
        """What there is to watch, most popular first: the channels take turns."""
        turns = [(c, t) for rank in zip(*TITLES.values(), strict=True) for c, t in zip(TITLES, rank, strict=True)]
        out = []
        for i in range(self.settings.videos):
            channel, title = turns[i % len(turns)]
            again = i // len(turns)
            length = round(math.exp(self.rng("video", i).gauss(math.log(480), 0.8))) * 1_000
            video_id = f"{title}-{again + 1}" if again else title
            out.append(Video(video_id, channel, 0 if title.endswith("-live") else max(20_000, length)))
        return tuple(out)

    @cached_property
    def _popularity(self) -> list[float]:
        return list(accumulate(1 / (rank + 1) ** 1.1 for rank in range(len(self.videos))))

    def plans(self) -> Iterator[Plan]:
        """Yield what every viewer does, in the order of viewers; a viewer's views follow each other."""
        for number in range(self.settings.viewers):
            rng = self.rng("viewer", number)
            country = _weighted(rng, COUNTRIES)
            device = _weighted(rng, DEVICES)
            address = f"{rng.choice(country.networks)}.{rng.randrange(1, 255)}"
            client = rng.choices(CLIENTS, self.settings.clients)[0]
            whole_ms = int(self.settings.minutes * 60_000)
            at = rng.randrange(max(1, whole_ms))
            for turn in range(1 + (rng.random() < 0.3) + (rng.random() < 0.1)):
                video = self.videos[bisect(self._popularity, rng.random() * self._popularity[-1])]
                phases, end = self._behaviour(rng, video, client, whole_ms - at)
                view = f"view-{self.settings.seed}-{number}-{turn}"
                who = f"viewer-{number}"
                cdn = rng.choices([c for c, _ in CDNS], [w for _, w in CDNS])[0]
                start = self.settings.start_ms + at
                plan = Plan(view, who, video, country, address, device, cdn, client, start, tuple(phases), end)
                yield plan
                at += plan.length_ms + rng.randrange(2_000, 20_000)
                if at >= whole_ms - 2_000:
                    break

    def _behaviour(self, rng: random.Random, video: Video, client: str, room_ms: int) -> tuple[list[Phase], str]:
        """Return phases that fit into `room_ms` (at least two seconds of it), and how the view ends."""
        setting = self.settings
        room_ms = max(room_ms, 2_000)
        bitrate = rng.choice(LADDER_KBPS)
        startup = min(_lognormal_ms(rng, 900, 0.6), room_ms // 2)
        phases = [Phase("startup", startup, bitrate)]
        luck = rng.random()
        if client != "seven":  # who sends only seven types cannot tell these, and neither could the truth
            if luck < setting.exit_before_start_rate:
                return phases, "exit"
            if luck < setting.exit_before_start_rate + setting.failure_rate / 2:
                return phases, "failed"
        will_fail = client != "seven" and luck > 1 - setting.failure_rate / 2
        wanted = _lognormal_ms(rng, setting.watch_median_ms, 1.2)
        used, played, position = startup, 0, 0
        while True:
            rest = min(wanted - played, room_ms - used)
            to_the_end = video.duration_ms - position if video.duration_ms else rest
            length = max(200, min(round(rng.expovariate(1 / 40_000)) + 200, rest, to_the_end))
            phases.append(Phase("play", length, bitrate))
            used, played, position = used + length, played + length, position + length
            if video.duration_ms and position >= video.duration_ms:
                return phases, "complete"
            if played >= wanted or used >= room_ms - 500:
                return phases, "failed" if will_fail else "exit"
            kind = rng.choices(("stall", "pause", "seek", "quality"), (setting.stall_share, 0.15, 0.15, 0.5))[0]
            if kind == "quality":
                bitrate = rng.choice([rate for rate in LADDER_KBPS if rate != bitrate])
                continue
            typical = {"stall": (1_500, 0.8), "pause": (15_000, 1.0), "seek": (400, 0.5)}[kind]
            wait = max(1, min(_lognormal_ms(rng, *typical), room_ms - used - 300))
            phases.append(Phase(kind, wait, bitrate))
            used += wait
            position = max(0, position - 10_000) if kind == "seek" else position

    def truth(self) -> dict[str, Any]:
        """Return what is true, per video, channel, country, device type and for the platform; JSON-able.

        `tolerance` says what cannot be known from what some clients send. A client of seven types says nothing
        when its viewer leaves (up to 30 s of time and of presence a view), and never its startup time, which is
        therefore not in the truth. A client without counters that sends a heartbeat in the wait of a seek counts as
        playing from there on (`sought_ms`). Without loss everything is exact but for that and what is made of it
        (`played_kbit`, averages, ratios).
        """
        groups: dict[str, dict[str, _Sum]] = defaultdict(lambda: defaultdict(_Sum))
        for plan in self.plans():
            for kind, name in (
                ("videos", plan.video.video_id),
                ("channels", plan.video.channel_id),
                ("countries", plan.country.code),
                ("device_types", plan.device.device_type),
                ("clients", plan.client),
                ("platform", "all"),
            ):
                groups[kind][name].add(plan)
        channels = {video.video_id: video.channel_id for video in self.videos}
        out: dict[str, Any] = {"settings": asdict(self.settings)}
        for kind, members in groups.items():
            out[kind] = {name: members[name].answer() for name in sorted(members)}
        for name, answer in out.get("videos", {}).items():
            answer["channel_id"] = channels[name]
        out["platform"] = out.get("platform", {}).get("all", _Sum().answer())
        return out


class _Sum:
    """Adds up plans."""

    def __init__(self) -> None:
        self.sums: Counter[str] = Counter()
        self.viewers: set[str] = set()
        self.present: Counter[int] = Counter()
        self.leaving = 0
        self.sought: list[int] = []

    def add(self, plan: Plan) -> None:
        self.sums.update(facts(plan))
        if plan.started:
            self.viewers.add(plan.viewer_id)
        self.present.update(samples(plan))
        self.leaving += plan.client == "seven" and plan.end != "complete"
        if plan.client != "counters" and (sought := sought_ms(plan)):
            self.sought.append(sought)

    def answer(self) -> dict[str, Any]:
        return {
            **{name: value for name, value in metrics(self.sums).items() if name in PLANNED},
            "unique_viewers_exact": len(self.viewers),
            "peak_concurrent_viewers": max(self.present.values(), default=0),
            "tolerance": {
                "watch_time_ms": [self.leaving * HEARTBEAT_MS, sum(self.sought)],  # [below, above] the truth
                "rebuffered_ms": [self.leaving * HEARTBEAT_MS, 0],
                "engaged_views": [self.leaving, len(self.sought)],
                "peak_concurrent_viewers": [0, self.leaving],
            },
        }


PLANNED: Final = frozenset(
    (
        *("attempts", "plays", "completes", "failures", "exits_before_start", "engaged_views", "played_ms"),
        *("rebuffered_ms", "rebuffer_count", "startup_ms", "startups", "seeks", "pauses", "upshifts"),
        *("downshifts", "played_kbit", "watch_time_ms", "average_watch_duration_ms", "completion_rate"),
        *("engagement_rate", "startup_time_avg_ms", "rebuffer_ratio", "rebuffer_frequency"),
        *("average_bitrate_kbps", "playback_failure_rate", "exit_before_start_rate", "qoe_score"),
    )
)
"""Measures and metrics that the truth holds."""


def facts(plan: Plan) -> Counter[str]:
    """Return what one plan adds to each measure: lengths and numbers of its phases."""
    spent: Counter[str] = Counter()
    kinds = Counter(phase.kind for phase in plan.phases)
    for phase in plan.phases:
        spent[phase.kind] += phase.length_ms
        spent["kbit"] += phase.length_ms * phase.bitrate_kbps if phase.kind == "play" else 0
    half = plan.video.duration_ms / 2 or 30_000
    shifts = [b.bitrate_kbps - a.bitrate_kbps for a, b in pairwise(plan.phases) if a.kind == b.kind == "play"]
    tells_startup = plan.started and plan.client != "seven"
    return Counter(
        {
            "attempts": 1,
            "plays": int(plan.started),
            "completes": int(plan.end == "complete"),
            "failures": int(plan.end == "failed"),
            "exits_before_start": int(plan.end == "exit" and not plan.started),
            "engaged_views": int(spent["play"] >= min(30_000, half)),
            "played_ms": spent["play"],
            "played_kbit": spent["kbit"],
            "played_ms_known_bitrate": spent["play"],
            "rebuffered_ms": spent["stall"],
            "rebuffer_count": kinds["stall"],
            "startup_ms": spent["startup"] if tells_startup else 0,
            "startups": int(tells_startup),
            "seeks": kinds["seek"],
            "pauses": kinds["pause"],
            "upshifts": sum(shift > 0 for shift in shifts),
            "downshifts": sum(shift < 0 for shift in shifts),
        }
    )


def sought_ms(plan: Plan) -> int:
    """Return the time in the waits of seeks behind a heartbeat in them.

    By the rule a heartbeat ends a seek, so that one whose end is lost does not hide the rest of the view. Who has no
    counters cannot say that the picture stands for a little longer.
    """
    total, at = 0, 0
    for phase in plan.phases:
        end = at + phase.length_ms
        beat = at // HEARTBEAT_MS * HEARTBEAT_MS + HEARTBEAT_MS
        total += max(0, end - beat) if phase.kind == "seek" else 0
        at = end
    return total


def samples(plan: Plan) -> Iterator[int]:
    """Yield the sampled instants (multiples of 10 s) at which the viewer is there.

    Somebody who pauses is thought gone after 60 s. A client of seven types is not heard of before its first play.
    """
    at = plan.start_ms
    for phase in plan.phases:
        there = min(phase.length_ms, PRESENT_IN_PAUSE_MS) if phase.kind == "pause" else phase.length_ms
        if not (phase.kind == "startup" and plan.client == "seven"):
            yield from range(-(-at // SAMPLE_MS) * SAMPLE_MS, at + there, SAMPLE_MS)
        at += phase.length_ms


def _weighted(rng: random.Random, table: tuple[Any, ...]) -> Any:
    return rng.choices(table, [row.weight for row in table])[0]


def _lognormal_ms(rng: random.Random, median_ms: float, sigma: float) -> int:
    return max(1, round(median_ms * math.exp(rng.gauss(0, sigma))))
