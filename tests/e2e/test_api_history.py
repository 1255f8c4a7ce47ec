"""History of the whole product, through its public port: an hour is closed, and every address tells of it."""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Iterator
from typing import Any

import httpx
import msgspec
import pytest
from running import Product, key

from viewmeter.model.time import HOUR_MS, floor_to, rfc3339
from viewmeter.web import schemas
from viewmeter.web.view_schemas import View

MINUTE_MS = 60_000


def last_hour() -> int:
    """Return the start of the last hour that is over."""
    return floor_to(time.time_ns() // 1_000_000, HOUR_MS) - HOUR_MS


def watched(channel: str, video: str, number: int, at_ms: int, seconds: int = 40) -> list[dict[str, object]]:
    """One view that plays from the beginning of a film of 100 s to its exit."""
    same = {"view_id": f"{channel}/{video}/{number}", "video_id": video, "channel_id": channel}
    same |= {"viewer_id": f"p{number}", "duration_ms": 100_000}  # type: ignore[dict-item]
    return [
        {"type": "request", "ts": at_ms, "seq": 0, "position_ms": 0, **same},
        {"type": "play", "ts": at_ms + 1_000, "seq": 1, "position_ms": 0, **same},
        {"type": "exit", "ts": at_ms + 1_000 + seconds * 1_000, "seq": 2, "position_ms": seconds * 1_000, **same},
    ]


@pytest.fixture
def api(product: Product) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=product.base_url, timeout=60, headers=product.headers) as client:
        yield client


def run_hour(api: httpx.Client, hour_ms: int) -> schemas.JobRun:
    answer = api.post("/api/v1/admin/jobs/hourly", json={"interval": rfc3339(hour_ms)[:13]})
    assert answer.status_code == 200, answer.text
    return msgspec.convert(answer.json(), schemas.JobRun)


def ask(api: httpx.Client, **body: Any) -> dict[str, Any]:
    answer = api.post("/api/v1/analytics/query", json=body)
    assert answer.status_code == 200, answer.text
    found: dict[str, Any] = answer.json()
    return found


def test_a_closed_hour_tells_of_whole_views_at_every_address(api: httpx.Client, product: Product) -> None:
    hour = last_hour()
    for number in range(4):
        assert product.post(watched("h-all", "film", number, hour + number * MINUTE_MS)).status_code == 204
    product.flush()
    span = {"start": hour, "end": hour + HOUR_MS}
    metrics = ["plays", "watch_time_ms", "average_percentage_watched", "watch_duration_p50_ms", "unique_viewers_exact"]
    run = run_hour(api, hour)
    assert (run.state, run.start) == ("done", rfc3339(hour))
    found = ask(api, channel_id="h-all", metrics=metrics, time_range=span)
    assert found["rows"][0] == {
        "time": rfc3339(hour),
        "plays": 4,
        "watch_time_ms": 160_000,
        "average_percentage_watched": 0.4,
        "watch_duration_p50_ms": 40_000.0,
        "unique_viewers_exact": 4,
    }
    assert found["meta"]["sources"] == ["batch"]
    assert found["meta"]["closed_until"] is None
    curve = api.get("/api/v1/analytics/retention/film", params={"channel_id": "h-all"}).json()
    assert [curve["buckets"][i]["viewers_ratio"] for i in (0, 39, 40, 99)] == [1.0, 1.0, 0.0, 0.0]
    cohorts = api.get("/api/v1/analytics/cohorts", params={"channel_id": "h-all", "weeks": 2}).json()["cohorts"]
    assert sum(c["viewers"] for c in cohorts) == 4
    listed = api.get("/api/v1/admin/jobs", params={"limit": 5, "job": "hourly"}).json()
    assert run.id in [r["id"] for r in listed["runs"]]


def test_an_hour_that_is_not_over_cannot_be_closed(api: httpx.Client) -> None:
    answer = api.post("/api/v1/admin/jobs/hourly", json={"interval": rfc3339(last_hour() + HOUR_MS)[:13]})
    assert (answer.status_code, answer.json()["code"]) == (409, "hour_not_over")


def test_an_event_that_comes_late_is_in_the_closed_hour_after_a_flush(api: httpx.Client, product: Product) -> None:
    hour = last_hour() - HOUR_MS
    product.post(watched("h-late", "film", 0, hour))
    product.flush()
    run_hour(api, hour)
    product.post(watched("h-late", "film", 1, hour + MINUTE_MS))
    product.flush()
    found = ask(api, channel_id="h-late", metrics=["plays"], time_range={"start": hour, "end": hour + HOUR_MS})
    assert (found["rows"][0]["plays"], found["meta"]["sources"]) == (2, ["batch"])


def test_mixed_filters_are_answered_for_open_hours_too(api: httpx.Client, product: Product) -> None:
    now = time.time_ns() // 1_000_000
    product.post(watched("h-mixed", "film", 0, now - 60_000))
    product.flush()
    found = ask(
        api, channel_id="h-mixed", metrics=["plays"], dimensions=["device_type", "cdn", "country"], time_range="1h"
    )
    assert [row["plays"] for row in found["rows"]] == [1]
    assert "archive" in found["meta"]["sources"]


