"""Routes of the batch jobs: run one now, and what has run (API.md 5).

In: a caller with admin scope. Out: runs with rows and differences to the speed layer. A job is of all tenants, and its
figures name nobody; so they are the same for whoever may ask.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from typing import Annotated, Any, Final, Literal

from litestar import Request, Response
from litestar.params import PathParameter, QueryParameter

from viewmeter.batch.protocol import BatchFailedError, BatchJobs, HourGoneError, HourNotOverError
from viewmeter.model.time import DAY_MS, HOUR_MS, rfc3339, to_ms
from viewmeter.olap.protocol import HourDroppedError, HourKeptError, JobRun
from viewmeter.web import schemas
from viewmeter.web.admin import PAGE_DEFAULT, CursorParameter, Limit
from viewmeter.web.auth import services_of
from viewmeter.web.endpoint import body_as, endpoint, json_answer
from viewmeter.web.problems import ProblemError
from viewmeter.web.services import Services

Ask = Request[Any, Any, Any]
Job = Literal["hourly", "daily"]

_LENGTHS: Final = {"hourly": HOUR_MS, "daily": DAY_MS}
_EXAMPLES: Final = {"hourly": "2026-11-25T10", "daily": "2026-11-25"}


@endpoint(
    "POST", "/api/v1/admin/jobs/{job:str}", "runJob", "Run a batch job now",
    scope="admin", answers=schemas.JobRun, tag="Operation", takes=schemas.JobRequest,
    problems=("csrf", "busy", "timeout", "invalid_json", "validation_failed", "hour_not_over", "conflict", "not_found",
              "not_ready", "job_failed", "body_too_large_request"),
)  # fmt: skip
async def run(request: Ask, job: Annotated[Job, PathParameter(description="`hourly` or `daily`")]) -> Response[bytes]:
    """Answers when the rows are in the store. Running an interval again replaces its rows with the same ones."""
    wanted = body_as(schemas.JobRequest, await request.body())
    start_ms = _start_of(job, wanted.interval)
    jobs = _jobs(services_of(request))
    work = jobs.run_hour if job == "hourly" else jobs.run_day
    return json_answer(_told(await request.app.state.jobs.run(_run, work, start_ms)))


def _run(work: Callable[[int], JobRun], start_ms: int) -> JobRun:
    try:
        return work(start_ms)
    except HourNotOverError as error:
        raise ProblemError("hour_not_over", f"interval: {error}.") from error
    except (HourGoneError, HourDroppedError, HourKeptError) as error:
        raise ProblemError("conflict", f"interval: {error}.") from error
    except BatchFailedError as error:
        raise ProblemError("job_failed", f"{error}.") from error


def _start_of(job: Job, text: str) -> int:
    """Return the start of the interval in ms. Raises `ProblemError` for anything but a whole hour (day) of UTC."""
    try:
        moment = datetime.fromisoformat(text)
        at_ms = to_ms(moment if moment.tzinfo else moment.replace(tzinfo=UTC))
    except (ValueError, OverflowError):
        at_ms = -1
    if at_ms < 0 or at_ms % _LENGTHS[job]:
        what = "an hour" if job == "hourly" else "a day"
        detail = f"interval: {text[:40]!r} is no start of {what} in UTC; write it like {_EXAMPLES[job]}."
        raise ProblemError("validation_failed", detail, [{"field": "interval", "detail": detail}])
    return at_ms


@endpoint(
    "GET", "/api/v1/admin/jobs", "listJobs", "Batch jobs: where they stand, and their runs",
    scope="admin", answers=schemas.Jobs, tag="Operation",
    problems=("busy", "timeout", "validation_failed", "invalid_cursor", "not_ready"),
)  # fmt: skip
async def jobs(
    request: Ask,
    limit: Limit = PAGE_DEFAULT,
    cursor: CursorParameter = None,
    job: Annotated[
        Literal["hourly", "daily", "weekly", "monthly"] | None, QueryParameter(description="only this job")
    ] = None,
) -> Response[bytes]:
    """Each run with its rows, and by how much the speed layer had said otherwise."""
    return json_answer(await request.app.state.operations.run(_list, _jobs(services_of(request)), limit, cursor, job))


def _list(jobs: BatchJobs, limit: int, cursor: str | None, job: str | None) -> dict[str, object]:
    before = None
    if cursor is not None:
        if not (cursor.isascii() and cursor.isdigit() and len(cursor) <= 18):
            raise ProblemError("invalid_cursor", "Send `next_cursor` of the page before as `cursor`, unchanged.")
        before = int(cursor)
    found = jobs.history(limit + 1, before, job)
    figures = jobs.figures()
    closed = figures.closed_until_ms
    return {
        "closed_until": None if closed is None else rfc3339(closed),
        "due": figures.due,
        "stale": figures.stale,
        "running": figures.running,
        "problem": figures.problem,
        "runs": [_told(run) for run in found[:limit]],
        "next_cursor": str(found[limit - 1].number) if len(found) > limit else None,
    }


def _told(run: JobRun) -> dict[str, object]:
    details = dict(run.details)
    return {
        "id": run.number,
        "job": run.job,
        "start": rfc3339(run.interval.start_ms),
        "end": rfc3339(run.interval.end_ms),
        "state": run.state,
        "began_at": rfc3339(run.began_ms),
        "ended_at": rfc3339(run.ended_ms),
        "took_ms": run.ended_ms - run.began_ms,
        "rows": run.rows,
        "differences": details.pop("differences", {}),
        "details": details,
    }


def _jobs(services: Services) -> BatchJobs:
    if services.batch is None:
        raise ProblemError("not_ready", "This engine runs no batch jobs.")
    return services.batch


ROUTES: Final = (run, jobs)
