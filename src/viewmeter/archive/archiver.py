"""Keeps the archive going: a thread that takes new events of the log, merges small files and drops old hours.

In: an archive and a clock. Out: nothing but the archive's own changes. Promised: a failure (a full disk, a damaged
file) is logged, shown by `check()` and tried again in its time; the thread ends only by `stop()`. Not done here:
deciding what is merged (`embedded_merge.py`) or how.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Final

import structlog

from viewmeter.archive.protocol import Archive, ArchiveUnavailableError
from viewmeter.archive.settings import ArchiveSettings
from viewmeter.model.time import DAY_MS, HOUR_MS

MERGE_EVENTS: Final = 2_000_000
"""Events that are merged between two flushes at most: new events go first."""

log = structlog.get_logger(__name__)


class Archiver:
    """`Archiving` in a thread."""

    def __init__(self, archive: Archive, clock: Callable[[], int], settings: ArchiveSettings) -> None:
        self._archive, self._clock, self._settings = archive, clock, settings
        self._stopping = threading.Event()
        self._thread: threading.Thread | None = None
        self._problem: str | None = None
        self._cleaned_ms = 0

    def start(self) -> None:
        """Begin; idempotent."""
        if self._thread is None:
            self._thread = threading.Thread(target=self._run, name="archiver", daemon=True)
            self._thread.start()

    def stop(self) -> None:
        """Take what is durable, and end. Idempotent."""
        thread, self._thread = self._thread, None
        self._stopping.set()
        if thread is not None:
            thread.join()

    def check(self) -> str | None:
        """Return why events are not archived at present; None: they are."""
        return self._problem

    def _run(self) -> None:
        while True:
            begun = time.monotonic()
            stopping = self._stopping.is_set()
            self.turn(flush_only=stopping)
            if stopping:
                return
            self._stopping.wait(max(0.0, self._settings.flush_every_s - (time.monotonic() - begun)))

    def turn(self, flush_only: bool = False) -> None:
        """Do what is due now."""
        try:
            self._archive.flush()
            if not flush_only:
                self._keep_house()
        except ArchiveUnavailableError as error:
            self._problem = str(error)
            log.warning("archive_unavailable", error=str(error))
        except Exception as error:
            self._problem = f"the archive failed ({type(error).__name__}); see the server's log"
            log.exception("archive_failed")
        else:
            self._problem = None

    def _keep_house(self) -> None:
        now = self._clock()
        self._archive.tidy(now, MERGE_EVENTS)
        if now - self._cleaned_ms >= HOUR_MS:
            self._cleaned_ms = now
            dropped = self._archive.drop_before(now - self._settings.keep_days * DAY_MS)
            if dropped:
                log.info("archive_dropped", hours=dropped)
