"""Erasing a viewer from a data folder: every row, file and freed page that names him.

In: a data folder, a tenant, the viewer's hash and, where known, his id. Out: what was taken out where. Two halves:
`from_events` works beside the running product (archive, log, dead letters); `from_state` needs the folder for itself
(the views' state, the batch layer's files, the store), so the engine does it before it opens them. Sketches and sums
hold no id and stay. Memory of running workers forgets him by itself: it is a cache from id to hash, bounded.
"""

from __future__ import annotations

import contextlib
import json
import shutil
import sqlite3
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import structlog

from viewmeter.archive.protocol import Archive
from viewmeter.eventlog import embedded_erase
from viewmeter.olap.protocol import TimeSeriesStore
from viewmeter.stream import snapshot

log = structlog.get_logger(__name__)

_LETTERS_A_LOOK: Final = 1_000
_GROUP_ROWS: Final = 65_536
_LETTERS: Final = "SELECT * FROM letters WHERE tenant_id = ? AND number > ? ORDER BY number LIMIT ?"


@dataclass
class Erased:
    """What was taken out."""

    archive_hours: int = 0
    log_events: int = 0
    dead_letters: int = 0
    state_views: int = 0
    batch_files: int = 0
    store_rows: int = 0


def from_events(data: Path, archive: Archive, tenant_id: str, viewer_hash: int, viewer_id: str | None) -> Erased:
    """Take the viewer out of what lies beside the engine. The log comes first: nothing of it reaches the archive."""
    archive.flush()
    gone = Erased(log_events=embedded_erase.erase(data / "log", tenant_id, viewer_hash))
    gone.archive_hours = len(archive.erase(tenant_id, viewer_hash))
    for path in sorted((data / "dead-letters").glob("*.sqlite")):
        gone.dead_letters += _from_letters(path, tenant_id, viewer_hash, viewer_id)
    return gone


def from_state(data: Path, open_store: Callable[[], TimeSeriesStore], tenant_id: str, viewer_hash: int) -> Erased:
    """Take the viewer out of what the engine holds; nobody else may have it open."""
    gone = Erased(state_views=snapshot.forget_viewer(data / "state", tenant_id, viewer_hash))
    # Results on their way to the store are computed again, as after a crash.
    for folder in (data / "batch" / "out").glob("*"):
        shutil.rmtree(folder)
    for path in sorted((data / "batch").rglob("*.parquet")):
        gone.batch_files += _from_parquet(path, tenant_id, viewer_hash)
    path = data / "store.duckdb"
    if path.exists():
        store = open_store()
        try:
            gone.store_rows = store.erase_viewer(tenant_id, viewer_hash)
        finally:
            store.close()
        rewrite_store(path)
    return gone


def order(data: Path, open_store: Callable[[], TimeSeriesStore]) -> Callable[[dict[str, Any]], dict[str, Any]]:
    """Return the handler of an order to erase, for an engine that has not opened anything yet."""

    def handle(values: dict[str, Any]) -> dict[str, Any]:
        return asdict(from_state(data, open_store, values["tenant"], int(values["viewer_hash"])))

    return handle


def _from_letters(path: Path, tenant_id: str, viewer_hash: int, viewer_id: str | None) -> int:
    """Delete a tenant's rejected events of the viewer, and write the file anew, freed pages left out."""
    with contextlib.closing(sqlite3.connect(path, isolation_level=None, timeout=30)) as connection:
        connection.row_factory = sqlite3.Row
        connection.execute("PRAGMA secure_delete=ON")
        gone: list[tuple[int]] = []
        last = -1
        while found := connection.execute(_LETTERS, (tenant_id, last, _LETTERS_A_LOOK)).fetchall():
            last = found[-1]["number"]
            gone += [(row["number"],) for row in found if _is_of(row, viewer_hash, viewer_id)]
        connection.execute("BEGIN IMMEDIATE")
        connection.executemany("DELETE FROM letters WHERE number = ?", gone)
        connection.execute("COMMIT")
        connection.execute("VACUUM")
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    return len(gone)


def _is_of(row: sqlite3.Row, viewer_hash: int, viewer_id: str | None) -> bool:
    """Return whether a rejected event is of the viewer, by his id or by what stands for him."""
    as_bytes = viewer_hash.to_bytes(8, "big", signed=True)
    raw = bytes(row["raw"])
    sender = bytes(row["sender"] or b"") if "sender" in row.keys() else b""  # noqa: SIM118 - a Row is no dict
    if any(mark in raw or mark in sender for mark in (as_bytes, as_bytes.hex().encode(), str(viewer_hash).encode())):
        return True
    if viewer_id is None:
        return False
    try:
        event = json.loads(raw)
    except (ValueError, RecursionError):
        return json.dumps(viewer_id).encode() in raw or f'"{viewer_id}"'.encode() in raw
    return isinstance(event, dict) and event.get("viewer_id") == viewer_id


def _from_parquet(path: Path, tenant_id: str, viewer_hash: int) -> int:
    """Write a file of the batch layer without the viewer's rows; return 1 where it had any."""
    if "viewer_hash" not in pq.read_schema(path).names:
        return 0
    table = pq.read_table(path)
    mine = pc.equal(table["viewer_hash"], viewer_hash)
    if "tenant_id" in table.column_names:
        mine = pc.and_(mine, pc.equal(table["tenant_id"].cast(pa.string()), tenant_id))
    if not pc.any(mine).as_py():
        return 0
    making = path.with_name(f".{path.name}.tmp")
    pq.write_table(table.filter(pc.invert(mine)), making, row_group_size=_GROUP_ROWS, compression="zstd")
    making.replace(path)
    return 1


def rewrite_store(path: Path) -> None:
    """Write the store's file anew: DuckDB frees pages without overwriting them. Needs room for both."""
    import duckdb

    making = path.with_name(f".{path.name}.new")
    for leftover in (making, making.with_name(making.name + ".wal")):
        leftover.unlink(missing_ok=True)
    with contextlib.closing(duckdb.connect()) as connection:
        connection.execute(f"ATTACH '{_quoted(path)}' AS held")
        connection.execute("CHECKPOINT held")
        connection.execute(f"ATTACH '{_quoted(making)}' AS made")
        connection.execute("COPY FROM DATABASE held TO made")
        connection.execute("CHECKPOINT made")
        connection.execute("DETACH made")
        connection.execute("DETACH held")
    path.with_name(path.name + ".wal").unlink(missing_ok=True)
    making.replace(path)


def _quoted(path: Path) -> str:
    return str(path.absolute()).replace("'", "''")
