"""Questions of a dashboard over 30 days of rollups, each beside hand-written SQL on the same file.

In: how long to ask, how many rows. Out: per question the median of the query room without cache, of the SQL that a
person would write for just that number, and their ratio; the cached median; compaction and append. Promised: rows are
made by a seeded generator, in a folder that is gone afterwards; about `seconds` of asking after some seconds of set-up.
"""

from __future__ import annotations

import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from viewmeter.live.embedded import MemoryLiveStore
from viewmeter.model.sketches import coupons
from viewmeter.model.time import DAY_MS, MINUTE_MS
from viewmeter.olap.embedded import DuckDBStore
from viewmeter.olap.protocol import Commit, Visible
from viewmeter.query import Analytics, QuerySettings, parse_query

BAR_MS: Final = 200
DAYS: Final = 30
START: Final = 1_800_000_000_000 - 1_800_000_000_000 % DAY_MS
END: Final = START + DAYS * DAY_MS
VIDEOS, CHANNELS, VIEWERS = 500, 20, 200_000
KEY: Final = Visible("acme")

Array = npt.NDArray[Any]


@dataclass(frozen=True)
class Question:
    """A question of the dashboard, and the SQL that a person would write instead."""

    name: str
    body: dict[str, Any]
    sql: str


def _last(days: float) -> dict[str, int]:
    return {"start": END - int(days * DAY_MS), "end": END}


def _where(days: float) -> str:
    return f"tenant_id = 'acme' AND NOT is_bot AND time_ms >= {END - int(days * DAY_MS)} AND time_ms < {END}"


QUESTIONS: Final = (
    Question(
        "a day of the platform by the minute",
        {"metrics": ["plays", "rebuffer_ratio"], "granularity": "minute", "time_range": _last(1)},
        "SELECT time_ms, sum(plays), sum(rebuffered_ms) / sum(played_ms + rebuffered_ms)"
        f" FROM speed_platform_merged WHERE {_where(1)} GROUP BY 1 ORDER BY 1",
    ),
    Question(
        "30 days of a channel by the day, in Berlin",
        {"metrics": ["plays", "watch_time_ms"], "granularity": "day", "time_range": _last(30), "channel_id": "c1",
         "time_zone": "Europe/Berlin"},
        "SELECT (time_ms + 3600000) // 86400000, sum(plays), sum(played_ms)"
        f" FROM speed_channel_merged WHERE {_where(30)} AND channel_id = 'c1' GROUP BY 1 ORDER BY 1",
    ),
    Question(
        "the 10 most played videos of 30 days",
        {"metrics": ["plays", "watch_time_ms", "qoe_score"], "dimensions": ["video_id"], "limit": 10,
         "time_range": _last(30)},
        "SELECT video_id, sum(plays) p, sum(played_ms), sum(rebuffered_ms), sum(rebuffer_count), sum(startup_ms),"
        " sum(startups), sum(failures), sum(exits_before_start), sum(attempts)"
        f" FROM speed_video_merged WHERE {_where(30)} GROUP BY 1 ORDER BY p DESC LIMIT 10",
    ),
    Question(
        "30 days of one video by the hour",
        {"metrics": ["plays", "average_watch_duration_ms"], "granularity": "hour", "time_range": _last(30),
         "video_id": "v7"},
        "SELECT time_ms // 3600000, sum(plays), sum(played_ms) / sum(plays)"
        f" FROM speed_video_merged WHERE {_where(30)} AND video_id = 'v7' GROUP BY 1 ORDER BY 1",
    ),
    Question(
        "countries of 7 days",
        {"metrics": ["plays", "rebuffer_ratio"], "dimensions": ["country"], "time_range": _last(7)},
        "SELECT country, sum(plays) p, sum(rebuffered_ms) / sum(played_ms + rebuffered_ms)"
        f" FROM speed_audience_merged WHERE {_where(7)} GROUP BY 1 ORDER BY p DESC",
    ),
    Question(
        "unique viewers of 30 days",
        {"metrics": ["unique_viewers"], "time_range": _last(30)},
        "SELECT count(DISTINCT c) FROM (SELECT unnest(viewers_hll) c"
        f" FROM speed_platform_merged WHERE {_where(30)})",
    ),
)  # fmt: skip


def run(seconds: float = 10.0, json: bool = False, rows: int = 1_000_000, seed: int = 1) -> dict[str, Any]:  # noqa: ARG001
    """Measure, and return the figures. `rows` are those of the largest rollup; all together are about twice as many."""
    with tempfile.TemporaryDirectory(prefix="viewmeter-bench-") as folder:
        store = DuckDBStore(Path(folder) / "store.duckdb")
        try:
            return _measure(store, seconds, rows, np.random.default_rng(seed))
        finally:
            store.close()


def _measure(store: DuckDBStore, seconds: float, rows: int, rng: np.random.Generator) -> dict[str, Any]:
    for tables in _history(rows, rng):
        store.load(tables)
    appended = sum(store.figures().rows.values())
    begun = time.perf_counter()
    store.compact(END)
    compact_s = time.perf_counter() - begun
    append_ms = [_timed(_append, store, _batch(rng, 5_000), number) for number in range(1, 6)]
    store.compact(END + DAY_MS)
    plain = Analytics(store, MemoryLiveStore(), QuerySettings(cache_entries=0))
    kept = Analytics(store, MemoryLiveStore())
    found = {q.name: _ask(q, store, plain, kept, seconds / len(QUESTIONS)) for q in QUESTIONS}
    slowest = max(one["p95_ms"] for one in found.values())
    return {
        "name": "query",
        "rows": sum(store.figures().rows.values()),
        "questions": found,
        "p95_ms_slowest": slowest,
        "bar_ms": BAR_MS,
        "ratio_to_bar": round(slowest / BAR_MS, 3),
        "ratio_to_sql_median": round(statistics.median(one["ratio_to_sql"] for one in found.values()), 2),
        "baseline": "hand-written SQL for just that number, on the same file in the same run",
        "append_ms_p50": round(statistics.median(append_ms), 1),
        "append_rows": 6 * 5_000,
        "compact_rows_per_s": round(appended / compact_s),
        "bytes_on_disk": store.figures().bytes_on_disk,
    }


