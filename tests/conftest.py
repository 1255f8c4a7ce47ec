"""The order of the files, and what a run found, as JSON.

Order: random, but folders whose files take longest come first, so that no process of `-n` ends with a long file alone.
Figures: `VIEWMETER_TEST_FIGURES` names the file; one object a test, with what it recorded.

In: the reports of all tests, also of other processes (`-n`). Out: the file, written anew when the run is over. A test
adds a figure with pytest's own `record_property`.
"""

from __future__ import annotations

import json
import os
import platform
import time
from pathlib import Path
from typing import Any

import pytest

_FILE = os.environ.get("VIEWMETER_TEST_FIGURES", "")
_tests: list[dict[str, Any]] = []
_LONGEST_FIRST = ("e2e", "faults", "fuzz", "property", "scenario", "contract")


@pytest.hookimpl(trylast=True)  # behind pytest-randomly, whose order within a folder stays
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    def place(item: pytest.Item) -> int:
        folder = item.path.relative_to(Path(__file__).parent).parts[0]
        return _LONGEST_FIRST.index(folder) if folder in _LONGEST_FIRST else len(_LONGEST_FIRST)

    items.sort(key=place)


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    """Keep how a test went; of a part before or behind the test itself only that it failed."""
    if _FILE and (report.when == "call" or report.failed):
        figures = {name: value for name, value in report.user_properties if isinstance(name, str)}
        seconds = round(report.duration, 1)
        _tests.append({"test": report.nodeid, "outcome": report.outcome, "seconds": seconds, **figures})


def pytest_sessionfinish(session: pytest.Session) -> None:
    """Write the file, once: processes of `-n` report to the first one."""
    if not _FILE or hasattr(session.config, "workerinput"):
        return
    outcomes = [test["outcome"] for test in _tests]
    found = {
        "ended": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "processors": os.cpu_count(),
        "load_average_15_min": round(os.getloadavg()[2], 1),
        "python": platform.python_version(),
        "outcomes": {outcome: outcomes.count(outcome) for outcome in sorted(set(outcomes))},
        "tests": sorted(_tests, key=lambda test: test["test"]),
    }
    path = Path(_FILE)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(found, indent=2) + "\n", encoding="utf-8")
