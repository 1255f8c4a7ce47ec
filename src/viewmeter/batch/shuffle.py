"""An hour's events cut into parts by view, on disk: each file of the archive is unpacked once.

In: a reader, stretches of time, ranges of view keys. Out: one table a range. Why: the archive's files are ordered by
tenant and view, and every file holds views of every range. Read range by range, a row group is unpacked for each range
that it touches: six times in an hour of 20 million events of one tenant, forty times where many tenants share the
files. Promised: memory is that of one file. Costs disk meanwhile. Not done: the folder; it is its caller's.
"""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from viewmeter.archive.protocol import ARCHIVE_SCHEMA, ArchiveReader
from viewmeter.batch.window import COLUMNS
from viewmeter.model.time import Interval

Array = npt.NDArray[Any]

PAYS_FROM: Final = 3
"""Parts; fewer are read straight from the archive."""

_SCHEMA: Final = pa.schema([ARCHIVE_SCHEMA.field(name) for name in COLUMNS])
_OPTIONS: Final = pa.ipc.IpcWriteOptions(compression="lz4")


def stretches(window: Interval, count: int) -> list[Interval]:
    """Return a range of time in so many stretches: what is cut beside each other."""
    step = -(-(window.end_ms - window.start_ms) // count)
    return [Interval(start, min(start + step, window.end_ms)) for start in range(window.start_ms, window.end_ms, step)]


def part(folder: Path, number: int, pieces: int) -> pa.Table:
    """Return the events of one range, of all stretches; its files are no longer needed then."""
    tables = [_SCHEMA.empty_table()]
    for piece in range(pieces):
        path = _path(folder, number, piece)
        with pa.OSFile(str(path), "rb") as source:
            tables.append(pa.ipc.open_stream(source).read_all())
        path.unlink()
    return pa.concat_tables(tables)


def cut(reader: ArchiveReader, stretch: Interval, ranges: Sequence[tuple[int, int]], folder: Path, piece: int) -> None:
    """Write a stretch of time, each event to its range's file. `ranges` of keys ascend and cover all."""
    behind = np.array([low for low, _ in ranges[1:]], np.int64)
    with contextlib.ExitStack() as opened:
        writers = []
        for number in range(len(behind) + 1):
            sink = opened.enter_context(pa.OSFile(str(_path(folder, number, piece)), "wb"))
            writers.append(opened.enter_context(pa.ipc.new_stream(sink, _SCHEMA, options=_OPTIONS)))
        for table in reader.pieces(stretch, COLUMNS):
            number = np.searchsorted(behind, table["view_key"].to_numpy(), side="right").astype(np.int16)
            events = table.unify_dictionaries().combine_chunks()
            if (number[1:] < number[:-1]).any():
                order = np.argsort(number, kind="stable")
                events, number = events.take(pa.array(order)), number[order]
            edges = np.searchsorted(number, np.arange(len(behind) + 2))
            for at, writer in enumerate(writers):
                if edges[at] < edges[at + 1]:
                    writer.write_table(events.slice(edges[at], edges[at + 1] - edges[at]))


def _path(folder: Path, number: int, piece: int) -> Path:
    return folder / f"{number}-{piece}.arrow"
