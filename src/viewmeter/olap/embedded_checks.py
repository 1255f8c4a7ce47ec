"""What may be written: columns, grains and ranges, checked before a transaction begins.

In: tables of a caller. Out: the same, or a ValueError that says what was wrong and what would be right. Names become
SQL here and nowhere else, so this is also where unknown ones stop.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

import numpy as np
import pyarrow as pa

from viewmeter.model.catalogue import ROLLUPS, SPEED_ROLLUPS, Rollup
from viewmeter.model.time import HOUR_MS, QUARTER_MS, Interval, floor_to
from viewmeter.olap.embedded_tables import arriving_columns, speed_columns

_VIEWERS: Final = ("tenant_id", "channel_id", "video_id", "is_bot", "viewer_hash")


def checked_speed(rows: Mapping[str, pa.Table]) -> list[tuple[Rollup, pa.Table]]:
    """Return the tables of the speed layer that have rows."""
    checked = []
    for name, table in rows.items():
        rollup = SPEED_ROLLUPS.get(name)
        if rollup is None:
            raise ValueError(f"no rollup is called {name!r}; there are {', '.join(SPEED_ROLLUPS)}")
        _check_columns(rollup, table, speed_columns(rollup))
        if table.num_rows:
            _check_grain(rollup, table, rollup.grain_ms)
            checked.append((rollup, table))
    return checked


def checked_batch(rows: Mapping[str, pa.Table], interval: Interval) -> dict[str, pa.Table]:
    """Return the tables of a batch run that have rows; all lie in the interval."""
    checked: dict[str, pa.Table] = {}
    for name, table in rows.items():
        rollup = ROLLUPS.get(name)
        if rollup is None:
            raise ValueError(f"no rollup is called {name!r}; there are {', '.join(ROLLUPS)}")
        _check_columns(rollup, table, arriving_columns(rollup))
        if not table.num_rows:
            continue
        # Rows by the hour may be cut as fine as zones off the hour need it.
        _check_grain(rollup, table, min(rollup.grain_ms, QUARTER_MS))
        times = table["time_ms"].to_numpy()
        if times.min() < interval.start_ms or times.max() >= interval.end_ms:
            raise ValueError(f"rows of {name} lie outside of [{interval.start_ms}, {interval.end_ms})")
        checked[name] = table
    return checked


def checked_hours(interval: Interval) -> Interval:
    """Return the interval, which must be whole hours."""
    if interval.start_ms % HOUR_MS or interval.end_ms % HOUR_MS or interval.start_ms >= interval.end_ms:
        raise ValueError(f"[{interval.start_ms}, {interval.end_ms}) is not a range of whole hours (UTC)")
    return interval


def checked_viewers(viewers: pa.Table, interval: Interval) -> pa.Table:
    """Return the viewers with their hour."""
    if missing := {*_VIEWERS} - {*viewers.column_names}:
        raise ValueError(f"viewers lack {', '.join(sorted(missing))}")
    if "hour_ms" not in viewers.column_names:
        if interval.end_ms - interval.start_ms != HOUR_MS:
            raise ValueError("viewers of several hours need a column hour_ms")
        hours = pa.array(np.full(viewers.num_rows, interval.start_ms, np.int64))
        viewers = viewers.append_column("hour_ms", hours)
    hours = viewers["hour_ms"].to_numpy()
    if len(hours) and (hours.min() < interval.start_ms or hours.max() >= interval.end_ms or (hours % HOUR_MS).any()):
        raise ValueError(f"hour_ms of viewers must be hours of [{interval.start_ms}, {interval.end_ms})")
    return viewers


def hours_of(rows: Sequence[tuple[Rollup, pa.Table]]) -> list[int]:
    """Return the hours that the rows are of, each once, in order."""
    found = [np.unique(floor_to(table["time_ms"].to_numpy(), HOUR_MS)) for _, table in rows]
    hours: list[int] = np.unique(np.concatenate([*found, np.zeros(0, np.int64)])).tolist()
    return hours


def _check_columns(rollup: Rollup, table: pa.Table, known: Mapping[str, str]) -> None:
    if missing := {"time_ms", *rollup.keys} - {*table.column_names}:
        raise ValueError(f"rows of {rollup.name} lack {', '.join(sorted(missing))}")
    if unknown := {*table.column_names} - {*known}:
        raise ValueError(f"rows of {rollup.name} have unknown columns {', '.join(sorted(unknown))}")


def _check_grain(rollup: Rollup, table: pa.Table, grain_ms: int) -> None:
    if (table["time_ms"].to_numpy() % grain_ms).any():
        raise ValueError(f"time_ms of {rollup.name} must be multiples of its grain, {grain_ms} ms")
