"""What the API answers: shapes as declared, and every error as a problem document."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from io import BytesIO
from typing import Any

import httpx
import msgspec
import pyarrow.parquet as pq
import pytest

from viewmeter.collector.deadletters import DeadLetterWriter, NewLetter
from viewmeter.collector.settings import CollectorSettings
from viewmeter.eventlog.embedded import EmbeddedLogWriter
from viewmeter.model.time import DAY_MS
from viewmeter.query import Analytics, Answer
from viewmeter.web import schemas
from viewmeter.web.replay import Resubmitter
from viewmeter.web.services import Services

from .conftest import NOW, Served, World, changed

QUERY = "/api/v1/analytics/query"
QUESTION = {"metrics": ["plays", "rebuffer_ratio"], "time_range": "24h", "granularity": "hour"}


def shaped(answer: httpx.Response, kind: type[msgspec.Struct]) -> Any:
    """Check the body against the declared shape, unknown members too, and return it."""
    assert answer.status_code == 200, answer.text
    assert answer.headers["content-type"] == "application/json"
    body = answer.json()
    msgspec.convert(body, kind, strict=True)
    assert set(body) <= set(kind.__struct_fields__), f"undeclared members in {kind.__name__}"
    return body


def is_problem(answer: httpx.Response, status: int, code: str) -> dict[str, Any]:
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == "application/problem+json"
    body: dict[str, Any] = answer.json()
    msgspec.convert(body, schemas.ProblemDocument, strict=True)
    assert body["code"] == code
    assert body["type"] == f"/docs/problems/{code}"
    assert body["detail"]
    return body


# Analytics


@pytest.mark.parametrize(
    ("path", "member"),
    [("v1", {"video_id": "v1"}), ("channel/c1", {"channel_id": "c1"}), ("platform", {})],
)
def test_realtime_has_its_shape_and_is_zeros_for_an_id_without_events(
    api: httpx.Client, world: World, path: str, member: dict[str, str]
) -> None:
    body = shaped(api.get(f"/api/v1/analytics/realtime/{path}", headers=world.key("t", "read")), schemas.Realtime)
    assert {k: v for k, v in body.items() if k in ("video_id", "channel_id")} == member
    assert body["concurrent_viewers"] == 0
    assert body["plays_per_minute"] == [0] * 60
    assert body["qoe_score"] is None


def test_realtime_shows_what_is_live(api: httpx.Client, world: World) -> None:
    world.plays("t", "c1", "v1", 4)
    body = shaped(api.get("/api/v1/analytics/realtime/v1", headers=world.key("t", "read")), schemas.Realtime)
    assert (body["concurrent_viewers"], body["plays_last_5m"], body["countries"]) == (4, 4, {"DE": 4})
    assert body["freshness_ms"] == 500


@pytest.mark.parametrize("name", ["a/b", "a//b", "ü x", "50%", "a?b", "channel/x", "-"])
def test_a_video_id_may_hold_any_character_once_it_is_encoded(api: httpx.Client, world: World, name: str) -> None:
    from urllib.parse import quote

    path = f"/api/v1/analytics/realtime/{quote(name, safe='')}"
    if name == "channel/x":
        path = path.replace("%2F", "%252F")
        name = "channel%2Fx"
    assert api.get(path, headers=world.key("t", "read")).json()["video_id"] == name


def test_a_query_answers_the_same_by_body_by_parameters_and_by_get_with_a_body(api: httpx.Client, world: World) -> None:
    world.plays("t", "c1", "v1", 4)
    key = world.key("t", "read")
    parameters = {"metrics": "plays,rebuffer_ratio", "time_range": "24h", "granularity": "hour"}
    by_body = shaped(api.post(QUERY, headers=key, json=QUESTION), schemas.Answer)
    by_parameters = shaped(api.get(QUERY, headers=key, params=parameters), schemas.Answer)
    by_get = shaped(api.request("GET", QUERY, headers=key, json=QUESTION), schemas.Answer)
    repeated = api.get(f"{QUERY}?metrics=plays&metrics=rebuffer_ratio&time_range=24h&granularity=hour", headers=key)
    assert by_body["rows"] == by_parameters["rows"] == by_get["rows"] == repeated.json()["rows"]
    assert len(by_body["rows"]) == 24
    assert sum(row["plays"] for row in by_body["rows"]) == 4
    assert by_body["meta"]["watermark"] == "2026-11-25T11:59:59.500Z"


def test_a_query_comes_as_csv_and_as_parquet_with_the_same_rows(api: httpx.Client, world: World) -> None:
    world.plays("t", "c1", "v1", 4)
    key = world.key("t", "read")
    rows = api.post(QUERY, headers=key, json=QUESTION).json()["rows"]
    csv = api.post(QUERY, headers={**key, "Accept": "text/csv"}, json=QUESTION)
    assert csv.headers["content-type"].startswith("text/csv")
    assert "attachment" in csv.headers["content-disposition"]
    assert len(csv.text.strip().splitlines()) == len(rows) + 1
    parquet = api.post(QUERY, headers={**key, "Accept": "application/vnd.apache.parquet"}, json=QUESTION)
    table = pq.read_table(BytesIO(parquet.content))
    assert table["plays"].to_pylist() == [row["plays"] for row in rows]


def test_a_page_says_where_the_next_one_begins(api: httpx.Client, world: World) -> None:
    for number in range(3):
        world.plays("t", "c1", f"v{number}", 4 - number)
    key = world.key("t", "read")
    question = {"metrics": ["plays"], "time_range": "24h", "dimensions": ["video_id"], "limit": 2}
    first = shaped(api.post(QUERY, headers=key, json=question), schemas.Answer)
    second = api.post(QUERY, headers=key, json={**question, "cursor": first["next_cursor"]}).json()
    assert [row["video_id"] for row in first["rows"] + second["rows"]] == ["v0", "v1", "v2"]
    assert second["next_cursor"] is None
    csv = api.post(QUERY, headers={**key, "Accept": "text/csv"}, json=question)
    assert csv.headers["x-next-cursor"] == first["next_cursor"]


@pytest.mark.parametrize(
    ("question", "status", "code", "hint"),
    [
        ({"time_range": "24h"}, 422, "invalid_query", "metrics"),
        ({"metrics": ["playz"], "time_range": "24h"}, 422, "unknown_metric", "plays"),
        ({"metrics": ["plays"], "time_range": "24h", "dimensions": ["land"]}, 422, "unknown_dimension", ""),
        ({"metrics": ["plays"], "time_range": "soon"}, 422, "invalid_time_range", "24h"),
        ({"metrics": ["plays"], "time_range": "24h", "time_zone": "Mars"}, 422, "invalid_time_zone", ""),
        (
            {"metrics": ["plays"], "time_range": "24h", "dimensions": ["video_id"], "cursor": "x"},
            422,
            "invalid_cursor",
            "",
        ),
        (
            {"metrics": ["peak_concurrent_viewers"], "time_range": "24h", "dimensions": ["country"]},
            422,
            "not_covered",
            "",
        ),
    ],
)
def test_a_query_that_cannot_be_answered_says_why(
    api: httpx.Client, world: World, question: dict[str, object], status: int, code: str, hint: str
) -> None:
    answer = api.post(QUERY, headers=world.key("t", "read"), json=question)
    body = is_problem(answer, status, code)
    assert hint in body["detail"]


@pytest.mark.parametrize(
    ("content", "kind", "status", "code"),
    [
        (b"{nope", "application/json", 400, "invalid_json"),
        (b"", "application/json", 400, "invalid_json"),
        (b"\xff\xfe", "application/json", 400, "invalid_json"),
        (b"[" * 100_000, "application/json", 413, "body_too_large_request"),
        (b"[" * 10_000, "application/json", 400, "invalid_json"),
        (b"[1]", "application/json", 422, "invalid_query"),
        (b"{}", "text/xml", 415, "unsupported_media_type"),
    ],
)
def test_a_body_that_is_no_query_is_refused(
    api: httpx.Client, world: World, content: bytes, kind: str, status: int, code: str
) -> None:
    headers = {**world.key("t", "read"), "Content-Type": kind}
    is_problem(api.post(QUERY, headers=headers, content=content), status, code)


def test_a_format_that_nobody_has_is_406(api: httpx.Client, world: World) -> None:
    answer = api.post(QUERY, headers={**world.key("t", "read"), "Accept": "image/png"}, json=QUESTION)
    is_problem(answer, 406, "not_acceptable")


@pytest.mark.parametrize(("name", "kind"), [("metrics", schemas.Metrics), ("dimensions", schemas.Dimensions)])
def test_the_catalogue_is_paged(api: httpx.Client, world: World, name: str, kind: type[msgspec.Struct]) -> None:
    key = world.key("t", "read")
    whole = shaped(api.get(f"/api/v1/analytics/{name}", headers=key), kind)
    assert whole["next_cursor"] is None
    seen: list[Any] = []
    cursor: str | None = None
    while True:
        more = {} if cursor is None else {"cursor": cursor}
        page = api.get(f"/api/v1/analytics/{name}", headers=key, params={"limit": 5, **more}).json()
        seen += page[name]
        cursor = page["next_cursor"]
        if cursor is None:
            break
    assert seen == whole[name]
    is_problem(api.get(f"/api/v1/analytics/{name}?limit=0", headers=key), 422, "validation_failed")
    is_problem(api.get(f"/api/v1/analytics/{name}?cursor=-1", headers=key), 422, "invalid_cursor")


# Errors of any route


@pytest.mark.parametrize("path", ["/nope", "/api/v1/alerts/rules", "/api/v1/view", "/api/v2", "/schema", "/.env"])
def test_an_address_that_does_not_exist_is_a_404_problem(api: httpx.Client, path: str) -> None:
    is_problem(api.get(path), 404, "not_found")


def test_a_method_that_is_not_supported_is_405_with_allow(api: httpx.Client) -> None:
    answer = api.delete(QUERY)
    is_problem(answer, 405, "method_not_allowed")
    assert "POST" in answer.headers["allow"]


@pytest.mark.parametrize(
    ("path", "methods"),
    [
        (QUERY, "GET, OPTIONS, POST"),
        ("/api/v1/session", "DELETE, GET, OPTIONS, POST"),
        ("/healthz", "GET, HEAD, OPTIONS"),
    ],
)
def test_options_names_every_method_of_an_address(api: httpx.Client, path: str, methods: str) -> None:
    answer = api.options(path)
    assert (answer.status_code, answer.headers["allow"]) == (204, methods)


def test_a_parameter_nested_without_end_is_refused(api: httpx.Client, world: World) -> None:
    search = "metrics=plays&time_range=24h&filters=" + "[" * 5_000
    answer = api.get(f"{QUERY}?{search}", headers=world.key("t", "read"))
    is_problem(answer, 400, "invalid_json")


def test_what_nobody_expected_is_500_with_an_id_and_nothing_internal(
    world: World, start: Callable[[Services], Served]
) -> None:
    class Broken:
        def realtime(self, *_: object) -> dict[str, object]:
            raise RuntimeError("the secret of /var/lib is SELECT *")

    with start(replace(world.services, analytics=Broken())).client() as api:  # type: ignore[arg-type]
        answer = api.get("/api/v1/analytics/realtime/v", headers=world.key("t", "read"))
    body = is_problem(answer, 500, "internal")
    assert body["request_id"] == answer.headers["x-request-id"]
    assert "SELECT" not in answer.text
    assert "/var" not in answer.text


def test_a_request_id_of_a_proxy_is_kept_and_nonsense_is_not(api: httpx.Client) -> None:
    assert api.get("/healthz", headers={"X-Request-ID": "abcdef-123456"}).headers["x-request-id"] == "abcdef-123456"
    assert api.get("/healthz", headers={"X-Request-ID": "a b\tc"}).headers["x-request-id"] != "a b\tc"


class Held(Analytics):
    """Answers nothing new before it is released."""

    def __init__(self, world: World) -> None:
        super().__init__(world.store, world.live)
        self.release, self.waits = threading.Event(), threading.Event()
        self.release.set()

    def query(self, *question: Any, **more: Any) -> Answer:
        if not self.release.is_set():
            self.waits.set()
        assert self.release.wait(30)
        return super().query(*question, **more)


@pytest.fixture
def held(world: World) -> Held:
    return Held(world)


def test_a_query_that_takes_too_long_is_504_and_the_next_one_is_answered(
    world: World, start: Callable[[Services], Served], held: Held
) -> None:
    services = changed(world.services, query_timeout_s=0.05, query_threads=1, waiting_queries=1)
    held.release.clear()
    with start(replace(services, analytics=held)).client() as api:
        key = world.key("t", "read")
        answer = api.post(QUERY, json=QUESTION, headers=key)
        is_problem(answer, 504, "timeout")
        assert "retry-after" in answer.headers
        # Its thread still works: one may wait, and then the queue is full.
        codes = [api.post(QUERY, json=QUESTION, headers=key).json()["code"] for _ in range(2)]
        held.release.set()
        assert set(codes) <= {"timeout", "busy"}
        for _ in range(1_000):
            answer = api.post(QUERY, json=QUESTION, headers=key)
            if answer.status_code == 200:
                break
        assert answer.status_code == 200


def test_kept_answers_and_live_figures_do_not_queue_behind_scans(
    world: World, start: Callable[[Services], Served], held: Held
) -> None:
    services = changed(world.services, query_threads=1, waiting_queries=1)
    served = start(replace(services, analytics=held))
    with served.client() as api, served.client() as other, ThreadPoolExecutor(1) as aside:
        key = world.key("t", "read")
        question = {**QUESTION, "time_range": {"start": NOW - 3 * DAY_MS, "end": NOW - 2 * DAY_MS}}
        first = shaped(api.post(QUERY, json=question, headers=key), schemas.Answer)
        held.release.clear()
        slow = aside.submit(other.post, QUERY, json=QUESTION, headers=key)
        assert held.waits.wait(30)  # it holds the only thread
        again = shaped(api.post(QUERY, json=question, headers=key), schemas.Answer)
        shaped(api.get("/api/v1/analytics/realtime/platform", headers=key), schemas.Realtime)
        assert not slow.done()
        held.release.set()
        shaped(slow.result(30), schemas.Answer)
    assert again["meta"].pop("cached") is True
    assert first["meta"].pop("cached") is False
    assert again == first


# Administration


def test_flush_asks_the_stream_jobs_and_answers_when_they_are_done(api: httpx.Client, world: World) -> None:
    body = shaped(api.post("/api/v1/admin/flush", headers=world.key("t", "admin")), schemas.Flushed)
    assert body["flushed"] is True
    assert world.stream.flushes == 1


def test_a_flush_that_cannot_catch_up_is_504(api: httpx.Client, world: World) -> None:
    def late() -> None:
        raise TimeoutError("2 batches are left")

    world.stream.on_flush = late
    body = is_problem(api.post("/api/v1/admin/flush", headers=world.key("t", "admin")), 504, "timeout")
    assert "2 batches" in body["detail"]


def test_the_pipeline_counts_what_became_of_events_by_tenant(api: httpx.Client, world: World) -> None:
    world.plays("a", "c", "v", 4)
    world.plays("b", "c", "v", 5)
    letter(world, "a")
    mine = shaped(api.get("/api/v1/admin/pipeline", headers=world.key("a", "admin")), schemas.Pipeline)
    assert mine["tenants"] == [
        {
            "tenant": "a",
            "accepted": 40,
            "rejected": 1,
            "duplicate": 0,
            "late": 0,
            "lost": 4,
            "completeness_ratio": 40 / 44,
        }
    ]
    assert {job["job"] for job in mine["jobs"]} == {"concurrent_viewers", "play_counter", "qoe", "geo_heatmap"}
    world.metadata.ensure_tenant("b")
    everything = shaped(api.get("/api/v1/admin/pipeline", headers=world.key("ops", "operator")), schemas.Pipeline)
    assert {row["tenant"]: row["accepted"] for row in everything["tenants"]} == {"a": 40, "b": 50, "ops": 0}
    page = api.get("/api/v1/admin/pipeline?limit=1", headers=world.key("ops", "operator")).json()
    assert (len(page["tenants"]), page["next_cursor"]) == (1, "a")


def letter(world: World, tenant: str, raw: bytes = b'{"type":"dance"}', code: str = "unknown_type") -> str:
    """Write one dead letter of a tenant's ingest key; return its id."""
    key, _ = world.metadata.create_key(tenant, "ingest", ["c1"])
    writer = DeadLetterWriter(world.folder / "dead-letters", 0)
    writer.append([NewLetter(NOW, tenant, key.id, "native", code, "what was wrong", raw)])
    writer.close()
    assert world.services.dead_letters is not None
    return world.services.dead_letters.list(tenant, 1)[0][0].id


