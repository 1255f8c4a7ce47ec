"""What was found of what is where (`Coverage`), kept by the state of the store that it is of.

In: coverage, under a number of its state. Out: the same. Promised: bounded. `CoverageCache` keeps by the version that
the batch side raises inside of its transactions; `Moves` by a number of this process that needs no look at the store.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

from viewmeter.olap.protocol import Coverage

_COVERAGES_MAX: Final = 256

CoverageKey = tuple[int, str, str | None]


class CoverageCache:
    """Coverage by number of its state, zone and tenant; bounded."""

    def __init__(self) -> None:
        self._kept: OrderedDict[CoverageKey, Coverage] = OrderedDict()
        self._lock = threading.Lock()

    def get(self, key: CoverageKey) -> Coverage | None:
        """Return what was kept."""
        with self._lock:
            return self._kept.get(key)

    def put(self, key: CoverageKey, coverage: Coverage) -> None:
        """Keep it; the oldest goes where there is no room."""
        with self._lock:
            self._kept[key] = coverage
            while len(self._kept) > _COVERAGES_MAX:
                self._kept.popitem(last=False)


class Moves:
    """A number of the state of what is where: it rises before each commit that changes it."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._begun = self._ended = 0
        self._found = CoverageCache()

    @contextmanager
    def moving(self) -> Iterator[None]:
        """Wrap the commit itself."""
        with self._lock:
            self._begun += 1
        try:
            yield
        finally:
            with self._lock:
                self._ended += 1

    def number(self) -> int | None:
        """Return the number of the state; None while a commit is under way."""
        with self._lock:
            return self._begun if self._begun == self._ended else None

    def keep(self, number: int | None, zone: str, tenant_id: str | None, coverage: Coverage) -> None:
        """Keep what a snapshot found that began when the number was this one, if it still is."""
        if number is not None and number == self.number():
            self._found.put((number, zone, tenant_id), coverage)

    def coverage(self, number: int, zone: str, tenant_id: str | None) -> Coverage | None:
        """Return what was kept of that state."""
        return self._found.get((number, zone, tenant_id))
