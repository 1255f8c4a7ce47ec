"""The archive's files: their names, their bytes, and how a row is found in them again.

In: a table of `ARCHIVE_SCHEMA`. Out: Parquet (zstd), sorted by tenant, view and `seq`, with a checksum a page.
Promised: a file that `write` returned for is durable under its temporary name, which no glob of `*.parquet` and no
reader that skips hidden files will find. Not done here: deciding which files count (the manifest does).

Encodings were chosen by measuring (decision 0080): whole numbers as deltas, since neighbours in the file are neighbours
in a view; words and rare columns by dictionary; `view_id` by what it shares with the one before.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from viewmeter import disk
from viewmeter.archive.embedded_manifest import ArchivedFile
from viewmeter.archive.protocol import ARCHIVE_SCHEMA, ArchiveDamagedError
from viewmeter.model.events import WORD_COLUMNS
from viewmeter.model.time import HOUR_MS, MINUTE_MS, from_ms

_DELTAS: Final = (
    "view_key", "viewer_hash", "seq", "ts", "received_at", "position_ms", "played_ms", "rebuffered_ms",
    "rebuffer_count", "offset",
)  # fmt: skip
_BY_DICTIONARY: Final = [
    *WORD_COLUMNS, "error_code", "error_message", "duration_ms", "bitrate_kbps", "playback_rate", "startup_ms",
    "type", "fatal", "partition",
]  # fmt: skip
_ENCODING: Final = dict.fromkeys(_DELTAS, "DELTA_BINARY_PACKED") | {"view_id": "DELTA_BYTE_ARRAY"}
_WITH_STATISTICS: Final = ["view_key", "ts", "viewer_hash", "received_at", "tenant_id", "channel_id", "video_id"]
_UNREADABLE: Final = (pa.ArrowException, OSError, ValueError, KeyError)

MARGIN_MS: Final = 5 * MINUTE_MS
_SPLIT_ROWS: Final = 20_000

Array = npt.NDArray[Any]


def folder(root: Path, hour_ms: int) -> Path:
    """Return the folder of an hour."""
    moment = from_ms(hour_ms)
    return root / f"date={moment:%Y-%m-%d}" / f"hour={moment:%H}"


def final_path(root: Path, file: ArchivedFile) -> Path:
    """Return where a file is once its commit has settled."""
    return folder(root, file.hour_ms) / f"{file.number:010d}.parquet"


def temporary_path(root: Path, file: ArchivedFile) -> Path:
    """Return where a file is until then."""
    return folder(root, file.hour_ms) / f".{file.number:010d}.parquet.tmp"


def ours(root: Path) -> Iterator[Path]:
    """Yield every Parquet file that this archive wrote or began to write."""
    for pattern in ("*.parquet", ".*.parquet.tmp"):
        yield from root.glob(f"date=*/hour=*/{pattern}")


def in_order(pieces: list[pa.Table]) -> tuple[pa.Table, Array]:
    """Return the events by hour, tenant, view and `seq` (equal ones as they came), and the hour of each.

    Empties the list: of events by the hundred thousand there is no room for a copy more than is needed.
    """
    events = pa.concat_tables(pieces).unify_dictionaries()
    pieces.clear()
    events = events.combine_chunks()
    hours = events["ts"].to_numpy() // HOUR_MS
    tenants = events["tenant_id"].chunk(0).indices.to_numpy() if events.num_rows else np.zeros(0, np.int32)
    order = np.lexsort((events["seq"].to_numpy(), events["view_key"].to_numpy(), tenants, hours))
    return events.take(pa.array(order)), hours[order] * HOUR_MS


def write(root: Path, number: int, events: pa.Table, now_ms: int, group_rows: int, level: int) -> ArchivedFile:
    """Write events of one hour, already in order, under the file's temporary name, durably. Raises OSError."""
    times = events["ts"].to_numpy()
    hour_ms = int(times[0]) // HOUR_MS * HOUR_MS
    file = ArchivedFile(number, hour_ms, events.num_rows, 0, int(times.min()), int(times.max()), now_ms)
    path = temporary_path(root, file)
    make_folders(root, path.parent)
    try:
        with path.open("wb") as sink:
            with pq.ParquetWriter(
                sink, events.schema, compression="zstd", compression_level=level, use_dictionary=_BY_DICTIONARY,
                column_encoding=_ENCODING, write_statistics=_WITH_STATISTICS, write_page_checksum=True,
            ) as writer:  # fmt: skip
                for part in _parts(events, times - hour_ms):
                    writer.write_table(part, row_group_size=group_rows)
            sink.flush()
            os.fsync(sink.fileno())
        disk.sync(path.parent)
    except pa.ArrowException as error:
        path.unlink(missing_ok=True)
        raise OSError(f"cannot be written: {error}") from error
    except BaseException:
        path.unlink(missing_ok=True)
        raise
    return file._replace(bytes=path.stat().st_size)


