"""Settings of the speed layer."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class StreamSettings:
    """How often the stream jobs work, and what they keep."""

    poll_ms: int = 50
    """How often the log is looked at when it is quiet."""

    commit_every_ms: int = 250
    """A micro-batch is at least this long when the log keeps up; smaller is fresher and costs more commits."""

    max_batch_events: int = 200_000
    """Events of one micro-batch; more wait for the next one."""

    snapshot_every_s: int = 60
    """How often the views' state is saved; after a crash, events since then are read again."""

    compact_every_s: int = 60
    """How often appended rows of equal keys are merged."""

    keep_log_h: int = 24
    """Hours that applied events stay in the log, and until the archive holds them."""
