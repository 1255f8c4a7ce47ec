"""Curves, cohorts and batch jobs over HTTP: their shapes, who sees what, and what is refused."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import Any

import httpx
import msgspec
import pytest

from viewmeter.batch.protocol import BatchFailedError, BatchFigures, HourNotOverError
from viewmeter.model.time import HOUR_MS, Interval, floor_to
from viewmeter.olap.protocol import HourKeptError, HourRun, JobRun
from viewmeter.testing.contracts.facts import DAY, HOUR, T0, Fact, fact, hours_of
from viewmeter.web import schemas
from viewmeter.web.services import Services

from .conftest import NOW, Served, World

LAST_HOUR = floor_to(NOW, HOUR_MS) - HOUR_MS
AGO = LAST_HOUR - T0


class Jobs:
    """Batch jobs whose events are facts: a run puts their rows into the real store, and notes itself there."""

    def __init__(self, world: World, *facts: Fact) -> None:
        self.store, self.facts = world.store, facts
        self.failure: Exception | None = None
        self.flushed: list[float] = []

    def run_hour(self, hour_ms: int) -> JobRun:
        if self.failure is not None:
            raise self.failure
        if hour_ms + HOUR_MS > NOW:
            raise HourNotOverError(Interval(hour_ms, hour_ms + HOUR_MS), hour_ms + HOUR_MS)
        rows, viewers = hours_of([f for f in self.facts if hour_ms <= f.at_ms < hour_ms + HOUR_MS])
        self.store.put_hour(hour_ms, rows, viewers.drop_columns("hour_ms"), HourRun(1, 0, NOW))
        return self._noted("hourly", Interval(hour_ms, hour_ms + HOUR_MS))

    def run_day(self, day_ms: int) -> JobRun:
        for hour in range(24):
            self.run_hour(day_ms + hour * HOUR_MS)
        return self._noted("daily", Interval(day_ms, day_ms + DAY))

    def _noted(self, job: str, interval: Interval) -> JobRun:
        run = JobRun(job, interval, NOW, NOW + 250, "done", 7, {"differences": {"plays": [1, 2]}, "events": 9})
        return replace(run, number=self.store.note_run(run))

    def flush(self, timeout_s: float = 30.0) -> None:
        self.flushed.append(timeout_s)
        if self.failure is not None:
            raise self.failure

    def figures(self) -> BatchFigures:
        return BatchFigures(LAST_HOUR, 1, 2, None, None)

    def history(self, limit: int = 100, before: int | None = None, job: str | None = None) -> Sequence[JobRun]:
        return self.store.runs(limit, before, job)


def runs(percent: int, until: int, **words: Any) -> list[Fact]:
    view = {"content_views": 1, "content_ms": 100_000, "plays": 1}
    return [
        fact(AGO, retention_delta=1, percent=str(percent), **words),
        fact(AGO, retention_delta=-1, percent=str(until), **words),
        fact(AGO, viewer=1, **view, **words),
    ]


@pytest.fixture
def jobs(world: World) -> Jobs:
    return Jobs(
        world,
        *runs(0, 50, tenant_id="acme", channel_id="c1", video_id="a/b"),
        *runs(0, 20, tenant_id="other", channel_id="c1", video_id="a/b"),
    )


@pytest.fixture
def api(world: World, jobs: Jobs, start: Callable[[Services], Served]) -> Iterator[httpx.Client]:
    world.services = replace(world.services, batch=jobs)  # type: ignore[arg-type] - the half that the API uses
    with start(world.services).client() as client:
        yield client


def problem(answer: httpx.Response) -> tuple[int, str]:
    assert answer.headers["content-type"] == "application/problem+json"
    return answer.status_code, answer.json()["code"]


def test_an_hourly_job_answers_when_its_rows_are_in_the_store(api: httpx.Client, world: World) -> None:
    admin, read = world.key("acme", "admin"), world.key("acme", "read")
    hour = "2026-11-25T11"
    query = {"metrics": "plays", "start": hour + ":00Z", "end": "2026-11-25T12:00Z"}
    assert api.get("/api/v1/analytics/query", params=query, headers=read).json()["rows"][0]["plays"] == 0
    answer = api.post("/api/v1/admin/jobs/hourly", json={"interval": hour}, headers=admin)
    assert answer.status_code == 200
    made = msgspec.convert(answer.json(), schemas.JobRun)
    assert (made.job, made.state, made.start, made.rows, made.took_ms) == ("hourly", "done", f"{hour}:00:00Z", 7, 250)
    assert made.differences == {"plays": [1, 2]}
    assert made.details == {"events": 9}
    found = api.get("/api/v1/analytics/query", params=query, headers=read).json()
    assert (found["rows"][0]["plays"], found["meta"]["sources"]) == (1, ["batch"])


@pytest.mark.parametrize(
    ("job", "interval", "status", "code"),
    [
        ("hourly", "2026-11-25T12", 409, "hour_not_over"),
        ("daily", "2026-11-25", 409, "hour_not_over"),
        ("hourly", "2026-11-25T10:30", 422, "validation_failed"),
        ("daily", "2026-11-25T10", 422, "validation_failed"),
        ("hourly", "yesterday", 422, "validation_failed"),
        ("hourly", "9999-99-99", 422, "validation_failed"),
        ("weekly", "2026-11-25", 422, "validation_failed"),
    ],
)
def test_a_job_that_cannot_run_says_why(
    api: httpx.Client, world: World, job: str, interval: str, status: int, code: str
) -> None:
    answer = api.post(f"/api/v1/admin/jobs/{job}", json={"interval": interval}, headers=world.key("acme", "admin"))
    assert problem(answer) == (status, code)


def test_a_failed_job_and_an_hour_without_events_are_told_apart(api: httpx.Client, world: World, jobs: Jobs) -> None:
    admin, body = world.key("acme", "admin"), {"interval": "2026-11-25T11"}
    jobs.failure = HourKeptError("its rows come from no log")
    assert problem(api.post("/api/v1/admin/jobs/hourly", json=body, headers=admin)) == (409, "conflict")
    jobs.failure = BatchFailedError("the disk is full")
    failed = api.post("/api/v1/admin/jobs/hourly", json=body, headers=admin)
    assert problem(failed) == (500, "job_failed")
    assert "the disk is full" in failed.json()["detail"]
    assert problem(api.post("/api/v1/admin/flush", headers=admin)) == (500, "job_failed")
    jobs.failure = None
    assert api.post("/api/v1/admin/flush", headers=admin).status_code == 200
    assert len(jobs.flushed) == 2


def test_jobs_are_listed_newest_first_and_paged(api: httpx.Client, world: World, jobs: Jobs) -> None:
    admin = world.key("acme", "admin")
    for hour in (9, 10, 11):
        jobs.run_hour(LAST_HOUR - (11 - hour) * HOUR)
    first = api.get("/api/v1/admin/jobs", params={"limit": 2}, headers=admin).json()
    page = msgspec.convert(first, schemas.Jobs)
    assert [run.start[11:13] for run in page.runs] == ["11", "10"]
    assert (page.closed_until, page.due, page.stale) == ("2026-11-25T11:00:00Z", 1, 2)
    second = api.get("/api/v1/admin/jobs", params={"limit": 2, "cursor": first["next_cursor"]}, headers=admin).json()
    assert [run["start"][11:13] for run in second["runs"]] == ["09"]
    assert second["next_cursor"] is None
    assert api.get("/api/v1/admin/jobs", params={"job": "daily"}, headers=admin).json()["runs"] == []
    assert problem(api.get("/api/v1/admin/jobs", params={"cursor": "x"}, headers=admin)) == (422, "invalid_cursor")
    assert problem(api.get("/api/v1/admin/jobs", headers=world.key("acme", "read"))) == (403, "missing_scope")


def test_an_engine_without_jobs_says_so(world: World, start: Callable[[Services], Served]) -> None:
    with start(world.services).client() as client:
        assert problem(client.get("/api/v1/admin/jobs", headers=world.key("acme", "admin"))) == (503, "not_ready")


def test_retention_has_its_shape_and_shows_ones_own_views_alone(api: httpx.Client, world: World, jobs: Jobs) -> None:
    jobs.run_hour(LAST_HOUR)

    def ask(key: dict[str, str], video: str = "a%2Fb", **parameters: str) -> dict[str, Any]:
        answer = api.get(f"/api/v1/analytics/retention/{video}", params=parameters, headers=key)
        assert answer.status_code == 200, answer.text
        found: dict[str, Any] = answer.json()
        msgspec.convert(found, schemas.Retention)
        return found

    mine = ask(world.key("acme", "read"))
    assert mine["video_id"] == "a/b"
    assert [mine["buckets"][i]["viewers_ratio"] for i in (0, 20, 49, 50)] == [1.0, 1.0, 1.0, 0.0]
    assert mine["buckets"][10]["seconds"] == 10.0
    assert mine["meta"]["closed_until"] is None  # nothing happened in the hours of the 30 days that were never closed
    assert ask(world.key("acme", "read"), time_range="1h")["meta"]["sources"] == ["batch"]
    theirs = ask(world.key("other", "read"))
    assert [theirs["buckets"][i]["viewers_ratio"] for i in (0, 19, 20)] == [1.0, 1.0, 0.0]
    everybody = ask(world.key("acme", "operator"))
    assert [everybody["buckets"][i]["viewers_ratio"] for i in (0, 30, 50)] == [1.0, 0.5, 0.0]
    foreign = ask(world.key("acme", "read", channels=["c2"]))
    unknown = ask(world.key("acme", "read", channels=["c2"]), "nothing")
    assert foreign["buckets"] == unknown["buckets"]
    assert foreign["views"] == unknown["views"] == 0
    by_country = ask(world.key("acme", "read"), filters='[["is","country",["DE"]]]')
    assert by_country["views"] == 0


@pytest.mark.parametrize(
    ("parameters", "code"),
    [
        ({"granularity": "day"}, "invalid_query"),
        ({"time_range": "soon"}, "invalid_time_range"),
        ({"filters": '[["is","cdn",["k"]]]'}, "not_covered"),
        ({"filters": "[" * 20_000}, "invalid_filter"),
        ({"time_zone": "Mars"}, "invalid_time_zone"),
    ],
)
def test_retention_refuses_what_it_is_not_kept_by(
    api: httpx.Client, world: World, parameters: dict[str, str], code: str
) -> None:
    answer = api.get("/api/v1/analytics/retention/v1", params=parameters, headers=world.key("acme", "read"))
    assert problem(answer) == (422, code)


def test_cohorts_have_their_shape_and_show_ones_own_viewers_alone(api: httpx.Client, world: World, jobs: Jobs) -> None:
    jobs.run_hour(LAST_HOUR)

    def ask(key: dict[str, str], **parameters: Any) -> list[dict[str, Any]]:
        answer = api.get("/api/v1/analytics/cohorts", params=parameters, headers=key)
        assert answer.status_code == 200, answer.text
        msgspec.convert(answer.json(), schemas.Cohorts)
        found: list[dict[str, Any]] = answer.json()["cohorts"]
        return found

    mine = ask(world.key("acme", "read"))
    assert len(mine) == 12
    assert mine[-1] == {"week": "2026-11-23T00:00:00Z", "viewers": 1, "returned": []}
    assert [len(c["returned"]) for c in mine] == [*range(11, -1, -1)]
    assert ask(world.key("acme", "read"), channel_id="c1", weeks=1)[0]["viewers"] == 1
    assert ask(world.key("acme", "read", channels=["c2"]), channel_id="c1", weeks=1)[0]["viewers"] == 0
    assert ask(world.key("nobody", "read"), weeks=1)[0]["viewers"] == 0
    bad = api.get("/api/v1/analytics/cohorts", params={"weeks": 53}, headers=world.key("acme", "read"))
    assert problem(bad) == (422, "validation_failed")


def test_prometheus_tells_where_the_batch_jobs_stand(api: httpx.Client) -> None:
    body = api.get("/metrics").text
    assert "viewmeter_batch_due_hours 1.0" in body
    assert "viewmeter_batch_stale_hours 2.0" in body
    assert "viewmeter_batch_failing 0.0" in body
    assert f"viewmeter_batch_open_seconds {(NOW - LAST_HOUR) / 1000}" in body