def _parts(events: pa.Table, within_hour: Array) -> list[pa.Table]:
    """Return the first five minutes of the hour, the last five, and the rest, where the file is large.

    Each gets row groups of its own: whoever counts an hour reads five minutes on either side of it too, and would
    otherwise unpack the whole hours before and after.
    """
    if events.num_rows < _SPLIT_ROWS:
        return [events]
    first, last = within_hour < MARGIN_MS, within_hour >= HOUR_MS - MARGIN_MS
    parts = [events.filter(pa.array(mask)) for mask in (first, ~(first | last), last) if mask.any()]
    return parts if len(parts) > 1 else [events]


def make_folders(root: Path, wanted: Path) -> None:
    """Make the folders of an hour, durably."""
    if wanted.is_dir():
        return
    wanted.mkdir(parents=True, exist_ok=True)
    disk.sync(wanted.parent)
    disk.sync(root)


def open_file(root: Path, file: ArchivedFile) -> pa.OSFile:
    """Open a file under either of its names. Raises FileNotFoundError where it was replaced meanwhile."""
    try:
        return pa.OSFile(str(final_path(root, file)), "rb")
    except FileNotFoundError:
        try:
            return pa.OSFile(str(temporary_path(root, file)), "rb")
        except FileNotFoundError:
            return pa.OSFile(str(final_path(root, file)), "rb")  # it got its name between the two looks


def read(
    root: Path,
    file: ArchivedFile,
    source: pa.OSFile,
    columns: Sequence[str] | None = None,
    start_ms: int | None = None,
    end_ms: int | None = None,
    view_keys: Array | None = None,
    key_range: tuple[int, int] | None = None,
) -> pa.Table:
    """Return a file's rows that are asked for. `view_keys` are sorted. Raises `ArchiveDamagedError`."""
    names = list(ARCHIVE_SCHEMA.names if columns is None else columns)
    cut = start_ms is not None and end_ms is not None and not (start_ms <= file.first_ms and file.last_ms < end_ms)
    by_key = view_keys is not None or key_range is not None
    needed = [*names, *(["ts"] if cut else []), *(["view_key"] if by_key else [])]
    needed = list(dict.fromkeys(needed))
    try:
        parquet = pq.ParquetFile(source, page_checksum_verification=True)
        groups = list(_groups(parquet, start_ms if cut else None, end_ms, view_keys, key_range))
        if view_keys is not None:  # hashes lie anywhere between a group's least and greatest: look before unpacking
            groups = [group for group in groups if _holds(parquet, group, view_keys)]
        found = [parquet.read_row_group(group, columns=needed, use_threads=False) for group in groups]
        pieces = [_picked(table, cut, start_ms, end_ms, view_keys, key_range).select(names) for table in found]
        schema = pa.schema([ARCHIVE_SCHEMA.field(name) for name in names])
        return pa.concat_tables([piece.cast(schema) for piece in pieces]) if pieces else schema.empty_table()
    except _UNREADABLE as error:
        name = str(final_path(root, file).relative_to(root))
        raise ArchiveDamagedError(
            name, file.hour_ms, str(error).splitlines()[0] if str(error) else "unknown"
        ) from error


