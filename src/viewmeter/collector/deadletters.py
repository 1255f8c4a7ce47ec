"""Dead letters: every rejected event, with its reason, until somebody looks at it.

In: rejections of a worker, each into its own SQLite file (`folder/w03.sqlite`). Out: lists, counts, and the raw events
for a replay, read by any process over all files. Promised: what `append` returned for survives a crash of the process;
at most `max_letters` a worker are kept, the oldest go first, and `dropped()` counts them; `expire` takes away what is
too old, of every worker, and what goes is overwritten (freed pages, write-ahead log); an event is kept up to
`max_bytes`, and says when it was cut. Deliberately not: an fsync (it is not what the 204 promises), and any address.
Who calls has already taken out what tells who watched (`redaction.py`).
"""

from __future__ import annotations

import base64
import contextlib
import re
import sqlite3
import threading
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, Final

import msgspec

_SCHEMA: Final = """
CREATE TABLE IF NOT EXISTS letters (
  number INTEGER PRIMARY KEY AUTOINCREMENT,
  received_at INTEGER NOT NULL,
  tenant_id TEXT NOT NULL,
  key_id TEXT NOT NULL,
  dialect TEXT NOT NULL,
  code TEXT NOT NULL,
  detail TEXT NOT NULL,
  raw BLOB NOT NULL,
  raw_bytes INTEGER NOT NULL,
  replayed_at INTEGER,
  channel_id TEXT,
  player TEXT,
  sender BLOB
) STRICT;
CREATE INDEX IF NOT EXISTS letters_by_tenant ON letters (tenant_id, received_at, number);
CREATE INDEX IF NOT EXISTS letters_by_time ON letters (received_at, number);
CREATE TABLE IF NOT EXISTS dropped (one INTEGER PRIMARY KEY CHECK (one = 1), letters INTEGER NOT NULL) STRICT;
"""
_INSERT: Final = """
INSERT INTO letters (received_at, tenant_id, key_id, dialect, code, detail, raw, raw_bytes, channel_id, player, sender)
VALUES (?,?,?,?,?,?,?,?,?,?,?)
"""
_COLUMNS: Final = (
    "number, received_at, tenant_id, key_id, dialect, code, detail, raw, raw_bytes, replayed_at, "
    "channel_id, player, sender"
)
_LATER_COLUMNS: Final = {"channel_id": "TEXT", "player": "TEXT", "sender": "BLOB"}
"""Columns that a file of an earlier release lacks; they are added when it is opened."""
_FILE_NAME: Final = re.compile(r"w(\d{2,})\.sqlite")
_MAX_DETAIL_CHARS: Final = 500
_TRIM_EVERY: Final = 1_000
"""Letters between two looks at the bound: the file may hold that many more for a moment."""


class DeadLetter(msgspec.Struct, frozen=True):
    """One rejected event. `id` names it over all workers; `raw` is cut where `raw_bytes` says that there was more."""

    id: str
    received_at: int
    tenant_id: str
    key_id: str
    dialect: str
    code: str
    detail: str
    raw: bytes
    raw_bytes: int
    replayed_at: int | None = None
    channel_id: str | None = None  # as the URL said, for records that name none
    player: str | None = None  # likewise
    sender: bytes | None = None  # what was known of the sender (`senders.Known`), for the replay

    @property
    def complete(self) -> bool:
        """True where the whole event was kept, so that it can be replayed."""
        return len(self.raw) == self.raw_bytes


class NewLetter(msgspec.Struct, frozen=True, gc=False):
    """A rejection on its way into the file."""

    received_at: int
    tenant_id: str
    key_id: str
    dialect: str
    code: str
    detail: str
    raw: bytes
    raw_bytes: int | None = None  # how long it was, where `raw` is not all of it
    channel_id: str | None = None
    player: str | None = None
    sender: bytes | None = None


