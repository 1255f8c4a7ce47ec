"""Beacons through the whole product: one public port, its settings, its keys, dead letters on their way back."""

from __future__ import annotations

import gzip
import json
import time
from typing import Any

import httpx
import pytest
import zstandard
from running import Product, StartProduct, wait_until

BEACON = "/api/v1/events/beacon"


def event(channel: str, **fields: Any) -> dict[str, Any]:
    now = time.time_ns() // 1_000_000
    return {
        "type": "play",
        "ts": now,
        "view_id": f"{channel} view",
        "seq": 0,
        "video_id": "v",
        "channel_id": channel,
    } | {**fields}


def send(product: Product, body: bytes, **headers: str) -> httpx.Response:
    url = product.base_url + BEACON
    return httpx.post(url, params={"key": product.ingest_key}, content=body, headers=headers, timeout=30)


def test_an_event_that_was_refused_for_its_time_counts_after_its_replay(product: Product) -> None:
    channel = "product-replay"
    early = event(channel, ts=time.time_ns() // 1_000_000 + 5 * 60_000 + 800)
    answer = product.post([early])
    assert (answer.status_code, answer.json()["errors"][0]["code"]) == (422, "ts_in_future")
    admin = f"{product.base_url}/api/v1/admin/dead-letters"

    def letter() -> dict[str, Any]:
        listed = httpx.get(admin, params={"code": "ts_in_future"}, headers=product.headers, timeout=30).json()
        return next(one for one in listed["dead_letters"] if one["event"]["view_id"] == early["view_id"])

    found = letter()
    assert (found["event"]["ts"], found["dialect"], found["complete"]) == (early["ts"], "native", True)
    assert "5 minutes ahead" in found["detail"]

    def replayed() -> bool:
        again = httpx.post(f"{admin}/replay", json={"ids": [found["id"]]}, headers=product.headers, timeout=30)
        assert again.status_code == 200, again.text
        return bool(again.json()["accepted"])

    wait_until("the event's time to be within 5 minutes", replayed)
    assert letter()["replayed_at"] is not None
    product.flush()
    instant = int(early["ts"])
    rows = product.query(
        channel_id=channel,
        metrics=["plays"],
        granularity="total",
        time_range={"start": instant - 600_000, "end": instant + 600_000},
    )
    assert [row["plays"] for row in rows] == [1]


def test_compressed_beacons_and_neighbours_of_bad_events_count(product: Product) -> None:
    channel = "product-bodies"
    for n, (encoding, pack) in enumerate((("gzip", gzip.compress), ("zstd", zstandard.compress))):
        good, bad = event(channel, view_id=f"{channel} {n}"), event(channel, seq="many")
        body = pack(json.dumps([bad, good, {**good, "seq": 1, "colour": "red", "cdn": None}]).encode())
        answer = send(product, body, **{"Content-Encoding": encoding, "Prefer": "return=representation"})
        assert answer.status_code == 200, answer.text
        assert answer.json()["accepted"] == 2
        assert [(one["index"], one["code"]) for one in answer.json()["rejected"]] == [(0, "wrong_type")]
    product.flush()
    assert product.query(channel_id=channel, metrics=["plays"], time_range="24h")[0]["plays"] == 2


@pytest.mark.parametrize(
    "deep", [b"[" * 5_000 + b"]" * 5_000, b'[{"a":' * 5_000 + b"1" + b"}]" * 5_000, b"[" * 100_000]
)
def test_json_that_is_nested_thousands_deep_is_400_and_the_worker_lives(product: Product, deep: bytes) -> None:
    answer = send(product, deep)
    assert (answer.status_code, answer.headers["content-type"]) == (400, "application/problem+json")
    assert answer.json()["code"] == "invalid_json"
    assert product.post([event("product-deep")]).status_code == 204


def test_browsers_of_any_site_may_send_and_read_the_answer(product: Product) -> None:
    site = {"Origin": "https://films.example"}
    asked = {**site, "Access-Control-Request-Method": "POST", "Access-Control-Request-Headers": "content-type"}
    preflight = httpx.options(product.base_url + BEACON, params={"key": product.ingest_key}, headers=asked)
    assert preflight.status_code == 204
    assert "POST" in preflight.headers["access-control-allow-methods"]
    answer = send(product, b"[]", **site)
    assert answer.status_code == 422
    for one in (preflight, answer):
        assert one.headers["access-control-allow-origin"] == "*"
        assert "access-control-allow-credentials" not in one.headers


@pytest.mark.parametrize("who", ["ADDRESS", "KEY"])
def test_a_tiny_rate_limit_by_the_environment_is_answered_429(start_product: StartProduct, who: str) -> None:
    product = start_product("--workers", "1", env={f"VIEWMETER_COLLECTOR__REQUESTS_PER_SECOND_PER_{who}": "1"})
    answers: list[httpx.Response] = []

    def limited() -> bool:
        answers.append(product.post([event("product-rate", seq=len(answers))]))
        return answers[-1].status_code != 204

    wait_until("the limit of 1 request a second", limited)
    assert answers[0].status_code == 204
    assert answers[-1].status_code == 429
    assert answers[-1].json()["code"] == "rate_limited"
    assert int(answers[-1].headers["retry-after"]) >= 1
    assert f'"{who.lower()}";r=0' in answers[-1].headers["ratelimit"]
    assert who.lower() in answers[-1].json()["detail"]
