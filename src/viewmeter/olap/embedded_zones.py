"""Which tenant reports in which zone, and which days, weeks and months are built or due.

In: the tables `tenant_zones`, `built_periods`, `closed_hours`, `speed_hours`. Out: what the batch side needs to know of
them. Promised: every tenant has days in UTC, and in its own zone from the first day that begins after it was chosen; a
period is due when it is over and nothing in it is open.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable, Iterator, Mapping
from typing import Final

from viewmeter.model.calendar import Period, hour_step_ms, period_of, periods, zone_of
from viewmeter.model.time import DAY_MS, HOUR_MS, Interval
from viewmeter.olap.embedded_database import Connection, first
from viewmeter.olap.protocol import DuePeriod

KINDS: Final[tuple[Period, ...]] = ("day", "week", "month")
_DUE_MAX: Final = 2_000
_FIRST_DAYS: Final = 30


def set_zones(con: Connection, zones: Mapping[str, str], now_ms: int) -> bool:
    """Keep the zones that are new; say whether there were any. Raises a ValueError or KeyError of an unknown zone."""
    found = con.execute("SELECT tenant_id, arg_max(zone, from_ms) FROM tenant_zones GROUP BY 1").fetchall()
    known: dict[str, str] = dict(found)
    changed = False
    for tenant, zone in zones.items():
        if known.get(tenant, "UTC") == zone:
            continue
        from_ms = 0
        if tenant in known or _has_hours(con, tenant):
            from_ms = period_of(now_ms, "day", zone_of(zone)).end_ms
        elif first(con.execute("SELECT 1 FROM closed_hours LIMIT 1")):
            # A new tenant beside old ones: as far back as its hours can still come, not for years of empty days.
            from_ms = period_of(now_ms - _FIRST_DAYS * DAY_MS, "day", zone_of(zone)).start_ms
        con.execute("INSERT INTO tenant_zones VALUES (?, ?, ?, ?)", [tenant, zone, from_ms, hour_step_ms(zone)])
        changed = True
    return changed


def _has_hours(con: Connection, tenant: str) -> bool:
    return first(con.execute("SELECT 1 FROM hour_platform WHERE tenant_id = ? LIMIT 1", [tenant])) is not None


def zones_in_use(con: Connection) -> dict[str, int]:
    """Return zone -> the first instant from which any tenant's days are of it."""
    found = con.execute("SELECT zone, min(from_ms) FROM tenant_zones GROUP BY 1 ORDER BY 1").fetchall()
    return {"UTC": 0, **{zone: from_ms for zone, from_ms in found if zone != "UTC"}}


def zone_since(con: Connection, zone: str, tenant_id: str | None) -> int | None:
    """Return from when on the tenant's days of the zone are there; None: never."""
    if zone == "UTC":
        return 0
    row = first(
        con.execute("SELECT min(from_ms) FROM tenant_zones WHERE zone = ? AND tenant_id = ?", [zone, tenant_id or ""])
    )
    return None if row is None or row[0] is None else int(row[0])


def tenants_where(zone: str, start_ms: int) -> str:
    """Return the condition for rows of tenants whose days of that zone are made."""
    if zone == "UTC":
        return "TRUE"
    mine = f"SELECT tenant_id FROM tenant_zones WHERE zone = '{zone}' AND from_ms <= {start_ms}"
    return f"tenant_id IN ({mine})"


def step_sql(con: Connection) -> str:
    """Return the expression for the start of a row's hour: 60 minutes, or 30 or 15 for tenants that need it."""
    found = con.execute("SELECT DISTINCT step_ms FROM tenant_zones ORDER BY 1").fetchall()
    cases = "".join(
        f" WHEN tenant_id IN (SELECT tenant_id FROM tenant_zones WHERE step_ms = {step}) THEN {step}"
        for (step,) in found
        if step != HOUR_MS
    )
    step = f"(CASE{cases} ELSE {HOUR_MS} END)" if cases else str(HOUR_MS)
    return f"(time_ms - time_ms % {step})"


