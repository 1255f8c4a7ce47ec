"""How commands speak: results to stdout (as JSON alone, or for people), everything else to stderr."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from typing import Any


class CommandError(Exception):
    """A command that cannot do its work; the text is one sentence that says what to do."""


def complain(sentence: str) -> None:
    """Say on stderr what went wrong."""
    note(f"viewmeter: {' '.join(sentence.split())}")


def note(sentence: str) -> None:
    """Tell a person something on stderr; stdout stays the result's."""
    sys.stderr.write(sentence + "\n")
    sys.stderr.flush()


def say(text: str) -> None:
    """Print a line to stdout, at once also into a pipe."""
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


def result(data: Any, text: str, as_json: bool) -> None:
    """Print the result of a command."""
    say(json.dumps(data, ensure_ascii=False, default=str) if as_json else text)


def table(headings: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    """Return rows as aligned text, which `grep` and `awk` can read as well as people."""
    cells = [list(headings), *[[str(cell) for cell in row] for row in rows]]
    widths = [max(len(row[i]) for row in cells) for i in range(len(headings))]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) for row in cells]
    return "\n".join(line.rstrip() for line in lines)
