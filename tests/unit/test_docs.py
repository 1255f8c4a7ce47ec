"""The pages say what is there: links resolve, commands parse, settings and folders exist, promises have their tests."""

from __future__ import annotations

import re
import shlex
from pathlib import Path
from typing import Final

import pytest
from subjects import RuleSubject

from viewmeter import config
from viewmeter.cli import app
from viewmeter.testing.scenario import parse, run
from viewmeter.testing.subject import OracleSubject, Subject

ROOT: Final = Path(__file__).parents[2]
SOURCES: Final = ROOT / "src" / "viewmeter"
DOCS: Final = ROOT / "docs"
INDEX: Final = DOCS / "index.md"
DECISIONS: Final = DOCS / "decisions"
PAGES: Final = sorted(
    [*ROOT.glob("*.md"), *DOCS.rglob("*.md"), *ROOT.glob("examples/*.md"), *ROOT.glob("tests/**/*.md")]
)

README_LINES_MAX: Final = 120
LOG_TESTS: Final = ROOT / "tests" / "contract" / "test_eventlog.py"

FENCE: Final = re.compile(r"^( *)(```|~~~).*?^\1\2 *$", re.MULTILINE | re.DOTALL)
INDENTED: Final = re.compile(r"(?<=\n\n)((?: {4}.*\n|\n(?= {4}))+)")
LINK: Final = re.compile(r"\[[^\]]*\]\(([^)\s]+)\)|^\[[^\]]+\]: (\S+)$", re.MULTILINE)
CODE: Final = re.compile(r"(?<!`)`([^`\n]+)`(?!`)")
PROMISE: Final = re.compile(r"^ {4}([A-Z]\d+)  +\S", re.MULTILINE)
CITED: Final = re.compile(r"def test_([A-Z]\d+)_")


def name(page: Path) -> str:
    return page.relative_to(ROOT).as_posix()


def text_of(page: Path) -> str:
    return page.read_text(encoding="utf-8")


def prose(page: Path) -> str:
    """Return a page without its code."""
    return CODE.sub("", INDENTED.sub("\n", FENCE.sub("", text_of(page))))


def blocks(page: Path) -> list[str]:
    """Return a page's code blocks, fenced and indented, without their indent."""
    text = text_of(page)
    fenced = ["\n".join(found.group(0).splitlines()[1:-1]) for found in FENCE.finditer(text)]
    return fenced + [re.sub(r"^ {4}", "", found, flags=re.MULTILINE) for found in INDENTED.findall(FENCE.sub("", text))]


def links(page: Path) -> list[str]:
    """Return where a page's links go, those out of this repository left out."""
    found = [inline or below for inline, below in LINK.findall(prose(page))]
    return [target for target in found if not re.match(r"[a-z]+:", target)]


