"""Columns on disk between two steps of a run: several tables in one file, read back without a copy.

In: tables. Out: the same tables, mapped into memory. Arrow streams one behind the other, not compressed: they are
written once, read once or twice, and gone a minute later. Promised: nothing of durability; a run that dies is repeated.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa

from viewmeter.batch.codes import Coded
from viewmeter.batch.sums import Rows, in_few_bytes
from viewmeter.model.summing import Sketched, Summed


def write(path: Path, tables: Sequence[pa.Table]) -> None:
    """Write tables to a file of their own."""
    with pa.OSFile(str(path), "wb") as sink:
        for table in tables:
            with pa.ipc.new_stream(sink, table.schema) as writer:
                writer.write_table(table)


def read(path: Path) -> list[pa.Table]:
    """Return the tables of a file."""
    source = pa.memory_map(str(path))
    size, tables = source.size(), []
    while source.tell() < size:
        tables.append(pa.ipc.open_stream(source).read_all())
    return tables


def write_rows(path: Path, rows: Rows) -> None:
    """Write the rows of a rollup; whole numbers in as few bytes as they take."""
    summed = rows.summed
    sums = {name: in_few_bytes(values) for name, values in summed.sums.items()}
    table = pa.table({"time_ms": summed.time_ms, "group": summed.group.astype(np.int32), **sums})
    entries = [
        pa.table({"row": at.astype(np.int32), name: values}) for name, (at, values) in rows.sketched.entries.items()
    ]
    write(path, [table, keys_table(rows.keys), *entries])


def read_rows(path: Path) -> Rows:
    """Return the rows of a rollup."""
    table, keys, *entries = read(path)
    columns = {name: table[name].to_numpy() for name in table.column_names}
    time_ms, group = columns.pop("time_ms"), columns.pop("group")
    sketched = {one.column_names[1]: (one["row"].to_numpy(), one[1].to_numpy()) for one in entries}
    return Rows(Summed(time_ms, group, columns, np.zeros(0, np.int64)), Sketched(sketched), keys_of(keys))


def keys_table(keys: dict[str, Coded]) -> pa.Table:
    """Return the words of groups as a table, one row a group."""
    return pa.table({name: coded.arrow() for name, coded in keys.items()})


def keys_of(table: pa.Table) -> dict[str, Coded]:
    """Return the words of groups."""
    return {name: Coded.of(table[name]) for name in table.column_names}
