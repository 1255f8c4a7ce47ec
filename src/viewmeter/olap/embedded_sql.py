"""Scans and compaction as SQL, derived from the catalogue.

In: a `Scan` or a rollup. Out: SQL text, and parameters for its `?` parameters. Promised: of a caller's
values those alone stand in the text that are letters, digits and some marks that mean nothing in SQL; beside them it
has names that the catalogue knows and whole numbers. Not done: running anything.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from itertools import pairwise
from typing import Final, NamedTuple

import numpy as np

from viewmeter.model.catalogue import MEASURES, ROLLUPS, Kind, Measure, Rollup
from viewmeter.model.time import DAY_MS, HOUR_MS, MINUTE_MS, Interval
from viewmeter.olap.embedded_tables import (
    CALENDAR,
    appended,
    merge,
    merged,
    sketch_column,
    sources,
    speed_columns,
)
from viewmeter.olap.protocol import Filter, Part, Scan, Table, Visible

_LITERAL_VALUES_MAX: Final = 50
"""Up to here a list of values is an IN that prunes by zone maps; above it a semi-join."""
INSTANTS_MAX: Final = 10_000
"""Up to here sums are asked for by instant."""
_GRAINS_MS: Final = {"minute": MINUTE_MS, "hour": HOUR_MS, "day": DAY_MS, "week": 7 * DAY_MS, "month": 28 * DAY_MS}
_TREE_RUNS_MAX: Final = 128
"""Up to here buckets are found by a tree of comparisons; above it by an ASOF join with the edges."""

SKETCHES: Final = (Kind.HLL, Kind.KLL)
_HARMLESS: Final = re.compile(r"[A-Za-z0-9_.:/+ -]{1,200}")

Parameters = list[object]
Sql = tuple[str, Parameters]


# --- scans ---------------------------------------------------------------------------------------------------


def scan(question: Scan, row_limit: int) -> Sql:
    """Return the query of all measures, grouped by bucket and dimensions (gauges: one row a sample).

    A sketch is asked for as what it is made of: lists of lists of coupons or values, and (`…_sketch`) of the sketches
    that coarse rows hold. Whoever reads them joins them. Sums over time may come by instant (`_is_by_time`): then a row
    has `time_ms` and no `bucket`. One bucket is not told, unless rows are samples.
    """
    measures = measures_of(question)
    by_sample = any(m.kind is Kind.GAUGE for m in measures)
    by_time = _is_by_time(question)
    has_buckets = len(question.edges_ms) > 2 and not by_time
    with_time = by_time or by_sample or any(m.kind is Kind.LAST for m in measures)
    selects, parameters = _selects(question, measures, has_buckets=has_buckets, with_time=with_time)
    keys = [
        *(["bucket"] if has_buckets else []),
        *(["time_ms"] if by_time or by_sample else []),
        *question.dimensions,
    ]
    # To group by a constant beside a word costs as much as the word itself (20 instead of 13 ms for 90 days by device).
    constant = ["0::INTEGER AS bucket"] if by_sample and not has_buckets else []
    values = [text for m in measures for text in _gathered(question, m)]
    if by_time and _is_one_row_an_instant(question):
        # Nothing to add up in SQL: to group by anything costs 0.5 ms.
        return f"{' UNION ALL '.join(map(_text, selects))}\nLIMIT {max(row_limit, INSTANTS_MAX) + 1}", parameters
    groups = f"GROUP BY {', '.join(keys)}" if keys else "HAVING count(*) > 0"
    text = f"{_together(selects, constant, keys, values)}\n{groups}"
    if question.top is not None:
        way = "DESC" if question.top.largest_first else "ASC"
        order = ", ".join([f"{question.top.measure} {way}", *(f"{name} ASC" for name in question.dimensions)])
        return f"{text}\nORDER BY {order}\nLIMIT {question.top.count}", parameters
    return (text if by_time else f"{text}\nLIMIT {row_limit + 1}"), parameters


def _is_one_row_an_instant(question: Scan) -> bool:
    """Say whether the filters leave one row an instant, or one of each channel that has the video.

    Speed rows are many, one of each micro-batch, until they are merged.
    """
    one = {f.dimension for f in question.filters if not f.negate and len(f.values) == 1}
    if "video_id" in one:
        one.add("channel_id")
    fixed = question.visible.tenant_id is not None and {*ROLLUPS[question.rollup].dimensions} <= one
    return fixed and all(part.table != "speed" for part in parts_of(question))


def _is_by_time(question: Scan) -> bool:
    """Say whether to ask for sums by instant, so that whoever reads them finds the buckets of those few rows.

    To plan a tree of comparisons for 36 months costs DuckDB 3 ms, and a division 5 ns a row.
    """
    if question.dimensions or len(question.edges_ms) == 2:
        return False
    if any(m.kind is not Kind.ADDITIVE for m in measures_of(question)):
        return False
    rollup = ROLLUPS[question.rollup]
    lengths = ((part.interval.end_ms - part.interval.start_ms, part.table) for part in parts_of(question))
    return sum(length // _GRAINS_MS.get(table, rollup.grain_ms) for length, table in lengths) <= INSTANTS_MAX


def _gathered(question: Scan, measure: Measure) -> list[str]:
    """Return the expressions that bring a measure's rows together."""
    if measure.kind not in SKETCHES:
        return [merge(measure)]
    return [f"list({name}) FILTER ({name} IS NOT NULL) AS {name}" for name in columns_of(question, measure)]


