"""Routes under /api/v1/admin: flush, the pipeline's figures, dead letters (API.md 5).

In: a caller with admin scope. Out: figures of that caller's tenant; of all tenants for an operator. What
belongs to no tenant (partitions, jobs, damaged batches) is the same for both: it names nobody.
"""

from __future__ import annotations

from typing import Annotated, Any, Final

import msgspec
from litestar import Request, Response
from litestar.params import QueryParameter

from viewmeter.batch.protocol import BatchFailedError
from viewmeter.collector.deadletters import DeadLetter
from viewmeter.metadata.keys import Tenant
from viewmeter.model.time import DAY_MS, HOUR_MS, floor_to, rfc3339
from viewmeter.olap.protocol import Filter, Visible
from viewmeter.query.question import Query
from viewmeter.web import schemas
from viewmeter.web.auth import Caller, caller_of, services_of
from viewmeter.web.endpoint import NOT_JSON, body_as, endpoint, json_answer
from viewmeter.web.problems import ProblemError
from viewmeter.web.services import Services

Ask = Request[Any, Any, Any]

PAGE_DEFAULT: Final = 100
Limit = Annotated[int, QueryParameter(ge=1, le=1_000, description="rows of a page")]
CursorParameter = Annotated[str | None, QueryParameter(description="`next_cursor` of the page before")]
_METRICS: Final = ("events", "duplicate_events", "late_events", "lost_events")
_MAX_DAMAGED: Final = 100


@endpoint(
    "POST", "/api/v1/admin/flush", "flush", "Wait until every acknowledged event is visible",
    scope="admin", answers=schemas.Flushed, tag="Operation", problems=("csrf", "busy", "timeout", "job_failed"),
)  # fmt: skip
async def flush(request: Ask) -> Response[bytes]:
    """Answers when every event acknowledged before the call is in realtime and query answers.

    Closed hours to which late or imported events came are computed again first. Where that takes too long for one
    answer, the detail of the 504 says how many are left. They are computed all the same; call again to wait for them.
    """
    services = services_of(request)
    took_ms = await request.app.state.flushes.run(_flush, services)
    mark = services.watermark_ms()
    return json_answer({"flushed": True, "watermark": _instant(mark), "took_ms": took_ms})


def _flush(services: Services) -> int:
    began_ms = services.clock()
    try:
        services.stream.flush(services.settings.flush_timeout_s)
    except TimeoutError as error:
        raise ProblemError("timeout", str(error) or "The stream jobs did not catch up in time.") from error
    services.store.flush()
    services.live.flush()
    if services.batch is not None:
        _flush_batch(services, began_ms)
    return services.clock() - began_ms


def _flush_batch(services: Services, began_ms: int) -> None:
    """Wait for closed hours that must run again, with the time that is left."""
    assert services.batch is not None
    left_s = services.settings.flush_timeout_s - (services.clock() - began_ms) / 1000
    try:
        services.batch.flush(max(1.0, left_s))
    except TimeoutError as error:
        detail = f"Open hours hold every event acknowledged before; {error}. They run all the same: call again."
        raise ProblemError("timeout", detail) from error
    except BatchFailedError as error:
        raise ProblemError("job_failed", f"{error}.") from error


@endpoint(
    "GET", "/api/v1/admin/pipeline", "pipeline", "Where events are, and what became of them",
    scope="admin", answers=schemas.Pipeline, tag="Operation", problems=("busy", "timeout", "validation_failed"),
)  # fmt: skip
async def pipeline(request: Ask, limit: Limit = PAGE_DEFAULT, cursor: CursorParameter = None) -> Response[bytes]:
    """Accepted, rejected, duplicate, late and lost events by tenant; lag, watermarks, completeness."""
    services, caller = services_of(request), caller_of(request)
    return json_answer(await request.app.state.operations.run(_pipeline, services, caller, limit, cursor))


def _pipeline(services: Services, caller: Caller, limit: int, cursor: str | None) -> dict[str, object]:
    now_ms = services.clock()
    if caller.operator:
        tenants, following = services.metadata.list_tenants(limit, cursor)
    else:
        tenants, following = [caller.key.tenant], None
    figures = services.stream.figures()
    ends = services.log.ends()
    found = [_of_tenant(services, tenant, caller, now_ms) for tenant in tenants]
    distinct, lost = sum(distinct for distinct, _ in found), sum(int(row["lost"]) for _, row in found)  # type: ignore[call-overload]
    return {
        "as_of": rfc3339(now_ms),
        "tenants": [row for _, row in found],
        "completeness_ratio": _completeness(distinct, lost),
        "partitions": [
            {"partition": number, "end_offset": end, "lag_batches": figures.lag_batches.get(number, 0)}
            for number, end in sorted(ends.items())
        ],
        "jobs": [{"job": job, "watermark": _instant(mark)} for job, mark in figures.watermark_ms.items()],
        "waiting_events": figures.waiting_events,
        "damaged": [
            {"partition": partition, "offset": offset, "reason": reason}
            for partition, offset, reason in services.log.damaged()[:_MAX_DAMAGED]
        ],
        "next_cursor": following,
    }


