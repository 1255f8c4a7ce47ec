"""The tables of the metadata database, as SQLAlchemy Core describes them, and how a connection is set up.

In: a database URL. Out: `open_engine(url)` with every table there. SQLite here (one file in WAL mode,
owner-readable only, since it holds the tenants' viewer secrets); any other URL that SQLAlchemy knows when
scaled out.
"""

from __future__ import annotations

import os
import sqlite3
from pathlib import Path
from typing import Any, Final

import sqlalchemy as sa
from sqlalchemy.pool import ConnectionPoolEntry

SCHEMA_VERSION: Final = 1
BUSY_TIMEOUT_MS: Final = 10_000

WRITE: Final = {"viewmeter_write": True}
"""Execution options of a connection that will write: SQLite then takes its write lock at BEGIN, so that a
transaction waits at its start instead of failing in its middle."""

metadata = sa.MetaData()

schema_version = sa.Table(
    "schema_version",
    metadata,
    sa.Column("id", sa.Integer, primary_key=True, autoincrement=False),  # always 1
    sa.Column("version", sa.Integer, nullable=False),
    # Rises with every write to keys or sessions: what the directories of all processes poll.
    sa.Column("changes", sa.BigInteger, nullable=False),
)

tenants = sa.Table(
    "tenants",
    metadata,
    sa.Column("id", sa.String(63), primary_key=True),
    sa.Column("name", sa.String(255), nullable=False),
    sa.Column("viewer_secret", sa.LargeBinary(32), nullable=False),
    sa.Column("time_zone", sa.String(64), nullable=False),
    sa.Column("created_at_ms", sa.BigInteger, nullable=False),
)

keys = sa.Table(
    "keys",
    metadata,
    sa.Column("id", sa.String(32), primary_key=True),
    sa.Column("tenant_id", sa.ForeignKey("tenants.id"), nullable=False, index=True),
    sa.Column("prefix", sa.String(16), nullable=False),
    sa.Column("hash", sa.LargeBinary(32), nullable=False, unique=True),
    sa.Column("scopes", sa.JSON, nullable=False),
    sa.Column("channels", sa.JSON(none_as_null=True)),  # null = all of the tenant
    sa.Column("origins", sa.JSON, nullable=False),
    sa.Column("created_at_ms", sa.BigInteger, nullable=False),
    sa.Column("revoked_at_ms", sa.BigInteger),
)

signin_tokens = sa.Table(
    "signin_tokens",
    metadata,
    sa.Column("hash", sa.LargeBinary(32), primary_key=True),
    sa.Column("tenant_id", sa.ForeignKey("tenants.id"), nullable=False),
    sa.Column("scopes", sa.JSON, nullable=False),
    sa.Column("channels", sa.JSON(none_as_null=True)),
    sa.Column("expires_at_ms", sa.BigInteger, nullable=False),
)

sessions = sa.Table(
    "sessions",
    metadata,
    sa.Column("hash", sa.LargeBinary(32), primary_key=True),
    sa.Column("tenant_id", sa.ForeignKey("tenants.id"), nullable=False),
    sa.Column("key_id", sa.ForeignKey("keys.id")),  # null = came by a sign-in link
    sa.Column("scopes", sa.JSON, nullable=False),
    sa.Column("channels", sa.JSON(none_as_null=True)),
    sa.Column("created_at_ms", sa.BigInteger, nullable=False),
    sa.Column("expires_at_ms", sa.BigInteger, nullable=False, index=True),
)


class SchemaTooNewError(Exception):
    """The database was written by a newer Viewmeter than this one."""


def open_engine(url: str) -> sa.Engine:
    """Open the database at `url`, making the file and the tables that are missing.

    Raises `SchemaTooNewError`, and `sqlalchemy.exc.SQLAlchemyError` where the database cannot be used.
    """
    parsed = sa.make_url(url)
    if parsed.get_backend_name() == "sqlite":
        _make_private_file(parsed.database)
    engine = sa.create_engine(parsed)
    if parsed.get_backend_name() == "sqlite":
        sa.event.listen(engine, "connect", _set_up_sqlite)
        sa.event.listen(engine, "begin", _begin_sqlite)
    try:
        with engine.execution_options(**WRITE).begin() as connection:
            metadata.create_all(connection)
            found = connection.scalar(sa.select(schema_version.c.version).where(schema_version.c.id == 1))
            if found is None:
                connection.execute(sa.insert(schema_version).values(id=1, version=SCHEMA_VERSION, changes=0))
            elif found > SCHEMA_VERSION:
                raise SchemaTooNewError(
                    f"The metadata in {parsed.render_as_string()} has schema version {found};"
                    f" this Viewmeter knows up to {SCHEMA_VERSION}. Install the newer one that wrote it."
                )
    except BaseException:
        engine.dispose()
        raise
    return engine


def _make_private_file(database: str | None) -> None:
    if not database or database == ":memory:":
        raise ValueError(
            "The metadata needs a file: sqlite:///path/to/meta.db. In memory, the processes of"
            " Viewmeter could not share it."
        )
    path = Path(database)
    path.parent.mkdir(parents=True, exist_ok=True)
    # SQLite gives its -wal and -shm files the rights of the main file, so this is enough for all three.
    os.close(os.open(path, os.O_CREAT | os.O_RDWR, 0o600))


def _set_up_sqlite(connection: sqlite3.Connection, _entry: ConnectionPoolEntry) -> None:
    # The driver must not begin transactions by itself: `_begin_sqlite` says which kind.
    connection.isolation_level = None
    cursor: Any = connection.cursor()
    try:
        cursor.execute(f"PRAGMA busy_timeout={BUSY_TIMEOUT_MS}")
        try:
            cursor.execute("PRAGMA journal_mode=WAL")
        except sqlite3.OperationalError as error:
            # Another process is switching the same new file right now; the mode stays with the file.
            if "locked" not in str(error):
                raise
        cursor.execute("PRAGMA synchronous=FULL")
        cursor.execute("PRAGMA foreign_keys=ON")
    finally:
        cursor.close()


def _begin_sqlite(connection: sa.Connection) -> None:
    writes = connection.get_execution_options().get("viewmeter_write", False)
    connection.exec_driver_sql("BEGIN IMMEDIATE" if writes else "BEGIN")
