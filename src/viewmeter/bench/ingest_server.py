"""One collector worker with fixed keys, as a process: what the ingest benchmark and the HTTP tests talk to.

In: `python -m viewmeter.bench.ingest_server DATA PORT [--ceiling] [--settings JSON] [--keys JSON]`. Out: the real
application on the real server, or with `--ceiling` a handler that reads the body and answers 204: the most that any
handler can reach on this server. Prints `listening` once connections are taken.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from viewmeter.collector.app import CollectorApp
from viewmeter.collector.deadletters import DeadLetterWriter
from viewmeter.collector.serve import Hooks, Served, serve
from viewmeter.collector.settings import CollectorSettings
from viewmeter.eventlog.embedded import EmbeddedLogWriter
from viewmeter.metadata.keys import Key, Tenant

DEFAULT_KEYS: Mapping[str, Mapping[str, Any]] = {"pk_bench": {"id": "key-bench", "tenant": "bench"}}


class FixedKeys:
    """A key directory that never changes: text to `{"id", "tenant", "scopes"?, "channels"?, "origins"?}`."""

    def __init__(self, keys: Mapping[str, Mapping[str, Any]]) -> None:
        self._keys = {text: _key(described) for text, described in keys.items()}
        self.version = object()

    def find(self, text: str) -> Key | None:
        """Return the key, or None."""
        return self._keys.get(text)


def _key(described: Mapping[str, Any]) -> Key:
    tenant = described["tenant"]
    channels = described.get("channels")
    return Key(
        id=described["id"],
        tenant=Tenant(id=tenant, name=tenant, viewer_secret=f"secret of {tenant}".encode()),
        scopes=frozenset(described.get("scopes", ["ingest"])),
        channels=None if channels is None else tuple(channels),
        origins=tuple(described.get("origins", ())),
    )


class Ceiling:
    """Reads the body and answers 204."""

    def __rsgi_init__(self, loop: asyncio.AbstractEventLoop) -> None:
        """Nothing to begin."""

    async def __rsgi__(self, scope: Any, proto: Any) -> None:
        """Answer one request."""
        await proto()
        proto.response_empty(204, [])

    async def drain(self) -> None:
        """Nothing to drain."""


def main(arguments: list[str]) -> None:
    """Serve until SIGTERM."""
    parser = argparse.ArgumentParser()
    parser.add_argument("data", type=Path)
    parser.add_argument("port", type=int)
    parser.add_argument("--ceiling", action="store_true")
    parser.add_argument("--settings", type=json.loads, default={})
    parser.add_argument("--keys", type=json.loads, default=DEFAULT_KEYS)
    given = parser.parse_args(arguments)
    app: Served = Ceiling() if given.ceiling else _collector(given.data, given.settings, given.keys)
    serve(app, "127.0.0.1", given.port, CollectorSettings(**given.settings), Hooks(on_listening=_announce))


def _collector(data: Path, settings: Mapping[str, Any], keys: Mapping[str, Any]) -> CollectorApp:
    chosen = CollectorSettings(**settings)
    return CollectorApp(
        chosen,
        FixedKeys(keys),
        EmbeddedLogWriter(data / "log", 0, clock=_now_ms),
        DeadLetterWriter(data / "dead-letters", 0, chosen.max_dead_letters, chosen.max_dead_letter_bytes),
        data / "run",
    )


def _now_ms() -> int:
    import time

    return time.time_ns() // 1_000_000


def _announce() -> None:
    sys.stdout.write("listening\n")
    sys.stdout.flush()


if __name__ == "__main__":
    main(sys.argv[1:])
