"""Orders to the engine, files in `run/orders`: how a command gets something done by the process that holds the store.

In: an order's name and values. Out: its answer. Promised: an order is carried out once and answered, or withdrawn by
whoever placed it; an order that an engine died over is taken up by the next engine. Who may write into the data folder
may order: there is no other key. Not done: a queue of more than `MAX_ORDERS`.
"""

from __future__ import annotations

import contextlib
import json
import secrets
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import structlog

POLL_S: Final = 0.2
MAX_ORDERS: Final = 100

log = structlog.get_logger(__name__)

Handler = Callable[[dict[str, Any]], dict[str, Any] | None]
"""Carries an order out and returns the answer; None: not now, it stays where it is."""


class OrderError(Exception):
    """The order could not be carried out; the text says why."""


@dataclass(frozen=True)
class Order:
    """An order that was placed."""

    path: Path

    @property
    def _answer(self) -> Path:
        return self.path.with_suffix(".answer")

    def withdraw(self) -> bool:
        """Take the order back; return whether that was in time."""
        try:
            self.path.unlink()
        except FileNotFoundError:
            return False
        return True

    def answer(self) -> dict[str, Any] | None:
        """Return the answer, once; None while there is none. Raises `OrderError` where it failed."""
        try:
            found: dict[str, Any] = json.loads(self._answer.read_text())
        except FileNotFoundError:
            return None
        self._answer.unlink(missing_ok=True)
        if "failed" in found:
            raise OrderError(str(found["failed"]))
        return found


def _folder(data: Path) -> Path:
    return data / "run" / "orders"


def place(data: Path, name: str, values: Mapping[str, Any]) -> Order:
    """Put an order where the engine sees it."""
    folder = _folder(data)
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    path = folder / f"{time.time_ns()}-{secrets.token_hex(4)}.json"
    _write(path, {"order": name, **values})
    return Order(path)


def carry_out(data: Path, handlers: Mapping[str, Handler]) -> int:
    """Carry out what was ordered and these handlers know; return how many orders were answered."""
    done = 0
    for path in sorted(_folder(data).glob("*.json"))[:MAX_ORDERS]:
        try:
            values = json.loads(path.read_text())
            handler = handlers.get(str(values.pop("order")))
            answer = handler(values) if handler is not None else None
        except FileNotFoundError:
            continue  # withdrawn
        except Exception as error:
            log.exception("order_failed", order=path.stem)
            answer = {"failed": str(error) or type(error).__name__}
        if answer is not None:
            _write(path.with_suffix(".answer"), answer)
            path.unlink(missing_ok=True)
            done += 1
    return done


def _write(path: Path, values: Mapping[str, Any]) -> None:
    making = path.with_suffix(".tmp")
    making.touch(mode=0o600)
    making.write_text(json.dumps(values))
    making.replace(path)


class OrderDesk:
    """Looks for orders in a thread."""

    def __init__(self, data: Path, handlers: Mapping[str, Handler]) -> None:
        self._data, self._handlers = data, handlers
        self._stopping = threading.Event()
        self._thread: threading.Thread | None = None
        with contextlib.suppress(OSError):  # answers that nobody fetched
            for path in _folder(data).glob("*.answer"):
                if time.time() - path.stat().st_mtime > 86_400:
                    path.unlink()

    def start(self) -> None:
        """Begin; idempotent."""
        if self._thread is None:
            self._thread = threading.Thread(target=self._run, name="orders", daemon=True)
            self._thread.start()

    def stop(self) -> None:
        """End, after the order under way. Idempotent."""
        self._stopping.set()
        thread, self._thread = self._thread, None
        if thread is not None:
            thread.join()

    def _run(self) -> None:
        while not self._stopping.wait(POLL_S):
            carry_out(self._data, self._handlers)
