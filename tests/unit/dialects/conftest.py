"""Where the recordings are: a small set under version control, and the whole one beside the checkout."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[3]
COMMITTED = ROOT / "tests" / "data" / "recordings"
SHARED = ROOT.parent / "shared" / "data"
IN_ALL = 51


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Give a test that asks for `recording` or `vector` every one there is, and a skip for those that are not."""
    if "vector" in metafunc.fixturenames:
        metafunc.parametrize("vector", _vectors())
    if "recording" not in metafunc.fixturenames:
        return
    files = {path.stem: path for path in COMMITTED.glob("*.jsonl")}
    files |= {path.stem: path for path in (SHARED / "players").glob("*.jsonl")}
    params = [pytest.param(files[stem], id=stem) for stem in sorted(files)]
    if len(files) < IN_ALL:
        missing = f"{IN_ALL - len(files)} recordings are not here: they are in ../shared/data/players"
        params.append(pytest.param(None, id="the_others", marks=pytest.mark.skip(reason=missing)))
    metafunc.parametrize("recording", params)


def _vectors() -> list[Any]:
    """Return the test cases of the players' own CMCD library, which are not ours to commit."""
    path = SHARED / "cmcd-vectors.json"
    if not path.exists():
        absent = pytest.mark.skip(reason="cmcd-vectors.json is not here: it is in ../shared/data")
        return [pytest.param(None, id="all", marks=absent)]
    return [pytest.param(vector, id=vector["id"]) for vector in json.loads(path.read_text())["vectors"]]
