"""The tables: their names, columns and how a measure merges in SQL. Derived from the catalogue.

Every rollup of the speed layer has two tables of equal columns: `speed_<rollup>` takes what is appended (many rows of
equal keys), and `speed_<rollup>_merged` what compaction made of it (one row a key, sorted). Every rollup has a table
for each of its batch tiers, `<tier>_<rollup>`. Coarser than the minute, a KLL measure of many values is a sketch in a
column beside its list (`<measure>_sketch`); days, weeks and months also say of which zone they are.
"""

from __future__ import annotations

from typing import Final

from viewmeter.model.catalogue import ROLLUPS, SPEED_ROLLUPS, Kind, Measure, Rollup
from viewmeter.model.catalogue.rollups import Tier
from viewmeter.olap.protocol import Table

_TYPES: Final = {
    Kind.ADDITIVE: "BIGINT",
    Kind.GAUGE: "BIGINT",
    Kind.MAX: "BIGINT",
    Kind.LAST: "BIGINT",
    Kind.HLL: "UINTEGER[]",
    Kind.KLL: "DOUBLE[]",
}
CALENDAR: Final[tuple[Tier, ...]] = ("day", "week", "month")
"""The tiers whose rows are of a zone."""


def appended(rollup: Rollup) -> str:
    """Return the table that appends go to."""
    return f"speed_{rollup.name}"


def merged(rollup: Rollup) -> str:
    """Return the table of compacted rows."""
    return f"speed_{rollup.name}_merged"


def batch(rollup: Rollup, tier: Tier) -> str:
    """Return the table of batch rows of a tier."""
    return f"{tier}_{rollup.name}"


def speed_columns(rollup: Rollup) -> dict[str, str]:
    """Return column name -> DuckDB type of the speed layer's tables, in order."""
    return {**_head(rollup), **{m.name: _TYPES[m.kind] for m in rollup.speed_measures}}


def batch_columns(rollup: Rollup, tier: Tier) -> dict[str, str]:
    """Return column name -> DuckDB type of a tier's table, in order."""
    columns = {**_head(rollup), **{m.name: _TYPES[m.kind] for m in rollup.measures}}
    if tier != "minute":
        columns |= {sketch_column(m): "BLOB" for m in rollup.measures if m.kind is Kind.KLL}
    return {**columns, "zone": "VARCHAR"} if tier in CALENDAR else columns


def arriving_columns(rollup: Rollup) -> dict[str, str]:
    """Return the columns that rows of a batch run may have: all measures, sketches as lists."""
    return {**_head(rollup), **{m.name: _TYPES[m.kind] for m in rollup.measures}}


def _head(rollup: Rollup) -> dict[str, str]:
    return {"time_ms": "BIGINT", **{key: "BOOLEAN" if key == "is_bot" else "VARCHAR" for key in rollup.keys}}


def sketch_column(measure: Measure) -> str:
    """Return the column of a KLL measure's serialised sketch."""
    return f"{measure.name}_sketch"


def sources(rollup: Rollup, table: Table) -> list[str]:
    """Return what to read for one table of the protocol. Raises ValueError where the rollup does not have it."""
    if table == "speed":
        return [] if rollup.batch_only else [appended(rollup), merged(rollup)]
    if table not in rollup.tiers:
        raise ValueError(f"rollup {rollup.name} has no {table} tier; it has {', '.join(rollup.tiers)}")
    return [batch(rollup, table)]


def all_tables() -> dict[str, dict[str, str]]:
    """Return table -> columns, of every rollup."""
    found: dict[str, dict[str, str]] = {}
    for rollup in SPEED_ROLLUPS.values():
        found |= {table: speed_columns(rollup) for table in (appended(rollup), merged(rollup))}
    for rollup in ROLLUPS.values():
        found |= {batch(rollup, tier): batch_columns(rollup, tier) for tier in rollup.tiers}
    return found


def create_table(table: str, columns: dict[str, str]) -> str:
    """Return the statement that makes a table where it is missing."""
    return f"CREATE TABLE IF NOT EXISTS {table} ({', '.join(_column(n, t) for n, t in columns.items())})"


def add_column(table: str, name: str, kind: str) -> str:
    """Return the statement that adds a measure that a newer catalogue brought: 0 (no sketch) in old rows."""
    return f"ALTER TABLE {table} ADD COLUMN {_column(name, kind)}"


def _column(name: str, kind: str) -> str:
    if name == "time_ms" or kind in ("VARCHAR", "BOOLEAN"):
        return f"{name} {kind} NOT NULL"
    return f"{name} {kind}{' DEFAULT 0' if kind == 'BIGINT' else ''}"


def merge(measure: Measure) -> str:
    """Return the expression that merges a measure over rows of equal keys."""
    name = measure.name
    if measure.kind is Kind.HLL:
        return f"list_distinct(flatten(list({name}))) AS {name}"
    if measure.kind is Kind.KLL:
        return f"flatten(list({name})) AS {name}"
    if measure.kind is Kind.MAX:
        return f"max({name}) AS {name}"
    if measure.kind is Kind.LAST:
        return f"arg_max({name}, time_ms) AS {name}"
    return f"sum({name})::BIGINT AS {name}"
