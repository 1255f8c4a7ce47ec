"""Routes under /api/v1/analytics, and the live stream: what creators read (API.md 3).

In: a question and a caller. Out: what `query.Analytics` answers for what that caller may see, as JSON, CSV or
Parquet.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any, Final
from urllib.parse import unquote

import msgspec
from litestar import Request, Response
from litestar.openapi.spec import OpenAPIMediaType, OpenAPIResponse, Operation, Reference, Schema
from litestar.openapi.spec import Parameter as ParameterSpec
from litestar.openapi.spec.enums import OpenAPIType
from litestar.params import PathParameter, QueryParameter
from litestar.response import Stream

from viewmeter.live.protocol import LiveScope
from viewmeter.model.events import MAX_ID_CHARS
from viewmeter.query import parse_query, query_from_params
from viewmeter.query.question import GRANULARITIES, LIMIT_MAX, Query
from viewmeter.web import schemas
from viewmeter.web.auth import Caller, caller_of, services_of, still_valid
from viewmeter.web.endpoint import MAX_LIMIT, NOT_JSON, endpoint, json_answer, page
from viewmeter.web.feeds import Feeds
from viewmeter.web.problems import ProblemError
from viewmeter.web.services import Services
from viewmeter.web.work import Threads

Ask = Request[Any, Any, Any]

JSON: Final = "application/json"
CSV: Final = "text/csv"
PARQUET: Final = "application/vnd.apache.parquet"
FORMATS: Final = (JSON, CSV, PARQUET)
_AT_ONCE_BYTES: Final = 256 * 1024
"""A kept answer up to this size is sent from the event loop; to copy a larger one would hold others up."""

QUERY_PROBLEMS: Final = (
    "invalid_json", "unsupported_media_type", "not_acceptable", "body_too_large_request",
    "invalid_query", "invalid_time_range", "invalid_time_zone", "invalid_granularity", "invalid_cursor",
    "unknown_metric", "unknown_dimension", "invalid_filter", "not_covered", "too_many_rows", "busy", "timeout",
    "not_ready",
)  # fmt: skip

Limit = Annotated[int, QueryParameter(ge=1, le=MAX_LIMIT, description="rows of a page")]
CursorParameter = Annotated[str | None, QueryParameter(description="`next_cursor` of the page before")]


# Realtime


@endpoint(
    "GET", "/api/v1/analytics/realtime/platform", "realtimePlatform", "What is on screen now, of all that is visible",
    scope="read", answers=schemas.Realtime, tag="Analytics", problems=("busy", "timeout"),
)  # fmt: skip
async def realtime_platform(request: Ask) -> Response[bytes]:
    """All tenants for an operator key, else the key's tenant (or its channels)."""
    return await _realtime(request)


@endpoint(
    "GET", "/api/v1/analytics/realtime/channel/{channel_id:path}", "realtimeChannel", "What is on screen: a channel",
    scope="read", answers=schemas.Realtime, tag="Analytics", problems=("busy", "timeout", "validation_failed"),
)  # fmt: skip
async def realtime_channel(
    request: Ask,
    channel_id: Annotated[str, PathParameter(description="the channel's id")],  # noqa: ARG001 - see path_id
) -> Response[bytes]:
    """A channel without events, or of another tenant: zeros."""
    return await _realtime(request, channel_id=path_id(request, "/realtime/channel/", "channel_id"))


@endpoint(
    "GET", "/api/v1/analytics/realtime/{video_id:path}", "realtimeVideo", "What is on screen now: a video",
    scope="read", answers=schemas.Realtime, tag="Analytics", problems=("busy", "timeout", "validation_failed"),
)  # fmt: skip
async def realtime_video(
    request: Ask,
    video_id: Annotated[str, PathParameter(description="the video's id")],  # noqa: ARG001 - see path_id
) -> Response[bytes]:
    """A video without events, or of another tenant: zeros."""
    return await _realtime(request, video_id=path_id(request, "/realtime/", "video_id"))


async def _realtime(request: Ask, channel_id: str | None = None, video_id: str | None = None) -> Response[bytes]:
    scope = LiveScope(caller_of(request).visible, channel_id, video_id)
    return json_answer(await live_figures(services_of(request), request.app.state.live, scope))


async def live_figures(services: Services, threads: Threads, scope: LiveScope) -> dict[str, object]:
    """Compute the realtime object of a scope, off the event loop."""
    return await threads.run(services.analytics.realtime, scope, services.clock())


