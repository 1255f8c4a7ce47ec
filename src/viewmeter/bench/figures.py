"""What several benchmarks need to turn samples into figures, and where they keep what is made once."""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Final

_CPUCLOCK_SCHED: Final = 2


def percentile(values: Sequence[float], share: float) -> float:
    """Return the value that a share of them does not exceed; NaN of none."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(len(ordered) * share))] if ordered else float("nan")


def cpu_seconds(pid: int) -> float:
    """Return the user and system time of a process, all threads, in ns where `/proc` has ticks of 10 ms."""
    return time.clock_gettime((~pid << 3) | _CPUCLOCK_SCHED)  # the number that `clock_getcpuclockid` gives


def cache_folder() -> Path:
    """Return the product's folder below the user's cache folder; it need not exist."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "viewmeter"
