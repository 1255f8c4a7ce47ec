"""The shape of one view, told (`GET /views/{view_id}`); as `schemas.py`, from which it is apart by size alone."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from msgspec import UNSET, Meta, Struct, UnsetType

from viewmeter.web.schemas import Instant

Amounts = Annotated[dict[str, int], Meta(description="amount by measure; what is not named is 0")]


class Verdict(Struct):
    """Whether a view counts for a measure, and why."""

    measure: str
    count: Annotated[int, Meta(description="what the view adds to the measure: a count, or ms")]
    why: Annotated[str, Meta(description="a sentence: by which event and which numbers it counts, or why it does not")]
    at: Annotated[Instant | None, Meta(description="when it was last counted; null: it does not count")]
    seq: Annotated[int | None, Meta(description="the event that it was last counted by; null: none, or time alone")]


class ViewInterval(Struct):
    """What lies between two neighbouring events: the state after the first, the time that the second brought."""

    from_seq: Annotated[int | None, Meta(description="null: before the first known event, as its counters tell")]
    to_seq: int
    start: Instant | None
    end: Instant
    lasted_ms: int | None
    state: str
    played_ms: Annotated[int, Meta(description="what it counts; by state at most 60 s")]
    rebuffered_ms: int
    rebuffer_count: int
    bitrate_kbps: int | None
    cdn: str | None


class ViewEvent(Struct):
    """One event as its player sent it, and what it changed."""

    seq: int
    type: str
    ts: Annotated[Instant, Meta(description="by the player's clock, its skew corrected")]
    received_at: Instant
    duplicate: Annotated[bool, Meta(description="this `seq` was here before; changes nothing")]
    late: Annotated[bool, Meta(description="received more than 1 s after a later one of the view")]
    behind_ms: Annotated[int, Meta(description="how long after a later one of the view it was received")]
    lost_before: Annotated[int, Meta(description="events before it that never came")]
    instant: Annotated[Instant | None, Meta(description="when it counts: the largest `ts` so far; null: it does not")]
    state: Annotated[str | None, Meta(description="of the view after it; null: it changes nothing")]
    changed: Annotated[Amounts, Meta(description="what it added to which measure")]
    position_ms: int | UnsetType = UNSET
    duration_ms: int | UnsetType = UNSET
    played_ms: int | UnsetType = UNSET
    rebuffered_ms: int | UnsetType = UNSET
    rebuffer_count: int | UnsetType = UNSET
    startup_ms: int | UnsetType = UNSET
    bitrate_kbps: int | UnsetType = UNSET
    playback_rate: float | UnsetType = UNSET
    fatal: bool | UnsetType = UNSET
    error_code: str | UnsetType = UNSET
    error_message: str | UnsetType = UNSET
    cdn: str | UnsetType = UNSET
    blind: bool | UnsetType = UNSET


class NotCounted(Struct):
    """Something that did not count, or not where it was sent."""

    seq: int
    reason: Literal["duplicate", "late", "out_of_order", "interval", "counter", "after_end"]
    at: Instant
    detail: Annotated[str, Meta(description="a sentence with its numbers")]


class View(Struct):
    """One view: its events, its intervals, and why it was counted or not."""

    view_id: str
    video_id: str
    channel_id: str
    dimensions: Annotated[dict[str, Any], Meta(description="as its first event has them")]
    started_at: Instant
    ended_at: Annotated[Instant | None, Meta(description="null: it has not ended")]
    ended_by: Annotated[str | None, Meta(description="complete, exit, error or silence (5 minutes without an event)")]
    state: str
    time_from: Annotated[
        Literal["counters", "state", "unknown"], Meta(description="the player's counters, or the clock while it plays")
    ]
    counted: list[Verdict]
    measures: Annotated[
        Amounts, Meta(description="what the view adds: the sum of all `changed` and `changed_by_silence`")
    ]
    duplicate_events: int
    not_counted: Annotated[list[NotCounted], Meta(description="by `seq`")]
    changed_by_silence: Annotated[Amounts, Meta(description="what 5 minutes without an event added, at the end")]
    intervals: list[ViewInterval]
    events: Annotated[list[ViewEvent], Meta(description="by `seq`; what a player did not tell is left out")]
    truncated: Annotated[bool, Meta(description="there are more events than are shown")]
