"""A manifest made anew from the files, where the old one is gone.

In: the archive's folder and an empty manifest. Out: the manifest names every file that has its final name: it counts,
always. Positions are the highest offsets of the files, since the log is taken in order. Lost with the old manifest:
which sources were imported, and the hours' versions; they begin anew above all that were, so hours are counted again.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Final

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import structlog

from viewmeter.archive.embedded_manifest import ArchivedFile, Change, Manifest
from viewmeter.archive.protocol import IMPORTED
from viewmeter.model.time import HOUR_MS

_NAME: Final = re.compile(r"date=\d{4}-\d\d-\d\d/hour=\d\d/(\d{10})\.parquet")

log = structlog.get_logger(__name__)


def adopt(root: Path, manifest: Manifest, now_ms: int) -> int:
    """Return how many files were taken over; 0 where there were none. Files that cannot be read stay where they are."""
    positions: dict[int, int] = {}
    found: list[ArchivedFile] = []
    for path in sorted(root.glob("date=*/hour=*/*.parquet")):
        named = _NAME.fullmatch(path.relative_to(root).as_posix())
        if named is None:
            continue
        try:
            places = pq.ParquetFile(path).read(["partition", "offset", "ts"])
        except (pa.ArrowException, OSError, ValueError) as error:
            log.error("archive_file_damaged", file=path.name, error=str(error))
            path.rename(path.with_name(path.name + ".damaged"))  # neither counted nor lost
            continue
        times = places["ts"].to_numpy()
        hour = int(times.min()) // HOUR_MS * HOUR_MS
        size = path.stat().st_size
        found.append(ArchivedFile(int(named[1]), hour, len(times), size, int(times.min()), int(times.max()), now_ms))
        partitions, offsets = places["partition"].to_numpy(), places["offset"].to_numpy()
        for partition in np.unique(partitions).tolist():
            if partition != IMPORTED:
                last = int(offsets[partitions == partition].max())
                positions[partition] = max(positions.get(partition, 0), last)
    if found:
        manifest.begin_versions(now_ms)
        manifest.change(Change(add=found, positions=positions, touched=sorted({file.hour_ms for file in found})))
        log.warning("archive_manifest_made_anew", files=len(found), positions=positions)
    return len(found)
