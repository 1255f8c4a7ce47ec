"""The pages and documents: OpenAPI, /docs, problems, the dashboard's files; and the reference in docs/."""

from __future__ import annotations

import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import httpx
import pytest
from litestar.handlers import HTTPRouteHandler

from viewmeter.collector.dialects import EVENT_CODES
from viewmeter.model.problems import PROBLEMS
from viewmeter.web import reference
from viewmeter.web.routes import ROUTES

from .conftest import World

DOCS = Path(__file__).parents[3] / "docs" / "reference"


@pytest.fixture
def document(api: httpx.Client) -> dict[str, Any]:
    answer = api.get("/openapi.json")
    assert answer.headers["content-type"] == "application/json"
    found: dict[str, Any] = answer.json()
    return found


def nodes(value: Any) -> list[dict[str, Any]]:
    """Return every object inside of a document."""
    if isinstance(value, dict):
        return [value, *(found for item in value.values() for found in nodes(item))]
    if isinstance(value, list):
        return [found for item in value for found in nodes(item)]
    return []


def every_operation(document: dict[str, Any]) -> list[tuple[str, str, dict[str, Any]]]:
    return [
        (path, method, operation)
        for path, item in document["paths"].items()
        for method, operation in item.items()
        if method in ("get", "head", "post", "put", "patch", "delete")
    ]


# OpenAPI


def test_every_reference_of_the_openapi_document_resolves(document: dict[str, Any]) -> None:
    assert document["openapi"].startswith("3.1")
    for node in nodes(document):
        if isinstance(node.get("$ref"), str):
            target: Any = document
            for part in node["$ref"].removeprefix("#/").split("/"):
                target = target[part]


def test_every_operation_says_its_id_its_key_its_answers_and_its_errors(document: dict[str, Any]) -> None:
    ids = [operation["operationId"] for _, _, operation in every_operation(document)]
    assert len(ids) == len(set(ids))
    schemes = document["components"]["securitySchemes"]
    for path, method, operation in every_operation(document):
        where = f"{method} {path}"
        assert operation["summary"], where
        assert operation["tags"][0] in {tag["name"] for tag in document["tags"]}, where
        assert any(status[0] in "23" for status in operation["responses"]), where
        for need in operation.get("security", []):
            assert set(need) <= set(schemes), where
        for status, answer in operation["responses"].items():
            kinds = set(answer.get("content", {}))
            if status[0] in "45" and not (path == "/readyz" and status == "503"):
                assert kinds == {"application/problem+json"}, f"{where} {status}"
        if path.startswith("/api/v1/") and (path, method) not in PUBLIC_API:
            assert operation["security"], where
            assert {"401", "403"} <= set(operation["responses"]), where


PUBLIC_API = {("/api/v1/session", "post"), ("/api/v1/session", "delete")}


def test_every_path_parameter_is_declared(document: dict[str, Any]) -> None:
    for path, method, operation in every_operation(document):
        declared = {p["name"] for p in operation.get("parameters", []) if p["in"] == "path"}
        assert declared == set(re.findall(r"\{(\w+)\}", path)), f"{method} {path}"


def test_bodies_and_formats_are_in_the_document(document: dict[str, Any]) -> None:
    paths = document["paths"]
    query = paths["/api/v1/analytics/query"]
    assert query["post"]["requestBody"]["content"]["application/json"]["schema"]["$ref"].endswith("/Question")
    assert {"text/csv", "application/vnd.apache.parquet"} < set(query["post"]["responses"]["200"]["content"])
    assert {"metrics", "start", "end", "time_range", "filters"} <= {p["name"] for p in query["get"]["parameters"]}
    assert set(paths["/api/v1/live"]["get"]["responses"]["200"]["content"]) == {"text/event-stream"}
    assert "/api/v1/events/beacon" in paths
    assert "seq" in document["components"]["schemas"]["WireEvent"]["properties"]


# The reference in docs/


@pytest.mark.parametrize("name", ["api.md", "problems.md"])
def test_the_generated_reference_is_what_the_code_says(name: str) -> None:
    written = (DOCS / name).read_text(encoding="utf-8")
    assert written == reference.pages()[name], "run `python -m viewmeter.web.reference --write`"


def test_every_route_is_in_the_reference() -> None:
    text = (DOCS / "api.md").read_text(encoding="utf-8")
    for handler in ROUTES:
        assert isinstance(handler, HTTPRouteHandler)
        if not handler.resolve_include_in_schema():
            continue
        path = re.sub(r":\w+\}", "}", next(iter(handler.paths)))
        for method in handler.http_methods:
            assert method in ("HEAD", "OPTIONS") or f"### `{method} {path}`" in text, f"{method} {path}"


def test_every_problem_code_and_every_reason_of_rejection_is_documented() -> None:
    text = (DOCS / "problems.md").read_text(encoding="utf-8")
    for code in (*PROBLEMS, *EVENT_CODES):
        assert f"`{code}`" in text