def columns_of(question: Scan, measure: Measure) -> list[str]:
    """Return the columns that hold a measure: two where sketches of coarse rows stand beside single values."""
    coarse = any(part.table not in ("speed", "minute") for part in parts_of(question))
    return [measure.name, *([sketch_column(measure)] if measure.kind is Kind.KLL and coarse else [])]


def parts_of(question: Scan) -> tuple[Part, ...]:
    """Return where to read: without parts, everything from the speed layer's rows."""
    return question.parts or (Part("speed", question.interval),)


class _Select(NamedTuple):
    """One SELECT: what it asks for (name to expression), and the rest of it."""

    columns: dict[str, str]
    rest: str

    def shown(self, name: str) -> str:
        """Return a column as it is asked for."""
        text = self.columns[name]
        return name if text == name else f"{text} AS {name}"


def _text(select: _Select) -> str:
    return f"SELECT {', '.join(map(select.shown, select.columns))} {select.rest}"


def _together(selects: Sequence[_Select], constant: Sequence[str], keys: Sequence[str], values: Sequence[str]) -> str:
    """Return the query over all SELECTs, without its groups; over one of them it is flat, which saves 0.1 ms."""
    only = selects[0]
    if len(selects) == 1 and all(text == name for name, text in only.columns.items() if name != "bucket"):
        return f"SELECT {', '.join([*constant, *map(only.shown, keys), *values])} {only.rest}"
    return f"SELECT {', '.join([*constant, *keys, *values])}\nFROM ({' UNION ALL '.join(map(_text, selects))})"


def _selects(
    question: Scan, measures: Sequence[Measure], *, has_buckets: bool, with_time: bool
) -> tuple[list[_Select], Parameters]:
    """Return all rows asked for: one SELECT a table, whatever number of ranges is read from it."""
    rollup = ROLLUPS[question.rollup]
    head: dict[str, str] = {}
    join, bucket_parameters = "", Parameters()
    if has_buckets:
        bucket, join, bucket_parameters = bucket_sql(question.edges_ms)
        head["bucket"] = f"({bucket})::INTEGER"
    if with_time:
        head["time_ms"] = "time_ms"
    head |= {name: _spoken(name) for name in question.dimensions}
    ranges_of = _ranges(question)
    if not any(sources(rollup, table) for table, _ in ranges_of):
        ranges_of = {(rollup.tiers[0], ""): []}  # nothing is where this rollup has rows: an answer's shape, and no row
    selects: list[_Select] = []
    parameters: Parameters = []
    for (table, zone), ranges in ranges_of.items():
        where, where_parameters = _where(question, table, zone, ranges)
        wanted = {name: _read(m, name, table) for m in measures for name in columns_of(question, m)}
        for name in sources(rollup, table):
            selects.append(_Select(head | wanted, f"FROM {name} AS r{join} WHERE {where}"))
            parameters += [*bucket_parameters, *where_parameters]
    return selects, parameters


def _read(measure: Measure, column: str, table: Table) -> str:
    """Return the column, or what stands for it in a table that does not have it."""
    if column != measure.name and table in ("speed", "minute"):
        return "NULL::BLOB"
    if table != "speed" or not measure.batch_only:
        return column
    return "NULL::DOUBLE[]" if measure.kind is Kind.KLL else "0::BIGINT"


