"""The only place that names implementations: which log, stream, store and live counters a topology runs on.

In: settings, a data folder. Out: `embedded_engine` and `embedded_worker`, what the two kinds of processes of the
embedded topology run. Promised: whoever opens also closes, in reverse order, also after a failure half-way. Imports
stand in the functions, since a collector must not load the store's libraries, nor the command line either's.
"""

from __future__ import annotations

import contextlib
import os
import signal
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Final

import structlog

from viewmeter import __version__
from viewmeter.config import Config

if TYPE_CHECKING:
    from viewmeter.archive.archiver import Archiver
    from viewmeter.archive.protocol import Archive
    from viewmeter.batch.protocol import BatchJobs
    from viewmeter.batch.raw import ArchivedEvents
    from viewmeter.collector.deadletters import DeadLetters
    from viewmeter.collector.settings import CollectorSettings
    from viewmeter.eventlog.protocol import LogReader, LogWriter
    from viewmeter.metadata.directory import Directory
    from viewmeter.metadata.store import Metadata
    from viewmeter.olap.protocol import TimeSeriesStore
    from viewmeter.stream.protocol import StreamJobs
    from viewmeter.upkeep.orders import OrderDesk
    from viewmeter.web.edge import Edge
    from viewmeter.web.gateway import Gateway
    from viewmeter.web.replay import Resubmitter

log = structlog.get_logger(__name__)

REPLAY_PARTITION: Final = 900
"""The log partition that replayed dead letters go to: the engine's own, out of the workers' way."""


def now_ms() -> int:
    """Return the time in ms since the epoch: the clock that is handed to everything that needs one."""
    return time.time_ns() // 1_000_000


def metadata_url(config: Config, data: Path) -> str:
    """Return the address of the tenants and keys."""
    from viewmeter.metadata.settings import MetadataSettings

    return config.of(MetadataSettings).url or f"sqlite:///{(data / 'meta.db').absolute()}"


def log_reader(data: Path) -> LogReader:
    """Open the event log of a data folder for reading."""
    from viewmeter.eventlog.embedded import EmbeddedLogReader

    return EmbeddedLogReader(data / "log")


def log_writer(data: Path, partition: int, clock: Callable[[], int]) -> LogWriter:
    """Open one partition of a data folder's event log for writing; only one process may."""
    from viewmeter.eventlog.embedded import EmbeddedLogWriter

    return EmbeddedLogWriter(data / "log", partition, clock)


def archive(config: Config, data: Path, reader: LogReader) -> Archive:
    """Open the archive of a data folder; any process may."""
    from viewmeter.archive.embedded import ArchiveSettings, EmbeddedArchive

    return EmbeddedArchive(data / "archive", reader, now_ms, config.of(ArchiveSettings))


def store(config: Config, data: Path) -> TimeSeriesStore:
    """Open the time-series store of a data folder; only one process may."""
    from viewmeter.olap.embedded import DuckDBSettings, DuckDBStore

    return DuckDBStore(data / "store.duckdb", config.of(DuckDBSettings))


@dataclass
class EmbeddedEngine:
    """The engine process: everything but the intake."""

    app: Edge
    stream: StreamJobs
    archiver: Archiver
    batch: BatchJobs
    orders: OrderDesk
    drain_timeout_s: float
    failed: list[BaseException] = field(default_factory=list)
    _closing: contextlib.ExitStack = field(default_factory=contextlib.ExitStack)

    def serve(self, socket: Path) -> None:
        """Answer on the unix socket until SIGTERM. `/readyz` says when the stream jobs have recovered."""
        from viewmeter.web.serve import serve_engine

        # Recovery may take a while; a thread of its own lets `/healthz` and `/readyz` tell about it meanwhile.
        starter = threading.Thread(target=self._start_stream, name="stream-start")
        starter.start()
        try:
            serve_engine(self.app, socket, drain_timeout_s=self.drain_timeout_s / 3)
        finally:
            starter.join()
        if self.failed:
            raise self.failed[0]

    def _start_stream(self) -> None:
        try:
            self.stream.start()
            self.archiver.start()
            self.batch.start()
            self.orders.start()
        except Exception as problem:
            log.exception("the stream jobs could not start")
            self.failed.append(problem)
            _end_this_process(problem)

    def close(self) -> None:
        """Save the stream jobs' state and close everything."""
        self._closing.close()


