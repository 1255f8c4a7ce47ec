"""Synthetic viewers over HTTP: the product's numbers against a truth that was known before any event was sent."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import httpx
import pytest
from running import Product, viewmeter

COUNTS = ("attempts", "plays", "completes", "seeks", "pauses", "upshifts", "downshifts", "rebuffer_count")
TIMES = {"watch_time_ms": "watch_time_ms", "rebuffer_time_ms": "rebuffered_ms", "engaged_views": "engaged_views"}


@pytest.fixture(scope="module")
def seed() -> int:
    chosen = random.SystemRandom().randrange(1_000_000)
    print(f"seed {chosen}")
    return chosen


def keys_of(product: Product, tenant: str) -> tuple[str, str]:
    """Make a tenant with nothing in it; return its ingest key and its read key."""
    made = []
    for scope in ("ingest", "admin", "read"):
        said = viewmeter("keys", "create", "--data", product.data, "--tenant", tenant, "--scope", scope, "--json")
        assert said.returncode == 0, said.stderr
        made.append(json.loads(said.stdout)["key"])
    ingest, admin, read = made
    return ingest, f"{admin} {read}"


def simulate(product: Product, tenant: str, truth: Path, *options: str) -> dict[str, dict[str, Any]]:
    """Send the viewers, settle, and return what the product says per video."""
    ingest, secrets = keys_of(product, tenant)
    admin, read = secrets.split()
    said = viewmeter(*("simulate", "--to", product.base_url, "--key", ingest, "--fast", "--truth", truth), *options)
    assert said.returncode == 0, said.stderr
    flushed = httpx.post(
        f"{product.base_url}/api/v1/admin/flush", headers={"Authorization": f"Bearer {admin}"}, timeout=60
    )
    assert flushed.status_code == 200, flushed.text
    question = {
        "time_range": "7d",
        "granularity": "total",
        "metrics": [*COUNTS, *TIMES, "events", "lost_events", "duplicate_events", "unique_viewers"],
        "dimensions": ["video_id"],
        "limit": 10_000,
    }
    answer = httpx.post(
        f"{product.base_url}/api/v1/analytics/query",
        headers={"Authorization": f"Bearer {read}"},
        json=question,
        timeout=60,
    )
    assert answer.status_code == 200, answer.text
    return {row["video_id"]: row for row in answer.json()["rows"]}


def test_a_simulation_without_loss_is_counted_as_it_was_meant(product: Product, seed: int, tmp_path: Path) -> None:
    found = simulate(
        product, "lossless", tmp_path / "truth.json",
        "--seed", str(seed), "--viewers", "150", "--minutes", "4", "--duplicate", "0.05",
    )  # fmt: skip
    truth = json.loads((tmp_path / "truth.json").read_text())["videos"]
    assert set(found) == set(truth)
    for video, said in truth.items():
        got = found[video]
        for name in COUNTS:
            assert got[name] == said[name], f"seed {seed}: {name} of {video}"
        assert got["unique_viewers"] == said["unique_viewers_exact"], f"seed {seed}: viewers of {video}"
        for name, of in TIMES.items():
            below, above = said["tolerance"].get(of, (0, 0))
            assert said[of] - below <= got[name] <= said[of] + above, f"seed {seed}: {name} of {video}"
    assert sum(row["lost_events"] for row in found.values()) == 0
    assert sum(row["duplicate_events"] for row in found.values()) > 0


def test_loss_duplicates_disorder_and_skewed_clocks_are_measured_and_barely_felt(
    product: Product, seed: int, tmp_path: Path
) -> None:
    found = simulate(
        product, "lossy", tmp_path / "truth.json",
        "--seed", str(seed), "--viewers", "300", "--minutes", "4", "--loss", "0.01", "--duplicate", "0.02",
        "--disorder-ms", "800", "--skew-ms", "120000",
    )  # fmt: skip
    told = json.loads((tmp_path / "truth.json").read_text())
    truth = told["platform"]
    total = {name: sum(row[name] for row in found.values()) for name in (*COUNTS, "events", "lost_events")}
    assert total["attempts"] == pytest.approx(truth["attempts"], rel=0.01)
    assert total["plays"] == pytest.approx(truth["plays"], rel=0.02)
    # Loss of an event in the middle of a view leaves a hole; loss of its last ones leaves none.
    assert 0.002 < total["lost_events"] / (total["events"] + total["lost_events"]) < 0.02, f"seed {seed}"
    below, above = truth["tolerance"]["watch_time_ms"]
    watched = sum(row["watch_time_ms"] for row in found.values())
    assert truth["watch_time_ms"] * 0.97 - below <= watched <= truth["watch_time_ms"] * 1.01 + above, f"seed {seed}"
