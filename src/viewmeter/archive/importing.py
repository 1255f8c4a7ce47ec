"""A file of events into the archive, in parts, each once.

In: a file, an archive, whose events they are. Out: what became of its rows. Promised: whoever imports the same file
again (for the same tenants), also after a crash in the middle, changes nothing that is in; rows that were refused are
handed to `refused`, all of them. Memory holds one part. The batch layer learns of it by the hours' versions.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import pyarrow as pa

from viewmeter.archive.incoming import Owners, Rejected, blocks
from viewmeter.archive.protocol import Archive
from viewmeter.model.events import EVENT_SCHEMA

PART_ROWS: Final = 500_000
"""Rows of a part: one commit, and one file for each hour that it touches."""


@dataclass
class Imported:
    """What became of a file."""

    rows: int = 0
    events: int = 0  # that are in because of this file, now or since an earlier time
    known: bool = False  # all of it had been imported before
    hours: set[int] = field(default_factory=set)  # that changed now, ms
    rejected: Counter[str] = field(default_factory=Counter)  # rows by reason


def import_file(
    archive: Archive,
    path: Path,
    owners: Owners,
    now_ms: int,
    refused: Callable[[Rejected], None],
    progress: Callable[[int], None] = lambda _: None,
) -> Imported:
    """Import a file. Raises `UnreadableFileError`, `ArchiveUnavailableError`, OSError; parts that are in stay in."""
    source = _digest(path, owners)
    if archive.imported(f"{source}/whole") is not None:
        return Imported(events=sum(_parts(archive, source)), known=True)
    done = Imported()
    waiting: list[pa.Table] = []
    part_rows = 0
    number = 0

    def put() -> None:
        nonlocal number, part_rows, waiting
        table = pa.concat_tables(waiting).unify_dictionaries()
        added = archive.add(table, f"{source}/{number}", now_ms)
        done.events += added.events
        done.hours.update(added.hours)
        number, part_rows, waiting = number + 1, 0, []

    for block in blocks(path, owners, now_ms):
        done.rows += block.rows
        part_rows += block.rows
        waiting.append(block.events)
        for one in block.rejected:
            done.rejected[one.code] += 1
            refused(one)
        if part_rows >= PART_ROWS:
            put()
        progress(done.rows)
    if waiting:
        put()
    if not done.rejected:  # a tenant that is made later may make refused rows good ones
        archive.add(EVENT_SCHEMA.empty_table(), f"{source}/whole", now_ms)
    return done


def _parts(archive: Archive, source: str) -> list[int]:
    found: list[int] = []
    while (events := archive.imported(f"{source}/{len(found)}")) is not None:
        found.append(events)
    return found


def _digest(path: Path, owners: Owners) -> str:
    """Return what the file is known by: its content, and whose its events are to be."""
    hashed = hashlib.sha256()
    with path.open("rb") as file:
        while piece := file.read(1 << 20):
            hashed.update(piece)
    whose = owners.forced or owners.default
    return f"{hashed.hexdigest()}/{whose.id if whose else ''}"
