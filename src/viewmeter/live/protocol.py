"""Live counters: what is on screen now. Fed by the speed layer at each commit, read by the realtime endpoints.

Implementations: `embedded` (memory with TTL) here; Redis when scaled out. Nothing in here is durable: after a start
the speed layer fills it again from the store and the views' state.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import pyarrow as pa

from viewmeter.olap.protocol import Visible

HOP_MS = 10_000
"""Live windows roll in steps of 10 s."""
WINDOW_MS = 300_000
"""Rates and the score are over the last 5 minutes."""
PLAYS_MINUTES = 60


@dataclass(frozen=True)
class LiveScope:
    """Whose figures: a video, a channel, or (neither) everything visible. Bots are left out."""

    visible: Visible
    channel_id: str | None = None
    video_id: str | None = None


@dataclass(frozen=True)
class LiveFigures:
    """The figures of a scope; metrics are computed from them by the catalogue, as everywhere."""

    concurrent_viewers: int
    concurrent_views: int
    mean_played_ms: float | None  # played time so far of the views active now; None: no measured view is active
    countries: Mapping[str, int]  # viewers now, by country; sums to concurrent_viewers
    window: Mapping[str, int]  # additive measures over the last 5 minutes, hop 10 s
    plays_per_minute: Sequence[int]  # the last 60 full minutes, oldest first
    watermark_ms: int | None  # received_at up to which every partition is applied


@dataclass(frozen=True)
class LiveUpdate:
    """What one micro-batch changed.

    counters: rows (time_ms at a 10 s grain, tenant_id, channel_id, video_id, is_bot, additive measures…) to add.
    present: None = unchanged, else all views that are present or may become so, one row a view: tenant_id,
        channel_id, video_id, country (dictionary strings), is_bot (bool), viewer_hash (int64), last_active_ms (int64;
        present while at_ms - last_active_ms < 60 000), played_ms (int64, played time so far; -1 = unknown).
    """

    counters: pa.Table
    present: pa.Table | None
    at_ms: int
    watermark_ms: int | None


class LiveStore(Protocol):
    """Figures of now.

    V1  read() after publish() shows what was published.
    V2  A figure leaves its window in time even when nothing is published any more.
    V3  Memory is bounded by what was published within the last hour.
    V4  A scope shows nothing that its `visible` does not cover.
    """

    def publish(self, update: LiveUpdate) -> None:
        """Add the counters and replace who is present."""
        ...

    def read(self, scope: LiveScope, now_ms: int) -> LiveFigures:
        """Return the figures of a scope at `now_ms`; zeros where nothing is known."""
        ...

    def top_videos(self, visible: Visible, now_ms: int, limit: int) -> list[tuple[str, str, int]]:
        """Return (channel_id, video_id, concurrent viewers), most watched first."""
        ...

    def flush(self) -> None:
        """Return when everything published is readable."""
        ...