def _groups(
    parquet: pq.ParquetFile,
    start_ms: int | None,
    end_ms: int | None,
    view_keys: Array | None,
    key_range: tuple[int, int] | None,
) -> Iterator[int]:
    """Yield the row groups that may hold what is asked for."""
    at = {name: parquet.schema.names.index(name) for name in ("view_key", "ts")}
    for group in range(parquet.num_row_groups):
        about = parquet.metadata.row_group(group)
        keys, times = (about.column(at[name]).statistics for name in ("view_key", "ts"))
        if start_ms is not None and (times.max < start_ms or times.min >= end_ms):
            continue
        if key_range is not None and (keys.max < key_range[0] or keys.min > key_range[1]):
            continue
        if view_keys is not None:
            first = np.searchsorted(view_keys, keys.min)
            if first == len(view_keys) or view_keys[first] > keys.max:
                continue
        yield group


def _holds(parquet: pq.ParquetFile, group: int, view_keys: Array) -> bool:
    """Return whether a row group has one of these views: 0.5 ms, a fiftieth of reading all of its columns."""
    keys = parquet.read_row_group(group, columns=["view_key"], use_threads=False)["view_key"].to_numpy()
    place = np.searchsorted(view_keys, keys)
    place[place == len(view_keys)] = 0
    return bool((view_keys[place] == keys).any()) if len(view_keys) else False


def _picked(
    table: pa.Table,
    cut: bool,
    start_ms: int | None,
    end_ms: int | None,
    view_keys: Array | None,
    key_range: tuple[int, int] | None,
) -> pa.Table:
    mask: Array | None = None
    if cut:
        times = table["ts"].to_numpy()
        mask = (times >= start_ms) & (times < end_ms)
    if key_range is not None:
        keys = table["view_key"].to_numpy()
        wanted = (keys >= key_range[0]) & (keys <= key_range[1])
        mask = wanted if mask is None else mask & wanted
    if view_keys is not None:
        wanted = pc.is_in(table["view_key"], value_set=pa.array(view_keys)).to_numpy()
        mask = wanted if mask is None else mask & wanted
    return table if mask is None or mask.all() else table.filter(pa.array(mask))


def holds_viewer(source: pa.OSFile, viewer_hash: int) -> bool:
    """Return whether a file may hold events with this hash; one that cannot be read may."""
    try:
        parquet = pq.ParquetFile(source, page_checksum_verification=True)
        at = parquet.schema.names.index("viewer_hash")
        for group in range(parquet.num_row_groups):
            known = parquet.metadata.row_group(group).column(at).statistics
            if known.min <= viewer_hash <= known.max:
                hashes = parquet.read_row_group(group, columns=["viewer_hash"], use_threads=False)["viewer_hash"]
                if (hashes.to_numpy() == viewer_hash).any():
                    return True
    except _UNREADABLE:
        return True
    return False


def salvage(source: pa.OSFile) -> tuple[pa.Table, bool]:
    """Return what can be read of a file, and whether that is all of it."""
    found: list[pa.Table] = []
    whole = True
    try:
        parquet = pq.ParquetFile(source, page_checksum_verification=True)
    except _UNREADABLE:
        return ARCHIVE_SCHEMA.empty_table(), False
    for group in range(parquet.num_row_groups):
        try:
            found.append(parquet.read_row_group(group, use_threads=False).cast(ARCHIVE_SCHEMA))
        except _UNREADABLE:
            whole = False
    return pa.concat_tables([ARCHIVE_SCHEMA.empty_table(), *found]), whole
