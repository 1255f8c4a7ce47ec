"""Problems: every error answer of the product as data, and the body it is written as (RFC 9457).

In: a code of `PROBLEMS`, a detail that teaches (what was wrong, where, what would be right), and perhaps a list of
errors. Out: the JSON bytes. Promised: `code` is stable, `type` is the page of the docs that explains it, and a code
that is not in the table cannot be answered. Adding one: a line here; the docs list it from here.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import msgspec

CONTENT_TYPE: Final = "application/problem+json"
TYPE_PREFIX: Final = "/docs/problems/"


@dataclass(frozen=True)
class ProblemKind:
    """One way in which a request can fail. `remedy` is what the docs tell the reader to do."""

    code: str
    status: int
    title: str
    remedy: str

    @property
    def type(self) -> str:
        """The address of the page that explains it."""
        return TYPE_PREFIX + self.code


def _table(*rows: tuple[str, int, str, str]) -> dict[str, ProblemKind]:
    return {code: ProblemKind(code, status, title, remedy) for code, status, title, remedy in rows}


PROBLEMS: Final[dict[str, ProblemKind]] = _table(
    # Ingestion: the body
    ("invalid_json", 400, "The body is not JSON", "Send a JSON array of event objects, in UTF-8."),
    ("not_an_array", 400, "The body is not an array", "Wrap the events in a JSON array, also a single one."),
    ("invalid_encoding", 400, "The body cannot be decompressed",
     "Compress the whole body once, as Content-Encoding says: gzip or zstd."),
    ("invalid_body", 400, "The body cannot be read", "Send the body in the format that the address takes."),
    ("empty_beacon", 422, "The beacon holds no event", "Send at least one event, or nothing at all."),
    ("invalid_events", 422, "No event of the beacon can be accepted",
     "See `errors`: each names the index of an event, a code and what would be right."),
    ("body_too_large", 413, "The body is too large",
     "Send at most 1 MiB after decompression; split the events over several beacons."),
    ("too_many_events", 413, "Too many events in one beacon", "Send at most 500 events a beacon."),
    ("body_timeout", 408, "The body did not arrive in time", "Nothing of it was accepted. Send it again, faster."),
    ("unsupported_content_encoding", 415, "The content encoding is not supported",
     "Send the body as it is, or with Content-Encoding gzip or zstd."),
    ("log_unavailable", 503, "Events cannot be stored now",
     "Nothing of the beacon was accepted. Send it again after Retry-After seconds."),
    ("overloaded", 503, "Too many beacons are waiting",
     "Nothing of the beacon was accepted. Send it again after Retry-After seconds."),
    ("busy", 503, "Too many requests are waiting", "Try again after Retry-After seconds."),
    ("too_many_streams", 503, "Too many live streams are open",
     "Close one, or try again after Retry-After seconds; an operator may raise web.max_streams."),
    ("metadata_unavailable", 503, "Keys cannot be looked up now",
     "Try again after Retry-After seconds; the server's log says why the metadata cannot be read."),
    ("shutting_down", 503, "This server is stopping",
     "Nothing was accepted. Send it again after Retry-After seconds."),
    # Who asks
    ("missing_key", 401, "A key is needed", "Send `Authorization: Bearer KEY`; for ingestion `?key=` works as well."),
    ("invalid_key", 401, "The key is not valid", "Use a key that exists and was not revoked."),
    ("missing_scope", 403, "The key may not do this", "Use a key with the scope that `detail` names."),
    ("origin_not_allowed", 403, "The origin is not allowed for this key",
     "Add the origin to the key's list, or use a key without one."),
    ("rate_limited", 429, "Too many requests", "Wait Retry-After seconds."),
    ("sign_in_link_used", 401, "The sign-in link is not valid any more", "Ask for a new one."),
    ("invalid_session", 401, "The session is over", "Sign in again."),
    ("csrf", 403, "The request does not come from this site",
     "Send it from the dashboard itself, or use a secret key."),
    # What is asked
    ("not_found", 404, "Nothing is here", "Check the address and the id."),
    ("method_not_allowed", 405, "The method is not supported here", "Use a method that the Allow header names."),
    ("not_acceptable", 406, "No such format", "Accept application/json, text/csv or application/vnd.apache.parquet."),
    ("conflict", 409, "The request conflicts with what is there", "See `detail`."),
    ("hour_not_over", 409, "The hour is not over", "Run the job once the interval has ended."),
    ("invalid_request", 400, "The request is not valid", "See `errors`: each names a field and what would be right."),
    ("validation_failed", 422, "The request is not valid", "See `errors`: each names a field and what would be right."),
    ("invalid_query", 422, "The query is not valid", "See `errors`: each names a field and what would be right."),
    ("invalid_time_range", 422, "The time range is not valid",
     "Use RFC 3339 instants, ms since the epoch or a shortcut like 24h; the end is after the start."),
    ("invalid_time_zone", 422, "The time zone is not known", "Use a name of the IANA database, like Europe/Berlin."),
    ("invalid_granularity", 422, "The granularity is not known", "Use minute, 5m, hour, day, week, month or total."),
    ("invalid_cursor", 422, "The cursor is not valid", "Use `next_cursor` of the answer before, with the same query."),
    ("unknown_metric", 422, "The metric is not known", "GET /api/v1/analytics/metrics lists them."),
    ("unknown_dimension", 422, "The dimension is not known", "GET /api/v1/analytics/dimensions lists them."),
    ("invalid_filter", 422, "The filter is not valid", 'Write ["is", dimension, [values]] or "is_not".'),
    ("not_covered", 422, "No rollup covers the query",
     "Leave out a dimension, a filter or a metric as `detail` says, or take a range that the archive still holds."),
    ("too_many_rows", 422, "The answer would be too large", "Take a coarser granularity or a shorter range."),
    ("invalid_rule", 422, "The alert rule is not valid", "See `errors`."),
    ("webhook_not_allowed", 422, "The webhook target is not allowed",
     "Use https and a host whose addresses are public; an operator may allow more."),
    ("body_too_large_request", 413, "The body is too large", "Send less."),
    ("unsupported_media_type", 415, "The content type is not supported",
     "Send application/json (events: text/plain or no Content-Type too; CMCD: application/cmcd or text/cmcd)."),
    ("limit_reached", 422, "A limit is reached", "Delete something first; `detail` names the limit."),
    # The server
    ("timeout", 504, "The answer took too long", "Ask for less, or later."),
    ("not_ready", 503, "The server is starting", "Try again after Retry-After seconds; /readyz says what is missing."),
    ("engine_unavailable", 503, "The engine is not reachable", "Try again after Retry-After seconds."),
    ("job_failed", 500, "The batch job failed",
     "It is tried again by itself; `detail` and GET /api/v1/admin/jobs say why it failed."),
    ("internal", 500, "Something went wrong here", "It is in the server's log; report it if it lasts."),
)  # fmt: skip


@dataclass(frozen=True)
class Problem:
    """One error answer."""

    kind: ProblemKind
    detail: str
    errors: Sequence[Mapping[str, Any]] = ()
    extra: Mapping[str, Any] = field(default_factory=dict)

    @property
    def status(self) -> int:
        """The HTTP status."""
        return self.kind.status

    def as_dict(self) -> dict[str, Any]:
        """Return the members of the body, in the order of RFC 9457."""
        kind = self.kind
        body: dict[str, Any] = {
            "type": kind.type,
            "title": kind.title,
            "status": kind.status,
            "detail": self.detail,
            "code": kind.code,
        }
        if self.errors:
            body["errors"] = list(self.errors)
        body.update(self.extra)
        return body

    def body(self) -> bytes:
        """Return the JSON body."""
        return msgspec.json.encode(self.as_dict())


def problem(code: str, detail: str = "", errors: Sequence[Mapping[str, Any]] = (), **extra: Any) -> Problem:
    """Build the problem `code`. Without a detail the remedy stands there. Raises KeyError for an unlisted code."""
    kind = PROBLEMS[code]
    return Problem(kind, detail or kind.remedy, errors, extra)
