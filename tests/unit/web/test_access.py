"""Who may ask what: keys, scopes, sessions, and what belongs to somebody else."""

from __future__ import annotations

from collections.abc import Callable

import httpx
import pytest

from viewmeter.web.services import Services

from .conftest import Served, World

READS = (
    "/api/v1/analytics/realtime/v1",
    "/api/v1/analytics/metrics",
    "/api/v1/analytics/query?metrics=plays&time_range=24h",
)
ADMIN = ("/api/v1/admin/pipeline", "/api/v1/admin/dead-letters", "/api/v1/admin/quality")
QUESTION = {"metrics": ["plays"], "time_range": "24h"}
QUERY = "/api/v1/analytics/query"


@pytest.mark.parametrize("path", [*READS, *ADMIN, "/api/v1/live", "/api/v1/session"])
def test_without_a_key_the_answer_is_401_and_says_how_to_send_one(api: httpx.Client, path: str) -> None:
    answer = api.get(path)
    assert answer.status_code == 401
    assert answer.headers["www-authenticate"].startswith("Bearer")
    assert answer.headers["content-type"] == "application/problem+json"
    assert answer.json()["code"] == "missing_key"


@pytest.mark.parametrize("header", ["Bearer sk_" + "a" * 32, "Bearer nonsense", "Basic abc", "Bearer", "sk_x"])
def test_a_key_that_does_not_exist_is_401(api: httpx.Client, header: str) -> None:
    answer = api.get(READS[0], headers={"Authorization": header})
    assert (answer.status_code, answer.json()["code"]) == (401, "invalid_key")


def test_a_revoked_key_is_401(api: httpx.Client, world: World) -> None:
    key, text = world.metadata.create_key("t", "read")
    headers = {"Authorization": f"Bearer {text}"}
    assert api.get(READS[0], headers=headers).status_code == 200
    world.metadata.revoke_key(key.id)
    world.services.directory.refresh()
    assert api.get(READS[0], headers=headers).status_code == 401


@pytest.mark.parametrize("path", READS)
@pytest.mark.parametrize("scope", ["ingest", "rules", "admin"])
def test_reading_needs_scope_read(api: httpx.Client, world: World, path: str, scope: str) -> None:
    answer = api.get(path, headers=world.key("t", scope))  # type: ignore[arg-type]
    assert (answer.status_code, answer.json()["code"]) == (403, "missing_scope")


@pytest.mark.parametrize("path", ADMIN)
@pytest.mark.parametrize("scope", ["ingest", "read", "rules"])
def test_administration_needs_scope_admin(api: httpx.Client, world: World, path: str, scope: str) -> None:
    answer = api.get(path, headers=world.key("t", scope))  # type: ignore[arg-type]
    assert (answer.status_code, answer.json()["code"]) == (403, "missing_scope")


@pytest.mark.parametrize("path", [*READS, *ADMIN])
def test_an_operator_key_may_read_and_administer(api: httpx.Client, world: World, path: str) -> None:
    assert api.get(path, headers=world.key("t", "operator")).status_code == 200


# What belongs to somebody else


def rows(api: httpx.Client, headers: dict[str, str], **more: object) -> list[dict[str, object]]:
    answer = api.post(QUERY, headers=headers, json={**QUESTION, **more})
    assert answer.status_code == 200, answer.text
    found: list[dict[str, object]] = answer.json()["rows"]
    return found


def test_an_id_of_another_tenant_answers_exactly_like_one_that_does_not_exist(api: httpx.Client, world: World) -> None:
    world.plays("mine", "c", "v", 3)
    world.plays("theirs", "c", "secret", 5)
    key = world.key("mine", "read")
    for there, nowhere in (("secret", "nothing"), ("channel/c2", "channel/c3")):
        bodies = []
        for name in (there, nowhere):
            body = api.get(f"/api/v1/analytics/realtime/{name}", headers=key).json()
            bodies.append({k: v for k, v in body.items() if k not in ("video_id", "channel_id")})
        assert bodies[0] == bodies[1]
        assert bodies[0]["concurrent_viewers"] == 0
    assert rows(api, key, video_id="secret") == rows(api, key, video_id="nothing")
    assert rows(api, key)[0]["plays"] == 3


def test_the_same_video_id_of_two_tenants_is_two_videos(api: httpx.Client, world: World) -> None:
    world.plays("a", "c", "v", 3)
    world.plays("b", "c", "v", 5)
    for tenant, plays in (("a", 3), ("b", 5)):
        key = world.key(tenant, "read")
        assert rows(api, key, video_id="v")[0]["plays"] == plays
        assert api.get("/api/v1/analytics/realtime/v", headers=key).json()["concurrent_viewers"] == plays


def test_a_key_bound_to_a_channel_sees_that_channel_only(api: httpx.Client, world: World) -> None:
    world.plays("t", "mine", "v", 3)
    world.plays("t", "other", "v", 5)
    key = world.key("t", "read", "admin", channels=["mine"])
    assert rows(api, key)[0]["plays"] == 3
    assert rows(api, key, channel_id="other")[0]["plays"] == 0
    assert api.get("/api/v1/analytics/realtime/v", headers=key).json()["concurrent_viewers"] == 3
    assert api.get("/api/v1/analytics/realtime/platform", headers=key).json()["concurrent_viewers"] == 3
    (row,) = api.get("/api/v1/admin/pipeline", headers=key).json()["tenants"]
    assert (row["accepted"], row["rejected"]) == (30, None)
    assert api.get("/api/v1/admin/dead-letters", headers=key).status_code == 403


