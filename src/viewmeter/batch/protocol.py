"""Batch jobs: whole hours of the archive in, exact rows in the store out; days, weeks and months from them.

Implementations: `embedded` (a child process an hour) here; Spark when scaled out.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from viewmeter.model.time import Interval, rfc3339
from viewmeter.olap.protocol import JobRun


class HourNotOverError(ValueError):
    """The interval is not over: its rows would be half of the truth. `until_ms`: when it is."""

    def __init__(self, interval: Interval, until_ms: int) -> None:
        super().__init__(interval, until_ms)
        self.interval, self.until_ms = interval, until_ms

    def __str__(self) -> str:
        start, end = rfc3339(self.interval.start_ms), rfc3339(self.until_ms)
        return f"the interval from {start} is not over before {end}: ask for one that is"


class HourGoneError(ValueError):
    """The raw events of the hour are archived no more: its rows stay as they are."""


class BatchFailedError(RuntimeError):
    """A run failed; the hour keeps the rows that it has, and the run is tried again by itself."""


class HourBusyError(BatchFailedError):
    """Events of the open hour kept coming while it was computed: real time goes on answering, and it is tried again."""


@dataclass(frozen=True)
class BatchFigures:
    """Where the batch jobs stand."""

    closed_until_ms: int | None  # every hour with events before it is closed; None: nothing was looked at yet
    due: int = 0  # hours that wait for their first run
    stale: int = 0  # closed hours that wait for another run
    running: str | None = None  # what runs now
    problem: str | None = None  # why the last run failed; None: it did not
    events_per_s: float | None = None  # of the last hour that ran


class BatchJobs(Protocol):
    """The batch layer.

    B1  The rows of a closed hour are what the oracle says of the events archived for it and the hours before.
    B2  A run repeated gives the same rows; whatever step it dies at, the next run ends as if nothing had happened.
    B3  An event that lands in a closed hour has the hour, and each following one that it changes, run again.
    B4  Hours are closed in order, each when it has been over for a while; after a stop the missed ones are caught up.
        One whose events keep coming is left open and holds up none behind it.
    B5  flush() returns when no closed hour waits for another run because of what was durable at the call. Each hour is
        run once for it, however fast events go on coming.
    B6  Memory does not grow with the hour: it is cut by views.
    """

    def start(self) -> None:
        """Settle what a crash left half done; begin."""
        ...

    def stop(self) -> None:
        """Finish or drop the run at hand, and end. Idempotent."""
        ...

    def run_hour(self, hour_ms: int) -> JobRun:
        """Run an hour now (and first what it builds on); return when its rows are in the store.

        Raises `HourNotOverError`, `HourGoneError`, `BatchFailedError` (`HourBusyError` after some tries),
        `HourKeptError` of the store, or ValueError where `hour_ms` is no start of an hour.
        """
        ...

    def run_day(self, day_ms: int) -> JobRun:
        """Run every hour of a UTC day that needs it, and build the days, weeks and months that are complete then.

        Raises as `run_hour` does.
        """
        ...

    def flush(self, timeout_s: float = 30.0) -> None:
        """Return when every closed hour holds the events that are durable now.

        Raises TimeoutError, which says how many hours are left; they run all the same. Raises BatchFailedError.
        """
        ...

    def stale(self) -> list[int]:
        """Return the closed hours that must run again, in order."""
        ...

    def figures(self) -> BatchFigures:
        """Return where the jobs stand."""
        ...

    def history(self, limit: int = 100, before: int | None = None, job: str | None = None) -> Sequence[JobRun]:
        """Return the newest runs first, those with numbers below `before`, of one job or all."""
        ...

    def check(self) -> str | None:
        """Return why hours are not closed at present; None: they are."""
        ...
