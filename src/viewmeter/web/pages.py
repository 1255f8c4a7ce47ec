"""The documentation pages: /docs and /docs/problems, rendered here from the OpenAPI document and the problem
table.

In: data. Out: plain HTML with one style sheet. No script and nothing from elsewhere, so they read offline and
under our own Content-Security-Policy.
"""

from __future__ import annotations

import re
from html import escape
from typing import Annotated, Any, Final

from litestar import Request, Response
from litestar.params import PathParameter

from viewmeter.collector.dialects import EVENT_CODES
from viewmeter.model.problems import PROBLEMS, ProblemKind
from viewmeter.web.endpoint import endpoint, json_answer
from viewmeter.web.problems import ProblemError

Ask = Request[Any, Any, Any]

_METHODS: Final = ("get", "post", "patch", "delete")

STYLE: Final = """
:root { color-scheme: light dark; --line: color-mix(in srgb, currentColor 18%, transparent); }
body { font: 16px/1.55 system-ui, sans-serif; margin: 0; }
main { max-width: 60rem; margin: 0 auto; padding: 2rem 1.25rem 4rem; }
h1 { font-size: 1.7rem; } h2 { margin-top: 2.5rem; border-bottom: 1px solid var(--line); }
h3 { margin: 1.8rem 0 .3rem; font-size: 1rem; }
code, .method { font: .92em ui-monospace, monospace; } .method { font-weight: 700; margin-right: .4rem; }
code { background: color-mix(in srgb, currentColor 8%, transparent); padding: .1em .3em; border-radius: 4px; }
table { border-collapse: collapse; width: 100%; margin: .4rem 0; font-size: .94rem; }
td, th { text-align: left; vertical-align: top; padding: .3rem .6rem .3rem 0; border-bottom: 1px solid
var(--line); } .quiet { opacity: .72; } nav a { margin-right: 1rem; }
"""


def _html(title: str, body: str) -> Response[str]:
    page = (
        f'<!doctype html><html lang="en"><head><meta charset="utf-8"><title>{escape(title)} – Viewmeter</title>'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        '<link rel="stylesheet" href="/docs/style.css"></head><body><main>'
        '<nav><a href="/docs">API</a><a href="/docs/problems">Problems</a><a href="/openapi.json">openapi.json</a>'
        f'<a href="/">Dashboard</a></nav><h1>{escape(title)}</h1>{body}</main></body></html>'
    )
    return Response(page, media_type="text/html", headers={"Cache-Control": "no-cache"})


def _prose(text: str) -> str:
    """Escape a text and set what stands in backticks as code."""
    return re.sub(r"`([^`]+)`", r"<code>\1</code>", escape(text))


@endpoint(
    "GET", "/openapi.json", "openapi", "This document", scope="public", answers=None,
    media={"application/json": dict[str, Any]}, tag="Pages",
)  # fmt: skip
async def openapi_json(request: Ask) -> Response[bytes]:
    """OpenAPI 3.1."""
    return json_answer(request.app.state.openapi, headers={"Cache-Control": "no-cache"})


@endpoint(
    "GET", "/docs", "docs", "The API as a page", scope="public", answers=None, media={"text/html": str}, tag="Pages"
)
async def docs(request: Ask) -> Response[str]:
    """Every address, what it takes and what it answers."""
    return _html("The API", render(request.app.state.openapi))


@endpoint(
    "GET", "/docs/style.css", "docsStyle", "The style of these pages", scope="public", answers=None,
    media={"text/css": str}, tag="Pages", hidden=True,
)  # fmt: skip
async def style() -> Response[str]:
    """One sheet for all pages."""
    return Response(STYLE, media_type="text/css", headers={"Cache-Control": "no-cache"})


@endpoint(
    "GET", "/docs/problems", "docsProblems", "Every problem code", scope="public", answers=None,
    media={"text/html": str}, tag="Pages",
)  # fmt: skip
async def problems() -> Response[str]:
    """The table of all error answers."""
    rows = "".join(
        f'<tr><td>{kind.status}</td><td><a href="/docs/problems/{kind.code}"><code>{kind.code}</code></a></td>'
        f"<td>{escape(kind.title)}</td></tr>"
        for kind in sorted(PROBLEMS.values(), key=lambda kind: (kind.status, kind.code))
    )
    events = "".join(
        f"<tr><td><code>{escape(code)}</code></td><td>{_prose(why)}</td></tr>" for code, why in EVENT_CODES.items()
    )
    return _html(
        "Problems",
        f"<table><tr><th>Status</th><th>Code</th><th>What</th></tr>{rows}</table>"
        f"<h2>Why a single event is rejected</h2><table>{events}</table>",
    )


