"""The process of the demo's live viewers (who they are: `crowd.py`).

In: a `Task` as a line on stdin. Out: beacons to the product of that folder, until stdin ends, which is when the
product has ended.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import signal
import sys
import time
import webbrowser
from collections.abc import Coroutine
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import aiohttp
import msgspec

from viewmeter.cli.crowd import Crowd
from viewmeter.cli.output import say
from viewmeter.cli.sending import send
from viewmeter.supervisor import lock

POLL_S: Final = 0.2
READY_WITHIN_S: Final = 120.0

LANES: Final = 16


@dataclass(frozen=True)
class Task:
    """What the viewers' process is told."""

    data: str
    key: str
    signin_token: str
    crowd: Crowd
    remove: bool  # the folder, at the end
    open_browser: bool


def main() -> None:
    """Follow the product from its start to its end."""
    for number in (signal.SIGINT, signal.SIGTERM):  # the end comes by the pipe, after the product's own
        signal.signal(number, signal.SIG_IGN)
    task = msgspec.json.decode(sys.stdin.buffer.readline(), type=Task)
    with contextlib.suppress(Exception):  # nothing that goes wrong here may look like the product's fault
        asyncio.run(_until_stdin_ends(_watch(task)))
    if task.remove:
        deadline = time.monotonic() + READY_WITHIN_S
        while lock.running(Path(task.data)) is not None and time.monotonic() < deadline:
            time.sleep(POLL_S)
        shutil.rmtree(task.data, ignore_errors=True)


async def _until_stdin_ends(work: Coroutine[Any, Any, None]) -> None:
    loop = asyncio.get_running_loop()
    ended = loop.run_in_executor(None, _read_to_end)
    task = loop.create_task(work)
    await asyncio.wait((ended, task), return_when=asyncio.FIRST_COMPLETED)
    if not ended.done():
        await ended
    task.cancel()
    with contextlib.suppress(asyncio.CancelledError, Exception):
        await task


def _read_to_end() -> None:
    while os.read(0, 4096):
        pass


async def _watch(task: Task) -> None:
    url = await _ready(Path(task.data))
    link = f"{url}/signin?token={task.signin_token}"
    say(f"dashboard   {link}   (works once)")
    if task.open_browser and (
        os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY") or sys.platform == "darwin"
    ):
        webbrowser.open(link)
    crowd = task.crowd
    begun = time.monotonic() - (time.time_ns() // 1_000_000 - crowd.opened_ms) / 1000
    await send(
        crowd.sent(crowd.opened_ms),
        to=url,
        key=task.key,
        due=lambda at_ms: begun + (at_ms - crowd.opened_ms) / 1000,
        lanes=LANES,
    )


async def _ready(data: Path) -> str:
    async with (
        aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=5)) as session,
        asyncio.timeout(READY_WITHIN_S),
    ):
        while True:
            with contextlib.suppress(OSError, aiohttp.ClientError, TimeoutError):
                url = (data / "run" / "url").read_text().strip()
                async with session.get(f"{url}/readyz") as answer:
                    if answer.status == 200:
                        return url
            await asyncio.sleep(POLL_S)


if __name__ == "__main__":
    main()
