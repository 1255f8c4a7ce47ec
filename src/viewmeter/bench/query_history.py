"""Three years of rollup rows for `bench query`: made once by seeded SQL in the store's own tables, and kept.

In: how many rows, a folder. Out: a store file whose tiers are as a product of that age holds them: minutes of the last
24 hours, hours of 30 days, days of 3 years, weeks and months where a rollup has them; 10,000 videos of 500 channels
(fewer below 3 million rows).
Promised: a step is one transaction that also notes itself, so an interrupted making goes on where it stopped; memory
is bounded by `MEMORY`; a file of another schema or another maker is never used. Video rows add up to those of weeks,
months, channels and the platform. Not done here: device, audience and delivery rows are made by themselves and do not
add up to the video's; sketches come from a pool and say nothing of the plays beside them; no samples, no exact viewers.
"""

from __future__ import annotations

import contextlib
import datetime
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import duckdb
import numpy as np
import pyarrow as pa

from viewmeter.bench.figures import cache_folder
from viewmeter.model.calendar import periods, zone_of
from viewmeter.model.catalogue import ROLLUPS, Kind, Rollup
from viewmeter.model.catalogue.rollups import Tier
from viewmeter.model.sketches import coupons, kll_from_values
from viewmeter.model.time import DAY_MS, HOUR_MS, MINUTE_MS, Interval
from viewmeter.olap.embedded import DuckDBStore
from viewmeter.olap.embedded_migration import SCHEMA_VERSION
from viewmeter.olap.embedded_tables import batch, batch_columns

MAKER_VERSION: Final = 1
"""Of this file: rises with every change to the rows."""
ROWS_WANTED: Final = 100_000_000
DAYS: Final = 3 * 365 + 1
VIDEOS, CHANNELS = 10_000, 500
MEMORY: Final = "3GB"
TENANT: Final = "default"
_VIDEOS_MIN: Final = 100
"""A short history has fewer videos: every video is asked in every unit of time whether it has a row."""
_STEP_ROWS: Final = 1_500_000
_FINE: Final[tuple[Tier, ...]] = ("minute", "hour", "day")
_LONG: Final[tuple[Tier, ...]] = ("week", "month")
_UNIT_MS: Final[dict[str, int]] = {"minute": MINUTE_MS, "hour": HOUR_MS, "day": DAY_MS}
_SPAN_MS: Final[dict[str, int]] = {"minute": DAY_MS, "hour": 30 * DAY_MS, "day": DAYS * DAY_MS}
_PLAYS: Final[dict[str, float]] = {"minute": 0.02, "hour": 0.3, "day": 5.0}
"""Plays of a row are about this times the video's weight (1,000 for the first, 3 on average)."""
_MILLIONS: Final[tuple[tuple[Tier, str, float], ...]] = (
    ("day", "video", 8.0), ("day", "device", 20.0), ("day", "audience", 22.0), ("day", "delivery", 20.0),
    ("day", "retention", 8.0),
    ("hour", "video", 2.2), ("hour", "device", 3.0), ("hour", "audience", 3.2), ("hour", "delivery", 3.0),
    ("hour", "cross", 3.0), ("hour", "retention", 1.0),
    ("minute", "video", 1.4), ("minute", "device", 1.2), ("minute", "audience", 1.2), ("minute", "delivery", 1.2),
)  # fmt: skip
"""Millions of rows of the whole; about 2 more are sums of the video's (weeks, months, channels, platform)."""

