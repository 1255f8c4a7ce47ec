"""Requests that the OpenAPI document allows, and such that it does not, against a running product.

Whatever is asked, with whichever key: no answer is a 5xx, and each has a status, a content type and a shape that the
document names. `VIEWMETER_TEST_EXAMPLES` sets how many requests per operation and key (default 3; `make fuzz` 100),
`VIEWMETER_TEST_SEED` which.
"""

from __future__ import annotations

import json
import os
import time
from collections import Counter
from typing import Any

import httpx
import pytest
import requests
import schemathesis
from hypothesis import HealthCheck, Phase, given, seed, settings
from running import Product, viewmeter
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_schema_conformance,
    status_code_conformance,
)

EXAMPLES = int(os.environ.get("VIEWMETER_TEST_EXAMPLES", "3"))
CHECKS = [not_a_server_error, status_code_conformance, content_type_conformance, response_schema_conformance]
STREAMS = "/api/v1/live"  # its good answers have no end: the first event is read
DESCRIBED_UNAVAILABLE = 503  # a bound that was met: documented, with Retry-After
KEYS = ("admin", "read", "ingest", "none")


@pytest.fixture(scope="module")
def keys(product: Product) -> dict[str, str]:
    made = viewmeter("keys", "create", "--data", product.data, "--tenant", "acme", "--scope", "read", "--json")
    assert made.returncode == 0, made.stderr
    read = json.loads(made.stdout)["key"]
    return {"admin": product.secret_key, "read": read, "ingest": product.ingest_key, "none": ""}


@pytest.mark.parametrize("key", KEYS)
def test_each_answer_is_one_that_the_document_names(product: Product, keys: dict[str, str], key: str) -> None:
    dice = int(os.environ.get("VIEWMETER_TEST_SEED", time.time_ns() % 1_000_000))
    print(f"VIEWMETER_TEST_SEED={dice}")
    document = httpx.get(f"{product.base_url}/openapi.json", timeout=30).json()
    config = schemathesis.Config.from_dict({"generation": {"with-security-parameters": False}})
    schema = schemathesis.openapi.from_dict(document, config=config)
    headers = {"Authorization": f"Bearer {keys[key]}"} if keys[key] else {}
    tally: Counter[int] = Counter()
    wrong: list[str] = []
    for found in schema.get_all_operations():
        operation = found.ok()
        try:
            ask_often(operation, product.base_url, headers, dice, tally)
        except BaseException as problem:  # all operations are tried; an ExceptionGroup of several is one too
            if isinstance(problem, KeyboardInterrupt):
                raise
            wrong.append(f"{operation.label}: {told(problem)}")
    print(f"{key}: {sum(tally.values())} answers: {dict(sorted(tally.items()))}")
    assert not wrong, "\n\n".join(wrong)
    assert tally, "nothing was asked"


def ask_often(operation: Any, base_url: str, headers: dict[str, str], dice: int, tally: Counter[int]) -> None:
    """Send requests that are meant and requests that are not to one operation; check each answer."""

    @seed(dice)
    @settings(
        max_examples=EXAMPLES,
        deadline=None,
        database=None,
        phases=[Phase.generate],  # the first failure is told as it is: shrinking asks a product that has moved on
        suppress_health_check=list(HealthCheck),
    )
    @given(case=operation.as_strategy() | operation.as_strategy(generation_mode=schemathesis.GenerationMode.NEGATIVE))
    def ask(case: Any) -> None:
        if operation.path == STREAMS:
            if (status := first_of_stream(case, base_url, headers)) is not None:
                tally[status] += 1
            return
        answer = case.call(base_url=base_url, headers=headers, timeout=30)
        tally[answer.status_code] += 1
        if answer.status_code == DESCRIBED_UNAVAILABLE and "retry-after" in answer.headers:
            case.validate_response(answer, checks=CHECKS[1:])
        else:
            case.validate_response(answer, checks=CHECKS)

    ask()


def first_of_stream(case: Any, base_url: str, headers: dict[str, str]) -> int | None:
    """Check an answer that has no end by its first event, any other like those of other operations.

    Returns its status; None: what was made up cannot be sent (a header with a line break).
    """
    asked = case.as_transport_kwargs(base_url=base_url, headers=headers)
    try:
        answer = requests.request(**asked, stream=True, timeout=30)
    except (requests.exceptions.InvalidHeader, UnicodeError):
        return None
    with answer:
        if answer.status_code == 200:
            assert answer.headers["content-type"].partition(";")[0] == "text/event-stream"
            fields = (line.partition(": ") for line in answer.iter_lines(chunk_size=1, decode_unicode=True))
            name, data = (next(value for field, _, value in fields if field == wanted) for wanted in ("event", "data"))
            assert name == "metrics"
            assert isinstance(json.loads(data), dict)
        elif answer.status_code == DESCRIBED_UNAVAILABLE:
            assert "retry-after" in answer.headers
            case.validate_response(answer, checks=CHECKS[1:])
        else:
            case.validate_response(answer, checks=CHECKS)
    return int(answer.status_code)


def told(problem: BaseException) -> str:
    """Return what is wrong, of each part of a group."""
    if isinstance(problem, BaseExceptionGroup):
        return "\n".join(told(part) for part in problem.exceptions)
    return f"{type(problem).__name__}: {problem}"
