"""`viewmeter verify` on the folder of a real product: refused while it runs, equal after it stopped, and honest."""

from __future__ import annotations

import json
import time
from pathlib import Path

from running import StartProduct, viewmeter

HOUR_MS = 3_600_000


def test_a_stopped_product_is_verified_and_a_running_one_is_refused(
    start_product: StartProduct, tmp_path: Path
) -> None:
    product = start_product("--workers", "1", env={"VIEWMETER_BATCH__LOOK_EVERY_S": "1"})
    start = (time.time_ns() // 1_000_000 - 100 * HOUR_MS) // HOUR_MS * HOUR_MS
    kinds = ["request", "play", *["heartbeat"] * 40, "exit"]
    rows = [
        {"type": kind, "ts": start + 1_500_000 * view + 30_000 * seq, "view_id": f"v-{view}", "seq": seq,
         "video_id": f"video-{view % 3}", "channel_id": "c", "bitrate_kbps": 2_000, "duration_ms": 900_000}
        for view in range(6)
        for seq, kind in enumerate(kinds)
    ]  # fmt: skip
    (tmp_path / "old.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    done = viewmeter("import", tmp_path / "old.jsonl", "--data", product.data)
    assert done.returncode == 0, done.stderr
    product.flush()
    refused = viewmeter("verify", "--data", product.data)
    assert refused.returncode != 0
    assert "stop it first" in refused.stderr
    assert product.stop() == 0
    verified = viewmeter("verify", "--data", product.data, "--json")
    assert verified.returncode == 0, verified.stderr + verified.stdout
    found = json.loads(verified.stdout)
    assert (found["equal"], found["differences"], found["events"]) == (True, [], len(rows))
    assert found["hours"] >= 3
    assert found["sums"] > 100


def test_a_folder_without_a_store_is_refused(tmp_path: Path) -> None:
    done = viewmeter("verify", "--data", tmp_path)
    assert done.returncode != 0
    assert "holds no store" in done.stderr
