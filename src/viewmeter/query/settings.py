"""Settings of the query room."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class QuerySettings:
    """Bounds of answers and of the cache."""

    rows_max: int = 50_000
    """Rows of one answer; a query for more is refused with `too_many_rows`."""

    cache_entries: int = 1_000
    """Answers kept; 0 turns the cache off."""

    cache_rows: int = 500_000
    """Rows kept over all answers."""

    cache_ttl_s: float = 300.0
    """How long an answer about the past is kept; 300 at most."""

    cache_open_ttl_s: float = 1.0
    """How long an answer that touches the present is kept."""

    raw_events_max: int = 2_000_000
    """Events that one query may read from the archive, for what no rollup keeps; more are refused."""
