"""The directory: keys and sessions by their text, at the price of a dictionary look-up.

In: a `Metadata`. Out: `Directory`, one per process. Promised: K1 to K3 of keys.py. A thread of its own polls
the store's change counter once a second and re-reads what is cached when it has moved, so that a known key
never waits for a disk. While the store cannot be read, what was known goes on being valid: metadata that is
away must not stop the ingestion. Memory is bounded: `MAX_CACHED` entries, the oldest dropped first.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Final, Generic, TypeVar

import sqlalchemy as sa
import structlog

from viewmeter.metadata.keys import Key, KeysUnavailableError
from viewmeter.metadata.secrets import digest, looks_real

if TYPE_CHECKING:
    from viewmeter.metadata.store import Metadata, Session

POLL_EVERY_S: Final = 1.0
MAX_CACHED: Final = 50_000
MAX_UNKNOWN: Final = 10_000
UNKNOWN_FOR_S: Final = 1.0
"""How long a text stays unknown without another look-up. A new key is random, so nobody can have asked for
it."""
_CHUNK: Final = 500

_log = structlog.get_logger(__name__)
_Found = TypeVar("_Found")


class Directory:
    """Keys and sessions of all tenants, cached. Thread-safe.

    `poll_every_s` 0: no thread; whoever owns the directory calls `refresh()`.
    """

    def __init__(self, metadata: Metadata, poll_every_s: float = POLL_EVERY_S) -> None:
        self._metadata = metadata
        self._keys = _Cache(metadata.find_keys)
        self._sessions = _Cache(metadata.find_sessions)
        self._changes = metadata.changes()
        self._refreshing = threading.Lock()
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None
        if poll_every_s > 0:
            self._thread = threading.Thread(target=self._poll, args=(poll_every_s,), name="key-directory", daemon=True)
            self._thread.start()

    def find(self, text: str) -> Key | None:
        """Return the key, or None if it does not exist or was revoked. Raises `KeysUnavailableError`."""
        return self._keys.find(text)

    @property
    def version(self) -> object:
        """Return another object once keys were read again: K3."""
        return self._keys.version

    def find_session(self, text: str, now_ms: int) -> Session | None:
        """Return the session of a cookie text, or None if it does not exist or is over at `now_ms`."""
        session = self._sessions.find(text)
        return None if session is None or session.expires_at_ms <= now_ms else session

    def forget_session(self, text: str) -> None:
        """Drop a session that was ended here: signing out holds at once, not within 2 seconds."""
        self._sessions.forget(digest(text))

    def refresh(self) -> None:
        """Re-read what is cached if the store has changed."""
        with self._refreshing:
            # The counter is read before the keys: a change in between is seen again at the next refresh.
            changes = self._metadata.changes()
            if changes != self._changes:
                self._keys.reload()
                self._sessions.reload()
                self._changes = changes

    def close(self) -> None:
        """Stop the thread."""
        self._stop.set()
        if self._thread is not None:
            self._thread.join()

    def _poll(self, every_s: float) -> None:
        failing = False
        while not self._stop.wait(every_s):
            try:
                self.refresh()
                failing = False
            except sa.exc.SQLAlchemyError as error:
                if not failing:
                    _log.warning("metadata_unreadable", error=str(error), keys="as last read")
                failing = True


class _Cache(Generic[_Found]):
    """Digest -> what was found. Reads take no lock: a dictionary read is atomic."""

    def __init__(self, read: Callable[[Sequence[bytes]], dict[bytes, _Found]]) -> None:
        self._read = read
        self._known: dict[bytes, _Found] = {}
        self._unknown: dict[bytes, float] = {}
        self._lock = threading.Lock()
        self.version: object = object()

    def find(self, text: str) -> _Found | None:
        if not looks_real(text):
            return None
        at = digest(text)
        found = self._known.get(at)
        return found if found is not None else self._look_up(at)

    def _look_up(self, at: bytes) -> _Found | None:
        now = time.monotonic()
        if now - self._unknown.get(at, -UNKNOWN_FOR_S) < UNKNOWN_FOR_S:
            return None
        try:
            found = self._read([at]).get(at)
        except sa.exc.SQLAlchemyError as error:
            # Not "unknown": a player that hears 401 throws its events away.
            raise KeysUnavailableError("The metadata store cannot be read now; try again.") from error
        with self._lock:
            if found is not None:
                _insert(self._known, at, found, MAX_CACHED)
                self._unknown.pop(at, None)
            else:
                _insert(self._unknown, at, now, MAX_UNKNOWN)
        return found

    def forget(self, at: bytes) -> None:
        """Drop one entry; the next look-up reads it again."""
        with self._lock:
            self._known.pop(at, None)

    def reload(self) -> None:
        """Read again what is cached, and forget what was unknown."""
        asked = list(self._known)
        fresh: dict[bytes, _Found] = {}
        for start in range(0, len(asked), _CHUNK):
            fresh.update(self._read(asked[start : start + _CHUNK]))
        with self._lock:
            # What was looked up meanwhile is newer than this reading only for entries that were not asked
            # for.
            met = set(asked)
            fresh.update((at, found) for at, found in self._known.items() if at not in met)
            self._known = fresh
            self._unknown = {}
        self.version = object()  # last: whoever looked up before looks again


_Value = TypeVar("_Value")


def _insert(into: dict[bytes, _Value], at: bytes, value: _Value, most: int) -> None:
    while len(into) >= most:
        del into[next(iter(into))]  # the oldest: dictionaries keep the order of insertion
    into[at] = value
