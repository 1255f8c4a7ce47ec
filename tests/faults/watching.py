"""Products that run with the fault shim, and can be started again on what a power cut left of their folder."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from running import Product, clean_environment, spawn

from viewmeter.testing.faults import Disk, Shim, ShimUnavailableError
from viewmeter.testing.faults.disk import Before

EVERY = bool(os.environ.get("VIEWMETER_TEST_EVERY_FAULT"))  # `make faults`; otherwise one of each kind
QUICK = {  # so that snapshots, merges and checkpoints happen within the seconds that a test has
    "VIEWMETER_STREAM__SNAPSHOT_EVERY_S": "1",
    "VIEWMETER_STREAM__COMPACT_EVERY_S": "1",
}

BLOCK_BYTES = 262_144  # of DuckDB's file, which is written in whole blocks by checkpoints; its log is another file


def shim_below(root: Path, work: Path) -> Shim:
    """Return a shim that watches `root`; where there can be none, the test is skipped."""
    try:
        return Shim(root, work)
    except ShimUnavailableError as problem:
        pytest.skip(str(problem))


def in_a_checkpoint(disk: Disk, position: int) -> bool:
    """Tell whether the store was in a checkpoint: whole blocks of its file are written and not yet synced."""
    return disk.unsafe_bytes(position, "store.duckdb") >= BLOCK_BYTES


@dataclass
class Watched:
    """A product below a shim."""

    product: Product
    shim: Shim
    before: Before | None  # its folder as it started; None: it was empty

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

    def again(self, left: Path, of: Product, before: Before | None = None) -> Watched:
        """Start on what was left of a product's folder."""
        shim = Shim(left, left.parent / "shim")
        product = Product(left, of.ingest_key, of.secret_key, None, {**of.env, **shim.environment()}, of.options)  # type: ignore[arg-type]
        return self._start(product, shim, before)

    def _start(self, product: Product, shim: Shim, before: Before | None) -> Watched:
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
