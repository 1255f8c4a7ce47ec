"""The seam between the layers cannot be seen: while events come and hours are closed over and over, answers add up.

Two hours are closed, get late events, and are replaced by runs asked for and by the scheduler's own; one is open.
Law. Every view plays the same time, and belongs to somebody of its own. So whatever was applied at the instant of an
answer: watch time = plays x that time, viewers = plays. An hour that was shown by both layers or by none would break
the order of answers: of each video no reader ever sees fewer plays than before, nor more than were sent. The video of
now holds every beacon that was answered before the answer's watermark. At rest the answer is the total.
"""

from __future__ import annotations

import random
import threading
import time
from collections import Counter
from datetime import datetime
from typing import Any

import httpx
from running import Product, StartProduct

from viewmeter.model.time import HOUR_MS, MINUTE_MS, floor_to, rfc3339, to_ms

WATCHED_MS = 20_000
VIEWS, ANSWERS, RUNS = 90, 30, 4
CLOSED, LATE, OPEN = "closed", "late", "open"
QUICK = {
    "VIEWMETER_ARCHIVE__FLUSH_EVERY_S": "0.3",
    "VIEWMETER_BATCH__LOOK_EVERY_S": "0.2",
    "VIEWMETER_BATCH__RERUN_AFTER_S": "0",
}


class Sent:
    """What was sent and what was answered, by video."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.tried: Counter[str] = Counter()
        self.answered: dict[str, list[int]] = {CLOSED: [], LATE: [], OPEN: []}

    def at_most(self) -> Counter[str]:
        with self.lock:
            return Counter(self.tried)

    def known_by(self, watermark_ms: int, video: str) -> int:
        with self.lock:
            return sum(at_ms < watermark_ms for at_ms in self.answered[video])


def view(number: int, video: str, at_ms: int) -> list[dict[str, object]]:
    same = {"view_id": f"view-{number}", "video_id": video, "channel_id": "seam", "viewer_id": f"viewer-{number}"}
    return [
        {"type": "request", "seq": 0, "ts": at_ms, **same},
        {"type": "play", "seq": 1, "ts": at_ms + 500, **same},
        {"type": "exit", "seq": 2, "ts": at_ms + 500 + WATCHED_MS, **same},
    ]


def send(product: Product, sent: Sent, hour: int) -> None:
    """A third of the views are of an hour that is closed all the time, a third of the one behind it, a third of now."""
    for number in range(VIEWS):
        video = (CLOSED, LATE, OPEN)[number % 3]
        at = {CLOSED: hour, LATE: hour + HOUR_MS}.get(video, 0) + (number % 50) * MINUTE_MS
        at = at if video != OPEN else time.time_ns() // 1_000_000 - WATCHED_MS - 1_000
        with sent.lock:
            sent.tried[video] += 1
        assert product.post(view(number, video, at)).status_code == 204
        with sent.lock:
            sent.answered[video].append(time.time_ns() // 1_000_000)


def close(product: Product, hour: int, done: threading.Event, runs: int) -> None:
    """Close both hours, over and over; their late events make them stale as well, and the scheduler repeats them."""
    with httpx.Client(base_url=product.base_url, headers=product.headers, timeout=120) as client:
        ran = 0
        while ran < runs or not done.is_set():
            which = hour + HOUR_MS * (ran % 2)
            answer = client.post("/api/v1/admin/jobs/hourly", json={"interval": rfc3339(which)[:13]})
            assert answer.status_code in (200, 504), answer.text  # 504: a busy machine; the run goes on
            ran += 1


def settle(product: Product) -> None:
    """Flush, on a machine that may be too busy to do it within the gateway's patience."""
    for _ in range(10):
        answer = httpx.post(f"{product.base_url}/api/v1/admin/flush", headers=product.headers, timeout=120)
        if answer.status_code != 504:
            break
    assert answer.status_code == 200, answer.text


