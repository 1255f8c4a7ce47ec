"""Bounds of the embedded store, and how long it keeps what."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class DuckDBSettings:
    """Bounds of the embedded store, and how long it keeps what."""

    memory_limit: str = "1GB"
    """DuckDB spills to disk above it."""

    threads: int = 2
    """Threads that one scan may use."""

    readers: int = 8
    """Scans at once; more wait for their turn."""

    reader_wait_s: float = 10.0
    """How long a scan waits for its turn before it is refused."""

    scan_timeout_s: float = 30.0
    """How long a scan may run before it is stopped."""

    scan_rows_max: int = 2_000_000
    """Groups (and samples) that a scan may answer; a query that needs more is refused."""

    checkpoint_threshold: str = "512MB"
    """Size of the write-ahead log that forces a checkpoint; compaction makes one long before."""

    compact_rows: int = 200_000
    """Appended rows that one compaction transaction merges."""

    keep_speed_h: int = 3
    """Hours that rows of the speed layer stay after their hour was closed: to compare, and for a restart."""

    keep_minutes_h: int = 24
    """Hours that rows by the minute are kept; older ranges have rows by the hour."""

    keep_hours_d: int = 30
    """Days that rows by the hour are kept; older ranges have rows by the day."""

    keep_days_y: int = 3
    """Years that rows by the day, week and month are kept."""

    keep_viewers_d: int = 62
    """Days that exact viewers are kept by the hour; counts by day and month stay as long as days."""

    keep_cohort_weeks: int = 53
    """Weeks in which a viewer is known to have been there before."""

    runs_max: int = 10_000
    """Runs of batch jobs that the history shows."""

    def __post_init__(self) -> None:
        """Refuse what would leave a gap between two tiers."""
        least = {
            "keep_speed_h": (self.keep_speed_h, 2),
            "keep_minutes_h": (self.keep_minutes_h, 2),
            "keep_hours_d": (self.keep_hours_d, 2),
            "keep_days_y": (self.keep_days_y, 1),
            "keep_viewers_d": (self.keep_viewers_d, 32),
            "keep_cohort_weeks": (self.keep_cohort_weeks, 1),
            "readers": (self.readers, 1),
            "threads": (self.threads, 1),
        }
        for name, (value, lowest) in least.items():
            if value < lowest:
                raise ValueError(f"{name} is at least {lowest}, not {value}")
