"""Files of events from elsewhere as tables of `EVENT_SCHEMA`: what `viewmeter import` reads.

In: JSON lines (an event a line, as players send it), Parquet with the same columns, or Parquet as the archive writes
it; with or without what the collector would have added (tenant, place, device, `received_at`, `viewer_hash`). Out:
blocks of events, and a rejection for each row that is none. Promised: rows are judged as the collector judges events,
except that they may be of any age; the same file gives the same blocks. Not done: writing to the archive, and reading
whole files into memory.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from itertools import islice
from pathlib import Path
from typing import Any, Final, cast

import msgspec
import pyarrow as pa
import pyarrow.parquet as pq

from viewmeter.archive.incoming_rows import Extras, Row, table_of
from viewmeter.archive.incoming_tables import judged
from viewmeter.collector.dialects import MAX_EVENTS, UndecodableError, native
from viewmeter.metadata.keys import Tenant
from viewmeter.model.events import EVENT_SCHEMA
from viewmeter.model.time import MINUTE_MS, rfc3339, to_ms

MAX_LINE_BYTES: Final = 1 << 16
MAX_AHEAD_MS: Final = 5 * MINUTE_MS
PARQUET_ROWS: Final = 50_000
_REQUIRED: Final = ("type", "ts", "view_id", "seq", "video_id")
_extras: Final = msgspec.json.Decoder(Extras)


class UnreadableFileError(ValueError):
    """The file is none that can be imported; the text says what is wrong and what would be right."""


@dataclass(frozen=True)
class Rejected:
    """A row that was not taken. `row`: its line, or row of the Parquet file, from 1. `raw`: as JSON, if it could be."""

    row: int
    code: str
    detail: str
    raw: bytes = b""


@dataclass(frozen=True)
class Block:
    """Some rows of a file."""

    rows: int
    events: pa.Table
    rejected: list[Rejected] = field(default_factory=list)


@dataclass(frozen=True)
class Owners:
    """Whose events they are. `forced`: all of them; else the row's `tenant_id`, or `default` where it names none."""

    known: Mapping[str, Tenant]
    default: Tenant | None = None
    forced: Tenant | None = None

    def of(self, tenant_id: str | None) -> Tenant | str:
        """Return the tenant, or what is wrong."""
        if self.forced is not None:
            return self.forced
        if tenant_id is None:
            return self.default or "the row names no tenant and there are several here: say which with --tenant"
        return self.known.get(tenant_id) or (
            f"there is no tenant {tenant_id[:60]!r} here: make it with `viewmeter keys create --tenant`, "
            "or say with --tenant whose events these are"
        )


def blocks(path: Path, owners: Owners, now_ms: int) -> Iterator[Block]:
    """Yield the rows of a file in their order. Raises `UnreadableFileError`, OSError."""
    with path.open("rb") as file:
        magic = file.read(4)
    if magic == b"PAR1":
        yield from _of_parquet(path, owners, now_ms)
    else:
        yield from _of_lines(path, owners, now_ms)


def _of_lines(path: Path, owners: Owners, now_ms: int) -> Iterator[Block]:
    with path.open("rb") as file:
        number = 0
        lines = iter(lambda: file.readline(MAX_LINE_BYTES + 1), b"")
        while block := list(islice(_whole(lines), MAX_EVENTS)):
            first, number = number + 1, number + len(block)
            if (
                first == 1
                and not any(line.lstrip().startswith(b"{") for line in block)
                and any(map(bytes.strip, block))
            ):
                raise UnreadableFileError(
                    f"{path} is neither Parquet nor JSON lines: it begins with {block[0][:20]!r}; "
                    'each line is one event, {"type":"play","ts":…,…}'
                )
            yield _decoded(block, first, owners, now_ms)


def _whole(lines: Iterable[bytes]) -> Iterator[bytes]:
    """Yield lines; what is behind the bound of a line that is too long is passed over."""
    cut = False
    for line in lines:
        if not cut:
            yield line
        cut = len(line) > MAX_LINE_BYTES and not line.endswith(b"\n")


