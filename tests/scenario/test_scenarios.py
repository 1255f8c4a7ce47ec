"""Every scenario of this folder, on every subject. A new subject is one line in SUBJECTS."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

import pytest
from subjects import BatchSubject, RuleSubject, batch, embedded

from viewmeter.testing.scenario import Clock, parse, run
from viewmeter.testing.subject import OracleSubject, Subject

HERE = Path(__file__).parent
SCENARIOS = sorted(HERE.glob("*.scenario"))

SUBJECTS: dict[str, Callable[[Path], AbstractContextManager[Subject]]] = {
    "oracle": lambda tmp_path: nullcontext(OracleSubject()),
    "rule": lambda tmp_path: nullcontext(RuleSubject()),
    "embedded": embedded,
    "batch": batch,
}


@pytest.fixture(params=SUBJECTS)
def subject(request: Any, tmp_path: Path) -> Any:
    with SUBJECTS[request.param](tmp_path) as made:
        yield made


@pytest.mark.parametrize("path", SCENARIOS, ids=lambda path: path.stem)
def test_the_subject_counts_as_the_scenario_says(path: Path, subject: Subject) -> None:
    scenario = parse(path.read_text(encoding="utf-8"))
    if not scenario.in_order and isinstance(subject, RuleSubject):
        pytest.skip("a late event adds what it still can; the batch layer puts the rest right")
    if isinstance(subject, BatchSubject):
        if any(isinstance(step, Clock) for step in scenario.steps):
            pytest.skip("the batch layer knows whole hours, not the moment in between")
        differences = run(scenario, subject, BatchSubject.START_MS)
    else:
        differences = run(scenario, subject)
    assert not differences, f"{path.name}: {scenario.title}\n" + "\n".join(map(str, differences))


def test_every_scenario_has_a_title_that_no_other_one_has() -> None:
    titles = [parse(path.read_text(encoding="utf-8")).title for path in SCENARIOS]
    assert all(titles)
    assert len(set(titles)) == len(titles)
