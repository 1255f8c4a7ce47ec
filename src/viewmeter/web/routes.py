"""Every route of the API. A new one: a handler in its file, which lists it in `ROUTES`."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator
from typing import Final

from litestar import Response, route
from litestar.enums import HttpMethod
from litestar.handlers import HTTPRouteHandler

from viewmeter.web import admin, analytics, content, jobs, operation, pages, quality, session, static, views

_HANDLERS: Final[tuple[HTTPRouteHandler, ...]] = (
    *analytics.ROUTES,
    *content.ROUTES,
    *views.ROUTES,
    *admin.ROUTES,
    *jobs.ROUTES,
    *quality.ROUTES,
    *session.ROUTES,
    *operation.ROUTES,
    *pages.ROUTES,
    *static.ROUTES,
)


def _options(handlers: Iterable[HTTPRouteHandler]) -> Iterator[HTTPRouteHandler]:
    """Answer OPTIONS with every method of a path; the framework's own answer knows one handler's only."""
    methods: dict[str, set[str]] = defaultdict(lambda: {"OPTIONS"})
    for handler in handlers:
        for path in handler.paths:
            methods[path] |= {str(method) for method in handler.http_methods}
    for path, allowed in methods.items():
        yield _options_of(path, ", ".join(sorted(allowed)))


def _options_of(path: str, allow: str) -> HTTPRouteHandler:
    async def options() -> Response[None]:
        return Response(None, status_code=204, headers={"Allow": allow})

    return route(path, http_method=[HttpMethod.OPTIONS], status_code=204, include_in_schema=False)(options)


# OPTIONS first: a path that has it when its first handler comes is not given the framework's.
ROUTES: Final[tuple[HTTPRouteHandler, ...]] = (*_options(_HANDLERS), *_HANDLERS)
