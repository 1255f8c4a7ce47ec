"""Running a scan on DuckDB: one query for everything, its lists made into sketches.

In: a connection, a `Scan`. Out: the table that the protocol promises. Promised: at most
`row_limit` groups, refused beyond; every result is fetched whole, since a half-read one blocks its connection. A scan
is one statement, so it sees one state of the store with a transaction around it or without.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import Any, Final, NamedTuple

import duckdb
import numpy as np
import numpy.typing as npt
import pyarrow as pa

from viewmeter.model.catalogue import Kind, Measure
from viewmeter.model.sketches import merge_kll, of_values
from viewmeter.olap import embedded_sql as sql
from viewmeter.olap.embedded_database import Limits
from viewmeter.olap.embedded_settings import DuckDBSettings
from viewmeter.olap.embedded_tables import sketch_column
from viewmeter.olap.errors import ScanTooLargeError
from viewmeter.olap.protocol import Scan

Columns = dict[str, npt.NDArray[Any]]


def scan(con: duckdb.DuckDBPyConnection, question: Scan, settings: DuckDBSettings, limits: Limits) -> pa.Table:
    """Return the table. Raises ValueError, `ScanTooLargeError` and TimeoutError as `Snapshot.scan` does."""
    ask = _kept_statement if len(question.edges_ms) <= _EDGES_KEPT_MAX else _statement
    statement = ask(question, settings.scan_rows_max)
    with limits.limited(con, settings.scan_timeout_s):
        fetched = _run(con, question.edges_ms, statement, settings.scan_rows_max)
    return _assemble(question, fetched)


class _Statement(NamedTuple):
    """What DuckDB is asked. It is parsed once: that is 0.3 ms of each small question, and a copy costs nothing."""

    parsed: duckdb.Statement
    parameters: sql.Parameters


def _statement(question: Scan, row_limit: int) -> _Statement:
    sql.check_known(question)
    text, parameters = sql.scan(question, row_limit)
    (parsed,) = duckdb.extract_statements(text)
    return _Statement(parsed, parameters)


_kept_statement = lru_cache(maxsize=256)(_statement)
_EDGES_KEPT_MAX: Final = 2_000
"""So that what is kept has 20 MB at most."""


def _run(con: duckdb.DuckDBPyConnection, edges_ms: Sequence[int], statement: _Statement, row_limit: int) -> Columns:
    """Ask DuckDB; raises `ScanTooLargeError` beyond `row_limit` groups.

    Columns come as numpy's. A relation, which gives Arrow without a copy, is bound twice: 0.7 ms, and its lists 0.8.
    """
    try:
        columns: Columns = con.execute(statement.parsed, statement.parameters or None).fetchnumpy()
    except duckdb.OutOfMemoryException as error:
        raise ScanTooLargeError(row_limit) from error
    count = len(next(iter(columns.values())))
    if "bucket" not in columns and "time_ms" in columns:
        if count > max(row_limit, sql.INSTANTS_MAX):
            raise ScanTooLargeError(row_limit)  # one video in thousands of channels
        columns = _in_buckets(edges_ms, columns)
    elif "bucket" not in columns:
        columns["bucket"] = np.zeros(count, np.int32)
    if len(columns["bucket"]) > row_limit:
        raise ScanTooLargeError(row_limit)
    return columns


def _in_buckets(edges_ms: Sequence[int], columns: Columns) -> Columns:
    """Return sums by instant as sums by bucket."""
    bucket = np.searchsorted(np.asarray(edges_ms, np.int64), columns["time_ms"], side="right") - 1
    order = np.argsort(bucket, kind="stable")
    number = bucket[order]
    first = np.flatnonzero(np.diff(number, prepend=-1))
    sums: Columns = {"bucket": number[first].astype(np.int32)}
    for name, column in columns.items():
        if name != "time_ms":
            values = np.ma.filled(column, 0)[order].astype(np.int64)
            sums[name] = np.add.reduceat(values, first) if len(first) else values
    return sums


def _assemble(question: Scan, fetched: Columns) -> pa.Table:
    """Return the table with its lists as serialised sketches, null where a group has none."""
    columns = {name: _arrow(fetched[name]) for name in ("bucket", "time_ms", *question.dimensions) if name in fetched}
    for measure in sql.measures_of(question):
        name = measure.name
        columns[name] = _sketches(measure, fetched) if measure.kind in sql.SKETCHES else _arrow(fetched[name])
    return pa.Table.from_arrays([*columns.values()], [*columns])


def _arrow(column: npt.NDArray[Any]) -> pa.Array:
    return pa.array(column, pa.string() if column.dtype == object else None)


def _sketches(measure: Measure, fetched: Columns) -> pa.Array:
    """Return one sketch a group: of its lists, merged with those that coarse rows hold."""
    made = [
        of_values(np.concatenate(lists), measure.kind) if lists else None for lists in _lists(fetched[measure.name])
    ]
    name = sketch_column(measure)
    if measure.kind is Kind.KLL and name in fetched:
        coarse = _lists(fetched[name])
        if any(coarse):
            made = [
                merge_kll([*map(bytes, held), *([one] if one else [])]) for one, held in zip(made, coarse, strict=True)
            ]
    return pa.array(made, pa.binary())


def _lists(column: npt.NDArray[Any]) -> list[list[Any]]:
    """Return the items of each list, [] of null."""
    gone = np.ma.getmaskarray(column).tolist()
    return [[] if null else [*one] for one, null in zip(np.ma.getdata(column), gone, strict=True)]
