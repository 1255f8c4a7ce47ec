"""Measured views of YouTube through the whole product, and by an export into another: the numbers of the table.

The sample in `tests/data` is what a clone has; `VIEWMETER_TEST_YT_SESSIONS=FILE` takes the whole data set (10 K views).
"""

from __future__ import annotations

import importlib.util
import itertools
import json
import os
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from types import ModuleType
from typing import Any

import httpx
import numpy as np
import pytest
from running import Product, StartProduct, viewmeter

from viewmeter.model.catalogue import DIMENSIONS, METRICS
from viewmeter.model.catalogue.measures import KLL_RANK_ERROR
from viewmeter.model.time import DAY_MS, HOUR_MS, floor_to, to_ms
from viewmeter.query.plan import rollups_of

ROOT = Path(__file__).parents[2]
CONVERT = ROOT / "examples" / "yt_sessions" / "convert.py"
TABLE = Path(os.environ.get("VIEWMETER_TEST_YT_SESSIONS") or ROOT / "tests" / "data" / "yt_sessions" / "sample.csv")
WHOLE = TABLE.suffix == ".gz"
HOURS = 7 * 24 if WHOLE else 6
"""Into so many the views are pressed. Each hour is a run of the batch job of its own, in each of two products."""
EDGES_KBPS = (0, 300, 800, 1_500, 3_000, 6_000, 12_000)
QUANTILES = {
    "startup_time_p50_ms": 0.5, "startup_time_p95_ms": 0.95, "watch_duration_p50_ms": 0.5,
    "watch_duration_p90_ms": 0.9, "watch_duration_p95_ms": 0.95, "watch_duration_p99_ms": 0.99,
}  # fmt: skip


@dataclass
class Imported:
    """A product that has the views, and what the table says of each."""

    product: Product
    end_ms: int
    rows: list[dict[str, Any]]  # by view: channel_id, video_id, and what was measured

    @property
    def span(self) -> dict[str, int]:
        return {"start": self.end_ms - HOURS * HOUR_MS, "end": self.end_ms}


