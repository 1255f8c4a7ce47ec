"""Running a scan on DuckDB: one query for everything, its lists made into sketches.

In: a connection, a `Scan`. Out: the table that the protocol promises. Promised: at most
`row_limit` groups, refused beyond; every result is fetched whole, since a half-read one blocks its connection. A scan
is one statement, so it sees one state of the store with a transaction around it or without.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import Final

import duckdb
import numpy as np
import pyarrow as pa

from viewmeter.model.catalogue import Kind, Measure
from viewmeter.model.sketches import merge_kll, of_lists
from viewmeter.olap import embedded_sql as sql
from viewmeter.olap.embedded_database import Limits
from viewmeter.olap.embedded_settings import DuckDBSettings
from viewmeter.olap.embedded_tables import sketch_column
from viewmeter.olap.errors import ScanTooLargeError
from viewmeter.olap.protocol import Scan


def scan(con: duckdb.DuckDBPyConnection, question: Scan, settings: DuckDBSettings, limits: Limits) -> pa.Table:
    """Return the table. Raises ValueError, `ScanTooLargeError` and TimeoutError as `Snapshot.scan` does."""
    ask = _kept_statement if len(question.edges_ms) <= _EDGES_KEPT_MAX else _statement
    statement = ask(question, settings.scan_rows_max)
    with limits.limited(con, settings.scan_timeout_s):
        fetched = _run(con, question, statement, settings.scan_rows_max)
    return _assemble(question, fetched)


def _statement(question: Scan, row_limit: int) -> sql.Sql:
    sql.check_known(question)
    return sql.scan(question, row_limit)


_kept_statement = lru_cache(maxsize=256)(_statement)
_EDGES_KEPT_MAX: Final = 2_000
"""So that what is kept has 20 MB at most."""


def _run(con: duckdb.DuckDBPyConnection, question: Scan, statement: sql.Sql, row_limit: int) -> pa.Table:
    """Ask DuckDB; raises `ScanTooLargeError` beyond `row_limit` groups."""
    fetch = _fetch_lists if any(m.kind in sql.SKETCHES for m in sql.measures_of(question)) else _fetch_numbers
    try:
        table = fetch(con, statement)
    except duckdb.OutOfMemoryException as error:
        raise ScanTooLargeError(row_limit) from error
    if sql.is_by_time(question):
        table = _in_buckets(question.edges_ms, table)
    if table.num_rows > row_limit:
        raise ScanTooLargeError(row_limit)
    return table


def _in_buckets(edges_ms: Sequence[int], table: pa.Table) -> pa.Table:
    """Return sums by instant as sums by bucket."""
    bucket = np.searchsorted(np.asarray(edges_ms, np.int64), table["time_ms"].to_numpy(), side="right") - 1
    order = np.argsort(bucket, kind="stable")
    number = bucket[order]
    first = np.flatnonzero(np.diff(number, prepend=-1))
    columns = {"bucket": pa.array(number[first].astype(np.int32))}
    for name in table.column_names:
        if name != "time_ms":
            values = table[name].to_numpy()[order].astype(np.int64)
            columns[name] = pa.array(np.add.reduceat(values, first) if len(first) else values)
    return pa.table(columns)


def _fetch_numbers(con: duckdb.DuckDBPyConnection, statement: sql.Sql) -> pa.Table:
    """Fetch numbers and words by column. A relation, which gives Arrow without a copy, is bound twice: 0.7 ms."""
    text, parameters = statement
    columns = con.execute(text, parameters or None).fetchnumpy()
    return pa.table({name: pa.array(v, pa.string() if v.dtype == object else None) for name, v in columns.items()})


def _fetch_lists(con: duckdb.DuckDBPyConnection, statement: sql.Sql) -> pa.Table:
    text, parameters = statement
    table: pa.Table = con.sql(text, params=parameters or None).to_arrow_table()
    return table


def _assemble(question: Scan, fetched: pa.Table) -> pa.Table:
    """Return the table with its lists as serialised sketches, null where a group has none."""
    head = [name for name in ("bucket", "time_ms", *question.dimensions) if name in fetched.column_names]
    columns = {name: fetched[name] for name in head}
    for measure in sql.measures_of(question):
        if measure.kind in sql.SKETCHES:
            columns[measure.name] = _sketches(measure, fetched)
        else:
            columns[measure.name] = fetched[measure.name]
    return pa.table(columns)


def _sketches(measure: Measure, fetched: pa.Table) -> pa.Array:
    """Return one sketch a group: of its lists, merged with those that coarse rows hold."""
    made = of_lists(_flat(fetched[measure.name].combine_chunks()), measure.kind)
    name = sketch_column(measure)
    if measure.kind is Kind.HLL or name not in fetched.column_names:
        return made
    coarse = fetched[name].to_pylist()
    if not any(coarse):
        return made
    pairs = zip(made.to_pylist(), coarse, strict=True)
    return pa.array([merge_kll([*(held or ()), *([one] if one else [])]) for one, held in pairs], pa.binary())


def _flat(lists: pa.ListArray) -> pa.ListArray:
    """Return lists of lists as lists of their items: nothing is copied, as Arrow keeps the items in one piece."""
    inner = lists.values
    offsets = np.asarray(inner.offsets)[np.asarray(lists.offsets)]
    return pa.ListArray.from_arrays(pa.array(offsets, pa.int32()), inner.values)
