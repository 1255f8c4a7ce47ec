"""The API over real parts (store, live counters, log, metadata, dead letters, query), served by the real server.

Only the stream jobs stand still: what they would have written, tests write to the store and the live counters.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path

import httpx
import pyarrow as pa
import pytest

from viewmeter.collector.deadletters import DeadLetters
from viewmeter.eventlog.embedded import EmbeddedLogReader
from viewmeter.live.embedded import MemoryLiveStore
from viewmeter.live.protocol import LiveUpdate
from viewmeter.metadata.keys import Scope
from viewmeter.metadata.store import Directory, Metadata
from viewmeter.model.time import MINUTE_MS
from viewmeter.olap.embedded import DuckDBStore
from viewmeter.query import Analytics
from viewmeter.stream.protocol import JOBS, StreamFigures
from viewmeter.web.app import create_app
from viewmeter.web.serve import serve
from viewmeter.web.services import Services
from viewmeter.web.settings import WebSettings

NOW = 1_795_608_000_000  # 2026-11-25T12:00:00Z


class StillStream:
    """Stream jobs that have applied everything; `flush` does what a test says."""

    def __init__(self) -> None:
        self.watermark_ms: int | None = NOW - 500
        self.on_flush: Callable[[], None] = lambda: None
        self.flushes = 0

    def start(self) -> None:
        pass

    def stop(self) -> None:
        pass

    def flush(self, timeout_s: float = 30.0) -> None:
        self.flushes += 1
        self.on_flush()

    def watermarks(self) -> dict[str, int | None]:
        return dict.fromkeys(JOBS, self.watermark_ms)

    def figures(self) -> StreamFigures:
        return StreamFigures(self.watermarks(), {0: 0}, 7, 0, 3)


@dataclass
class World:
    """The parts behind one API, and ways to fill them."""

    folder: Path
    metadata: Metadata
    store: DuckDBStore
    live: MemoryLiveStore
    stream: StillStream
    services: Services
    closing: list[Callable[[], None]] = field(default_factory=list)

    def key(self, tenant: str, *scopes: Scope, channels: list[str] | None = None) -> dict[str, str]:
        """Make a key; return it as a header."""
        return {"Authorization": f"Bearer {self.text(tenant, *scopes, channels=channels)}"}

    def text(self, tenant: str, *scopes: Scope, channels: list[str] | None = None) -> str:
        return self.metadata.create_key(tenant, scopes, channels)[1]

    def plays(self, tenant: str, channel: str, video: str, plays: int, *, at_ms: int = NOW - 5 * MINUTE_MS) -> None:
        """Put plays into the store, and the same number of viewers from Germany on the screen now."""
        words = {"tenant_id": [tenant], "channel_id": [channel], "video_id": [video], "is_bot": [False]}
        sums = {"plays": [plays], "events": [plays * 10], "lost_events": [plays], "played_ms": [plays * 60_000]}
        for rollup, names in _KEYS.items():
            self.store.load({rollup: pa.table({"time_ms": [at_ms], **{n: words[n] for n in names}, **sums})})
        self._present += [(tenant, channel, video, viewer) for viewer in range(plays)]
        self.live.publish(LiveUpdate(self._counters(tenant, channel, video, plays), self._table(), NOW, NOW - 500))

    _present: list[tuple[str, str, str, int]] = field(default_factory=list)

    def _counters(self, tenant: str, channel: str, video: str, plays: int) -> pa.Table:
        return pa.table(
            {
                "time_ms": [NOW - 20_000],
                "tenant_id": [tenant],
                "channel_id": [channel],
                "video_id": [video],
                "is_bot": [False],
                "plays": [plays],
            }
        )

    def _table(self) -> pa.Table:
        tenants, channels, videos, viewers = (list(column) for column in zip(*self._present, strict=True))
        words = {"tenant_id": tenants, "channel_id": channels, "video_id": videos, "country": ["DE"] * len(tenants)}
        return pa.table(
            {
                **{name: pa.array(values).dictionary_encode() for name, values in words.items()},
                "is_bot": [False] * len(tenants),
                "viewer_hash": pa.array(viewers, pa.int64()),
                "last_active_ms": pa.array([NOW - 1_000] * len(tenants), pa.int64()),
                "played_ms": pa.array([60_000] * len(tenants), pa.int64()),
            }
        )


_KEYS = {
    "platform": ("tenant_id", "is_bot"),
    "channel": ("tenant_id", "channel_id", "is_bot"),
    "video": ("tenant_id", "channel_id", "video_id", "is_bot"),
}

SETTINGS = WebSettings(stream_every_s=0.05, heartbeat_every_s=0.05, flush_timeout_s=5.0, max_body_bytes=20_000)


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    metadata = Metadata(f"sqlite:///{tmp_path}/meta.db", lambda: NOW)
    directory = Directory(metadata, poll_every_s=0)
    store, live, stream = DuckDBStore(tmp_path / "store.duckdb"), MemoryLiveStore(), StillStream()
    letters = DeadLetters(tmp_path / "dead-letters")
    services = Services(
        analytics=Analytics(store, live),
        stream=stream,
        log=EmbeddedLogReader(tmp_path / "log"),
        live=live,
        store=store,
        metadata=metadata,
        directory=directory,
        clock=lambda: NOW,
        version="9.9.9",
        dead_letters=letters,
        settings=SETTINGS,
        static=tmp_path / "static",
    )
    yield World(tmp_path, metadata, store, live, stream, services)
    letters.close()
    store.close()
    directory.close()
    metadata.close()


class Served:
    """The API on a unix socket, in a thread of its own."""

    def __init__(self, services: Services, socket: Path) -> None:
        self.socket = socket
        self.app = create_app(services)
        self._listening = threading.Event()
        self._loop = asyncio.new_event_loop()
        self._stop: asyncio.Event | None = None
        self._thread = threading.Thread(target=self._run, name="api")
        self._thread.start()
        assert self._listening.wait(30)

    def client(self, **options: object) -> httpx.Client:
        transport = httpx.HTTPTransport(uds=str(self.socket))
        return httpx.Client(transport=transport, base_url="http://localhost", timeout=30, **options)  # type: ignore[arg-type]

    def stop(self) -> None:
        if self._stop is not None and self._thread.is_alive():
            self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join(30)
        assert not self._thread.is_alive()

    def _run(self) -> None:
        asyncio.set_event_loop(self._loop)

        async def main() -> None:
            self._stop = asyncio.Event()
            await serve(self.app, self.socket, self._listening.set, 10.0, self._stop)

        try:
            self._loop.run_until_complete(main())
        finally:
            self._loop.close()


@pytest.fixture
def start(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[[Services], Served]]:
    """Serve some services; a test may change them before."""
    running: list[Served] = []

    def make(services: Services) -> Served:
        # A short path: a unix socket's name holds 107 bytes.
        running.append(Served(services, tmp_path_factory.mktemp("s") / "api"))
        return running[-1]

    yield make
    for served in running:
        served.stop()


@pytest.fixture
def api(world: World, start: Callable[[Services], Served]) -> Iterator[httpx.Client]:
    with start(world.services).client() as client:
        yield client


def changed(services: Services, **settings: object) -> Services:
    """Return the services with some web settings changed."""
    return replace(services, settings=replace(services.settings, **settings))  # type: ignore[arg-type]