def load(name: str, path: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def told_by_the_table(end_ms: int) -> list[dict[str, Any]]:
    """Return each view as the data set has it; how a wait is split between start and stalls is the converter's plan."""
    import gzip

    convert = load("convert", CONVERT)
    with (gzip.open if TABLE.suffix == ".gz" else open)(TABLE, "rt") as file:
        sessions = convert.sessions(file)
    known, starts = convert.set_ups(sessions), convert.starts(sessions, end_ms, HOURS / 24)
    told = []
    for session in sessions:
        plan = convert.plan(session, known)
        shown_ms = starts[session.run_id] + plan.startup_ms
        told.append(
            {
                "shown_ms": shown_ms, "ended_ms": shown_ms + sum(session.played_ms) + sum(plan.stalls_ms),
                "view_id": session.run_id, "channel_id": session.category, "video_id": session.video,
                "played_ms": sum(session.played_ms), "stalls": session.stalls, "stalled_ms": sum(plan.stalls_ms),
                "startup_ms": plan.startup_ms, "kbps": dict(zip(session.kbps, session.played_ms, strict=True)),
            }
        )  # fmt: skip
    return told


@pytest.fixture(scope="module")
def imported(_products: StartProduct, tmp_path_factory: pytest.TempPathFactory) -> Imported:
    """Convert and import as the example's page says, beside the running product; its jobs count the hours."""
    end_ms = floor_to(time.time_ns() // 1_000_000, HOUR_MS) - HOUR_MS
    events = tmp_path_factory.mktemp("yt") / "events.jsonl"
    with events.open("w") as file:
        command = [sys.executable, str(CONVERT), str(TABLE), "--days", str(HOURS / 24), "--end-ms", str(end_ms)]
        subprocess.run(command, stdout=file, check=True, timeout=300)
    product = _products("--workers", "1")
    done = viewmeter("import", events, "--data", product.data, "--json")
    assert done.returncode == 0, done.stderr
    settle(product)
    return Imported(product, end_ms, told_by_the_table(end_ms))


def settle(product: Product) -> None:
    """Return when the batch layer has counted everything: a flush waits for stale hours, up to a time."""
    for _ in range(40):
        answer = httpx.post(f"{product.base_url}/api/v1/admin/flush", headers=product.headers, timeout=120)
        if answer.status_code != 504:
            break
    assert answer.status_code == 200, answer.text


def ask(product: Product, **body: Any) -> list[dict[str, Any]]:
    """Return all rows of an answer, page by page."""
    rows: list[dict[str, Any]] = []
    with httpx.Client(base_url=product.base_url, headers=product.headers, timeout=120) as client:
        while True:
            answer = client.post("/api/v1/analytics/query", json={"limit": 10_000, **body})
            assert answer.status_code == 200, answer.text
            found = answer.json()
            rows += found["rows"]
            if not (cursor := found["next_cursor"]):
                return rows
            body["cursor"] = cursor


def expected(rows: list[dict[str, Any]]) -> dict[str, Any]:
    """Return the distributions of some views, straight from the table."""
    played, stalled = (sum(row[name] for row in rows) for name in ("played_ms", "stalled_ms"))
    by_kbps: Counter[int] = Counter()
    for row in rows:
        by_kbps.update(row["kbps"])
    buckets = {str(low): 0 for low in EDGES_KBPS}
    for kbps, ms in by_kbps.items():
        buckets[str(max(low for low in EDGES_KBPS if low <= kbps))] += ms
    known = {kbps: ms for kbps, ms in by_kbps.items() if kbps > 0}
    return {
        "attempts": len(rows), "plays": len(rows), "completes": len(rows), "failures": 0, "exits_before_start": 0,
        "completion_rate": 1.0, "measured_ratio": 1.0, "lost_events": 0, "duplicate_events": 0,
        "watch_time_ms": played, "average_watch_duration_ms": played / len(rows),
        "rebuffer_count": sum(row["stalls"] for row in rows), "rebuffer_ratio": stalled / (played + stalled),
        "rebuffer_frequency": sum(row["stalls"] for row in rows) / (played / 60_000),
        "rebuffer_ratio_per_view":
            sum(row["stalled_ms"] / (row["stalled_ms"] + row["played_ms"]) for row in rows) / len(rows),
        "startup_time_avg_ms": sum(row["startup_ms"] for row in rows) / len(rows),
        "average_bitrate_kbps": sum(kbps * ms for kbps, ms in known.items()) / sum(known.values()),
        "unique_viewers_exact": len(rows), "bitrate_distribution": buckets,
    }  # fmt: skip


def compare(found: dict[str, Any], rows: list[dict[str, Any]], where: object) -> None:
    for name, wanted in expected(rows).items():
        if name == "bitrate_distribution":
            got = {key.split("_")[0]: ms for key, ms in found[name].items() if ms}
            assert got == {key: ms for key, ms in wanted.items() if ms}, (where, name)
        elif name == "rebuffer_ratio_per_view":
            assert found[name] == pytest.approx(wanted, abs=1e-8), (where, name)  # kept in parts of a billion
        else:
            assert found[name] == pytest.approx(wanted, rel=1e-12), (where, name)
    for name, quantile in QUANTILES.items():
        of = "startup_ms" if name.startswith("startup") else "played_ms"
        ordered = np.sort([row[of] for row in rows])
        # Times the stated bound of a single answer (99 %): there are hundreds of answers here.
        low, high = (np.searchsorted(ordered, found[name], side) / len(ordered) for side in ("left", "right"))
        assert low - 2 * KLL_RANK_ERROR <= quantile <= high + 2 * KLL_RANK_ERROR, (where, name, found[name])


NAMES = [*expected([{"played_ms": 1, "stalled_ms": 0, "stalls": 0, "startup_ms": 0, "kbps": {1: 1}}]), *QUANTILES]


def test_the_distributions_of_real_sessions_are_those_of_the_table(imported: Imported) -> None:
    (found,) = ask(imported.product, metrics=NAMES, time_range=imported.span, granularity="total")
    compare(found, imported.rows, "all")
    assert found["plays"] > 200


def test_so_they_are_in_each_channel_and_of_each_video(imported: Imported) -> None:
    for dimension in ("channel_id", "video_id"):
        names = NAMES if dimension == "channel_id" else [n for n in NAMES if n != "unique_viewers_exact"]
        found = ask(
            imported.product, metrics=names, time_range=imported.span, granularity="total", dimensions=[dimension]
        )
        groups: dict[str, list[dict[str, Any]]] = {}
        for row in imported.rows:
            groups.setdefault(row[dimension], []).append(row)
        assert {row[dimension] for row in found} == {*groups}
        for row in found:
            with_all = row if dimension == "channel_id" else {**row, "unique_viewers_exact": row["plays"]}
            compare(with_all, groups[row[dimension]], row[dimension])


def together() -> list[list[str]]:
    """Return the metrics in groups that the same rollups cover."""
    groups: dict[tuple[str, ...], list[str]] = {}
    for metric in METRICS.values():
        covered = rollups_of(metric)
        groups.setdefault((metric.kind, *covered), []).append(metric.name)
    return [*groups.values()]


def questions(end_ms: int) -> Iterator[dict[str, Any]]:
    """Yield every metric by every dimension, over several ranges and granularities; in the short form each over one."""
    day = floor_to(end_ms, DAY_MS)
    ranges = [
        ({"start": end_ms - HOURS * HOUR_MS, "end": end_ms}, "total"),
        ({"start": day - DAY_MS, "end": day + DAY_MS}, "day"),
        ({"start": end_ms - 6 * HOUR_MS, "end": end_ms}, "hour"),
        ({"start": end_ms - 5 * HOUR_MS - 1_234_000, "end": end_ms - HOUR_MS - 61_000}, "total"),
    ]
    for number, (dimension, names) in enumerate(itertools.product([None, *DIMENSIONS], together())):
        for span, granularity in ranges if WHOLE else ranges[number % len(ranges) :][:1]:
            yield {
                "metrics": names, "time_range": span, "granularity": granularity,
                "dimensions": [dimension] if dimension else [], "limit": 10_000,
            }  # fmt: skip


def test_exported_and_imported_elsewhere_everything_is_the_same(
    imported: Imported, start_product: StartProduct, tmp_path: Path
) -> None:
    file = tmp_path / "all.parquet"
    done = viewmeter(
        "export", "--data", imported.product.data, "--start", "2000-01-01", "--end", "2100-01-01", "--to", file
    )
    assert done.returncode == 0, done.stderr
    other = start_product("--workers", "1")
    done = viewmeter("import", file, "--data", other.data, "--tenant", "acme", "--json")
    assert done.returncode == 0, done.stderr
    settle(other)
    answered = refused = 0
    with (
        httpx.Client(base_url=imported.product.base_url, headers=imported.product.headers, timeout=60) as here,
        httpx.Client(base_url=other.base_url, headers=other.headers, timeout=60) as there,
    ):
        for question in questions(imported.end_ms):
            one, two = (client.post("/api/v1/analytics/query", json=question) for client in (here, there))
            assert one.status_code == two.status_code, (question, one.text, two.text)
            if one.status_code == 200:
                answered += 1
                _same(one.json()["rows"], two.json()["rows"], imported.rows, question)
            else:
                refused += 1
                assert one.json()["code"] == two.json()["code"], question
    print(f"{answered} questions answered, {refused} refused by both")
    assert answered > (300 if WHOLE else 60)


def _same(one: list[dict[str, Any]], two: list[dict[str, Any]], rows: list[dict[str, Any]], question: Any) -> None:
    """Everything is the same to the bit, but for KLL sketches: they roll dice once they hold more than 200 values.

    Then the views whose values lie between the two answers are few, of those that were asked for.
    """
    key = lambda row: json.dumps({k: v for k, v in row.items() if k not in METRICS}, sort_keys=True)  # noqa: E731
    for left, right in zip(sorted(one, key=key), sorted(two, key=key), strict=True):
        assert left.keys() == right.keys(), question
        for name in left:
            if name in QUANTILES and left[name] != right[name]:
                values = _asked_for(rows, name, left, question)
                low, high = sorted((left[name], right[name]))
                between = np.searchsorted(values, high, "left") - np.searchsorted(values, low, "right")
                assert between <= 4 * KLL_RANK_ERROR * len(values), (question, name, left, right)
            else:
                assert left[name] == right[name], (question, name)


def _asked_for(rows: list[dict[str, Any]], name: str, answer: dict[str, Any], question: Any) -> Any:
    """Return what the table has of the views behind one row of an answer, in order; times to the hour."""
    value, at = ("startup_ms", "shown_ms") if name.startswith("startup") else ("played_ms", "ended_ms")
    span, granularity = question["time_range"], question["granularity"]
    start, end = floor_to(span["start"], HOUR_MS), span["end"] + HOUR_MS - 1
    if granularity != "total":
        start = to_ms(datetime.fromisoformat(answer["time"]))
        end = start + {"day": DAY_MS, "hour": HOUR_MS}[granularity]
    own = {name: answer[name] for name in ("channel_id", "video_id") if name in question["dimensions"]}
    return np.sort([row[value] for row in rows if start <= row[at] < end and own.items() <= row.items()])