def test_a_view_is_told_to_its_tenant_and_channel_alone(api: httpx.Client, product: Product) -> None:
    product.post(watched("h-view", "film", 7, time.time_ns() // 1_000_000 - 60_000))
    product.flush()
    path = "/api/v1/views/h-view%2Ffilm%2F7"
    answer = api.get(path)
    assert answer.status_code == 200, answer.text
    told = msgspec.convert(answer.json(), View)
    assert (told.view_id, told.video_id, told.ended_by) == ("h-view/film/7", "film", "exit")
    assert [e.type for e in told.events] == ["request", "play", "exit"]
    assert {v.measure: v.count for v in told.counted}["plays"] == 1
    unknown = api.get("/api/v1/views/nobody").json()
    for headers in (key(product, "other", "read"), key(product, "acme", "read", "another-channel")):
        foreign = api.get(path, headers=headers)
        assert foreign.status_code == 404
        assert {**foreign.json(), "request_id": None} == {**unknown, "request_id": None}
    assert api.get(path, headers=key(product, "acme", "read", "h-view")).status_code == 200
    assert api.get(path, headers=key(product, "other", "operator")).status_code == 200


def test_what_views_tell_of_themselves_adds_up_to_the_analytics_of_their_hour(
    api: httpx.Client, product: Product
) -> None:
    hour = last_hour() - 3 * HOUR_MS
    told: dict[str, list[tuple[int, float, str, dict[str, object]]]] = {
        "stall": [(0, 0, "request", {}), (1, 0.82, "play", {"startup_ms": 820, "bitrate_kbps": 2_400}),
                  (2, 11, "buffer", {}), (3, 13, "play", {}), (4, 43.5, "complete", {})],
        "counts": [(2, 0, "heartbeat", {"played_ms": 30_000}), (3, 30, "heartbeat", {"played_ms": 20_000}),
                   (6, 60, "exit", {"played_ms": 61_200})],
        "fails": [(0, 0, "request", {}), (1, 2, "error", {"fatal": True, "error_code": "E7"})],
        "leaves": [(0, 0, "request", {})],
        "is silent": [(0, 0, "play", {}), (1, 30, "seek", {}), (2, 31, "play", {}), (3, 700, "pause", {})],
    }  # fmt: skip
    for view, events in told.items():
        same = {"view_id": f"h-told {view}", "video_id": "told", "channel_id": "h-told", "viewer_id": view}
        sent = [{"seq": n, "ts": hour + int(at * 1000), "type": kind, **same, **more} for n, at, kind, more in events]
        assert (
            product.post([*sent[1:], sent[0], sent[-1]]).status_code == 204
        )  # in another order, and one of them twice
    product.flush()
    run_hour(api, hour)
    sums: Counter[str] = Counter()
    for view in told:
        view_sums = msgspec.convert(api.get(f"/api/v1/views/h-told%20{view}").json(), View)
        changed = Counter(view_sums.changed_by_silence)
        for event in view_sums.events:
            changed.update(event.changed)
        assert dict(changed) == view_sums.measures
        assert view_sums.duplicate_events == 1
        sums.update(changed)
    same_named = ["attempts", "plays", "completes", "failures", "exits_before_start", "events", "lost_events"]
    same_named += ["rebuffer_count", "seeks", "pauses"]
    found = ask(
        api,
        channel_id="h-told",
        metrics=[*same_named, "watch_time_ms", "startup_time_avg_ms", "rebuffer_ratio", "engagement_rate"],
        time_range={"start": hour, "end": hour + HOUR_MS},
        granularity="total",
    )
    assert found["meta"]["sources"] == ["batch"]
    row = found["rows"][0]
    assert {name: row[name] for name in same_named} == {name: sums[name] for name in same_named}
    assert row["watch_time_ms"] == sums["played_ms"] > 0
    assert row["startup_time_avg_ms"] == sums["startup_ms"] / sums["startups"]
    assert row["rebuffer_ratio"] == sums["rebuffered_ms"] / (sums["played_ms"] + sums["rebuffered_ms"]) > 0
    assert row["engagement_rate"] == sums["engaged_views"] / sums["plays"]


def test_no_answer_shows_an_hour_twice_or_not_at_all_while_jobs_run(api: httpx.Client, product: Product) -> None:
    """Events of one hour come, then jobs close and repeat it over and over: the count never moves."""
    hour = last_hour() - 2 * HOUR_MS
    for number in range(20):
        product.post(watched("h-seam", "film", number, hour + number * MINUTE_MS))
    product.flush()
    stop, problems = threading.Event(), list[str]()

    def jobs() -> None:
        with httpx.Client(base_url=product.base_url, timeout=60, headers=product.headers) as client:
            for number in range(6):
                run_hour(client, hour)
                # Another channel's late event makes the hour stale, so that it is replaced by itself as well.
                product.post(watched("h-noise", "film", number, hour + number * MINUTE_MS))
        stop.set()

    worker = threading.Thread(target=jobs)
    worker.start()
    asked, start = 0, hour - HOUR_MS
    while not stop.is_set() or asked < 20:
        number = asked % 3
        body = {
            "channel_id": "h-seam",
            "metrics": ["plays", "watch_time_ms", "unique_viewers"],
            "time_range": {"start": start - asked * MINUTE_MS, "end": hour + 2 * HOUR_MS},
            "granularity": ("total", "hour", "5m")[number],
        }
        found = ask(api, **body)
        totals = tuple(sum(row[name] for row in found["rows"]) for name in ("plays", "watch_time_ms"))
        if totals != (20, 800_000):
            problems.append(f"{totals} of {found['meta']}")
        asked += 1
    worker.join()
    assert not problems, problems[:3]
    assert asked >= 20


def test_the_pipeline_counts_events_of_closed_hours_too(api: httpx.Client, product: Product) -> None:
    def accepted() -> int:
        (mine,) = api.get("/api/v1/admin/pipeline").json()["tenants"]
        count: int = mine["accepted"]
        return count

    hour = last_hour() - 3 * HOUR_MS
    product.flush()  # other tests may have posted without waiting
    before = accepted()
    product.post(watched("h-pipeline", "film", 0, hour))
    product.flush()
    assert accepted() == before + 3
    run_hour(api, hour)
    assert accepted() == before + 3
