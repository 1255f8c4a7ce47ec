"""After beacons of known people the whole data folder, and everything that was logged, is searched for them."""

from __future__ import annotations

import contextlib
import json
import sqlite3
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import duckdb
import httpx
from running import Product, StartProduct

from viewmeter.wiring import log_reader

ADDRESSES = ("203.0.113.77", "2001:db8:77::77")
VIEWER = "ann.whose.id.is.known"
AGENT = "KnownAgent/77.1 (of one person)"
SECRETS = (*ADDRESSES, VIEWER, AGENT, "KnownAgent")


def event(**fields: Any) -> dict[str, Any]:
    now = time.time_ns() // 1_000_000
    return {"type": "play", "ts": now, "view_id": "a known view", "seq": 0, "video_id": "v", "channel_id": "c"} | fields


def send(product: Product, address: str, body: bytes, path: str = "beacon", **headers: str) -> int:
    sent = {"X-Forwarded-For": address, "User-Agent": AGENT, **headers}
    url = f"{product.base_url}/api/v1/events/{path}"
    parameters = {"key": product.ingest_key, "channel_id": "c", "player": "p"}
    return httpx.post(url, params=parameters, content=body, headers=sent, timeout=30).status_code


def everything(data: Path) -> Iterator[tuple[str, bytes]]:
    """Yield every file as it is, and once more as what is in it where that is compressed."""
    for path in sorted(data.rglob("*")):
        if path.is_file():
            yield str(path), path.read_bytes()
        if path.suffix == ".sqlite" or path.name == "meta.db":
            with contextlib.closing(sqlite3.connect(path)) as connection:
                yield f"{path} dumped", "\n".join(connection.iterdump()).encode()
    for batch in log_reader(data).read({}, max_events=1_000_000):
        yield "log decoded", json.dumps(batch.events.to_pylist()).encode()
    with contextlib.closing(duckdb.connect(str(data / "store.duckdb"), read_only=True)) as store:
        for (table,) in store.execute("SELECT table_name FROM duckdb_tables()").fetchall():
            yield f"store {table}", repr(store.execute(f'SELECT * FROM "{table}"').fetchall()).encode()


def test_nobody_who_sent_is_found_in_the_folder_or_the_log(start_product: StartProduct) -> None:
    product = start_product("--workers", "2", env={"VIEWMETER_COLLECTOR__TRUSTED_PROXIES": "127.0.0.0/8"})
    record = f'cid="v",e=ps,sid="record",sn=0,sta=p,ts={time.time_ns() // 1_000_000},com.example-user="{VIEWER}"'
    for n, address in enumerate(ADDRESSES):
        good = event(viewer_id=VIEWER, seq=n)
        assert send(product, address, json.dumps([good]).encode()) == 204
        assert send(product, address, json.dumps([event(view_id="followed", seq=n)]).encode()) == 204
        assert send(product, address, json.dumps([event(view_id="not followed", seq=n)]).encode(), DNT="1") == 204
        assert send(product, address, json.dumps([event(view_id="GPC", seq=n)]).encode(), **{"Sec-GPC": "1"}) == 204
        assert send(product, address, f"{record},v=2\n".encode(), "cmcd") == 204
        bad = [
            {**good, "type": "dance"},
            {**good, "ts": 5},
            {**good, "viewer_id": {"id": VIEWER}},
            {**good, "seq": -1, "user": VIEWER, "nested": {"viewer_id": VIEWER}},
            VIEWER,
        ]
        assert send(product, address, json.dumps(bad).encode()) == 422
        assert send(product, address, b'[{"viewer_id":"' + VIEWER.encode() + b'\xff"}]') == 422
        assert send(product, address, VIEWER.encode()) == 400
        assert send(product, address, f"{record},v=3\n".encode(), "cmcd") == 422
        assert send(product, address, b"[]", **{"Content-Type": "image/gif"}) == 415
        httpx.get(f"{product.base_url}/api/v1/views/x", headers={"X-Forwarded-For": address, "User-Agent": AGENT})
    product.flush()
    listed = httpx.get(f"{product.base_url}/api/v1/admin/dead-letters", headers=product.headers, timeout=30).json()
    assert sum(listed["counts"].values()) == 2 * 7
    while_running = list(everything_raw(product.data))
    assert product.stop() == 0
    places = [*while_running, *everything(product.data), ("stderr", product.log.encode())]
    assert any(b"a known view" in content for _, content in places), "the search finds what is there"
    assert any(name == "log decoded" and b"not followed" in content for name, content in places)
    found = [(name, secret) for name, content in places for secret in SECRETS if secret.encode() in content]
    assert found == []
    viewers = viewers_by_view(product.data)
    assert len(viewers["followed"]) == 2, "two addresses, two viewers"
    assert len(viewers["not followed"]) == 1, "known by its view alone"
    assert len(viewers["GPC"]) == 1, "known by its view alone"


def everything_raw(data: Path) -> Iterator[tuple[str, bytes]]:
    for path in sorted(data.rglob("*")):
        if path.is_file():
            with contextlib.suppress(OSError):
                yield f"{path} while running", path.read_bytes()


def viewers_by_view(data: Path) -> dict[str, set[int]]:
    viewers: dict[str, set[int]] = {}
    for batch in log_reader(data).read({}, max_events=1_000_000):
        for row in batch.events.to_pylist():
            viewers.setdefault(row["view_id"], set()).add(row["viewer_hash"])
    return viewers