def anchors(page: Path) -> set[str]:
    """Return the anchors of a page's headings, as GitHub makes them."""
    headings = re.findall(r"^#+ (.+)$", FENCE.sub("", text_of(page)), re.MULTILINE)
    plain = [re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", heading).strip().lower() for heading in headings]
    return {re.sub(r"[^\w\- ]", "", heading).replace(" ", "-") for heading in plain}


def commands(page: Path) -> list[list[str]]:
    """Return the lines of a page's code that call make or viewmeter, as words."""
    found = []
    for block in blocks(page):
        for line in block.replace("\\\n", " ").splitlines():
            called = re.match(r"(?:\S+=\S+ +)*((?:\S*/)?viewmeter|make) .*", line.strip())
            if called:
                words = shlex.split(line.strip(), comments=True)
                while "=" in words[0]:
                    del words[0]
                found.append([Path(words[0]).name, *words[1 : words.index("&") if "&" in words else None]])
    return found


def make_targets() -> set[str]:
    return set(re.findall(r"^([a-z]+):", text_of(ROOT / "Makefile"), re.MULTILINE))


# Links


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_every_link_of_a_page_leads_somewhere(page: Path) -> None:
    for target in links(page):
        path, _, anchor = target.partition("#")
        there = (page.parent / path).resolve() if path else page
        assert there.exists(), f"{name(page)} links {target}, which is not there"
        if anchor and there.suffix == ".md":
            assert anchor in anchors(there), f"{name(page)} links {target}; {name(there)} has no such heading"


def test_every_page_of_docs_is_reached_from_the_index() -> None:
    reached, ahead = {INDEX}, [INDEX]
    while ahead:
        page = ahead.pop()
        for target in links(page):
            there = (page.parent / target.partition("#")[0]).resolve()
            if there.suffix == ".md" and there.exists() and there.is_relative_to(DOCS) and there not in reached:
                reached.add(there)
                ahead.append(there)
    missed = sorted(name(page) for page in set(DOCS.rglob("*.md")) - reached)
    assert not missed, f"no way leads from docs/index.md to {missed}"


def test_the_index_of_decisions_has_the_number_and_title_of_each() -> None:
    index = text_of(DECISIONS / "README.md")
    for page in sorted(DECISIONS.glob("[0-9]*.md")):
        title = text_of(page).splitlines()[0]
        assert re.match(r"# \d+\. ", title), f"{name(page)} begins {title!r}; a decision begins `# 7. Its title`"
        number, said = title.removeprefix("# ").split(". ", 1)
        assert int(page.name[:4]) == int(number), f"{name(page)} calls itself {number}"
        row = f"| [{number}]({page.name}) | {said} |"
        assert row in index, f"docs/decisions/README.md lacks the row {row}"


# Commands, settings, folders


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_commands_in_code_blocks_are_taken_by_the_command_line(page: Path) -> None:
    if page == DOCS / "reference" / "cli.md":
        pytest.skip("written from the commands themselves; its blocks are usage lines")
    for program, *words in commands(page):
        if program == "make":
            for target in [word for word in words if "=" not in word]:
                assert target in make_targets(), f"{name(page)}: there is no `make {target}`"
        else:
            app.parse_args(words, exit_on_error=False, print_error=False, verbose=True)


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_commands_in_running_text_exist(page: Path) -> None:
    for code in CODE.findall(FENCE.sub("", text_of(page))):
        program, *words = code.split()
        if program == "make" and words:
            assert words[0] in make_targets(), f"{name(page)}: there is no `{code}`"
        elif program.endswith("viewmeter") and words and re.fullmatch(r"[a-z]+", words[0]):
            assert words[0] in set(app), f"{name(page)}: there is no `{code}`"


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_settings_that_a_page_names_exist(page: Path) -> None:
    for code in CODE.findall(text_of(page)):
        setting = re.fullmatch(r"(?:VIEWMETER_([A-Z]+)__([A-Z_]+)|([a-z]+)\.([a-z_]+))(?: ?=.*)?", code)
        if setting is None:
            continue
        section, key = [part.lower() for part in setting.groups() if part]
        is_setting = setting[1] or (section in config.SECTIONS and key not in {"py", "db", "duckdb", "sock"})
        if is_setting:
            assert section in config.SECTIONS, f"{name(page)}: `{code}` names no section of the settings"
            assert key in config.field_types(section), f"{name(page)}: `{code}` names no setting"


def test_the_architecture_names_every_package_and_only_what_exists() -> None:
    page = ROOT / "ARCHITECTURE.md"
    rows = re.findall(r"^\| `([a-z]+)` \|", text_of(page).partition("## The processes")[0], re.MULTILINE)
    packages = {path.parent.name for path in SOURCES.glob("*/__init__.py")}
    assert set(rows) == packages
    for code in CODE.findall(text_of(page)):
        if re.fullmatch(r"[a-z_]+/[a-z_/.]+|[a-z_]+\.(py|md|toml)", code):
            places = [ROOT / code, SOURCES / code, *SOURCES.glob(f"*/{code}")]
            assert any(place.exists() for place in places), f"ARCHITECTURE.md names `{code}`, which is not there"


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_files_of_the_sources_that_a_page_names_exist(page: Path) -> None:
    for code in CODE.findall(text_of(page)):
        if re.fullmatch(r"(src|tests|docs|examples|dashboard)/[\w/.-]+", code):
            assert (ROOT / code).exists(), f"{name(page)} names `{code}`, which is not there"


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_addresses_of_the_api_that_a_page_names_exist(page: Path) -> None:
    if page.parent in (DECISIONS, DOCS / "reference") or page == ROOT / "CHANGELOG.md":
        pytest.skip("says what is, was or will be")
    paths = re.findall(r"^### `[A-Z]+ (\S+)`$", text_of(DOCS / "reference" / "api.md"), re.MULTILINE)
    known = [re.compile(re.sub(r"\{\w+\}", "[^/]+", path)) for path in paths]
    for address in re.findall(r"/api/v1/[\w/-]*[\w-](?!/\*|\w)", text_of(page)):
        assert any(path.fullmatch(address) for path in known), f"{name(page)} names {address}, which is not in the API"


def test_the_readme_stays_short() -> None:
    assert len(text_of(ROOT / "README.md").splitlines()) <= README_LINES_MAX


# Promises


def promises() -> dict[str, str]:
    """Return each numbered promise of a seam, and the file that makes it."""
    made: dict[str, str] = {}
    for file in [*SOURCES.glob("*/protocol.py"), SOURCES / "metadata" / "keys.py"]:
        for number in PROMISE.findall(text_of(file)):
            assert number not in made, f"{name(file)} and {made[number]} both promise {number}"
            made[number] = name(file)
    return made


def cited() -> set[str]:
    files = [*(ROOT / "tests").rglob("*.py"), *(SOURCES / "testing").rglob("*.py")]
    return {number for file in files for number in CITED.findall(text_of(file))}


@pytest.mark.parametrize(("number", "file"), sorted(promises().items()))
def test_a_numbered_promise_has_a_test_that_carries_its_number(number: str, file: str) -> None:
    if number.startswith("L") and not LOG_TESTS.exists():
        pytest.xfail("the contract suite of the log is not written yet")
    assert number in cited(), f"{file} promises {number}; no test is called test_{number}_…"


def test_tests_carry_only_numbers_of_promises_that_were_made() -> None:
    assert cited() <= set(promises()), f"no protocol promises {sorted(cited() - set(promises()))}"


# Scenarios


SCENARIOS: Final = [
    pytest.param(block, id=f"{name(page)}-{number}")
    for page in PAGES
    for number, block in enumerate(blocks(page))
    if re.search(r"^expect ", block, re.MULTILINE)
]


@pytest.mark.parametrize("subject", [OracleSubject, RuleSubject])
@pytest.mark.parametrize("block", SCENARIOS)
def test_scenarios_in_the_pages_are_true(block: str, subject: type[Subject]) -> None:
    differences = run(parse(block), subject())
    assert not differences, "\n".join(map(str, differences))
