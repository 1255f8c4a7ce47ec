"""Bodies that nobody meant: whatever the bytes are, a dialect answers events, rejections or a problem, in bounds.

`VIEWMETER_TEST_FUZZ_S` sets how long (default 2 s a dialect; `make fuzz` 120), `VIEWMETER_TEST_SEED` the mutations.
"""

from __future__ import annotations

import importlib
import json
import os
import random
import time
import tracemalloc
from collections.abc import Callable

import pytest

from viewmeter.collector.dialects import UndecodableError

SECONDS = float(os.environ.get("VIEWMETER_TEST_FUZZ_S", "2"))
BODY_BYTES = 65_536
PEAK_BYTES = 16 << 20
MOST_TIMES = 40  # of what a valid body of that size costs; a campaign prints the true figure

EVENT = {"type": "play", "ts": 1_764_000_000_000, "view_id": "v", "seq": 3, "video_id": "x", "channel_id": "c"}
NUMBERS = {"played_ms": 1.5, "rebuffered_ms": 0, "bitrate_kbps": 3000, "playback_rate": 1.25, "fatal": True}
RECORD = 'v=2,e=ps,sta=p,cid="x",sid="s",ts=1764000000000,br=(3000;v 128;a),bl=(4000),mtp=(25000),sn=4,pt=9,com.x-y="z"'
NASTY = (
    b"\x00",
    b"\xff\xfe",
    b"\xed\xa0\x80",
    b"\\ud800",
    b"1e999",
    b"-0",
    b"NaN",
    b'"',
    b"[" * 50,
    b"{" * 50,
    b"\\",
    b"9" * 400,
)


def valid(dialect: str) -> bytes:
    """Return a valid body of about 64 KiB."""
    if dialect == "native":
        event = json.dumps({**EVENT, **NUMBERS, "error_message": "é" * 20})
        return ("[" + ",".join([event] * min(500, BODY_BYTES // len(event))) + "]").encode()
    return "\n".join([RECORD] * min(500, BODY_BYTES // (len(RECORD) + 1))).encode()


def mutated(body: bytes, dice: random.Random) -> bytes:
    """Return the body with some damage: bytes changed, pieces repeated or cut, and what hurts parsers put in."""
    data = bytearray(body[: dice.choice((200, 2_000, BODY_BYTES))])
    for _ in range(dice.randrange(1, 8)):
        at = dice.randrange(len(data) + 1)
        match dice.randrange(5):
            case 0 if data:
                data[at % len(data)] = dice.randrange(256)
            case 1:
                data[at:at] = dice.choice(NASTY)
            case 2:
                del data[at : at + dice.randrange(1, 200)]
            case 3:
                piece = bytes(data[at : at + dice.randrange(1, 200)])
                data[at:at] = piece * dice.randrange(1, 40)
            case _:
                data[at:] = b""
    return bytes(data[:BODY_BYTES])


def decode(dialect: str) -> Callable[[bytes], None]:
    found = importlib.import_module(f"viewmeter.collector.dialects.{dialect}").decode

    def run(body: bytes) -> None:
        try:
            decoded = found(body, channel_id=None, player=None)
        except UndecodableError:
            return
        else:
            assert len(decoded.events) + len(decoded.rejected) <= 70_000

    return run


@pytest.mark.parametrize("dialect", ["native", "cmcd"])
def test_no_body_breaks_a_dialect_or_costs_much_more_than_a_valid_one(dialect: str) -> None:
    seed = int(os.environ.get("VIEWMETER_TEST_SEED", time.time_ns() % 1_000_000))
    print(f"VIEWMETER_TEST_SEED={seed}")
    dice = random.Random(seed)
    run, body = decode(dialect), valid(dialect)
    run(body)
    costs = sorted(cpu_s(run, body) for _ in range(9))
    usual, worst, worst_body, bodies = costs[4], 0.0, b"", 0
    end = time.process_time() + SECONDS
    while time.process_time() < end:
        made = mutated(body, dice)
        cost = cpu_s(run, made)
        bodies += 1
        if cost > worst:
            worst, worst_body = cost, made
    worst = min(cpu_s(run, worst_body) for _ in range(5))  # what the machine did meanwhile is not the decoder's
    print(f"{dialect}: {bodies} bodies; valid {usual * 1000:.2f} ms, worst {worst * 1000:.2f} ms CPU")
    assert bodies > 100
    assert worst < MOST_TIMES * max(usual, 0.0005), worst_body[:500]


WORST = {
    "cmcd: members of two bytes": ("cmcd", b"\n".join([b"a,b,c,d,e,f," * 11] * 490)),
    "cmcd: members that no other record has": (
        "cmcd", b"\n".join(b",".join(b"%x" % (i * 26 + j + 0xA000) for j in range(26)) for i in range(490))),
    "cmcd: lists": ("cmcd", b"\n".join(b"br=(" + b"1;v " * 15 + b"%d) " % i + b" " * 50 for i in range(490))),
    "cmcd: lists that do not end": ("cmcd", b"\n".join(b"br=(" + b"1;v " * 31 for i in range(490))),
    "cmcd: commas": ("cmcd", b"v=2" + b"," * 65_500),
    "cmcd: quotes": ("cmcd", b'cid="' * 13_000),
    "native: events of nothing": ("native", b"[" + b",".join([b"{}"] * 500) + b"]"),
    "native: fields nobody knows": (
        "native", b"[{" + b",".join(b'"%x":1' % i for i in range(7_000)) + b"}]"),
    "native: one number of 64 KB": ("native", b'[{"ts":' + b"9" * 65_000 + b"}]"),
    "native: escapes": ("native", b'[{"view_id":"' + rb"\u00e9" * 10_000 + b'"}]'),
    "native: nesting": ("native", b'[{"a":' + b"[" * 30_000 + b"]" * 30_000 + b"}]"),
}  # fmt: skip
MOST_CPU_S = 0.040
"""Four times the bound of 10 ms, since a test shares its machine; `make fuzz` prints the true figures."""


@pytest.mark.parametrize("name", WORST)
def test_the_worst_bodies_of_64_kib_cost_little(name: str) -> None:
    dialect, body = WORST[name]
    assert len(body) <= BODY_BYTES
    run = decode(dialect)
    run(body)
    cost = min(cpu_s(run, body) for _ in range(7))
    print(f"{name}: {cost * 1000:.2f} ms CPU")
    assert cost < MOST_CPU_S


@pytest.mark.parametrize("dialect", ["native", "cmcd"])
def test_what_decoding_takes_of_memory_is_bounded(dialect: str) -> None:
    dice = random.Random(f"{dialect} memory")
    run, body = decode(dialect), valid(dialect)
    tracemalloc.start()
    try:
        for _ in range(60):
            run(mutated(body, dice))
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < PEAK_BYTES, f"{peak} bytes for bodies of at most {BODY_BYTES}"


def cpu_s(run: Callable[[bytes], None], body: bytes) -> float:
    started = time.process_time()
    run(body)
    return time.process_time() - started