def built(con: Connection, kind: Period, zone: str) -> list[Interval]:
    """Return the built periods, in order."""
    found = con.execute(
        "SELECT start_ms, end_ms FROM built_periods WHERE kind = ? AND zone = ? ORDER BY 1", [kind, zone]
    ).fetchall()
    return [Interval(*row) for row in found]


def forget_built(con: Connection, kind: Period, zone: str, period: Interval) -> None:
    """Say that a period is not built."""
    con.execute("DELETE FROM built_periods WHERE kind = ? AND zone = ? AND start_ms = ?", [kind, zone, period.start_ms])


def built_with(con: Connection, interval: Interval) -> list[tuple[Period, str, Interval]]:
    """Return the built periods that touch the range: days first, then weeks, then months."""
    found = con.execute(
        "SELECT kind, zone, start_ms, end_ms FROM built_periods WHERE start_ms < ? AND end_ms > ?",
        [interval.end_ms, interval.start_ms],
    ).fetchall()
    return sorted(
        ((kind, zone, Interval(start, end)) for kind, zone, start, end in found),
        key=lambda one: (KINDS.index(one[0]), one[1:]),
    )


def due(con: Connection, before_ms: int) -> list[DuePeriod]:
    """Return what to build, days first; at most `_DUE_MAX`, the rest at the next look."""
    row = first(con.execute("SELECT min(hour_ms) FROM closed_hours"))
    if row is None or row[0] is None:
        return []
    first_ms, open_hours = int(row[0]), _open_hours(con)
    found: list[DuePeriod] = []
    for zone, from_ms in zones_in_use(con).items():
        days = built(con, "day", zone)
        for period in _unbuilt(con, "day", zone, max(first_ms, from_ms), before_ms, from_ms):
            if not _any_inside(open_hours, period):
                found.append(DuePeriod("day", period.start_ms, zone))
                days.append(period)
        have = {day.start_ms for day in days}
        for kind in ("week", "month"):
            found += [
                DuePeriod(kind, period.start_ms, zone)
                for period in _unbuilt(con, kind, zone, max(first_ms, from_ms), before_ms, from_ms)
                if not _missing_days(period, zone, first_ms, have)
            ]
    return sorted(found, key=lambda one: (KINDS.index(one.kind), one.start_ms, one.zone))[:_DUE_MAX]


def _unbuilt(
    con: Connection, kind: Period, zone: str, first_ms: int, before_ms: int, from_ms: int
) -> Iterator[Interval]:
    have = {period.start_ms for period in built(con, kind, zone)}
    for period in periods(Interval(first_ms, before_ms), kind, zone_of(zone)):
        if period.end_ms <= before_ms and period.start_ms >= from_ms and period.start_ms not in have:
            yield period


def missing_days(con: Connection, period: Interval, zone: str) -> list[Interval]:
    """Return the days of a period that are not built though they are not before the first closed hour."""
    row = first(con.execute("SELECT min(hour_ms) FROM closed_hours"))
    first_ms = int(row[0]) if row and row[0] is not None else 0
    return _missing_days(period, zone, first_ms, {day.start_ms for day in built(con, "day", zone)})


def _missing_days(period: Interval, zone: str, first_ms: int, have: Iterable[int]) -> list[Interval]:
    there = set(have)
    days = periods(period, "day", zone_of(zone))
    return [day for day in days if day.end_ms > first_ms and day.start_ms not in there]


def _open_hours(con: Connection) -> list[int]:
    """Return hours with rows of the speed layer (appended or loaded) that are not closed, in order."""
    found = con.execute(
        "SELECT DISTINCT hour_ms FROM speed_hours WHERE hour_ms NOT IN (SELECT hour_ms FROM closed_hours) ORDER BY 1"
    ).fetchall()
    return [hour for (hour,) in found]


def open_inside(con: Connection, period: Interval) -> bool:
    """Say whether any hour of the period is open and has rows."""
    return _any_inside(_open_hours(con), period)


def _any_inside(hours: list[int], period: Interval) -> bool:
    at = bisect_left(hours, period.start_ms - HOUR_MS + 1)
    return at < len(hours) and hours[at] < period.end_ms
