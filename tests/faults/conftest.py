"""Fixtures of the fault tests: dice whose seed is printed, and products below the shim."""

from __future__ import annotations

import os
import random
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from watching import Starter, shim_below


@pytest.fixture
def dice(request: pytest.FixtureRequest) -> random.Random:
    """Dice of this test; the seed is printed, and may be given."""
    seed = int(os.environ.get("VIEWMETER_TEST_SEED", time.time_ns() % 1_000_000))
    print(f"VIEWMETER_TEST_SEED={seed}")
    return random.Random(f"{seed} {request.node.name}")


@pytest.fixture
def watched(tmp_path: Path) -> Iterator[Starter]:
    """A starter of products below the shim, which end with the test."""
    base = tmp_path.resolve()
    shim_below(base, base / "probe")
    starter = Starter(base)
    yield starter
    starter.close()
