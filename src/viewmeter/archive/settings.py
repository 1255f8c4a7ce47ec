"""Settings of the archive."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class ArchiveSettings:
    """How often raw events move from the log to the archive, in which files, and how long they stay."""

    flush_every_s: float = 20.0
    """How often new events of the log are archived."""

    keep_days: int = 30
    """Days that raw events are kept, after they happened and after they arrived."""

    file_events: int = 500_000
    """Events of a large file: smaller ones are merged up to this size, and more are cut into several. It bounds memory
    (about 700 bytes an event while a file is written). Larger files hold more of a view, and are smaller an event."""

    merge_files: int = 8
    """So many small files of an hour are merged into one."""

    group_rows: int = 65_536
    """Events of a row group: what a look-up of one view has to unpack."""

    compression_level: int = 3
    """Of zstd."""
