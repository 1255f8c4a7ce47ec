"""This process and workers beside it, who do the steps of a run one by one.

In: how to do a step (here), and how to start a worker that does the same. Out: nothing; steps leave files. Processes,
not threads: most of what a step calls in numpy holds the interpreter's lock. Whoever is free takes the next number, so
steps need not be of one size. Promised: the first problem ends the round and is raised; a worker whose parent is gone
ends at once.
"""

from __future__ import annotations

import contextlib
import os
import queue
import subprocess
import sys
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from types import TracebackType
from typing import Final, Self

from viewmeter.batch.protocol import BatchFailedError

Do = Callable[[str, int], None]
"""Does a step: (its name, its number)."""

_DONE: Final = "done"


class Crew:
    """A context: the workers end with it."""

    def __init__(self, do: Do, command: list[str], beside: int) -> None:
        """`command` starts a worker: a process that calls `serve` with the same `do`."""
        self._do, self._command, self._beside = do, command, beside
        self._workers: list[_Worker] = []
        self.wall_s: dict[str, float] = {}
        self.cpu_s: dict[str, float] = defaultdict(float)

    def __enter__(self) -> Self:
        self._workers = [_Worker(self._command) for _ in range(self._beside)]
        return self

    def __exit__(
        self, kind: type[BaseException] | None, problem: BaseException | None, at: TracebackType | None
    ) -> None:
        for worker in self._workers:
            worker.end()

    def each(self, step: str, numbers: Iterable[int]) -> None:
        """Do a step with each number; return when all are done."""
        begun = time.perf_counter()
        waiting, taking = iter(numbers), threading.Lock()

        def work(do: Callable[[str, int], float]) -> None:
            nonlocal waiting
            while True:
                with taking:
                    number = next(waiting, None)
                if number is None:
                    return
                try:
                    took = do(step, number)
                except BaseException:
                    with taking:
                        waiting = iter(())
                    raise
                with taking:
                    self.cpu_s[step] += took

        hands = [self._here, *(worker.do for worker in self._workers)]
        with ThreadPoolExecutor(len(hands)) as pool:
            list(pool.map(work, hands))
        self.wall_s[step] = time.perf_counter() - begun

    def _here(self, step: str, number: int) -> float:
        begun = time.thread_time()
        self._do(step, number)
        return time.thread_time() - begun


class _Worker:
    """A process that is told steps on its standard input, and answers each in one line."""

    def __init__(self, command: list[str]) -> None:
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    def do(self, step: str, number: int) -> float:
        """Have a step done; return the CPU time it took, in seconds."""
        process = self._process
        assert process.stdin is not None
        assert process.stdout is not None
        with contextlib.suppress(OSError):  # it is gone: there is no answer either
            process.stdin.write(f"{step} {number}\n")
            process.stdin.flush()
        word, _, rest = process.stdout.readline().strip().partition(" ")
        if word != _DONE:
            raise BatchFailedError(f"{word} {rest}" if word else f"a worker ended in the step {step} {number}")
        return float(rest)

    def end(self) -> None:
        """End the process, whatever it does."""
        self._process.kill()
        self._process.communicate()


def serve(do: Do) -> None:
    """Be a worker: do what is told, until the parent ends this process or is gone itself."""
    told: queue.SimpleQueue[str] = queue.SimpleQueue()

    def listen() -> None:
        for line in sys.stdin:
            told.put(line)
        os._exit(1)  # also in the midst of a step: nobody waits for it

    threading.Thread(target=listen, daemon=True).start()
    while True:
        step, number = told.get().split()
        begun = time.process_time()
        try:
            do(step, int(number))
            said = f"{_DONE} {time.process_time() - begun:.3f}"
        except Exception as problem:  # noqa: BLE001  the parent raises it
            said = f"{type(problem).__name__}: {problem}".replace("\n", " ")
        sys.stdout.write(f"{said}\n")
        sys.stdout.flush()
