"""Runs the pure hours of the batch layer over a list of events, with everything in memory."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from typing import Any

import numpy as np
import pyarrow as pa

from viewmeter.batch import carry, hour, part
from viewmeter.batch.hour import HourResult
from viewmeter.batch.part import key_ranges
from viewmeter.batch.window import COLUMNS, window_of
from viewmeter.model.time import HOUR_MS
from viewmeter.testing.columns import to_table

Facts = Counter[tuple[Any, ...]]


class Hours:
    """What the hours so far left behind."""

    def __init__(self, parts: int = 1) -> None:
        self.results: dict[int, HourResult] = {}
        self._parts = parts

    def run(self, hour_ms: int, events: pa.Table) -> HourResult:
        """Run one hour on what is archived now."""
        ts = events["ts"].to_numpy()
        low, high = window_of(hour_ms)
        window = events.filter(pa.array((ts >= low) & (ts < high))).select(COLUMNS)
        before = self.results.get(hour_ms - HOUR_MS)
        opened = carry.nothing() if before is None else before.kept_open
        done = []
        for mine in key_ranges(self._parts):
            computed = part.compute(
                hour_ms, within(window, mine), within(opened, mine), lambda keys: self.ended(hour_ms, keys)
            )
            done.append(hour.digest(hour_ms, computed))
        self.results[hour_ms] = hour.finish(hour_ms, done)
        return self.results[hour_ms]

    def run_all(self, events: pa.Table) -> None:
        """Run every hour that has events, and those behind until nothing is open."""
        ts = events["ts"].to_numpy()
        at, last = ts.min() // HOUR_MS * HOUR_MS, ts.max() // HOUR_MS * HOUR_MS
        while at <= last or self.results[at - HOUR_MS].kept_open.num_rows:
            self.run(int(at), events)
            at += HOUR_MS

    def cascade(self, hour_ms: int, events: pa.Table) -> list[int]:
        """Run an hour again and each following one whose beginning changed; return which ran."""
        ran = []
        while hour_ms in self.results:
            before = self.results[hour_ms].handover
            ran.append(hour_ms)
            if self.run(hour_ms, events).handover == before:
                break
            hour_ms += HOUR_MS
        return ran

    def ended(self, hour_ms: int, keys: np.ndarray) -> pa.Table:
        """Return the newest ended state of each key."""
        found = [carry.nothing()]
        wanted = set(keys.tolist())
        for at in sorted((h for h in self.results if h < hour_ms), reverse=True):
            table = self.results[at].kept_ended
            here = [i for i, key in enumerate(table["view_key"].to_pylist()) if key in wanted]
            found.append(table.take(pa.array(here, pa.int64())))
            wanted -= {table["view_key"][i].as_py() for i in here}
        return pa.concat_tables(found)


def within(table: pa.Table, keys: tuple[int, int]) -> pa.Table:
    """Return the rows of views in a range of keys."""
    key = table["view_key"].to_numpy()
    return table.filter(pa.array((key >= keys[0]) & (key <= keys[1])))


def facts(results: Iterable[HourResult], rollup: str, keys: tuple[str, ...]) -> Facts:
    """Return the sums of a rollup's rows by time, these keys and measure."""
    out: Facts = Counter()
    for result in results:
        table = result.rows.get(rollup)
        for row in () if table is None else table.to_pylist():
            who = (row["time_ms"], *(row[key] for key in keys))
            for name, value in row.items():
                if isinstance(value, int) and not isinstance(value, bool) and name != "time_ms" and name not in keys:
                    out[*who, name] += value
    return Counter({key: n for key, n in out.items() if n})


def clamped(events: list[dict[str, Any]], shift_ms: int) -> list[dict[str, Any]]:
    """Return the events moved in time, none of a `ts` more than 5 minutes behind what its view said before."""
    highest: dict[tuple[str, str], list[tuple[int, int]]] = {}
    out = []
    for event in events:
        highest.setdefault((event["tenant_id"], event["view_id"]), []).append((event["seq"], event["ts"]))
    for event in events:
        before = [ts for seq, ts in highest[event["tenant_id"], event["view_id"]] if seq <= event["seq"]]
        ts = max(event["ts"], max(before) - 298_000)
        out.append({**event, "ts": ts + shift_ms})
    return out


def table_of(events: list[dict[str, Any]]) -> pa.Table:
    """Return the events as the archive's columns."""
    return to_table(events)
