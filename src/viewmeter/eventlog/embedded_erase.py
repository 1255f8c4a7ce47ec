"""Taking one viewer's events out of the embedded log, also while its writers write.

In: the folder of the log, a tenant and a hash. Out: how many events went. Promised: no file of the log, nor what SQLite
keeps beside it, holds an event of that viewer that was durable at the call; offsets stay, so positions keep their
meaning (a batch that held nothing else is served as a batch of no events). Rows are rewritten one a transaction, so a
writer waits for some ms at most. Batches that were set aside as damaged cannot be looked into and go as a whole.
"""

from __future__ import annotations

import contextlib
import sqlite3
import time
from pathlib import Path
from typing import Final

import pyarrow as pa
import pyarrow.compute as pc

from viewmeter.eventlog import embedded_files as files
from viewmeter.eventlog import embedded_rows as rows
from viewmeter.eventlog.protocol import LogUnavailableError

_WAIT_S: Final = 30.0


def erase(root: Path, tenant_id: str, viewer_hash: int) -> int:
    """Return how many events were taken out. Raises `LogUnavailableError` where a file cannot be rewritten now."""
    gone = 0
    for partition in files.partitions(root):
        for segment in files.segments(files.partition_folder(root, partition)):
            try:
                gone += _from_file(segment.path, tenant_id, viewer_hash)
            except sqlite3.Error as error:
                if not segment.path.exists():
                    continue  # dropped meanwhile
                raise LogUnavailableError(f"{segment.path.name} cannot be rewritten now ({error})") from error
    for aside in (root / "damaged").glob("*.batch"):
        aside.unlink(missing_ok=True)
    return gone


def _from_file(path: Path, tenant_id: str, viewer_hash: int) -> int:
    address = f"{path.absolute().as_uri()}?mode=rw"
    with contextlib.closing(sqlite3.connect(address, uri=True, isolation_level=None, timeout=_WAIT_S)) as connection:
        connection.execute("PRAGMA secure_delete=ON")  # what was there is overwritten
        connection.execute("PRAGMA synchronous=FULL")
        gone = 0
        try:
            offsets = [row[0] for row in connection.execute('SELECT "offset" FROM batches ORDER BY 1')]
        except sqlite3.OperationalError as error:
            if "no such table" in str(error):
                return 0  # its writer has just made it
            raise
        for offset in offsets:
            gone += _from_row(connection, offset, tenant_id, viewer_hash)
        if gone:
            _truncate(connection)
        return gone


def _from_row(connection: sqlite3.Connection, offset: int, tenant_id: str, viewer_hash: int) -> int:
    found = connection.execute('SELECT checksum, blob FROM batches WHERE "offset" = ?', (offset,)).fetchone()
    try:
        events = rows.decode(found[1], found[0])
    except rows.DamagedRowError:
        return 0  # nobody can read it: the reader serves it as nothing
    of_viewer = pc.equal(events.column("viewer_hash"), viewer_hash)
    if not pc.any(of_viewer).as_py():
        return 0
    mine = pc.and_(of_viewer, pc.equal(events.column("tenant_id").cast(pa.string()), tenant_id))
    kept = events.filter(pc.invert(mine))
    if kept.num_rows == events.num_rows:
        return 0
    blob = rows.encode(kept)
    connection.execute(
        'UPDATE batches SET events = ?, checksum = ?, blob = ? WHERE "offset" = ?',
        (kept.num_rows, rows.checksum(blob), blob, offset),
    )
    return int(events.num_rows - kept.num_rows)


def _truncate(connection: sqlite3.Connection) -> None:
    """Empty the write-ahead log, which holds pages as they were. Readers of the moment are waited for."""
    deadline = time.monotonic() + _WAIT_S
    while True:
        busy, _, _ = connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
        if not busy:
            return
        if time.monotonic() > deadline:
            raise sqlite3.OperationalError("its write-ahead log is in use")
        time.sleep(0.05)
