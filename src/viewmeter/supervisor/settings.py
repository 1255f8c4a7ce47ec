"""Settings of the process tree; in a module of their own, so that the supervisor stays small in memory."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class ServerSettings:
    """Where the product listens, and how its processes are kept."""

    host: str = "127.0.0.1"
    """Address to listen on. Loopback unless told otherwise."""
    port: int = 8080
    """Port to listen on; 0 takes a free one (it is written to `run/url` in the data folder)."""
    workers: int = 0
    """Collector processes; 0 = one less than the machine has cores, at least one."""
    drain_timeout_s: float = 30.0
    """How long a process may take to finish after SIGTERM before it is killed."""
    start_timeout_s: float = 120.0
    """How long the engine may take to recover and listen before it is started anew."""
    max_restart_delay_s: float = 10.0
    """Upper bound of the pause before a process that died again is started again."""
    log_format: Literal["auto", "json", "pretty"] = "auto"
    """`json` lines, `pretty` for people, or by whether stderr is a terminal."""
    log_level: Literal["debug", "info", "warning", "error"] = "info"
    """The least severity that is logged."""
