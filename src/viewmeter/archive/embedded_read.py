"""Reading the archive from any process: the manifest says which files, the files say the rest.

In: the archive's folder. Out: tables. Promised: A3 and A4. Files are never changed, only replaced, so an hour is read
from files that are all open before the first is read; one that was replaced just then sends the reader back to the
manifest. Can be pickled: what travels is the folder.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np
import pyarrow as pa

from viewmeter.archive import embedded_files as files
from viewmeter.archive.embedded_manifest import ArchivedFile, Manifest
from viewmeter.archive.protocol import ARCHIVE_SCHEMA, ArchiveDamagedError, ArchiveUnavailableError, Keys
from viewmeter.model.time import HOUR_MS, Interval

_TRIES: Final = 20
_Opened = list[tuple[ArchivedFile, pa.OSFile]]


class EmbeddedArchiveReader:
    """`ArchiveReader` of the archive in `root`."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self._known: Manifest | None = None
        self._guard = threading.Lock()

    def __getstate__(self) -> dict[str, Any]:
        return {"root": self._root}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__init__(state["root"])  # type: ignore[misc]

    @property
    def manifest(self) -> Manifest:
        """The manifest, opened when it is first needed."""
        with self._guard:
            if self._known is None:
                self._known = Manifest(self._root)
            return self._known

    def close(self) -> None:
        """Close the manifest. Idempotent."""
        with self._guard:
            if self._known is not None:
                self._known.close()
            self._known = None

    def read(
        self,
        interval: Interval,
        columns: Sequence[str] | None = None,
        view_keys: Keys | None = None,
        key_range: tuple[int, int] | None = None,
    ) -> pa.Table:
        """Return events of the interval; see the protocol."""
        start, end = interval
        keys = None if view_keys is None else np.unique(np.asarray(view_keys, np.int64))
        found: list[pa.Table] = []
        wanted = self.manifest.files(start // HOUR_MS * HOUR_MS, end)
        for hour in dict.fromkeys(file.hour_ms for file in wanted):
            with self._opened(hour) as opened:
                for file, source in opened:
                    if file.last_ms >= start and file.first_ms < end:
                        found.append(self._read(file, source, columns, interval, keys, key_range))
        names = ARCHIVE_SCHEMA.names if columns is None else columns
        return pa.concat_tables([pa.schema([ARCHIVE_SCHEMA.field(name) for name in names]).empty_table(), *found])

    def pieces(self, interval: Interval, columns: Sequence[str]) -> Iterator[pa.Table]:
        """Yield the events of the interval, file by file."""
        start, end = interval
        wanted = self.manifest.files(start // HOUR_MS * HOUR_MS, end)
        for hour in dict.fromkeys(file.hour_ms for file in wanted):
            with self._opened(hour) as opened:
                for file, source in opened:
                    if file.last_ms >= start and file.first_ms < end:
                        yield self._read(file, source, columns, interval, None, None)

    def _read(
        self,
        file: ArchivedFile,
        source: pa.OSFile,
        columns: Sequence[str] | None,
        interval: Interval,
        keys: Keys | None,
        key_range: tuple[int, int] | None,
    ) -> pa.Table:
        try:
            found = files.read(self._root, file, source, columns, *interval, keys, key_range)
        except ArchiveDamagedError as damage:
            with contextlib.suppress(ArchiveUnavailableError):
                self.manifest.mark_damaged(file.number, damage.reason)
            raise
        if file.damage is not None and columns is None and found.num_rows == file.events:
            self.manifest.mark_sound(file.number)  # it was put back: all of it has just been read
        return found

    def hours(self) -> dict[int, int]:
        """Return the start of each hour that holds events, and its version."""
        return self.manifest.hours()

    def events(self, hour_ms: int) -> int:
        """Return how many events the hour holds."""
        return self.manifest.events(hour_ms)

    @contextlib.contextmanager
    def _opened(self, hour_ms: int) -> Iterator[_Opened]:
        """Open all files of an hour, or try again where one was replaced meanwhile."""
        for attempt in range(_TRIES):
            with contextlib.ExitStack() as closing:
                listed = self.manifest.files(hour_ms, hour_ms + 1)
                opened: _Opened = []
                for file in listed:
                    try:
                        opened.append((file, closing.enter_context(files.open_file(self._root, file))))
                    except FileNotFoundError as missing:
                        if attempt == _TRIES - 1:
                            self._lost(file, missing)
                        break
                else:
                    yield opened
                    return

    def _lost(self, file: ArchivedFile, missing: OSError) -> None:
        """Report a file that the manifest still names and that is nowhere."""
        reason = "the file is missing"
        with contextlib.suppress(ArchiveUnavailableError):
            self.manifest.mark_damaged(file.number, reason)
        name = str(files.final_path(self._root, file).relative_to(self._root))
        raise ArchiveDamagedError(name, file.hour_ms, reason) from missing
