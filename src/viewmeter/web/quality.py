"""`GET /api/v1/admin/quality`: what players send, seen on a sample of the accepted events.

In: a caller with admin scope. Out: fill rates, value ranges and clock skew by player, of that caller's tenant; of all
tenants for an operator.
"""

from __future__ import annotations

from typing import Annotated, Any, Final

from litestar import Request, Response
from litestar.params import QueryParameter

from viewmeter.collector.quality.figures import shown
from viewmeter.collector.quality.store import KEEP_DAYS
from viewmeter.model.time import rfc3339
from viewmeter.web import schemas
from viewmeter.web.admin import PAGE_DEFAULT, CursorParameter, Limit, whole_tenant
from viewmeter.web.auth import caller_of, services_of
from viewmeter.web.endpoint import endpoint, json_answer
from viewmeter.web.problems import ProblemError
from viewmeter.web.services import Services

Days = Annotated[int, QueryParameter(ge=1, le=KEEP_DAYS, description="UTC days back from now; 1 is today")]


@endpoint(
    "GET", "/api/v1/admin/quality", "quality", "What players send: fill rates, value ranges, clock skew",
    scope="admin", answers=schemas.Quality, tag="Operation",
    problems=("busy", "timeout", "validation_failed", "invalid_cursor"),
)  # fmt: skip
async def quality(
    request: Request[Any, Any, Any], days: Days = 1, limit: Limit = PAGE_DEFAULT, cursor: CursorParameter = None
) -> Response[bytes]:
    """By player and version, on a sample of whole views (`collector.quality_sample_ratio`)."""
    services, tenant = services_of(request), whole_tenant(caller_of(request))
    return json_answer(await request.app.state.operations.run(_quality, services, tenant, days, limit, cursor))


def _quality(services: Services, tenant_id: str | None, days: int, limit: int, cursor: str | None) -> dict[str, object]:
    now_ms, reader = services.clock(), services.quality
    if reader is None:
        return {"as_of": rfc3339(now_ms), "sample_ratio": 0.0, "days": days, "players": [], "next_cursor": None}
    try:
        found, following = reader.page(tenant_id, now_ms, days, limit, cursor)
    except ValueError as error:
        raise ProblemError("invalid_cursor", f"cursor: {error}.") from error
    return {
        "as_of": rfc3339(now_ms),
        "sample_ratio": reader.sample_ratio,
        "days": days,
        "players": [shown(group, figures) for group, figures in found],
        "next_cursor": following,
    }


ROUTES: Final = (quality,)
