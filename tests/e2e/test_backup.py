"""A backup is taken while events stream in; what it becomes elsewhere counts every acknowledged event once."""

from __future__ import annotations

import itertools
import json
import threading
import time
from pathlib import Path

import httpx
from running import Product, StartProduct, viewmeter

BUSY = {"VIEWMETER_ARCHIVE__FLUSH_EVERY_S": "0.3", "VIEWMETER_STREAM__SNAPSHOT_EVERY_S": "1"}


class Crowd:
    """Two threads that send views of two events until they are told to stop."""

    def __init__(self, product: Product, prefix: str = "view") -> None:
        self.product, self.prefix = product, prefix
        self.acknowledged: set[str] = set()
        self.sent: set[str] = set()
        self._numbers = itertools.count()
        self._stop = threading.Event()
        self._threads = [threading.Thread(target=self._send) for _ in range(2)]

    def __enter__(self) -> Crowd:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def stop(self) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join()

    def _send(self) -> None:
        with httpx.Client(timeout=30) as client:
            while not self._stop.is_set():
                view = f"{self.prefix}-{next(self._numbers)}"
                now = time.time_ns() // 1_000_000
                event = {"ts": now, "view_id": view, "video_id": "v", "channel_id": "c", "viewer_id": view}
                beacon = [event | {"type": "request", "seq": 0}, event | {"type": "play", "seq": 1}]
                self.sent.add(view)
                url = f"{self.product.base_url}/api/v1/events/beacon"
                try:
                    answer = client.post(url, params={"key": self.product.ingest_key}, json=beacon)
                except httpx.HTTPError:
                    continue  # killed: nothing was acknowledged
                if answer.status_code == 204:
                    self.acknowledged.add(view)


def totals(product: Product) -> dict[str, object]:
    product.flush()
    metrics = ["plays", "attempts", "events", "duplicate_events", "lost_events"]
    (row,) = product.query(time_range="24h", granularity="total", metrics=metrics)
    return row


def wait_for_archive(product: Product, at_least: int) -> None:
    for _ in range(600):
        text = httpx.get(f"{product.base_url}/metrics", timeout=30).text
        (line,) = [line for line in text.splitlines() if line.startswith("viewmeter_archive_events ")]
        if float(line.split()[1]) >= at_least:
            return
        time.sleep(0.05)
    raise AssertionError("nothing was archived")


def test_a_backup_under_load_counts_every_event_acknowledged_before_it_once(
    start_product: StartProduct, tmp_path: Path
) -> None:
    product = start_product("--workers", "2", env=BUSY)
    with Crowd(product) as crowd:
        wait_for_archive(product, 100)
        before = len(crowd.acknowledged)
        done = viewmeter("backup", tmp_path / "copy", "--data", product.data, "--json")
        assert done.returncode == 0, done.stderr
        about = json.loads(done.stdout)
    sent = len(crowd.sent)
    assert about["files"] > 5
    assert len(crowd.acknowledged) == sent, "the backup cost somebody an answer"
    product.kill()
    restored = viewmeter("restore", tmp_path / "copy", "--data", tmp_path / "elsewhere")
    assert restored.returncode == 0, restored.stderr
    other = start_product("--workers", "2", data=tmp_path / "elsewhere", env=BUSY, init=False)
    other.ingest_key, other.secret_key = product.ingest_key, product.secret_key
    row = totals(other)
    assert before <= row["plays"] <= sent
    assert row["attempts"] == row["plays"]
    assert (row["events"], row["duplicate_events"], row["lost_events"]) == (2 * int(str(row["plays"])), 0, 0)
    exported = viewmeter(
        "export", "--data", other.data, "--start", "2020-01-01", "--end", "2100-01-01", "--format", "jsonl"
    )
    events = [json.loads(line) for line in exported.stdout.splitlines()]
    assert len(events) == len({(event["view_id"], event["seq"]) for event in events}) == row["events"]
    now = time.time_ns() // 1_000_000
    assert other.post([{"type": "play", "ts": now, "view_id": "new", "seq": 0, "video_id": "v", "channel_id": "c"}])
    assert totals(other)["plays"] == int(str(row["plays"])) + 1, "it goes on from there"


def test_a_stopped_product_is_backed_up_too_and_a_backup_that_is_not_whole_is_refused(
    start_product: StartProduct, tmp_path: Path
) -> None:
    product = start_product("--workers", "1")
    with Crowd(product) as crowd:
        while len(crowd.acknowledged) < 20:
            time.sleep(0.02)
    sent = len(crowd.acknowledged)
    product.kill()
    copy = tmp_path / "copy"
    done = viewmeter("backup", copy, "--data", product.data)
    assert done.returncode == 0, done.stderr
    again = viewmeter("backup", copy, "--data", product.data)
    assert again.returncode == 1
    assert "not empty" in again.stderr
    assert not list(copy.rglob("viewer-salt-*")), "the salt of the day is destroyed at its end, in backups too"
    assert viewmeter("restore", copy, "--data", tmp_path / "elsewhere").returncode == 0
    other = start_product("--workers", "1", data=tmp_path / "elsewhere", init=False)
    other.secret_key = product.secret_key
    assert totals(other)["plays"] == sent
    next(copy.rglob("*.duckdb")).write_bytes(b"cut")
    refused = viewmeter("restore", copy, "--data", tmp_path / "third")
    assert (refused.returncode, (tmp_path / "third").exists()) == (1, False)
    assert "not what was written" in refused.stderr
    (copy / "backup.json").unlink()
    refused = viewmeter("restore", copy, "--data", tmp_path / "third")
    assert (refused.returncode, "no whole backup" in refused.stderr) == (1, True)


def test_tenants_and_keys_in_another_database_are_said_not_to_be_in_it_without_its_password(tmp_path: Path) -> None:
    data, copy = tmp_path / "data", tmp_path / "copy"
    elsewhere = {"VIEWMETER_METADATA__URL": f"sqlite:///{tmp_path / 'keys.db'}?password=hunter2"}
    here = viewmeter("init", "--data", tmp_path / "own")
    assert here.returncode == 0, here.stderr
    own = viewmeter("backup", tmp_path / "whole", "--data", tmp_path / "own", "--json")
    assert (json.loads(own.stdout)["has_metadata"], own.stderr) == (True, "")
    made = viewmeter("init", "--data", data, env={"VIEWMETER_METADATA__URL": f"sqlite:///{tmp_path / 'keys.db'}"})
    assert made.returncode == 0, made.stderr
    assert not (data / "meta.db").exists()
    (data / "log").mkdir(exist_ok=True)
    done = viewmeter("backup", copy, "--data", data, "--json", env=elsewhere)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["has_metadata"] is False
    assert "tenants and keys are not in this backup: they are in sqlite:///" in done.stderr
    assert "hunter2" not in done.stderr + done.stdout
    restored = viewmeter("restore", copy, "--data", tmp_path / "again", "--json")
    assert restored.returncode == 0, restored.stderr
    assert "restore it too, and name it as metadata.url" in restored.stderr