def _ranges(question: Scan) -> dict[tuple[Table, str], list[Interval]]:
    """Return the ranges by table (and zone, where rows are of one), cut to the question, neighbours joined."""
    start_ms, end_ms = question.interval
    found: dict[tuple[Table, str], list[Interval]] = {}
    for part in sorted(parts_of(question), key=lambda p: p.interval):
        inside = Interval(max(part.interval.start_ms, start_ms), min(part.interval.end_ms, end_ms))
        if inside.start_ms >= inside.end_ms:
            continue
        ranges = found.setdefault((part.table, part.zone if part.table in CALENDAR else ""), [])
        if ranges and ranges[-1].end_ms == inside.start_ms:
            ranges[-1] = Interval(ranges[-1].start_ms, inside.end_ms)
        else:
            ranges.append(inside)
    return found


def _spoken(dimension: str) -> str:
    # Every dimension is a string in answers, as from Druid.
    return "is_bot::VARCHAR" if dimension == "is_bot" else dimension


def _where(question: Scan, table: Table, zone: str, ranges: Sequence[Interval]) -> Sql:
    # The outer bounds prune row groups; the ranges between them say which rows count.
    parts: list[str] = ["FALSE"]
    if ranges:
        parts = [f"time_ms >= {ranges[0].start_ms}", f"time_ms < {ranges[-1].end_ms}"]
    if len(ranges) > 1:
        parts.append("(" + " OR ".join(f"time_ms >= {r.start_ms} AND time_ms < {r.end_ms}" for r in ranges) + ")")
    parameters: Parameters = []
    if table in CALENDAR:
        text, values = _written(zone)
        parts.append(f"zone = {text}")
        parameters += values
    conditions, values = row_filters(question)
    return " AND ".join([*parts, *conditions]), [*parameters, *values]


def row_filters(question: Scan, but: Sequence[str] = ()) -> tuple[list[str], Parameters]:
    """Return the conditions of whose rows are asked for, without those on the dimensions of `but`."""
    conditions: list[str] = []
    parameters: Parameters = []
    filters = (f for f in question.filters if f.dimension not in but)
    for text, values in (_visible(question.visible), *(_filter(f) for f in filters)):
        if text:
            conditions.append(text)
            parameters += values
    return conditions, parameters


def _visible(visible: Visible) -> Sql:
    parts: list[str] = []
    parameters: Parameters = []
    if visible.tenant_id is not None:
        text, values = _written(visible.tenant_id)
        parts.append(f"tenant_id = {text}")
        parameters += values
    if visible.channels is not None:
        text, values = _filter(Filter("channel_id", visible.channels))
        parts.append(text)
        parameters += values
    return " AND ".join(parts), parameters


def _filter(f: Filter) -> Sql:
    no = "NOT " if f.negate else ""
    if not f.values:
        return ("TRUE" if f.negate else "FALSE"), []
    if f.dimension == "is_bot":
        either = {"is_bot" if v == "true" else "NOT is_bot" for v in f.values}  # the cheapest there is for DuckDB
        return f"{no}({' OR '.join(sorted(either))})", []
    if len(f.values) > _LITERAL_VALUES_MAX:
        return f"{f.dimension} {no}IN (SELECT unnest(?::VARCHAR[]))", [list(f.values)]
    written = [_written(value) for value in f.values]
    texts, parameters = ", ".join(text for text, _ in written), [p for _, several in written for p in several]
    return f"{f.dimension} {no}IN ({texts})", parameters


def _written(value: str) -> Sql:
    """Return a text of a caller: itself where it has harmless characters alone, else a parameter.

    A statement with parameters is planned twice by DuckDB, once before it has looked at them: 0.5 ms each time.
    """
    return (f"'{value}'", []) if _HARMLESS.fullmatch(value) else ("?", [value])


def bucket_sql(edges_ms: Sequence[int], time: str = "time_ms") -> tuple[str, str, Parameters]:
    """Return (expression over the time column, join, parameters) that finds the bucket of a row `r`."""
    if len(edges_ms) == 2:
        return "0", "", []  # a constant costs nothing to group by
    runs = _runs(edges_ms)
    if len(runs) <= _TREE_RUNS_MAX:
        return _tree(runs, time), "", []
    return _joined(edges_ms, time)


def _joined(edges_ms: Sequence[int], time: str) -> tuple[str, str, Parameters]:
    join = " ASOF JOIN (SELECT unnest(?::BIGINT[]) AS edge_ms, unnest(?::INTEGER[]) AS number) AS e"
    starts = list(edges_ms[:-1])
    return "e.number", f"{join} ON r.{time} >= e.edge_ms", [starts, list(range(len(starts)))]


