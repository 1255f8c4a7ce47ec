"""A fuzzer that follows the code it reaches (atheris), as a process: it takes over whoever starts it.

In: a target's name and libFuzzer's own arguments. Out: exit status 0, or what went wrong and the bytes that did it, in
a file of the folder that `-artifact_prefix` names. Promised by what is fuzzed: bytes become events, rejections or a
problem, and 64 KiB of them cost a bounded time.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from typing import Final

import atheris

with atheris.instrument_imports(include=["viewmeter.collector"]):
    from viewmeter.collector.agents import Agent
    from viewmeter.collector.answers import ProblemError
    from viewmeter.collector.bodies import unpack_gzip, unpack_zstd
    from viewmeter.collector.columns import Beacon, Columns
    from viewmeter.collector.dialects import MAX_EVENTS, UndecodableError, cmcd, native
    from viewmeter.collector.intake import take, terms_of
    from viewmeter.collector.places import Place
    from viewmeter.collector.senders import Sender
    from viewmeter.collector.settings import CollectorSettings
    from viewmeter.collector.viewers import TenantHashes
from viewmeter.metadata.keys import Tenant

T0: Final = 1_764_000_000_000
SETTINGS: Final = CollectorSettings()
SENDER: Final = Sender(Place("DE", "BE", "Berlin", "AS1"), Agent("phone", "iOS", "Safari"), b"today")
LIMIT: Final = 1 << 20
MOST_CPU_S: Final = 0.5
"""Instrumented code is ten times slower, and the machine is shared."""


def decodes(decode: Callable[..., object]) -> Callable[[bytes], None]:
    """Return the target of a dialect."""

    def target(body: bytes) -> None:
        try:
            decoded = decode(body, channel_id="c", player=None)
        except UndecodableError:
            return
        assert len(decoded.events) + len(decoded.rejected) <= MAX_EVENTS
        for event in decoded.events:
            assert event.view_id
            assert event.video_id
            assert "\0" not in event.view_id + event.video_id

    return target


def unpacks(unpack: Callable[[bytes, int, list[tuple[str, str]]], bytes]) -> Callable[[bytes], None]:
    """Return the target of an encoding."""

    def target(body: bytes) -> None:
        code, unpacked = "", b""
        try:
            unpacked = unpack(body, LIMIT, [])
        except ProblemError as problem:
            code = problem.answer.code
        assert code in ("", "invalid_encoding", "body_too_large")
        assert len(unpacked) <= LIMIT

    return target


def both_decoders(body: bytes) -> None:
    """What the compiled decoder takes is wholly valid to the Python one, and gives the same columns."""
    tenant = Tenant("acme", "Acme", b"acme's secret")
    compiled = Columns()
    assert compiled.take is not None
    terms = terms_of(TenantHashes(tenant, 10), SENDER, None, SETTINGS)
    taken = compiled.take(body, terms, None, T0, MAX_EVENTS)
    if taken is None:
        assert compiled.events == 0
        return
    decoded = native.decode(body)
    accepted = take(decoded, None, None, T0, SETTINGS)
    assert not accepted.rejected, accepted.rejected
    plain = Columns(compiled=False)
    plain.add(Beacon(TenantHashes(tenant, 10), SENDER, T0, accepted.shift_ms, accepted.events))
    assert compiled.batch().equals(plain.batch())
    assert taken[1] == decoded.ignored_fields


TARGETS: Final = {
    "both": both_decoders,
    "native": decodes(native.decode),
    "cmcd": decodes(cmcd.decode),
    "gzip": unpacks(unpack_gzip),
    "zstd": unpacks(unpack_zstd),
}


def timed(target: Callable[[bytes], None]) -> Callable[[bytes], None]:
    """Return a target that must also be quick."""

    def run(body: bytes) -> None:
        began = time.process_time()
        target(body)
        if time.process_time() - began > MOST_CPU_S:  # once more, since something else may have been at work
            began = time.process_time()
            target(body)
            assert time.process_time() - began <= MOST_CPU_S, "it takes too long"

    return run


if __name__ == "__main__":
    atheris.Setup([sys.argv[0], *sys.argv[2:]], timed(TARGETS[sys.argv[1]]))
    atheris.Fuzz()
