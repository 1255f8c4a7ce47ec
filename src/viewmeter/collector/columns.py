"""Many beacons as one record batch of `EVENT_SCHEMA`.

In: accepted beacons. Out: their events, flat and enriched, in the order of arrival. Promised: no nulls (absent numbers
are -1, absent words `UNKNOWN`), fractions of a ms are rounded. Per event only C loops run: structs become tuples,
tuples are transposed, each column becomes one array. What is constant per beacon is coded once and repeated by numpy.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import chain
from typing import Any, Final

import msgspec
import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from viewmeter.collector.senders import Sender
from viewmeter.collector.viewers import TenantHashes
from viewmeter.model.events import ABSENT, EVENT_SCHEMA, TYPE_CODES, UNKNOWN, Fatality, WireEvent

Codes = npt.NDArray[np.int32]

_FIELDS: Final = WireEvent.__struct_fields__
_WHOLE: Final = (
    "ts",
    "seq",
    "position_ms",
    "duration_ms",
    "played_ms",
    "rebuffered_ms",
    "rebuffer_count",
    "startup_ms",
    "bitrate_kbps",
)
_NUMBERS: Final = (*_WHOLE, "playback_rate")
_EVENT_WORDS: Final = ("channel_id", "video_id", "player", "cdn", "stream_type")
_PLACE_WORDS: Final = ("country", "region", "city", "asn")
_AGENT_WORDS: Final = ("device_type", "os", "browser")
_FATAL: Final = {None: -1, False: 0, True: 1}


class Beacon(msgspec.Struct, gc=False):
    """The accepted events of one POST. `shift_ms` is added to each `ts` (the correction of the sender's clock)."""

    hashes: TenantHashes
    sender: Sender
    received_at: int
    shift_ms: int
    events: list[WireEvent]


class _Words(dict[str | None, int]):
    """Words and their codes. Absent, empty and `UNKNOWN` are one word; it comes first."""

    def __init__(self) -> None:
        super().__init__({None: 0, "": 0, UNKNOWN: 0})
        self.words = [UNKNOWN]

    def __missing__(self, word: str) -> int:
        code = self[word] = len(self.words)
        self.words.append(word)
        return code

    def codes(self, words: Iterable[str | None], count: int) -> Codes:
        return np.fromiter(map(self.__getitem__, words), np.int32, count)

    def column(self, codes: Codes) -> Any:
        return pa.DictionaryArray.from_arrays(pa.array(codes), pa.array(self.words, pa.string()), safe=False)


def build(beacons: Sequence[Beacon]) -> pa.RecordBatch:
    """Return the batch of one or more beacons, each with at least one event."""
    counts = np.fromiter((len(beacon.events) for beacon in beacons), np.int64, len(beacons))
    total = int(counts.sum())
    rows = map(msgspec.structs.astuple, chain.from_iterable(beacon.events for beacon in beacons))
    fields: dict[str, tuple[Any, ...]] = dict(zip(_FIELDS, zip(*rows, strict=True), strict=True))
    received = np.fromiter((beacon.received_at for beacon in beacons), np.int64, len(beacons))
    shifts = np.fromiter((beacon.shift_ms for beacon in beacons), np.int64, len(beacons))
    numbers = _numbers(fields, total)
    whole = _whole(numbers, total)
    columns: dict[str, Any] = {
        **whole,
        "view_id": pa.array(fields["view_id"], pa.string()),
        "type": np.fromiter(map(TYPE_CODES.__getitem__, fields["type"]), np.uint8, total),
        "ts": whole["ts"] + np.repeat(shifts, counts),
        "received_at": np.repeat(received, counts),
        "playback_rate": numbers.get("playback_rate", np.full(total, float(ABSENT))),
        "fatal": _fatality(fields["fatal"], fields["halted"], total),
        "blind": _flags(fields["blind"], total) == 1,
        "error_code": _texts(fields["error_code"], total),
        "error_message": _texts(fields["error_message"], total),
    }
    for name in _EVENT_WORDS:
        words = _Words()
        columns[name] = words.column(words.codes(fields[name], total))
    columns["view_key"], columns["viewer_hash"] = _hashes(beacons, fields, total)
    columns.update(_senders(beacons, counts))
    arrays = [c if isinstance(c := columns[f.name], pa.Array) else pa.array(c) for f in EVENT_SCHEMA]
    return pa.RecordBatch.from_arrays(arrays, schema=EVENT_SCHEMA)


def _numbers(fields: dict[str, tuple[Any, ...]], total: int) -> dict[str, npt.NDArray[np.float64]]:
    """Return the float columns, absent = -1. One array for all: numpy's cost of a call is that of 50 events."""
    sent = [name for name in _NUMBERS if fields[name].count(None) < total]
    values = chain.from_iterable(map(fields.__getitem__, sent))
    matrix = np.fromiter(values, np.float64, total * len(sent)).reshape(len(sent), total)  # None becomes NaN
    matrix[np.isnan(matrix)] = ABSENT
    return dict(zip(sent, matrix, strict=True))


def _whole(matrix: dict[str, npt.NDArray[np.float64]], total: int) -> dict[str, npt.NDArray[np.int64]]:
    """Return the same rounded, for all columns of whole numbers."""
    absent = np.full(total, ABSENT, np.int64)
    names = [name for name in matrix if name in _WHOLE]
    rounded = np.rint([matrix[name] for name in names]).astype(np.int64)
    return dict.fromkeys(_WHOLE, absent) | dict(zip(names, rounded, strict=True))


def _flags(column: tuple[bool | None, ...], total: int) -> npt.NDArray[np.int8]:
    if column.count(None) == total:
        return np.full(total, -1, np.int8)
    return np.fromiter(map(_FATAL.__getitem__, column), np.int8, total)


def _fatality(fatal: tuple[bool | None, ...], halted: tuple[bool | None, ...], total: int) -> npt.NDArray[np.int8]:
    column = _flags(fatal, total)
    if halted.count(None) != total:
        column[(column == Fatality.UNKNOWN) & (_flags(halted, total) == 1)] = Fatality.HALTED
    return column


def _texts(column: tuple[str | int | None, ...], total: int) -> Any:
    if column.count(None) == total:
        return pa.repeat("", total)
    try:
        return pc.fill_null(pa.array(column, pa.string()), "")
    except pa.ArrowTypeError:  # a number among the error codes
        return pa.array(["" if text is None else str(text) for text in column], pa.string())


def _hashes(
    beacons: Sequence[Beacon], fields: dict[str, tuple[Any, ...]], total: int
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Return the view keys and the viewer hashes: each known one is a dict access."""
    views: list[int] = []
    viewers: list[int] = []
    start = 0
    for beacon in beacons:
        end = start + len(beacon.events)
        hashes = beacon.hashes
        views.extend(map(hashes.views.__getitem__, fields["view_id"][start:end]))
        ids = fields["viewer_id"][start:end]
        if None in ids or "" in ids:
            fallback = beacon.sender.viewer_hash(hashes.id)
            viewers.extend(hashes.viewers[viewer] if viewer else fallback for viewer in ids)
        else:
            viewers.extend(map(hashes.viewers.__getitem__, ids))
        start = end
    return np.fromiter(views, np.int64, total), np.fromiter(viewers, np.int64, total)


def _senders(beacons: Sequence[Beacon], counts: npt.NDArray[np.int64]) -> dict[str, Any]:
    """Return the columns that are constant per beacon: each distinct sender is coded once."""
    place_of: dict[int, int] = {}
    senders: list[Sender] = []
    for beacon in beacons:
        if id(beacon.sender) not in place_of:
            place_of[id(beacon.sender)] = len(senders)
            senders.append(beacon.sender)
    of_beacon = np.fromiter((place_of[id(b.sender)] for b in beacons), np.int32, len(beacons))
    of_event = np.repeat(of_beacon, counts)
    columns: dict[str, Any] = {
        "is_bot": np.fromiter((s.agent.is_bot for s in senders), np.bool_, len(senders))[of_event]
    }
    described: list[tuple[str, list[str]]] = []
    for i, name in enumerate(_PLACE_WORDS):
        described.append((name, [sender.place[i] for sender in senders]))
    for i, name in enumerate(_AGENT_WORDS):
        described.append((name, [str(sender.agent[i]) for sender in senders]))
    for name, texts in described:
        words = _Words()
        columns[name] = words.column(words.codes(texts, len(texts))[of_event])
    tenants = _Words()
    codes = tenants.codes((beacon.hashes.id for beacon in beacons), len(beacons))
    columns["tenant_id"] = tenants.column(np.repeat(codes, counts))
    return columns