def test_dead_letters_are_listed_by_tenant_page_and_reason(api: httpx.Client, world: World) -> None:
    for _ in range(3):
        letter(world, "a")
    letter(world, "a", b"not json", "malformed")
    letter(world, "b")
    key = world.key("a", "admin")
    body = shaped(api.get("/api/v1/admin/dead-letters?limit=3", headers=key), schemas.DeadLetters)
    rest = api.get("/api/v1/admin/dead-letters", headers=key, params={"cursor": body["next_cursor"]}).json()
    assert len(body["dead_letters"] + rest["dead_letters"]) == 4
    assert body["dead_letters"][0]["event"] == "not json"
    assert body["dead_letters"][1]["event"] == {"type": "dance"}
    assert body["dead_letters"][1]["time"] == "2026-11-25T12:00:00Z"
    named = api.get("/api/v1/admin/dead-letters?code=malformed", headers=key).json()["dead_letters"]
    assert [item["code"] for item in named] == ["malformed"]
    assert len(api.get("/api/v1/admin/dead-letters", headers=world.key("o", "operator")).json()["dead_letters"]) == 5
    is_problem(api.get("/api/v1/admin/dead-letters?cursor=zz", headers=key), 422, "invalid_cursor")


GOOD = b'{"type":"play","ts":%d,"view_id":"w","seq":0,"video_id":"v"}' % (NOW - 1_000)


