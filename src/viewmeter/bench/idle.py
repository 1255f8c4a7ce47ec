"""What the product costs when nobody uses it: memory and CPU of all its processes, against its bar of 400 MB.

Baseline of the same run: a bare Python that has only imported the libraries which no embedded store can do without.
"""

from __future__ import annotations

import subprocess
import sys
import time
from typing import Any, Final

from viewmeter.bench.product import pss_bytes, running

BAR_BYTES: Final = 400 * 1000 * 1000
BASELINE: Final = "import duckdb, numpy, pyarrow, granian, sys; print('ready', flush=True); sys.stdin.read()"


def run(seconds: float = 5.0) -> dict[str, Any]:
    """Return memory after `seconds` of idleness, by role and in sum, and the CPU used meanwhile."""
    with running(workers=1) as product:
        before, begun = product.cpu_seconds(), time.monotonic()
        time.sleep(seconds)  # idleness is what is measured
        memory, after = product.pss_bytes(), product.cpu_seconds()
        took_s = time.monotonic() - begun
        baseline = _baseline_bytes()
    total = sum(memory.values())
    return {
        "pss_mb": {role: size / 1e6 for role, size in memory.items()},
        "pss_mb_total": total / 1e6,
        "bar_mb": BAR_BYTES / 1e6,
        "ratio_to_bar": total / BAR_BYTES,
        "baseline_pss_mb": baseline / 1e6,
        "ratio_to_baseline": total / baseline,
        "cores_used": (sum(after.values()) - sum(before.values())) / took_s,
        "seconds": took_s,
    }


def _baseline_bytes() -> int:
    with subprocess.Popen([sys.executable, "-c", BASELINE], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdin is not None  # asked for above
        assert process.stdout is not None
        process.stdout.readline()
        size = pss_bytes(process.pid)
        process.stdin.close()
        return size