@endpoint(
    "GET", "/docs/problems/{code:str}", "docsProblem", "What a problem code means", scope="public", answers=None,
    media={"text/html": str}, tag="Pages", problems=("not_found",),
)  # fmt: skip
async def problem_page(
    request: Ask, code: Annotated[str, PathParameter(description="a problem code")]
) -> Response[str]:
    """Where the `type` of every problem leads."""
    kind = PROBLEMS.get(code)
    if kind is None:
        raise ProblemError("not_found", "There is no such problem code; /docs/problems lists them.")
    return _html(kind.title, _problem(kind, request.app.state.openapi))


def _problem(kind: ProblemKind, document: dict[str, Any]) -> str:
    where = "".join(
        f"<li><code>{method.upper()} {escape(path)}</code></li>"
        for path, method, operation in operations(document)
        if f"`{kind.code}`" in operation["responses"].get(str(kind.status), {}).get("description", "")
    )
    places = f"<h2>Who answers it</h2><ul>{where}</ul>" if where else ""
    return (
        f"<p>Status <code>{kind.status}</code>, code <code>{kind.code}</code>.</p><h2>What to do</h2>"
        f"<p>{_prose(kind.remedy)}</p>{places}"
    )


def operations(document: dict[str, Any]) -> list[tuple[str, str, dict[str, Any]]]:
    """Return (path, method, operation) of a document, by path; HEAD is as GET."""
    return [
        (path, method, item[method])
        for path, item in sorted(document["paths"].items())
        for method in _METHODS
        if method in item
    ]


def render(document: dict[str, Any]) -> str:
    """Return the body of the page about the whole API."""
    parts = [f"<p>{_prose(document['info']['description'])} Version {escape(document['info']['version'])}.</p>"]
    for tag in document["tags"]:
        found = [entry for entry in operations(document) if tag["name"] in entry[2].get("tags", ())]
        if found:
            parts.append(f"<h2>{escape(tag['name'])}</h2><p class=quiet>{_prose(tag['description'])}</p>")
            parts += [_operation(path, method, operation) for path, method, operation in found]
    parts.append("<h2>Shapes</h2>")
    shapes = sorted(document["components"]["schemas"].items())
    parts += [_shape(name, shape) for name, shape in shapes if shape.get("properties")]
    return "".join(parts)


def _operation(path: str, method: str, operation: dict[str, Any]) -> str:
    body = operation.get("requestBody", {}).get("content", {})
    takes = "".join(f"<p>Takes <code>{escape(kind)}</code>{_shown(entry)}.</p>" for kind, entry in body.items())
    parameters = "".join(
        f"<tr><td><code>{escape(p['name'])}</code></td><td>{escape(p['in'])}</td>"
        f"<td>{_prose(p.get('description') or '')}</td></tr>"
        for p in operation.get("parameters", ())
    )
    answers = "".join(
        f"<tr><td>{escape(status)}</td><td>{_prose(answer.get('description') or '')}</td><td>"
        + ", ".join(f"{escape(kind)}{_shown(entry)}" for kind, entry in answer.get("content", {}).items())
        + "</td></tr>"
        for status, answer in sorted(operation["responses"].items())
    )
    return (
        f"<h3 id={escape(operation['operationId'])}><span class=method>{method.upper()}</span>"
        f"<code>{escape(path)}</code></h3>"
        f"<p>{_prose(operation['summary'])}. {_prose(operation.get('description') or '')}</p>{takes}"
        + (f"<table>{parameters}</table>" if parameters else "")
        + f"<table>{answers}</table>"
    )


def _shown(entry: dict[str, Any]) -> str:
    """Return a link to the shape of a body."""
    schema = entry.get("schema", {})
    name = (schema.get("items") or schema).get("$ref", "").rpartition("/")[2]
    if not name:
        return ""
    many = "array of " if "items" in schema else ""
    return f' ({many}<a href="#{escape(name)}">{escape(name)}</a>)'


def _shape(name: str, shape: dict[str, Any]) -> str:
    needed = set(shape.get("required", ()))
    rows = "".join(
        f"<tr><td><code>{escape(field)}</code></td><td>{escape(kind_of(schema))}</td>"
        f"<td>{'' if field in needed else 'optional. '}{_prose(schema.get('description') or '')}</td></tr>"
        for field, schema in shape["properties"].items()
    )
    doc = _prose((shape.get("description") or "").strip())
    return f"<h3 id={escape(name)}>{escape(name)}</h3><p>{doc}</p><table>{rows}</table>"


def kind_of(schema: dict[str, Any]) -> str:
    """Return a schema's type in a few words."""
    if "$ref" in schema:
        return str(schema["$ref"]).rpartition("/")[2]
    options = schema.get("oneOf") or schema.get("anyOf")
    if options:
        return " | ".join(kind_of(option) for option in options)
    if "enum" in schema:
        return " | ".join(map(str, schema["enum"]))
    kind = schema.get("type", "any")
    return " | ".join(kind) if isinstance(kind, list) else f"{kind}"


ROUTES: Final = (openapi_json, docs, style, problems, problem_page)
