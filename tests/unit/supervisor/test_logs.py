"""Logs: whole lines, and never the reason why something else fails."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from viewmeter.supervisor.logs import LogFile


@pytest.fixture
def pipe() -> tuple[int, int]:
    return os.pipe()


def test_a_line_is_one_write(pipe: tuple[int, int]) -> None:
    read, write = pipe
    assert LogFile(write).write("a line\n") == 7
    assert os.read(read, 100) == b"a line\n"


def test_a_reader_that_is_gone_fails_nobody(pipe: tuple[int, int]) -> None:
    read, write = pipe
    os.close(read)
    assert LogFile(write).write("a line\n") == 7


_IN_A_PROCESS = """
import resource, sys, threading
from viewmeter.supervisor import logs
from viewmeter.supervisor.settings import ServerSettings
import logging, structlog
logs.configure(ServerSettings(log_format="json"), "test")
log = structlog.get_logger()
log.warning("before")
resource.setrlimit(resource.RLIMIT_FSIZE, (200, resource.RLIM_INFINITY))
for _ in range(9):
    log.warning("on a full disk", padding="x" * 50)
logging.getLogger("library").warning("on a full disk too")
resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
log.warning("after")
print("alive")
"""


def test_a_full_disk_fails_nobody_and_says_how_much_is_missing(tmp_path: Path) -> None:
    stderr = tmp_path / "stderr"
    with stderr.open("wb") as file:
        answer = subprocess.check_output([sys.executable, "-c", _IN_A_PROCESS], stderr=file, timeout=60)
    assert answer == b"alive\n"
    first, torn, lost, after = stderr.read_text().splitlines()
    assert '"before"' in first
    assert '"on a full disk"' in torn
    assert lost == '{"event": "log lines lost", "lines": 10, "level": "warning"}'
    assert '"after"' in after
