"""The SQL of the DuckDB store, rendered from the catalogue.

In: rollups, measures and a `Scan`. Out: statements with `?` parameters. Promised: no value of a caller is ever put
into the text, only names that the catalogue knows. Not done: running anything.

Every rollup has two tables of equal columns: `speed_<rollup>` takes what is appended (many rows of equal keys), and
`speed_<rollup>_merged` what compaction made of it (one row a key, sorted). A scan reads both.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Final

from viewmeter.model.catalogue import MEASURES, SPEED_ROLLUPS, Kind, Measure, Rollup
from viewmeter.model.time import Interval
from viewmeter.olap.protocol import Filter, Scan, Visible

_TYPES: Final = {Kind.ADDITIVE: "BIGINT", Kind.GAUGE: "BIGINT", Kind.HLL: "UINTEGER[]", Kind.KLL: "DOUBLE[]"}
_LITERAL_VALUES_MAX: Final = 50
"""Up to here a list of values is an IN that prunes by zone maps; above it a semi-join."""
_TREE_RUNS_MAX: Final = 128
"""Up to here buckets are found by a tree of comparisons; above it by an ASOF join with the edges."""

Parameters = list[object]
Sql = tuple[str, Parameters]


def appended(rollup: Rollup) -> str:
    """Return the table that appends go to."""
    return f"speed_{rollup.name}"


def merged(rollup: Rollup) -> str:
    """Return the table of compacted rows."""
    return f"speed_{rollup.name}_merged"


def columns(rollup: Rollup) -> dict[str, str]:
    """Return column name -> DuckDB type, in the order of the tables."""
    keys = {key: "BOOLEAN" if key == "is_bot" else "VARCHAR" for key in rollup.keys}
    return {"time_ms": "BIGINT", **keys, **{m.name: _TYPES[m.kind] for m in rollup.speed_measures}}


def create_table(rollup: Rollup, table: str) -> str:
    """Return the statement that makes a table where it is missing."""
    return f"CREATE TABLE IF NOT EXISTS {table} ({', '.join(_column(rollup, name) for name in columns(rollup))})"


def add_column(rollup: Rollup, table: str, name: str) -> str:
    """Return the statement that adds a measure that a newer catalogue brought: 0 (no sketch) in old rows."""
    return f"ALTER TABLE {table} ADD COLUMN {_column(rollup, name)}"


def _column(rollup: Rollup, name: str) -> str:
    kind = columns(rollup)[name]
    if name in ("time_ms", *rollup.keys):
        return f"{name} {kind} NOT NULL"
    return f"{name} {kind}{' DEFAULT 0' if kind == 'BIGINT' else ''}"


# --- scans ---------------------------------------------------------------------------------------------------


def scan_sums(question: Scan, measures: Sequence[Measure], row_limit: int) -> Sql:
    """Return the query for additive measures (or gauges: one row a sample), grouped by bucket and dimensions."""
    by_sample = any(m.kind is Kind.GAUGE for m in measures)
    source, parameters = _source(question, [m.name for m in measures], by_sample)
    sums = [f"sum({m.name})::BIGINT AS {m.name}" for m in measures]
    head = ["bucket", *(["time_ms"] if by_sample else []), *question.dimensions]
    return (
        f"SELECT {', '.join([*head, *sums])}\nFROM ({source})\nGROUP BY {', '.join(head)}\nLIMIT {row_limit + 1}",
        parameters,
    )


def scan_lists(question: Scan, measure: Measure, row_limit: int) -> Sql:
    """Return the query for one sketch: every coupon (or value) of a group in one list.

    UNNEST and list() take 20 ns a coupon; flatten(list()) takes 30, and DISTINCT in SQL 60 to 80.
    """
    source, parameters = _source(question, [measure.name], by_sample=False)
    head = ", ".join(["bucket", *question.dimensions])
    items = f"SELECT {head}, unnest({measure.name}) AS item FROM ({source})"
    lists = f"SELECT {head}, list(item) AS {measure.name}\nFROM ({items})\nGROUP BY {head}"
    return f"{lists}\nLIMIT {row_limit + 1}", parameters


def _source(question: Scan, measures: Sequence[str], by_sample: bool) -> Sql:
    rollup = SPEED_ROLLUPS[question.rollup]
    where, where_parameters = _where(question)
    bucket, join, bucket_parameters = _bucket(question.edges_ms)
    dimensions = [_spoken(d) for d in question.dimensions]
    names = ", ".join([f"({bucket})::INTEGER AS bucket", *(["time_ms"] if by_sample else []), *dimensions, *measures])
    both = " UNION ALL ".join(
        f"SELECT {names} FROM {table} AS r{join} WHERE {where}" for table in (appended(rollup), merged(rollup))
    )
    return both, [*bucket_parameters, *where_parameters] * 2


def _spoken(dimension: str) -> str:
    # Every dimension is a string in answers, as from Druid.
    return "is_bot::VARCHAR AS is_bot" if dimension == "is_bot" else dimension


def _where(question: Scan) -> Sql:
    start_ms, end_ms = question.interval
    parts: list[str] = [f"time_ms >= {start_ms}", f"time_ms < {end_ms}"]
    parameters: Parameters = []
    for text, values in (_visible(question.visible), *(_filter(f) for f in question.filters)):
        if text:
            parts.append(text)
            parameters += values
    return " AND ".join(parts), parameters


def _visible(visible: Visible) -> Sql:
    parts: list[str] = []
    parameters: Parameters = []
    if visible.tenant_id is not None:
        parts.append("tenant_id = ?")
        parameters.append(visible.tenant_id)
    if visible.channels is not None:
        text, values = _filter(Filter("channel_id", visible.channels))
        parts.append(text)
        parameters += values
    return " AND ".join(parts), parameters


def _filter(f: Filter) -> Sql:
    values: Parameters = [v == "true" for v in f.values] if f.dimension == "is_bot" else list(f.values)
    no = "NOT " if f.negate else ""
    if not values:
        return ("TRUE" if f.negate else "FALSE"), []
    if len(values) <= _LITERAL_VALUES_MAX:
        return f"{f.dimension} {no}IN ({', '.join('?' * len(values))})", values
    return f"{f.dimension} {no}IN (SELECT unnest(?::VARCHAR[]))", [values]


def _bucket(edges_ms: Sequence[int]) -> tuple[str, str, Parameters]:
    """Return (expression over time_ms, join, parameters) that finds the bucket of a row."""
    if len(edges_ms) == 2:
        return "0", "", []  # a constant costs nothing to group by
    runs = _runs(edges_ms)
    if len(runs) <= _TREE_RUNS_MAX:
        return _tree(runs), "", []
    join = " ASOF JOIN (SELECT unnest(?::BIGINT[]) AS edge_ms, unnest(?::INTEGER[]) AS number) AS e"
    starts = list(edges_ms[:-1])
    return "e.number", f"{join} ON r.time_ms >= e.edge_ms", [starts, list(range(len(starts)))]


def _runs(edges_ms: Sequence[int]) -> list[tuple[int, int, int]]:
    """Return (first bucket, start, width) of runs of equal buckets: a year of days is three, with two clock changes."""
    runs: list[tuple[int, int, int]] = []
    for number, (start, end) in enumerate(pairwise(edges_ms)):
        if not runs or runs[-1][2] != end - start:
            runs.append((number, start, end - start))
    return runs


def _tree(runs: list[tuple[int, int, int]]) -> str:
    if len(runs) > 1:
        middle = len(runs) // 2
        right = runs[middle][1]
        return f"CASE WHEN time_ms < {right} THEN {_tree(runs[:middle])} ELSE {_tree(runs[middle:])} END"
    number, start, width = runs[0]
    return f"{number} + (time_ms - {start}) // {width}"


# --- compaction ----------------------------------------------------------------------------------------------


def compact_statements(rollup: Rollup, part: Interval) -> list[str]:
    """Return the statements, for one transaction, that move a part from the appended to the merged table.

    Rows of minutes that were merged before (late events) meet their equals again: those are taken out by their row
    id and merged anew. `stale` is empty nearly always, and found by zone maps of time.
    """
    raw, done, keys = appended(rollup), merged(rollup), ["time_ms", *rollup.keys]
    inside = f"time_ms >= {part.start_ms} AND time_ms < {part.end_ms}"
    names = ", ".join(columns(rollup))
    values = ", ".join([*keys, *(_merge(m) for m in rollup.speed_measures)])
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


def _merge(measure: Measure) -> str:
    if measure.kind is Kind.HLL:
        return f"list_distinct(flatten(list({measure.name}))) AS {measure.name}"
    if measure.kind is Kind.KLL:
        return f"flatten(list({measure.name})) AS {measure.name}"
    return f"sum({measure.name})::BIGINT AS {measure.name}"


def check_known(question: Scan) -> None:
    """Raise ValueError for what the rollup does not have: these names become SQL."""
    rollup = SPEED_ROLLUPS.get(question.rollup)
    if rollup is None:
        raise ValueError(f"no rollup is called {question.rollup!r}; there are {', '.join(SPEED_ROLLUPS)}")
    asked = {*question.dimensions, *(f.dimension for f in question.filters)}
    if question.visible.channels is not None:
        asked.add("channel_id")
    if missing := asked - {*rollup.keys}:
        raise ValueError(f"rollup {rollup.name} has no dimension {', '.join(sorted(missing))}")
    have = {m.name for m in rollup.speed_measures}
    if missing := {*question.measures} - have:
        raise ValueError(f"rollup {rollup.name} has no measure {', '.join(sorted(missing))}")
    edges = question.edges_ms
    if len(edges) < 2 or any(a >= b for a, b in pairwise(edges)):
        raise ValueError("edges_ms must be at least two ascending instants")
    if any(edge % rollup.grain_ms for edge in edges):
        raise ValueError(f"edges_ms must be multiples of the grain of {rollup.name}, {rollup.grain_ms} ms")


def measures_of(question: Scan) -> list[Measure]:
    """Return the asked measures, each once."""
    return [MEASURES[name] for name in dict.fromkeys(question.measures)]
