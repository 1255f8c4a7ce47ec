"""Metrics: the finished numbers, each stated once. Computed from merged measures, last; never stored or averaged.

Adding one: a line here. API validation, planner, dashboard labels and the reference page follow from it.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final, Literal

from viewmeter.model.catalogue import measures as m
from viewmeter.model.catalogue.expressions import Column as Values
from viewmeter.model.catalogue.expressions import (
    Columns,
    Const,
    Expr,
    Part,
    at_least_zero,
    exp,
    known,
    or_zero,
    sqrt,
)

Unit = Literal["count", "ms", "ratio", "kbps", "score", "points", "per_minute"]
Better = Literal["higher", "lower", "neutral"]


@dataclass(frozen=True, kw_only=True)
class Metric:
    """What every metric says about itself; the subclasses say how it is computed."""

    name: str = field(kw_only=False)
    label: str
    unit: Unit
    doc: str
    better: Better = "neutral"
    version: str | None = None
    kind: str = ""

    def measures(self) -> frozenset[str]:
        """Return the measures it needs merged."""
        raise NotImplementedError

    def formula(self) -> str:
        """Return the formula in words."""
        raise NotImplementedError

    def parts(self) -> dict[str, str]:
        """Return the parts that `formula` calls by name: name -> formula."""
        return {}

    @property
    def batch_only(self) -> bool:
        """Whether the batch layer alone knows it: of hours that are not closed yet it says nothing."""
        return any(m.MEASURES[name].batch_only for name in self.measures())


@dataclass(frozen=True, kw_only=True)
class Formula(Metric):
    """A number from additive measures: a sum, a ratio of sums, or a derived score."""

    expr: Expr

    def measures(self) -> frozenset[str]:
        """Return the measures of the formula."""
        return self.expr.columns()

    def formula(self) -> str:
        """Return the formula as text."""
        return self.expr.text()

    def parts(self) -> dict[str, str]:
        """Return the named parts of the formula."""
        return {name: of.text() for name, of in self.expr.named().items()}

    def evaluate(self, columns: Columns) -> Values:
        """Return one value a row; NaN where it is over nothing."""
        return self.expr.evaluate(columns)


@dataclass(frozen=True, kw_only=True)
class Histogram(Metric):
    """Sums side by side: bucket name to measure."""

    buckets: dict[str, m.Measure]
    kind: str = "histogram"

    def measures(self) -> frozenset[str]:
        """Return one measure a bucket."""
        return frozenset(measure.name for measure in self.buckets.values())

    def formula(self) -> str:
        """Return the buckets."""
        return "sum per bucket: " + ", ".join(self.buckets)


@dataclass(frozen=True, kw_only=True)
class Distinct(Metric):
    """A distinct count from an HLL sketch; its error stands in every answer."""

    sketch: m.Measure
    relative_standard_error: float = m.HLL_RELATIVE_ERROR
    kind: str = "sketch"

    def measures(self) -> frozenset[str]:
        """Return the sketch."""
        return frozenset((self.sketch.name,))

    def formula(self) -> str:
        """Return what is counted."""
        return f"distinct({self.sketch.name})"


@dataclass(frozen=True, kw_only=True)
class Quantile(Metric):
    """A quantile from a KLL sketch; its rank error stands in every answer."""

    sketch: m.Measure
    quantile: float
    rank_error: float = m.KLL_RANK_ERROR
    kind: str = "sketch"

    def measures(self) -> frozenset[str]:
        """Return the sketch."""
        return frozenset((self.sketch.name,))

    def formula(self) -> str:
        """Return which quantile of what."""
        return f"quantile({self.sketch.name}, {self.quantile:g})"


@dataclass(frozen=True, kw_only=True)
class Gauge(Metric):
    """A figure of instants: over the samples of a bucket, its last or its largest.

    `hourly` is what remains of the samples, by the hour and scope.
    """

    sample: m.Measure
    hourly: m.Measure
    over_time: Literal["last", "max"]
    kind: str = "gauge"

    def measures(self) -> frozenset[str]:
        """Return the sampled measure."""
        return frozenset((self.sample.name,))

    def formula(self) -> str:
        """Return how samples become one number."""
        return f"{self.over_time} 10 s sample of {self.sample.name}"


@dataclass(frozen=True, kw_only=True)
class Exact(Metric):
    """A distinct count that is exact, for billing: counted from the viewers themselves, so it does not merge."""

    kind: str = "exact"

    @property
    def batch_only(self) -> bool:
        """Whether the batch layer alone knows it: it does."""
        return True

    def measures(self) -> frozenset[str]:
        """Return nothing: no accumulator can hold it."""
        return frozenset()

    def formula(self) -> str:
        """Return what is counted."""
        return "count(distinct viewer_hash of plays)"


@dataclass(frozen=True, kw_only=True)
class Curve(Metric):
    """Many numbers along the content, at an address of their own; a query does not take it."""

    measure: m.Measure
    address: str
    kind: str = "curve"

    def measures(self) -> frozenset[str]:
        """Return what the curve is summed up from."""
        return frozenset((self.measure.name,))

    def formula(self) -> str:
        """Return how the curve comes about, and where it is."""
        return f"running sum of {self.measure.name} / content_views; GET {self.address}"


def _sum(name: str, label: str, of: Expr, doc: str, unit: Unit = "count", better: Better = "neutral") -> Formula:
    return Formula(name, label=label, unit=unit, doc=doc, better=better, kind="additive", expr=of)


def _ratio(name: str, label: str, of: Expr, over: Expr, doc: str, unit: Unit, better: Better) -> Formula:
    return Formula(name, label=label, unit=unit, doc=doc, better=better, kind="ratio", expr=of / over)


_measured_plays = m.plays - m.blind_plays
_watched_ms = m.played_ms + m.rebuffered_ms
_rebuffer_ratio = Part("rebuffer_ratio", m.rebuffered_ms / _watched_ms)
_failure_rate = m.failures / m.attempts
_exit_rate = m.exits_before_start / m.attempts

# qoe_v1. Source: DESIGN 4. A part that nothing was observed of (no startup known, no time watched, no attempt) has
# no say, and the others keep their proportions: unknown is neither perfect nor awful.
_startup = Part("startup", 100 * 8 / (8 + m.startup_ms / m.startups / 1000))
_per_ten_minutes = Part("rebuffers_per_10_minutes", m.rebuffer_count / (_watched_ms / 600_000))
_smoothness = Part(
    "smoothness",
    0.5 * (100 / sqrt(1 + (_per_ten_minutes / 2) * (_per_ten_minutes / 2)) + 100 * exp(Const(-10) * _rebuffer_ratio)),
)
_playback = Part("playback", at_least_zero(100 * (1 - _failure_rate - 0.5 * _exit_rate)))
_weight = Part("weight", 0.25 * known(_startup) + 0.5 * known(_smoothness) + 0.25 * known(_playback))


def _lost(name: str, share: float, part: Expr) -> Part:
    return Part(name, share * or_zero(100 - part) / _weight)


_lost_startup, _lost_smoothness, _lost_playback = (
    _lost("qoe_lost_startup", 0.25, _startup),
    _lost("qoe_lost_smoothness", 0.5, _smoothness),
    _lost("qoe_lost_playback", 0.25, _playback),
)


def _points(label: str, part: Part, doc: str) -> Formula:
    return Formula(
        part.name, label=label, unit="points", doc=doc, better="lower", version="qoe_v1", kind="derived", expr=part.of
    )


def _watched(quantile: float, name: str, label: str, doc: str) -> Quantile:
    return Quantile(name, label=label, unit="ms", better="higher", sketch=m.watch_kll, quantile=quantile, doc=doc)


_ALL: Final[tuple[Metric, ...]] = (
    Gauge("concurrent_viewers", label="Viewers now", unit="count", sample=m.concurrent_viewers, hourly=m.last_viewers,
          over_time="last",
          doc="Distinct viewers of a video with an active event in the last 60 s whose view has not ended."),
    Gauge("concurrent_views", label="Views now", unit="count", sample=m.concurrent_views, hourly=m.last_views,
          over_time="last",
          doc="Views with an active event in the last 60 s that have not ended."),
    Gauge("peak_concurrent_viewers", label="Peak viewers", unit="count", sample=m.concurrent_viewers,
          hourly=m.peak_viewers, over_time="max",
          doc="The largest 10-second sample of concurrent viewers. Peaks do not add up."),
    _sum("attempts", "Attempts", m.attempts, m.attempts.doc),
    _sum("plays", "Plays", m.plays, m.plays.doc, better="higher"),
    _sum("completes", "Completions", m.completes, m.completes.doc, better="higher"),
    _sum("failures", "Failures", m.failures, m.failures.doc, better="lower"),
    _sum("exits_before_start", "Exits before start", m.exits_before_start, m.exits_before_start.doc, better="lower"),
    _sum("engaged_views", "Engaged views", m.engaged_views, m.engaged_views.doc, better="higher"),
    _sum("events", "Events", m.events, m.events.doc),
    Histogram("events_by_type", label="Events by type", unit="count", buckets=m.EVENTS_BY_TYPE,
              doc="Distinct events of each type."),
    Distinct("unique_viewers", label="Unique viewers", unit="count", sketch=m.viewers_hll, better="higher",
             doc="Distinct viewers who played. Approximate: the error stands in the answer."),
    Exact("unique_viewers_exact", label="Unique viewers, exact", unit="count", better="higher",
          doc="Distinct viewers who played, counted one by one in closed hours; in total, by channel or by video."),
    _sum("watch_time_ms", "Watch time", m.played_ms, m.played_ms.doc, unit="ms", better="higher"),
    _ratio("average_watch_duration_ms", "Average watch duration", m.played_ms, _measured_plays,
           "Played time per measured play.", "ms", "higher"),
    _watched(0.5, "watch_duration_p50_ms", "Watch duration, median", "Half of the views were watched longer."),
    _watched(0.9, "watch_duration_p90_ms", "Watch duration, p90", "One view of 10 was watched longer."),
    _watched(0.95, "watch_duration_p95_ms", "Watch duration, p95", "One view of 20 was watched longer."),
    _watched(0.99, "watch_duration_p99_ms", "Watch duration, p99", "One view of 100 was watched longer."),
    _ratio("average_percentage_watched", "Average percentage watched", m.content_watched_ms, m.content_ms,
           "Share of the content that a view saw, each place once, on demand; 1 is all of it.", "ratio", "higher"),
    _ratio("completion_rate", "Completion rate", m.completes, m.plays, "Share of plays that reached the end.",
           "ratio", "higher"),
    _ratio("engagement_rate", "Engagement rate", m.engaged_views, _measured_plays,
           "Share of measured plays that lasted 30 s or half of the content.", "ratio", "higher"),
    _ratio("measured_ratio", "Measured share", _measured_plays, m.plays,
           "Share of plays whose player tells its state; metrics of time are over these.", "ratio", "higher"),
    _ratio("startup_time_avg_ms", "Startup time", m.startup_ms, m.startups,
           "Mean time from request to first frame.", "ms", "lower"),
    Quantile("startup_time_p50_ms", label="Startup time, median", unit="ms", sketch=m.startup_kll, quantile=0.5,
             better="lower", doc="Half of the startups were faster."),
    Quantile("startup_time_p95_ms", label="Startup time, p95", unit="ms", sketch=m.startup_kll, quantile=0.95,
             better="lower", doc="19 of 20 startups were faster."),
    _sum("rebuffer_time_ms", "Rebuffering time", m.rebuffered_ms, m.rebuffered_ms.doc, unit="ms", better="lower"),
    _ratio("rebuffer_ratio", "Rebuffer ratio", m.rebuffered_ms, _watched_ms,
           "Share of watching spent waiting in mid-play. Waits of startup or seeking are not rebuffering.",
           "ratio", "lower"),
    _ratio("rebuffer_ratio_per_view", "Rebuffer ratio per view", m.view_rebuffer_ratio_e9 / 1e9, m.watched_views,
           "Mean over views of each view's rebuffer ratio: a short view weighs as much as a long one.",
           "ratio", "lower"),
    _sum("rebuffer_count", "Rebuffers", m.rebuffer_count, m.rebuffer_count.doc, better="lower"),
    _ratio("rebuffer_frequency", "Rebuffers per minute", m.rebuffer_count, m.played_ms / 60_000,
           "Entries into rebuffering per played minute.", "per_minute", "lower"),
    _ratio("average_bitrate_kbps", "Average bitrate", m.played_kbit, m.played_ms_known_bitrate,
           "Bitrate weighted by played time, where it is known.", "kbps", "higher"),
    Histogram("bitrate_distribution", label="Bitrate distribution", unit="ms", buckets=m.PLAYED_BY_BITRATE,
              doc="Played time per bitrate bucket (kbps). Time at an unknown bitrate is in none."),
    _sum("upshifts", "Upshifts", m.upshifts, m.upshifts.doc),
    _sum("downshifts", "Downshifts", m.downshifts, m.downshifts.doc, better="lower"),
    _sum("seeks", "Seeks", m.seeks, m.seeks.doc),
    _sum("pauses", "Pauses", m.pauses, m.pauses.doc),
    Formula("playback_failure_rate", label="Playback failure rate", unit="ratio", better="lower", kind="ratio",
            expr=_failure_rate, doc="Failures per attempt."),
    Formula("exit_before_start_rate", label="Exit before start rate", unit="ratio", better="lower", kind="ratio",
            expr=_exit_rate, doc="Exits before start per attempt. A failed view is no exit."),
    Formula("qoe_score", label="QoE score", unit="score", better="higher", version="qoe_v1", kind="derived",
            expr=100 - (_lost_startup + _lost_smoothness + _lost_playback),
            doc="Quality of experience, 0 to 100: a quarter startup, half smoothness, a quarter playback success."),
    _points("Points lost to startup", _lost_startup,
            "Points of the QoE score lost to slow starts."),
    _points("Points lost to rebuffering", _lost_smoothness,
            "Points of the QoE score lost to the number and length of rebuffers."),
    _points("Points lost to failures", _lost_playback,
            "Points of the QoE score lost to failures and exits before start."),
    _sum("lost_events", "Lost events", m.lost_events, m.lost_events.doc, better="lower"),
    _sum("duplicate_events", "Duplicate events", m.duplicate_events, m.duplicate_events.doc),
    _sum("late_events", "Late events", m.late_events, m.late_events.doc, better="lower"),
    _ratio("completeness_ratio", "Completeness", m.events, m.events + m.lost_events,
           "Distinct events received, of those that were sent as `seq` shows.", "ratio", "higher"),
)  # fmt: skip

METRICS: Final[dict[str, Metric]] = {metric.name: metric for metric in _ALL}
"""What a query takes."""

CURVES: Final[dict[str, Curve]] = {
    "retention": Curve(
        "retention", label="Retention", unit="ratio", better="higher", measure=m.retention_delta,
        address="/api/v1/analytics/retention/{video_id}",
        doc="Per 1 % of the content: views that played it, per view measured. More than 1 where it is seen again.",
    )
}  # fmt: skip
"""What has an address of its own."""

POINTS_LOST: Final = {
    "startup": "qoe_lost_startup",
    "smoothness": "qoe_lost_smoothness",
    "playback": "qoe_lost_playback",
}
"""Cause to metric, as the realtime answer names them."""
