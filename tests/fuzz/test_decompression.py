"""Compressed bodies that nobody meant: the bytes that were compressed or a problem, in bounded memory and time.

`VIEWMETER_TEST_FUZZ_S` sets how long (default 1 s an encoding; `make fuzz` 120), `VIEWMETER_TEST_SEED` the damage.
"""

from __future__ import annotations

import gzip
import os
import random
import time
import tracemalloc
from collections import Counter
from collections.abc import Callable

import pytest
import zstandard

from viewmeter.collector.answers import ProblemError
from viewmeter.collector.bodies import unpack_gzip, unpack_zstd

SECONDS = float(os.environ.get("VIEWMETER_TEST_FUZZ_S", "1"))
LIMIT = 1 << 20
PEAK_BYTES = 16 << 20  # the limit, 8 MiB of a zstd slice, and copies of a body
MOST_CPU_S = (
    0.25  # of this process, so that other work on the machine does not count; a campaign prints the true figure
)
ENCODINGS: dict[str, tuple[Callable[[bytes], bytes], Callable[..., bytes]]] = {
    "gzip": (gzip.compress, unpack_gzip),
    "zstd": (zstandard.compress, unpack_zstd),
}
PLAIN = (b"", b"[]", b'[{"type":"play"}]' * 500, b" " * LIMIT, b" " * (LIMIT + 1), b"[" * (40 << 20))


@pytest.mark.parametrize("encoding", ENCODINGS)
def test_a_damaged_compressed_body_is_a_problem_and_costs_little(encoding: str) -> None:
    seed = int(os.environ.get("VIEWMETER_TEST_SEED", time.time_ns() % 1_000_000))
    print(f"VIEWMETER_TEST_SEED={seed}")
    dice = random.Random(f"{seed} {encoding}")
    compress, unpack = ENCODINGS[encoding]
    noise = dice.randbytes(200_000)
    whole = [compress(plain) for plain in (*PLAIN, noise)]
    tally: Counter[str] = Counter()
    worst, worst_body = 0.0, b""
    end = time.process_time() + SECONDS
    while time.process_time() < end or sum(tally.values()) < 100:
        body = damaged(dice.choice(whole), whole, dice)
        begun = time.process_time()
        tally[outcome(unpack, body)] += 1
        cost = time.process_time() - begun
        if cost > worst:
            worst, worst_body = cost, body
    worst = min(cost_of(unpack, worst_body) for _ in range(3))
    print(f"{encoding}: {dict(sorted(tally.items()))}; worst {worst * 1000:.1f} ms CPU")
    assert tally["invalid_encoding"], "no damage was noticed: nothing was proven"
    assert worst < MOST_CPU_S, (len(worst_body), worst_body[:200])


@pytest.mark.parametrize("encoding", ENCODINGS)
@pytest.mark.parametrize("size", [0, 1, 100_000, LIMIT - 1, LIMIT])
def test_a_body_up_to_the_limit_comes_back_as_it_was(encoding: str, size: int) -> None:
    compress, unpack = ENCODINGS[encoding]
    plain = random.Random(size).randbytes(min(size, 5_000)).ljust(size, b"x")
    assert unpack(compress(plain), LIMIT, []) == plain
    halves = compress(plain[: size // 2]) + compress(plain[size // 2 :])
    assert unpack(halves, LIMIT, []) == plain


@pytest.mark.parametrize("encoding", ENCODINGS)
def test_what_unpacking_takes_of_memory_is_bounded(encoding: str) -> None:
    compress, unpack = ENCODINGS[encoding]
    dice = random.Random(f"{encoding} memory")
    whole = [compress(plain) for plain in PLAIN]
    bodies = whole + [damaged(dice.choice(whole), whole, dice) for _ in range(40)]
    tracemalloc.start()
    try:
        for body in bodies:
            outcome(unpack, body)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    print(f"{encoding}: {peak >> 10} KiB at most")
    assert peak < PEAK_BYTES


def damaged(body: bytes, others: list[bytes], dice: random.Random) -> bytes:
    """Return the body with bytes changed, cut off, repeated, or followed by another one or by garbage."""
    data = bytearray(body)
    for _ in range(dice.randrange(1, 4)):
        at = dice.randrange(len(data) + 1)
        match dice.randrange(6):
            case 0 if data:
                data[at % len(data)] = dice.randrange(256)
            case 1:
                head = min(at, 20)  # where the header is: sizes, windows, flags
                data[head:head] = dice.randbytes(2)
            case 2:
                del data[at:]
            case 3:
                data += dice.choice(others)
            case 4:
                data += dice.randbytes(dice.randrange(1, 50))
            case _:
                del data[at : at + dice.randrange(1, 20)]
    return bytes(data[:LIMIT])


def outcome(unpack: Callable[..., bytes], body: bytes) -> str:
    """Return what became of it: a problem's status, or `whole`."""
    try:
        unpacked = unpack(body, LIMIT, [])
    except ProblemError as problem:
        return {400: "invalid_encoding", 413: "body_too_large"}[problem.answer.status]
    assert len(unpacked) <= LIMIT
    return "whole"


def cost_of(unpack: Callable[..., bytes], body: bytes) -> float:
    begun = time.process_time()
    outcome(unpack, body)
    return time.process_time() - begun
