"""One child process and its life: started, followed, started again, drained.

The pause before a start after a death doubles from 0.1 s up to a bound; a child that has lived for 30 s begins anew at
0.1 s. So a crash costs little, and a child that cannot live does not burn the machine.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import sys
import time
from collections.abc import Mapping, Sequence
from typing import Final

import structlog

log = structlog.get_logger(__name__)

FIRST_DELAY_S: Final = 0.1
HEALTHY_AFTER_S: Final = 30.0


def next_delay(delay_s: float, lived_s: float, bound_s: float) -> float:
    """Return the pause before the next start of a child that lived for `lived_s`; `delay_s` was the last one."""
    if lived_s >= HEALTHY_AFTER_S or delay_s == 0:
        return min(FIRST_DELAY_S, bound_s)
    return min(delay_s * 2, bound_s)


class Child:
    """A process `python -m module`, kept alive until `drain` is called."""

    def __init__(
        self,
        name: str,
        module: str,
        assignment: bytes,
        *,
        keep_open: Sequence[int],
        environment: Mapping[str, str],
        max_delay_s: float,
    ) -> None:
        self.name = name
        self.deaths = 0
        self._command = (sys.executable, "-m", module)
        self._assignment = assignment
        self._keep_open = tuple(keep_open)
        self._environment = {**os.environ, **environment}
        self._max_delay_s = max_delay_s
        self._process: asyncio.subprocess.Process | None = None
        self._stopping = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    @property
    def pid(self) -> int | None:
        """The process id while it runs."""
        return self._process.pid if self._process and self._process.returncode is None else None

    def start(self) -> None:
        """Start the process and keep it alive."""
        self._task = asyncio.get_running_loop().create_task(self._keep_alive(), name=self.name)

    async def _keep_alive(self) -> None:
        delay_s = 0.0
        while not self._stopping.is_set():
            started = time.monotonic()
            code = await self._live_once()
            if self._stopping.is_set():
                return
            self.deaths += 1
            delay_s = next_delay(delay_s, time.monotonic() - started, self._max_delay_s)
            log.error(
                "process died and is started again", name=self.name, exit=code, pause_s=delay_s, deaths=self.deaths
            )
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._stopping.wait(), delay_s)

    async def _live_once(self) -> int:
        process = await asyncio.create_subprocess_exec(
            *self._command,
            stdin=asyncio.subprocess.PIPE,
            pass_fds=self._keep_open,
            env=self._environment,
        )
        self._process = process
        log.debug("process started", name=self.name, pid=process.pid)
        assert process.stdin is not None  # asked for above
        with contextlib.suppress(ConnectionError):
            process.stdin.write(self._assignment)
            await process.stdin.drain()
        if self._stopping.is_set():  # asked to stop between the spawn and here
            self._signal(signal.SIGTERM)
        return await process.wait()

    def _signal(self, number: signal.Signals) -> None:
        if self._process is not None and self._process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                self._process.send_signal(number)

    def kill(self) -> None:
        """End the process at once; it is started again unless it is being drained."""
        self._signal(signal.SIGKILL)

    async def drain(self, timeout_s: float) -> bool:
        """Ask the process to finish and return whether it did in time; otherwise it was killed."""
        self._stopping.set()
        if self._task is None:
            return True
        self._signal(signal.SIGTERM)
        done, _ = await asyncio.wait((self._task,), timeout=timeout_s)
        if done:
            return True
        log.error("process did not finish in time and was killed", name=self.name, timeout_s=timeout_s)
        self.kill()
        await asyncio.wait((self._task,), timeout=5)
        return False