def path_id(request: Ask, behind: str, name: str) -> str:
    """Return the id that ends a path, behind that part of it, from its raw bytes.

    `a%2F%2Fb` is the id `a//b`, which the framework's own parameter (unused, but it declares the route) would have
    made `a/b`.
    """
    raw = bytes(request.scope["raw_path"]).partition(b"?")[0].decode("ascii", "replace")
    found = unquote(raw.partition(behind)[2])
    if not 1 <= len(found) <= MAX_ID_CHARS:
        detail = f"An id has 1 to {MAX_ID_CHARS} characters; this one has {len(found)}."
        raise ProblemError("validation_failed", detail, [{"field": name, "detail": detail}])
    return found


# Query


@dataclass
class QueryByBody(Operation):
    """The OpenAPI entry of a query sent as a JSON body."""

    def __post_init__(self) -> None:
        _add_files(self)


@dataclass
class QueryByParameters(Operation):
    """The OpenAPI entry of a query sent as parameters."""

    def __post_init__(self) -> None:
        self.parameters = parameters(*_PARAMETERS)
        _add_files(self)


_PARAMETERS: Final = {
    "metrics": "names, comma-separated",
    "start": "RFC 3339 or ms since the epoch",
    "end": "RFC 3339 or ms since the epoch; the range is half-open",
    "time_range": "instead of start and end: `24h`, `7d`, `30d`, `month`",
    "channel_id": "only this channel",
    "video_id": "only this video",
    "time_zone": "IANA name",
    "granularity": "minute, 5m, hour, day, week, month or total",
    "dimensions": "names, comma-separated",
    "filters": 'JSON: `[["is","country",["DE"]]]`',
    "order_by": "`plays:desc`, comma-separated, or JSON",
    "limit": "groups, 1 to 10,000",
    "cursor": "`next_cursor` of the page before",
    "explain": "true: the answer carries its plan",
}


_STRICTER: Final = {
    "time_range": Schema(type=OpenAPIType.STRING, pattern=schemas.SHORTCUT),
    "granularity": Schema(type=OpenAPIType.STRING, enum=GRANULARITIES),
    "limit": Schema(type=OpenAPIType.INTEGER, minimum=1, maximum=LIMIT_MAX),
    "explain": Schema(type=OpenAPIType.BOOLEAN),
}


def parameters(*names: str) -> list[ParameterSpec | Reference]:
    """Return the OpenAPI entries of parameters of a query."""
    return [
        ParameterSpec(
            name=name,
            param_in="query",
            required=name == "metrics",
            description=_PARAMETERS[name],
            schema=_STRICTER.get(name, Schema(type=OpenAPIType.STRING)),
        )
        for name in names
    ]


def _add_files(operation: Operation) -> None:
    """Say that the answer also comes as a file."""
    answer = (operation.responses or {}).get("200")
    if isinstance(answer, OpenAPIResponse) and answer.content is not None:
        for kind in (CSV, PARQUET):
            answer.content[kind] = OpenAPIMediaType(schema=Schema(type=OpenAPIType.STRING))


@endpoint(
    "POST", "/api/v1/analytics/query", "query", "Ask for metrics over time",
    scope="read", answers=schemas.Answer, tag="Analytics", problems=(*QUERY_PROBLEMS, "csrf"),
    takes=schemas.Question, operation=QueryByBody,
)  # fmt: skip
async def query_by_body(request: Ask) -> Response[bytes]:
    """Real time and history in one answer; `Accept` chooses JSON, CSV or Parquet."""
    return await _query(request, _raw_body(request, await request.body()))


@endpoint(
    "GET", "/api/v1/analytics/query", "queryByParameters", "Ask for metrics over time, by parameters",
    scope="read", answers=schemas.Answer, tag="Analytics", problems=QUERY_PROBLEMS, operation=QueryByParameters,
)  # fmt: skip
async def query_by_parameters(request: Ask) -> Response[bytes]:
    """The same names as in the body of POST. A JSON body is taken as well, but proxies may drop it."""
    body = await request.body()
    if body:
        return await _query(request, _raw_body(request, body))
    given: dict[str, str] = {}
    for name, value in request.query_params.multi_items():
        given[name] = f"{given[name]},{value}" if name in given else value
    try:
        raw = query_from_params(given)
    except RecursionError as error:
        raise ProblemError("invalid_json", "A parameter holds JSON that is nested too deep.") from error
    return await _query(request, raw)


def _raw_body(request: Ask, body: bytes) -> dict[str, object]:
    kind = request.headers.get("content-type", JSON).partition(";")[0].strip().lower()
    if kind != JSON and not kind.endswith("+json"):
        raise ProblemError("unsupported_media_type", f"Send application/json, not {kind[:100]}.")
    try:
        raw = msgspec.json.decode(body)
    except NOT_JSON as error:
        raise ProblemError("invalid_json", f"The body is not JSON: {error}.") from error
    if not isinstance(raw, dict):
        raise ProblemError("invalid_query", 'The body must be a JSON object: {"metrics": […], "time_range": …}.')
    return raw