def _append(store: DuckDBStore, rows: dict[str, pa.Table], number: int) -> None:
    store.append(rows, Commit(number, END, {0: number}, END))


def _ask(q: Question, store: DuckDBStore, plain: Analytics, kept: Analytics, seconds: float) -> dict[str, Any]:
    query = parse_query(q.body, now_ms=END)
    # A cursor of the store's own connection: DuckDB lets no second connection open the file with other settings.
    sql = store._db.cursor()
    ours = _times(lambda: plain.query(query, KEY, END + DAY_MS, END + DAY_MS), seconds * 0.5)
    theirs = _times(lambda: sql.execute(q.sql).fetchall(), seconds * 0.4)
    cached = _times(lambda: kept.query(query, KEY, END + DAY_MS, END + DAY_MS), seconds * 0.1)
    p50, base = statistics.median(ours), statistics.median(theirs)
    return {
        "p50_ms": round(p50, 2),
        "p95_ms": round(sorted(ours)[int(len(ours) * 0.95)], 2),
        "sql_p50_ms": round(base, 2),
        "ratio_to_sql": round(p50 / base, 2),
        "cached_p50_ms": round(statistics.median(cached), 3),
    }


def _times(ask: Callable[[], object], seconds: float) -> list[float]:
    times = [_timed(ask) for _ in range(3)][1:]
    until = time.perf_counter() + seconds
    while time.perf_counter() < until and len(times) < 1_000:
        times.append(_timed(ask))
    return times


def _timed(ask: Callable[..., object], *given: object) -> float:
    begun = time.perf_counter()
    ask(*given)
    return (time.perf_counter() - begun) * 1_000


# --- rows -----------------------------------------------------------------------------------------------------


def _history(rows: int, rng: np.random.Generator) -> list[dict[str, pa.Table]]:
    """Return day by day what the speed layer would have appended, already summed by the minute."""
    minutes = DAY_MS // MINUTE_MS
    made = []
    for day in range(DAYS):
        start = START + day * DAY_MS
        cells = np.sort(rng.choice(minutes * VIDEOS, rows // DAYS, replace=False))
        minute, video = start + cells // VIDEOS * MINUTE_MS, cells % VIDEOS
        every = start + np.arange(minutes) * MINUTE_MS
        of_channel = np.arange(minutes * CHANNELS)
        made.append(
            {
                "video": _rows(rng, minute, channel_id=video % CHANNELS, video_id=video),
                "audience": _rows(
                    rng, minute, channel_id=video % CHANNELS, video_id=video,
                    country=rng.integers(0, 40, len(cells)), region=None, city=None,
                ),
                "channel": _rows(rng, every[of_channel // CHANNELS], 2, channel_id=of_channel % CHANNELS),
                "platform": _rows(rng, every, 40),
            }
        )  # fmt: skip
    return made


def _batch(rng: np.random.Generator, rows: int) -> dict[str, pa.Table]:
    """Return a micro-batch of the present: six rollups of `rows` rows."""
    video = rng.integers(0, VIDEOS, rows)
    now = np.full(rows, END)
    words: dict[str, dict[str, Array | None]] = {
        "platform": {},
        "channel": {"channel_id": video % CHANNELS},
        "video": {"channel_id": video % CHANNELS, "video_id": video},
    }
    words["audience"] = {**words["video"], "country": rng.integers(0, 40, rows), "region": None, "city": None}
    words["device"] = {**words["video"], **dict.fromkeys(("device_type", "os", "browser"))}
    words["delivery"] = {**words["video"], **dict.fromkeys(("player", "cdn", "asn", "stream_type", "bitrate_bucket"))}
    return {name: _rows(rng, now, 1, **columns) for name, columns in words.items()}


def _rows(rng: np.random.Generator, time_ms: Array, viewers: int = 1, **words: Array | None) -> pa.Table:
    count = len(time_ms)
    columns: dict[str, Any] = {"time_ms": time_ms, "tenant_id": _words(np.zeros(count, np.int64), ["acme"])}
    for name, numbers in words.items():
        known = ["unknown"] if numbers is None else [f"{name[0]}{i}" for i in range(int(numbers.max()) + 1)]
        columns[name] = _words(np.zeros(count, np.int64) if numbers is None else numbers, known)
    columns["is_bot"] = pa.array(np.zeros(count, bool))
    plays = rng.integers(0, 2 * viewers + 1, count)
    columns |= {"plays": plays, "attempts": plays + 1, "events": plays * 9, "startups": plays}
    columns |= {"played_ms": plays * 50_000 + 1, "rebuffered_ms": plays * 700, "startup_ms": plays * 900}
    columns |= {"rebuffer_count": plays // 2, "failures": plays // 20, "engaged_views": plays // 2}
    offsets = np.concatenate([[0], np.cumsum(plays)]).astype(np.int32)
    seen = coupons(rng.integers(0, VIEWERS, int(offsets[-1])))
    columns["viewers_hll"] = pa.ListArray.from_arrays(pa.array(offsets), pa.array(seen))
    return pa.table(columns)


def _words(numbers: Array, known: Sequence[str]) -> pa.DictionaryArray:
    return pa.DictionaryArray.from_arrays(pa.array(numbers.astype(np.int32)), pa.array(known))
