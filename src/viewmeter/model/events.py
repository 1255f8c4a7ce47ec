"""The event: as players send it, and as every room after the collector reads it.

In: nothing. Out: `WireEvent` (one JSON object of a beacon) and `EVENT_SCHEMA` (the flat, enriched columns of the
log). Promised: columns hold no nulls. Absent numbers are -1 and absent dimensions are `UNKNOWN`, so that the hot
path reads every column as numpy without a copy; every real number of an event is >= 0, so -1 is free.
"""

from __future__ import annotations

import enum
import hashlib
from typing import Final, Literal

import msgspec
import pyarrow as pa

UNKNOWN: Final = "unknown"
"""A dimension's value where nobody said."""

ABSENT: Final = -1
"""A number that the player did not send."""

MAX_SEQ: Final = 10_000_000
"""Bounds `lost_events` against a made-up `seq`: a view of ten million events lasts nine years of heartbeats."""

MAX_ID_CHARS: Final = 255
MAX_TEXT_CHARS: Final = 1_024


class Fatality(enum.IntEnum):
    """What an `error` means for playback: the column `fatal`."""

    UNKNOWN = -1
    GOES_ON = 0
    FATAL = 1
    HALTED = 2  # unknown, but the picture stands until the player says otherwise (decision 0003)


class EventType(enum.IntEnum):
    """What happened. The number is what the log stores; never renumber, only append."""

    REQUEST = 0
    PLAY = 1
    PAUSE = 2
    SEEK = 3
    BUFFER = 4
    QUALITY_CHANGE = 5
    HEARTBEAT = 6
    COMPLETE = 7
    ERROR = 8
    EXIT = 9
    OTHER = 10

    @property
    def wire(self) -> str:
        """The word players send, e.g. `quality_change`."""
        return self.name.lower()


EVENT_TYPES: Final[tuple[str, ...]] = tuple(kind.wire for kind in EventType)
TYPE_CODES: Final[dict[str, int]] = {kind.wire: int(kind) for kind in EventType}

WireType = Literal[
    "request",
    "play",
    "pause",
    "seek",
    "buffer",
    "quality_change",
    "heartbeat",
    "complete",
    "error",
    "exit",
    "other",
]


class WireEvent(msgspec.Struct, gc=False):
    """One event as a player sends it (DESIGN 3). Units: `_ms` milliseconds, `_kbps` kilobits per second.

    Numbers are floats here since players send fractions of a millisecond; the collector rounds them.
    """

    type: WireType
    ts: float
    view_id: str
    seq: int
    video_id: str
    channel_id: str | None = None
    viewer_id: str | None = None
    position_ms: float | None = None
    duration_ms: float | None = None
    played_ms: float | None = None
    rebuffered_ms: float | None = None
    rebuffer_count: float | None = None
    startup_ms: float | None = None
    bitrate_kbps: float | None = None
    playback_rate: float | None = None
    error_code: str | int | None = None
    error_message: str | None = None
    player: str | None = None
    cdn: str | None = None
    stream_type: str | None = None
    fatal: bool | None = None
    halted: bool | None = None
    blind: bool | None = None


_word = pa.dictionary(pa.int32(), pa.string())

EVENT_SCHEMA: Final[pa.Schema] = pa.schema(
    [
        pa.field("tenant_id", _word, nullable=False),
        pa.field("channel_id", _word, nullable=False),
        pa.field("video_id", _word, nullable=False),
        pa.field("view_id", pa.string(), nullable=False),
        pa.field("view_key", pa.int64(), nullable=False),  # view_key(tenant_id, view_id)
        pa.field("viewer_hash", pa.int64(), nullable=False),  # salted; see collector
        pa.field("seq", pa.int64(), nullable=False),
        pa.field("type", pa.uint8(), nullable=False),  # EventType
        pa.field("ts", pa.int64(), nullable=False),  # ms since the epoch, skew corrected
        pa.field("received_at", pa.int64(), nullable=False),  # ms since the epoch, the server's clock
        pa.field("position_ms", pa.int64(), nullable=False),
        pa.field("duration_ms", pa.int64(), nullable=False),  # 0 = live
        pa.field("played_ms", pa.int64(), nullable=False),
        pa.field("rebuffered_ms", pa.int64(), nullable=False),
        pa.field("rebuffer_count", pa.int64(), nullable=False),
        pa.field("startup_ms", pa.int64(), nullable=False),
        pa.field("bitrate_kbps", pa.int64(), nullable=False),
        pa.field("playback_rate", pa.float64(), nullable=False),  # -1.0 = absent
        pa.field("fatal", pa.int8(), nullable=False),  # Fatality
        pa.field("blind", pa.bool_(), nullable=False),
        pa.field("is_bot", pa.bool_(), nullable=False),
        pa.field("error_code", pa.string(), nullable=False),  # "" = none
        pa.field("error_message", pa.string(), nullable=False),
        pa.field("country", _word, nullable=False),
        pa.field("region", _word, nullable=False),
        pa.field("city", _word, nullable=False),
        pa.field("asn", _word, nullable=False),
        pa.field("device_type", _word, nullable=False),
        pa.field("os", _word, nullable=False),
        pa.field("browser", _word, nullable=False),
        pa.field("player", _word, nullable=False),
        pa.field("cdn", _word, nullable=False),
        pa.field("stream_type", _word, nullable=False),
    ]
)

WORD_COLUMNS: Final[tuple[str, ...]] = tuple(f.name for f in EVENT_SCHEMA if pa.types.is_dictionary(f.type))


def view_key(tenant_id: str, view_id: str) -> int:
    """Return the signed 64-bit identity of a view inside its tenant.

    BLAKE2b rather than a fast hash: ids come from strangers, and nobody may aim at another tenant's view.
    """
    digest = hashlib.blake2b(f"{tenant_id}\0{view_id}".encode(), digest_size=8).digest()
    return int.from_bytes(digest, "little", signed=True)
