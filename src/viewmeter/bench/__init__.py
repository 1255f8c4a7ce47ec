"""Benchmarks that ship with the product: each a module with `run(seconds=…) -> dict`.

Promised: bounded time, loopback only, and beside every figure its baseline, measured in the same run on the same
machine: a bare number says more about the machine than about the product.
"""

from typing import Final

BENCHES: Final = ("ingest", "speed", "freshness", "query", "archive", "batch", "idle")
