"""What a query may be refused for. Codes are those of `model/problems.py`; every refusal says what would be right."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Sequence


class QueryProblem(Exception):  # noqa: N818 - it is named for what the caller gets, a problem document
    """A refused query: `code` and `status` of the problem, `detail` in a sentence, `errors` field by field."""

    def __init__(self, code: str, status: int = 422, detail: str = "", errors: Sequence[dict[str, str]] = ()) -> None:
        super().__init__(detail or code)
        self.code = code
        self.status = status
        self.detail = detail
        self.errors = list(errors)


class Refusals:
    """Collects what is wrong with a query, so that one answer names all of it."""

    def __init__(self) -> None:
        self.errors: list[dict[str, str]] = []

    def add(self, field: str, code: str, detail: str) -> None:
        """Note one error; `field` is a path like `metrics[1]`."""
        self.errors.append({"field": field, "code": code, "detail": detail})

    def raise_if_any(self) -> None:
        """Raise the first error's problem, carrying all of them."""
        if self.errors:
            first = self.errors[0]
            more = f" ({len(self.errors) - 1} more in errors)" if len(self.errors) > 1 else ""
            raise QueryProblem(first["code"], 422, f"{first['field']}: {first['detail']}{more}", self.errors[:20])


def nearest(word: str, known: Iterable[str]) -> str:
    """Return "Did you mean …?" with up to three known names, or the list of all where none is near."""
    names = list(known)
    close = difflib.get_close_matches(word, names, n=3, cutoff=0.5)
    if close:
        return f"Did you mean {' or '.join(close)}?"
    shown = names if len(names) <= 20 else [*names[:20], "…"]
    return f"There are: {', '.join(shown)}."
