"""Logs of every process: structlog to stderr, JSON lines or for people's eyes.

Promised: no personal data (no addresses, no ids of viewers, no keys): rooms log counts and reasons. A log that cannot
be written (its disk is full, its reader is gone) never fails what is logged about: lines are counted, and the count is
told in the first line that can be written again.
"""

from __future__ import annotations

import io
import logging
import os
import sys
from typing import TextIO, cast

import structlog

from viewmeter.supervisor.settings import ServerSettings


class LogFile(io.TextIOBase):
    """A file descriptor that takes whole lines, each in one write, and never raises."""

    def __init__(self, fd: int) -> None:
        self._fd = fd
        self._lost = 0
        self._torn = False

    def write(self, text: str) -> int:
        """Write, or count the lines as lost."""
        line = text.encode(errors="replace")
        before = b"\n" if self._torn else b""
        if self._lost:
            before += b'{"event": "log lines lost", "lines": %d, "level": "warning"}\n' % self._lost
        try:
            written = os.write(self._fd, before + line)
        except OSError:
            self._lost += line.count(b"\n")
            return len(text)
        self._torn = written < len(before) + len(line)  # the disk took a part: what is missing is not worth a wait
        self._lost = (0 if written >= len(before) else self._lost) + self._torn
        return len(text)


def configure(settings: ServerSettings, process: str) -> None:
    """Set up logging of this process, also for libraries that use the standard library's."""
    target = LogFile(sys.stderr.fileno())
    pretty = settings.log_format == "pretty" or (settings.log_format == "auto" and sys.stderr.isatty())
    level = logging.getLevelNamesMapping()[settings.log_level.upper()]
    shared: list[structlog.typing.Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
    ]
    renderer: structlog.typing.Processor = (
        structlog.dev.ConsoleRenderer() if pretty else structlog.processors.JSONRenderer()
    )
    tail: list[structlog.typing.Processor] = [] if pretty else [structlog.processors.format_exc_info]
    structlog.configure(
        processors=[*shared, *tail, renderer],
        wrapper_class=structlog.make_filtering_bound_logger(level),
        logger_factory=structlog.WriteLoggerFactory(cast(TextIO, target)),
        cache_logger_on_first_use=True,
    )
    structlog.contextvars.bind_contextvars(process=process)
    handler = logging.StreamHandler(target)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=shared,
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, *tail, renderer],
        )
    )
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(max(level, logging.WARNING))  # libraries speak up only when something is wrong
