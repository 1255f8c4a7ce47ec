"""The 20 fixed questions of a dashboard that `bench query` asks, each beside the SQL that a person would write for it.

In: a `History`. Out: questions. Promised: the SQL reads the tier that fits its range, as somebody would who knows the
tables, and gives one row a group: its key (ms, word, or 0), then the metrics in the question's order; `different` says
where two answers are not the same. `tolerance` is 0 but for sketches, where SQL counts what the sketch estimates.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

from viewmeter.bench.query_history import TENANT
from viewmeter.model.time import DAY_MS

_EXACT: Final = 1e-9
_VIDEO, _CHANNEL = "video-7", "channel-7"
_RATIO: Final = "sum(rebuffered_ms) / sum(played_ms + rebuffered_ms)"


@dataclass(frozen=True)
class Question:
    """A question, and the SQL that a person would write instead. `curve`: the retention curve of that video."""

    name: str
    body: dict[str, Any]
    sql: str
    tolerance: float = _EXACT
    curve: str = ""


def questions(end_ms: int) -> tuple[Question, ...]:
    """Return the questions over ranges that end at `end_ms`."""
    return (*_series(end_ms), *_groups(end_ms), *_special(end_ms))


def _range(end_ms: int, days: int) -> dict[str, int]:
    return {"start": end_ms - days * DAY_MS, "end": end_ms}


def _sql(end_ms: int, days: int, table: str, key: str, values: str, where: str = "", tail: str = "") -> str:
    return f"SELECT {key} AS key, {values} FROM {table} WHERE {_inside(end_ms, days, table)}{where} GROUP BY 1{tail}"


def _inside(end_ms: int, days: int, table: str) -> str:
    """Return whose rows: those of days and longer are there once for each zone that somebody reports in."""
    zone = " AND zone = 'UTC'" if table.startswith("day_") else ""
    start_ms = end_ms - days * DAY_MS
    return f"tenant_id = '{TENANT}' AND NOT is_bot AND time_ms >= {start_ms} AND time_ms < {end_ms}{zone}"


def _calendar(unit: str, start_ms: int) -> str:
    return f"greatest({start_ms}, epoch_ms(date_trunc('{unit}', make_timestamp_ms(time_ms))))"


def _series(end: int) -> list[Question]:
    """Questions over time."""
    video, channel = f" AND video_id = '{_VIDEO}'", f" AND channel_id = '{_CHANNEL}'"
    listed: list[tuple[str, int, str, str, str, dict[str, str], list[str], str, str]] = [
        ("platform, 24 h by the minute", 1, "minute", "minute_platform", "time_ms", {},
         ["plays", "rebuffer_ratio"], f"sum(plays), {_RATIO}", ""),
        ("a video, 24 h by the minute", 1, "minute", "minute_video", "time_ms", {"video_id": _VIDEO},
         ["plays", "watch_time_ms"], "sum(plays), sum(played_ms)", video),
        ("platform, 7 days by the hour", 7, "hour", "hour_platform", "time_ms", {},
         ["plays", "watch_time_ms"], "sum(plays), sum(played_ms)", ""),
        ("a channel, 30 days by the hour", 30, "hour", "hour_channel", "time_ms", {"channel_id": _CHANNEL},
         ["plays", "watch_time_ms"], "sum(plays), sum(played_ms)", channel),
        ("a video, 30 days by the hour", 30, "hour", "hour_video", "time_ms", {"video_id": _VIDEO},
         ["plays", "average_watch_duration_ms"], "sum(plays), sum(played_ms) / sum(plays)", video),
        ("a channel, 90 days by the day", 90, "day", "day_channel", "time_ms", {"channel_id": _CHANNEL},
         ["plays", "watch_time_ms"], "sum(plays), sum(played_ms)", channel),
        ("quality of a channel, 28 days by the day", 28, "day", "day_channel", "time_ms", {"channel_id": _CHANNEL},
         ["startup_time_avg_ms", "rebuffer_ratio", "playback_failure_rate"],
         f"sum(startup_ms) / sum(startups), {_RATIO}, sum(failures) / sum(attempts)", channel),
        ("a video, 3 years by the month", 1096, "month", "day_video", _calendar("month", end - 1096 * DAY_MS),
         {"video_id": _VIDEO},
         ["plays", "watch_time_ms"], "sum(plays), sum(played_ms)", video),
        ("platform, a year by the week", 365, "week", "day_platform", _calendar("week", end - 365 * DAY_MS), {},
         ["plays", "completion_rate"], "sum(plays), sum(completes) / sum(plays)", ""),
        ("platform, 3 years by the month", 1096, "month", "day_platform", _calendar("month", end - 1096 * DAY_MS), {},
         ["plays", "watch_time_ms"], "sum(plays), sum(played_ms)", ""),
    ]  # fmt: skip
    return [
        Question(
            name,
            {"metrics": metrics, "granularity": granularity, "time_range": _range(end, days), **scope},
            _sql(end, days, table, key, values, where),
        )
        for name, days, granularity, table, key, scope, metrics, values, where in listed
    ]


def _groups(end: int) -> list[Question]:
    """Questions by a dimension."""
    channel = f" AND channel_id = '{_CHANNEL}'"
    listed: list[tuple[str, int, str, str, dict[str, str], list[str], str, str]] = [
        ("the 10 videos watched longest, 7 days", 7, "video_id", "day_video", {},
         ["watch_time_ms", "plays"], "sum(played_ms) AS first, sum(plays)", ""),
        ("the 10 videos of a channel watched longest, a year", 365, "video_id", "day_video",
         {"channel_id": _CHANNEL}, ["watch_time_ms", "plays"], "sum(played_ms) AS first, sum(plays)", channel),
        ("the 10 channels watched longest, 90 days", 90, "channel_id", "day_channel", {},
         ["watch_time_ms", "plays"], "sum(played_ms) AS first, sum(plays)", ""),
        ("the 10 first countries, 28 days", 28, "country", "day_audience", {},
         ["watch_time_ms", "rebuffer_ratio"], f"sum(played_ms) AS first, {_RATIO}", ""),
        ("kinds of device, 90 days", 90, "device_type", "day_device", {},
         ["watch_time_ms", "rebuffer_ratio"], f"sum(played_ms) AS first, {_RATIO}", ""),
        ("delivery networks, 7 days", 7, "cdn", "day_delivery", {},
         ["watch_time_ms", "rebuffer_ratio"], f"sum(played_ms) AS first, {_RATIO}", ""),
    ]  # fmt: skip
    return [
        Question(
            name,
            {"metrics": metrics, "dimensions": [by], "time_range": _range(end, days), "limit": 10,
             "order_by": [[metrics[0], "desc"]], **scope},
            _sql(end, days, table, by, values, where, " ORDER BY first DESC LIMIT 10"),
        )
        for name, days, by, table, scope, metrics, values, where in listed
    ]  # fmt: skip


def _special(end: int) -> list[Question]:
    """Questions with sketches, mixed filters and curves."""
    country = [["is", "country", ["DE"]]]
    of_video = f" AND video_id = '{_VIDEO}'"
    curve = _sql(end, 365, "day_retention", "percent::INTEGER", "sum(retention_delta) AS delta", of_video)
    views = _sql(end, 365, "day_video", "0", "sum(content_views) AS views", of_video)
    return [
        Question(
            "unique viewers of the platform, 28 days by the day",
            {"metrics": ["unique_viewers"], "granularity": "day", "time_range": _range(end, 28)},
            "SELECT time_ms, count(DISTINCT coupon) FROM (SELECT time_ms, unnest(viewers_hll) AS coupon "
            f"FROM day_platform WHERE {_inside(end, 28, 'day_platform')}) GROUP BY 1",
            tolerance=0.04,
        ),
        Question(
            "median startup of a video, 28 days by the day",
            {"metrics": ["startup_time_p50_ms"], "granularity": "day", "time_range": _range(end, 28),
             "video_id": _VIDEO},
            "SELECT time_ms, quantile_disc(value, 0.5) FROM (SELECT time_ms, unnest(startup_kll) AS value "
            f"FROM day_video WHERE {_inside(end, 28, 'day_video')}{of_video}) GROUP BY 1",
        ),
        Question(
            "a video in a country, 28 days by the day",
            {"metrics": ["plays", "watch_time_ms"], "granularity": "day", "time_range": _range(end, 28),
             "video_id": _VIDEO, "filters": country},
            _sql(end, 28, "day_audience", "time_ms", "sum(plays), sum(played_ms)", f"{of_video} AND country = 'DE'"),
        ),
        Question(
            "where in a video views played, a year",
            {"time_range": _range(end, 365), "metrics": ["plays"], "video_id": _VIDEO},
            f"SELECT key, sum(delta) OVER (ORDER BY key) / (SELECT views FROM ({views})) FROM ({curve})",
            curve=_VIDEO,
        ),
    ]  # fmt: skip


def different(question: Question, ours: Sequence[Mapping[str, Any]], theirs: Sequence[Sequence[Any]]) -> str:
    """Return where two answers differ, "" where they are the same. Rows of ours that hold nothing may be missing."""
    expected = {row[0]: row[1:] for row in theirs}
    by = question.body.get("dimensions")
    metrics = question.body["metrics"]
    for number, row in enumerate(ours):
        if question.curve:
            key, values = number, [row["viewers_ratio"]]
        else:
            key = row[by[0]] if by else _instant_ms(row["time"])
            values = [row[name] for name in metrics]
        wanted = expected.pop(key, None)
        if wanted is None:
            if any(values):
                return f"{key}: {values}, and SQL has no such row"
            continue
        for value, want in zip(values, wanted, strict=True):
            if not math.isclose(value or 0, float(want or 0), rel_tol=question.tolerance, abs_tol=1e-12):
                return f"{key}: {values}, and SQL says {wanted}"
    return f"only SQL has {expected}"[:300] if expected else ""


def _instant_ms(text: str) -> int:
    return int(datetime.fromisoformat(text).timestamp() * 1000)