class DeadLetterWriter:
    """Writes the dead letters of one worker. Used by one thread at a time."""

    def __init__(self, folder: Path, worker: int, max_letters: int = 100_000, max_bytes: int = 4_096) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._folder = folder
        self._path = folder / f"w{worker:02d}.sqlite"
        self._max_letters = max_letters
        self._max_bytes = max_bytes
        self._until_trim = 0
        self._connection: sqlite3.Connection | None = None

    def append(self, letters: Sequence[NewLetter]) -> None:
        """Keep the letters. Raises sqlite3.Error; the next call opens the file again."""
        cut = self._max_bytes
        rows = [
            (
                letter.received_at,
                letter.tenant_id,
                letter.key_id,
                letter.dialect,
                letter.code,
                letter.detail[:_MAX_DETAIL_CHARS].encode("utf-8", "replace").decode(),
                letter.raw[:cut],
                len(letter.raw) if letter.raw_bytes is None else letter.raw_bytes,
                letter.channel_id,
                letter.player,
                letter.sender,
            )
            for letter in letters[-self._max_letters :]
        ]
        try:
            connection = self._open()
            with _transaction(connection):
                connection.executemany(_INSERT, rows)
                self._until_trim -= len(rows)
                if self._until_trim <= 0:
                    self._trim(connection)
        except sqlite3.Error:
            self.close()
            raise

    def expire(self, before_ms: int) -> int:
        """Take away what was received before, of every worker (one of them may be gone). Returns how many went.

        Raises sqlite3.Error; what is left over goes at the next call.
        """
        gone = 0
        for path in sorted(self._folder.glob("w*.sqlite")):
            with contextlib.closing(_connect(path)) as connection:
                gone += connection.execute("DELETE FROM letters WHERE received_at < ?", (before_ms,)).rowcount
                connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        return gone

    def close(self) -> None:
        """Close the file. Idempotent."""
        connection, self._connection = self._connection, None
        if connection is not None:
            with contextlib.suppress(sqlite3.Error):
                connection.close()

    def _open(self) -> sqlite3.Connection:
        if self._connection is None:
            self._connection = _connect(self._path)
        return self._connection

    def _trim(self, connection: sqlite3.Connection) -> None:
        (kept,) = connection.execute("SELECT count(*) FROM letters").fetchone()
        extra = kept - self._max_letters
        if extra > 0:
            connection.execute(
                "DELETE FROM letters WHERE number IN (SELECT number FROM letters ORDER BY number LIMIT ?)", (extra,)
            )
            connection.execute(
                "INSERT INTO dropped VALUES (1, ?) ON CONFLICT DO UPDATE SET letters = letters + excluded.letters",
                (extra,),
            )
        self._until_trim = min(_TRIM_EVERY, max(1, self._max_letters - min(kept, self._max_letters)))


