"""A collector worker in a process of its own, and senders, for the tests of its HTTP answers (`test_beacon_*.py`)."""

from __future__ import annotations

import json
import resource
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import pytest

from viewmeter.bench.ingest import free_port
from viewmeter.collector.deadletters import DeadLetter, DeadLetters
from viewmeter.eventlog.embedded import EmbeddedLogReader
from viewmeter.model.problems import PROBLEMS

BEACON = "/api/v1/events/beacon"
CMCD = "/api/v1/events/cmcd"
CHROME = (
    "Mozilla/5.0 (Windows NT 10.0; Win64; x64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/131.0.0.0 Safari/537.36"
)
IPHONE = (
    "Mozilla/5.0 (iPhone; CPU iPhone OS 18_1 like Mac OS X) AppleWebKit/605.1.15 (KHTML, like Gecko) "
    "Version/18.1 Mobile/15E148 Safari/604.1"
)
KEYS: dict[str, dict[str, Any]] = {
    "pk_acme": {"id": "k1", "tenant": "acme"},
    "pk_other": {"id": "k2", "tenant": "other"},
    "pk_one": {"id": "k3", "tenant": "acme", "channels": ["c1"]},
    "pk_two": {"id": "k4", "tenant": "acme", "channels": ["c1", "c2"]},
    "pk_site": {"id": "k5", "tenant": "acme", "origins": ["https://a.example", "https://b.example"]},
    "sk_read": {"id": "k6", "tenant": "acme", "scopes": ["read", "rules", "admin"]},
}


def now_ms() -> int:
    return time.time_ns() // 1_000_000


def event(**fields: Any) -> dict[str, Any]:
    return {
        "type": "heartbeat",
        "ts": now_ms(),
        "view_id": "view",
        "seq": 0,
        "video_id": "v1",
        "channel_id": "c1",
        **fields,
    }


@dataclass
class Server:
    """A running collector worker. `url` is its address; `events()` what its log holds."""

    data: Path
    settings: dict[str, Any] = field(default_factory=dict)
    url: str = ""

    def __post_init__(self) -> None:
        port = free_port()
        options = ["--keys", json.dumps(KEYS), "--settings", json.dumps(self.settings)]
        command = [sys.executable, "-m", "viewmeter.bench.ingest_server", str(self.data), str(port), *options]
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        self.url = f"http://127.0.0.1:{port}"
        self.port = port
        assert self.process.stdout is not None
        said = ""
        while not said.endswith("listening\n"):
            line = self.process.stdout.readline()
            assert line, said
            said += line
        self.client = httpx.Client(base_url=self.url, timeout=30, headers={"User-Agent": CHROME})

    def post(self, events: Any = None, *, key: str | None = "pk_acme", t: Any = None, **options: Any) -> httpx.Response:
        parameters = {name: value for name, value in (("key", key), ("t", t)) if value is not None}
        if events is not None:
            options["content"] = json.dumps(events).encode()
        return self.client.post(options.pop("path", BEACON), params=parameters, **options)

    def events(self, **wanted: Any) -> list[dict[str, Any]]:
        """Return the durable events, those with these values."""
        reader = EmbeddedLogReader(self.data / "log")
        rows = [row for one in reader.read({}, max_events=10**9) for row in one.events.to_pylist()]
        reader.close()
        return [row for row in rows if all(row[name] == value for name, value in wanted.items())]

    def event(self, **wanted: Any) -> dict[str, Any]:
        (found,) = self.events(**wanted)
        return found

    def letters(self, code: str | None = None) -> list[DeadLetter]:
        letters = DeadLetters(self.data / "dead-letters")
        found, _ = letters.list(code=code, limit=10_000)
        letters.close()
        return list(found)

    def limit_file_size(self, limit: int) -> None:
        """What a full disk is to the server: files cannot grow beyond this."""
        resource.prlimit(self.process.pid, resource.RLIMIT_FSIZE, (limit, resource.RLIM_INFINITY))

    def stop(self) -> int:
        self.client.close()
        self.process.terminate()
        self.process.communicate(timeout=60)
        return self.process.returncode


Start = Callable[..., Server]


@pytest.fixture(scope="module", name="shared")
def shared_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    server = Server(tmp_path_factory.mktemp("collector"), {"trusted_proxies": ["127.0.0.1/32"]})
    yield server
    assert server.stop() == 0


@pytest.fixture(name="start")
def start_server(tmp_path: Path) -> Iterator[Start]:
    started: list[Server] = []

    def make(**settings: Any) -> Server:
        started.append(server := Server(tmp_path / f"data-{len(started)}", settings))
        return server

    yield make
    for server in started:
        server.stop()


def problem(answer: httpx.Response, status: int, code: str) -> dict[str, Any]:
    """Check that the answer is that problem (RFC 9457), and return its body."""
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == "application/problem+json"
    body: dict[str, Any] = answer.json()
    kind = PROBLEMS[code]
    assert (body["code"], body["status"], body["title"]) == (code, status, kind.title)
    assert body["type"] == f"/docs/problems/{code}"
    assert body["detail"]
    return body


class Senders:
    """Threads that send beacons of one event each until told to stop; `acknowledged` are the seqs answered 204."""

    def __init__(self, server: Server, count: int) -> None:
        self.acknowledged: list[int] = []
        self.other: list[int] = []
        self._stop = threading.Event()
        self._url = server.url + BEACON
        self._threads = [threading.Thread(target=self._send, args=(n * 100_000,)) for n in range(count)]
        for thread in self._threads:
            thread.start()

    def _send(self, seq: int) -> None:
        with httpx.Client(timeout=30) as client:
            while not self._stop.is_set():
                seq += 1
                try:
                    answer = client.post(self._url, params={"key": "pk_acme"}, json=[event(seq=seq)])
                except httpx.HTTPError:
                    return
                (self.acknowledged if answer.status_code == 204 else self.other).append(seq)

    def wait_for(self, count: int) -> None:
        while len(self.acknowledged) < count and any(thread.is_alive() for thread in self._threads):
            time.sleep(0.01)

    def end(self) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join(60)
