"""Compaction of the speed layer's rows: equal keys merged, so that scans read few.

In: the instant before which rows are merged. Out: rows saved. Promised: reads only what was appended since the last
time, in transactions of about `compact_rows` rows; appends go on meanwhile, since a transaction deletes the very rows
that it merged and what arrives later stays for next time. So it belongs in a thread of its own.
"""

from __future__ import annotations

from typing import Final

import numpy as np

from viewmeter.model.catalogue import SPEED_ROLLUPS, Kind, Rollup
from viewmeter.model.sketches import thin_coupons
from viewmeter.model.time import Interval
from viewmeter.olap import embedded_sql as sql
from viewmeter.olap.embedded_database import Connection, first, transaction
from viewmeter.olap.embedded_tables import appended, merged

_COUPONS_THIN: Final = 32_768
"""Rows of more viewers than this are thinned when compacted: beyond 2^14 a sketch keeps registers only."""


def compact(con: Connection, before_ms: int, compact_rows: int) -> int:
    """Merge appended rows older than `before_ms`; return the number of rows saved."""
    saved = 0
    for rollup in SPEED_ROLLUPS.values():
        for part in _parts(con, rollup, before_ms, compact_rows):
            saved += _compact_part(con, rollup, part)
    _merge_touches(con)
    return saved


def count_rows(con: Connection, rollup: Rollup) -> int:
    """Return how many rows of the speed layer a rollup has."""
    tables = (appended(rollup), merged(rollup))
    row = first(con.execute("SELECT " + " + ".join(f"(SELECT count(*) FROM {table})" for table in tables)))
    return int(row[0]) if row else 0


def _parts(con: Connection, rollup: Rollup, before_ms: int, compact_rows: int) -> list[Interval]:
    counts = con.execute(
        f"SELECT time_ms, count(*) FROM {appended(rollup)} WHERE time_ms < ? GROUP BY 1 ORDER BY 1", [before_ms]
    ).fetchall()
    parts: list[Interval] = []
    start, rows = 0, 0
    for time_ms, count in counts:
        start = start if rows else time_ms
        rows += count
        if rows >= compact_rows:
            parts.append(Interval(start, time_ms + 1))
            rows = 0
    if rows:
        parts.append(Interval(start, counts[-1][0] + 1))
    return parts


def _compact_part(con: Connection, rollup: Rollup, part: Interval) -> int:
    with transaction(con):
        before = count_rows(con, rollup)
        for statement in sql.compact_statements(rollup, part):
            con.execute(statement)
        if any(m.kind is Kind.HLL for m in rollup.speed_measures):
            _thin(con, rollup, part)
        return before - count_rows(con, rollup)


def _merge_touches(con: Connection) -> None:
    """Keep one row an hour of those that say which commit touched it last (and whether rows were loaded)."""
    with transaction(con):
        con.execute("CREATE OR REPLACE TEMP TABLE touched AS SELECT rowid AS row_id, * FROM speed_hours")
        con.execute("DELETE FROM speed_hours WHERE rowid IN (SELECT row_id FROM touched)")
        con.execute("INSERT INTO speed_hours SELECT hour_ms, max(number) FROM touched WHERE number >= 0 GROUP BY 1")
        con.execute("INSERT INTO speed_hours SELECT DISTINCT hour_ms, number FROM touched WHERE number < 0")
        con.execute("DROP TABLE touched")


def _thin(con: Connection, rollup: Rollup, part: Interval) -> None:
    table = merged(rollup)
    rows = con.execute(
        f"SELECT rowid, viewers_hll FROM {table} WHERE time_ms >= ? AND time_ms < ? AND len(viewers_hll) > ?",
        [part.start_ms, part.end_ms, _COUPONS_THIN],
    ).fetchall()
    for row_id, coupons in rows:
        thin = thin_coupons(np.asarray(coupons, np.uint32)).tolist()
        con.execute(f"UPDATE {table} SET viewers_hll = ? WHERE rowid = ?", [thin, row_id])
