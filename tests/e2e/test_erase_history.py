"""After `privacy erase` no closed hour, cohort, carried view, cache or file names the viewer; all others count on.

Files are looked into twice: as bytes, and decoded, since Parquet, Arrow, DuckDB and the log pack numbers.
"""

from __future__ import annotations

import contextlib
import json
import shutil
import sqlite3
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from running import Product, StartProduct, viewmeter

from viewmeter.collector.viewers import keyed_hash
from viewmeter.eventlog.embedded import EmbeddedLogReader
from viewmeter.metadata.store import Metadata
from viewmeter.model.time import DAY_MS, HOUR_MS, floor_to, rfc3339

HER, HIM = "ann-7f3a@example.org", "bob-91cc@example.org"
BUSY = {
    "VIEWMETER_ARCHIVE__FLUSH_EVERY_S": "0.3",
    "VIEWMETER_STREAM__SNAPSHOT_EVERY_S": "1",
    "VIEWMETER_BATCH__LOOK_EVERY_S": "0.5",
    "VIEWMETER_BATCH__RERUN_AFTER_S": "0",
    "VIEWMETER_COLLECTOR__QUALITY_SAMPLE_RATIO": "1",
}
METRICS = ["plays", "watch_time_ms", "unique_viewers", "unique_viewers_exact", "average_percentage_watched"]


def view(who: str, number: int, at_ms: int, minutes: int = 3) -> list[dict[str, Any]]:
    """A view with a heartbeat a minute; it is still open after its last."""
    same = {
        "view_id": f"{who[:3]}-{at_ms}-{number}",
        "video_id": f"film-{number % 2}",
        "channel_id": "c",
        "viewer_id": who,
    }
    same |= {"duration_ms": 600_000, "player": "p", "country": "DE"}
    kinds = ["request", "play", *["heartbeat"] * minutes]
    return [
        {"type": kind, "ts": at_ms + 60_000 * seq, "seq": seq, "position_ms": 60_000 * max(0, seq - 1), **same}
        for seq, kind in enumerate(kinds)
    ]


