"""What a child process is told: its settings and its place. It travels as one JSON line over the child's stdin.

The same pipe then stays open as a lifeline: when it ends the supervisor is gone, however it went, and the child
drains and ends too. (A pipe rather than PR_SET_PDEATHSIG: that one fires when the starting *thread* ends, does
nothing outside of Linux, and cannot ask nicely first.)
"""

from __future__ import annotations

import os
import signal
import threading
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import msgspec

from viewmeter.supervisor.settings import ServerSettings

MAX_LINE_BYTES: Final = 1 << 20
ORPHANED_EXIT: Final = 70


@dataclass(frozen=True)
class Assignment:
    """A child's whole input beside the data folder's content."""

    server: ServerSettings
    config: msgspec.Raw  # all settings as JSON, secrets too; only the children read them (see config.parse)
    data: Path
    socket: Path  # the engine listens here; the collectors reach it here
    host: str
    port: int
    workers: int
    partition: int = 0  # of a collector worker; the engine has none
    buckets: int | None = None  # an inherited file descriptor: where the collectors count requests together

    @property
    def run(self) -> Path:
        """The folder of sockets, lock and metrics."""
        return self.data / "run"


def _decode_path(kind: type, value: object) -> Path:
    if kind is Path and isinstance(value, str):
        return Path(value)
    raise TypeError(f"{kind!r} is not part of an assignment")


def dump(assignment: Assignment) -> bytes:
    """Return the assignment as one JSON line; it may hold secrets."""
    return msgspec.json.encode(assignment, enc_hook=str) + b"\n"


def parse(line: bytes) -> Assignment:
    """Return the assignment that `dump` wrote."""
    return msgspec.json.decode(line, type=Assignment, dec_hook=_decode_path)


def receive() -> Assignment:
    """Read the assignment of this process and follow its supervisor from now on, also into the end."""
    # Ctrl-C reaches the whole process group, but only the supervisor knows in which order to stop.
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    line = bytearray()
    while not line.endswith(b"\n"):
        part = os.read(0, 65_536)
        line += part
        if not part or len(line) > MAX_LINE_BYTES:
            raise SystemExit("this process is started by `viewmeter up`, with its settings on stdin")
    assignment = parse(bytes(line))
    threading.Thread(target=_follow, args=(assignment.server.drain_timeout_s,), name="lifeline", daemon=True).start()
    return assignment


def _follow(drain_timeout_s: float) -> None:
    while os.read(0, 64):
        pass
    os.kill(os.getpid(), signal.SIGTERM)
    # Whatever hangs in the drain must not keep the data folder locked for ever.
    threading.Event().wait(drain_timeout_s)
    os._exit(ORPHANED_EXIT)
