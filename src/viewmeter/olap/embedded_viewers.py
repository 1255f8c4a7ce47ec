"""Exact viewers and cohorts: the tables that name viewers (by hash), what is counted from them, and erasing one.

In: distinct viewers of whole hours. Out: exact counts of a range, by channel or video; counts of days and months that
outlive the hours; cohorts by the week of the first play. Promised: O12. A hash of a fallback viewer changes daily, so
such viewers count once a day.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Final

import pyarrow as pa

from viewmeter.model.calendar import Period, hour_step_ms, period_of, zone_of
from viewmeter.model.time import Interval
from viewmeter.olap import embedded_zones as calendar
from viewmeter.olap.embedded_database import Connection, first
from viewmeter.olap.embedded_expiry import reach
from viewmeter.olap.embedded_sql import Parameters, bucket_sql, row_filters
from viewmeter.olap.protocol import Scan

_KNOWN: Final = frozenset(("channel_id", "video_id", "is_bot"))
COUNT: Final = "unique_viewers_exact"


def replace_hours(con: Connection, interval: Interval, viewers: pa.Table) -> None:
    """Put the viewers of whole hours in place of those that were there."""
    con.execute(f"DELETE FROM viewers WHERE hour_ms >= {interval.start_ms} AND hour_ms < {interval.end_ms}")
    if viewers.num_rows and interval.end_ms > reach(con, "viewers"):
        con.register("arriving_viewers", viewers)
        con.execute(
            "INSERT INTO viewers BY NAME SELECT DISTINCT hour_ms, tenant_id, channel_id, video_id, is_bot, viewer_hash"
            " FROM arriving_viewers ORDER BY tenant_id, channel_id, video_id, hour_ms"
        )
        con.unregister("arriving_viewers")


def build(con: Connection, kind: Period, zone: str, period: Interval) -> None:
    """Count the viewers of a day or month, or keep those of a week; nothing where their hours are not held any more."""
    if period.start_ms < reach(con, "viewers"):
        return
    whose = calendar.tenants_where(zone, period.start_ms)
    inside = f"hour_ms >= {period.start_ms} AND hour_ms < {period.end_ms} AND {whose}"
    if kind == "week":
        con.execute(f"DELETE FROM viewer_weeks WHERE zone = '{zone}' AND week_ms = {period.start_ms}")
        con.execute(
            f"INSERT INTO viewer_weeks SELECT DISTINCT '{zone}', {period.start_ms}, tenant_id, channel_id, viewer_hash"
            f" FROM viewers WHERE {inside} AND NOT is_bot ORDER BY tenant_id, channel_id, viewer_hash"
        )
        return
    con.execute(f"DELETE FROM viewer_counts WHERE kind = ? AND zone = '{zone}' AND time_ms = {period.start_ms}", [kind])
    distinct = "count(DISTINCT viewer_hash)"
    counts = {"any": distinct, "false": f"{distinct} FILTER (NOT is_bot)", "true": f"{distinct} FILTER (is_bot)"}
    for bots, count in counts.items():
        con.execute(
            f"INSERT INTO viewer_counts SELECT ?, '{zone}', {period.start_ms}, tenant_id, coalesce(channel_id, ''),"
            f" '{bots}', {count} FROM viewers WHERE {inside}"
            " GROUP BY GROUPING SETS ((tenant_id), (tenant_id, channel_id))",
            [kind],
        )


def exact_viewers(con: Connection, question: Scan, zone: str) -> pa.Table:
    """Count distinct viewers exactly; see the protocol."""
    _check(question, zone)
    from_ms = reach(con, "viewers")
    by_hour = [i for i, start in enumerate(question.edges_ms[:-1]) if start >= from_ms]
    kept = range(by_hour[0] if by_hour else len(question.edges_ms) - 1)
    tables = [_kept_count(con, question, zone, number) for number in kept]
    if by_hour:
        tables.append(_by_hour(con, question, by_hour[0]))
    return pa.concat_tables(tables)


def _check(question: Scan, zone: str) -> None:
    asked = {*question.dimensions, *(f.dimension for f in question.filters)}
    if missing := asked - _KNOWN:
        raise ValueError(f"exact viewers are known by {', '.join(sorted(_KNOWN))}, not by {', '.join(sorted(missing))}")
    # Days of a zone off the hour begin inside of one; any other edge would ask for a part of an hour.
    step_ms = hour_step_ms(zone)
    if any(edge % step_ms for edge in question.edges_ms):
        raise ValueError("exact viewers are known by whole hours (UTC): edges_ms must be multiples of one")


def _by_hour(con: Connection, question: Scan, first: int) -> pa.Table:
    edges = question.edges_ms[first:]
    bucket, join, parameters = bucket_sql(edges, "hour_ms")
    where, values = row_filters(question)
    spoken = [f"{name}::VARCHAR AS {name}" if name == "is_bot" else name for name in question.dimensions]
    head = ", ".join(["bucket", *question.dimensions])
    inside = f"hour_ms >= {edges[0]} AND hour_ms < {edges[-1]}"
    columns = ", ".join([f"({bucket} + {first})::INTEGER AS bucket", *spoken, "viewer_hash"])
    rows = f"SELECT {columns} FROM viewers AS r{join} WHERE {' AND '.join([inside, *where])}"
    text = f"SELECT {head}, count(DISTINCT viewer_hash)::BIGINT AS {COUNT} FROM ({rows}) GROUP BY {head}"
    found: pa.Table = con.sql(text, params=[*parameters, *values]).to_arrow_table()
    return found


def _kept_count(con: Connection, question: Scan, zone: str, number: int) -> pa.Table:
    """Return a bucket whose hours are gone, where it is a built day or month."""
    bucket = Interval(question.edges_ms[number], question.edges_ms[number + 1])
    where, values = row_filters(question, but=("is_bot",))
    channels = [f for f in question.filters if f.dimension == "channel_id"]
    one_channel = "channel_id" in question.dimensions or (
        len(channels) == 1 and len(channels[0].values) == 1 and not channels[0].negate
    )
    bounded = question.visible.channels is not None
    by_video = "video_id" in question.dimensions or any(f.dimension == "video_id" for f in question.filters)
    counted: tuple[Period, ...] = ("day", "month")
    kind = next((k for k in counted if period_of(bucket.start_ms, k, zone_of(zone)) == bucket), None)
    if (
        kind is None
        or bucket not in calendar.built(con, kind, zone)
        or by_video
        or "is_bot" in question.dimensions
        or question.visible.tenant_id is None
        or (bounded and not one_channel)
    ):
        raise ValueError(
            f"exact viewers from {bucket.start_ms} to {bucket.end_ms} are not held by the hour any more; what remains "
            f"is whole days and months of {zone}, of a tenant or by channel"
        )
    bots = _bots(question)
    scope = "channel_id <> ''" if one_channel else "channel_id = ''"
    head = ", ".join([f"{number}::INTEGER AS bucket", *question.dimensions])
    text = (
        f"SELECT {head}, viewers AS {COUNT} FROM viewer_counts WHERE kind = ? AND zone = ? AND time_ms = ? AND bots = ?"
        f" AND {' AND '.join([scope, *where])} AND viewers > 0"
    )
    values = [kind, zone, bucket.start_ms, bots, *values]
    found: pa.Table = con.sql(text, params=values).to_arrow_table()
    return found


def _bots(question: Scan) -> str:
    allowed = {"false", "true"}
    for f in question.filters:
        if f.dimension == "is_bot":
            allowed = allowed - {*f.values} if f.negate else allowed & {*f.values}
    return "any" if len(allowed) == 2 else next(iter(allowed), "none")


def cohorts(con: Connection, question: Scan) -> pa.Table:
    """Return how many viewers of each first week came again in each later one; see the protocol."""
    edges = question.edges_ms
    where, values = row_filters(question)
    weeks: list[str] = []
    parameters: Parameters = []
    for number, week in enumerate(pairwise(edges)):
        text, needed = _week(con, Interval(*week), where, values)
        weeks.append(f"SELECT {number} AS week, tenant_id, viewer_hash FROM ({text})")
        parameters += needed
    seen = " UNION ALL ".join(weeks)
    before = " AND ".join(["week_ms < ?", *where])
    text = f"""
        WITH seen AS (SELECT DISTINCT * FROM ({seen})),
        old AS (SELECT DISTINCT tenant_id, viewer_hash FROM viewer_weeks WHERE {before}),
        first AS (SELECT tenant_id, viewer_hash, min(week) AS cohort FROM seen GROUP BY ALL)
        SELECT cohort::INTEGER AS cohort, (week - cohort)::INTEGER AS later, count(*)::BIGINT AS viewers
        FROM seen JOIN first USING (tenant_id, viewer_hash) ANTI JOIN old USING (tenant_id, viewer_hash)
        GROUP BY 1, 2 ORDER BY 1, 2
    """
    found: pa.Table = con.sql(text, params=[*parameters, edges[0], *values]).to_arrow_table()
    return found


def _week(con: Connection, week: Interval, where: Sequence[str], values: Parameters) -> tuple[str, Parameters]:
    """Return the viewers of a week: kept ones where it was built, else those of its closed hours."""
    built = first(
        con.execute(
            "SELECT zone FROM built_periods WHERE kind = 'week' AND start_ms = ? AND end_ms = ? LIMIT 1", [*week]
        )
    )
    if built is not None:
        conditions = " AND ".join(["zone = ?", "week_ms = ?", *where])
        return f"SELECT tenant_id, viewer_hash FROM viewer_weeks WHERE {conditions}", [built[0], week.start_ms, *values]
    conditions = " AND ".join(["hour_ms >= ?", "hour_ms < ?", "NOT is_bot", *where])
    return f"SELECT tenant_id, viewer_hash FROM viewers WHERE {conditions}", [*week, *values]


def erase(con: Connection, tenant_id: str, viewer_hash: int) -> int:
    """Delete the viewer; counts that were made before stay (they are numbers)."""
    deleted = 0
    for table in ("viewers", "viewer_weeks"):
        row = first(
            con.execute(f"DELETE FROM {table} WHERE tenant_id = ? AND viewer_hash = ?", [tenant_id, viewer_hash])
        )
        deleted += int(row[0]) if row else 0
    return deleted
