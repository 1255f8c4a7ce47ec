"""Every answer of the ingestion addresses, as data: status, headers, body.

In: a problem's code or the counts of a beacon. Out: `Answer`, ready to be written. Promised: the table of API.md
section 2 and nothing else; browsers may read every answer but that to a forbidden origin; credentials are never
allowed.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final, NamedTuple

import msgspec

from viewmeter.collector.dialects import Rejection
from viewmeter.model.problems import CONTENT_TYPE, problem

Headers = list[tuple[str, str]]

_PREFLIGHT_SECONDS: Final = 86_400
_EXPOSED: Final = ("access-control-expose-headers", "retry-after, ratelimit, ratelimit-policy")
_ANY_ORIGIN: Final = ("access-control-allow-origin", "*")
_JSON: Final = ("content-type", "application/json")
_PROBLEM: Final = ("content-type", CONTENT_TYPE)
ALLOWED_METHODS: Final = "POST, OPTIONS"


class Answer(NamedTuple):
    """What is written to the client. `code` is the problem's code, "" for success."""

    status: int
    headers: Headers
    body: bytes = b""
    code: str = ""


class ProblemError(Exception):
    """A beacon that cannot be taken; `answer` says why."""

    def __init__(self, answer: Answer) -> None:
        super().__init__(answer.code)
        self.answer = answer


def cors(origin: str | None, allowed: Sequence[str]) -> Headers:
    """Return the CORS headers: any origin, or this one where the key has a list that holds it."""
    if not allowed:
        return [_ANY_ORIGIN, _EXPOSED]
    if origin is None or origin not in allowed:
        return [("vary", "origin")]
    return [("access-control-allow-origin", origin), ("vary", "origin"), _EXPOSED]


ANY_ORIGIN: Final[Headers] = [_ANY_ORIGIN, _EXPOSED]
_NO_CONTENT: Final = Answer(204, [_ANY_ORIGIN])


def no_content(headers: Headers) -> Answer:
    """At least one event is accepted and durable. It exposes no header, since it has none that a page could want."""
    return _NO_CONTENT if headers is ANY_ORIGIN else Answer(204, [one for one in headers if one is not _EXPOSED])


def counts(accepted: int, rejected: Sequence[Rejection], headers: Headers) -> Answer:
    """The same, for who asked with `Prefer: return=representation`."""
    body = msgspec.json.encode({"accepted": accepted, "rejected": [_as_error(r) for r in rejected]})
    return Answer(200, [*headers, _JSON, ("preference-applied", "return=representation")], body)


def preflight(headers: Headers) -> Answer:
    """The answer to a browser that asks whether it may send."""
    return Answer(
        204,
        [
            *headers,
            ("access-control-allow-methods", ALLOWED_METHODS),
            ("access-control-allow-headers", "content-type, content-encoding, authorization, prefer"),
            ("access-control-max-age", str(_PREFLIGHT_SECONDS)),
        ],
    )


def refusal(code: str, detail: str, headers: Headers, *, retry_after_s: int | None = None) -> Answer:
    """The problem `code`."""
    return _refusal(code, detail, headers, (), retry_after_s)


def invalid_events(rejected: Sequence[Rejection], headers: Headers) -> Answer:
    """Every event of the beacon is invalid."""
    detail = f"none of the {len(rejected)} events can be accepted; `errors` says of each why"
    return _refusal("invalid_events", detail, headers, [_as_error(r) for r in rejected], None)


def _refusal(
    code: str, detail: str, headers: Headers, errors: Sequence[dict[str, Any]], retry_after_s: int | None
) -> Answer:
    answer = problem(code, detail, errors)
    extra: Headers = [_PROBLEM]
    if retry_after_s is not None:
        extra.append(("retry-after", str(retry_after_s)))
    if code == "method_not_allowed":
        extra.append(("allow", ALLOWED_METHODS))
    if answer.status == 401:
        extra.append(("www-authenticate", 'Bearer realm="viewmeter"'))
    return Answer(answer.status, [*headers, *extra], answer.body(), code)


def _as_error(rejection: Rejection) -> dict[str, Any]:
    return {"index": rejection.index, "code": rejection.code, "detail": rejection.detail}
