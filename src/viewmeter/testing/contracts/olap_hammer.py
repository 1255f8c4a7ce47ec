"""Hours that close and are replaced while rows arrive and readers look (O6).

In: an empty store. Out: what any of the threads found wrong. Each append adds one play to each of four hours; closing
an hour moves what the speed layer had of it when the run began, and is refused where more came since. So by hour: what
a reader sees is never less than what it saw before, open hours agree within the appends that came meanwhile, and a
fifth hour, which nobody touches, has its one play always.
"""

from __future__ import annotations

import contextlib
import itertools
import threading
from collections.abc import Callable
from typing import Final

from viewmeter.model.time import Interval
from viewmeter.olap.protocol import Coverage, HourTouchedError, Part, Snapshot, TimeSeriesStore
from viewmeter.testing.contracts.facts import HOUR, MINUTE, T0, fact, rows_of
from viewmeter.testing.contracts.olap import commit
from viewmeter.testing.contracts.olap_asking import ask, layers, part, put, run_of

HOURS: Final = (0, HOUR, 2 * HOUR, 3 * HOUR)
_UNTOUCHED: Final = 4 * HOUR
_EDGES: Final = tuple(range(0, 6 * HOUR, HOUR))


class Hammer:
    """`rounds` closings, and twice as many appends."""

    def __init__(self, store: TimeSeriesStore, rounds: int = 12) -> None:
        self._store, self._rounds = store, rounds
        self._appended = 0
        self._done = threading.Event()
        self._failures: list[BaseException] = []

    def run(self) -> list[BaseException]:
        """Return what went wrong, once all is appended."""
        put(self._store, _UNTOUCHED, [fact(_UNTOUCHED, plays=1)])
        writers = [self._thread(work) for work in (self._append, self._close)]
        readers = [self._thread(work) for work in (self._watch, self._glance)]
        for thread in (*writers, *readers):
            thread.start()
        for thread in writers:
            thread.join()
        self._done.set()
        for thread in readers:
            thread.join()
        return self._failures

    def close_all(self) -> int:
        """Close each hour by a run that saw everything; return how many plays there are in all."""
        last = self._rounds * 2
        for hour in HOURS:
            put(self._store, hour, [fact(hour + MINUTE * i, plays=1) for i in range(last)], run_of(last))
        return len(HOURS) * last + 1

    def _thread(self, what: Callable[[], None]) -> threading.Thread:
        def work() -> None:
            try:
                what()
            except BaseException as failure:
                self._failures.append(failure)

        return threading.Thread(target=work)

    def _append(self) -> None:
        for number in range(1, self._rounds * 2 + 1):
            self._store.append(rows_of([fact(hour, plays=1) for hour in HOURS]), commit(number))
            self._appended = number

    def _close(self) -> None:
        for turn, hour in enumerate(itertools.islice(itertools.cycle(HOURS), self._rounds)):
            seen = self._store.last_commit()
            number = 0 if seen is None else seen.number
            some = [fact(hour + MINUTE * i, plays=1) for i in range(number)]
            with contextlib.suppress(HourTouchedError):
                put(self._store, hour, some, run_of(number), only=("video", "platform"))
            if turn == self._rounds // 2 and not self._store.hours_with_rows():
                self._store.build("day", T0, "UTC")

    def _watch(self) -> None:
        """Look at snapshots: two scans of one are the same, and an hour is answered by one layer."""
        before = dict.fromkeys(HOURS, 0)
        while not self._done.is_set():
            low = self._appended
            with self._store.snapshot() as state:
                coverage = state.coverage("UTC")
                shown, again = _plays(state, coverage), _plays(state, coverage)
                speed = _plays(state, coverage, part("speed"))
            assert shown == again
            self._check(shown, coverage, before, low)
            for hour in HOURS:
                if _is_closed(coverage, hour):
                    assert shown.get(hour, 0) <= speed.get(hour, 0)
                else:
                    assert shown.get(hour, 0) == speed.get(hour, 0)

    def _glance(self) -> None:
        """Look by single scans, which may be answered without a transaction."""

        def work(state: Snapshot) -> tuple[Coverage, dict[int, int]]:
            coverage = state.coverage("UTC")
            return coverage, _plays(state, coverage)

        before = dict.fromkeys(HOURS, 0)
        while not self._done.is_set():
            low = self._appended
            coverage, shown = self._store.read(work, scans=1)
            self._check(shown, coverage, before, low)

    def _check(self, shown: dict[int, int], coverage: Coverage, before: dict[int, int], low: int) -> None:
        """Compare with what this reader saw before, and with the appends before (`low`) and after the look."""
        high = self._appended + 1
        assert shown[_UNTOUCHED] == 1
        for hour in HOURS:
            plays = shown.get(hour, 0)
            assert plays >= before[hour]
            before[hour] = plays
            assert _is_closed(coverage, hour) or low <= plays <= high


def _plays(state: Snapshot, coverage: Coverage, parts: tuple[Part, ...] | None = None) -> dict[int, int]:
    """Return the plays of each hour that has any, as the plain plan answers it."""
    parts = parts or layers(coverage, Interval(T0, T0 + _EDGES[-1]), "minute")
    return {_EDGES[row["bucket"]]: row["plays"] for row in ask(state, "plays", parts=parts, edges=_EDGES)}


def _is_closed(coverage: Coverage, hour: int) -> bool:
    return any(span.start_ms <= T0 + hour < span.end_ms for span in coverage.closed_hours)