def test_a_replayed_dead_letter_is_in_the_log_and_one_that_is_still_wrong_stays(
    world: World, start: Callable[[Services], Served]
) -> None:
    letters = world.services.dead_letters
    assert letters is not None
    log = world.folder / "log"
    again = Resubmitter(
        lambda: EmbeddedLogWriter(log, 900, lambda: NOW), letters, world.metadata, CollectorSettings(), lambda: NOW
    )
    good, bad, theirs = letter(world, "a", GOOD), letter(world, "a"), letter(world, "b", GOOD)
    with start(replace(world.services, resubmit=again.resubmit)).client() as api:
        answer = api.post(
            "/api/v1/admin/dead-letters/replay", headers=world.key("a", "admin"), json={"ids": [good, bad, theirs, "?"]}
        )
        assert shaped(answer, schemas.Replayed) == {"accepted": 1, "rejected": 1}
        listed = api.get("/api/v1/admin/dead-letters", headers=world.key("a", "admin")).json()["dead_letters"]
    again.close()
    assert {item["id"]: item["replayed_at"] is not None for item in listed} == {good: True, bad: False}
    (batch,) = world.services.log.read({})
    (event,) = batch.events.to_pylist()
    assert (event["tenant_id"], event["channel_id"], event["view_id"]) == ("a", "c1", "w")
    assert (event["received_at"], event["country"]) == (NOW, "unknown")


