"""A snapshot for one scan that needs no transaction: what moved meanwhile is looked at afterwards.

In: a reader's connection, the coverage that a snapshot before read. Out: one scan of that same state, or `MovedError`.
Promised: O4 and O6, as a snapshot's. A transaction and its look at the tables of coverage cost 1 ms, half of what a
small question costs in all; coverage changes some times an hour, with a commit of this process (decision 116).
"""

from __future__ import annotations

import pyarrow as pa

from viewmeter.olap.embedded_coverage import Moves
from viewmeter.olap.embedded_database import Connection, Limits
from viewmeter.olap.embedded_scan import scan
from viewmeter.olap.embedded_settings import DuckDBSettings
from viewmeter.olap.protocol import Coverage, Scan


class MovedError(Exception):
    """What is where changed under a glance, or was not known: a snapshot must answer."""


class Glance:
    """`Snapshot` for one scan; whatever else is asked, or has moved, raises `MovedError`."""

    def __init__(self, con: Connection, settings: DuckDBSettings, limits: Limits, moves: Moves) -> None:
        self._con, self._settings, self._limits, self._moves = con, settings, limits, moves
        self._number = moves.number()
        self._scanned = False

    def coverage(self, zone: str, tenant_id: str | None = None) -> Coverage:
        """Return what is where."""
        found = None if self._number is None else self._moves.coverage(self._number, zone, tenant_id)
        if found is None:
            raise MovedError
        return found

    def scan(self, question: Scan) -> pa.Table:
        """Return merged measures, of the state of the coverage."""
        if self._scanned:
            raise MovedError
        self._scanned = True
        found = scan(self._con, question, self._settings, self._limits)
        if self._moves.number() != self._number:
            raise MovedError
        return found

    def exact_viewers(self, question: Scan, zone: str = "UTC") -> pa.Table:  # noqa: ARG002 - the protocol's
        """Leave it to a snapshot."""
        raise MovedError

    def cohorts(self, question: Scan) -> pa.Table:  # noqa: ARG002 - the protocol's
        """Leave it to a snapshot."""
        raise MovedError
