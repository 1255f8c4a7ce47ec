"""Routes that operators' machines ask: /healthz, /readyz, /version, /metrics.

In: nothing but the address; no key, so nothing here names a tenant, a channel or a video. Out: whether the
process is alive, whether each part of it is ready, and figures for Prometheus, of all processes where they
share a folder.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, Final

import structlog
from litestar import Request, Response
from prometheus_client import CONTENT_TYPE_LATEST, REGISTRY, CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.multiprocess import MultiProcessCollector
from prometheus_client.registry import Collector

from viewmeter.archive.protocol import ArchiveFigures
from viewmeter.batch.protocol import BatchFigures
from viewmeter.web import schemas
from viewmeter.web.auth import services_of
from viewmeter.web.endpoint import endpoint, json_answer
from viewmeter.web.services import Check, Services

Ask = Request[Any, Any, Any]

API_VERSION: Final = "v1"
CHECK_TIMEOUT_S: Final = 2.0

_log = structlog.get_logger(__name__)


@endpoint(
    "HEAD", "/healthz", "healthz", "Whether the process is alive",
    scope="public", answers=schemas.Health, tag="Operation",
)  # fmt: skip
async def healthz() -> Response[bytes]:
    """Touches nothing: it says that the event loop turns."""
    return json_answer({"status": "ok"})


@endpoint(
    "HEAD", "/readyz", "readyz", "Whether each part is ready",
    scope="public", answers=schemas.Readiness, tag="Operation", also={503: schemas.Readiness},
)  # fmt: skip
async def readyz(request: Ask) -> Response[bytes]:
    """503 until every part is ready, with the same body."""
    parts = await request.app.state.readiness.parts()
    ready = all(part["ready"] for part in parts.values())
    headers = {} if ready else {"Retry-After": "1"}
    return json_answer({"ready": ready, "parts": parts}, 200 if ready else 503, headers)


@endpoint(
    "HEAD", "/version", "version", "Which Viewmeter this is",
    scope="public", answers=schemas.Version, tag="Operation",
)  # fmt: skip
async def version(request: Ask) -> Response[bytes]:
    """The product's and the API's version."""
    return json_answer({"version": services_of(request).version, "api": API_VERSION})


@endpoint(
    "GET", "/metrics", "prometheus", "Figures for Prometheus",
    scope="public", answers=None, media={"text/plain": str}, tag="Operation", problems=("busy", "timeout"),
)  # fmt: skip
async def prometheus(request: Ask) -> Response[bytes]:
    """Of all processes of this machine; no label names a video, a channel or a tenant."""
    body = await request.app.state.operations.run(_exposition, services_of(request))
    return Response(body, headers={"Content-Type": CONTENT_TYPE_LATEST})


def _exposition(services: Services) -> bytes:
    if os.environ.get("PROMETHEUS_MULTIPROC_DIR"):
        shared = CollectorRegistry()
        MultiProcessCollector(shared)  # type: ignore[no-untyped-call]
        body = generate_latest(shared)
    else:
        body = generate_latest(REGISTRY)
    engine = CollectorRegistry()
    engine.register(EngineFigures(services))
    return body + generate_latest(engine)


class EngineFigures(Collector):
    """What the engine's parts say about themselves at this moment."""

    def __init__(self, services: Services) -> None:
        self._services = services

    def collect(self) -> Iterable[Metric]:
        """Return the figures, read now."""
        services, now_ms = self._services, self._services.clock()
        figures, store = services.stream.figures(), services.store.figures()
        lag = GaugeMetricFamily(
            "viewmeter_log_lag_batches", "Durable batches that are not applied yet.", labels=["partition"]
        )
        for partition, batches in figures.lag_batches.items():
            lag.add_metric([str(partition)], batches)
        yield lag
        age = GaugeMetricFamily(
            "viewmeter_watermark_age_seconds", "How old the newest applied moment is.", labels=["job"]
        )
        for job, mark in figures.watermark_ms.items():
            if mark is not None:
                age.add_metric([job], max(0, now_ms - mark) / 1000)
        yield age
        rows = GaugeMetricFamily("viewmeter_store_rows", "Rows of the store.", labels=["rollup"])
        for rollup, count in store.rows.items():
            rows.add_metric([rollup], count)
        yield rows
        yield GaugeMetricFamily("viewmeter_store_bytes", "The store on disk.", value=store.bytes_on_disk)
        yield CounterMetricFamily(
            "viewmeter_stream_applied_events", "Events applied since the start.", value=figures.applied_events
        )
        yield GaugeMetricFamily(
            "viewmeter_stream_waiting_events", "Events behind a hole in seq.", value=figures.waiting_events
        )
        yield GaugeMetricFamily("viewmeter_stream_views", "Views remembered.", value=figures.views)
        yield CounterMetricFamily("viewmeter_stream_restarts", "Restarts of the stream jobs.", value=figures.restarts)
        yield GaugeMetricFamily(
            "viewmeter_log_damaged_batches", "Batches set aside.", value=len(services.log.damaged())
        )
        if services.archive is not None:
            yield from _archive_figures(services.archive.figures())
        if services.batch is not None:
            yield from _batch_figures(services.batch.figures(), now_ms)


