"""The archive on one machine: Parquet files in a folder, and a manifest that says which of them count.

In: the event log. Out: files by hour of event time. Promised: A1 to A9. Every change is: write the new files under
temporary names, commit the manifest (this is the commit: log positions, new files, replaced files), remove what was
replaced, give the new files their names. Dying anywhere in between leaves leftovers before the commit and unfinished
names after it; the next writer settles both. So a file under its final name counts, always.

Any process may write: each change holds the lock of the folder (`lock`). Not done: reading on behalf of others while a
change is under way needs no lock (`embedded_read.py`); moving events by itself (`archiver.py`).
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import structlog

from viewmeter.archive import embedded_files as files
from viewmeter.archive.embedded_adopt import adopt
from viewmeter.archive.embedded_manifest import ArchivedFile, Change, Manifest
from viewmeter.archive.embedded_merge import groups_to_merge
from viewmeter.archive.embedded_read import EmbeddedArchiveReader
from viewmeter.archive.protocol import (
    ARCHIVE_SCHEMA,
    IMPORTED,
    READER,
    Added,
    ArchiveDamagedError,
    ArchiveFigures,
    ArchiveUnavailableError,
    Keys,
)
from viewmeter.archive.settings import ArchiveSettings
from viewmeter.eventlog.protocol import LogBatch, LogReader, LogUnavailableError, Positions
from viewmeter.model.events import EVENT_SCHEMA, view_key
from viewmeter.model.time import HOUR_MS, Interval

__all__ = ["ArchiveSettings", "EmbeddedArchive", "EmbeddedArchiveReader"]

_READ_EVENTS: Final = 100_000
"""Events taken from the log at once: it holds a lock meanwhile."""

log = structlog.get_logger(__name__)

Step = Callable[[str], None]
"""Told after each step of a change: `written`, `committed`, `removed`, `named`. Tests die there."""


class EmbeddedArchive:
    """`Archive` in a folder. `events`: the log it takes from; close() leaves it open."""

    def __init__(
        self,
        root: Path,
        events: LogReader,
        clock: Callable[[], int],
        settings: ArchiveSettings | None = None,
        at_step: Step = lambda _: None,
    ) -> None:
        root.mkdir(parents=True, exist_ok=True)
        self._root, self._log, self._clock, self._at_step = root, events, clock, at_step
        self._settings = settings or ArchiveSettings()
        self._guard = threading.RLock()
        self._manifest = Manifest(root)
        self._reader = EmbeddedArchiveReader(root)
        with self._writing():
            if self._manifest.is_new():
                adopt(root, self._manifest, clock())
            self._settle()
        self._tell_log(self.positions())

    def close(self) -> None:
        """Release everything. Idempotent."""
        self._reader.close()
        self._manifest.close()

    # --- reading -------------------------------------------------------------------------------------------

    def reader(self) -> EmbeddedArchiveReader:
        """Return a reader that can be sent to another process."""
        return EmbeddedArchiveReader(self._root)

    def read(
        self,
        interval: Interval,
        columns: Sequence[str] | None = None,
        view_keys: Keys | None = None,
        key_range: tuple[int, int] | None = None,
    ) -> pa.Table:
        """Return events of the interval; see the protocol."""
        return self._reader.read(interval, columns, view_keys, key_range)

    def pieces(self, interval: Interval, columns: Sequence[str]) -> Iterator[pa.Table]:
        """Yield events of the interval, file by file."""
        return self._reader.pieces(interval, columns)

    def hours(self) -> Mapping[int, int]:
        """Return the start of each hour that holds events, and its version."""
        return self._manifest.hours()

    def events(self, hour_ms: int) -> int:
        """Return how many events the hour holds."""
        return self._manifest.events(hour_ms)

    def view(self, tenant_id: str, view_id: str) -> pa.Table:
        """Return all events of a view by `seq`, from the archive and from what the log holds behind it."""
        key = view_key(tenant_id, view_id)
        # The log first: what is archived in between is then seen twice, and known by its place, rather than missed.
        tail = self._behind(self.positions(), key)
        listed = self._manifest.files()
        whole = Interval(listed[0].hour_ms, listed[-1].hour_ms + HOUR_MS) if listed else Interval(0, 0)
        found = [self._reader.read(whole, view_keys=np.array([key], np.int64))]
        known = set(zip(found[0]["partition"].to_pylist(), found[0]["offset"].to_pylist(), strict=True))
        found += [rows for partition, offset, rows in tail if (partition, offset) not in known]
        events = pa.concat_tables(found).unify_dictionaries()
        mine = pc.and_(pc.equal(events["tenant_id"], tenant_id), pc.equal(events["view_id"], view_id))
        return events.filter(mine).sort_by([("seq", "ascending"), ("received_at", "ascending")])

    def _behind(self, after: Positions, key: int) -> list[tuple[int, int, pa.Table]]:
        """Return the events of a view that stand in the log behind these positions, by batch."""
        found = []
        at, ends = dict(after), self._log.ends()
        while any(at.get(partition, 0) < end for partition, end in ends.items()):
            batches = self._log.read(at, ends, _READ_EVENTS)
            if not batches:
                break
            for batch in batches:
                at[batch.partition] = batch.offset
                rows = batch.events.filter(pc.equal(batch.events.column("view_key"), key))
                if rows.num_rows:
                    found.append((batch.partition, batch.offset, _placed(batch, rows)))
        return found

    def positions(self) -> dict[int, int]:
        """Return the last offset of each log partition that is in the archive."""
        return self._manifest.positions()

    def figures(self) -> ArchiveFigures:
        """Return how full it is."""
        at = self.positions()
        count, events, size = self._manifest.totals()
        return ArchiveFigures(
            files=count,
            events=events,
            bytes=size,
            lag_batches={p: max(0, end - at.get(p, 0)) for p, end in self._log.ends().items()},
            damaged=tuple(
                (str(files.final_path(self._root, file).relative_to(self._root)), file.damage or "")
                for file in self._manifest.damaged()
            ),
        )

    # --- from the log --------------------------------------------------------------------------------------

    def flush(self) -> None:
        """Take all that is durable in the log now. Raises `ArchiveUnavailableError`, then some of it may be in."""
        ends = self._log.ends()
        try:
            while self._take(ends):
                pass
        except LogUnavailableError as error:
            raise ArchiveUnavailableError(f"the event log cannot be read now: {error}") from error
        self._tell_log(self.positions())

    def _take(self, ends: Positions) -> bool:
        """Archive the next events up to `ends`, a file's worth at most; return whether there were any."""
        with self._writing():
            at = self.positions()
            batches: list[LogBatch] = []
            events = 0
            # Up to `ends` only: players go on sending, and flush() must come to an end.
            while events < self._settings.file_events and any(at.get(p, 0) < end for p, end in ends.items()):
                more = self._log.read(at, ends, min(_READ_EVENTS, self._settings.file_events - events))
                if not more:
                    break
                batches += more
                events += sum(batch.events.num_rows for batch in more)
                at.update({batch.partition: batch.offset for batch in more})
            if not batches:
                return False
            tables = [_placed(batch, batch.events) for batch in batches if batch.events.num_rows]
            batches.clear()
            added = self._write(tables) if tables else []
            self._commit(Change(add=added, positions=at, touched=_hours(added)))
            return True

    def _tell_log(self, positions: Positions) -> None:
        """Let the log drop what is in; the first time also makes the log wait for the archive."""
        with contextlib.suppress(LogUnavailableError):  # it waits a little longer
            self._log.commit(READER, positions or {0: 0})

    # --- imports, erasure, retention -----------------------------------------------------------------------

    def add(self, events: pa.Table, source: str, now_ms: int) -> Added:
        """Add imported events (columns of `EVENT_SCHEMA`); `source` is the digest of where they come from."""
        with self._writing():
            known = self._manifest.imported(source)
            if known is not None:
                return Added(known, known=True)
            count = events.num_rows
            table = events.select(EVENT_SCHEMA.names)
            table = table.append_column("partition", pa.array(np.full(count, IMPORTED, np.int32)))
            table = table.append_column("offset", pa.array(np.full(count, self._manifest.next_import(), np.int64)))
            added = self._write([table.cast(ARCHIVE_SCHEMA)], now_ms) if count else []
            hours = _hours(added)
            self._commit(Change(add=added, touched=hours, imported=(source, count, now_ms)))
            return Added(count, tuple(hours))

    def imported(self, source: str) -> int | None:
        """Return how many events a source brought; None: it is not in."""
        return self._manifest.imported(source)

    def erase(self, tenant_id: str, viewer_hash: int) -> list[int]:
        """Rewrite every file that holds events of the viewer, without them; return the starts of the hours touched.

        Of a damaged file what can still be read is kept; the rest, which nobody can read, goes with it.
        """
        touched: set[int] = set()
        for file in self._manifest.files():
            with self._writing():
                if self._erase_from(file, tenant_id, viewer_hash):
                    touched.add(file.hour_ms)
        return sorted(touched)

    def _erase_from(self, file: ArchivedFile, tenant_id: str, viewer_hash: int) -> bool:
        current = {known.number for known in self._manifest.files(file.hour_ms, file.hour_ms + 1)}
        if file.number not in current:
            return False  # merged meanwhile: the merged file has a higher number and its turn comes
        with files.open_file(self._root, file) as source:
            if not files.holds_viewer(source, viewer_hash) and file.damage is None:
                return False
        with files.open_file(self._root, file) as source:
            events, whole = files.salvage(source)
        of_viewer = pc.and_(pc.equal(events["viewer_hash"], viewer_hash), pc.equal(events["tenant_id"], tenant_id))
        kept = events.filter(pc.invert(of_viewer))
        if kept.num_rows == events.num_rows and whole:
            return False
        added = self._write([kept], file.written_ms) if kept.num_rows else []
        self._commit(Change(add=added, remove=[file.number], touched=[file.hour_ms]), removed=[file])
        return True

    def drop_before(self, before_ms: int) -> int:
        """Drop hours that ended before, and whose events arrived before; return how many."""
        with self._writing():
            of_hour: dict[int, list[ArchivedFile]] = {hour: [] for hour in self._manifest.hours()}
            for file in self._manifest.files(end_ms=before_ms):
                of_hour.setdefault(file.hour_ms, []).append(file)
            old = [
                hour
                for hour, found in of_hour.items()
                if hour + HOUR_MS <= before_ms and all(file.written_ms < before_ms for file in found)
            ]
            gone = [file for hour in old for file in of_hour[hour]]
            if old:
                self._commit(Change(remove=[file.number for file in gone], forget=old), removed=gone)
            return len(old)

    # --- merging -------------------------------------------------------------------------------------------

    def tidy(self, now_ms: int, budget_events: int) -> int:
        """Merge small files, at most about `budget_events` of them; return how many events were rewritten."""
        done = 0
        listed: dict[int, list[ArchivedFile]] = {}
        for file in self._manifest.files():
            listed.setdefault(file.hour_ms, []).append(file)
        for hour in sorted(listed, reverse=True):  # new hours first: they are read most
            for group in groups_to_merge(listed[hour], now_ms, self._settings):
                if done >= budget_events:
                    return done
                done += self._merge(group)
        return done

    def _merge(self, group: Sequence[ArchivedFile]) -> int:
        with self._writing():
            current = {file.number for file in self._manifest.files(group[0].hour_ms, group[0].hour_ms + 1)}
            if not {file.number for file in group} <= current:
                return 0
            tables = []
            for file in group:
                try:
                    with files.open_file(self._root, file) as source:
                        tables.append(files.read(self._root, file, source))
                except (ArchiveDamagedError, FileNotFoundError) as damage:
                    log.error("archive_file_damaged", file=file.number, error=str(damage))
                    self._manifest.mark_damaged(file.number, str(damage))
                    return 0
            added = self._write(tables, max(file.written_ms for file in group))
            self._commit(Change(add=added, remove=[file.number for file in group]), removed=group)
            return sum(file.events for file in group)

    # --- the change ----------------------------------------------------------------------------------------

    def _write(self, pieces: list[pa.Table], now_ms: int | None = None) -> list[ArchivedFile]:
        """Write the events as one file an hour, under temporary names; empties the list.

        Raises `ArchiveUnavailableError`.
        """
        settings = self._settings
        events, hours = files.in_order(pieces)
        starts = np.flatnonzero(np.r_[True, hours[1:] != hours[:-1]]).tolist()
        number = self._manifest.last_file()
        written: list[ArchivedFile] = []
        try:
            for start, end in zip(starts, [*starts[1:], len(hours)], strict=True):
                number += 1
                at = self._clock() if now_ms is None else now_ms
                part = events.slice(start, end - start)
                written.append(
                    files.write(self._root, number, part, at, settings.group_rows, settings.compression_level)
                )
        except OSError as error:
            for file in written:
                files.temporary_path(self._root, file).unlink(missing_ok=True)
            raise ArchiveUnavailableError(
                f"the archive cannot be written ({error.strerror or error}): free disk space or repair the disk; "
                "the log keeps the events meanwhile"
            ) from error
        del events, part
        pa.default_memory_pool().release_unused()  # the engine has other uses for it until the next time
        self._at_step("written")
        return written

    def _commit(self, change: Change, removed: Sequence[ArchivedFile] = ()) -> None:
        """Commit, then give the files the names that plain readers see. Old ones go first: no event is ever double."""
        self._manifest.change(change)
        self._at_step("committed")
        try:
            for file in removed:
                files.final_path(self._root, file).unlink(missing_ok=True)
            self._at_step("removed")
            for file in change.add:
                files.temporary_path(self._root, file).rename(files.final_path(self._root, file))
        except OSError as error:  # committed all the same: names are settled by the next writer
            log.warning("archive_names_unsettled", error=str(error))
        self._at_step("named")

    def _settle(self) -> None:
        """Finish what a dead writer began: drop what was not committed or was replaced, then name what was."""
        listed = self._manifest.files()
        wanted = {files.final_path(self._root, file): files.temporary_path(self._root, file) for file in listed}
        pending = set(wanted.values())
        for path in files.ours(self._root):
            if path not in wanted and path not in pending:
                path.unlink(missing_ok=True)
        for final, temporary in wanted.items():
            if temporary.exists():
                temporary.rename(final)

    @contextlib.contextmanager
    def _writing(self) -> Iterator[None]:
        """Hold the archive's lock against other threads and processes."""
        with self._guard:
            try:
                handle = os.open(self._root / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
            except OSError as error:
                raise ArchiveUnavailableError(f"the archive's lock cannot be opened ({error.strerror})") from error
            try:
                fcntl.flock(handle, fcntl.LOCK_EX)
                yield
            finally:
                os.close(handle)


def _placed(batch: LogBatch, events: pa.RecordBatch) -> pa.Table:
    """Return events of a log batch with the place they come from."""
    count = events.num_rows
    places = [pa.array(np.full(count, batch.partition, np.int32)), pa.array(np.full(count, batch.offset, np.int64))]
    return pa.Table.from_arrays([*events.columns, *places], schema=ARCHIVE_SCHEMA)


def _hours(written: Sequence[ArchivedFile]) -> list[int]:
    return sorted({file.hour_ms for file in written})
