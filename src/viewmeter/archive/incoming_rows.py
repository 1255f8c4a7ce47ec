"""Single events of a file as columns of the log.

In: decoded events with what the file says beside them. Out: a table of `EVENT_SCHEMA`. A viewer without an id and
without a hash is a viewer of that one view: there is no address here from which to tell him from others.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, NamedTuple

import msgspec
import pyarrow as pa

from viewmeter.collector.viewers import keyed_hash
from viewmeter.metadata.keys import Tenant
from viewmeter.model.events import (
    ABSENT,
    EVENT_SCHEMA,
    TYPE_CODES,
    UNKNOWN,
    WORD_COLUMNS,
    Fatality,
    WireEvent,
    view_key,
)

_WHOLE: Final = (
    "position_ms", "duration_ms", "played_ms", "rebuffered_ms", "rebuffer_count", "startup_ms", "bitrate_kbps",
)  # fmt: skip
_OF_EVENT: Final = ("channel_id", "video_id", "player", "cdn", "stream_type")
_OF_SENDER: Final = ("country", "region", "city", "asn", "device_type", "os", "browser")
_FATALITY: Final = {None: Fatality.UNKNOWN, False: Fatality.GOES_ON, True: Fatality.FATAL}


class Extras(msgspec.Struct):
    """What the collector adds to an event, where a file has it."""

    tenant_id: str | None = None
    received_at: float | None = None
    viewer_hash: int | str | None = None
    country: str | None = None
    region: str | None = None
    city: str | None = None
    asn: str | None = None
    device_type: str | None = None
    os: str | None = None
    browser: str | None = None
    is_bot: bool | None = None

    def hash(self) -> int | str | None:
        """Return the viewer's hash, None where there is none, or what is wrong with it."""
        if self.viewer_hash is None:
            return None
        try:
            number = int(self.viewer_hash)
        except ValueError:
            number = 2**64
        if -(2**63) <= number < 2**63:
            return number
        return (
            f"`viewer_hash` is {str(self.viewer_hash)[:40]!r}: it is a signed 64-bit number (as text, for JSON's sake)"
        )


class Row(NamedTuple):
    """An event that was taken."""

    event: WireEvent
    extras: Extras
    tenant: Tenant
    viewer_hash: int | None


def table_of(rows: Sequence[Row], now_ms: int) -> pa.Table:
    """Return the rows as columns. `now_ms` stands for a `received_at` that the file does not have."""
    events = [row.event for row in rows]
    columns: dict[str, list[object]] = {name: [_whole(getattr(e, name)) for e in events] for name in _WHOLE}
    for name in _OF_EVENT:
        columns[name] = [getattr(e, name) or UNKNOWN for e in events]
    for name in _OF_SENDER:
        columns[name] = [getattr(row.extras, name) or UNKNOWN for row in rows]
    columns |= {
        "tenant_id": [row.tenant.id for row in rows],
        "view_id": [e.view_id for e in events],
        "view_key": [view_key(row.tenant.id, row.event.view_id) for row in rows],
        "viewer_hash": [_viewer(row) for row in rows],
        "seq": [e.seq for e in events],
        "type": [TYPE_CODES[e.type] for e in events],
        "ts": [round(e.ts) for e in events],
        "received_at": [now_ms if row.extras.received_at is None else round(row.extras.received_at) for row in rows],
        "playback_rate": [float(ABSENT) if e.playback_rate is None else e.playback_rate for e in events],
        "fatal": [_fatality(e) for e in events],
        "blind": [bool(e.blind) for e in events],
        "is_bot": [bool(row.extras.is_bot) for row in rows],
        "error_code": ["" if e.error_code is None else str(e.error_code) for e in events],
        "error_message": [e.error_message or "" for e in events],
    }
    arrays = []
    for field in EVENT_SCHEMA:
        values = columns[field.name]
        is_word = field.name in WORD_COLUMNS
        arrays.append(pa.array(values, pa.string()).dictionary_encode() if is_word else pa.array(values, field.type))
    return pa.Table.from_arrays(arrays, schema=EVENT_SCHEMA)


def _whole(value: float | None) -> int:
    return ABSENT if value is None else round(value)


def _fatality(event: WireEvent) -> int:
    return int(Fatality.HALTED) if event.halted and event.fatal is None else int(_FATALITY[event.fatal])


def _viewer(row: Row) -> int:
    if row.viewer_hash is not None:
        return row.viewer_hash
    secret = row.tenant.viewer_secret
    if row.event.viewer_id:
        return keyed_hash(secret, row.event.viewer_id)
    return keyed_hash(secret, f"view\0{row.event.view_id}")
