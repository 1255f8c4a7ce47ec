"""The file's schema: made where it is missing, and brought up to this version's.

In: an open database. Out: every table there, with every column that the catalogue knows. Promised: a file of a newer
version is refused before anything is changed.
"""

from __future__ import annotations

from pathlib import Path
from typing import Final

from viewmeter.model.catalogue import SPEED_ROLLUPS
from viewmeter.model.time import HOUR_MS
from viewmeter.olap.embedded_database import Connection, first, transaction
from viewmeter.olap.embedded_tables import add_column, all_tables, appended, create_table, merged

SCHEMA_VERSION: Final = 2
_SCHEMA: Final = Path(__file__).with_name("embedded_schema.sql")


class StoreVersionError(Exception):
    """The file was written by a newer version than this one."""


def prepare(db: Connection, path: Path) -> None:
    """Make or mend the tables. Raises `StoreVersionError`."""
    db.execute("CREATE TABLE IF NOT EXISTS schema_version (version INTEGER NOT NULL)")
    row = first(db.execute("SELECT max(version) FROM schema_version"))
    found = row[0] if row else None
    if found is not None and found > SCHEMA_VERSION:
        raise StoreVersionError(
            f"{path} has schema version {found}, and this Viewmeter knows versions up to {SCHEMA_VERSION}: "
            "use the newer Viewmeter that wrote it, or restore a backup"
        )
    with transaction(db):
        db.execute(_SCHEMA.read_text(encoding="utf-8"))
        if first(db.execute("SELECT 1 FROM batch_state")) is None:
            db.execute("INSERT INTO batch_state VALUES (0)")
        present = {*db.execute("SELECT table_name, column_name FROM duckdb_columns()").fetchall()}
        tables = {table for table, _ in present}
        for table, columns in all_tables().items():
            if table not in tables:
                db.execute(create_table(table, columns))
                continue
            for name, kind in columns.items():
                if (table, name) not in present:
                    db.execute(add_column(table, name, kind))
        if found == 1:
            _note_hours(db)
        if found != SCHEMA_VERSION:
            db.execute("DELETE FROM schema_version")
            db.execute("INSERT INTO schema_version VALUES (?)", [SCHEMA_VERSION])


def _note_hours(db: Connection) -> None:
    """Version 1 did not say which hours have rows: all that are there count as appended by the last commit."""
    tables = [t for rollup in SPEED_ROLLUPS.values() for t in (appended(rollup), merged(rollup))]
    hours = " UNION ".join(f"SELECT time_ms - time_ms % {HOUR_MS} AS hour_ms FROM {table}" for table in tables)
    db.execute(f"INSERT INTO speed_hours SELECT hour_ms, (SELECT coalesce(max(number), 0) FROM commits) FROM ({hours})")
