"""The seam between the layers cannot be seen: events come, hours are closed, replaced and asked for, all at once.

Some hours are open at first, get their events, are closed for the first time while more come, and get late ones then;
two more videos are of now. Law: of each video every answer is what the oracle says of a prefix of what was sent. The
prefix is never shorter than one that the reader saw before, nor than what was acknowledged before a flush that
returned, nor (in open hours) than what was answered before the answer's watermark; never longer than what was sent.
A closed hour stays closed. Each sender keeps one connection, so its order is kept from end to end.

`make proofs` sends SEAM_VIEWS late views to six hours; otherwise a few to two.
"""

from __future__ import annotations

import os
import random
import threading
import time
from bisect import bisect_left
from collections import Counter, defaultdict
from datetime import datetime
from typing import Any, Final

import httpx
from running import Product, StartProduct

from viewmeter.model.time import HOUR_MS, MINUTE_MS, floor_to, rfc3339, to_ms
from viewmeter.testing import oracle

LATE_VIEWS: Final = int(os.environ.get("VIEWMETER_TEST_SEAM_VIEWS", "6"))
FIRST_VIEWS: Final = 12
HOURS: Final = tuple(f"hour-{n}" for n in range(2 if LATE_VIEWS < 20 else 6))
NOW: Final = ("now-0", "now-1")
SUMS: Final = ("attempts", "plays", "watch_time_ms", "pauses", "rebuffer_count", "completes")
EXACT: Final = "unique_viewers_exact"
QUICK: Final = {
    "VIEWMETER_ARCHIVE__FLUSH_EVERY_S": "0.3",
    "VIEWMETER_BATCH__LOOK_EVERY_S": "0.05",
    "VIEWMETER_BATCH__RERUN_AFTER_S": "0",
}

Event = dict[str, object]
Row = dict[str, Any]


