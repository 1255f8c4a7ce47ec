"""Blocking work off the event loop: few threads, a bounded queue, a time limit.

In: a function. Out: its result, or `busy` (503) when too many wait, or `timeout` (504) when it took too long.
A thread cannot be stopped: after a time-out it ends by itself and holds its place until then, so a flood of
slow questions is answered `busy` instead of piling up.
"""

from __future__ import annotations

import asyncio
import contextvars
import threading
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, TypeVar

from viewmeter.web.problems import ProblemError

_Result = TypeVar("_Result")


class Threads:
    """A bounded pool for one kind of work."""

    def __init__(self, name: str, threads: int, waiting: int, timeout_s: float) -> None:
        self._name = name
        self._pool = ThreadPoolExecutor(threads, thread_name_prefix=f"web-{name}")
        self._most = threads + waiting
        self._timeout_s = timeout_s
        self._pending = 0
        self._lock = threading.Lock()

    async def run(self, work: Callable[..., _Result], *arguments: Any) -> _Result:
        """Run `work(*arguments)` in a thread. Raises `ProblemError`, and whatever the work raises."""
        with self._lock:
            if self._pending >= self._most:
                raise ProblemError("busy", f"{self._pending} requests of kind `{self._name}` are running or waiting.")
            self._pending += 1
        try:
            future = self._pool.submit(contextvars.copy_context().run, work, *arguments)
        except BaseException:
            self._done(None)
            raise
        future.add_done_callback(self._done)
        done, _ = await asyncio.wait({asyncio.wrap_future(future)}, timeout=self._timeout_s)
        if not done:
            future.cancel()  # helps where it still waited for a thread
            raise ProblemError("timeout", f"It took more than {self._timeout_s:g} s. Ask for less, or later.")
        return done.pop().result()

    def close(self) -> None:
        """Take no more work; what runs ends by itself."""
        self._pool.shutdown(wait=False, cancel_futures=True)

    def _done(self, _: Future[Any] | None) -> None:
        with self._lock:
            self._pending -= 1
