"""Rollups: the tables pre-aggregated by dimensions and grain. The planner picks the smallest that covers.

A rollup has tiers (age classes). The speed layer appends to the finest alone; the batch layer replaces whole hours in
every tier. What a rollup keeps in which tier is stated here and nowhere else.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Literal

from viewmeter.model.catalogue.measures import ADDITIVE, GAUGES, PEAKS, SKETCHES, VIEW_ENDS, Measure, retention_delta
from viewmeter.model.time import HOUR_MS, MINUTE_MS, QUARTER_MS, SECOND_MS

Tier = Literal["minute", "hour", "day", "week", "month"]
TIERS: Final[tuple[Tier, ...]] = ("minute", "hour", "day", "week", "month")
"""From fine to coarse. Days, weeks and months are those of the tenant's reporting zone, hours as fine as it needs."""

_TO_DAYS: Final[tuple[Tier, ...]] = ("minute", "hour", "day")


@dataclass(frozen=True)
class Rollup:
    """A table: rows of (`time_ms`, `tenant_id`, dimensions…, measures…), one grain wide.

    `cost` orders the rollups for the planner: its rows per minute relative to the others. `grain_ms` is that of the
    finest tier. `batch_only`: the speed layer does not make it.
    """

    name: str
    dimensions: tuple[str, ...]
    cost: int
    grain_ms: int = MINUTE_MS
    measures: tuple[Measure, ...] = (*ADDITIVE, *SKETCHES, *VIEW_ENDS)
    tiers: tuple[Tier, ...] = _TO_DAYS
    batch_only: bool = False

    @property
    def keys(self) -> tuple[str, ...]:
        """The columns that identify a row beside its time."""
        return ("tenant_id", *self.dimensions)

    @property
    def speed_measures(self) -> tuple[Measure, ...]:
        """What the speed layer fills."""
        return tuple(m for m in self.measures if not m.batch_only)


_VIEW: Final = ("video_id", "country", "device_type", "os", "browser", "player", "stream_type")

_ALL: Final = (
    Rollup("platform", ("is_bot",), cost=1, tiers=TIERS),
    Rollup("channel", ("channel_id", "is_bot"), cost=2, tiers=TIERS),
    Rollup("video", ("channel_id", "video_id", "is_bot"), cost=3, tiers=TIERS),
    Rollup("device", ("channel_id", "video_id", "is_bot", "device_type", "os", "browser"), cost=4),
    Rollup("audience", ("channel_id", "video_id", "is_bot", "country", "region", "city"), cost=5),
    Rollup(
        "delivery",
        ("channel_id", "video_id", "is_bot", "player", "cdn", "asn", "stream_type", "bitrate_bucket"),
        cost=6,
    ),
    # Mixed filters, by the hour. Its rows are made as fine as the hours of any zone can be.
    Rollup("cross", ("channel_id", "is_bot", *_VIEW), cost=7, grain_ms=QUARTER_MS, tiers=("hour",), batch_only=True),
    # Samples of who is present, every 10 s. Viewers are distinct per (video, viewer), so samples of one instant
    # add up over videos and channels; over time they do not (peak = maximum, series = last).
    Rollup(
        "concurrency",
        ("channel_id", "video_id", "is_bot"),
        cost=3,
        grain_ms=10 * SECOND_MS,
        measures=GAUGES,
        tiers=("minute",),
    ),
    # What remains of the samples: one row a scope. `scope` is platform (all tenants; tenant_id ""), tenant, channel or
    # video; ids that a scope does not have are "". `bots` is false, true or any: who was counted.
    Rollup(
        "peaks",
        ("scope", "channel_id", "video_id", "bots"),
        cost=2,
        grain_ms=HOUR_MS,
        measures=PEAKS,
        tiers=("hour", "day", "week", "month"),
        batch_only=True,
    ),
    # Where in the content views played: difference arrays by `percent` ("0" to "99"), at the end of each view.
    Rollup(
        "retention",
        ("channel_id", "is_bot", *_VIEW, "percent"),
        cost=8,
        grain_ms=HOUR_MS,
        measures=(retention_delta,),
        tiers=("hour", "day"),
        batch_only=True,
    ),
)

ROLLUPS: Final[dict[str, Rollup]] = {r.name: r for r in _ALL}
SPEED_ROLLUPS: Final[dict[str, Rollup]] = {r.name: r for r in _ALL if not r.batch_only}
"""What the speed layer appends to."""
