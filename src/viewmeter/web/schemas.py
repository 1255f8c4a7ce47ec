"""The shapes of the API's bodies, as data: from here come the OpenAPI document and the reference page.

Answers are built as dictionaries (the query room's own) and checked against these shapes by tests, not at run
time.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from msgspec import UNSET, Meta, Struct, UnsetType

Instant = Annotated[str, Meta(description="RFC 3339, UTC with `Z` or the asked zone's offset")]
Cursor = Annotated[str | None, Meta(description="send it as `cursor` for the next page; null: this was the last")]


class ProblemError(Struct):
    """One of several errors: where, and what would be right."""

    detail: str
    code: str | UnsetType = UNSET
    field: str | UnsetType = UNSET
    index: int | UnsetType = UNSET


class ProblemDocument(Struct):
    """RFC 9457. `code` is stable; `type` is a page that explains it."""

    type: str
    title: str
    status: int
    detail: str
    code: str
    errors: list[dict[str, Any]] | UnsetType = UNSET
    request_id: str | UnsetType = UNSET


class PointsLost(Struct):
    """How many of the 100 points of the score each cause took; null where nothing was observed."""

    startup: float | None
    smoothness: float | None
    playback: float | None


class Realtime(Struct):
    """What is on screen now. Rates and the score are over the last 5 minutes, rolling."""

    as_of: Instant
    concurrent_viewers: int
    concurrent_views: int
    plays_last_5m: int
    plays_per_minute: Annotated[list[int], Meta(description="the last 60 full minutes, oldest first")]
    qoe_score: float | None
    qoe_version: str
    points_lost: PointsLost
    average_watch_duration_ms: Annotated[
        float | None, Meta(description="mean played time so far of the views active now")
    ]
    rebuffer_ratio: float | None
    startup_time_avg_ms: float | None
    average_bitrate_kbps: float | None
    bitrate_distribution: Annotated[dict[str, int], Meta(description="played ms by kbps bucket")]
    countries: Annotated[dict[str, int], Meta(description="viewers now, by country")]
    watermark: Instant | None
    freshness_ms: int | None
    video_id: str | UnsetType = UNSET
    channel_id: str | UnsetType = UNSET


SHORTCUT = r"^(month|[1-9][0-9]{0,4}[mhdw])$"


class TimeRange(Struct, forbid_unknown_fields=True):
    """Half-open: `[start, end)`."""

    start: Annotated[str | int, Meta(description="RFC 3339 or ms since the epoch")]
    end: Annotated[str | int | None, Meta(description="RFC 3339 or ms since the epoch; without it: now")] = None


Granularity = Literal["minute", "5m", "hour", "day", "week", "month", "total"]


class Question(Struct, forbid_unknown_fields=True):
    """A query. Without `channel_id` and `video_id`: everything that the key may see."""

    metrics: Annotated[list[str], Meta(min_length=1, description="names of GET /api/v1/analytics/metrics")]
    time_range: Annotated[
        TimeRange | Annotated[str, Meta(pattern=SHORTCUT)],
        Meta(description="a range, or `24h`, `7d`, `30d`, `month` (this calendar month so far)"),
    ] = "24h"
    channel_id: str | None = None
    video_id: str | None = None
    time_zone: Annotated[str, Meta(description="IANA name")] = "UTC"
    granularity: Granularity = "total"
    dimensions: Annotated[list[str], Meta(description="names of GET /api/v1/analytics/dimensions")] = []
    filters: Annotated[
        list[list[Any]], Meta(description='`["is", dimension, [values]]` or `["is_not", …]`; all must hold')
    ] = []
    order_by: Annotated[list[list[str]], Meta(description='`[name, "asc"]` or `[name, "desc"]`')] = []
    limit: Annotated[int, Meta(ge=1, le=10_000, description="groups, each with its whole series")] = 1_000
    cursor: str | None = None
    explain: bool = False


class AnswerMeta(Struct):
    """What stands behind the numbers."""

    granularity: Granularity
    time_zone: Annotated[str, Meta(description="the one asked for, or the reporting zone where only its days are kept")]
    start: Annotated[Instant, Meta(description="widened to whole hours or days where nothing finer is kept")]
    end: Instant
    watermark: Instant | None
    sources: Annotated[list[str], Meta(description="the layers that answered: speed, batch, archive")]
    partial: Annotated[bool, Meta(description="the newest bucket is not over, or some hours are not closed yet")]
    closed_until: Annotated[
        Instant | None,
        Meta(description="what is known of closed hours alone is complete up to here; null: nothing waits for that"),
    ]
    by_utc_hours: Annotated[
        list[str],
        Meta(description="metrics kept by whole hours of UTC, where buckets of the zone begin inside of one"),
    ]
    cached: bool
    approximate: Annotated[dict[str, Any], Meta(description="metrics from sketches, with their error")]
    truncated: bool
    plan: Annotated[Any, Meta(description="how it was answered, with `explain`")]


class Answer(Struct):
    """Rows of a query: `time` (the bucket's start), dimensions, metrics. Values are not rounded."""

    rows: list[dict[str, Any]]
    meta: AnswerMeta
    next_cursor: Cursor


class HistoryMeta(Struct):
    """What stands behind a curve or cohorts: closed hours alone."""

    time_zone: str
    start: Instant
    end: Instant
    watermark: Instant | None
    sources: list[str]
    partial: Annotated[bool, Meta(description="the range is not over, or some of its hours are not closed yet")]
    closed_until: Annotated[Instant | None, Meta(description="complete up to here; null: to the end")]
    formula: str | UnsetType = UNSET


class RetentionBucket(Struct):
    """One percent of the content."""

    from_ratio: Annotated[float, Meta(description="where it begins: 0, 0.01, … 0.99")]
    viewers_ratio: Annotated[
        float | None, Meta(description="views that played it, per view; above 1 where it is seen again; null: no view")
    ]
    seconds: Annotated[float | None, Meta(description="where it begins in content of the views' mean length")]
    views: Annotated[int, Meta(description="times it was played")]


class Retention(Struct):
    """Where in a video views played: 100 buckets. Of views that ended, of content whose length is known."""

    video_id: str
    buckets: list[RetentionBucket]
    views: Annotated[int, Meta(description="views that the curve is of")]
    meta: HistoryMeta


class Cohort(Struct):
    """Viewers who played for the first time in one week."""

    week: Annotated[Instant, Meta(description="its start, a Monday of the reporting zone")]
    viewers: int
    returned: Annotated[list[int], Meta(description="how many played again, by later week up to the one that runs")]


class Cohorts(Struct):
    """Returning viewers by the week of their first play, oldest first. Needs the site's own `viewer_id`."""

    cohorts: list[Cohort]
    meta: HistoryMeta


class JobRequest(Struct, forbid_unknown_fields=True):
    """Which interval to run a batch job for."""

    interval: Annotated[
        str,
        Meta(
            min_length=4, max_length=40, description="an hour `2026-11-25T10`, or for `daily` a day `2026-11-25`; UTC"
        ),
    ]


class JobRun(Struct):
    """One run of a batch job."""

    id: int
    job: Annotated[str, Meta(description="hourly, daily, weekly, monthly")]
    start: Instant
    end: Instant
    state: Annotated[str, Meta(description="done or failed")]
    began_at: Instant
    ended_at: Instant
    took_ms: int
    rows: Annotated[int, Meta(description="rows in the store because of it")]
    differences: Annotated[
        dict[str, Any], Meta(description="additive measures that the speed layer had otherwise: by measure")
    ]
    details: Annotated[dict[str, Any], Meta(description="what the run read and found, and its causes")]


class Jobs(Struct):
    """Where the batch layer stands, and its runs, newest first."""

    closed_until: Annotated[Instant | None, Meta(description="every hour with events before it is closed")]
    due: Annotated[int, Meta(description="hours that wait for their first run")]
    stale: Annotated[int, Meta(description="closed hours that wait for another run, since events arrived for them")]
    running: str | None
    problem: str | None
    runs: list[JobRun]
    next_cursor: Cursor


class Metric(Struct):
    """One metric of the catalogue."""

    name: str
    label: str
    unit: str
    kind: str
    formula: str
    parts: Annotated[dict[str, str], Meta(description="what the formula calls by name: name to formula")]
    doc: str
    better: Literal["higher", "lower", "neutral"]
    error: float | None
    version: str | None
    batch_only: Annotated[bool, Meta(description="known of closed hours alone; `closed_until` of an answer says which")]
    address: Annotated[str | None, Meta(description="where a curve is; a query does not take it")]
    rollups: list[str]


class Metrics(Struct):
    """The catalogue of metrics."""

    metrics: list[Metric]
    next_cursor: Cursor


class Dimension(Struct):
    """One dimension of the catalogue."""

    name: str
    label: str
    doc: str
    rollups: list[str] | UnsetType = UNSET


class Dimensions(Struct):
    """The catalogue of dimensions."""

    dimensions: list[Dimension]
    next_cursor: Cursor


class Flushed(Struct):
    """Every event acknowledged before the call is in every answer now."""

    flushed: bool
    watermark: Instant | None
    took_ms: int


class TenantPipeline(Struct):
    """One tenant's events by what became of them."""

    tenant: str
    accepted: Annotated[int, Meta(description="acknowledged and applied: distinct and duplicate events")]
    rejected: Annotated[
        int | None, Meta(description="in the dead-letter log, while it lasts; null for a key bound to channels")
    ]
    duplicate: int
    late: int
    lost: Annotated[int, Meta(description="holes in `seq`: sent by a player and never received")]
    completeness_ratio: Annotated[float | None, Meta(description="distinct / (distinct + lost)")]


class PartitionPipeline(Struct):
    """One partition of the log."""

    partition: int
    end_offset: int
    lag_batches: Annotated[int, Meta(description="durable and not yet applied")]


class JobPipeline(Struct):
    """One stream job."""

    job: str
    watermark: Instant | None


class DamagedBatch(Struct):
    """A batch of the log that cannot be read and was set aside."""

    partition: int
    offset: int
    reason: str


class Pipeline(Struct):
    """Where events are and what became of them."""

    as_of: Instant
    tenants: list[TenantPipeline]
    completeness_ratio: float | None
    partitions: list[PartitionPipeline]
    jobs: list[JobPipeline]
    waiting_events: Annotated[int, Meta(description="behind a hole in `seq`, at most 1 s")]
    damaged: list[DamagedBatch]
    next_cursor: Cursor


class DeadLetter(Struct):
    """A rejected event, without what tells who watched."""

    id: str
    time: Instant
    tenant: str
    key_id: str
    dialect: str
    code: str
    detail: str
    event: Annotated[Any, Meta(description="text where it is no JSON; viewer_id as a hash, of unknown fields the name")]
    complete: Annotated[bool, Meta(description="false: too large or unreadable, so that it cannot be replayed")]
    player: Annotated[str | None, Meta(description="as the URL named it")]
    replayed_at: Instant | None


class DeadLetters(Struct):
    """Rejected events, newest first."""

    dead_letters: list[DeadLetter]
    counts: Annotated[dict[str, int] | None, Meta(description="how many are kept, by reason; null on later pages")]
    next_cursor: Cursor


class ValueRange(Struct):
    """Least, greatest and quantiles (KLL, 1.65 % rank error) of a number."""

    min: float
    p05: float
    median: float
    p95: float
    max: float


class PlayerQuality(Struct):
    """What one player sends."""

    tenant: str
    player: str
    version: Annotated[str | None, Meta(description="where the player's name ends in one: hls.js-1.7")]
    events: Annotated[int, Meta(description="sampled events")]
    types: Annotated[dict[str, int], Meta(description="sampled events by type")]
    filled_ratio: Annotated[dict[str, float], Meta(description="share of the events that have a field, by field")]
    values: Annotated[dict[str, ValueRange], Meta(description="of the events that have the field, by field")]
    clock_skew_ms: Annotated[ValueRange, Meta(description="receipt minus the event's time, after correction")]


class Quality(Struct):
    """What players send, on a sample of whole views, by tenant and player."""

    as_of: Instant
    sample_ratio: Annotated[float, Meta(description="share of the views that are in the sample")]
    days: int
    players: list[PlayerQuality]
    next_cursor: Cursor


class ReplayRequest(Struct):
    """Which dead letters to send through the pipeline again."""

    ids: Annotated[list[str], Meta(min_length=1, max_length=500)]


class Replayed(Struct):
    """What became of them; an id that is not there is in neither number."""

    accepted: int
    rejected: int


class SignIn(Struct):
    """A secret key to sign a browser in with."""

    secret_key: str


class SessionInfo(Struct):
    """Who is signed in."""

    tenant: str
    scopes: list[str]
    channels: Annotated[list[str] | None, Meta(description="null: all of the tenant")]


class Health(Struct):
    """The process is alive."""

    status: Literal["ok"]


class Part(Struct):
    """Whether one part is ready."""

    ready: bool
    detail: str | None


class Readiness(Struct):
    """Whether every part is ready."""

    ready: bool
    parts: dict[str, Part]


class Version(Struct):
    """Which Viewmeter this is."""

    version: str
    api: str


class RejectedEvent(Struct):
    """One event that was not accepted."""

    index: int
    code: str
    detail: str


class IngestResult(Struct):
    """What became of a beacon's events."""

    accepted: int
    rejected: list[RejectedEvent]
