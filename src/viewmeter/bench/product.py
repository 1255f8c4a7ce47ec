"""A product of its own for a benchmark: `viewmeter up` on a folder that is removed afterwards, on a free port.

Out: its address, its keys, and what its processes cost. Reads /proc, so it runs on Linux only.
"""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

from viewmeter.bench.figures import cpu_seconds

READY_WITHIN_S: Final = 60.0
STOP_WITHIN_S: Final = 30.0
POLL_S: Final = 0.02


@dataclass(frozen=True)
class Product:
    """A running product."""

    url: str
    ingest_key: str
    secret_key: str
    supervisor: int

    def processes(self) -> dict[int, str]:
        """Return process id to role of the whole product."""
        found = {self.supervisor: "supervisor"}
        for entry in Path("/proc").iterdir():
            if not entry.name.isdigit():
                continue
            with contextlib.suppress(OSError, ValueError):
                parent = int((entry / "stat").read_text().rpartition(")")[2].split()[1])
                if parent == self.supervisor:
                    command = (entry / "cmdline").read_bytes().split(b"\0")
                    found[int(entry.name)] = command[2].decode().rpartition(".")[2] if len(command) > 2 else "?"
        return found

    def pss_bytes(self) -> dict[str, int]:
        """Return the proportional memory by role, of all processes with that role together."""
        memory: dict[str, int] = {}
        for process, role in self.processes().items():
            memory[role] = memory.get(role, 0) + pss_bytes(process)
        return memory

    def cpu_seconds(self) -> dict[str, float]:
        """Return the CPU time that each role has used so far."""
        used: dict[str, float] = {}
        for process, role in self.processes().items():
            used[role] = used.get(role, 0.0) + cpu_seconds(process)
        return used


def pss_bytes(process: int) -> int:
    """Return a process's proportional set size: its own pages, and its share of the shared ones."""
    for line in Path(f"/proc/{process}/smaps_rollup").read_text().splitlines():
        if line.startswith("Pss:"):
            return int(line.split()[1]) * 1024
    raise OSError(f"process {process} does not tell its memory")


@contextmanager
def running(
    workers: int = 1, store: Path | None = None, environment: Mapping[str, str] | None = None
) -> Iterator[Product]:
    """Start a product, yield it when it is ready, end it and remove its folder.

    `store`: a store file that it works on a copy of; the folder is then beside that file, which may be large.
    """
    beside = store.parent if store else None
    with tempfile.TemporaryDirectory(prefix="viewmeter-bench-", dir=beside, ignore_cleanup_errors=True) as scratch:
        data = Path(scratch) / "data"
        command = [sys.executable, "-m", "viewmeter.cli"]
        made = subprocess.run(
            [*command, "init", "--data", str(data), "--json"], capture_output=True, text=True, check=True
        )
        keys = json.loads(made.stdout)
        if store:
            shutil.copyfile(store, data / "store.duckdb")
        with (Path(scratch) / "log").open("wb") as log:
            process = subprocess.Popen(
                [*command, "up", "--data", str(data), "--port", "0", "--workers", str(workers)],
                stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True,
                env={**os.environ, **(environment or {})},
            )  # fmt: skip
        try:
            url = _wait_ready(data, process)
            yield Product(url, keys["ingest_key"], keys["secret_key"], process.pid)
        finally:
            process.terminate()
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(STOP_WITHIN_S)
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def _wait_ready(data: Path, process: subprocess.Popen[bytes]) -> str:
    deadline = time.monotonic() + READY_WITHIN_S
    while process.poll() is None and time.monotonic() < deadline:
        with contextlib.suppress(OSError, http.client.HTTPException):
            url = (data / "run" / "url").read_text()
            if status(url, "/readyz") == 200:
                return url
        time.sleep(POLL_S)
    log = (data.parent / "log").read_text(errors="replace")
    raise RuntimeError(f"the product did not become ready: {log[-2000:]}")


def status(url: str, path: str) -> int:
    """Return the status of a GET."""
    connection = http.client.HTTPConnection(urlsplit(url).netloc, timeout=5)
    try:
        connection.request("GET", path)
        return connection.getresponse().status
    finally:
        connection.close()