# Pages


class Links(HTMLParser):
    """Collects what a page loads or leads to."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []
        self.ids: set[str] = set()
        self.tags: set[str] = set()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        for name, value in attrs:
            if name in ("href", "src") and value:
                self.found.append(value)
            if name == "id" and value:
                self.ids.add(value)


def test_the_docs_page_needs_nothing_from_elsewhere_and_no_script(api: httpx.Client) -> None:
    answer = api.get("/docs")
    assert answer.headers["content-type"].startswith("text/html")
    page = Links()
    page.feed(answer.text)
    assert "script" not in page.tags
    assert "style" not in page.tags, "an inline style is refused by our own policy"
    for link in page.found:
        if link.startswith("#"):
            assert link[1:] in page.ids, link
        else:
            assert link.startswith("/"), link
            assert api.get(link).status_code == 200, link


def test_the_docs_page_shows_every_address(api: httpx.Client, document: dict[str, Any]) -> None:
    text = api.get("/docs").text
    for path in document["paths"]:
        assert f"<code>{path}</code>" in text, path


def test_the_type_of_every_problem_is_a_page_that_says_what_to_do(api: httpx.Client) -> None:
    index = api.get("/docs/problems").text
    for kind in PROBLEMS.values():
        page = api.get(kind.type)
        assert page.status_code == 200
        assert f"<code>{kind.code}</code>" in page.text
        assert kind.code in index
    assert api.get("/docs/problems/nothing").status_code == 404


def test_what_a_page_shows_is_escaped() -> None:
    from viewmeter.web.pages import _prose

    assert _prose("a <b> `c <d>`") == "a &lt;b&gt; <code>c &lt;d&gt;</code>"


# The dashboard


def build(world: World) -> None:
    assets = world.folder / "static" / "assets"
    assets.mkdir(parents=True)
    (world.folder / "static" / "index.html").write_text("<!doctype html><title>Viewmeter</title>")
    (assets / "index-Dx3k9a2b.js").write_text("export const x = 1;\n" * 100)
    (assets / "theme.js").write_text("1")
    (assets / "secret.py").write_text("no")
    (world.folder / "outside.js").write_text("no")


def test_a_dashboard_that_is_not_built_says_how_to_build_it(api: httpx.Client) -> None:
    answer = api.get("/")
    assert answer.status_code == 200
    assert answer.headers["content-type"].startswith("text/plain")
    assert "make build" in answer.text


def test_the_dashboard_is_served_with_hashed_files_kept_for_ever(api: httpx.Client, world: World) -> None:
    build(world)
    page = api.get("/")
    assert "<title>Viewmeter" in page.text
    assert page.headers["cache-control"] == "no-cache"
    script = api.get("/assets/index-Dx3k9a2b.js")
    assert script.headers["cache-control"] == "public, max-age=31536000, immutable"
    assert script.headers["content-type"].startswith("text/javascript")
    assert script.headers["content-encoding"] == "gzip"
    plain = api.get("/assets/index-Dx3k9a2b.js", headers={"Accept-Encoding": "identity"})
    assert "content-encoding" not in plain.headers
    assert plain.text == script.text
    theme = api.get("/assets/theme.js")
    assert theme.headers["cache-control"] == "no-cache"
    assert api.get("/assets/theme.js", headers={"If-None-Match": theme.headers["etag"]}).status_code == 304
    assert api.head("/").content == b""


@pytest.mark.parametrize(
    "path",
    ["/assets/../../outside.js", "/assets/..%2F..%2Foutside.js", "/assets/secret.py", "/assets/", "/assets/nope.js"],
)
def test_only_files_of_the_build_are_served(api: httpx.Client, world: World, path: str) -> None:
    build(world)
    api.get("/")
    answer = api.get(path)
    assert answer.status_code == 404
    assert answer.headers["content-type"] == "application/problem+json"


def test_a_new_build_is_seen_without_a_restart(api: httpx.Client, world: World) -> None:
    assert "make build" in api.get("/").text
    build(world)
    assert "<title>" in api.get("/").text


def test_every_answer_carries_the_security_headers(api: httpx.Client, world: World) -> None:
    build(world)
    for path in ("/", "/assets/theme.js", "/docs", "/healthz", "/nope", "/api/v1/session"):
        headers = api.get(path).headers
        policy = headers["content-security-policy"]
        assert "default-src 'none'" in policy
        assert "unsafe" not in policy
        assert "frame-ancestors 'none'" in policy
        assert headers["x-content-type-options"] == "nosniff"
        assert headers["referrer-policy"] == "same-origin"


def test_answers_of_the_api_are_not_kept_by_caches(api: httpx.Client, world: World) -> None:
    answer = api.get("/api/v1/analytics/metrics", headers=world.key("t", "read"))
    assert answer.headers["cache-control"] == "no-store"
