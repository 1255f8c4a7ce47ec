"""The answer: rows as dictionaries, and the same rows as CSV and Parquet files."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import msgspec
import pyarrow as pa
import pyarrow.parquet as pq

from viewmeter.model.catalogue import METRICS
from viewmeter.model.catalogue.metrics import Histogram

Row = dict[str, Any]


class Rows(list[Row]):
    """Rows that remember how they are written, since an answer that is kept is sent again and again."""

    written: bytes | None = None

    def to_json(self) -> bytes:
        """Return the rows as a JSON array."""
        if self.written is None:
            self.written = msgspec.json.encode(self)
        return self.written


@dataclass(frozen=True)
class Answer:
    """Rows of one page (`time`, dimensions, metrics), what stands behind them, and the way to the next page.

    Rows may be shared with the cache: read them, do not change them.
    """

    rows: Rows
    meta: dict[str, Any]
    next_cursor: str | None
    dimensions: tuple[str, ...] = ()
    metrics: tuple[str, ...] = ()

    def to_json(self) -> bytes:
        """Return the answer as the JSON object of the API."""
        rows = msgspec.Raw(self.rows.to_json())
        return msgspec.json.encode({"rows": rows, "meta": self.meta, "next_cursor": self.next_cursor})

    def to_csv(self) -> str:
        """Return the rows as CSV (RFC 4180) with a header. A histogram has one column a bucket: `name.bucket`."""
        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\r\n")
        columns = self._columns()
        writer.writerow(columns)
        for row in self.rows:
            writer.writerow([_cell(_value(row, path)) for path in columns.values()])
        return text.getvalue()

    def to_parquet(self) -> bytes:
        """Return the rows as a Parquet file; `time` is an instant in the query's zone."""
        columns: dict[str, pa.Array] = {}
        for name, path in self._columns().items():
            values = [_value(row, path) for row in self.rows]
            if name == "time":
                zone = str(self.meta.get("time_zone", "UTC"))
                columns[name] = pa.array([datetime.fromisoformat(v) for v in values], pa.timestamp("ms", zone))
            else:
                columns[name] = pa.array(values, _arrow_type(name, values))
        sink = io.BytesIO()
        pq.write_table(pa.table(columns), sink)
        return sink.getvalue()

    def _columns(self) -> dict[str, tuple[str, ...]]:
        return {".".join(path): path for path in _paths(self.dimensions, self.metrics)}


def _paths(dimensions: Sequence[str], metrics: Sequence[str]) -> Iterator[tuple[str, ...]]:
    yield from (("time",), *((name,) for name in dimensions))
    for name in metrics:
        metric = METRICS[name]
        if isinstance(metric, Histogram):
            yield from ((name, bucket) for bucket in metric.buckets)
        else:
            yield (name,)


def _value(row: Mapping[str, Any], path: tuple[str, ...]) -> Any:
    value = row[path[0]]
    return value if len(path) == 1 else value[path[1]]


def _cell(value: Any) -> Any:
    if isinstance(value, bool):
        return "true" if value else "false"
    return value  # csv writes None as nothing and floats in full


def _arrow_type(name: str, values: Sequence[Any]) -> pa.DataType:
    if name.partition(".")[0] not in METRICS:
        return pa.bool_() if name == "is_bot" else pa.string()
    return pa.int64() if values and all(isinstance(v, int) for v in values) else pa.float64()