def test_an_operator_sees_all_tenants(api: httpx.Client, world: World) -> None:
    world.plays("a", "c", "v", 3)
    world.plays("b", "c", "v", 5)
    key = world.key("ops", "operator")
    assert rows(api, key)[0]["plays"] == 8
    assert api.get("/api/v1/analytics/realtime/platform", headers=key).json()["concurrent_viewers"] == 8


# Sessions


def test_a_sign_in_link_opens_a_session_once_and_leads_to_the_dashboard(api: httpx.Client, world: World) -> None:
    token = world.metadata.create_signin("t")
    answer = api.get("/signin", params={"token": token})
    assert (answer.status_code, answer.headers["location"]) == (303, "/")
    cookie = answer.headers["set-cookie"]
    assert "HttpOnly" in cookie
    assert "SameSite=lax" in cookie
    assert "Secure" not in cookie
    assert api.get("/api/v1/session").json() == {"tenant": "t", "scopes": ["admin", "read", "rules"], "channels": None}
    assert api.post(QUERY, json=QUESTION).status_code == 200
    again = httpx.Client(transport=api._transport, base_url="http://localhost")
    second = again.get("/signin", params={"token": token})
    assert (second.status_code, second.json()["code"]) == (401, "sign_in_link_used")
    assert "set-cookie" not in second.headers


def test_a_person_with_a_used_link_gets_a_page(api: httpx.Client) -> None:
    answer = api.get("/signin?token=x", headers={"Accept": "text/html,*/*"})
    assert answer.status_code == 401
    assert answer.headers["content-type"].startswith("text/html")
    assert "viewmeter signin" in answer.text


def test_behind_https_the_cookie_is_secure(api: httpx.Client, world: World) -> None:
    body = {"secret_key": world.text("t", "read")}
    answer = api.post("/api/v1/session", json=body, headers={"X-Forwarded-Proto": "https"})
    assert "Secure" in answer.headers["set-cookie"]


def test_a_secret_key_opens_a_session_with_its_rights_and_signing_out_ends_it(api: httpx.Client, world: World) -> None:
    text = world.text("t", "read", channels=["c1"])
    assert api.post("/api/v1/session", json={"secret_key": text}).status_code == 200
    assert api.get("/api/v1/session").json() == {"tenant": "t", "scopes": ["read"], "channels": ["c1"]}
    cookie = api.cookies["viewmeter_session"]
    assert api.get(ADMIN[0]).status_code == 403
    assert api.delete("/api/v1/session").status_code == 204
    api.cookies.set("viewmeter_session", cookie)
    answer = api.get("/api/v1/session")
    assert (answer.status_code, answer.json()["code"]) == (401, "invalid_session")


def test_an_ingest_key_and_an_unknown_one_cannot_sign_in(api: httpx.Client, world: World) -> None:
    for text in (world.text("t", "ingest"), "sk_" + "a" * 32, ""):
        answer = api.post("/api/v1/session", json={"secret_key": text})
        assert (answer.status_code, answer.json()["code"]) == (401, "invalid_key")


FOREIGN = ({"Origin": "https://evil.example"}, {"Sec-Fetch-Site": "cross-site"}, {"Sec-Fetch-Site": "same-site"})
OWN = ({"Origin": "http://localhost"}, {"Sec-Fetch-Site": "same-origin", "Origin": "http://localhost"}, {})


@pytest.mark.parametrize(("headers", "status"), [(h, 403) for h in FOREIGN] + [(h, 200) for h in OWN])
def test_a_cookie_is_good_for_unsafe_methods_from_our_own_pages_only(
    api: httpx.Client, world: World, headers: dict[str, str], status: int
) -> None:
    api.post("/api/v1/session", json={"secret_key": world.text("t", "read")})
    answer = api.post(QUERY, json=QUESTION, headers=headers)
    assert answer.status_code == status
    assert api.get(READS[0], headers=headers).status_code == 200


def test_a_key_in_a_header_needs_no_origin_since_no_browser_adds_it_by_itself(api: httpx.Client, world: World) -> None:
    headers = {**world.key("t", "read"), "Origin": "https://elsewhere.example"}
    assert api.post(QUERY, json=QUESTION, headers=headers).status_code == 200


def test_a_key_that_cannot_be_looked_up_is_503_not_401(world: World, start: Callable[[Services], Served]) -> None:
    served = start(world.services)
    with world.metadata._engine.begin() as connection:
        connection.exec_driver_sql("ALTER TABLE keys RENAME TO gone")
    with served.client() as api:
        answer = api.get(READS[0], headers={"Authorization": "Bearer sk_" + "b" * 32})
    assert (answer.status_code, answer.json()["code"]) == (503, "metadata_unavailable")
    assert "retry-after" in answer.headers