def _of_parquet(path: Path, owners: Owners, now_ms: int) -> Iterator[Block]:
    try:
        file = pq.ParquetFile(path)
        names = set(file.schema_arrow.names)
        ours = names >= set(EVENT_SCHEMA.names) and pa.types.is_integer(file.schema_arrow.field("type").type)
        if not ours and (missing := [name for name in _REQUIRED if name not in names]):
            raise UnreadableFileError(
                f"{path} has no column {', '.join(missing)}: it needs {', '.join(_REQUIRED)}, and channel_id"
            )
        number = 0
        for batch in file.iter_batches(PARQUET_ROWS):
            if ours:
                table, reasons = judged(pa.Table.from_batches([batch]), owners.of, now_ms + MAX_AHEAD_MS)
                yield Block(
                    batch.num_rows,
                    table,
                    [
                        Rejected(number + place + 1, code, detail, _json(batch.slice(place, 1).to_pylist()[0]))
                        for place, code, detail in reasons
                    ],
                )
            else:
                for start in range(0, batch.num_rows, MAX_EVENTS):
                    lines = [_json(row) for row in batch.slice(start, MAX_EVENTS).to_pylist()]
                    yield _decoded(lines, number + start + 1, owners, now_ms)
            number += batch.num_rows
    except (pa.ArrowException, OSError) as error:
        raise UnreadableFileError(f"{path} cannot be read as Parquet: {str(error).splitlines()[0]}") from error


def _json(row: Mapping[str, Any]) -> bytes:
    return json.dumps({k: v for k, v in row.items() if v is not None}, default=_plain, ensure_ascii=False).encode(
        "utf-8", "replace"
    )


def _plain(value: Any) -> Any:
    if isinstance(value, datetime):
        return to_ms(value if value.tzinfo else value.replace(tzinfo=UTC))
    return str(value)


def _decoded(lines: list[bytes], first: int, owners: Owners, now_ms: int) -> Block:
    """Return the events of lines; the first of them is row `first`."""
    numbered = [(first + place, line) for place, line in enumerate(lines) if line.strip()]
    rejected: list[Rejected] = []
    rows: list[Row] = []
    for number, line, event in _events(numbered, rejected):
        found = _owned(number, line, event, owners, now_ms)
        if isinstance(found, Rejected):
            rejected.append(found)
        else:
            rows.append(found)
    rejected.sort(key=lambda one: one.row)
    return Block(len(lines), table_of(rows, now_ms), rejected)


def _events(
    numbered: list[tuple[int, bytes]], rejected: list[Rejected]
) -> Iterator[tuple[int, bytes, native.NativeEvent]]:
    """Yield what the collector's decoder takes, and note what it does not."""
    if not numbered:
        return
    try:
        decoded = native.decode(b"[" + b",".join(line for _, line in numbered) + b"]")
    except UndecodableError as error:
        if len(numbered) > 1:  # one line breaks the array: each by itself
            for one in numbered:
                yield from _events([one], rejected)
            return
        number, line = numbered[0]
        code = "malformed" if error.code in ("invalid_json", "not_an_array") else error.code
        detail = f"a line has more than {MAX_LINE_BYTES} bytes" if len(line) > MAX_LINE_BYTES else error.detail
        rejected.append(Rejected(number, code, detail, line[:MAX_LINE_BYTES].strip()))
        return
    if len(decoded.events) + len(decoded.rejected) != len(numbered):  # two values on one line, or half of one
        for one in numbered if len(numbered) > 1 else ():
            yield from _events([one], rejected)
        if len(numbered) == 1:
            rejected.append(Rejected(numbered[0][0], "malformed", "a line is one event", numbered[0][1].strip()))
        return
    for refused in decoded.rejected:
        number, line = numbered[refused.index]
        rejected.append(Rejected(number, refused.code, refused.detail, line.strip()))
    places = decoded.places if decoded.places is not None else range(len(decoded.events))
    for place, event in zip(places, decoded.events, strict=True):
        yield *numbered[place], cast("native.NativeEvent", event)


def _owned(number: int, line: bytes, event: native.NativeEvent, owners: Owners, now_ms: int) -> Row | Rejected:
    """Return the event with what the file knows beside it, or why it cannot be taken."""
    raw = line.strip()
    try:
        extras = _extras.decode(raw)
    except msgspec.ValidationError as error:
        return Rejected(number, "wrong_type", str(error), raw)
    if not event.channel_id:
        return Rejected(number, "missing_field", "`channel_id` is required and absent", raw)
    if event.ts > now_ms + MAX_AHEAD_MS:
        detail = f"`ts` is {rfc3339(round(event.ts))}: more than 5 minutes ahead"
        return Rejected(number, "ts_in_future", detail, raw)
    tenant = owners.of(extras.tenant_id)
    if isinstance(tenant, str):
        return Rejected(number, "unknown_tenant", tenant, raw)
    hashed = extras.hash()
    if isinstance(hashed, str):
        return Rejected(number, "wrong_type", hashed, raw)
    return Row(event, extras, tenant, hashed)
