"""The route of one view: what its player sent, and why it was counted or not (API.md 3).

In: a view's id and a caller. Out: the view, told by `query.views`. Promised: a view of another tenant or channel
answers exactly like one that does not exist.
"""

from __future__ import annotations

from typing import Annotated, Any, Final

import pyarrow as pa
from litestar import Request, Response
from litestar.params import PathParameter

from viewmeter.model.time import HOUR_MS, Interval, floor_to
from viewmeter.query.views import explain
from viewmeter.web.analytics import path_id
from viewmeter.web.auth import Caller, caller_of, services_of
from viewmeter.web.endpoint import endpoint, json_answer
from viewmeter.web.problems import ProblemError
from viewmeter.web.services import Services
from viewmeter.web.view_schemas import View

Ask = Request[Any, Any, Any]

_TENANTS_MAX: Final = 1_000


@endpoint(
    "GET", "/api/v1/views/{view_id:path}", "view", "One view: its events, its intervals, why it was counted or not",
    scope="read", answers=View, tag="Analytics",
    problems=("busy", "timeout", "validation_failed", "not_found", "not_ready"),
)  # fmt: skip
async def view(
    request: Ask,
    view_id: Annotated[str, PathParameter(description="the view's id, as the player sent it")],  # noqa: ARG001
) -> Response[bytes]:
    """From raw events, so as long as these are kept. Shown as the batch layer counts: events by `seq`, each once."""
    wanted = path_id(request, "/views/", "view_id")
    return json_answer(await request.app.state.queries.run(_view, services_of(request), caller_of(request), wanted))


def _view(services: Services, caller: Caller, view_id: str) -> dict[str, object]:
    if services.archive is None:
        raise ProblemError("not_ready", "This engine keeps no raw events.")
    events = _events(services, caller, view_id)
    visible = caller.visible.channels
    # The view is of the channel of its first event, as everywhere.
    if not events.num_rows or (visible is not None and events["channel_id"][0].as_py() not in visible):
        raise ProblemError("not_found", "No such view is known, or its raw events are not kept any more.")
    return explain(events, services.clock(), caller.reporting_zone, lambda instant_ms: _is_closed(services, instant_ms))


def _is_closed(services: Services, instant_ms: int) -> bool:
    hour_ms = floor_to(instant_ms, HOUR_MS)
    return bool(services.store.closed(Interval(hour_ms, hour_ms + HOUR_MS)))


def _events(services: Services, caller: Caller, view_id: str) -> pa.Table:
    """Return the view's events by `seq`; for an operator of the first tenant that has such a view."""
    assert services.archive is not None
    if caller.tenant_id is not None:
        return services.archive.view(caller.tenant_id, view_id)
    tenants, _ = services.metadata.list_tenants(_TENANTS_MAX, None)
    found = services.archive.view(caller.key.tenant.id, view_id)
    for tenant in tenants:
        if found.num_rows:
            break
        found = services.archive.view(tenant.id, view_id)
    return found


ROUTES: Final = (view,)
