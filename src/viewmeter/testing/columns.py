"""Events as dicts, and as the Arrow columns of the log: for subjects and tests that feed the real engines.

In: enriched event dicts, or a table of EVENT_SCHEMA. Out: the other one. Promised: `to_events(to_table(x))`
says the same as x (absent is absent, rows keep their order). Not done: speed.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Final

import pyarrow as pa

from viewmeter.model.events import (
    ABSENT,
    EVENT_SCHEMA,
    EVENT_TYPES,
    TYPE_CODES,
    UNKNOWN,
    WORD_COLUMNS,
    Fatality,
    view_key,
)

_BLANK: Final[dict[str, Any]] = {name: UNKNOWN if name in WORD_COLUMNS else ABSENT for name in EVENT_SCHEMA.names} | {
    "error_code": "",
    "error_message": "",
    "blind": False,
    "is_bot": False,
    "playback_rate": float(ABSENT),
}


def to_table(events: Iterable[Mapping[str, Any]]) -> pa.Table:
    """Return the events as rows of EVENT_SCHEMA, in their order."""
    rows = [*events]
    # Column by column: a dict of all names for each event took twice the time.
    columns = {name: [blank if (v := row.get(name)) is None else v for row in rows] for name, blank in _BLANK.items()}
    columns["type"] = [TYPE_CODES[row["type"]] for row in rows]
    columns["fatal"] = [_fatal(row, int(told)) for row, told in zip(rows, columns["fatal"], strict=True)]
    columns["error_code"] = [str(code) for code in columns["error_code"]]
    columns["view_key"] = [view_key(*key) for key in zip(columns["tenant_id"], columns["view_id"], strict=True)]
    arrays = []
    for field in EVENT_SCHEMA:
        values = columns[field.name]
        word = pa.types.is_dictionary(field.type)
        arrays.append(pa.array(values, pa.string()).dictionary_encode() if word else pa.array(values, field.type))
    return pa.Table.from_arrays(arrays, schema=EVENT_SCHEMA)


def _fatal(event: Mapping[str, Any], told: int) -> int:
    return int(Fatality.HALTED) if told == Fatality.UNKNOWN and event.get("halted") else told


def to_events(table: pa.Table) -> list[dict[str, Any]]:
    """Return the rows as event dicts for the oracle; absent fields are left out."""
    return [
        ({"halted": True, "fatal": None} if row["fatal"] == Fatality.HALTED else {})
        | {
            k: EVENT_TYPES[v] if k == "type" else v
            for k, v in row.items()
            if k == "view_key" or (v != _BLANK[k] and (k != "fatal" or v != Fatality.HALTED))
        }
        | {k: row[k] for k in WORD_COLUMNS}
        | {"is_bot": row["is_bot"], "received_at": row["received_at"], "ts": row["ts"], "seq": row["seq"]}
        for row in table.to_pylist()
    ]
