"""Every scenario of this folder, on every subject. A new subject is one line in SUBJECTS.

On an engine the scenarios share one, as tenants of their own, but for those that set its clock or ask for all tenants.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from functools import cache
from pathlib import Path

import pytest
from subjects import BatchSubject, RuleSubject, batch, can_share, embedded, play_together

from viewmeter.testing.scenario import START_MS, Clock, Difference, parse, run
from viewmeter.testing.subject import OracleSubject, Subject

HERE = Path(__file__).parent
SCENARIOS = {path.stem: path for path in sorted(HERE.glob("*.scenario"))}

SUBJECTS: dict[str, Callable[[Path], AbstractContextManager[Subject]]] = {
    "oracle": lambda tmp_path: nullcontext(OracleSubject()),
    "rule": lambda tmp_path: nullcontext(RuleSubject()),
    "embedded": embedded,
    "batch": batch,
}
ENGINES = {"embedded": START_MS, "batch": BatchSubject.START_MS}
"""And when their scenarios start."""

Together = Callable[[str], dict[str, list[Difference]]]


@pytest.fixture(scope="module")
def together(tmp_path_factory: pytest.TempPathFactory) -> Together:
    @cache
    def played(kind: str) -> dict[str, list[Difference]]:
        scenarios = {name: parse(path.read_text(encoding="utf-8")) for name, path in SCENARIOS.items()}
        shared = {name: scenario for name, scenario in scenarios.items() if can_share(scenario)}
        with SUBJECTS[kind](tmp_path_factory.mktemp(kind)) as subject:
            return play_together(shared, subject, ENGINES[kind])

    return played


@pytest.mark.parametrize("kind", SUBJECTS)
@pytest.mark.parametrize("name", SCENARIOS)
def test_the_subject_counts_as_the_scenario_says(name: str, kind: str, together: Together, tmp_path: Path) -> None:
    scenario = parse(SCENARIOS[name].read_text(encoding="utf-8"))
    if kind == "rule" and not scenario.in_order:
        pytest.skip("a late event adds what it still can; the batch layer puts the rest right")
    if kind == "batch" and any(isinstance(step, Clock) for step in scenario.steps):
        pytest.skip("the batch layer knows whole hours, not the moment in between")
    if kind in ENGINES and can_share(scenario):
        differences = together(kind)[name]
    else:
        with SUBJECTS[kind](tmp_path) as subject:
            differences = run(scenario, subject, ENGINES.get(kind, START_MS))
    assert not differences, f"{name}: {scenario.title}\n" + "\n".join(map(str, differences))


def test_every_scenario_has_a_title_that_no_other_one_has() -> None:
    titles = [parse(path.read_text(encoding="utf-8")).title for path in SCENARIOS.values()]
    assert all(titles)
    assert len(set(titles)) == len(titles)