def reporting_zones(metadata: Metadata) -> dict[str, str]:
    """Return the zone in which each tenant reports."""
    return {tenant.id: tenant.time_zone for tenant in metadata.all_tenants()}


def _end_this_process(_problem: BaseException) -> None:
    os.kill(os.getpid(), signal.SIGTERM)  # ends serve(); the supervisor starts the engine anew


def _leave_to_the_next_engine() -> Callable[[dict[str, object]], None]:
    """Return a handler that ends this engine, once; the next one carries the order out before it opens anything."""
    told = threading.Event()

    def handle(_order: dict[str, object]) -> None:
        if not told.is_set():
            told.set()
            log.info("the engine starts anew to erase a viewer")
            _end_this_process(SystemExit())

    return handle


def _access(config: Config, data: Path, opened: contextlib.ExitStack) -> tuple[Metadata, Directory]:
    """Open the tenants and keys, and the directory that remembers them."""
    from viewmeter.metadata.directory import Directory
    from viewmeter.metadata.settings import MetadataSettings
    from viewmeter.metadata.store import Metadata

    metadata = Metadata(metadata_url(config, data), now_ms, config.of(MetadataSettings))
    opened.callback(metadata.close)
    directory = Directory(metadata)
    opened.callback(directory.close)
    return metadata, directory


@dataclass(frozen=True)
class _History:
    """The archive, what fills it and what is made of it."""

    archive: Archive
    archiver: Archiver
    batch: BatchJobs
    events: ArchivedEvents


def _history(
    config: Config, data: Path, rollups: TimeSeriesStore, metadata: Metadata, opened: contextlib.ExitStack
) -> _History:
    """Open the archive and the batch jobs."""
    from viewmeter.archive.archiver import Archiver
    from viewmeter.archive.settings import ArchiveSettings
    from viewmeter.batch.embedded import BatchSettings, EmbeddedBatch
    from viewmeter.batch.raw import ArchivedEvents

    settings = config.of(BatchSettings)
    reader = log_reader(data)  # one of its own: a reader holds its lock while it reads
    opened.callback(reader.close)
    raw = archive(config, data, reader)
    opened.callback(raw.close)
    archiver = Archiver(raw, now_ms, config.of(ArchiveSettings))
    opened.callback(archiver.stop)
    zones = partial(reporting_zones, metadata)
    batch = EmbeddedBatch(raw, data / "archive", rollups, data / "batch", now_ms, settings, zones=zones)
    opened.callback(batch.stop)
    events = ArchivedEvents(raw.reader(), data / "batch", now_ms, settings, refresh=raw.flush, closed=rollups.closed)
    return _History(raw, archiver, batch, events)


def _dead_letters(
    config: Config, data: Path, metadata: Metadata, opened: contextlib.ExitStack
) -> tuple[DeadLetters, Resubmitter]:
    """Open the dead letters, and what sends them again."""
    from viewmeter.collector.deadletters import DeadLetters
    from viewmeter.collector.settings import CollectorSettings
    from viewmeter.web.replay import Resubmitter

    letters = DeadLetters(data / "dead-letters")
    opened.callback(letters.close)
    writer = partial(log_writer, data, REPLAY_PARTITION, now_ms)
    replays = Resubmitter(writer, letters, metadata, config.of(CollectorSettings), now_ms)
    opened.callback(replays.close)
    return letters, replays


