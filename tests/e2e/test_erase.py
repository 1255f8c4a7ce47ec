"""After `privacy erase` nothing in the data folder names the viewer: no row, no file, no freed page."""

from __future__ import annotations

import json
import time
from pathlib import Path

import pytest
from running import Product, StartProduct, viewmeter

from viewmeter.archive.embedded_files import ours
from viewmeter.eventlog.embedded import EmbeddedLogReader
from viewmeter.stream import snapshot

HER, HIM = "ann-7f3a@example.org", "bob-91cc@example.org"
BUSY = {"VIEWMETER_ARCHIVE__FLUSH_EVERY_S": "0.3", "VIEWMETER_STREAM__SNAPSHOT_EVERY_S": "1"}


def views(who: str, count: int = 40) -> list[list[dict[str, object]]]:
    now = time.time_ns() // 1_000_000
    beacons = []
    for number in range(count):
        event = {"view_id": f"{abs(hash(who)) % 1000}-{number}", "video_id": "v", "channel_id": "c", "viewer_id": who}
        beacons.append(
            [
                event | {"type": "play", "seq": 0, "ts": now - 9_000 + number},
                event | {"type": "heartbeat", "seq": 1, "ts": now + number, "played_ms": 9_000},
                event | {"type": "nonsense", "seq": 2, "ts": now},  # becomes a dead letter
            ]
        )
    return beacons


def traces(data: Path, needles: list[bytes]) -> list[str]:
    """Return the files that hold one of these bytes."""
    found = []
    for path in sorted(data.rglob("*")):
        if path.is_file() and path.name != "lock":
            content = path.read_bytes()
            found += [f"{path.relative_to(data)}: {needle!r}" for needle in needles if needle in content]
    return found


def hash_of(data: Path, tmp_path: Path, view: str) -> int:
    target = tmp_path / "out.jsonl"
    done = viewmeter(
        "export", "--data", data, "--start", "2020-01-01", "--end", "2100-01-01", "--format", "jsonl", "--to", target
    )
    assert done.returncode == 0, done.stderr
    rows = [json.loads(line) for line in target.read_text().splitlines()]
    target.unlink()
    return next(int(row["viewer_hash"]) for row in rows if row["view_id"].startswith(view))


def hashes_held(data: Path) -> set[int]:
    """Return every viewer hash in what the folder's compressed files hold."""
    import pyarrow.parquet as pq

    held: set[int] = set()
    for path in ours(data / "archive"):
        held |= set(pq.ParquetFile(path).read(["viewer_hash"])["viewer_hash"].to_pylist())
    log = EmbeddedLogReader(data / "log")
    for batch in log.read({}, max_events=10**9):
        held |= set(batch.events.column("viewer_hash").to_pylist())
    log.close()
    saved = snapshot.load(data / "state")
    if saved is not None:
        held |= set(saved.core.viewer.tolist())
    return held


@pytest.mark.parametrize("running", [True, False], ids=["running", "stopped"])
def test_an_erased_viewer_leaves_no_trace_in_the_folder(
    start_product: StartProduct, tmp_path: Path, running: bool
) -> None:
    product = start_product("--workers", "2", env=BUSY)
    for hers, his in zip(views(HER), views(HIM), strict=True):
        for beacon in (hers, his):
            assert product.post(beacon).status_code == 204
    product.flush()
    her, his_hash = (hash_of(product.data, tmp_path, f"{abs(hash(who)) % 1000}-") for who in (HER, HIM))
    if not running:
        assert product.stop() == 0
    assert her in hashes_held(product.data)
    done = viewmeter("privacy", "erase", "--viewer", HER, "--data", product.data, "--json")
    assert done.returncode == 0, done.stderr
    gone = json.loads(done.stdout)
    assert (gone["viewer_hash"], gone["log_events"], gone["dead_letters"]) == (str(her), 80, 40)
    assert gone["archive_hours"] >= 1
    assert gone["state_views"] == 40
    if running:
        product.wait_ready()
        after_erasure_it_goes_on(product)
        assert product.stop() == 0
    held = hashes_held(product.data)
    assert (her in held, his_hash in held) == (False, True)
    as_bytes = [her.to_bytes(8, order, signed=True) for order in ("little", "big")]
    text = [str(her).encode(), as_bytes[1].hex().encode(), HER.encode(), json.dumps(HER).encode()]
    assert traces(product.data, [*as_bytes, *text]) == []
    assert traces(product.data, [his_hash.to_bytes(8, "big", signed=True).hex().encode()]), "his dead letters are there"


def after_erasure_it_goes_on(product: Product) -> None:
    """A view that is going on is still one view, and others are as they were."""
    (before,) = product.query(time_range="24h", granularity="total", metrics=["plays", "duplicate_events"])
    assert before["duplicate_events"] == 0
    assert product.post(views("somebody new", 1)[0]).status_code == 204
    product.flush()
    (after,) = product.query(time_range="24h", granularity="total", metrics=["plays", "duplicate_events"])
    assert int(str(after["plays"])) == int(str(before["plays"])) + 1


def test_whom_to_erase_must_be_said_once(tmp_path: Path) -> None:
    assert viewmeter("init", "--data", tmp_path / "d").returncode == 0
    for words in ((), ("--viewer", "a", "--viewer-hash", "1")):
        refused = viewmeter("privacy", "erase", "--data", tmp_path / "d", *words)
        assert (refused.returncode, "say whom" in refused.stderr) == (1, True)
    nobody = viewmeter("privacy", "erase", "--data", tmp_path / "d", "--viewer", "nobody", "--json")
    assert nobody.returncode == 0, nobody.stderr
    assert json.loads(nobody.stdout)["log_events"] == 0
