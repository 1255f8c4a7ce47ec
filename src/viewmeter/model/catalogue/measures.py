"""Measures: the stored accumulators that merge. Each is a column of the rollups and declares how it merges.

Adding one: add a line here, and let `model/interval.py` (or the batch layer) produce it.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from viewmeter.model.catalogue.expressions import Ref
from viewmeter.model.events import EVENT_TYPES, UNKNOWN


class Kind(enum.Enum):
    """How a measure merges over rows."""

    ADDITIVE = "additive"
    HLL = "hll"  # stored as a list of DataSketches coupons in minute rows, as sketch bytes in coarser ones
    KLL = "kll"  # stored as a list of values in minute rows, as sketch bytes in coarser ones
    GAUGE = "gauge"  # adds over videos at one instant, never over time
    MAX = "max"  # the largest sample of one scope: over time the larger one, over groups nothing
    LAST = "last"  # the last sample of one scope: over time the later one, over groups nothing


@dataclass(frozen=True)
class Measure(Ref):
    """A stored accumulator. `name` is its column, `unit` what one of it is."""

    kind: Kind = Kind.ADDITIVE
    unit: str = "count"
    doc: str = ""
    batch_only: bool = False  # of whole views or whole hours: the speed layer does not know it


BITRATE_EDGES_KBPS: Final = (0, 300, 800, 1500, 3000, 6000, 12000)
"""Lower edges, inclusive. Time at an unknown bitrate is in no bucket."""

BITRATE_BUCKETS: Final[tuple[str, ...]] = tuple(
    f"{low}_{high}" for low, high in zip(BITRATE_EDGES_KBPS, (*BITRATE_EDGES_KBPS[1:], "up"), strict=True)
)


BITRATE_WORDS: Final = (UNKNOWN, *BITRATE_BUCKETS)
"""The values of the dimension `bitrate_bucket`, in the order of `bitrate_bucket_codes`."""


def bitrate_bucket_codes(kbps: npt.NDArray[np.integer[Any]]) -> npt.NDArray[np.int64]:
    """Return which bucket each bitrate is in: its place in `BITRATE_WORDS` (0 kbps is unknown)."""
    codes = np.searchsorted(BITRATE_EDGES_KBPS, kbps, side="right").astype(np.int64)
    return np.where(kbps > 0, codes, 0)


attempts = Measure("attempts", doc="Views that asked for playback: one at each view's first event.")
plays = Measure("plays", doc="Views that provably played.")
blind_plays = Measure("blind_plays", doc="Plays whose player does not tell its state.")
completes = Measure("completes", doc="Views that reached the end of the content.")
failures = Measure("failures", doc="Views whose playback ended in an error.")
exits_before_start = Measure("exits_before_start", doc="Views that ended without play and without failure.")
engaged_views = Measure("engaged_views", doc="Views played for 30 s, or for half of their content.")
events = Measure("events", doc="Distinct events.")
played_ms = Measure("played_ms", unit="ms", doc="Wall clock with the picture moving.")
rebuffered_ms = Measure("rebuffered_ms", unit="ms", doc="Waits in mid-play.")
rebuffer_count = Measure("rebuffer_count", doc="Entries into rebuffering.")
startup_ms = Measure("startup_ms", unit="ms", doc="Sum of startup times.")
startups = Measure("startups", doc="Views whose startup time is known.")
seeks = Measure("seeks", doc="Seek events.")
pauses = Measure("pauses", doc="Pause events.")
upshifts = Measure("upshifts", doc="Switches to a higher bitrate.")
downshifts = Measure("downshifts", doc="Switches to a lower bitrate.")
played_kbit = Measure("played_kbit", unit="bit", doc="Played ms times kbps, where the bitrate is known.")
played_ms_known_bitrate = Measure("played_ms_known_bitrate", unit="ms", doc="Played time at a known bitrate.")
lost_events = Measure("lost_events", doc="Holes in `seq`, less those filled later.")
duplicate_events = Measure("duplicate_events", doc="Events received again; never counted twice.")
late_events = Measure("late_events", doc="Events that arrived after a later one of their view was applied.")

EVENTS_BY_TYPE: Final = {kind: Measure(f"events_{kind}", doc=f"Distinct `{kind}` events.") for kind in EVENT_TYPES}
PLAYED_BY_BITRATE: Final = {
    bucket: Measure(f"played_ms_{bucket}", unit="ms", doc=f"Played time at {bucket.replace('_', ' to ')} kbps.")
    for bucket in BITRATE_BUCKETS
}

viewers_hll = Measure("viewers_hll", Kind.HLL, doc="Distinct viewers of plays (HLL, lgK 14).")
startup_kll = Measure("startup_kll", Kind.KLL, "ms", doc="Startup times (KLL, k 200).")

concurrent_viewers = Measure("concurrent_viewers", Kind.GAUGE, doc="Viewers present at a multiple of 10 s.")
concurrent_views = Measure("concurrent_views", Kind.GAUGE, doc="Views present at a multiple of 10 s.")

# Of views as they are at their end, in the hour (and minute) in which they end: the batch layer's alone.
ended_views = Measure("ended_views", batch_only=True, doc="Views that ended.")
measured_views = Measure(
    "measured_views", batch_only=True, doc="Views that ended, had played, and whose player tells its state."
)
watched_views = Measure("watched_views", batch_only=True, doc="Of those, views with played or rebuffering time.")
view_rebuffer_ratio_e9 = Measure(
    "view_rebuffer_ratio_e9", unit="1e-9", batch_only=True,
    doc="Sum over watched views of their rebuffer ratio, each rounded to 1e-9 so that the sum is exact.",
)  # fmt: skip
content_views = Measure(
    "content_views", batch_only=True, doc="Of the measured views, those of content whose length is known."
)
content_watched_ms = Measure(
    "content_watched_ms", unit="ms", batch_only=True, doc="Distinct content watched, over content views."
)
content_ms = Measure("content_ms", unit="ms", batch_only=True, doc="Length of the content, over content views.")
retention_delta = Measure(
    "retention_delta", batch_only=True,
    doc="Runs of playing that begin at this percent of the content, less those that ended before it.",
)  # fmt: skip
watch_kll = Measure(
    "watch_kll", Kind.KLL, "ms", batch_only=True, doc="Played time of measured views at their end (KLL, k 200)."
)

# Samples of a scope, summed up by the hour: peaks do not add up, so each scope has its own.
peak_viewers = Measure("peak_viewers", Kind.MAX, batch_only=True, doc="Largest 10-second sample of viewers.")
peak_views = Measure("peak_views", Kind.MAX, batch_only=True, doc="Largest 10-second sample of views.")
last_viewers = Measure("last_viewers", Kind.LAST, batch_only=True, doc="Last 10-second sample of viewers.")
last_views = Measure("last_views", Kind.LAST, batch_only=True, doc="Last 10-second sample of views.")

ADDITIVE: Final[tuple[Measure, ...]] = (
    attempts, plays, blind_plays, completes, failures, exits_before_start, engaged_views,
    events, *EVENTS_BY_TYPE.values(),
    played_ms, rebuffered_ms, rebuffer_count, startup_ms, startups,
    seeks, pauses, upshifts, downshifts,
    played_kbit, played_ms_known_bitrate, *PLAYED_BY_BITRATE.values(),
    lost_events, duplicate_events, late_events,
)  # fmt: skip
SKETCHES: Final[tuple[Measure, ...]] = (viewers_hll, startup_kll)
GAUGES: Final[tuple[Measure, ...]] = (concurrent_viewers, concurrent_views)
VIEW_ENDS: Final[tuple[Measure, ...]] = (
    ended_views, measured_views, watched_views, view_rebuffer_ratio_e9, content_views, content_watched_ms, content_ms,
    watch_kll,
)  # fmt: skip
PEAKS: Final[tuple[Measure, ...]] = (peak_viewers, peak_views, last_viewers, last_views)
MEASURES: Final[dict[str, Measure]] = {
    m.name: m for m in (*ADDITIVE, *SKETCHES, *GAUGES, *VIEW_ENDS, retention_delta, *PEAKS)
}

HLL_LG_K: Final = 14
HLL_RELATIVE_ERROR: Final = 0.0081  # 1.04 / sqrt(2^14)
KLL_K: Final = 200
KLL_RANK_ERROR: Final = 0.0133  # normalised rank error of a single quantile at k 200, 99 % confidence