def _of_tenant(services: Services, tenant: Tenant, caller: Caller, now_ms: int) -> tuple[int, dict[str, object]]:
    """Return the tenant's distinct events and its row; over all that the store still holds."""
    channels = None if caller.operator else caller.key.channels
    end_ms = floor_to(now_ms + DAY_MS + HOUR_MS, DAY_MS)  # an event may be minutes ahead of our clock
    whole = Query(0, end_ms, _METRICS, filters=(Filter("is_bot", ("false", "true")),))
    visible, mark = Visible(tenant.id, channels), services.watermark_ms()
    (sums,) = services.analytics.query(whole, visible, now_ms, mark, tenant.time_zone).rows
    distinct, duplicate, late, lost = (int(sums[name]) for name in _METRICS)
    rejected: int | None = None
    if services.dead_letters is not None and channels is None:
        rejected = sum(services.dead_letters.counts_by_reason(tenant.id).values())
    return distinct, {
        "tenant": tenant.id,
        "accepted": distinct + duplicate,
        "rejected": rejected,
        "duplicate": duplicate,
        "late": late,
        "lost": lost,
        "completeness_ratio": _completeness(distinct, lost),
    }


def _completeness(distinct: int, lost: int) -> float | None:
    return distinct / (distinct + lost) if distinct + lost > 0 else None


def _instant(ms: int | None) -> str | None:
    return None if ms is None else rfc3339(ms)


# Dead letters


@endpoint(
    "GET", "/api/v1/admin/dead-letters", "deadLetters", "Rejected events, newest first, each with its reason",
    scope="admin", answers=schemas.DeadLetters, tag="Operation",
    problems=("busy", "timeout", "validation_failed", "invalid_cursor"),
)  # fmt: skip
async def dead_letters(
    request: Ask,
    limit: Limit = PAGE_DEFAULT,
    cursor: CursorParameter = None,
    code: Annotated[str | None, QueryParameter(description="only this reason", max_length=64)] = None,
) -> Response[bytes]:
    """What a beacon's bad events were, and why they were refused."""
    services, caller = services_of(request), caller_of(request)
    return json_answer(
        await request.app.state.operations.run(_dead_letters, services, whole_tenant(caller), limit, cursor, code)
    )


def _dead_letters(
    services: Services, tenant_id: str | None, limit: int, cursor: str | None, code: str | None
) -> dict[str, object]:
    if services.dead_letters is None:
        return {"dead_letters": [], "counts": {}, "next_cursor": None}
    try:
        found, following = services.dead_letters.list(tenant_id, limit, cursor, code)
    except ValueError as error:
        raise ProblemError("invalid_cursor", f"cursor: {error}.") from error
    counts = services.dead_letters.counts_by_reason(tenant_id) if cursor is None else None
    return {"dead_letters": [_letter(letter) for letter in found], "counts": counts, "next_cursor": following}


def _letter(letter: DeadLetter) -> dict[str, object]:
    try:
        event: object = msgspec.json.decode(letter.raw)
    except NOT_JSON:
        event = letter.raw.decode(errors="replace")
    return {
        "id": letter.id,
        "time": rfc3339(letter.received_at),
        "tenant": letter.tenant_id,
        "key_id": letter.key_id,
        "dialect": letter.dialect,
        "code": letter.code,
        "detail": letter.detail,
        "event": event,
        "complete": letter.complete,
        "player": letter.player,
        "replayed_at": _instant(letter.replayed_at),
    }


def whole_tenant(caller: Caller) -> str | None:
    """Return whose dead letters or quality figures the caller sees. A rejected event may name any channel, or none
    that can be read, and a player's figures are of all channels, so a key that is bound to channels sees none of them.
    """
    if not caller.operator and caller.key.channels is not None:
        raise ProblemError(
            "missing_scope",
            "This is of all channels of a tenant, and the key is bound to some. Use one that is not.",
        )
    return caller.tenant_id


@endpoint(
    "POST", "/api/v1/admin/dead-letters/replay", "replayDeadLetters", "Send rejected events through the pipeline again",
    scope="admin", answers=schemas.Replayed, tag="Operation", takes=schemas.ReplayRequest,
    problems=("csrf", "busy", "timeout", "invalid_json", "validation_failed", "not_ready", "log_unavailable",
              "body_too_large_request"),
)  # fmt: skip
async def replay(request: Ask) -> Response[bytes]:
    """After what refused them was repaired: a rule of validation, a clock, a key's channel."""
    services, caller = services_of(request), caller_of(request)
    wanted = body_as(schemas.ReplayRequest, await request.body())
    return json_answer(await request.app.state.operations.run(_replay, services, whole_tenant(caller), wanted.ids))


def _replay(services: Services, tenant_id: str | None, ids: list[str]) -> dict[str, object]:
    if services.dead_letters is None or services.resubmit is None:
        raise ProblemError("not_ready", "This engine has no log of its own to write to; replay is not set up.")
    return dict(services.resubmit(services.dead_letters.replay(ids, tenant_id)))


ROUTES: Final = (flush, pipeline, dead_letters, replay)
