"""How often a key or a network of addresses may send, over all workers of a machine.

In: a name and the time (CLOCK_MONOTONIC: one clock for all processes). Out: how much of the allowance is left, or how
long to wait. Promised: the limit holds for the sum of the workers that share the memory, wherever the kernel puts the
connections; memory is fixed, and made-up names cannot push out a name that is being limited. Not promised: a lock. Two
workers that take from one bucket within the same 0.1 µs count once.

A bucket is one number, the instant at which it is full again (GCRA), in memory that the workers inherit.
Other ways to count were slower, or let N workers admit N times as much: `docs/decisions/0070`.
"""

from __future__ import annotations

import hashlib
import ipaddress
import mmap
import os
import tempfile
from collections.abc import Callable
from typing import Final

_SLACK_S: Final = 1e-6
"""A sum of many intervals is off by less; without it a burst of 2 s might hold one request fewer."""
_SALT_BYTES: Final = 16
_WAYS: Final = 8
"""Places where a name may be. A name that is not being limited leaves its place to the next one."""
_NAMES_REMEMBERED: Final = 50_000
_IMPOSSIBLE_S: Final = 60.0
"""A bucket further ahead than this beyond its room was not filled by `take`: the number was torn. It is begun anew."""


def share_buckets() -> int:
    """Return a file descriptor of memory that child processes may count in together; it has no name in any folder."""
    if hasattr(os, "memfd_create"):
        handle = os.memfd_create("viewmeter-rates")
    else:
        with tempfile.TemporaryFile() as file:
            handle = os.dup(file.fileno())
    os.write(handle, os.urandom(_SALT_BYTES))
    return handle


class Buckets:
    """Room for `slots` buckets: that of `share_buckets`, or of this process alone.

    In memory: a salt of 16 bytes, then the tag of each slot (a keyed hash of the name, 64 bits), then its level.
    """

    def __init__(self, handle: int | None = None, slots: int = 1 << 16) -> None:
        if slots % _WAYS:
            raise ValueError(f"{slots} slots are no multiple of {_WAYS}")
        size = _SALT_BYTES + 16 * slots
        if handle is None:
            memory = mmap.mmap(-1, size)
            memory[:_SALT_BYTES] = os.urandom(_SALT_BYTES)
        else:
            os.ftruncate(handle, size)  # the same for every worker; what was there stays
            memory = mmap.mmap(handle, size)
        self._salt = memory[:_SALT_BYTES]
        view = memoryview(memory)
        self.tags = view[_SALT_BYTES : _SALT_BYTES + 8 * slots].cast("Q")
        self.levels = view[_SALT_BYTES + 8 * slots :].cast("d")
        self._sets = slots // _WAYS

    def find(self, name: str, now_s: float) -> tuple[int, int]:
        """Return the slot and the tag of a name; a new name takes the slot of one that is not being limited.

        Where all of its places are taken by names that are, it shares the first of them.
        """
        digest = hashlib.blake2b(name.encode(), digest_size=8, key=self._salt).digest()
        tag = int.from_bytes(digest, "little") | 1  # 0 is an empty slot
        first = (tag >> 1) % self._sets * _WAYS
        oldest = first
        for slot in range(first, first + _WAYS):
            if self.tags[slot] == tag:
                return slot, tag
            if self.levels[slot] < self.levels[oldest]:
                oldest = slot
        if self.levels[oldest] > now_s:
            return first, self.tags[first]
        self.levels[oldest] = 0.0
        self.tags[oldest] = tag
        return oldest, tag


class RateLimit:
    """At most `per_second` requests a second for each name, with a burst of `burst_s` seconds of that.

    group: what a name is counted as; it is asked once, then remembered.
    """

    def __init__(
        self, kind: str, per_second: int, burst_s: float, buckets: Buckets, group: Callable[[str], str] = str
    ) -> None:
        self.per_second = per_second
        self._kind = kind
        self._interval = 1.0 / per_second
        self._room = max(burst_s, self._interval) + _SLACK_S  # how far ahead a bucket may be filled
        self._buckets = buckets
        self._tags = buckets.tags
        self._levels = buckets.levels
        self._group = group
        self._known: dict[str, tuple[int, int]] = {}

    @property
    def parts(self) -> tuple[dict[str, tuple[int, int]], memoryview[int], memoryview[float], float, float]:
        """Where each name is counted (slot, tag), the tags, the levels, and what one request takes of the room, in s.

        For the compiled form of `take` (compiled/door.c).
        """
        return self._known, self._tags, self._levels, self._interval, self._room

    def take(self, name: str, now_s: float) -> float:
        """Take one request. Returns 0.0 when it is admitted, else the seconds to wait."""
        known = self._known.get(name)
        if known is None or self._tags[known[0]] != known[1]:
            known = self._find(name, now_s)
        slot = known[0]
        full_at = self._levels[slot]
        start = full_at if full_at > now_s else now_s
        ahead = start - now_s + self._interval
        if ahead > self._room:
            if ahead <= self._room + _IMPOSSIBLE_S:
                return ahead - self._room
            start = now_s
        self._levels[slot] = start + self._interval
        return 0.0

    def left(self, name: str, now_s: float) -> int:
        """Return how many requests the name may send right now."""
        return max(0, int((self._room - self._ahead(name, now_s)) / self._interval))

    def full_in(self, name: str, now_s: float) -> float:
        """Return the seconds until the name has its whole allowance again."""
        return self._ahead(name, now_s)

    def _ahead(self, name: str, now_s: float) -> float:
        slot, _ = self._find(name, now_s)
        return min(self._room, max(0.0, self._levels[slot] - now_s))

    def _find(self, name: str, now_s: float) -> tuple[int, int]:
        if len(self._known) >= _NAMES_REMEMBERED:
            self._known.clear()
        known = self._known[name] = self._buckets.find(f"{self._kind} {self._group(name)}", now_s)
        return known


def network(address: str) -> str:
    """Return what an address is limited by: its /24, or its /64 where it is IPv6.

    One customer of a provider has a /64 at least, so a limit for each IPv6 address would be none.
    """
    try:
        parsed = ipaddress.ip_address(address)
    except ValueError:
        return address
    if isinstance(parsed, ipaddress.IPv6Address) and parsed.ipv4_mapped is not None:
        parsed = parsed.ipv4_mapped
    return str(ipaddress.ip_network((parsed.packed, 24 if parsed.version == 4 else 64), strict=False))
