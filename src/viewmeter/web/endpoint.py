"""How a route of the API is declared: its method and path, who may use it, what it answers and how it may
fail.

In: the facts. Out: a litestar route whose OpenAPI entry says all of them. `json_answer` writes the bodies.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, TypeVar

import msgspec
from litestar import Response, route
from litestar.enums import HttpMethod
from litestar.handlers import HTTPRouteHandler
from litestar.openapi.datastructures import ResponseSpec
from litestar.openapi.spec import OpenAPIMediaType, Operation, Reference, RequestBody

from viewmeter.model.problems import CONTENT_TYPE, PROBLEMS
from viewmeter.web import schemas
from viewmeter.web.problems import ProblemError

AUTH: Final = ("missing_key", "invalid_key", "invalid_session", "missing_scope", "metadata_unavailable")
EITHER: Final[list[dict[str, list[str]]]] = [{"secretKey": []}, {"session": []}]
MAX_LIMIT: Final = 1_000
NOT_JSON: Final = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)
"""What decoding raises for a body that is no JSON, or JSON nested a thousand deep."""

_Body = TypeVar("_Body", bound=msgspec.Struct)


def endpoint(
    method: str,
    path: str,
    name: str,
    summary: str,
    *,
    scope: str,
    answers: type[msgspec.Struct] | None,
    tag: str,
    problems: Sequence[str] = (),
    status: int = 200,
    media: Mapping[str, type[Any]] | None = None,
    takes: type[msgspec.Struct] | None = None,
    also: Mapping[int, type[msgspec.Struct]] | None = None,
    operation: type[Operation] = Operation,
    hidden: bool = False,
) -> Callable[[Callable[..., Any]], HTTPRouteHandler]:
    """Declare a route. `takes`: the JSON body; `media`: what the answer is called where it is no JSON."""
    public = scope == "public"
    codes = (*problems, "internal") if public else (*AUTH, *problems, "internal")
    specs = {**_problem_specs(codes)}
    if answers is not None:
        specs[status] = ResponseSpec(answers, generate_examples=False, description=_first_line(answers))
    elif media:
        called, container = next(iter(media.items()))
        specs[status] = ResponseSpec(container, generate_examples=False, description=summary, media_type=called)
    for other, kind in (also or {}).items():
        specs[other] = ResponseSpec(kind, generate_examples=False, description=_first_line(kind))
    methods = [HttpMethod.GET, HttpMethod.HEAD] if method == "HEAD" else [HttpMethod(method)]

    def declare(function: Callable[..., Any]) -> HTTPRouteHandler:
        return route(
            path,
            http_method=methods,
            status_code=status,
            summary=summary,
            response_description=summary,
            operation_id=_named(name),
            tags=[tag],
            security=[] if public else EITHER,
            opt={"scope": scope},
            responses=specs,
            operation_class=operation if takes is None else _taking(takes, operation),
            include_in_schema=not hidden,
        )(function)

    return declare


def _named(name: str) -> Callable[..., str]:
    """Return what names an operation: `name`, and `nameHead` for HEAD, since ids are unique."""
    return lambda _handler, method, _path: f"{name}Head" if method == HttpMethod.HEAD else name


def _taking(kind: type[msgspec.Struct], base: type[Operation]) -> type[Operation]:
    """Return an OpenAPI operation with a JSON body of that shape.

    Bodies are read by hand, since the framework would read them before it knows who asks; so it has to be
    told.
    """

    @dataclass  # without it the dataclass that it extends would not call __post_init__
    class Taking(base):  # type: ignore[valid-type, misc]
        def __post_init__(self) -> None:
            content = {"application/json": OpenAPIMediaType(schema=Reference(f"#/components/schemas/{kind.__name__}"))}
            self.request_body = RequestBody(content=content, required=True)
            if hasattr(base, "__post_init__"):
                super().__post_init__()

    return Taking


def _problem_specs(codes: Sequence[str]) -> dict[int, ResponseSpec]:
    by_status: dict[int, list[str]] = defaultdict(list)
    for code in dict.fromkeys(codes):
        by_status[PROBLEMS[code].status].append(code)
    return {
        status: ResponseSpec(
            schemas.ProblemDocument,
            generate_examples=False,
            description="; ".join(f"`{code}`: {PROBLEMS[code].title}" for code in found),
            media_type=CONTENT_TYPE,
        )
        for status, found in sorted(by_status.items())
    }


def _first_line(kind: type[msgspec.Struct]) -> str:
    return (kind.__doc__ or "").strip().split("\n")[0]


def json_answer(body: object, status: int = 200, headers: Mapping[str, str] | None = None) -> Response[bytes]:
    """Return a JSON answer."""
    return Response(
        msgspec.json.encode(body), status_code=status, media_type="application/json", headers=dict(headers or {})
    )


def body_as(kind: type[_Body], raw: bytes) -> _Body:
    """Read a JSON body of that shape. Raises `ProblemError`: 400 for no JSON, 422 for another shape."""
    try:
        return msgspec.json.decode(raw, type=kind)
    except msgspec.ValidationError as error:
        message, _, where = str(error).partition(" - at `$")
        named = re.search(r"field `(\w+)`", message)
        field = where.strip("`.") or (named.group(1) if named else "(body)")
        raise ProblemError(
            "validation_failed", f"{field}: {message}.", [{"field": field, "detail": message}]
        ) from error
    except NOT_JSON as error:
        raise ProblemError("invalid_json", f"The body is not JSON: {error}.") from error


def page(items: Sequence[Any], limit: int, cursor: str | None) -> tuple[list[Any], str | None]:
    """Return one page of a short list that is at hand, and the next page's cursor. The cursor is an index."""
    try:
        start = int(cursor or "0")
    except ValueError:
        start = -1
    if not 0 <= start <= len(items):
        raise ProblemError("invalid_cursor", "Send `next_cursor` of the page before as `cursor`, unchanged.")
    end = start + limit
    return list(items[start:end]), str(end) if end < len(items) else None