class Sent:
    """What was sent of each video, in order; what the oracle says of each prefix of it; what was answered when."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        nothing = (dict.fromkeys(SUMS, 0), frozenset[object]())
        self._says: dict[str, list[tuple[dict[str, int], frozenset[object]]]] = {v: [nothing] for v in (*HOURS, *NOW)}
        self._answered_ms: dict[str, list[int]] = defaultdict(list)
        self._flushed: Counter[str] = Counter()

    def post(self, client: httpx.Client, product: Product, events: list[Event]) -> None:
        video = str(events[0]["video_id"])
        found = Counter(dict.fromkeys(SUMS, 0))
        for fact in oracle.increments([{**e, "tenant_id": "t", "received_at": e["ts"]} for e in events], 1 << 50):
            name = "watch_time_ms" if fact.measure == "played_ms" else fact.measure
            if name in SUMS:
                found[name] += fact.amount
        with self._lock:
            sums, viewers = self._says[video][-1]
            also = {events[0]["viewer_id"]} if found["plays"] else set()
            self._says[video].append(({name: sums[name] + found[name] for name in SUMS}, viewers | also))
        answer = client.post("/api/v1/events/beacon", params={"key": product.ingest_key}, json=events)
        assert answer.status_code == 204, answer.text
        with self._lock:
            self._answered_ms[video].append(time.time_ns() // 1_000_000)

    def tried(self) -> Counter[str]:
        with self._lock:
            return Counter({video: len(says) - 1 for video, says in self._says.items()})

    def answered(self) -> Counter[str]:
        with self._lock:
            return Counter({video: len(at) for video, at in self._answered_ms.items()})

    def answered_before(self, at_ms: int, video: str) -> int:
        with self._lock:
            return bisect_left(self._answered_ms[video], at_ms)

    def says(self, video: str, count: int) -> tuple[dict[str, int], int]:
        """Return the sums and the number of viewers of the first views."""
        with self._lock:
            sums, viewers = self._says[video][count]
            return sums, len(viewers)

    def note_flush(self, answered: Counter[str]) -> None:
        with self._lock:
            self._flushed |= answered

    def flushed(self) -> Counter[str]:
        with self._lock:
            return Counter(self._flushed)


class Scene:
    """What the threads share: the product, what was sent, which hours a reader saw closed, what went wrong."""

    def __init__(self, product: Product) -> None:
        self.product, self.sent = product, Sent()
        self.start_ms = floor_to(time.time_ns() // 1_000_000, HOUR_MS) - 8 * HOUR_MS
        self.changed = threading.Condition()
        self.closed: set[str] = set()
        self.answers = 0
        self.problems: list[BaseException] = []
        self.done = threading.Event()

    def client(self) -> httpx.Client:
        return httpx.Client(base_url=self.product.base_url, headers=self.product.headers, timeout=120)

    def hour_ms(self, video: str) -> int:
        return self.start_ms + HOURS.index(video) * HOUR_MS

    def note(self, closed: set[str]) -> None:
        with self.changed:
            self.closed |= closed
            self.answers += 1
            self.changed.notify_all()

    def next_answer(self) -> None:
        """Wait for an answer, so that sending and asking keep step on any machine."""
        with self.changed:
            seen = self.answers
            self.changed.wait_for(lambda: self.answers > seen or self.problems, 30)

    def thread(self, work: Any, *arguments: Any) -> threading.Thread:
        def run() -> None:
            try:
                work(self, *arguments)
            except BaseException as problem:  # noqa: BLE001 - told by the test
                with self.changed:
                    self.problems.append(problem)
                    self.changed.notify_all()

        thread = threading.Thread(target=run)
        thread.start()
        return thread


def view(rng: random.Random, video: str, number: int, at_ms: int) -> list[Event]:
    """Return a whole view of a minute at most: a failed start, or play with pauses and stalls; one beacon."""
    viewer = f"{video}-{number if video in NOW else number % 7}"
    kinds, at = ["request"], [at_ms]
    for kind in rng.choice([["play"], ["play", "pause", "play"], ["play", "buffer", "play"], [], ["play", "complete"]]):
        kinds.append(kind)
        at.append(at[-1] + rng.randrange(200, 12_000))
    if kinds[-1] != "complete":
        kinds.append("exit")
        at.append(at[-1] + rng.randrange(200, 12_000))
    same = {"view_id": f"{video}-{number}", "video_id": video, "channel_id": "seam", "viewer_id": viewer}
    return [{"type": k, "seq": seq, "ts": ts, **same} for seq, (k, ts) in enumerate(zip(kinds, at, strict=True))]


def send(scene: Scene, me: int) -> None:
    """Fill an hour while it is tried to be closed, then leave it alone until it is; then late views of both."""
    rng = random.Random(me)
    mine, number = HOURS[me::2], 0
    with httpx.Client(base_url=scene.product.base_url, timeout=120) as client:

        def post(video: str) -> None:
            nonlocal number
            number += 1
            at = time.time_ns() // 1_000_000 - MINUTE_MS
            if video in HOURS:
                at = scene.hour_ms(video) + rng.randrange(55 * MINUTE_MS)
            scene.sent.post(client, scene.product, view(rng, video, number, at))
            scene.next_answer()

        for place, video in enumerate(mine):
            for _ in range(FIRST_VIEWS):
                post(video)
                post(NOW[me])
            while video not in scene.closed and not scene.problems:
                post(NOW[me])
            for _ in range(LATE_VIEWS):
                post(rng.choice(mine[: place + 1]))
                post(NOW[me])


def close(scene: Scene) -> None:
    """Ask for runs of hours, the open ones too, and for flushes, in turns; the scheduler does so on its own as well."""
    rng = random.Random(9)
    with scene.client() as client:
        while not scene.done.is_set() and not scene.problems:
            hour = rfc3339(scene.hour_ms(rng.choice(HOURS)))[:13]
            ran = client.post("/api/v1/admin/jobs/hourly", json={"interval": hour})
            # 504: a busy machine; the run goes on. job_failed: its events kept coming, it stays open.
            assert ran.status_code in (200, 504) or "stays open" in ran.json()["detail"], ran.text
            answered = scene.sent.answered()
            flushed = client.post("/api/v1/admin/flush")
            assert flushed.status_code in (200, 504), flushed.text
            if flushed.status_code == 200:
                scene.sent.note_flush(answered)


class Reader:
    """Asks, and checks each answer against the oracle and the answers before."""

    def __init__(self, scene: Scene, seed: int) -> None:
        self._scene, self._rng = scene, random.Random(seed)
        self._client = scene.client()
        self._before: Counter[str] = Counter()
        self._closed: set[str] = set()

    def close(self) -> None:
        self._client.close()

    def ask(self, granularity: str | None = None) -> Counter[str]:
        """Return how many views of each video the answer is about."""
        granularity = granularity or self._rng.choice(["total", "hour", "hour"])
        question = {
            "channel_id": "seam",
            "metrics": [*SUMS, "unique_viewers", *([EXACT] if granularity == "hour" else [])],
            "time_range": self._rng.choice(["24h", "7d", "30d"]) if granularity == "total" else "24h",
            "granularity": granularity,
            "dimensions": ["video_id"],
            "limit": 10_000,
        }
        least = self._scene.sent.flushed() | self._before
        answer = self._client.post("/api/v1/analytics/query", json=question)
        most = self._scene.sent.tried()
        if answer.status_code == 504:
            return self._before  # a busy machine: not an answer
        assert answer.status_code == 200, answer.text
        told = answer.json()
        try:
            self._before = self._check(told, least, most, by_hour=granularity == "hour")
        except AssertionError as problem:
            raise AssertionError(f"{problem}\nasked: {question}\nmeta: {told['meta']}") from problem
        self._scene.note(set(self._closed))
        return self._before

    def _check(self, told: Row, least: Counter[str], most: Counter[str], *, by_hour: bool) -> Counter[str]:
        rows: dict[str, list[Row]] = defaultdict(list)
        for row in told["rows"]:
            rows[row["video_id"]].append(row)
        watermark = told["meta"]["watermark"]
        applied_ms = to_ms(datetime.fromisoformat(watermark)) if watermark else 0
        found: Counter[str] = Counter()
        for video in (*HOURS, *NOW):
            sums = {name: sum(row[name] for row in rows[video]) for name in SUMS}
            count = found[video] = sums["attempts"]
            assert least[video] <= count <= most[video], (video, least[video], count, most[video])
            says, viewers = self._scene.sent.says(video, count)
            assert sums == says, (video, count, sums, says)
            assert sum(round(row["unique_viewers"]) for row in rows[video]) == viewers, (video, count)
            if video in NOW or (by_hour and self._is_open(video, rows[video], viewers, told["meta"])):
                known = self._scene.sent.answered_before(applied_ms, video)
                assert count >= known, (video, count, known)
        return found

    def _is_open(self, video: str, rows: list[Row], viewers: int, meta: Row) -> bool:
        """Say whether the hour was open for sure: closed ones alone have exact viewers, and these are the oracle's."""
        hour = self._scene.hour_ms(video)
        exact = sum(row[EXACT] for row in rows if to_ms(datetime.fromisoformat(row["time"])) == hour)
        if not viewers:
            return False
        if exact:
            assert exact == viewers, (video, exact, viewers)
            self._closed.add(video)
            return False
        assert video not in self._closed, f"{video} was closed"
        assert to_ms(datetime.fromisoformat(meta["closed_until"])) <= hour, video
        return True


def read(scene: Scene, reader: Reader) -> None:
    while not scene.done.is_set() and not scene.problems:
        reader.ask()


def settle(scene: Scene) -> None:
    """Flush, on a machine that may be too busy to do it within the gateway's patience."""
    with scene.client() as client:
        for _ in range(10):
            answer = client.post("/api/v1/admin/flush")
            if answer.status_code != 504:
                break
    assert answer.status_code == 200, answer.text


def test_every_answer_is_the_oracles_of_a_prefix_while_hours_are_closed_and_replaced(
    start_product: StartProduct,
) -> None:
    scene = Scene(start_product("--workers", "2", env=QUICK))
    readers = [Reader(scene, seed) for seed in range(2)]
    others = [scene.thread(read, reader) for reader in readers] + [scene.thread(close)]
    for thread in [scene.thread(send, me) for me in range(2)]:
        thread.join()
    scene.done.set()
    for thread in others:
        thread.join()
    assert not scene.problems, scene.problems[0]
    settle(scene)
    for reader in readers:
        for granularity in ("total", "hour"):
            assert reader.ask(granularity) == scene.sent.tried()
        reader.close()
    assert scene.closed == {*HOURS}
