"""Tables that have the columns of the archive already: checked as columns, since nothing about them need be guessed.

In: a table with at least the columns of `EVENT_SCHEMA`. Out: its good rows with exactly those, and a reason for each
other row. `view_key` is computed anew: an import may not aim at another tenant's view.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from viewmeter.collector.dialects import MAX_COUNT, MAX_KBPS, MAX_MS, MAX_PLAYBACK_RATE
from viewmeter.metadata.keys import Tenant
from viewmeter.model.events import (
    ABSENT,
    EVENT_SCHEMA,
    MAX_ID_CHARS,
    MAX_SEQ,
    MAX_TEXT_CHARS,
    UNKNOWN,
    WORD_COLUMNS,
    EventType,
    view_key,
)

_NEEDED: Final = ("tenant_id", "channel_id", "video_id", "view_id", "viewer_hash", "seq", "type", "ts", "received_at")
_IDS: Final = ("channel_id", "video_id", "view_id")
_TEXTS: Final = ("error_code", "error_message")
_MOST: Final = {
    "seq": MAX_SEQ, "type": max(EventType), "position_ms": MAX_MS, "duration_ms": MAX_MS, "played_ms": MAX_MS,
    "rebuffered_ms": MAX_MS, "rebuffer_count": MAX_COUNT, "startup_ms": MAX_MS, "bitrate_kbps": MAX_KBPS,
    "playback_rate": MAX_PLAYBACK_RATE, "fatal": 2,
}  # fmt: skip
_LEAST: Final = {"seq": 0, "type": 0}

Reason = tuple[int, str, str]


class _Judge:
    """Collects the first thing that is wrong with each row."""

    def __init__(self, rows: int) -> None:
        self._rows = rows
        self._why: dict[int, tuple[str, str]] = {}

    def refuse(self, bad: Any, code: str, name: str, values: Any, right: str | None = None) -> None:
        """Refuse rows where `bad`; the reason shows the row's value, and `right` says what it should be."""
        for place in np.flatnonzero(np.asarray(bad, bool)).tolist():
            self._why.setdefault(place, (code, f"`{name}` is {values[place]}: {right}" if right else values[place]))

    def reasons(self) -> list[Reason]:
        """Return (place, code, detail) of what was refused."""
        return [(place, *self._why[place]) for place in sorted(self._why)]

    def good(self) -> npt.NDArray[np.bool_]:
        """Return which rows are left."""
        good = np.ones(self._rows, bool)
        good[list(self._why)] = False
        return good


def judged(
    table: pa.Table, owner: Callable[[str | None], Tenant | str], newest_ms: int
) -> tuple[pa.Table, list[Reason]]:
    """Return the good rows, and (place, code, detail) of the others. Raises pa.ArrowInvalid where types do not fit."""
    table = table.select(EVENT_SCHEMA.names).combine_chunks()
    judge = _Judge(table.num_rows)
    for name in _NEEDED:
        judge.refuse(
            table[name].is_null().to_numpy(), "missing_field", name, ["null"] * table.num_rows, "it is required"
        )
    table = pa.Table.from_arrays([_filled(table[field.name], field) for field in EVENT_SCHEMA], EVENT_SCHEMA.names)
    for name, most in _MOST.items():
        values, least = table[name].to_numpy(), _LEAST.get(name, ABSENT)
        judge.refuse(~((values >= least) & (values <= most)), "out_of_range", name, values, f"it is {least} to {most}")
    times = table["ts"].to_numpy()
    judge.refuse(times < 0, "out_of_range", "ts", times, "it is in ms since the epoch")
    judge.refuse(times > newest_ms, "ts_in_future", "ts", times, "more than 5 minutes ahead")
    for name in (*_IDS, *_TEXTS):
        least, most = (1, MAX_ID_CHARS) if name in _IDS else (0, MAX_TEXT_CHARS)
        lengths = pc.utf8_length(table[name].cast(pa.string())).to_numpy()
        shown = [f"{length} characters long" for length in lengths.tolist()]
        judge.refuse((lengths < least) | (lengths > most), "wrong_length", name, shown, f"it has {least} to {most}")
    tenants = table["tenant_id"].cast(pa.string()).to_pylist()
    owners = {tenant: owner(tenant) for tenant in set(tenants)}
    wrong = [found if isinstance(found := owners[tenant], str) else "" for tenant in tenants]
    judge.refuse([text != "" for text in wrong], "unknown_tenant", "tenant_id", wrong)
    good = judge.good()
    ids = {tenant: found.id for tenant, found in owners.items() if isinstance(found, Tenant)}
    kept = _owned(table.filter(pa.array(good)), [ids[t] for t, ok in zip(tenants, good.tolist(), strict=True) if ok])
    return kept, judge.reasons()


def _filled(column: Any, field: pa.Field) -> Any:
    """Return the column without nulls and in its type; words as plain text, for now."""
    is_text = field.name in WORD_COLUMNS or pa.types.is_string(field.type)
    column = column.cast(pa.string() if is_text else field.type)
    if column.null_count == 0:
        return column
    if is_text:
        return column.fill_null(UNKNOWN if field.name in WORD_COLUMNS else "")
    return column.fill_null(False if pa.types.is_boolean(field.type) else 0 if field.name == "type" else ABSENT)


def _owned(table: pa.Table, tenants: list[str]) -> pa.Table:
    views = table["view_id"].to_pylist()
    keys: dict[tuple[str, str], int] = {}
    for pair in zip(tenants, views, strict=True):
        if pair not in keys:
            keys[pair] = view_key(*pair)
    columns = {
        "tenant_id": pa.array(tenants, pa.string()),
        "view_key": pa.array([keys[pair] for pair in zip(tenants, views, strict=True)], pa.int64()),
    }
    arrays = []
    for field in EVENT_SCHEMA:
        column = columns.get(field.name, table[field.name])
        arrays.append(column.dictionary_encode() if field.name in WORD_COLUMNS else column)
    return pa.Table.from_arrays(arrays, EVENT_SCHEMA.names).cast(EVENT_SCHEMA)
