"""The quality figures of all workers, by UTC day, in one SQLite file a worker (`folder/w03.sqlite`).

In: figures to add. Out: merged figures, a page at a time. Promised: at most `max_groups` players a day and file have
rows of their own; further ones share one row of their tenant, and where even those are too many they are left out and
counted; days older than KEEP_DAYS go. Not durable against a power cut: these are figures of a sample.
"""

from __future__ import annotations

import base64
import contextlib
import itertools
import sqlite3
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Final

import msgspec

from viewmeter.collector.quality.figures import Figures, Group, merged
from viewmeter.model.time import DAY_MS

KEEP_DAYS: Final = 8
OTHERS: Final = "(others)"
"""The player of whatever found no row of its own."""

_SCHEMA: Final = """
CREATE TABLE IF NOT EXISTS figures (
  day INTEGER NOT NULL, tenant TEXT NOT NULL, player TEXT NOT NULL, body BLOB NOT NULL,
  PRIMARY KEY (day, tenant, player)
) STRICT, WITHOUT ROWID
"""
_FIND: Final = "SELECT body FROM figures WHERE day = ? AND tenant = ? AND player = ?"
_PAGE: Final = """
SELECT tenant, player, body FROM figures
WHERE day >= ? AND (? IS NULL OR tenant = ?) AND (tenant, player) > (?, ?) ORDER BY tenant, player LIMIT ?
"""


class FiguresWriter:
    """Adds to the figures of one worker. Used by one thread at a time."""

    def __init__(self, folder: Path, worker: int, max_groups: int = 500) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._path = folder / f"w{worker:02d}.sqlite"
        self._max_groups = max_groups

    def add(self, found: Mapping[Group, Figures], now_ms: int) -> int:
        """Add figures to the day that holds `now_ms`; return the events that found no room. Raises sqlite3.Error."""
        day, left_out = now_ms // DAY_MS, 0
        with _opened(self._path) as connection:
            connection.execute("DELETE FROM figures WHERE day <= ?", (day - KEEP_DAYS,))
            (rows,) = connection.execute("SELECT count(*) FROM figures WHERE day = ?", (day,)).fetchone()
            for (tenant, player), figures in sorted(found.items()):
                name, before = player, connection.execute(_FIND, (day, tenant, player)).fetchone()
                if before is None and rows >= self._max_groups:
                    name, before = OTHERS, connection.execute(_FIND, (day, tenant, OTHERS)).fetchone()
                    if before is None and rows >= 2 * self._max_groups:
                        left_out += figures.events
                        continue
                rows += before is None
                parts = [figures] if before is None else [_read(before[0]), figures]
                body = msgspec.msgpack.encode(merged(parts))
                connection.execute("INSERT OR REPLACE INTO figures VALUES (?,?,?,?)", (day, tenant, name, body))
        return left_out


class FiguresReader:
    """Reads the figures of all workers, from any process and thread. `sample_ratio`: the share of views in them."""

    def __init__(self, folder: Path, sample_ratio: float) -> None:
        self._folder = folder
        self.sample_ratio = sample_ratio

    def page(
        self, tenant_id: str | None, now_ms: int, days: int = 1, limit: int = 100, cursor: str | None = None
    ) -> tuple[list[tuple[Group, Figures]], str | None]:
        """Return groups by tenant and player, over the last `days` UTC days, and the next page's cursor.

        tenant_id: None = of all tenants. Raises ValueError for a cursor that is none.
        """
        after = _group_of(cursor) if cursor else ("", "")
        first_day = now_ms // DAY_MS - days + 1
        rows: list[tuple[Group, bytes]] = []
        for path in sorted(self._folder.glob("w*.sqlite")):
            with _opened(path) as connection:
                asked = (first_day, tenant_id, tenant_id, *after, (limit + 1) * days)
                rows += [((tenant, player), body) for tenant, player, body in connection.execute(_PAGE, asked)]
        rows.sort(key=lambda row: row[0])
        groups = itertools.groupby(rows, key=lambda row: row[0])
        found = [
            (group, merged(_read(body) for _, body in same)) for group, same in itertools.islice(groups, limit + 1)
        ]
        more = len(found) > limit
        return found[:limit], _cursor_of(found[limit - 1][0]) if more else None


@contextlib.contextmanager
def _opened(path: Path) -> Iterator[sqlite3.Connection]:
    with contextlib.closing(sqlite3.connect(path, timeout=10)) as connection, connection:
        connection.execute("PRAGMA journal_mode=WAL")
        connection.execute("PRAGMA synchronous=NORMAL")
        connection.execute(_SCHEMA)
        yield connection


def _read(body: bytes) -> Figures:
    return msgspec.msgpack.decode(body, type=Figures)


def _cursor_of(group: Group) -> str:
    return base64.urlsafe_b64encode(msgspec.json.encode(group)).decode().rstrip("=")


def _group_of(cursor: str) -> Group:
    try:
        text = base64.urlsafe_b64decode(cursor + "=" * (-len(cursor) % 4))
        tenant, player = msgspec.json.decode(text, type=tuple[str, str])
    except (ValueError, msgspec.DecodeError) as error:
        raise ValueError("the cursor is none of this list: use next_cursor of the answer before") from error
    return tenant, player
