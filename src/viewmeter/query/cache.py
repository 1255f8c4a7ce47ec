"""Answers kept for a while: at most five minutes, and never older than their rows.

In: a question (with tenant and channels of the key in it) and the clock. Out: the rows computed for the same question
before, if they still stand. Promised: bounded in entries and rows; where the store tells when a range changed
(`TracksChanges`), an answer with the cache is the answer without. Where it does not, an answer whose range touches
the present is at most `open_ttl_ms` old, and one about the past at most `ttl_ms`.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Hashable
from dataclasses import dataclass
from typing import Generic, Protocol, TypeVar, runtime_checkable

from viewmeter.model.time import Interval

T = TypeVar("T")


@runtime_checkable
class TracksChanges(Protocol):
    """A store that knows when rows of a range were added last."""

    def change_number(self, interval: Interval) -> int:
        """Return a number that rises whenever rows of the range are added."""
        ...


@dataclass(frozen=True)
class _Entry(Generic[T]):
    value: T
    rows: int
    change: int
    made_ms: int
    until_ms: int


class Cache(Generic[T]):
    """Least recently used goes first. Used by many threads."""

    def __init__(self, entries: int, rows: int, ttl_ms: int, open_ttl_ms: int) -> None:
        self._most_entries, self._most_rows = entries, rows
        self._ttl_ms, self._open_ttl_ms = ttl_ms, open_ttl_ms
        self._entries: OrderedDict[Hashable, _Entry[T]] = OrderedDict()
        self._rows = 0
        self._lock = threading.Lock()

    def get(self, key: Hashable, change: int, now_ms: int) -> T | None:
        """Return what was put under the key, if it still stands."""
        with self._lock:
            entry = self._entries.get(key)
            if entry is None:
                return None
            if entry.change != change or not entry.made_ms <= now_ms < entry.until_ms:
                self._drop(key)
                return None
            self._entries.move_to_end(key)
            return entry.value

    def put(self, key: Hashable, value: T, rows: int, change: int, now_ms: int, *, is_open: bool) -> None:
        """Keep a value. `change` is the store's number from before the scan, so that nothing slips between."""
        ttl_ms = self._open_ttl_ms if is_open else self._ttl_ms
        if rows > self._most_rows or not self._most_entries:
            return
        with self._lock:
            if key in self._entries:
                self._drop(key)
            self._entries[key] = _Entry(value, rows, change, now_ms, now_ms + ttl_ms)
            self._rows += rows
            while self._rows > self._most_rows or len(self._entries) > self._most_entries:
                self._drop(next(iter(self._entries)))

    def clear(self) -> None:
        """Forget everything."""
        with self._lock:
            self._entries.clear()
            self._rows = 0

    def _drop(self, key: Hashable) -> None:
        self._rows -= self._entries.pop(key).rows
