"""`viewmeter demo`: a past, live viewers, and nothing left behind."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import httpx
from running import clean_environment, wait_until


def test_the_demo_shows_a_past_and_live_viewers_and_cleans_up(tmp_path: Path) -> None:
    place = tmp_path / "temporary"
    place.mkdir()
    log = tmp_path / "log"
    with log.open("wb") as out:
        process = subprocess.Popen(
            [sys.executable, "-m", "viewmeter.cli", "demo", "--port", "0", "--days", "2", "--viewers", "30"],
            stdin=subprocess.DEVNULL, stdout=out, stderr=out, start_new_session=True,
            env={**clean_environment(), "TMPDIR": str(place)},
        )  # fmt: skip
    try:
        said = log.read_text
        wait_until("the sign-in link", lambda: "/signin?token=" in said() or process.poll() is not None)
        link = re.search(r"http://\S+/signin\?token=\S+", said())
        assert link is not None, said()
        base_url = link.group().partition("/signin")[0]
        with httpx.Client(base_url=base_url, timeout=30) as browser:
            assert browser.get(link.group()).status_code in (200, 302, 303, 404)

            def live() -> bool:
                return bool(browser.get("/api/v1/analytics/realtime/platform").json()["concurrent_viewers"] > 5)

            wait_until("live viewers", live)
            question = {"time_range": "7d", "granularity": "day", "metrics": "plays,unique_viewers"}
            rows = browser.get("/api/v1/analytics/query", params=question).json()["rows"]
            full_day = max(rows, key=lambda row: row["plays"])
            assert full_day["plays"] > full_day["unique_viewers"] > 1_000
        process.send_signal(signal.SIGTERM)
        assert process.wait(60) == 0, said()
        wait_until("the throw-away folder to be gone", lambda: not list(place.iterdir()))
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
