"""Rollups: the tables pre-aggregated by dimensions and grain. The planner picks the smallest that covers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from viewmeter.model.catalogue.measures import ADDITIVE, GAUGES, SKETCHES, Measure
from viewmeter.model.time import MINUTE_MS, SECOND_MS


@dataclass(frozen=True)
class Rollup:
    """A table: rows of (`time_ms`, `tenant_id`, dimensions…, measures…), one grain wide.

    `cost` orders the rollups for the planner: its rows per minute relative to the others.
    """

    name: str
    dimensions: tuple[str, ...]
    cost: int
    grain_ms: int = MINUTE_MS
    measures: tuple[Measure, ...] = (*ADDITIVE, *SKETCHES)

    @property
    def keys(self) -> tuple[str, ...]:
        """The columns that identify a row beside its time."""
        return ("tenant_id", *self.dimensions)


_ALL: Final = (
    Rollup("platform", ("is_bot",), cost=1),
    Rollup("channel", ("channel_id", "is_bot"), cost=2),
    Rollup("video", ("channel_id", "video_id", "is_bot"), cost=3),
    Rollup("device", ("channel_id", "video_id", "is_bot", "device_type", "os", "browser"), cost=4),
    Rollup("audience", ("channel_id", "video_id", "is_bot", "country", "region", "city"), cost=5),
    Rollup(
        "delivery",
        ("channel_id", "video_id", "is_bot", "player", "cdn", "asn", "stream_type", "bitrate_bucket"),
        cost=6,
    ),
    # Samples of who is present, every 10 s. Viewers are distinct per (video, viewer), so samples of one instant
    # add up over videos and channels; over time they do not (peak = maximum, series = last).
    Rollup("concurrency", ("channel_id", "video_id", "is_bot"), cost=3, grain_ms=10 * SECOND_MS, measures=GAUGES),
)

ROLLUPS: Final[dict[str, Rollup]] = {r.name: r for r in _ALL}