class Reader:
    """Asks and keeps what it saw last."""

    def __init__(self, product: Product, sent: Sent, seed: int) -> None:
        self._sent, self._rng = sent, random.Random(seed)
        self._client = httpx.Client(base_url=product.base_url, headers=product.headers, timeout=60)
        self._before: Counter[str] = Counter()
        self.answers = 0
        self.sources: set[tuple[str, ...]] = set()

    def close(self) -> None:
        self._client.close()

    def ask(self) -> Counter[str]:
        question = {
            "channel_id": "seam",
            "metrics": ["plays", "watch_time_ms", "unique_viewers", "attempts"],
            "time_range": self._rng.choice(["24h", "7d", "30d"]),
            "granularity": self._rng.choice(["total", "hour"]),
            "dimensions": ["video_id"],
            "limit": 10_000,
        }
        answer = self._client.post("/api/v1/analytics/query", json=question)
        most = self._sent.at_most()
        if answer.status_code == 504:
            return self._before  # a busy machine: not an answer
        assert answer.status_code == 200, answer.text
        told = answer.json()
        self._check(told, most, question)
        self.answers += 1
        self.sources.add(tuple(told["meta"]["sources"]))
        return self._before

    def _check(self, told: dict[str, Any], most: Counter[str], question: dict[str, Any]) -> None:
        plays: Counter[str] = Counter()
        watched: Counter[str] = Counter()
        viewers: Counter[str] = Counter()
        for row in told["rows"]:
            plays[row["video_id"]] += row["plays"]
            watched[row["video_id"]] += row["watch_time_ms"]
            viewers[row["video_id"]] += round(row["unique_viewers"])
        where = (question, told["meta"])
        assert watched == Counter({video: count * WATCHED_MS for video, count in plays.items()}), where
        assert viewers == plays, where
        for video in (CLOSED, LATE, OPEN):
            assert self._before[video] <= plays[video] <= most[video], (video, self._before, plays, most, where)
        if told["meta"]["watermark"]:
            watermark = to_ms(datetime.fromisoformat(told["meta"]["watermark"]))
            assert plays[OPEN] >= self._sent.known_by(watermark, OPEN), where
        self._before = plays


def test_every_answer_is_whole_while_events_come_and_hours_are_replaced(start_product: StartProduct) -> None:
    product = start_product("--workers", "2", env=QUICK)
    sent, done, problems = Sent(), threading.Event(), list[BaseException]()
    hour = floor_to(time.time_ns() // 1_000_000, HOUR_MS) - 3 * HOUR_MS
    for video, at in ((CLOSED, hour), (LATE, hour + HOUR_MS)):
        assert product.post(view(1_000 + at // HOUR_MS % 2, video, at)).status_code == 204
        sent.tried[video] += 1
    settle(product)
    done.set()
    close(product, hour, done, runs=2)
    done.clear()
    settle(product)
    readers = [Reader(product, sent, seed) for seed in range(2)]
    assert readers[0].ask() == Counter({CLOSED: 1, LATE: 1}), "both are closed"

    def guarded(work: Any, *arguments: Any) -> threading.Thread:
        def run() -> None:
            try:
                work(*arguments)
            except BaseException as problem:  # noqa: BLE001 - told by the test below
                problems.append(problem)

        thread = threading.Thread(target=run)
        thread.start()
        return thread

    def read(reader: Reader) -> None:
        while not (done.is_set() and reader.answers >= ANSWERS) and not problems:
            reader.ask()

    sending = guarded(send, product, sent, hour)
    others = [guarded(read, reader) for reader in readers] + [guarded(close, product, hour, done, RUNS)]
    sending.join()
    done.set()
    for thread in others:
        thread.join()
    assert not problems, problems[0]
    settle(product)
    for reader in readers:
        assert reader.ask() == Counter({CLOSED: VIEWS // 3 + 1, LATE: VIEWS // 3 + 1, OPEN: VIEWS // 3})
        reader.close()
    assert ("batch", "speed") in {tuple(sorted(s)) for reader in readers for s in reader.sources}, (
        "both layers answered"
    )
