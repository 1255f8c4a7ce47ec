"""Rejected events on their way to the dead letters: counted, stripped of who watched, and written by a thread.

In: the rejections of a beacon, and its sender. Out: dead letters. Promised: they are written before the beacon is
answered where the disk lets them; where it does not, they are counted as dropped and the answer comes anyway; what is
older than the settings say is taken away within an hour, whether or not anything is rejected now.
"""

from __future__ import annotations

import asyncio
import functools
import sqlite3
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor

import msgspec
import structlog

from viewmeter.collector import metrics
from viewmeter.collector.deadletters import DeadLetterWriter, NewLetter
from viewmeter.collector.dialects import Rejection
from viewmeter.collector.redaction import names_viewer, redacted
from viewmeter.collector.request import Admitted
from viewmeter.collector.senders import Senders
from viewmeter.collector.settings import CollectorSettings
from viewmeter.collector.viewers import TenantHashes
from viewmeter.metadata.keys import Key
from viewmeter.model.time import DAY_MS, HOUR_MS

_log = structlog.get_logger(__name__)


class RejectedEvents:
    """Keeps the rejected events of one worker. Used from one event loop."""

    def __init__(
        self,
        writer: DeadLetterWriter,
        senders: Senders,
        hashes_of: Callable[[Key], TenantHashes],
        settings: CollectorSettings,
    ) -> None:
        self._writer = writer
        self._senders = senders
        self._hashes_of = hashes_of
        self._keep_ms = round(settings.keep_dead_letters_days * DAY_MS)
        self._expired_hour = -1
        self._thread = ThreadPoolExecutor(1, "dead-letters")

    async def keep(
        self, dialect: str, admitted: Admitted, rejected: Sequence[Rejection], at_ms: int, player: str | None
    ) -> None:
        """Return when the rejections are in the file, or were dropped because it cannot be written."""
        letters = self._letters(dialect, admitted, rejected, at_ms, player)
        try:
            await asyncio.get_running_loop().run_in_executor(self._thread, self._writer.append, letters)
        except (sqlite3.Error, OSError) as error:
            metrics.DEAD_LETTERS_DROPPED.inc(len(letters))
            _log.warning("dead_letters_not_kept", letters=len(letters), error=str(error))

    def tidy(self, now_ms: int) -> None:
        """Once an hour, let the thread take away what is too old. Cheap: call it every second or so."""
        if now_ms // HOUR_MS != self._expired_hour:
            self._expired_hour = now_ms // HOUR_MS
            self._thread.submit(self._writer.expire, now_ms - self._keep_ms).add_done_callback(_tell)

    def close(self) -> None:
        """Write what waits, and close the file."""
        self._thread.shutdown()
        self._writer.close()

    def _letters(
        self, dialect: str, admitted: Admitted, rejected: Sequence[Rejection], at_ms: int, player: str | None
    ) -> list[NewLetter]:
        key, query, anonymous = admitted.key, admitted.query, admitted.anonymous
        sender = self._senders.of(admitted, at_ms)
        known = sender.known(key.tenant.id)
        # The hash of address and user agent only where a replay needs it: nothing should tie it to a `viewer_id`.
        of_sender = msgspec.msgpack.encode(known._replace(viewer_hash=0) if anonymous else known)
        of_named = msgspec.msgpack.encode(known._replace(viewer_hash=0))
        hash_of = None if anonymous else self._hashes_of(key).viewers.__getitem__
        letter = functools.partial(
            NewLetter, at_ms, key.tenant.id, key.id, channel_id=query.get("channel_id"), player=player
        )
        letters = []
        for one in rejected:
            written_as = one.written_as or dialect
            raw, detail = redacted(written_as, one.raw, one.detail, hash_of)
            size = None if raw else len(one.raw)
            kept = of_named if names_viewer(raw) else of_sender
            letters.append(letter(written_as, one.code, detail, raw, raw_bytes=size, sender=kept))
        return letters


def _tell(done: Future[int]) -> None:
    if (error := done.exception()) is not None:
        _log.warning("dead_letters_not_expired", error=str(error))
    elif gone := done.result():
        _log.info("dead_letters_expired", letters=gone)
