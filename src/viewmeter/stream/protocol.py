"""Stream jobs: events of the log in; rollup rows to the store and live figures out, within a second.

Four jobs by name (concurrent viewers, play counter, QoE, geographic heatmap) share one pass over the events in the
embedded engine; Flink runs them apart when scaled out.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

JOBS = ("concurrent_viewers", "play_counter", "qoe", "geo_heatmap")


@dataclass(frozen=True)
class StreamFigures:
    """Where the jobs stand."""

    watermark_ms: Mapping[str, int | None]  # per job
    lag_batches: Mapping[int, int]  # per partition: durable but not yet applied
    applied_events: int  # since start
    waiting_events: int  # behind a hole in `seq`, at most 1 s
    views: int  # remembered, for dedupe and open intervals
    restarts: int = 0


class StreamJobs(Protocol):
    """The speed layer.

    S1  Every event of the log counts exactly once, over any number of crashes.
    S2  flush() returns when every event durable before the call is in the store's and the live store's answers.
    S3  Events that came in order give the same sums however they were cut into batches.
    S4  A view silent for 5 minutes ends, with no further event.
    """

    def start(self) -> None:
        """Recover and begin."""
        ...

    def flush(self, timeout_s: float = 30.0) -> None:
        """Apply all that is durable now, also events that wait for a predecessor. Raises TimeoutError."""
        ...

    def watermarks(self) -> Mapping[str, int | None]:
        """Return the `received_at` up to which each job has applied everything. Asked with every answer: reads nothing.

        Raises RuntimeError before they have recovered, as `figures` does.
        """
        ...

    def figures(self) -> StreamFigures:
        """Return where the jobs stand."""
        ...

    def stop(self) -> None:
        """Finish the batch at hand, save the state, return."""
        ...