def cells(data: Path) -> Iterator[tuple[str, Any]]:
    """Yield every value in every file of the folder that has rows, decoded, with where it stands."""
    for path in sorted(data.rglob("*.parquet")):
        yield from _columns(str(path.relative_to(data)), pq.ParquetFile(path).read())
    for path in sorted(data.rglob("*.arrow")):
        with pa.memory_map(str(path)) as source:
            yield from _columns(str(path.relative_to(data)), pa.ipc.open_file(source).read_all())
    for path in sorted([*data.rglob("*.sqlite"), *data.rglob("*.db")]):
        if path.read_bytes()[:15] != b"SQLite format 3":
            continue  # counters of a process, which are bytes alone
        with contextlib.closing(sqlite3.connect(path)) as connection:
            for (table,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'").fetchall():
                for row in connection.execute(f'SELECT * FROM "{table}"'):
                    for value in row:
                        yield f"{path.relative_to(data)}: {table}", value
    with contextlib.closing(EmbeddedLogReader(data / "log")) as log:
        for batch in log.read({}, max_events=10**9):
            yield from _columns("log", pa.table(batch.events))
    with contextlib.closing(duckdb.connect(str(data / "store.duckdb"), read_only=True)) as store:
        for (table,) in store.execute("SELECT table_name FROM duckdb_tables()").fetchall():
            found = store.sql(f'SELECT * FROM "{table}"').to_arrow_table()
            yield from _columns(f"store.duckdb: {table}", found)


def _columns(where: str, table: pa.Table) -> Iterator[tuple[str, Any]]:
    for name, column in zip(table.column_names, table.columns, strict=True):
        for value in column.unique().to_pylist() if not pa.types.is_nested(column.type) else column.to_pylist():
            for one in value if isinstance(value, list) else [value]:
                yield f"{where}: {name}", one


def needles(viewer_hash: int, viewer_id: str) -> list[bytes]:
    """Return what would give a viewer away: the id, and the hash in binary, hexadecimal and decimal, either sign."""
    packed = [viewer_hash.to_bytes(8, order, signed=True) for order in ("little", "big")]
    hexed = [form(one.hex()).encode() for one in packed for form in (str.lower, str.upper)]
    numbers = [str(viewer_hash).encode(), str(viewer_hash % 2**64).encode()]
    return [*packed, *hexed, *numbers, viewer_id.encode(), json.dumps(viewer_id).encode()]


def traces(data: Path, viewer_hash: int, viewer_id: str) -> set[str]:
    """Return where anything names the viewer."""
    wanted = needles(viewer_hash, viewer_id)
    found = set()
    for path in sorted(data.rglob("*")):
        if path.is_file() and path.name != "lock":
            content = path.read_bytes()
            found |= {f"{path.relative_to(data)} as bytes" for needle in wanted if needle in content}
    for where, value in cells(data):
        if isinstance(value, int) and value in (viewer_hash, viewer_hash % 2**64):
            found.add(where)
        elif isinstance(value, str | bytes):
            content = value.encode() if isinstance(value, str) else value
            if any(needle in content for needle in wanted):
                found.add(where)
    return found


def hash_of(data: Path, who: str) -> int:
    with contextlib.closing(Metadata(f"sqlite:///{data / 'meta.db'}")) as metadata:
        owner = metadata.find_tenant("acme")
    assert owner is not None
    return keyed_hash(owner.viewer_secret, who)


def fill(product: Product, folder: Path, hour: int) -> None:
    """Both watch: in a week that is over (a file, imported), in hours that are over, across their border, and now."""
    before_this_week = floor_to(hour, DAY_MS) - 9 * DAY_MS
    old = [event for who in (HER, HIM) for event in view(who, 0, before_this_week)]
    (folder / "old.jsonl").write_text("".join(json.dumps(event) + "\n" for event in old))
    done = viewmeter("import", folder / "old.jsonl", "--data", product.data)
    assert done.returncode == 0, done.stderr
    for who in (HER, HIM):
        for number in range(10):
            assert product.post(view(who, number, hour + number * 60_000)).status_code == 204
        # Open at the end of its hour: the next hour's run takes it from what this one hands on.
        crossing = view(who, 99, hour + HOUR_MS - 150_000, 20)
        for part in (crossing[:5], crossing[5:]):
            for event in part:
                assert product.post([event]).status_code == 204
        assert product.post([{**view(who, 5, hour)[0], "type": "nonsense"}]).status_code in (204, 422)
    product.flush()


@dataclass
class Watched:
    """A folder in which both have watched, of a product that has ended, and what it answered."""

    product: Product
    asked: dict[str, Any]
    before: dict[str, Any]

    def copy(self, start_product: StartProduct, folder: Path) -> Product:
        """Start a product on a copy."""
        data = shutil.copytree(self.product.data, folder / "data", ignore=shutil.ignore_patterns("run"))
        product = start_product("--workers", "1", env=BUSY, data=data, init=False)
        product.ingest_key, product.secret_key = self.product.ingest_key, self.product.secret_key
        return product


@pytest.fixture(scope="module")
def watched(_products: StartProduct, tmp_path_factory: pytest.TempPathFactory) -> Watched:
    product = _products("--workers", "1", env=BUSY)
    hour = floor_to(time.time_ns() // 1_000_000, HOUR_MS) - 3 * HOUR_MS
    fill(product, tmp_path_factory.mktemp("old"), hour)
    for closing in (hour, hour + HOUR_MS):
        run_hour(product, closing)
    product.flush()
    asked = {"time_range": {"start": hour, "end": hour + 2 * HOUR_MS}, "granularity": "total", "metrics": METRICS}
    (before,) = product.query(**asked)
    assert (before["plays"], before["unique_viewers_exact"]) == (22, 2)
    assert product.stop() == 0
    return Watched(product, asked, before)


@pytest.mark.parametrize("running", [True, False], ids=["running", "stopped"])
def test_an_erased_viewer_is_in_no_closed_hour_and_no_file(
    watched: Watched, start_product: StartProduct, tmp_path: Path, running: bool
) -> None:
    product = watched.copy(start_product, tmp_path)
    for _ in range(2):  # the second from the cache
        assert product.query(**watched.asked) == [watched.before]
    her, his = hash_of(product.data, HER), hash_of(product.data, HIM)
    if not running:
        assert product.stop() == 0
        held = {where.split(":")[0].split("/")[0] for where in traces(product.data, her, HER)}
        assert held >= {"archive", "batch", "store.duckdb", "state"}, "the search finds her before"
    done = viewmeter("privacy", "erase", "--viewer", HER, "--data", product.data, "--json")
    assert done.returncode == 0, done.stderr
    if running:
        product.wait_ready()
    else:
        product.restart()
    product.flush()
    (after,) = product.query(**watched.asked)
    assert (after["plays"], after["unique_viewers"], after["unique_viewers_exact"]) == (11, 1, 1)
    assert int(str(after["watch_time_ms"])) * 2 == watched.before["watch_time_ms"]
    assert product.stop() == 0
    assert traces(product.data, her, HER) == set()
    assert traces(product.data, his, HIM), "he is there"


def run_hour(product: Product, hour_ms: int) -> None:
    import httpx

    body = {"interval": rfc3339(hour_ms)[:13]}
    answer = httpx.post(f"{product.base_url}/api/v1/admin/jobs/hourly", headers=product.headers, json=body, timeout=120)
    assert answer.status_code == 200, answer.text
