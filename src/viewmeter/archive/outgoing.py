"""Events of the archive as files that `viewmeter import` takes back, and that anything else can read too.

In: an archive and an interval. Out: Parquet with the archive's columns, or JSON lines with the wire event's names and
what the collector added; absent fields are left out. Promised: importing the file gives the same numbers. `viewer_hash`
goes along (as text in JSON, which has no 64-bit numbers): it is a pseudonym, see docs/explanation/privacy.md.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import IO, Any, Final

import msgspec
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from viewmeter.archive.protocol import ARCHIVE_SCHEMA, ArchiveReader
from viewmeter.model.events import ABSENT, EVENT_SCHEMA, EVENT_TYPES, UNKNOWN, WORD_COLUMNS, Fatality
from viewmeter.model.time import HOUR_MS, Interval, floor_to

PART_EVENTS: Final = 1_000_000
"""About so many events are in memory at once."""

_JSON_ROWS: Final = 20_000
_NUMBERS: Final = tuple(f.name for f in EVENT_SCHEMA if f.type in (pa.int64(), pa.float64()))
_ALWAYS: Final = ("view_key", "viewer_hash", "seq", "ts", "received_at")
_encode: Final = msgspec.json.Encoder().encode_lines


def parts(archive: ArchiveReader, interval: Interval, tenant_id: str | None) -> Iterator[pa.Table]:
    """Yield the events of an interval in bounded parts. Raises `ArchiveDamagedError`."""
    start, end = interval
    for hour in sorted(hour for hour in archive.hours() if floor_to(start, HOUR_MS) <= hour < end):
        cuts = max(1, -(-archive.events(hour) // PART_EVENTS))
        step = 2**64 // cuts
        within = Interval(max(start, hour), min(end, hour + HOUR_MS))
        for cut in range(cuts):
            first = -(2**63) + cut * step
            last = 2**63 - 1 if cut == cuts - 1 else first + step - 1
            table = archive.read(within, key_range=(first, last)) if cuts > 1 else archive.read(within)
            if tenant_id is not None:
                table = table.filter(pc.equal(table["tenant_id"], tenant_id))
            if table.num_rows:
                yield table


def write_parquet(tables: Iterator[pa.Table], sink: IO[bytes]) -> int:
    """Write one Parquet file; return how many events it has."""
    count = 0
    with pq.ParquetWriter(sink, ARCHIVE_SCHEMA, compression="zstd") as writer:
        for table in tables:
            writer.write_table(table)
            count += table.num_rows
    return count


def write_lines(tables: Iterator[pa.Table], sink: IO[bytes]) -> int:
    """Write JSON lines; return how many events they are."""
    count = 0
    for table in tables:
        for batch in table.to_batches(_JSON_ROWS):
            sink.write(_encode([_event(row) for row in batch.select(EVENT_SCHEMA.names).to_pylist()]))
            count += batch.num_rows
    return count


def _event(row: dict[str, Any]) -> dict[str, Any]:
    event: dict[str, Any] = {"type": EVENT_TYPES[row["type"]]}
    event |= {name: row[name] for name in _NUMBERS if row[name] != ABSENT or name in _ALWAYS}
    event |= {name: row[name] for name in WORD_COLUMNS if row[name] != UNKNOWN or name in ("channel_id", "video_id")}
    event |= {name: row[name] for name in ("error_code", "error_message") if row[name]}
    event |= {name: True for name in ("blind", "is_bot") if row[name]}
    event["view_id"] = row["view_id"]
    event["viewer_hash"] = str(row["viewer_hash"])
    del event["view_key"]
    match row["fatal"]:
        case Fatality.HALTED:
            event["halted"] = True
        case Fatality.FATAL | Fatality.GOES_ON:
            event["fatal"] = row["fatal"] == Fatality.FATAL
    return event
