"""The oracle's second half: from sums of increments to finished numbers, apart from the catalogue.

In: sums by measure (those of `oracle.increments`). Out: metrics by name (DESIGN 4). Promised: divides last,
and is None over nothing. Not done: what needs whole views (percentiles, retention) or sketches.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Final

from viewmeter.model.events import EVENT_TYPES
from viewmeter.testing.oracle import BITRATE_EDGES, Increment

BITRATE_BUCKETS: Final = tuple(
    f"{low}_{high}" for low, high in zip(BITRATE_EDGES, [*BITRATE_EDGES[1:], "up"], strict=True)
)
MEASURES: Final = (
    *("attempts", "plays", "blind_plays", "completes", "failures", "exits_before_start", "engaged_views"),
    *("events", *(f"events_{kind}" for kind in EVENT_TYPES), "lost_events", "duplicate_events"),
    *("played_ms", "rebuffered_ms", "rebuffer_count", "startup_ms", "startups"),
    *("seeks", "pauses", "upshifts", "downshifts", "played_kbit", "played_ms_known_bitrate"),
    *(f"played_ms_{bucket}" for bucket in BITRATE_BUCKETS),
)
METRICS: Final = (
    *("watch_time_ms", "average_watch_duration_ms", "completion_rate", "engagement_rate", "measured_ratio"),
    *("startup_time_avg_ms", "rebuffer_ratio", "rebuffer_frequency", "average_bitrate_kbps"),
    *("playback_failure_rate", "exit_before_start_rate", "qoe_score", "completeness_ratio"),
)


def total(facts: Iterable[Increment]) -> dict[str, int]:
    """Return the sums by measure; a measure without facts is 0."""
    sums: Counter[str] = Counter(dict.fromkeys(MEASURES, 0))
    for fact in facts:
        sums[fact.measure] += fact.amount
    return dict(sums)


def ratio(part: float, whole: float) -> float | None:
    """Return part / whole; None over nothing."""
    return part / whole if whole else None


def metrics(sums: Mapping[str, float]) -> dict[str, float | None]:
    """Return every metric of METRICS, and every measure of MEASURES under its own name."""
    s = {name: sums.get(name, 0) for name in MEASURES}
    measured = s["plays"] - s["blind_plays"]
    return {
        **s,
        "watch_time_ms": s["played_ms"],
        "average_watch_duration_ms": ratio(s["played_ms"], measured),
        "completion_rate": ratio(s["completes"], s["plays"]),
        "engagement_rate": ratio(s["engaged_views"], measured),
        "measured_ratio": ratio(measured, s["plays"]),
        "startup_time_avg_ms": ratio(s["startup_ms"], s["startups"]),
        "rebuffer_ratio": ratio(s["rebuffered_ms"], s["played_ms"] + s["rebuffered_ms"]),
        "rebuffer_frequency": ratio(s["rebuffer_count"], s["played_ms"] / 60_000),
        "average_bitrate_kbps": ratio(s["played_kbit"], s["played_ms_known_bitrate"]),
        "playback_failure_rate": ratio(s["failures"], s["attempts"]),
        "exit_before_start_rate": ratio(s["exits_before_start"], s["attempts"]),
        "qoe_score": qoe_v1(s),
        "completeness_ratio": ratio(s["events"], s["events"] + s["lost_events"]),
    }


def qoe_v1(s: Mapping[str, float]) -> float | None:
    """Return the score 0..100: the weighted mean of the parts of which something was observed (0001.17)."""
    parts = []
    startup_ms = ratio(s["startup_ms"], s["startups"])
    if startup_ms is not None:
        parts.append((0.25, 100 * 8 / (8 + startup_ms / 1000)))
    watched_ms = s["played_ms"] + s["rebuffered_ms"]
    if watched_ms:
        per_ten_minutes = s["rebuffer_count"] / (watched_ms / 600_000)
        waiting = s["rebuffered_ms"] / watched_ms
        parts.append((0.5, 0.5 * (100 / math.sqrt(1 + (per_ten_minutes / 2) ** 2) + 100 * math.exp(-10 * waiting))))
    if s["attempts"]:
        lost = (s["failures"] + 0.5 * s["exits_before_start"]) / s["attempts"]
        parts.append((0.25, max(0.0, 100 * (1 - lost))))
    return ratio(sum(weight * score for weight, score in parts), sum(weight for weight, _ in parts))
