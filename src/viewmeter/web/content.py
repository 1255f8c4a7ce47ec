"""Routes of what is no time series: where in a video views played, and which viewers came back (API.md 3).

In: a video or a channel, a range, a caller. Out: the retention curve and the weekly cohorts, for what the caller may
see: of anything else the same zeros as of what does not exist.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any, Final

from litestar import Request, Response
from litestar.openapi.spec import Operation
from litestar.params import PathParameter, QueryParameter

from viewmeter.model.events import MAX_ID_CHARS
from viewmeter.query import parse_query, query_from_params
from viewmeter.query.content import WEEKS_MAX
from viewmeter.web import schemas
from viewmeter.web.analytics import parameters, path_id
from viewmeter.web.auth import Caller, caller_of, services_of
from viewmeter.web.endpoint import endpoint, json_answer
from viewmeter.web.problems import ProblemError
from viewmeter.web.services import Services

Ask = Request[Any, Any, Any]

_TAKES: Final = ("start", "end", "time_range", "channel_id", "time_zone", "filters")
_RANGE: Final = "30d"


@dataclass
class ByRange(Operation):
    """The OpenAPI entry of a question about a range."""

    def __post_init__(self) -> None:
        self.parameters = [*(self.parameters or ()), *parameters(*_TAKES)]


@endpoint(
    "GET", "/api/v1/analytics/retention/{video_id:path}", "retention", "Where in a video views played, per 1 % of it",
    scope="read", answers=schemas.Retention, tag="Analytics", operation=ByRange,
    problems=("busy", "timeout", "validation_failed", "invalid_query", "invalid_time_range", "invalid_time_zone",
              "unknown_dimension", "invalid_filter", "not_covered", "too_many_rows"),
)  # fmt: skip
async def retention(
    request: Ask,
    video_id: Annotated[str, PathParameter(description="the video's id")],  # noqa: ARG001 - see path_id
) -> Response[bytes]:
    """Views that ended in the range (30 days, unless told) and whose content's length is known. From closed hours."""
    given: dict[str, str] = {}
    for name, value in request.query_params.multi_items():
        if name not in _TAKES:
            detail = f"{name}: no such parameter here. There are: {', '.join(_TAKES)}."
            raise ProblemError("invalid_query", detail, [{"field": name, "detail": detail}])
        given[name] = value
    video = path_id(request, "/retention/", "video_id")
    answer = await request.app.state.queries.run(_retention, services_of(request), caller_of(request), video, given)
    return json_answer(answer)


def _retention(services: Services, caller: Caller, video: str, given: dict[str, str]) -> dict[str, object]:
    now_ms = services.clock()
    try:
        raw = query_from_params(given)
    except RecursionError as error:
        raise ProblemError("invalid_filter", "filters: the JSON is nested too deep.") from error
    raw = {"time_range": _RANGE, **raw, "metrics": ["plays"], "video_id": video}
    question = parse_query(raw, now_ms=now_ms)
    found = services.analytics.retention(
        question, caller.visible, now_ms, services.watermark_ms(), caller.reporting_zone
    )
    return {"video_id": video, **found}


@endpoint(
    "GET", "/api/v1/analytics/cohorts", "cohorts", "Returning viewers, by the week of their first play",
    scope="read", answers=schemas.Cohorts, tag="Analytics", problems=("busy", "timeout", "validation_failed"),
)  # fmt: skip
async def cohorts(
    request: Ask,
    channel_id: Annotated[
        str | None, QueryParameter(description="only this channel", min_length=1, max_length=MAX_ID_CHARS)
    ] = None,
    weeks: Annotated[int, QueryParameter(description="how many, up to the one that runs", ge=1, le=WEEKS_MAX)] = 12,
) -> Response[bytes]:
    """Of closed hours. A channel without viewers, or of another tenant: zeros."""
    services, caller = services_of(request), caller_of(request)
    return json_answer(await request.app.state.queries.run(_cohorts, services, caller, channel_id, weeks))


def _cohorts(services: Services, caller: Caller, channel_id: str | None, weeks: int) -> dict[str, object]:
    now_ms, mark = services.clock(), services.watermark_ms()
    return services.analytics.cohorts(channel_id, weeks, caller.visible, now_ms, mark, caller.reporting_zone)


ROUTES: Final = (retention, cohorts)