_WORDS: Final[dict[str, tuple[str, ...]]] = {
    "device_type": ("mobile", "desktop", "tv", "tablet"),
    "os": ("Android", "iOS", "Windows", "macOS", "Tizen"),
    "browser": ("Chrome", "Safari", "Firefox", "Edge", "Opera", "unknown"),
    "country": (
        "US", "DE", "GB", "FR", "BR", "IN", "JP", "CA", "ES", "IT", "NL", "PL", "MX", "AU", "SE", "KR",
        "TR", "AR", "CH", "AT", "BE", "DK", "NO", "FI", "PT", "CZ", "RO", "GR", "HU", "IE",
    ),
    "region": tuple(f"r{i}" for i in range(4)),
    "city": tuple(f"city {i}" for i in range(8)),
    "player": ("web", "ios", "android", "tv"),
    "cdn": ("cdn-a", "cdn-b", "cdn-c"),
    "asn": tuple(f"AS{3000 + i}" for i in range(12)),
    "stream_type": ("vod", "live"),
    "bitrate_bucket": ("1500_3000", "3000_6000", "800_1500", "6000_12000"),
}  # fmt: skip
_SUMS: Final[dict[str, str]] = {
    "attempts": "p + p // 50", "plays": "p", "completes": "p * 3 // 10", "failures": "p // 40",
    "exits_before_start": "p // 60", "engaged_views": "p * 7 // 10", "events": "p * 12",
    "played_ms": "p * (60000 + h % 60000)", "rebuffered_ms": "p * ((h >> 8) % 900)", "rebuffer_count": "p // 2",
    "startup_ms": "p * (400 + (h >> 4) % 700)", "startups": "p", "seeks": "p // 3", "pauses": "p // 4",
    "upshifts": "p // 2", "downshifts": "p // 5", "played_kbit": "p * 200000000",
    "played_ms_known_bitrate": "p * 60000", "events_play": "p", "events_heartbeat": "p * 8", "events_exit": "p",
    "played_ms_1500_3000": "p * 40000", "played_ms_3000_6000": "p * 20000",
    "ended_views": "p", "measured_views": "p", "watched_views": "p", "view_rebuffer_ratio_e9": "p * 7000000",
    "content_views": "p", "content_watched_ms": "p * 60000", "content_ms": "p * 180000",
    "retention_delta": "CASE WHEN k = 0 THEN p * 20 ELSE -(p // 8) END",
}  # fmt: skip
_COUPONS_MAX_LOG2: Final = 14


@dataclass(frozen=True)
class History:
    """A kept file, what it covers and what is in it."""

    path: Path
    interval: Interval
    rows: dict[str, int]


@dataclass(frozen=True)
class _Step:
    name: str
    statements: tuple[str, ...]


def folder_of(rows: int, keep: Path | None = None) -> Path:
    """Return where the file of so many rows is kept: `keep`, else below the user's cache folder."""
    return (keep or cache_folder()) / f"bench-query-{rows}-{SCHEMA_VERSION}.{MAKER_VERSION}"


def history(rows: int, keep: Path | None = None, end_ms: int | None = None) -> History:
    """Return the kept file, made or made to its end where it is not there."""
    folder = folder_of(rows, keep)
    folder.mkdir(parents=True, exist_ok=True)
    path, told = folder / "store.duckdb", folder / "history.json"
    if not told.exists():
        if not path.exists():
            DuckDBStore(path).close()  # its own schema
        _make(path, rows, end_ms)
        with contextlib.closing(duckdb.connect(path)) as con:
            covered = con.execute("SELECT start_ms, end_ms FROM bench_made WHERE step = 'begun'").fetchall()[0]
            counts = {t: con.execute(f"SELECT count(*) FROM {t}").fetchall()[0][0] for t in _tables()}
        told.write_text(json.dumps({"interval": covered, "rows": counts}))
    found = json.loads(told.read_text())
    return History(path, Interval(*found["interval"]), found["rows"])


def _tables() -> list[str]:
    return [batch(rollup, tier) for rollup in ROLLUPS.values() for tier in rollup.tiers]


