"""The documentation, held to the repository: links, reachability, commands, settings, addresses, folders, promises.

Generated pages (docs/reference) are compared with their sources elsewhere; here they serve as the list of what exists.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import pytest

from viewmeter import config
from viewmeter.cli.reference import cli_page
from viewmeter.testing.scenario import parse, run
from viewmeter.testing.subject import OracleSubject

ROOT: Final = Path(__file__).parents[2]
DOCS: Final = ROOT / "docs"
INDEX: Final = DOCS / "index.md"
TOP: Final = ("README.md", "ARCHITECTURE.md", "CONTRIBUTING.md", "GOALS.md", "CHANGELOG.md", "examples/README.md")
PAGES: Final = sorted([*DOCS.rglob("*.md"), *(ROOT / name for name in TOP)])
WRITTEN: Final = [page for page in PAGES if not {"reference", "decisions"} & {*page.relative_to(ROOT).parts}]
README_LINES_MAX: Final = 120

LINK: Final = re.compile(r"!?\[[^\]]*\]\(([^)\s]+)\)|^\[[^\]]+\]: (\S+)", re.MULTILINE)
FENCED: Final = re.compile(r"^```.*?^```$", re.MULTILINE | re.DOTALL)
INDENTED: Final = re.compile(r"(?:^ {4,}\S.*\n(?:\s*\n(?= {4}))?)+", re.MULTILINE)
CODE: Final = re.compile(r"`([^`\n]+)`")
PROMISE: Final = re.compile(r"^    ([A-Z]\d+)  \S", re.MULTILINE)


def text(page: Path) -> str:
    return page.read_text(encoding="utf-8")


def name(page: Path) -> str:
    return str(page.relative_to(ROOT))


def links(page: Path) -> Iterator[tuple[Path, str]]:
    """Yield each link into the repository as (target, anchor)."""
    prose = CODE.sub("", INDENTED.sub("", FENCED.sub("", text(page))))
    for inline, reference in LINK.findall(prose):
        link = inline or reference
        if not re.match(r"[a-z]+:", link):
            path, _, anchor = link.partition("#")
            yield (page.parent / path).resolve() if path else page, anchor


def anchors(page: Path) -> set[str]:
    """Return the anchors of a page's headings, as GitHub makes them."""
    titles = re.findall(r"^#+ (.+)$", FENCED.sub("", text(page)), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", title.lower()).strip().replace(" ", "-") for title in titles}


def commands(page: Path) -> Iterator[str]:
    """Yield what a page says to type: lines of its code blocks, continued ones joined, and code in its sentences."""
    whole = text(page)
    for block in [*FENCED.findall(whole), *INDENTED.findall(FENCED.sub("", whole))]:
        yield from (line.partition("  #")[0].strip() for line in block.replace("\\\n", " ").splitlines())
    yield from CODE.findall(FENCED.sub("", whole))


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_every_link_of_a_page_leads_somewhere(page: Path) -> None:
    broken = [
        f"{target}#{anchor}"
        for target, anchor in links(page)
        if not target.exists() or (anchor and target.suffix == ".md" and anchor not in anchors(target))
    ]
    assert not broken


def test_every_file_of_the_docs_is_reachable_from_their_index() -> None:
    seen, ahead = set[Path](), [INDEX.resolve()]
    while ahead:
        page = ahead.pop()
        if page in seen or not page.is_file():
            continue
        seen.add(page)
        if page.suffix == ".md":
            ahead += [target for target, _ in links(page)]
    assert {*map(name, (f for f in DOCS.rglob("*") if f.is_file()))} <= {*map(name, seen)}


@pytest.mark.parametrize("page", WRITTEN, ids=name)
def test_every_make_target_that_a_page_names_exists(page: Path) -> None:
    targets = {*re.findall(r"^([a-z-]+):", text(ROOT / "Makefile"), re.MULTILINE)}
    named = [found[1] for line in commands(page) if (found := re.match(r"make ([a-z-]+)", line))]
    assert {*named} <= targets


def known_commands() -> dict[str, str]:
    """Return each command of the reference, with its part of the page."""
    parts = re.split(r"^#{2,3} viewmeter ", cli_page(), flags=re.MULTILINE)[1:]
    return {part.partition("\n")[0]: part for part in parts}


@pytest.mark.parametrize("page", WRITTEN, ids=name)
def test_every_command_line_that_a_page_names_exists_with_its_options(page: Path) -> None:
    known, wrong = known_commands(), []
    for line in commands(page):
        found = re.match(r"(?:\S*bin/)?viewmeter ((?:[a-z]+ ?)+)(.*)", line)
        if not found:
            continue
        words = found[1].split()
        command = next((c for c in (" ".join(words[:2]), words[0]) if c in known), None)
        options = re.findall(r"--[a-z][a-z-]*", found[2])
        if command is None or not all(option in known[command] for option in options):
            wrong.append(line)
    assert not wrong


@pytest.mark.parametrize("page", WRITTEN, ids=name)
def test_every_setting_that_a_page_names_exists(page: Path) -> None:
    known = {f"{section}.{setting}" for section in config.SECTIONS for setting in config.field_types(section)}
    sections = "|".join(config.SECTIONS)
    named = {code for code in CODE.findall(text(page)) if re.fullmatch(rf"(?:{sections})\.[a-z_]+", code)}
    files = {code for code in named if code.endswith((".py", ".db", ".duckdb", ".sqlite"))}
    assert named - files <= known


@pytest.mark.parametrize("page", WRITTEN, ids=name)
def test_every_address_that_a_page_names_is_in_the_api(page: Path) -> None:
    api = re.findall(r"^### `[A-Z]+ (\S+)`$", text(DOCS / "reference" / "api.md"), re.MULTILINE)
    patterns = [re.compile(re.sub(r"\{\w+\}", "[^/]+", path)) for path in api]
    named = {found.rstrip("/") for found in re.findall(r"/api/v1/[\w\-/]*", text(page))}
    families = {"/api/v1/events", "/api/v1/admin"}  # named as `/api/v1/events/*`
    assert not [path for path in named - families if not any(p.fullmatch(path) for p in patterns)]


@pytest.mark.parametrize("page", WRITTEN, ids=name)
def test_every_file_of_the_repository_that_a_page_names_exists(page: Path) -> None:
    named = [
        c for c in CODE.findall(text(page)) if re.fullmatch(r"(?:src|tests|docs|examples|dashboard)(?:/[\w.]+)+/?", c)
    ]
    assert not [path for path in named if not (ROOT / path).exists()]


def test_the_architecture_names_every_room_and_no_other() -> None:
    page = text(ROOT / "ARCHITECTURE.md")
    rooms = {p.name for p in (ROOT / "src/viewmeter").iterdir() if (p / "__init__.py").exists()}
    table = {*re.findall(r"^\| `([a-z]+)` \| (?!L1|S1|O1|V1|K1)", page, re.MULTILINE)}
    assert table == rooms
    inside = [code for code in CODE.findall(page) if re.fullmatch(r"[a-z_]+(?:/[a-z_]+)*(?:\.py|/[a-z_]+)", code)]
    assert not [
        path
        for path in inside
        if not any((base / path).exists() for base in (ROOT, ROOT / "src/viewmeter", ROOT / "src/viewmeter/model"))
        and path not in {"protocol.py", "embedded.py", "keys.py"}
    ]


PROTOCOLS: Final = sorted([*(ROOT / "src/viewmeter").glob("*/protocol.py"), ROOT / "src/viewmeter/metadata/keys.py"])


@pytest.mark.parametrize("protocol", PROTOCOLS, ids=lambda path: path.parent.name)
def test_every_numbered_promise_has_a_test_that_carries_its_number(protocol: Path) -> None:
    promises = PROMISE.findall(text(protocol))
    folders = (ROOT / "tests", ROOT / "src/viewmeter/testing/contracts")
    tests = " ".join(text(file) for folder in folders for file in folder.rglob("*.py"))
    kept = {*re.findall(r"def test_([A-Z]\d+)_", tests)}
    assert promises, "a protocol without a promise"
    assert [promise for promise in promises if promise not in kept] == []


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_every_scenario_in_a_page_is_what_the_oracle_counts(page: Path) -> None:
    for block in INDENTED.findall(text(page)):
        scenario = re.sub(r"^    ", "", block, flags=re.MULTILINE)
        if "expect " in scenario and re.search(r"^view \w+", scenario, re.MULTILINE):
            assert not run(parse(scenario), OracleSubject())


def test_the_readme_stays_short() -> None:
    assert len(text(ROOT / "README.md").splitlines()) <= README_LINES_MAX
