"""The OpenAPI document: what the routes declare, and the ingestion that the collector workers answer
themselves.

In: the litestar application. Out: one dictionary (OpenAPI 3.1). Promised: every route, every problem code it
answers, the shape of every body, which key it needs.
"""

from __future__ import annotations

import itertools
from typing import Any, Final

import msgspec
from litestar import Litestar
from litestar.openapi.config import OpenAPIConfig
from litestar.openapi.spec import Components, License, SecurityScheme, Tag

from viewmeter.model.catalogue import DIMENSIONS, METRICS
from viewmeter.model.events import WireEvent
from viewmeter.model.problems import CONTENT_TYPE, PROBLEMS
from viewmeter.web import schemas
from viewmeter.web.auth import COOKIE

_TAGS: Final = {
    "Ingestion": "What players send. Answered by the collector workers; keys `pk_…`.",
    "Analytics": "What creators read. Keys `sk_…` with scope `read`, or a session.",
    "Session": "Signing a browser in and out.",
    "Operation": "What operators and their machines ask. `/api/v1/admin/*` needs scope `admin`.",
    "Pages": "Files.",
}
_TAKEN: Final = (schemas.Question, schemas.ReplayRequest, schemas.SignIn, schemas.JobRequest)
"""Bodies that are read by hand, so that the framework does not see their types."""


def config(version: str) -> OpenAPIConfig:
    """Return what litestar has to know to write its part."""
    return OpenAPIConfig(
        title="Viewmeter",
        version=version,
        description="Streaming analytics for video: live within seconds, right for years.",
        license=License(name="Apache-2.0", identifier="Apache-2.0"),
        tags=[Tag(name=name, description=doc) for name, doc in _TAGS.items()],
        components=Components(
            security_schemes={
                "secretKey": SecurityScheme(
                    type="http", scheme="bearer", description="A secret key, `sk_…`. Never in a URL."
                ),
                "session": SecurityScheme(
                    type="apiKey", name=COOKIE, security_scheme_in="cookie", description="Set by POST /api/v1/session."
                ),
                "ingestKey": SecurityScheme(
                    type="apiKey", name="key", security_scheme_in="query", description="An ingest key, `pk_…`; public."
                ),
                "ingestBearer": SecurityScheme(
                    type="http", scheme="bearer", description="The same ingest key as a header."
                ),
            }
        ),
        use_handler_docstrings=True,
    )


def document(app: Litestar) -> dict[str, Any]:
    """Return the whole document."""
    made: dict[str, Any] = app.openapi_schema.to_schema()
    shapes = made.setdefault("components", {}).setdefault("schemas", {})
    _, taken = msgspec.json.schema_components(
        [*_TAKEN, WireEvent, schemas.ProblemDocument, schemas.IngestResult],
        ref_template="#/components/schemas/{name}",
    )
    for name, shape in taken.items():
        shapes.setdefault(name, shape)
    question = shapes["Question"]["properties"]
    question["metrics"]["items"]["enum"] = list(METRICS)
    question["dimensions"]["items"]["enum"] = list(DIMENSIONS)
    made["paths"] |= _ingestion()
    for path, method in itertools.product(made["paths"].values(), ("get", "head", "post", "delete")):
        if method in path:
            _tidy(path[method])
    return made


def _tidy(operation: dict[str, Any]) -> None:
    """Drop what the framework adds by itself: its own 400, which our handlers never answer."""
    answers = operation["responses"]
    if "400" in answers and CONTENT_TYPE not in answers["400"].get("content", {}):
        del answers["400"]
    for status, answer in answers.items():
        if status in ("204", "303"):
            answer.pop("content", None)


def _problems(*codes: str) -> dict[str, Any]:
    answers: dict[str, Any] = {}
    for code in codes:
        kind = PROBLEMS[code]
        entry = answers.setdefault(
            str(kind.status),
            {
                "description": "",
                "content": {CONTENT_TYPE: {"schema": {"$ref": "#/components/schemas/ProblemDocument"}}},
            },
        )
        entry["description"] += ("; " if entry["description"] else "") + f"`{code}`: {kind.title}"
        if kind.status in (429, 503):
            entry["headers"] = {"Retry-After": {"schema": {"type": "integer"}, "description": "seconds"}}
    return answers


_PROBLEMS: Final = (
    "invalid_encoding", "missing_key", "invalid_key", "origin_not_allowed", "body_too_large",
    "unsupported_media_type", "unsupported_content_encoding", "rate_limited", "log_unavailable", "overloaded",
    "shutting_down",
)  # fmt: skip


def _parameter(name: str, doc: str, kind: str = "string", where: str = "query") -> dict[str, Any]:
    return {"name": name, "in": where, "required": False, "description": doc, "schema": {"type": kind}}


def _ingestion() -> dict[str, Any]:
    events = {"type": "array", "items": {"$ref": "#/components/schemas/WireEvent"}, "minItems": 1, "maxItems": 500}
    security: list[dict[str, list[str]]] = [{"ingestKey": []}, {"ingestBearer": []}]
    accepted = {"description": "At least one event is accepted, and durable."}
    return {
        "/api/v1/events/beacon": {
            "post": {
                "operationId": "beacon",
                "summary": "Send events of one player",
                "description": "A JSON array of 1 to 500 events, at most 1 MiB after decompression (gzip, zstd).",
                "tags": ["Ingestion"],
                "security": security,
                "parameters": [
                    _parameter(
                        "t", "the sender's clock at sending, ms since the epoch; renewed at each retry", "integer"
                    ),
                    _parameter("Prefer", "`return=representation`: 200 with what became of the events", where="header"),
                ],
                "requestBody": {
                    "required": True,
                    "content": {"application/json": {"schema": events}, "text/plain": {"schema": events}},
                },
                "responses": {
                    "200": {
                        "description": "The same, when the request prefers a representation.",
                        "content": {"application/json": {"schema": {"$ref": "#/components/schemas/IngestResult"}}},
                    },
                    "204": accepted,
                    **_problems(
                        "invalid_json", "not_an_array", *_PROBLEMS, "too_many_events", "empty_beacon", "invalid_events"
                    ),
                },
            }
        },
        "/api/v1/events/cmcd": {
            "post": {
                "operationId": "cmcd",
                "summary": "Send CMCD v2 event-mode records",
                "description": "A malformed value is ignored by itself; an unknown version drops its record.",
                "tags": ["Ingestion"],
                "security": security,
                "parameters": [
                    _parameter("channel_id", "where the key is not bound to one channel"),
                    _parameter("player", "the dimension `player` of these records, which name none; 64 characters"),
                ],
                "requestBody": {
                    "required": True,
                    "content": {kind: {"schema": {"type": "string"}} for kind in ("application/cmcd", "text/cmcd")},
                },
                "responses": {
                    "204": accepted,
                    **_problems("invalid_body", *_PROBLEMS, "empty_beacon", "invalid_events"),
                },
            }
        },
    }
