"""`bench query`: 20 questions of a dashboard over 3 years of rollups, each beside hand-written SQL on the same file.

In: how many rows (the bar is stated for 100 million), how long to ask. Out: per question the times of the query room
without cache, from the question to JSON, and of the SQL, rows fetched, in turn in one process, with their ratio in wall
clock and in CPU time, the tables that were read and their rows; then the same over HTTP while the product ingests
10,000 events a second, one by one and as a mixed load (`query_load`). Promised: a question whose answer is not SQL's
ends the run; the kept file is only read (the product works on a copy beside it). Bars: p95 under 200 ms, ratio at
most 1.2.
"""

from __future__ import annotations

import os
import statistics
import time
from collections.abc import Callable, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any, Final

from viewmeter.bench.query_history import TENANT, History, history
from viewmeter.bench.query_load import EVENTS_PER_S, of_ms, under_ingest
from viewmeter.bench.query_questions import Question, different, questions
from viewmeter.live.embedded import MemoryLiveStore
from viewmeter.model.time import DAY_MS, to_ms
from viewmeter.olap.embedded import DuckDBStore
from viewmeter.olap.protocol import Visible
from viewmeter.query import Analytics, QuerySettings, parse_query

ROWS: Final = 3_000_000
BAR_MS: Final = 200.0
BAR_RATIO: Final = 1.2
KEY: Final = Visible(TENANT)
_TURNS_MIN: Final = 5


def run(seconds: float = 20.0, rows: int = ROWS, keep: Path | None = None, load: bool = True) -> dict[str, Any]:
    """Measure for about `seconds` beside the SQL, and as long in each part of the load. The file is made if missing."""
    begun = time.perf_counter()
    kept = history(rows, keep)
    made_s = time.perf_counter() - begun
    asked = questions(kept.interval.end_ms)
    store = DuckDBStore(kept.path)
    try:
        found = beside_sql(store, kept, asked, seconds)
    finally:
        store.close()
    loaded = under_ingest(kept, asked, seconds, EVENTS_PER_S) if load else {}
    slowest = max(one["p95_ms"] for one in found.values())
    return {
        "rows": sum(kept.rows.values()),
        "bytes_on_disk": kept.path.stat().st_size,
        "made_s": round(made_s, 1),
        "questions": found,
        "p95_ms_slowest": slowest,
        "bar_ms": BAR_MS,
        "ratio_to_bar": round(slowest / BAR_MS, 3),
        "bar_ratio_to_sql": BAR_RATIO,
        "ratio_to_sql_median": round(statistics.median(one["ratio_to_sql"] for one in found.values()), 2),
        "ratio_to_sql_largest": max(one["ratio_to_sql"] for one in found.values()),
        "while_ingesting": loaded,
        "load": os.getloadavg()[0],
    }


def beside_sql(store: DuckDBStore, kept: History, asked: Sequence[Question], seconds: float) -> dict[str, Any]:
    """Ask each question and its SQL in turn. Raises RuntimeError where the answers differ."""
    now_ms = kept.interval.end_ms + DAY_MS
    plain = Analytics(store, MemoryLiveStore(), QuerySettings(cache_entries=0))
    # A cursor of the store's own connection: DuckDB lets no second connection open the file with other settings.
    sql = store._db.cursor()
    found: dict[str, Any] = {}
    for question in asked:

        def ours(question: Question = question) -> Any:
            query = parse_query(question.body, now_ms=now_ms)
            if question.curve:
                return plain.retention(query, KEY, now_ms, now_ms)["buckets"]
            answer = plain.query(query, KEY, now_ms, now_ms)
            answer.to_json()
            return answer.rows

        def theirs(question: Question = question) -> Any:
            return sql.execute(question.sql).fetchall()

        if wrong := different(question, ours(), theirs()):
            raise RuntimeError(f"{question.name}: the product and SQL do not agree: {wrong}")
        a, b = _in_turn(ours, theirs, seconds / len(asked))
        found[question.name] = {
            "p50_ms": of_ms(a.wall_ms, 0.5),
            "p95_ms": of_ms(a.wall_ms, 0.95),
            "cpu_ms": round(statistics.median(a.cpu_ms), 2),
            "sql_p50_ms": of_ms(b.wall_ms, 0.5),
            "sql_p95_ms": of_ms(b.wall_ms, 0.95),
            "sql_cpu_ms": round(statistics.median(b.cpu_ms), 2),
            "ratio_to_sql": round(statistics.median(a.wall_ms) / statistics.median(b.wall_ms), 2),
            "ratio_of_cpu": round(statistics.median(a.cpu_ms) / max(statistics.median(b.cpu_ms), 1e-3), 2),
            **_read(plain, question, sql, now_ms),
        }
    return found


class _Times:
    def __init__(self) -> None:
        self.wall_ms: list[float] = []
        self.cpu_ms: list[float] = []

    def take(self, ask: Callable[[], object]) -> None:
        wall, cpu = time.perf_counter(), time.process_time()
        ask()
        self.cpu_ms.append((time.process_time() - cpu) * 1_000)
        self.wall_ms.append((time.perf_counter() - wall) * 1_000)


def _in_turn(ours: Callable[[], object], theirs: Callable[[], object], seconds: float) -> tuple[_Times, _Times]:
    """Time both alternately, so that what else runs on the machine falls on both."""
    a, b = _Times(), _Times()
    until = time.perf_counter() + seconds
    while time.perf_counter() < until or len(a.wall_ms) < _TURNS_MIN:
        a.take(ours)
        b.take(theirs)
    return a, b


def _read(plain: Analytics, question: Question, sql: Any, now_ms: int) -> dict[str, Any]:
    """Return the tables that answered, and how many rows they have in the ranges that were read."""
    if question.curve:
        return {"tables": ["retention", "video"], "rows_in_range": None}
    query = parse_query({**question.body, "explain": True}, now_ms=now_ms)
    plan = plain.query(query, KEY, now_ms, now_ms).meta["plan"]
    tables, rows = set(), 0
    for scan in plan["scans"]:
        for part in scan["parts"]:
            table = f"{part['table']}_{scan['rollup']}"
            start, end = (to_ms(datetime.fromisoformat(text)) for text in part["range"])
            inside = f"SELECT count(*) FROM {table} WHERE time_ms >= {start} AND time_ms < {end}"
            rows += sql.execute(inside).fetchall()[0][0]
            tables.add(table)
    return {"tables": sorted(tables), "rows_in_range": rows}