@pytest.mark.parametrize(
    ("body", "code"),
    [({"ids": []}, "validation_failed"), ({}, "validation_failed"), ({"ids": ["w00-1"]}, "not_ready")],
)
def test_a_replay_that_cannot_be_done_says_why(
    api: httpx.Client, world: World, body: dict[str, object], code: str
) -> None:
    answer = api.post("/api/v1/admin/dead-letters/replay", headers=world.key("a", "admin"), json=body)
    is_problem(answer, 503 if code == "not_ready" else 422, code)


# Operation


def test_health_version_and_readiness_need_no_key(api: httpx.Client) -> None:
    assert shaped(api.get("/healthz"), schemas.Health) == {"status": "ok"}
    assert shaped(api.get("/version"), schemas.Version) == {"version": "9.9.9", "api": "v1"}
    body = shaped(api.get("/readyz"), schemas.Readiness)
    assert body["ready"] is True
    assert {"store", "log", "stream", "metadata"} <= set(body["parts"])
    head = api.head("/healthz")
    assert (head.status_code, head.content) == (200, b"")


def test_until_every_part_is_ready_readyz_is_503_and_names_the_part(
    world: World, start: Callable[[Services], Served]
) -> None:
    missing: list[str | None] = ["replaying 7 batches"]

    def explode() -> str | None:
        raise RuntimeError("/etc/secret")

    checks = {"stream": lambda: missing[0], "broken": explode}
    with start(replace(world.services, checks=checks)).client() as api:
        answer = api.get("/readyz")
        assert answer.status_code == 503
        assert "retry-after" in answer.headers
        parts = answer.json()["parts"]
        assert parts["stream"] == {"ready": False, "detail": "replaying 7 batches"}
        assert parts["store"]["ready"] is True
        assert parts["broken"]["ready"] is False
        assert "secret" not in answer.text
        missing[0] = None
        assert api.get("/readyz").json()["parts"]["stream"]["ready"] is True


def test_prometheus_figures_name_the_engine_and_no_video_channel_or_tenant(api: httpx.Client, world: World) -> None:
    world.plays("tenant-x", "channel-x", "video-x", 3)
    api.get("/api/v1/analytics/realtime/video-x", headers=world.key("tenant-x", "read"))
    answer = api.get("/metrics")
    assert answer.headers["content-type"].startswith("text/plain")
    for name in ("viewmeter_api_requests_total", "viewmeter_watermark_age_seconds", "viewmeter_store_rows"):
        assert f"\n{name}{{" in answer.text
    assert 'route="/api/v1/analytics/realtime/{video_id' in answer.text
    for name in ("video-x", "channel-x", "tenant-x"):
        assert name not in answer.text