class DeadLetters:
    """Reads the dead letters of all workers. Methods may be called by several threads."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._lock = threading.Lock()
        self._files: dict[int, sqlite3.Connection] = {}

    def list(
        self, tenant_id: str | None = None, limit: int = 100, cursor: str | None = None, code: str | None = None
    ) -> tuple[Sequence[DeadLetter], str | None]:
        """Return letters, newest first, and the cursor of the next page (None = no more).

        `tenant_id` None = of all tenants. Raises ValueError for a cursor that is none.
        """
        after = _cursor_position(cursor) if cursor else None
        where, values = _where(tenant_id, code)
        found: Any = []
        for worker, connection in self._each():
            text, bound = where, list(values)
            if after is not None:
                text += " AND (received_at, ?, number) < (?, ?, ?)"
                bound += [worker, *after]
            query = f"SELECT {_COLUMNS} FROM letters WHERE {text} ORDER BY received_at DESC, number DESC LIMIT ?"
            rows = connection.execute(query, (*bound, limit + 1))
            found.extend(((row[1], worker, row[0]), _letter(worker, row)) for row in rows)
        found.sort(key=lambda pair: pair[0], reverse=True)
        page = found[:limit]
        more = len(found) > limit and page
        return [letter for _, letter in page], (_cursor_text(page[-1][0]) if more else None)

    def counts_by_reason(self, tenant_id: str | None = None) -> dict[str, int]:
        """Return the number of letters kept, by code."""
        where, values = _where(tenant_id, None)
        counts: dict[str, int] = {}
        for _, connection in self._each():
            for code, count in connection.execute(
                f"SELECT code, count(*) FROM letters WHERE {where} GROUP BY code", values
            ):
                counts[code] = counts.get(code, 0) + count
        return dict(sorted(counts.items()))

    def replay(self, ids: Iterable[str], tenant_id: str | None = None) -> Sequence[DeadLetter]:
        """Return the letters with these ids that the tenant owns (None = any), for sending their `raw` in again."""
        wanted: dict[int, list[int]] = {}
        for text in ids:
            if match := re.fullmatch(r"w(\d{2,9})-(\d{1,18})", text):
                wanted.setdefault(int(match[1]), []).append(int(match[2]))
        where, values = _where(tenant_id, None)
        found: Sequence[DeadLetter] = []
        for worker, connection in self._each():
            for number in wanted.get(worker, ()):
                query = f"SELECT {_COLUMNS} FROM letters WHERE number = ? AND {where}"
                rows = connection.execute(query, (number, *values))
                found = [*found, *(_letter(worker, row) for row in rows)]
        return found

    def mark_replayed(self, ids: Iterable[str], at_ms: int) -> None:
        """Remember that these letters were sent in again."""
        for letter in self.replay(ids):
            worker, number = letter.id[1:].split("-")
            connection = self._files[int(worker)]
            connection.execute("UPDATE letters SET replayed_at = ? WHERE number = ?", (at_ms, int(number)))

    def dropped(self) -> int:
        """Return how many letters went because of the bound."""
        total = 0
        for _, connection in self._each():
            row = connection.execute("SELECT letters FROM dropped").fetchone()
            total += row[0] if row else 0
        return total

    def close(self) -> None:
        """Close all files."""
        with self._lock:
            for connection in self._files.values():
                connection.close()
            self._files.clear()

    def _each(self) -> Iterator[tuple[int, sqlite3.Connection]]:
        with self._lock:
            for path in sorted(self._folder.glob("w*.sqlite")):
                match = _FILE_NAME.fullmatch(path.name)
                if match is None:
                    continue
                worker = int(match[1])
                if worker not in self._files:
                    self._files[worker] = _connect(path)
                yield worker, self._files[worker]


def _connect(path: Path) -> sqlite3.Connection:
    connection = sqlite3.connect(path, isolation_level=None, check_same_thread=False, timeout=10)
    connection.execute("PRAGMA journal_mode=WAL")
    connection.execute("PRAGMA synchronous=NORMAL")
    connection.execute("PRAGMA secure_delete=ON")  # what goes is overwritten
    connection.executescript(_SCHEMA)
    there = {row[1] for row in connection.execute("PRAGMA table_info(letters)")}
    for name, kind in _LATER_COLUMNS.items():
        if name not in there:
            with contextlib.suppress(sqlite3.OperationalError):  # another process was faster
                connection.execute(f"ALTER TABLE letters ADD COLUMN {name} {kind}")
    return connection


@contextlib.contextmanager
def _transaction(connection: sqlite3.Connection) -> Iterator[None]:
    connection.execute("BEGIN IMMEDIATE")
    try:
        yield
    except BaseException:
        with contextlib.suppress(sqlite3.Error):
            connection.execute("ROLLBACK")
        raise
    connection.execute("COMMIT")


def _where(tenant_id: str | None, code: str | None) -> tuple[str, tuple[Any, ...]]:
    parts = [("tenant_id = ?", tenant_id), ("code = ?", code)]
    used = [(text, value) for text, value in parts if value is not None]
    return " AND ".join(text for text, _ in used) or "TRUE", tuple(value for _, value in used)


def _letter(worker: int, row: Sequence[Any]) -> DeadLetter:
    number, *rest = row
    return DeadLetter(f"w{worker:02d}-{number}", *rest)


def _cursor_text(position: tuple[int, int, int]) -> str:
    return base64.urlsafe_b64encode("/".join(map(str, position)).encode()).decode().rstrip("=")


def _cursor_position(cursor: str) -> tuple[int, int, int]:
    try:
        padded = cursor + "=" * (-len(cursor) % 4)
        received_at, worker, number = base64.urlsafe_b64decode(padded).decode().split("/")
        return int(received_at), int(worker), int(number)
    except ValueError as error:
        raise ValueError("the cursor is none of this list: use next_cursor of the answer before") from error
