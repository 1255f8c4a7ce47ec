"""Which hours changed since this process began: what keeps answers fresh.

In: hours whose rows changed, once the change is visible. Out: of any range a number that rises with each change in it.
Promised: bounded; asked by event loops, so three years cost a thousand look-ups and not twenty-six thousand.
"""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from typing import Final

from viewmeter.model.time import DAY_MS, HOUR_MS, Interval, floor_to

_HOURS_MAX: Final = 100_000


class Changes:
    """The number of the last change of each hour, and of each day."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._hours: dict[int, int] = {}
        self._days: dict[int, int] = {}
        self._number = 0
        self._forgotten = 0

    def note(self, hours: Sequence[int]) -> None:
        """Count a change of these hours; after it is visible, so that no answer kept under the new number is old."""
        with self._lock:
            self._number += 1
            self._hours.update(dict.fromkeys(hours, self._number))
            self._days.update(dict.fromkeys((floor_to(hour, DAY_MS) for hour in hours), self._number))
            if len(self._hours) > _HOURS_MAX:  # eleven years of hours: forget which, keep that something changed
                self._hours.clear()
                self._days.clear()
                self._forgotten = self._number

    def number(self, interval: Interval) -> int:
        """Return the number of the last change in the range."""
        start, end = floor_to(interval.start_ms, HOUR_MS), -floor_to(-interval.end_ms, HOUR_MS)
        first, last = -floor_to(-start, DAY_MS), floor_to(end, DAY_MS)
        with self._lock:
            if first >= last:
                return max(_found(self._hours, start, end, HOUR_MS), default=self._forgotten)
            touched = [
                *_found(self._hours, start, first, HOUR_MS),
                *_found(self._days, first, last, DAY_MS),
                *_found(self._hours, last, end, HOUR_MS),
            ]
            return max(touched, default=self._forgotten)


def _found(numbers: Mapping[int, int], start: int, end: int, step: int) -> list[int]:
    every = range(start, end, step)
    if len(every) > len(numbers):
        return [number for at, number in numbers.items() if start <= at < end]
    return [numbers[at] for at in every if at in numbers]
