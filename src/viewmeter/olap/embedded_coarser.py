"""Rows of a coarser tier from finer ones, and sketches that stay small on the way.

In: a relation of finer rows. Out: rows in the tier's table, inside the caller's transaction. Promised: additive
measures add up, HLL coupons stay the same sketch (thinned to the largest of each register beyond 2^14), KLL values stay
values up to `VALUES_MAX` a row and are a serialised sketch beyond, whose merges keep the error that the catalogue
states.
"""

from __future__ import annotations

from typing import Any, Final

import duckdb
import numpy as np
import pyarrow as pa

from viewmeter.model.catalogue import Kind, Measure, Rollup
from viewmeter.model.catalogue.measures import HLL_LG_K
from viewmeter.model.catalogue.rollups import Tier
from viewmeter.model.sketches import kll_from_values, merge_kll, thin_coupons
from viewmeter.olap.embedded_tables import CALENDAR, arriving_columns, batch, batch_columns, merge, sketch_column

COUPONS_MAX: Final = 1 << HLL_LG_K
"""A row of more coupons is thinned: there are that many registers."""
VALUES_MAX: Final = 512
"""A row of more values is a sketch: from about here on its bytes are fewer than the values'."""

_REGISTERED: Final = "arriving"


def arriving(con: duckdb.DuckDBPyConnection, rollup: Rollup, table: pa.Table) -> str:
    """Make a table of a batch run readable; return the relation, with 0 (no sketch) where it lacks a measure."""
    con.register(_REGISTERED, table)
    present = {*table.column_names}
    columns = [name if name in present else f"{_nothing(kind)} AS {name}" for name, kind in _kinds(rollup)]
    return f"SELECT {', '.join(columns)} FROM {_REGISTERED}"


def _kinds(rollup: Rollup) -> list[tuple[str, str]]:
    return [*arriving_columns(rollup).items()]


def _nothing(kind: str) -> str:
    return "0::BIGINT" if kind == "BIGINT" else f"NULL::{kind}"


def finer(rollup: Rollup, tier: Tier, where: str) -> str:
    """Return the relation of a tier's rows."""
    names = [name for name in batch_columns(rollup, tier) if name != "zone"]
    return f"SELECT {', '.join(names)} FROM {batch(rollup, tier)} WHERE {where}"


def add_coarser(
    con: duckdb.DuckDBPyConnection,
    rollup: Rollup,
    source: str,
    tier: Tier,
    time_sql: str,
    zone: str | None = None,
    has_sketches: bool = True,
) -> None:
    """Insert the rows of `tier` that `source` makes; `time_sql` gives the time of a source row's target.

    `has_sketches`: the source has the columns of serialised sketches (rows of an hour or coarser).
    """
    klls = [m for m in rollup.measures if m.kind is Kind.KLL]
    hlls = [m for m in rollup.measures if m.kind is Kind.HLL]
    keys = ", ".join(rollup.keys)
    merged = [merge(m) for m in rollup.measures]
    for measure in klls:
        name = sketch_column(measure)
        some = f"list({name}) FILTER (WHERE {name} IS NOT NULL)" if has_sketches else "NULL::BLOB[]"
        merged.append(f"{some} AS {name}")
    made = f"SELECT {time_sql} AS row_ms, {', '.join([*rollup.keys, *merged])} FROM ({source}) GROUP BY row_ms, {keys}"
    zone_column = [f"'{zone}' AS zone"] if tier in CALENDAR else []
    order = f"ORDER BY {keys}, row_ms"
    into = f"INSERT INTO {batch(rollup, tier)} BY NAME"
    if not klls and not hlls:
        names = ["row_ms AS time_ms", *rollup.keys, *(m.name for m in rollup.measures), *zone_column]
        con.execute(f"{into} SELECT {', '.join(names)} FROM ({made}) {order}")
        return
    con.execute(f"CREATE OR REPLACE TEMP TABLE made AS {made}")
    joins, columns = [], ["row_ms AS time_ms", *rollup.keys]
    small = {m.name for m in (*hlls, *klls)}
    columns += [m.name for m in rollup.measures if m.name not in small]
    for measure in hlls:
        con.register(f"thin_{measure.name}", _thinned(con, measure))
        joins.append(f"LEFT JOIN thin_{measure.name} ON thin_{measure.name}.row_id = made.rowid")
        columns.append(f"coalesce(thin, made.{measure.name}) AS {measure.name}")
    for measure in klls:
        con.register(f"sketch_{measure.name}", _sketched(con, measure))
        joins.append(f"LEFT JOIN sketch_{measure.name} AS s_{measure.name} ON s_{measure.name}.row_id = made.rowid")
        columns.append(f"CASE WHEN s_{measure.name}.bytes IS NULL THEN made.{measure.name} END AS {measure.name}")
        columns.append(f"s_{measure.name}.bytes AS {sketch_column(measure)}")
    con.execute(f"{into} SELECT {', '.join([*columns, *zone_column])} FROM made {' '.join(joins)} {order}")
    con.execute("DROP TABLE made")
    for measure in hlls:
        con.unregister(f"thin_{measure.name}")
    for measure in klls:
        con.unregister(f"sketch_{measure.name}")


def _thinned(con: duckdb.DuckDBPyConnection, measure: Measure) -> pa.Table:
    name = measure.name
    large = con.sql(f"SELECT rowid AS row_id, {name} FROM made WHERE len({name}) > {COUPONS_MAX}").to_arrow_table()
    thin = [thin_coupons(flat.astype(np.uint32)) for flat in _lists(large[name])]
    return pa.table({"row_id": large["row_id"], "thin": pa.array(thin, pa.list_(pa.uint32()))})


def _sketched(con: duckdb.DuckDBPyConnection, measure: Measure) -> pa.Table:
    """Return sketches for the rows of too many values, and for those made of rows that were sketches already."""
    name, more = measure.name, sketch_column(measure)
    large = con.sql(
        f"SELECT rowid AS row_id, {name}, {more} FROM made WHERE len({name}) > {VALUES_MAX} OR len({more}) > 0"
    ).to_arrow_table()
    made = []
    for flat, several in zip(_lists(large[name]), large[more].to_pylist(), strict=True):
        own = kll_from_values(flat.astype(np.float64))
        made.append(merge_kll([*([own] if own else []), *(several or ())]))
    return pa.table({"row_id": large["row_id"], "bytes": pa.array(made, pa.binary())})


def _lists(column: Any) -> list[Any]:
    return [
        np.asarray(scalar.values.to_numpy(zero_copy_only=False)) if scalar.is_valid else np.zeros(0)
        for scalar in column
    ]
