"""Recordings of real players, posted as they came to the running product, against the truth of their `<video>`.

Each recording has a channel of its own, so that the channel's numbers are those of its one view.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol

import httpx
import pytest

from viewmeter.testing.recordings import Expectation, differences, expectation
from viewmeter.testing.replay import replay

ROOT = Path(__file__).parents[2]
COMMITTED = ROOT / "tests" / "data" / "recordings"
SHARED = ROOT.parent / "shared" / "data" / "players"
IN_ALL = 51

# Failures of unknown fatality and exits before the start are counted at the end of a view, five minutes after its
# last event: they are not asked for here but by the unit tests.
METRICS = {
    "attempts": "attempts",
    "plays": "plays",
    "completes": "completes",
    "events": "events",
    "watch_time_ms": "played_ms",
    "rebuffer_count": "rebuffer_count",
    "rebuffer_time_ms": "rebuffered_ms",
    "startup_time_avg_ms": "startup_ms",
    "lost_events": "lost_events",
    "duplicate_events": "duplicate_events",
}


class Product(Protocol):
    """What of the `product` fixture is used here."""

    base_url: str
    ingest_key: str
    secret_key: str


def files() -> list[Path]:
    found = {path.stem: path for path in (*COMMITTED.glob("*.jsonl"), *SHARED.glob("*.jsonl"))}
    return [found[stem] for stem in sorted(found)]


def call(product: Product, method: str, path: str, **arguments: Any) -> Any:
    headers = {"Authorization": f"Bearer {product.secret_key}"}
    answer = httpx.request(method, product.base_url + path, headers=headers, timeout=60, **arguments)
    assert answer.status_code == 200, answer.text
    return answer.json()


def ask(product: Product, channel: str) -> dict[str, Any]:
    """Return the channel's totals."""
    now_ms = int(time.time() * 1000)
    query = {
        "channel_id": channel,
        "time_range": {"start": now_ms - 3_600_000, "end": now_ms + 3_600_000},
        "granularity": "total",
        "metrics": [*METRICS, "measured_ratio", "average_watch_duration_ms", "rebuffer_ratio"],
    }
    rows: list[dict[str, Any]] = call(product, "POST", "/api/v1/analytics/query", json=query)["rows"]
    assert len(rows) == 1
    return rows[0]


def numbers(row: Mapping[str, Any]) -> dict[str, float | None]:
    """Return the answer under the names of `differences()`."""
    found = {measure: row[metric] for metric, measure in METRICS.items()}
    found["blind_plays"] = row["plays"] * (1 - (row["measured_ratio"] if row["plays"] else 1))
    return found


def unknown_is_not_nothing(row: Mapping[str, Any], expected: Expectation) -> list[str]:
    """Of a player that tells no state, time per play and rebuffering are null, not 0."""
    if expected.tells_state:
        return []
    asked = ("average_watch_duration_ms", "rebuffer_ratio")
    return [f"{expected.name}: {name} is {row[name]}, it is unknown" for name in asked if row[name] is not None]


@pytest.mark.parametrize("recording", files(), ids=lambda path: path.stem)
def test_a_recording_counts_for_what_its_viewer_saw(product: Product, recording: Path) -> None:
    expected, channel = expectation(recording), f"recording-{recording.stem}"
    summary = replay(
        [recording],
        to=product.base_url,
        key=product.ingest_key,
        now_ms=int(time.time() * 1000),
        fast=True,
        shift_to_now=True,
        channel_id=channel,
    )
    wanted = 204 if expected.distinct else 422
    assert summary.statuses == {wanted: summary.posts}, summary.problems
    call(product, "POST", "/api/v1/admin/flush")
    row = ask(product, channel)
    assert differences(numbers(row), expected) + unknown_is_not_nothing(row, expected) == []


def test_all_recordings_were_there() -> None:
    if len(files()) < IN_ALL:
        pytest.skip(f"{IN_ALL - len(files())} recordings are not here: they are in ../shared/data/players")


def test_what_cannot_be_attributed_is_in_the_dead_letters_with_one_reason(product: Product) -> None:
    recording = COMMITTED / "dashjs_clean_default_keys.jsonl"
    summary = replay(
        [recording],
        to=product.base_url,
        key=product.ingest_key,
        now_ms=int(time.time() * 1000),
        fast=True,
        shift_to_now=True,
        channel_id="recording-dead",
    )
    assert summary.statuses == {422: summary.posts}
    page = call(product, "GET", "/api/v1/admin/dead-letters", params={"limit": 100, "code": "missing_field"})
    letters = [letter for letter in page["dead_letters"] if letter["dialect"] == "cmcd"]
    assert len(letters) >= summary.posts
    assert len({letter["detail"] for letter in letters}) == 1
