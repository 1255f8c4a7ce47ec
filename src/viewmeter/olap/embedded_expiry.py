"""What the store drops, and when it may.

In: settings, the clock, what is closed and built. Out: how far back each table reaches, and the statements that delete
what is behind it. Promised: O10. The reach moves first, in a transaction of its own; a crash between it and the
deletes leaves rows that nobody reads, and the next time they go.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from viewmeter.model.calendar import period_of, zone_of
from viewmeter.model.catalogue import ROLLUPS, SPEED_ROLLUPS
from viewmeter.model.time import DAY_MS, HOUR_MS, Interval, floor_to
from viewmeter.olap import embedded_zones as calendar
from viewmeter.olap.embedded_database import Connection, first
from viewmeter.olap.embedded_settings import DuckDBSettings
from viewmeter.olap.embedded_tables import CALENDAR, appended, batch, merged

_YEAR_MS: Final = 366 * DAY_MS
_HOURS_A_STEP: Final = 24
"""Hours of rows that one delete takes: it is one transaction, and its undo stays in memory."""


def reach(con: Connection, name: str) -> int:
    """Return from when on the table has its rows; 0: from the beginning."""
    row = first(con.execute("SELECT max(from_ms) FROM reach WHERE name = ?", [name]))
    return int(row[0]) if row and row[0] is not None else 0


def advance(con: Connection, settings: DuckDBSettings, now_ms: int) -> None:
    """Say how far back each table reaches from now on."""
    wanted = {
        "speed": floor_to(now_ms - settings.keep_speed_h * HOUR_MS, HOUR_MS),
        "minute": floor_to(now_ms - settings.keep_minutes_h * HOUR_MS, HOUR_MS),
        "hour": _hours_held(con, now_ms - settings.keep_hours_d * DAY_MS),
        "day": now_ms - settings.keep_days_y * _YEAR_MS,
        "viewers": floor_to(now_ms - settings.keep_viewers_d * DAY_MS, HOUR_MS),
    }
    for name, from_ms in wanted.items():
        if from_ms > reach(con, name):
            con.execute("DELETE FROM reach WHERE name = ?", [name])
            con.execute("INSERT INTO reach VALUES (?, ?)", [name, from_ms])


def _hours_held(con: Connection, limit_ms: int) -> int:
    """Return up to where every closed hour is in a built day, in each zone in use; a day's start in UTC."""
    limit_ms = floor_to(limit_ms, DAY_MS)
    missing = _days_missing(con, limit_ms)
    return min([limit_ms, *(floor_to(day.start_ms, DAY_MS) for day in missing)])


def _days_missing(con: Connection, limit_ms: int) -> list[Interval]:
    """Return the days that are not built, or not to be built yet, though one of their hours is closed or has rows."""
    rows = con.execute(
        "SELECT hour_ms FROM closed_hours WHERE hour_ms < ? UNION SELECT hour_ms FROM speed_hours WHERE hour_ms < ?",
        [limit_ms, limit_ms],
    ).fetchall()
    hours = sorted(hour for (hour,) in rows)
    found: list[Interval] = []
    for zone, from_ms in calendar.zones_in_use(con).items():
        have = {day.start_ms for day in calendar.built(con, "day", zone)}
        last = Interval(0, 0)
        for hour in hours:
            if hour < last.end_ms:
                continue
            last = period_of(hour, "day", zone_of(zone))
            if last.start_ms >= from_ms and last.start_ms not in have:
                found.append(last)
    return found


def deletions(con: Connection, settings: DuckDBSettings, now_ms: int) -> Iterator[tuple[str, str]]:
    """Yield (table, statement) for what is behind the reach, in steps."""
    yield from _speed(con)
    minute_ms, hour_ms, day_ms = reach(con, "minute"), reach(con, "hour"), reach(con, "day")
    spared = [day for day in _days_missing(con, hour_ms) if day.start_ms < hour_ms]
    for rollup in ROLLUPS.values():
        if "minute" in rollup.tiers:
            yield from _steps(con, batch(rollup, "minute"), minute_ms, [])
        if "hour" in rollup.tiers:
            yield from _steps(con, batch(rollup, "hour"), hour_ms, spared)
        for tier in {*CALENDAR} & {*rollup.tiers}:
            yield batch(rollup, tier), f"DELETE FROM {batch(rollup, tier)} WHERE time_ms < {day_ms}"
    yield from _steps(con, "viewers", reach(con, "viewers"), [], "hour_ms")
    yield "viewer_counts", f"DELETE FROM viewer_counts WHERE time_ms < {day_ms}"
    oldest = now_ms - (settings.keep_cohort_weeks + 1) * 7 * DAY_MS
    yield "viewer_weeks", f"DELETE FROM viewer_weeks WHERE week_ms < {oldest}"


def _speed(con: Connection) -> Iterator[tuple[str, str]]:
    """Speed rows of hours that are closed and fresh; those of open hours stay, whatever their age."""
    done = con.execute(
        """
        SELECT hour_ms, seen_commit FROM closed_hours AS c WHERE NOT kept AND hour_ms < ?
            AND (SELECT max(number) FROM speed_hours AS s WHERE s.hour_ms = c.hour_ms) <= seen_commit
        ORDER BY 1
        """,
        [reach(con, "speed")],
    ).fetchall()
    for hour, seen in done:
        for rollup in SPEED_ROLLUPS.values():
            for table in (appended(rollup), merged(rollup)):
                yield table, f"DELETE FROM {table} WHERE time_ms >= {hour} AND time_ms < {hour + HOUR_MS}"
        # Last: until it is gone the hour is looked at again. What was appended meanwhile keeps the hour stale.
        yield "speed_hours", f"DELETE FROM speed_hours WHERE hour_ms = {hour} AND number <= {seen}"


def _steps(
    con: Connection, table: str, before_ms: int, spared: list[Interval], column: str = "time_ms"
) -> Iterator[tuple[str, str]]:
    row = first(con.execute(f"SELECT min({column}) FROM {table} WHERE {column} < {before_ms}"))
    if row is None or row[0] is None:
        return
    but = "".join(f" AND NOT ({column} >= {day.start_ms} AND {column} < {day.end_ms})" for day in spared)
    start, step = floor_to(int(row[0]), HOUR_MS), _HOURS_A_STEP * HOUR_MS
    for at in range(start, before_ms, step):
        end = min(at + step, before_ms)
        yield table, f"DELETE FROM {table} WHERE {column} >= {at} AND {column} < {end}{but}"
