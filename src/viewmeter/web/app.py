"""The ASGI application of API v1.

In: `Services`. Out: `create_app(services)`, an ASGI callable with every route, wrapped in what holds for all
of them. Promised: every error is a problem document; nothing blocks the event loop; every queue has a bound.
Not registered yet, so 404: alerts.
"""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Final, cast

from litestar import Litestar
from litestar.datastructures import State

from viewmeter.web import analytics, openapi
from viewmeter.web.auth import guard
from viewmeter.web.edge import App, Edge
from viewmeter.web.feeds import Feeds
from viewmeter.web.operation import Readiness
from viewmeter.web.problems import HANDLERS
from viewmeter.web.routes import ROUTES
from viewmeter.web.services import Services
from viewmeter.web.static import Build
from viewmeter.web.work import Threads

PLAYER: Final = Path(__file__).parent / "player"


def create_app(services: Services) -> Edge:
    """Return the ASGI application that answers from these services."""
    app = create_litestar(services)
    return Edge(cast("App", app), services.settings.access_log, app.state.feeds.close)


def create_litestar(services: Services) -> Litestar:
    """Return the application without its outermost layer."""
    settings = services.settings
    queries = Threads("query", settings.query_threads, settings.waiting_queries, settings.query_timeout_s)
    # Work that must go on while all query threads are busy.
    operations = Threads("operation", 2, 100, 10.0)
    flushes = Threads("flush", 2, 30, settings.flush_timeout_s + 5.0)
    jobs = Threads("job", 2, 8, settings.job_timeout_s)
    live = Threads("live", 2, settings.max_feeds, 10.0)
    feeds = Feeds(
        partial(analytics.live_figures, services, live),
        services.clock,
        settings.stream_every_s,
        settings.heartbeat_every_s,
        settings.max_streams,
        settings.max_feeds,
    )
    readiness = Readiness(services)

    async def close() -> None:
        await feeds.close()
        readiness.close()
        for threads in (queries, operations, flushes, jobs, live):
            threads.close()

    app = Litestar(
        route_handlers=ROUTES,
        guards=[guard],
        exception_handlers=HANDLERS,
        openapi_config=openapi.config(services.version),
        request_max_body_size=settings.max_body_bytes,
        on_shutdown=[close],
        logging_config=None,
        state=State(
            {
                "services": services,
                "queries": queries,
                "live": live,
                "operations": operations,
                "flushes": flushes,
                "jobs": jobs,
                "feeds": feeds,
                "readiness": readiness,
                "dashboard": Build(services.static, "index.html"),
                "player": Build(PLAYER, "v.js"),
            }
        ),
    )
    app.state.openapi = openapi.document(app)
    return app
