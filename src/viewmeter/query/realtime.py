"""The realtime object (API.md 3): live figures as metrics, by the same catalogue as everything else."""

from __future__ import annotations

import math
from typing import Any, Final

import numpy as np

from viewmeter.live.protocol import LiveFigures, LiveScope
from viewmeter.model.catalogue import METRICS
from viewmeter.model.catalogue.metrics import POINTS_LOST, Formula, Histogram
from viewmeter.model.time import rfc3339

_NUMBERS: Final = ("rebuffer_ratio", "startup_time_avg_ms", "average_bitrate_kbps")


def realtime_object(scope: LiveScope, figures: LiveFigures, now_ms: int) -> dict[str, Any]:
    """Return the figures of a scope as the API shows them; the scope's own id stands first."""
    ids = {"video_id": scope.video_id} if scope.video_id is not None else {"channel_id": scope.channel_id}
    watermark = figures.watermark_ms
    bitrates = METRICS["bitrate_distribution"]
    assert isinstance(bitrates, Histogram)
    return {
        **{name: value for name, value in ids.items() if value is not None},
        "as_of": rfc3339(now_ms),
        "concurrent_viewers": figures.concurrent_viewers,
        "concurrent_views": figures.concurrent_views,
        "plays_last_5m": figures.window.get("plays", 0),
        "plays_per_minute": list(figures.plays_per_minute),
        "qoe_score": window_metric(figures, "qoe_score"),
        "qoe_version": METRICS["qoe_score"].version,
        "points_lost": {cause: window_metric(figures, name) for cause, name in POINTS_LOST.items()},
        "average_watch_duration_ms": figures.mean_played_ms,
        **{name: window_metric(figures, name) for name in _NUMBERS},
        "bitrate_distribution": {
            bucket: figures.window.get(measure.name, 0) for bucket, measure in bitrates.buckets.items()
        },
        "countries": dict(sorted(figures.countries.items(), key=lambda c: (-c[1], c[0]))),
        "watermark": None if watermark is None else rfc3339(watermark),
        "freshness_ms": None if watermark is None else max(0, now_ms - watermark),
    }


def window_metric(figures: LiveFigures, name: str) -> float | None:
    """Return a metric of sums over the live window; None over nothing."""
    metric = METRICS[name]
    if not isinstance(metric, Formula):
        raise TypeError(f"{name} is not computed from sums")
    columns = {m: np.array([figures.window.get(m, 0)], np.float64) for m in metric.measures()}
    value = float(np.broadcast_to(metric.evaluate(columns), (1,))[0])
    return None if math.isnan(value) else value
