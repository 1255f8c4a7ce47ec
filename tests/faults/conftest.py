"""Products that run with the fault shim, and can be started again on what a power cut left of their folder."""

from __future__ import annotations

import contextlib
import json
import os
import random
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from running import Product, clean_environment, spawn

from viewmeter.testing.faults import Shim, ShimUnavailableError

QUICK = {  # so that snapshots, merges and checkpoints happen within the seconds that a test has
    "VIEWMETER_STREAM__SNAPSHOT_EVERY_S": "1",
    "VIEWMETER_STREAM__COMPACT_EVERY_S": "1",
}


@pytest.fixture
def dice(request: pytest.FixtureRequest) -> random.Random:
    """Dice of this test; the seed is printed, and may be given."""
    seed = int(os.environ.get("VIEWMETER_TEST_SEED", time.time_ns() % 1_000_000))
    print(f"VIEWMETER_TEST_SEED={seed}")
    return random.Random(f"{seed} {request.node.name}")


@dataclass
class Watched:
    """A product below a shim."""

    product: Product
    shim: Shim
    before: Path | None  # a copy of its folder from before it started; None: it was empty

    def stop(self) -> None:
        """End it, whatever state its disk or clock is in."""
        self.shim.room()
        self.shim.fail()
        self.product.stop(timeout_s=15)


@dataclass
class Starter:
    """Starts products in numbered folders below `base`."""

    base: Path
    running: list[Watched] = field(default_factory=list)
    number: int = 0

    def folder(self) -> Path:
        """Return a new place for a data folder."""
        self.number += 1
        return self.base / f"d{self.number}" / "data"

    def new(self, *options: str, env: dict[str, str] | None = None, quick: bool = True) -> Watched:
        """Start on an empty folder; its first moments are watched too."""
        data = self.folder()
        data.mkdir(parents=True)
        shim = Shim(data, data.parent / "shim")
        environment = {**shim.environment(), **(QUICK if quick else {}), **(env or {})}
        command = [sys.executable, "-m", "viewmeter.cli", "init", "--data", str(data), "--tenant", "Acme", "--json"]
        prepared = subprocess.run(
            command,
            env={**clean_environment(), **environment},
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
        assert prepared.returncode == 0, prepared.stderr
        keys = json.loads(prepared.stdout)
        return self._start(
            Product(data, keys["ingest_key"], keys["secret_key"], None, environment, options), shim, None
        )  # type: ignore[arg-type]

    def again(self, left: Path, of: Product, before: Path | None = None) -> Watched:
        """Start on what was left of a product's folder."""
        shim = Shim(left, left.parent / "shim")
        product = Product(left, of.ingest_key, of.secret_key, None, {**of.env, **shim.environment()}, of.options)  # type: ignore[arg-type]
        return self._start(product, shim, before)

    def _start(self, product: Product, shim: Shim, before: Path | None) -> Watched:
        product.process = spawn(product.data, product.options, product.env)
        watched = Watched(product, shim, before)
        self.running.append(watched)
        product.wait_ready()
        return watched

    def close(self) -> None:
        """End all of them."""
        for watched in self.running:
            with contextlib.suppress(Exception):
                watched.stop()


@pytest.fixture
def watched(tmp_path: Path) -> Iterator[Starter]:
    """A starter of products below the shim, which end with the test."""
    base = tmp_path.resolve()
    try:
        Shim(base, base / "probe")
    except ShimUnavailableError as problem:
        pytest.skip(str(problem))
    starter = Starter(base)
    yield starter
    starter.close()
