"""Errors of the API: raised anywhere in this room, answered here, always as RFC 9457.

In: an exception. Out: a `Response` with a problem body. Promised: nothing internal is told (no traceback, no
SQL, no path); a 500 carries the request's id, which stands beside the traceback in the log.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from http import HTTPStatus
from typing import Any, Final, cast

import structlog
from litestar import Request, Response
from litestar.exceptions import HTTPException, ValidationException

from viewmeter.metadata.keys import KeysUnavailableError
from viewmeter.model.problems import CONTENT_TYPE, PROBLEMS, Problem, problem
from viewmeter.query import QueryProblem

REQUEST_ID: Final = "viewmeter.request_id"
"""Where the ASGI scope carries the request's id."""
ANSWERED: Final = "viewmeter.problem"
"""Where the ASGI scope carries the code that was answered, for the access log."""

_log = structlog.get_logger(__name__)


RETRY_AFTER_S: Final = {"busy": 1, "too_many_streams": 5, "metadata_unavailable": 2, "not_ready": 2, "timeout": 5}


class ProblemError(Exception):
    """A request that ends in a problem. Raises KeyError for a code that is not listed."""

    def __init__(
        self,
        code: str,
        detail: str = "",
        errors: Sequence[Mapping[str, Any]] = (),
        headers: Mapping[str, str] | None = None,
    ) -> None:
        kind = PROBLEMS[code]
        self.problem = Problem(kind, detail or kind.remedy, errors)
        self.headers = dict(headers or {})
        super().__init__(code, self.problem.detail)


def answer(request: Request[Any, Any, Any], what: Problem, headers: Mapping[str, str] | None = None) -> Response[bytes]:
    """Return the HTTP answer of a problem."""
    extra = dict(headers or {})
    if what.status == HTTPStatus.UNAUTHORIZED:
        extra.setdefault("WWW-Authenticate", 'Bearer realm="viewmeter"')
    if what.kind.code in RETRY_AFTER_S:
        extra.setdefault("Retry-After", str(RETRY_AFTER_S[what.kind.code]))
    cast("dict[str, object]", request.scope)[ANSWERED] = what.kind.code
    return Response(what.body(), status_code=what.status, media_type=CONTENT_TYPE, headers=extra)


def on_problem(request: Request[Any, Any, Any], error: ProblemError) -> Response[bytes]:
    """Answer what this room raised."""
    return answer(request, error.problem, error.headers)


def on_query_problem(request: Request[Any, Any, Any], error: QueryProblem) -> Response[bytes]:
    """Answer what the query room refused."""
    kind = PROBLEMS.get(error.code)
    if kind is None:
        _log.error("unlisted_problem_code", code=error.code)
        kind = PROBLEMS["invalid_query"]
    return answer(request, Problem(kind, error.detail or kind.remedy, error.errors))


def on_keys_unavailable(request: Request[Any, Any, Any], error: KeysUnavailableError) -> Response[bytes]:
    """Answer when nobody can say whether the key exists: not 401, which would sign people out."""
    return answer(request, Problem(PROBLEMS["metadata_unavailable"], str(error)))


def on_validation(request: Request[Any, Any, Any], error: ValidationException) -> Response[bytes]:
    """Answer a parameter or body that does not fit its declared type."""
    found = error.extra if isinstance(error.extra, list) else []
    errors = [
        {"field": str(item.get("key", "")), "detail": str(item.get("message", ""))}
        for item in found
        if isinstance(item, Mapping)
    ]
    names = ", ".join(item["field"] for item in errors if item["field"])
    return answer(request, problem("validation_failed", f"Not valid: {names}." if names else "", errors))


_BY_STATUS: Final = {
    400: "invalid_request",
    404: "not_found",
    405: "method_not_allowed",
    406: "not_acceptable",
    413: "body_too_large_request",
    415: "unsupported_media_type",
    422: "validation_failed",
}


def on_http(request: Request[Any, Any, Any], error: HTTPException) -> Response[bytes]:
    """Answer what the framework refused: unknown routes, methods, bodies."""
    code = _BY_STATUS.get(error.status_code)
    if code is None:
        return on_error(request, error)
    details = {
        404: f"Nothing is at {request.url.path[:200]}; /docs lists every address.",
        405: f"{request.method} is not supported here; the Allow header names what is.",
        413: "The body is larger than web.max_body_bytes.",
    }
    detail = details.get(error.status_code, "")
    headers = {k: v for k, v in (error.headers or {}).items() if k.lower() == "allow"}
    return answer(request, problem(code, detail), headers)


def on_error(request: Request[Any, Any, Any], error: Exception) -> Response[bytes]:
    """Answer what nobody expected: the log gets all of it, the asker an id to quote."""
    request_id = request.scope.get(REQUEST_ID, "")
    _log.error("request_failed", request_id=request_id, error=type(error).__name__, exc_info=error)
    detail = f"It is in the server's log as request {request_id}; report it if it lasts."
    return answer(request, problem("internal", detail, request_id=request_id))


HANDLERS: Final[dict[int | type[Exception], Any]] = {
    ProblemError: on_problem,
    QueryProblem: on_query_problem,
    KeysUnavailableError: on_keys_unavailable,
    ValidationException: on_validation,
    HTTPException: on_http,
    Exception: on_error,
}
