"""A copy of the store as it is at one moment, while it goes on being written and read.

In: a connection of the store, a new file's path. Out: that file, complete, without freed pages. One transaction reads
all of it, so rows, commits and closed hours belong together.
"""

from __future__ import annotations

from pathlib import Path

import duckdb


def copy_to(con: duckdb.DuckDBPyConnection, path: Path) -> None:
    """Copy everything to a new file. Raises duckdb.Error, and then leaves no file."""
    (held,) = con.execute("SELECT current_database()").fetchone() or ("",)
    target = str(path.absolute()).replace("'", "''")
    con.execute(f"ATTACH '{target}' AS copied")
    try:
        con.execute("BEGIN TRANSACTION")
        try:
            con.execute(f'COPY FROM DATABASE "{held}" TO copied')
            con.execute("COMMIT")
        except BaseException:
            con.execute("ROLLBACK")
            raise
        con.execute("CHECKPOINT copied")
    except BaseException:
        con.execute("DETACH copied")
        path.unlink(missing_ok=True)
        raise
    con.execute("DETACH copied")