def _runs(edges_ms: Sequence[int]) -> list[tuple[int, int, int]]:
    """Return (first bucket, start, width) of runs of equal buckets: a year of days is three, with two clock changes."""
    edges = np.asarray(edges_ms, np.int64)
    widths = np.diff(edges)
    first = np.flatnonzero(np.diff(widths, prepend=0))
    return list(zip(first.tolist(), edges[first].tolist(), widths[first].tolist(), strict=True))


def _tree(runs: list[tuple[int, int, int]], time: str) -> str:
    if len(runs) > 1:
        middle = len(runs) // 2
        right = runs[middle][1]
        return f"CASE WHEN {time} < {right} THEN {_tree(runs[:middle], time)} ELSE {_tree(runs[middle:], time)} END"
    number, start, width = runs[0]
    return f"{number} + ({time} - {start}) // {width}"


# --- compaction ----------------------------------------------------------------------------------------------


def compact_statements(rollup: Rollup, part: Interval) -> list[str]:
    """Return the statements, for one transaction, that move a part from the appended to the merged table.

    Rows of minutes that were merged before (late events) meet their equals again: those are taken out by their row
    id and merged anew. `stale` is empty nearly always, and found by zone maps of time.
    """
    raw, done, keys = appended(rollup), merged(rollup), ["time_ms", *rollup.keys]
    inside = f"time_ms >= {part.start_ms} AND time_ms < {part.end_ms}"
    names = ", ".join(speed_columns(rollup))
    values = ", ".join([*keys, *(merge(m) for m in rollup.speed_measures)])
    spread = ", ".join(keys)
    equals = f"({spread}) IN (SELECT ({spread}) FROM {raw} WHERE {inside})"
    together = f"SELECT {names} FROM {raw} WHERE {inside} UNION ALL SELECT {names} FROM stale"
    order = ", ".join([*rollup.keys, "time_ms"])
    return [
        f"CREATE OR REPLACE TEMP TABLE stale AS SELECT rowid AS row_id, * FROM {done} WHERE {inside} AND {equals}",
        f"DELETE FROM {done} WHERE {inside} AND rowid IN (SELECT row_id FROM stale)",
        f"INSERT INTO {done} BY NAME SELECT {values} FROM ({together}) GROUP BY {spread} ORDER BY {order}",
        f"DELETE FROM {raw} WHERE {inside}",
        "DROP TABLE stale",
    ]


def check_known(question: Scan) -> None:
    """Raise ValueError for what the rollup does not have: these names become SQL."""
    rollup = ROLLUPS.get(question.rollup)
    if rollup is None:
        raise ValueError(f"no rollup is called {question.rollup!r}; there are {', '.join(ROLLUPS)}")
    asked = {*question.dimensions, *(f.dimension for f in question.filters)}
    if question.visible.channels is not None:
        asked.add("channel_id")
    if missing := asked - {*rollup.keys}:
        raise ValueError(f"rollup {rollup.name} has no dimension {', '.join(sorted(missing))}")
    have = {m.name for m in rollup.measures}
    if missing := {*question.measures} - have:
        raise ValueError(f"rollup {rollup.name} has no measure {', '.join(sorted(missing))}")
    if question.top is not None and (len(question.edges_ms) != 2 or question.top.measure not in question.measures):
        raise ValueError("the first groups are those of one bucket, by a measure that is asked for")
    edges = np.asarray(question.edges_ms, np.int64)
    if len(edges) < 2 or (np.diff(edges) <= 0).any():
        raise ValueError("edges_ms must be at least two ascending instants")
    grain_ms = min(rollup.grain_ms, MINUTE_MS)  # days of zones off the hour cut rows by the hour at their start
    if (edges % grain_ms).any():
        raise ValueError(f"edges_ms must be multiples of the grain of {rollup.name}, {grain_ms} ms")
    _check_parts(question, rollup)


def _check_parts(question: Scan, rollup: Rollup) -> None:
    for part in question.parts:
        sources(rollup, part.table)  # refuses tiers that it does not have
    for before, after in pairwise(sorted(part.interval for part in question.parts)):
        if before.end_ms > after.start_ms:
            raise ValueError(f"parts overlap at {after.start_ms}: a row would count twice")


def measures_of(question: Scan) -> list[Measure]:
    """Return the asked measures, each once."""
    return [MEASURES[name] for name in dict.fromkeys(question.measures)]