def embedded_engine(config: Config, data: Path) -> EmbeddedEngine:
    """Open everything that the engine process runs on."""
    from viewmeter.collector.quality.store import FiguresReader
    from viewmeter.collector.settings import CollectorSettings
    from viewmeter.live.embedded import MemoryLiveSettings, MemoryLiveStore
    from viewmeter.query import Analytics, QuerySettings
    from viewmeter.stream.embedded import EmbeddedStream, StreamSettings
    from viewmeter.supervisor.settings import ServerSettings
    from viewmeter.upkeep import backup, erase
    from viewmeter.upkeep.orders import OrderDesk, carry_out
    from viewmeter.web.app import create_app
    from viewmeter.web.services import Services
    from viewmeter.web.settings import WebSettings

    with contextlib.ExitStack() as opened:
        metadata, directory = _access(config, data, opened)
        carry_out(data, {"erase": erase.order(data, lambda: store(config, data))})
        rollups = store(config, data)
        opened.callback(rollups.close)
        reader = log_reader(data)
        live = MemoryLiveStore(config.of(MemoryLiveSettings))
        stream = EmbeddedStream(
            reader, rollups, live, data / "state", now_ms, config.of(StreamSettings), on_failure=_end_this_process
        )
        opened.callback(stream.stop)
        history = _history(config, data, rollups, metadata, opened)
        desk = OrderDesk(data, {"backup": backup.order(data, stream, rollups), "erase": _leave_to_the_next_engine()})
        opened.callback(desk.stop)
        letters, replays = _dead_letters(config, data, metadata, opened)
        services = Services(
            analytics=Analytics(rollups, live, config.of(QuerySettings), history.events),
            stream=stream,
            archive=history.archive,
            batch=history.batch,
            log=reader,
            live=live,
            store=rollups,
            metadata=metadata,
            directory=directory,
            clock=now_ms,
            version=__version__,
            dead_letters=letters,
            quality=FiguresReader(data / "quality", config.of(CollectorSettings).quality_sample_ratio),
            resubmit=replays.resubmit,
            settings=config.of(WebSettings),
            checks={"archive": history.archiver.check},
        )
        drain_timeout_s = config.of(ServerSettings).drain_timeout_s
        engine = EmbeddedEngine(create_app(services), stream, history.archiver, history.batch, desk, drain_timeout_s)
        engine._closing = opened.pop_all()
    return engine


@dataclass
class EmbeddedWorker:
    """A collector worker: the intake, and the gateway to everything else."""

    app: Gateway
    settings: CollectorSettings
    close: Callable[[], None]

    def serve(self, host: str, port: int) -> None:
        """Answer on the public port until SIGTERM."""
        from viewmeter.collector.serve import Hooks, serve

        hooks = Hooks(on_stopping=self.app.close_streams, busy=self.app.busy)
        serve(self.app, host, port, self.settings, hooks)


def embedded_worker(
    config: Config, data: Path, partition: int, engine: Path, buckets: int | None = None
) -> EmbeddedWorker:
    """Open everything that a collector worker runs on.

    engine: the socket of the engine process. buckets: a file descriptor of memory where workers count together.
    """
    from viewmeter.collector.app import CollectorApp
    from viewmeter.collector.deadletters import DeadLetterWriter
    from viewmeter.collector.quality.sample import QualityMonitor, SampledLog
    from viewmeter.collector.quality.store import FiguresWriter
    from viewmeter.collector.rates import Buckets
    from viewmeter.collector.settings import CollectorSettings
    from viewmeter.web.gateway import Gateway, GatewaySettings

    settings = config.of(CollectorSettings)
    with contextlib.ExitStack() as opened:
        _, directory = _access(config, data, opened)
        writer: LogWriter = log_writer(data, partition, now_ms)
        if settings.quality_sample_ratio > 0:
            figures = FiguresWriter(data / "quality", partition)
            writer = SampledLog(writer, QualityMonitor(figures, settings.quality_sample_ratio, now_ms))
        opened.callback(writer.close)
        letters = DeadLetterWriter(
            data / "dead-letters", partition, settings.max_dead_letters, settings.max_dead_letter_bytes
        )
        opened.callback(letters.close)
        collector = CollectorApp(
            settings, directory, writer, letters, data / "run", clock=now_ms, buckets=Buckets(buckets)
        )
        gateway = Gateway(collector, engine, settings.trusted_proxies, config.of(GatewaySettings))
        closing = opened.pop_all()
    return EmbeddedWorker(gateway, settings, closing.close)
