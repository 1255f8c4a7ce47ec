"""Beacons for tests that break the product: which were acknowledged, which may be there, and what was counted.

Each beacon is a view and a video of its own, so that a count by video shows a beacon that is missing, that is there
twice, or that is there in part. Nothing is sent twice but by `send_again`, so a duplicate that the product counts
elsewhere is an event that it read twice itself.
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import httpx
from running import Product

TYPES = ("request", "play", "heartbeat", "pause", "exit")
PAUSE_S = 0.02  # after a failure, so that a product that is gone is not asked thousands of times


def beacon(channel: str, video: str) -> list[dict[str, object]]:
    """Return one view of five events that ends now."""
    now = time.time_ns() // 1_000_000
    return [
        {
            "type": kind,
            "ts": now - 4_000 + seq * 1_000,
            "view_id": f"{channel}-{video}",
            "seq": seq,
            "video_id": video,
            "channel_id": channel,
            "viewer_id": f"viewer of {video}",
        }
        for seq, kind in enumerate(TYPES)
    ]


@dataclass
class Load:
    """Threads that post beacons one after the other, whatever becomes of them, until `stop` is called."""

    product: Product
    channel: str
    threads: int = 3
    acknowledged: set[str] = field(default_factory=set)
    uncertain: set[str] = field(default_factory=set)  # sent, but the answer never came
    refused: list[int] = field(default_factory=list)
    stamp: Callable[[], int] = lambda: 0  # the position of a journal, say: taken as soon as an answer is there
    stamps: dict[str, int] = field(default_factory=dict)  # of each acknowledged beacon
    period: object = "24h"  # what is asked for, as `time_range`
    repeated: int = 0  # events of beacons that were there already when `send_again` sent them

    repeats_unsure: int = 0  # as many again may have been sent twice: what a power cut took back

    def __post_init__(self) -> None:
        self._stop = threading.Event()
        self._running = [threading.Thread(target=self._post, args=(i,)) for i in range(self.threads)]

    def start(self) -> Load:
        """Begin to post."""
        for thread in self._running:
            thread.start()
        return self

    def stop(self) -> None:
        """End, and wait for what is under way."""
        self._stop.set()
        for thread in self._running:
            thread.join(60)

    def _post(self, lane: int) -> None:
        number = 0
        with httpx.Client(timeout=20) as client:
            while not self._stop.is_set():
                self._send(client, f"v{lane}-{number}")
                number += 1

    def _send(self, client: httpx.Client, video: str) -> None:
        try:
            answer = client.post(
                f"{self.product.base_url}/api/v1/events/beacon",
                params={"key": self.product.ingest_key, "t": str(time.time_ns() // 1_000_000)},
                json=beacon(self.channel, video),
            )
        except httpx.HTTPError:
            self.uncertain.add(video)
            self._stop.wait(PAUSE_S)
            return
        if answer.status_code == 204:
            self.stamps[video] = self.stamp()
            self.acknowledged.add(video)
            self.uncertain.discard(video)
        else:
            self.refused.append(answer.status_code)
            self._stop.wait(PAUSE_S)

    @contextlib.contextmanager
    def explained(self) -> Iterator[None]:
        """Add to a failure inside what the answers were."""
        try:
            yield
        except BaseException:
            print(
                f"acknowledged {len(self.acknowledged)}, unanswered {len(self.uncertain)}, refused {self.refused[-9:]}"
            )
            print(self.product.log[-4000:])
            raise

    def send_again(self) -> None:
        """Send what was not answered once more, as a player does; call it after a flush."""
        known = self.counted().keys()
        with httpx.Client(timeout=20) as client:
            for video in sorted(self.uncertain):
                self.repeated += len(TYPES) * (video in known)
                self._send(client, video)
        assert not self.uncertain, f"{len(self.uncertain)} beacons were not even taken at the second time"

    def check(self) -> None:
        """Assert that every acknowledged event counts exactly once, and no beacon counts in part."""
        counted = self.counted()
        missing = self.acknowledged - counted.keys()
        assert not missing, f"{len(missing)} acknowledged beacons are lost, e.g. {sorted(missing)[:3]}"
        wrong = {video: figures for video, figures in counted.items() if figures != (len(TYPES), 1, 1)}
        assert not wrong, f"(events, attempts, plays) are not ({len(TYPES)}, 1, 1): {dict(list(wrong.items())[:3])}"
        strangers = counted.keys() - self.acknowledged - self.uncertain
        assert not strangers, f"counted, but never sent: {sorted(strangers)[:3]}"
        sums = ["events", "lost_events", "plays", "duplicate_events"]
        (total,) = self.product.query(
            channel_id=self.channel, time_range=self.period, granularity="total", metrics=sums
        )
        *found, duplicates = (total[name] for name in sums)
        expected = [len(TYPES) * len(counted), 0, len(counted)]
        assert found == expected, f"{sums[:-1]} of the channel are {found}, not {expected}"
        at_most = self.repeated + self.repeats_unsure
        assert self.repeated <= duplicates <= at_most, f"{duplicates} duplicates, {self.repeated} were sent twice"

    def counted(self) -> dict[str, tuple[object, object, object]]:
        """Return (events, attempts, plays) by video, as the product answers."""
        rows = self.product.query(
            channel_id=self.channel,
            time_range=self.period,
            granularity="total",
            metrics=["events", "attempts", "plays"],
            dimensions=["video_id"],
            limit=10_000,
        )
        return {str(row["video_id"]): (row["events"], row["attempts"], row["plays"]) for row in rows}
