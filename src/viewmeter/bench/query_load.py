"""Dashboard questions over HTTP, to a running product on a copy of the kept history that ingests all the while.

In: a `History`, questions, how long. Out: per question the time of an answer without cache, and the times of a mixed
load: questions due at fixed instants (116 a second) whether or not earlier ones were answered, every second one asked
before; that load once more before the first event is sent. The generators share the machine with the product. A time
runs from when the question was due. What shall not come from the cache asks for a `limit` that its question was not
asked with before, from 10 on, which leaves a series as it is and makes a list some rows longer each time.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import random
import sys
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

import aiohttp

from viewmeter.bench.figures import percentile
from viewmeter.bench.product import Product, running
from viewmeter.bench.query_history import History
from viewmeter.bench.query_questions import Question
from viewmeter.model.time import DAY_MS

EVENTS_PER_S: Final = 10_000.0
QUESTIONS_PER_S: Final = 116.0
WARM_UP_S: Final = 3.0
_CONNECTIONS: Final = 256
_FIRST_LIMIT: Final = 10
_KEPT_LIMIT: Final = _FIRST_LIMIT - 1

Limits = Mapping[str, Iterator[int]]
"""The limits that a question was not asked with before, by its name."""


def under_ingest(history: History, asked: Sequence[Question], seconds: float, events_per_s: float) -> dict[str, Any]:
    """Return what was measured; about `seconds` for the single questions and as long for the mixed load."""
    # The history ended when it was made: what it keeps by the minute must not run out since then.
    days = int((time.time() * 1000 - history.interval.end_ms) // DAY_MS) + 2
    environment = {
        "VIEWMETER_STORE__KEEP_MINUTES_H": str(24 * (1 + days)),
        "VIEWMETER_STORE__KEEP_HOURS_D": str(30 + days),
        "VIEWMETER_STORE__KEEP_DAYS_Y": "5",
    }
    with running(workers=1, store=history.path, environment=environment) as product:
        return asyncio.run(_measure(product, asked, seconds, events_per_s))


async def _measure(product: Product, asked: Sequence[Question], seconds: float, events_per_s: float) -> dict[str, Any]:
    connector = aiohttp.TCPConnector(limit=_CONNECTIONS)
    headers = {"Authorization": f"Bearer {product.secret_key}"}
    limits = {question.name: itertools.count(_FIRST_LIMIT) for question in asked}
    async with aiohttp.ClientSession(product.url, connector=connector, headers=headers) as session:
        alone = await _mixed(session, asked, limits, seconds / 3)
        loaded = await _loaded(product, session, asked, limits, seconds, events_per_s)
    return {**loaded, "mixed_without_ingest": alone}


async def _loaded(
    product: Product,
    session: aiohttp.ClientSession,
    asked: Sequence[Question],
    limits: Limits,
    seconds: float,
    events_per_s: float,
) -> dict[str, Any]:
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "viewmeter.bench.traffic", product.url, product.ingest_key),
        *(str(events_per_s), str(2 * seconds + 2 * WARM_UP_S)),
        stdout=asyncio.subprocess.PIPE,
    )
    try:
        await asyncio.sleep(WARM_UP_S)
        begun, before = time.monotonic(), product.cpu_seconds()
        single = await _one_by_one(session, asked, limits, seconds)
        mixed = await _mixed(session, asked, limits, seconds)
        after, took_s = product.cpu_seconds(), time.monotonic() - begun
        output, _ = await process.communicate()
    finally:
        if process.returncode is None:
            process.terminate()
            await process.wait()
    return {
        "uncached": single,
        "mixed": mixed,
        "ingest": json.loads(output),
        "cores_used": {role: round((after[role] - before.get(role, 0.0)) / took_s, 2) for role in after},
    }


async def _one_by_one(
    session: aiohttp.ClientSession, asked: Sequence[Question], limits: Limits, seconds: float
) -> dict[str, Any]:
    times: dict[str, list[float]] = {q.name: [] for q in asked}
    until, turn = time.monotonic() + seconds, 0
    while time.monotonic() < until or turn < 2:
        for question in asked:
            begun = time.monotonic()
            status = await _ask(session, question, next(limits[question.name]))
            if status != 200:
                raise RuntimeError(f"{question.name} was answered {status}")
            times[question.name].append((time.monotonic() - begun) * 1000)
        turn += 1
    every = [one for several in times.values() for one in several[1:]]
    return {
        "p50_ms": of_ms(every, 0.5),
        "p95_ms": of_ms(every, 0.95),
        "questions": {
            name: {"p50_ms": of_ms(several[1:], 0.5), "p95_ms": of_ms(several[1:], 0.95)}
            for name, several in times.items()
        },
        "asked": len(every),
    }


async def _mixed(
    session: aiohttp.ClientSession, asked: Sequence[Question], limits: Limits, seconds: float
) -> dict[str, Any]:
    """Ask at fixed instants; every second question was asked before (retention curves are never cached)."""
    rng = random.Random(1)  # an order of questions
    kept = [q for q in asked if not q.curve]
    for question in kept:
        await _ask(session, question, _KEPT_LIMIT)
    statuses: Counter[int] = Counter()
    times: dict[bool, list[float]] = {True: [], False: []}
    begun = time.monotonic()

    async def one(number: int) -> None:
        due, cached = begun + number / QUESTIONS_PER_S, number % 2 == 0
        await asyncio.sleep(max(0.0, due - time.monotonic()))
        question = rng.choice(kept if cached else asked)
        status = await _ask(session, question, _KEPT_LIMIT if cached else next(limits[question.name]))
        statuses[status] += 1
        if status == 200:  # a refusal is fast, and no answer
            times[cached].append((time.monotonic() - due) * 1000)

    async with asyncio.TaskGroup() as group:
        for number in range(max(1, int(seconds * QUESTIONS_PER_S))):
            group.create_task(one(number))
    both = [*times[True], *times[False]]
    return {
        "per_s": QUESTIONS_PER_S,
        "refused": statuses.total() - len(both),
        "p50_ms": of_ms(both, 0.5),
        "p95_ms": of_ms(both, 0.95),
        "cached_p95_ms": of_ms(times[True], 0.95),
        "uncached_p95_ms": of_ms(times[False], 0.95),
        "answered_per_s": round(len(both) / (time.monotonic() - begun), 1),
        "statuses": {str(status): count for status, count in statuses.items()},
    }


async def _ask(session: aiohttp.ClientSession, question: Question, limit: int) -> int:
    if question.curve:
        given = {name: str(value) for name, value in question.body["time_range"].items()}
        async with session.get(f"/api/v1/analytics/retention/{question.curve}", params=given) as answer:
            await answer.read()
            return answer.status
    body = {**question.body, "limit": limit}
    async with session.post("/api/v1/analytics/query", json=body) as answer:
        await answer.read()
        return answer.status


def of_ms(times: Sequence[float], share: float) -> float:
    """Return a percentile of times in ms, to the hundredth."""
    return round(percentile(times, share), 2)
