"""The API of the whole product, through its public port: an event goes in, every address tells about it."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from typing import Any

import httpx
import pytest
from running import Product, key, viewmeter, wait_until


def events(channel: str, video: str, views: int = 2) -> list[dict[str, object]]:
    """Views that ask, play for 20 s and go on; the last one jumps over one `seq`."""
    now = time.time_ns() // 1_000_000
    found: list[dict[str, object]] = []
    for number in range(views):
        same = {
            "view_id": f"{channel}-{video}-{number}",
            "video_id": video,
            "channel_id": channel,
            "viewer_id": f"p{number}",
        }
        found += [
            {"type": "request", "ts": now - 21_000, "seq": 0, **same},
            {"type": "play", "ts": now - 20_000, "seq": 1, "startup_ms": 1_000, **same},
            {"type": "heartbeat", "ts": now, "seq": 2 + (number == views - 1), **same},
        ]
    return found


@pytest.fixture
def api(product: Product) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=product.base_url, timeout=60) as client:
        yield client


def pipeline(api: httpx.Client, headers: dict[str, str]) -> dict[str, Any]:
    found: dict[str, Any] = api.get("/api/v1/admin/pipeline", headers=headers).json()
    return found


def test_after_a_flush_every_address_tells_about_an_event(api: httpx.Client, product: Product) -> None:
    assert product.post(events("api-all", "v")).status_code == 204
    assert api.post("/api/v1/admin/flush", headers=product.headers).json()["flushed"] is True
    for path in ("v", "channel/api-all"):
        body = api.get(f"/api/v1/analytics/realtime/{path}", headers=product.headers).json()
        assert body["concurrent_viewers"] >= 2, path
        assert body["plays_last_5m"] >= 2, path
        assert body["watermark"] is not None
    rows = product.query(channel_id="api-all", metrics=["plays", "watch_time_ms", "lost_events"], time_range="24h")
    assert [(row["plays"], row["lost_events"]) for row in rows] == [(2, 1)]
    (mine,) = pipeline(api, product.headers)["tenants"]
    assert mine["tenant"] == "acme"
    assert mine["accepted"] >= 6
    assert mine["lost"] >= 1
    assert 0 < mine["completeness_ratio"] < 1


def test_a_beacon_sent_twice_is_counted_as_duplicates_only(api: httpx.Client, product: Product) -> None:
    beacon = events("api-twice", "v")
    product.post(beacon)
    product.flush()
    before = pipeline(api, product.headers)["tenants"][0]
    product.post(beacon)
    product.flush()
    after = pipeline(api, product.headers)["tenants"][0]
    assert after["duplicate"] - before["duplicate"] >= len(beacon)
    assert product.query(channel_id="api-twice", metrics=["plays"], time_range="24h")[0]["plays"] == 2


def test_a_rejected_event_is_a_dead_letter_of_its_tenant(api: httpx.Client, product: Product) -> None:
    bad = {**events("api-dead", "v")[0], "type": "dance"}
    answer = product.post([bad])
    assert answer.status_code == 422
    other = key(product, "api-stranger", "admin")
    found = api.get("/api/v1/admin/dead-letters?code=unknown_type", headers=product.headers).json()["dead_letters"]
    assert bad["view_id"] in {item["event"]["view_id"] for item in found}
    foreign = api.get("/api/v1/admin/dead-letters", headers=other).json()
    assert foreign == {"counts": {}, "dead_letters": [], "next_cursor": None}


def test_a_key_of_another_tenant_or_channel_sees_zeros(api: httpx.Client, product: Product) -> None:
    product.post(events("api-mine", "private"))
    product.flush()
    question = {"metrics": ["plays"], "time_range": "24h", "video_id": "private", "channel_id": "api-mine"}
    answers = []
    for headers in (key(product, "api-other", "read"), key(product, "Acme", "read", "api-else")):
        rows = api.post("/api/v1/analytics/query", headers=headers, json=question).json()["rows"]
        live = api.get("/api/v1/analytics/realtime/channel/api-mine", headers=headers).json()
        answers.append((rows[0]["plays"], live["concurrent_viewers"]))
    assert answers == [(0, 0), (0, 0)]
    operator = key(product, "api-ops", "operator")
    assert api.post("/api/v1/analytics/query", headers=operator, json=question).json()["rows"][0]["plays"] == 2
    tenants = {row["tenant"] for row in pipeline(api, operator)["tenants"]}
    assert {"acme", "api-ops"} <= tenants


def test_a_revoked_key_is_refused_within_seconds(api: httpx.Client, product: Product) -> None:
    made = viewmeter("keys", "create", "--data", product.data, "--tenant", "Acme", "--scope", "read", "--json")
    entry = json.loads(made.stdout)
    headers = {"Authorization": f"Bearer {entry['key']}"}
    assert api.get("/api/v1/session", headers=headers).status_code == 200
    assert viewmeter("keys", "revoke", entry["id"], "--data", product.data).returncode == 0
    wait_until("the key to be refused", lambda: api.get("/api/v1/session", headers=headers).status_code == 401)


def test_the_live_stream_passes_through_the_public_port_event_by_event(api: httpx.Client, product: Product) -> None:
    product.post(events("api-live", "v"))
    product.flush()
    with api.stream("GET", "/api/v1/live?channel_id=api-live", headers=product.headers) as answer:
        assert answer.headers["content-type"].startswith("text/event-stream")
        lines = answer.iter_lines()
        bodies = [
            json.loads(line.removeprefix("data:"))
            for _, line in zip(range(40), lines, strict=False)
            if line.startswith("data:")
        ]
    assert len(bodies) >= 3
    assert bodies[0]["concurrent_viewers"] >= 2


def test_a_browser_signs_in_reads_and_signs_out(product: Product) -> None:
    origin = {"Origin": product.base_url}
    with httpx.Client(base_url=product.base_url, timeout=60) as browser:
        assert browser.get("/api/v1/session").status_code == 401
        signed = browser.post("/api/v1/session", json={"secret_key": product.secret_key}, headers=origin)
        assert signed.status_code == 200
        assert browser.get("/api/v1/session").json()["tenant"] == "acme"
        question = {"metrics": ["plays"], "time_range": "24h"}
        assert browser.post("/api/v1/analytics/query", json=question, headers=origin).status_code == 200
        foreign = browser.post("/api/v1/analytics/query", json=question, headers={"Origin": "https://evil.example"})
        assert (foreign.status_code, foreign.json()["code"]) == (403, "csrf")
        assert browser.delete("/api/v1/session", headers=origin).status_code == 204
        assert browser.get("/api/v1/session").status_code == 401


@pytest.mark.parametrize("path", ["/nope", "/api/v1/alerts/rules", "/api/v1/analytics/query"])
def test_every_error_through_the_public_port_is_a_problem_document(api: httpx.Client, path: str) -> None:
    answer = api.get(path)
    assert answer.status_code in (401, 404)
    assert answer.headers["content-type"] == "application/problem+json"
    page = api.get(answer.json()["type"])
    assert page.status_code == 200


@pytest.mark.parametrize("path", ["/healthz", "/readyz", "/version", "/metrics", "/openapi.json", "/docs", "/"])
def test_the_operators_addresses_answer_without_a_key(api: httpx.Client, path: str) -> None:
    assert api.get(path).status_code == 200


def test_prometheus_sees_the_workers_and_the_engine_as_one(api: httpx.Client, product: Product) -> None:
    product.post(events("api-metrics", "v"))
    wait_until("the workers' counters", lambda: "viewmeter_events_accepted" in api.get("/metrics").text)
    text = api.get("/metrics").text
    assert "viewmeter_api_requests_total" in text
    assert "api-metrics" not in text