def _batch_figures(figures: BatchFigures, now_ms: int) -> Iterable[Metric]:
    yield GaugeMetricFamily("viewmeter_batch_due_hours", "Hours that wait for their first run.", value=figures.due)
    yield GaugeMetricFamily("viewmeter_batch_stale_hours", "Closed hours that must run again.", value=figures.stale)
    yield GaugeMetricFamily(
        "viewmeter_batch_failing", "1 where the last run failed.", value=figures.problem is not None
    )
    if figures.closed_until_ms is not None:
        yield GaugeMetricFamily(
            "viewmeter_batch_open_seconds", "How long ago the last closed hour ended.",
            value=max(0, now_ms - figures.closed_until_ms) / 1000,
        )  # fmt: skip


def _archive_figures(figures: ArchiveFigures) -> Iterable[Metric]:
    yield GaugeMetricFamily("viewmeter_archive_files", "Files of raw events.", value=figures.files)
    yield GaugeMetricFamily("viewmeter_archive_events", "Raw events kept, repeated ones too.", value=figures.events)
    yield GaugeMetricFamily("viewmeter_archive_bytes", "Raw events on disk.", value=figures.bytes)
    yield GaugeMetricFamily("viewmeter_archive_damaged_files", "Files set aside.", value=len(figures.damaged))
    lag = GaugeMetricFamily(
        "viewmeter_archive_lag_batches", "Durable batches that are not archived yet.", labels=["partition"]
    )
    for partition, batches in figures.lag_batches.items():
        lag.add_metric([str(partition)], batches)
    yield lag


# Readiness


class Readiness:
    """Asks every part, each in a thread of its own, and never waits longer than `CHECK_TIMEOUT_S`.

    A check that hangs is not asked again until it returns: a stuck disk must not eat one thread a probe.
    """

    def __init__(self, services: Services) -> None:
        self._checks = _standard_checks(services) | dict(services.checks)
        self._pool = ThreadPoolExecutor(len(self._checks), thread_name_prefix="web-ready")
        self._running: dict[str, Future[str | None]] = {}

    async def parts(self) -> dict[str, dict[str, object]]:
        """Return each part's state."""
        for name, check in self._checks.items():
            if name not in self._running or self._running[name].done():
                self._running[name] = self._pool.submit(_ask, name, check)
        asked = dict(self._running)
        waiting = {asyncio.wrap_future(future) for future in asked.values()}
        await asyncio.wait(waiting, timeout=CHECK_TIMEOUT_S)
        found: dict[str, dict[str, object]] = {}
        for name, future in asked.items():
            missing = future.result() if future.done() else f"no answer within {CHECK_TIMEOUT_S:g} s"
            found[name] = {"ready": missing is None, "detail": missing}
        return found

    def close(self) -> None:
        """Ask no more."""
        self._pool.shutdown(wait=False, cancel_futures=True)


def _ask(name: str, check: Check) -> str | None:
    try:
        return check()
    except Exception as error:  # noqa: BLE001 - whatever it is, the part is not ready; the log has the rest
        _log.warning("not_ready", part=name, error=type(error).__name__, exc_info=error)
        return f"cannot be asked ({type(error).__name__}); see the server's log"


def _standard_checks(services: Services) -> dict[str, Check]:
    def ask(question: Any) -> Check:
        def check() -> None:
            question()

        return check

    return {
        "store": ask(services.store.last_commit),
        "log": ask(services.log.ends),
        "stream": ask(services.stream.figures),
        "metadata": ask(services.metadata.changes),
    }


ROUTES: Final = (healthz, readyz, version, prometheus)
