"""The shuffle gives each range of keys exactly its events, whatever files they lie in."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pytest

from viewmeter.archive.embedded import EmbeddedArchive
from viewmeter.batch import shuffle
from viewmeter.batch.part import key_ranges
from viewmeter.batch.window import COLUMNS, window_of
from viewmeter.eventlog.embedded import EmbeddedLogReader
from viewmeter.model.time import HOUR_MS
from viewmeter.testing.synthetic import Synthetic

T0 = 1_800_000_000_000 // HOUR_MS * HOUR_MS


def rows(table: pa.Table) -> list[tuple[object, ...]]:
    return sorted(tuple(row.values()) for row in table.select(["view_key", "seq", "ts", "video_id", "cdn"]).to_pylist())


@pytest.mark.parametrize(("parts", "pieces"), [(1, 1), (7, 3)])
def test_the_parts_are_what_the_archive_reads_by_ranges_of_keys(tmp_path: Path, parts: int, pieces: int) -> None:
    log = EmbeddedLogReader(tmp_path / "log")
    archive = EmbeddedArchive(tmp_path / "archive", log, lambda: T0)
    # From four minutes before the window's begin to after its end, of two tenants, in several files an hour.
    for number, tenant in enumerate(("t1", "t2")):
        crowd = Synthetic(number, T0 - 9 * 60_000, active=7, videos=5, tenant_id=tenant)
        for batch in crowd.batches(7 * 2 * 80, batch_rows=560):
            archive.add(pa.Table.from_batches([batch]), f"{tenant}-{batch['ts'][0]}", T0)
    ranges = list(key_ranges(parts))
    folder = tmp_path / "scratch"
    folder.mkdir()
    stretches = shuffle.stretches(window_of(T0), pieces)
    assert len(stretches) == pieces
    for piece, stretch in enumerate(stretches):
        shuffle.cut(archive.reader(), stretch, ranges, folder, piece)
    found = [shuffle.part(folder, number, pieces) for number in range(parts)]
    assert [table.column_names for table in found] == [[*COLUMNS]] * parts
    for keys, table in zip(ranges, found, strict=True):
        assert rows(table) == rows(archive.read(window_of(T0), COLUMNS, key_range=keys))
    assert sum(table.num_rows for table in found) > 1_000
    assert list(folder.iterdir()) == []
    archive.close()
    log.close()