def _make(path: Path, rows: int, end_ms: int | None) -> None:
    config: Any = {"memory_limit": MEMORY, "threads": 2, "checkpoint_threshold": "1GB"}
    with contextlib.closing(duckdb.connect(path, config=config)) as con:
        con.execute("SET preserve_insertion_order = true")
        con.execute("CREATE TABLE IF NOT EXISTS bench_made (step VARCHAR, start_ms BIGINT, end_ms BIGINT)")
        begun = con.execute("SELECT end_ms FROM bench_made WHERE step = 'begun'").fetchall()
        if begun:
            end_ms = begun[0][0]
        else:
            today = datetime.datetime.now(datetime.UTC).replace(hour=0, minute=0, second=0, microsecond=0)
            end_ms = end_ms or int(today.timestamp()) * 1000
            con.execute("INSERT INTO bench_made VALUES ('begun', ?, ?)", [end_ms - _SPAN_MS["day"], end_ms])
        _pools(con, min(VIDEOS, max(_VIDEOS_MIN, rows // 300)))
        made = {name for (name,) in con.execute("SELECT step FROM bench_made").fetchall()}
        for step in _steps(rows, Interval(end_ms - _SPAN_MS["day"], end_ms)):
            if step.name in made:
                continue
            con.execute("BEGIN")
            for statement in step.statements:
                con.execute(statement)
            con.execute("INSERT INTO bench_made VALUES (?, NULL, NULL)", [step.name])
            con.execute("COMMIT")
        con.execute("CHECKPOINT")


# --- what rows are made of ------------------------------------------------------------------------------------


def _pools(con: duckdb.DuckDBPyConnection, count: int) -> None:
    """Make the videos (Zipf by their number in a shuffled order), and sketches of sizes 2^0 to 2^14, 16 of each."""
    rng = np.random.default_rng(1)
    rank = rng.permutation(count)
    share = (rank + 1.0) ** -0.3
    videos = pa.table(
        {
            "channel_id": [f"channel-{i % CHANNELS}" for i in range(count)],
            "video_id": [f"video-{i}" for i in range(count)],
            "share": share / share.sum(),
            "weight": 1000 * (rank + 1.0) ** -0.8,
        }
    )
    con.register("given", videos)
    con.execute(
        "CREATE TEMP TABLE videos AS SELECT *, row_number() OVER (ORDER BY channel_id, video_id) AS n FROM given"
    )
    found: dict[str, list[Any]] = {"size": [], "number": [], "coupons": [], "vals": [], "sketch": []}
    for size in range(_COUPONS_MAX_LOG2 + 1):
        for number in range(16):
            values = rng.lognormal(10, 1, 1 << min(size, 12)).round()
            found["size"].append(size)
            found["number"].append(number)
            found["coupons"].append(np.unique(coupons(rng.integers(0, 10_000_000, 1 << size))))
            found["vals"].append(values[:4])
            found["sketch"].append(kll_from_values(values))
    con.register("given", pa.table({**found, "coupons": pa.array(found["coupons"], pa.list_(pa.uint32()))}))
    con.execute("CREATE TEMP TABLE pool AS SELECT * FROM given")
    con.unregister("given")


def _steps(rows: int, whole: Interval) -> Iterator[_Step]:
    for tier, name, millions in _MILLIONS:
        yield from _fine(ROLLUPS[name], tier, millions * 1e6 * rows / ROWS_WANTED, whole)
    for kind in _FINE:
        yield _coarse(ROLLUPS["channel"], kind, batch(ROLLUPS["video"], kind), "time_ms")
        yield _coarse(ROLLUPS["platform"], kind, batch(ROLLUPS["channel"], kind), "time_ms")
    for kind in _LONG:
        time = f"epoch_ms(date_trunc('{kind}', make_timestamp_ms(time_ms)))"
        for name in ("video", "channel", "platform"):
            yield _coarse(ROLLUPS[name], kind, batch(ROLLUPS[name], "day"), time)
    yield _closed(whole)


def _fine(rollup: Rollup, tier: Tier, rows: float, whole: Interval) -> Iterator[_Step]:
    """Yield the steps of a table: each some units of time, sorted by unit and keys as the batch layer leaves them."""
    unit, span = _UNIT_MS[tier], _SPAN_MS[tier]
    units = span // unit
    each = rows / units  # rows of a unit
    step = max(1, int(_STEP_ROWS / max(each, 1.0)))
    start_ms = whole.end_ms - span
    for at in range(0, units, step):
        begin, end = start_ms + at * unit, start_ms + min(at + step, units) * unit
        yield _Step(f"{batch(rollup, tier)} {begin}", (_fine_sql(rollup, tier, each, begin, end),))


def _fine_sql(rollup: Rollup, tier: Tier, each: float, begin: int, end: int) -> str:
    chance = "(hash(time_ms, n) % 65536) / 65536.0"
    per = 100 if rollup.name == "retention" else 1
    most = {"video": 2, "retention": 1}.get(rollup.name, 96)
    count = f"{per} * least({most}, floor(share * {each / per} + {chance}))::BIGINT"
    units = f"SELECT unnest(range({begin}, {end}, {_UNIT_MS[tier]})) AS time_ms"
    cells = f"SELECT *, unnest(range({count})) AS k FROM ({units}), videos"
    spread = 1 if rollup.name == "video" else 3
    plays = f"1 + floor(weight * {_PLAYS[tier] / spread} / (1 + k) * (0.5 + (h % 1024) / 1024.0))::BIGINT AS p"
    hashed = "(hash(time_ms, n, k) >> 32)::BIGINT AS h"
    made = f"SELECT *, {plays} FROM (SELECT time_ms, n, channel_id, video_id, weight, k, {hashed} FROM ({cells}))"
    words = _words(rollup)
    rows = f"SELECT * FROM ({made}) ORDER BY time_ms, n, k"
    return _insert(rollup, tier, words, _SUMS, rows, largest=10 if rollup.name == "video" else 5, sketched=False)


def _words(rollup: Rollup) -> dict[str, str]:
    """Return the expressions of the dimensions: the digits of `k` in mixed radix, so that no two rows are equal."""
    words = {"channel_id": "channel_id", "video_id": "video_id"}
    words["is_bot"] = "k = 1" if rollup.name == "video" else "k % 16 = 15"
    if "percent" in rollup.dimensions:
        words |= {"percent": "k::VARCHAR", "is_bot": "false"}
    radix = 1
    for name in rollup.dimensions:
        known = _WORDS.get(name)
        if known is None or name in words:
            continue
        listed = ", ".join(f"'{word}'" for word in known)
        words[name] = f"[{listed}][1 + (k // {radix} + n * {0 if radix > 1 else 7}) % {len(known)}]"
        if "percent" in rollup.dimensions:
            words[name] = f"'{known[0]}'"
        radix *= len(known)
    return {name: words[name] for name in rollup.dimensions}


def _coarse(rollup: Rollup, tier: Tier, source: str, time: str) -> _Step:
    """Return the step that sums a table up; sketches of the sums come from the pool."""
    sums = [m.name for m in rollup.measures if m.kind is Kind.ADDITIVE]
    keys = ", ".join(rollup.dimensions)
    summed = ", ".join(f"sum({name})::BIGINT AS {name}" for name in sums)
    rows = (
        f"SELECT *, plays AS p, (hash(time_ms, {keys}) >> 32)::BIGINT AS h FROM (SELECT {time} AS time_ms, {keys}, "
        f"{summed} FROM {source} GROUP BY ALL) ORDER BY time_ms, {keys}"
    )
    same = {name: name for name in sums}
    words = {name: name for name in rollup.dimensions}
    largest = _COUPONS_MAX_LOG2 if rollup.name != "video" else 12
    sql = _insert(rollup, tier, words, same, rows, largest, sketched=rollup.name != "video")
    return _Step(f"{batch(rollup, tier)} sums", (sql,))


def _insert(
    rollup: Rollup, tier: Tier, words: dict[str, str], sums: dict[str, str], rows: str, largest: int, sketched: bool
) -> str:
    """Return the statement: keys, sums, and sketches about as large as the row's plays."""
    columns = batch_columns(rollup, tier)
    made = {"time_ms": "time_ms", "tenant_id": f"'{TENANT}'", **words}
    made |= {m.name: sums[m.name] for m in rollup.measures if m.name in sums}
    join = ""
    if any(m.kind is Kind.HLL for m in rollup.measures):
        size = f"least({largest}, floor(log2(p + 1)))::BIGINT"
        join = f" LEFT JOIN pool ON pool.size = {size} AND pool.number = h % 16"
        made["viewers_hll"] = "coupons"
        for name in ("startup_kll", "watch_kll"):
            if f"{name}_sketch" in columns and sketched:
                made[f"{name}_sketch"] = "sketch"
            else:
                made[name] = "vals"
    if "zone" in columns:
        made["zone"] = "'UTC'"
    named = ", ".join(f"{sql} AS {name}" for name, sql in made.items())
    return f"INSERT INTO {batch(rollup, tier)} BY NAME SELECT {named} FROM ({rows}) AS r{join}"


def _closed(whole: Interval) -> _Step:
    """Return the step that says what is closed, built and within reach."""
    start, end = whole
    reach = {"minute": end - _SPAN_MS["minute"], "hour": end - _SPAN_MS["hour"], "day": start, "viewers": end}
    statements = [
        f"INSERT INTO closed_hours SELECT unnest(range({start}, {end}, {HOUR_MS})), 0, 0, {end}, TRUE",
        "INSERT INTO reach VALUES " + ", ".join(f"('{name}', {at})" for name, at in {**reach, "speed": end}.items()),
        "UPDATE batch_state SET version = version + 1",
    ]
    for kind in ("day", "week", "month"):
        whole_ones = [p for p in periods(whole, kind, zone_of("UTC")) if p.start_ms >= start and p.end_ms <= end]
        listed = ", ".join(f"('{kind}', 'UTC', {p.start_ms}, {p.end_ms})" for p in whole_ones)
        statements.append(f"INSERT INTO built_periods VALUES {listed}")
    return _Step("closed", tuple(statements))
