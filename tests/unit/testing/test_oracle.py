"""The oracle stays what it promises to be: short, plain, and on its own."""

from __future__ import annotations

import ast
from pathlib import Path

from viewmeter.testing import oracle
from viewmeter.testing.oracle_metrics import METRICS, metrics

SOURCE = Path(oracle.__file__).read_text(encoding="utf-8")


def test_the_oracle_is_at_most_200_lines_of_code() -> None:
    docs: set[int] = set()
    for node in ast.walk(ast.parse(SOURCE)):
        if isinstance(node, (ast.Module, ast.ClassDef, ast.FunctionDef)) and ast.get_docstring(node):
            docs |= set(range(node.body[0].lineno, (node.body[0].end_lineno or 0) + 1))
    lines = [line for i, line in enumerate(SOURCE.splitlines(), start=1) if line.strip() and i not in docs]
    assert len(lines) <= 200


def test_the_oracle_imports_nothing_but_the_standard_library() -> None:
    imported = {
        name.split(".")[0]
        for node in ast.walk(ast.parse(SOURCE))
        for name in (
            [alias.name for alias in node.names]
            if isinstance(node, ast.Import)
            else [node.module or ""]
            if isinstance(node, ast.ImportFrom)
            else []
        )
    }
    assert imported <= {"__future__", "collections", "itertools", "typing"}


def test_a_metric_over_nothing_is_nothing_and_a_sum_over_nothing_is_zero() -> None:
    got = metrics({})
    assert got["plays"] == got["watch_time_ms"] == 0
    assert [name for name in METRICS if got[name] is not None] == ["watch_time_ms"]