async def _query(request: Ask, raw: dict[str, object]) -> Response[bytes]:
    services, caller = services_of(request), caller_of(request)
    kind = _format(request)
    now_ms = services.clock()
    question = parse_query(raw, now_ms=now_ms)
    if kind == JSON:
        # What is there already does not queue behind scans.
        kept = services.analytics.kept(question, caller.visible, now_ms, services.watermark_ms(), caller.reporting_zone)
        if kept is not None and kept.rows.written is not None and len(kept.rows.written) <= _AT_ONCE_BYTES:
            return Response(kept.to_json(), media_type=JSON)
    threads: Threads = request.app.state.queries
    return await threads.run(_answer, services, caller, question, now_ms, kind)


def _answer(services: Services, caller: Caller, question: Query, now_ms: int, kind: str) -> Response[bytes]:
    """Ask and write, both in a thread, since the writing of 50,000 rows takes its time too."""
    mark = services.watermark_ms()
    found = services.analytics.query(question, caller.visible, now_ms, mark, caller.reporting_zone)
    if kind == JSON:
        return Response(found.to_json(), media_type=JSON)
    name, body = ("query.csv", found.to_csv()) if kind == CSV else ("query.parquet", found.to_parquet())
    headers = {"Content-Disposition": f'attachment; filename="{name}"'}
    if found.next_cursor is not None:
        headers["X-Next-Cursor"] = found.next_cursor
    return Response(body.encode() if isinstance(body, str) else body, media_type=kind, headers=headers)


def _format(request: Ask) -> str:
    if "accept" not in request.headers:
        return JSON
    best = request.accept.best_match(list(FORMATS))
    if best is None:
        raise ProblemError("not_acceptable")
    return best


# Catalogue


@endpoint(
    "GET", "/api/v1/analytics/metrics", "listMetrics", "Every metric: unit, formula, error, version",
    scope="read", answers=schemas.Metrics, tag="Analytics", problems=("validation_failed", "invalid_cursor"),
)  # fmt: skip
async def metrics(request: Ask, limit: Limit = MAX_LIMIT, cursor: CursorParameter = None) -> Response[bytes]:
    """The catalogue from which queries, dashboard labels and alert operands come."""
    items, following = page(services_of(request).analytics.metrics_catalogue(), limit, cursor)
    return json_answer({"metrics": items, "next_cursor": following})


@endpoint(
    "GET", "/api/v1/analytics/dimensions", "listDimensions", "Every dimension to group and filter by",
    scope="read", answers=schemas.Dimensions, tag="Analytics", problems=("validation_failed", "invalid_cursor"),
)  # fmt: skip
async def dimensions(request: Ask, limit: Limit = MAX_LIMIT, cursor: CursorParameter = None) -> Response[bytes]:
    """The catalogue of dimensions."""
    items, following = page(services_of(request).analytics.dimensions_catalogue(), limit, cursor)
    return json_answer({"dimensions": items, "next_cursor": following})


# The live stream


@endpoint(
    "GET", "/api/v1/live", "live", "The realtime object as Server-Sent Events, every second",
    scope="read", answers=None, media={"text/event-stream": str}, tag="Analytics",
    problems=("too_many_streams", "not_ready", "validation_failed"),
)  # fmt: skip
async def live(
    request: Ask,
    video_id: Annotated[
        str | None, QueryParameter(description="a video", min_length=1, max_length=MAX_ID_CHARS)
    ] = None,
    channel_id: Annotated[
        str | None, QueryParameter(description="a channel", min_length=1, max_length=MAX_ID_CHARS)
    ] = None,
) -> Stream:
    """Event `metrics`, data the realtime object. Without parameters: everything that the key may see."""
    services, caller = services_of(request), caller_of(request)
    feeds: Feeds = request.app.state.feeds
    scope = LiveScope(caller.visible, channel_id, video_id)
    events = feeds.open(scope, lambda: still_valid(services, caller))
    # Proxies must not collect the events, and nobody may keep them.
    headers = {"Cache-Control": "no-store", "X-Accel-Buffering": "no"}
    return Stream(events, media_type="text/event-stream", headers=headers)


ROUTES: Final = (
    realtime_platform, realtime_channel, realtime_video, query_by_body, query_by_parameters, metrics, dimensions, live,
)  # fmt: skip
