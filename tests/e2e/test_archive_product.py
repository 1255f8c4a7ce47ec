"""The archive inside of the running product: every acknowledged event once, over kill -9; imports beside it."""

from __future__ import annotations

import json
import time
from collections import Counter
from pathlib import Path

import pyarrow.parquet as pq
from running import StartProduct, children, viewmeter
from test_backup import BUSY, Crowd, wait_for_archive

MERGING = {**BUSY, "VIEWMETER_ARCHIVE__MERGE_FILES": "3"}


def plain_events(data: Path) -> Counter[tuple[str, int]]:
    """Return what a reader sees that knows nothing of a manifest."""
    seen: Counter[tuple[str, int]] = Counter()
    for path in (data / "archive").rglob("*.parquet"):
        table = pq.ParquetFile(path).read(["view_id", "seq"])
        seen.update(zip(table["view_id"].to_pylist(), table["seq"].to_pylist(), strict=True))
    return seen


def test_every_acknowledged_event_is_archived_once_over_kill_9(start_product: StartProduct, tmp_path: Path) -> None:
    product = start_product("--workers", "2", env=MERGING)
    acknowledged: set[str] = set()
    for life in range(4):
        if life:
            product.restart()
        with Crowd(product, f"life-{life}") as crowd:
            wait_for_archive(product, 50 * (life + 1))
            if life % 2:
                children(product)["engine"].kill()
                sent = len(crowd.acknowledged)
                while len(crowd.acknowledged) < sent + 20:
                    time.sleep(0.02)
            before = set(crowd.acknowledged)
            product.kill()
            crowd.stop()
        acknowledged |= before
        assert max(plain_events(product.data).values()) == 1, "doubled before anybody tidied up"
    target = tmp_path / "all.jsonl"
    done = viewmeter(
        "export",
        "--data",
        product.data,
        "--start",
        "2020-01-01",
        "--end",
        "2100-01-01",
        "--format",
        "jsonl",
        "--to",
        target,
    )
    assert done.returncode == 0, done.stderr
    rows = [json.loads(line) for line in target.read_text().splitlines()]
    seen = Counter((row["view_id"], row["seq"]) for row in rows)
    assert set(seen.values()) == {1}
    assert set(seen) >= {(view, seq) for view in acknowledged for seq in (0, 1)}
    assert seen == plain_events(product.data)


def test_old_events_are_imported_beside_the_running_product_once(start_product: StartProduct, tmp_path: Path) -> None:
    product = start_product("--workers", "1", env=BUSY)
    day_before = time.time_ns() // 1_000_000 - 10 * 86_400_000
    rows = [
        {"type": "play", "ts": day_before, "view_id": f"old-{n}", "seq": 0, "video_id": "v", "channel_id": "c"}
        for n in range(300)
    ]
    (tmp_path / "old.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    refused = product.post(rows[:1])
    assert (refused.status_code, "viewmeter import" in refused.text) == (422, True), "too old for a player"
    with Crowd(product) as crowd:
        wait_for_archive(product, 20)
        for expected in ("300 of 300 rows imported", "imported before"):
            done = viewmeter("import", tmp_path / "old.jsonl", "--data", product.data)
            assert (done.returncode, expected in done.stdout) == (0, True), done.stderr
        wait_for_archive(product, 300 + 2 * len(crowd.acknowledged))
    product.flush()
    wait_for_archive(product, 300 + 2 * len(crowd.acknowledged))
    seen = plain_events(product.data)
    assert set(seen.values()) == {1}
    assert sum(1 for view, _ in seen if view.startswith("old-")) == 300


def test_readyz_and_metrics_tell_of_the_archive(start_product: StartProduct) -> None:
    import httpx

    product = start_product("--workers", "1", env=BUSY)
    parts = httpx.get(f"{product.base_url}/readyz", timeout=10).json()["parts"]
    assert parts["archive"] == {"ready": True, "detail": None}
    text = httpx.get(f"{product.base_url}/metrics", timeout=10).text
    for name in ("files", "events", "bytes", "damaged_files", "lag_batches"):
        assert f"viewmeter_archive_{name}" in text
