"""Every route of the API. A new one: a handler in its file, which lists it in `ROUTES`."""

from __future__ import annotations

from typing import Final

from litestar.handlers import HTTPRouteHandler

from viewmeter.web import admin, analytics, operation, pages, session, static

ROUTES: Final[tuple[HTTPRouteHandler, ...]] = (
    *analytics.ROUTES,
    *admin.ROUTES,
    *session.ROUTES,
    *operation.ROUTES,
    *pages.ROUTES,
    *static.ROUTES,
)
