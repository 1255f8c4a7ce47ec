"""What commands need that work on a whole data folder: have it for themselves, or ask the engine that has it."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final

from viewmeter.cli.output import CommandError
from viewmeter.supervisor import lock
from viewmeter.upkeep import orders

ANSWER_TIMEOUT_S: Final = 600.0
POLL_S: Final = 0.1


def alone_or_asked(
    data: Path, name: str, values: Mapping[str, Any], alone: Callable[[], dict[str, Any]]
) -> dict[str, Any]:
    """Do it with the folder's lock where nothing runs on it, else order it from the engine and wait for the answer."""
    deadline = time.monotonic() + ANSWER_TIMEOUT_S
    while time.monotonic() < deadline:
        if lock.running(data) is None:
            try:
                held = lock.take(data, wait_s=0)
            except lock.DataFolderInUseError:
                continue  # it has just been started
            try:
                return alone()
            finally:
                os.close(held)
        answer = _asked(data, orders.place(data, name, values), deadline)
        if answer is not None:
            return answer
    raise CommandError(f"the product on {data} did not answer within {ANSWER_TIMEOUT_S:g} s: see its log")


def _asked(data: Path, order: orders.Order, deadline: float) -> dict[str, Any] | None:
    """Return the engine's answer, or None where the product stopped before it began."""
    while time.monotonic() < deadline:
        try:
            answer = order.answer()
        except orders.OrderError as problem:
            raise CommandError(str(problem)) from None
        if answer is not None:
            return answer
        if lock.running(data) is None and order.withdraw():
            return None
        time.sleep(POLL_S)
    order.withdraw()
    return None
