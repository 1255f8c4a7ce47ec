"""Sends dead letters through the pipeline again: the second half of `POST /api/v1/admin/dead-letters/replay`.

In: dead letters. Out: their events in a log partition of the engine's own, as if they had just been received; those
that are still refused stay dead letters. Promised: an event that is accepted is durable when `resubmit` returns, and
one that was sent in twice counts once (a view's `seq` is its identity). Not there any more: the sender's address and
user agent, which were never kept; so place and device of such events are unknown.
"""

from __future__ import annotations

import functools
import importlib
import secrets
import threading
from collections.abc import Callable, Sequence
from typing import Final

import msgspec
import structlog

from viewmeter.collector.agents import Agent
from viewmeter.collector.columns import Beacon, build
from viewmeter.collector.deadletters import DeadLetter, DeadLetters
from viewmeter.collector.dialects import Decoded, Dialect, UndecodableError
from viewmeter.collector.intake import own_channel, take, unfollowed
from viewmeter.collector.recent import Hashes
from viewmeter.collector.redaction import viewer_of
from viewmeter.collector.senders import Known, KnownSender, Sender
from viewmeter.collector.settings import CollectorSettings
from viewmeter.collector.viewers import TenantHashes
from viewmeter.eventlog.protocol import LogUnavailableError, LogWriter
from viewmeter.metadata.keys import Key
from viewmeter.metadata.store import Metadata
from viewmeter.model.events import UNKNOWN
from viewmeter.web.problems import ProblemError

_NOWHERE: Final = (UNKNOWN, UNKNOWN, UNKNOWN, UNKNOWN)
_VIEWERS: Final = 1_000
_log = structlog.get_logger(__name__)


class Resubmitter:
    """Owns one log partition, which is opened at the first replay."""

    def __init__(
        self,
        open_log: Callable[[], LogWriter],
        letters: DeadLetters,
        metadata: Metadata,
        settings: CollectorSettings,
        clock: Callable[[], int],
    ) -> None:
        self._open_log = open_log
        self._letters = letters
        self._metadata = metadata
        self._settings = settings
        self._clock = clock
        self._writer: LogWriter | None = None
        self._lock = threading.Lock()

    def resubmit(self, letters: Sequence[DeadLetter]) -> dict[str, int]:
        """Decode, check and log the letters. Raises `ProblemError` when the log cannot take them."""
        now_ms = self._clock()
        beacons: list[Beacon] = []
        accepted: list[str] = []
        for letter in letters:
            beacon = self._beacon(letter, now_ms)
            if beacon is not None:
                beacons.append(beacon)
                accepted.append(letter.id)
        if beacons:
            with self._lock:
                self._append(beacons)
            self._letters.mark_replayed(accepted, now_ms)
        _log.info("dead_letters_replayed", accepted=len(accepted), rejected=len(letters) - len(accepted))
        return {"accepted": len(accepted), "rejected": len(letters) - len(accepted)}

    def close(self) -> None:
        """Release the partition."""
        with self._lock:
            if self._writer is not None:
                self._writer.close()
                self._writer = None

    def _append(self, beacons: list[Beacon]) -> None:
        try:
            if self._writer is None:
                self._writer = self._open_log()
            self._writer.append(build(beacons))
        except LogUnavailableError as error:
            raise ProblemError("log_unavailable", "The log cannot take events now; nothing was replayed.") from error

    def _beacon(self, letter: DeadLetter, now_ms: int) -> Beacon | None:
        """Return the letter's event on its way in, or None if it is still refused."""
        key = self._metadata.find_key_by_id(letter.key_id)
        if key is None or not letter.complete:
            return None
        try:
            decoded = _decode(letter, key)
        except UndecodableError:
            return None
        taken = take(decoded, key.channels, None, now_ms, self._settings)
        if not taken.events:
            return None
        sender = _sender(letter)
        events = unfollowed(taken.events) if sender.anonymous else taken.events
        hashes = TenantHashes(key.tenant, _VIEWERS)
        hashes.viewers = Hashes(functools.partial(viewer_of, hash_of=hashes.viewers.__getitem__), _VIEWERS)
        return Beacon(hashes, sender, now_ms, taken.shift_ms, events)


def _sender(letter: DeadLetter) -> Sender:
    if letter.sender is None:
        return Sender(_NOWHERE, Agent(), secrets.token_bytes(16))
    return KnownSender(msgspec.msgpack.decode(letter.sender, type=Known))


def _decode(letter: DeadLetter, key: Key) -> Decoded:
    dialect: Dialect = importlib.import_module(f"viewmeter.collector.dialects.{letter.dialect}").decode
    own = own_channel(key.channels)
    channel = letter.channel_id if own is None else own
    body = b"[" + letter.raw + b"]" if letter.dialect == "native" else letter.raw
    return dialect(body, channel_id=channel, player=letter.player)
