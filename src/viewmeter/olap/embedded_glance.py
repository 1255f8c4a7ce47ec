"""A snapshot for one scan that needs no transaction: what moved meanwhile is looked at afterwards.

In: a reader's connection, the coverage that a snapshot before read. Out: one scan of that same state, or `MovedError`.
Promised: O4 and O6, as a snapshot's. A transaction and its look at the tables of coverage cost 1 ms, half of what a
small question costs in all; coverage changes some times an hour, with a commit of this process (decision 116).
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager

import pyarrow as pa

from viewmeter.olap import embedded_sql as sql
from viewmeter.olap.embedded_database import Connection, Limits
from viewmeter.olap.embedded_scan import assemble, run
from viewmeter.olap.embedded_settings import DuckDBSettings
from viewmeter.olap.protocol import Coverage, Scan

_COVERAGES_MAX = 256


class MovedError(Exception):
    """What is where changed under a glance, or was not known: a snapshot must answer."""


class Moves:
    """A number of the state of what is where: it rises before each commit that changes it."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._begun = self._ended = 0
        self._of = 0
        self._coverages: dict[tuple[str, str | None], Coverage] = {}

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
        with self._lock:
            if number is None or number != self._begun:
                return
            if number != self._of or len(self._coverages) >= _COVERAGES_MAX:
                self._coverages, self._of = {}, number
            self._coverages[zone, tenant_id] = coverage

    def coverage(self, number: int, zone: str, tenant_id: str | None) -> Coverage | None:
        """Return what was kept of that state."""
        with self._lock:
            return self._coverages.get((zone, tenant_id)) if self._of == number else None


class Glance:
    """`Snapshot` for one scan; whatever else is asked, or has moved, raises `MovedError`."""

    def __init__(self, con: Connection, settings: DuckDBSettings, limits: Limits, moves: Moves) -> None:
        self._con, self._settings, self._limits, self._moves = con, settings, limits, moves
        self._number = moves.number()
        self._scans = 0

    def coverage(self, zone: str, tenant_id: str | None = None) -> Coverage:
        """Return what is where."""
        found = None if self._number is None else self._moves.coverage(self._number, zone, tenant_id)
        if found is None:
            raise MovedError
        return found

    def scan(self, question: Scan) -> pa.Table:
        """Return merged measures, of the state of the coverage."""
        sql.check_known(question)
        self._scans += 1
        if self._scans > 1:
            raise MovedError
        with self._limits.limited(self._con, self._settings.scan_timeout_s):
            fetched = run(self._con, question, self._settings.scan_rows_max)
        if self._moves.number() != self._number:
            raise MovedError
        return assemble(question, fetched)

    def exact_viewers(self, question: Scan, zone: str = "UTC") -> pa.Table:  # noqa: ARG002 - the protocol's
        """Leave it to a snapshot."""
        raise MovedError

    def cohorts(self, question: Scan) -> pa.Table:  # noqa: ARG002 - the protocol's
        """Leave it to a snapshot."""
        raise MovedError
