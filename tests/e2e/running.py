"""A running product, and the command line, as end-to-end tests use them (fixtures: `conftest.py`)."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import httpx
import psutil
import pytest

START_TIMEOUT_S = 180.0  # at a load average of 36 on two processors 60 were not enough; an idle machine needs about 2 s
POLL_S = 0.02


def viewmeter(*arguments: str | Path, env: Mapping[str, str] | None = None) -> subprocess.CompletedProcess[str]:
    """Run the command line to its end and return what it said."""
    return subprocess.run(
        [sys.executable, "-m", "viewmeter.cli", *map(str, arguments)],
        capture_output=True,
        text=True,
        env={**clean_environment(), **(env or {})},
        timeout=120,
        check=False,
    )


def clean_environment() -> dict[str, str]:
    """Return the environment without settings of whoever runs the tests."""
    return {name: value for name, value in os.environ.items() if not name.startswith("VIEWMETER_")}


def wait_until(what: str, condition: Callable[[], bool], timeout_s: float = START_TIMEOUT_S) -> None:
    """Poll until the condition holds; fail with what was waited for."""
    deadline = time.monotonic() + timeout_s
    while not condition():
        if time.monotonic() > deadline:
            pytest.fail(f"waited {timeout_s:g} s in vain for: {what}")
        time.sleep(POLL_S)


@dataclass
class Product:
    """A running `viewmeter up`."""

    data: Path
    ingest_key: str
    secret_key: str
    process: subprocess.Popen[bytes]
    env: dict[str, str] = field(default_factory=dict)
    options: tuple[str, ...] = ()
    base_url: str = ""

    @property
    def log(self) -> str:
        """What it wrote to stderr so far."""
        return (self.data.parent / f"{self.data.name}.stderr").read_text(errors="replace")

    @property
    def headers(self) -> dict[str, str]:
        """The secret key as requests carry it."""
        return {"Authorization": f"Bearer {self.secret_key}"}

    def wait_ready(self, timeout_s: float = START_TIMEOUT_S) -> None:
        """Return when `/readyz` answers 200."""
        address = self.data / "run" / "url"

        def ready() -> bool:
            if self.process.poll() is not None:
                pytest.fail(f"viewmeter up ended with {self.process.returncode}:\n{self.log[-4000:]}")
            if not address.exists():
                return False
            self.base_url = address.read_text().strip()
            try:
                return httpx.get(f"{self.base_url}/readyz", timeout=5).status_code == 200
            except httpx.HTTPError:
                return False

        try:
            wait_until("/readyz to answer 200", ready, timeout_s)
        except BaseException:
            print(self.log[-4000:])
            raise

    def flush(self) -> None:
        """Return when everything acknowledged is in the answers."""
        answer = httpx.post(f"{self.base_url}/api/v1/admin/flush", headers=self.headers, timeout=60)
        assert answer.status_code == 200, (answer.status_code, answer.text, self.log[-4000:])

    def post(self, events: list[dict[str, object]], **parameters: str) -> httpx.Response:
        """Send one beacon with the ingest key."""
        return httpx.post(
            f"{self.base_url}/api/v1/events/beacon",
            params={"key": self.ingest_key, **parameters},
            json=events,
            timeout=30,
        )

    def query(self, **body: object) -> list[dict[str, object]]:
        """Return the rows of an analytics query, of all its pages."""
        rows: list[dict[str, object]] = []
        while True:
            answer = httpx.post(f"{self.base_url}/api/v1/analytics/query", headers=self.headers, json=body, timeout=60)
            assert answer.status_code == 200, answer.text
            found = answer.json()
            rows += found["rows"]
            if found["next_cursor"] is None or "limit" not in body:
                return rows
            body["cursor"] = found["next_cursor"]

    def metric(self, name: str) -> float:
        """Return the sum of the figures for operators whose names and labels begin like that."""
        lines = httpx.get(f"{self.base_url}/metrics", timeout=30).text.splitlines()
        return sum(float(line.rpartition(" ")[2]) for line in lines if line.startswith(name))

    def kill(self) -> None:
        """SIGKILL the whole process group, as a power cut would."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait(30)

    def stop(self, timeout_s: float = 60) -> int:
        """SIGTERM the supervisor and return its exit code; whatever is left after that is killed."""
        if self.process.poll() is None:
            self.process.terminate()
            with contextlib.suppress(subprocess.TimeoutExpired):
                self.process.wait(timeout_s)
        self.kill()
        return self.process.returncode

    def start_again(self) -> None:
        """Start again on the same folder, after the end of the process before; do not wait."""
        (self.data / "run" / "url").unlink(missing_ok=True)
        self.process = spawn(self.data, self.options, self.env)

    def restart(self) -> None:
        """Start again on the same folder and return when it is ready."""
        self.start_again()
        self.wait_ready()


def children(product: Product) -> dict[str, psutil.Process]:
    """Return the running child processes by their module (the last collector wins)."""
    found = {}
    for process in psutil.Process(product.process.pid).children():
        with contextlib.suppress(psutil.Error):  # it may die while it is looked at: that is what is tested
            command = process.cmdline()
            if len(command) > 2:
                found[command[2].rpartition(".")[2]] = process
    return found


def spawn(data: Path, options: tuple[str, ...], env: Mapping[str, str]) -> subprocess.Popen[bytes]:
    with (data.parent / f"{data.name}.stderr").open("ab") as log:
        return subprocess.Popen(
            [sys.executable, "-m", "viewmeter.cli", "up", "--data", str(data), "--port", "0", *options],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            env={**clean_environment(), **env},
            start_new_session=True,  # its own process group: the tests end it by that
        )


StartProduct = Callable[..., Product]


def key(product: Product, tenant: str, scope: str, *channels: str) -> dict[str, str]:
    """Make a key while the product runs; return the header that carries it."""
    options = [option for channel in channels for option in ("--channel", channel)]
    made = viewmeter("keys", "create", "--data", product.data, "--tenant", tenant, "--scope", scope, *options, "--json")
    assert made.returncode == 0, made.stderr
    return {"Authorization": f"Bearer {json.loads(made.stdout)['key']}"}
