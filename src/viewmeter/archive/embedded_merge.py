"""Which small files of an hour are merged, and when. Pure: a listing in, groups of files out.

A file of half the wished size or more stays. Of the rest, a file that is much larger than all smaller ones together
stays too, so that a trickle of late events does not rewrite the whole hour again and again: each event is rewritten
about log(files) times.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from viewmeter.archive.embedded_manifest import ArchivedFile
from viewmeter.archive.settings import ArchiveSettings
from viewmeter.model.time import HOUR_MS, MINUTE_MS

_QUIET_MS: Final = 10 * MINUTE_MS
"""An hour that got nothing for so long is merged even where it has few files."""

_MUCH_LARGER: Final = 4


def groups_to_merge(listed: Sequence[ArchivedFile], now_ms: int, settings: ArchiveSettings) -> list[list[ArchivedFile]]:
    """Return groups of files of one hour, each to become one file."""
    small = [file for file in listed if file.damage is None and file.events < settings.file_events // 2]
    if len(small) < 2:
        return []
    small.sort(key=lambda file: (file.events, file.number))
    while len(small) > 1 and small[-1].events > _MUCH_LARGER * sum(file.events for file in small[:-1]):
        small.pop()
    newest = max(file.written_ms for file in listed)
    quiet = now_ms - newest >= _QUIET_MS and now_ms >= small[0].hour_ms + HOUR_MS
    if len(small) < (2 if quiet else settings.merge_files):
        return []
    groups: list[list[ArchivedFile]] = [[]]
    held = 0
    for file in small:
        if held + file.events > settings.file_events and groups[-1]:
            groups.append([])
            held = 0
        groups[-1].append(file)
        held += file.events
    return [group for group in groups if len(group) > 1]
