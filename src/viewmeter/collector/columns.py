"""Many beacons as one record batch of `EVENT_SCHEMA`.

In: accepted beacons, one by one. Out: their events, flat and enriched, in the order of arrival. Promised: no nulls
(absent numbers are -1, absent words `UNKNOWN`), fractions of a ms are rounded, and a beacon that cannot be written as
columns raises in `add` and leaves nothing behind.

Per event only C loops run: structs become tuples, tuples are transposed, words become codes; numpy and Arrow make
arrays of whole columns. A beacon is taken apart at once, while the processor's cache still holds what the decoder
made of it, and its events are then let go (docs/benchmarks-ingest.md has what that is worth).
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from itertools import chain, groupby
from operator import itemgetter
from typing import Any, Final

import msgspec
import numpy as np
import numpy.typing as npt
import pyarrow as pa

from viewmeter.collector.senders import Sender
from viewmeter.collector.viewers import TenantHashes
from viewmeter.model.events import ABSENT, EVENT_SCHEMA, TYPE_CODES, UNKNOWN, Fatality, WireEvent

Fields = tuple[tuple[Any, ...], ...]
"""A beacon's events, transposed: a tuple per field of `WireEvent`, in its order."""

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
_STRING: Final = pa.string()  # each call makes another object
_NUMBERS: Final = (*_WHOLE, "playback_rate")
_RUN_WORDS: Final = ("channel_id", "video_id", "player", "cdn", "stream_type")
_PLACE_WORDS: Final = ("country", "region", "city", "asn")
_AGENT_WORDS: Final = ("device_type", "os", "browser")
_RARE: Final = ("error_code", "error_message", "fatal", "halted", "blind")
_FATALITY: Final = {None: int(Fatality.UNKNOWN), False: int(Fatality.GOES_ON), True: int(Fatality.FATAL)}
_PLACES: Final = {name: place for place, name in enumerate(WireEvent.__struct_fields__)}
TS: Final = _PLACES["ts"]
CHANNEL: Final = _PLACES["channel_id"]
_TYPE: Final = _PLACES["type"]
_numbers_of: Final = itemgetter(*(_PLACES[name] for name in _NUMBERS))
_rare_of: Final = itemgetter(*(_PLACES[name] for name in _RARE))
_heads_of: Final = itemgetter(*(_PLACES[name] for name in ("view_id", "viewer_id", *_RUN_WORDS)))


def transposed(events: Sequence[WireEvent]) -> Fields:
    """Return the fields of one or more events as tuples."""
    return tuple(zip(*map(msgspec.structs.astuple, events), strict=True))


class Beacon(msgspec.Struct, gc=False):
    """The accepted events of one POST. `shift_ms` is added to each `ts` (the correction of the sender's clock)."""

    hashes: TenantHashes
    sender: Sender
    received_at: int
    shift_ms: int
    fields: Fields

    @property
    def events(self) -> int:
        """How many there are."""
        return len(self.fields[TS])


_Rare = tuple[list[Any], list[Any], list[Any], list[Any]]
"""error_code, error_message, fatal, blind of a beacon."""

_Run = tuple[int, int, int, int, int, int, int, int]
"""Neighbours of one beacon that differ in nothing but numbers and type, mostly all of them: how many events, view key,
viewer hash, and the codes of `_RUN_WORDS`."""


class _Words(dict[str, int]):
    """Words and their codes. Absent, empty and `UNKNOWN` are one word; it comes first."""

    def __init__(self) -> None:
        super().__init__({"": 0, UNKNOWN: 0})
        self[None] = 0  # type: ignore[index]
        self.words = [UNKNOWN]

    def __missing__(self, word: str) -> int:
        word.encode()  # what Arrow could not write must not get in
        code = self[word] = len(self.words)
        self.words.append(word)
        return code

    def column(self, codes: npt.NDArray[np.int32]) -> Any:
        return pa.DictionaryArray.from_arrays(pa.array(codes), pa.array(self.words, _STRING), safe=False)


class Columns:
    """Events as columns that grow. `add` beacons, then take the `batch` once."""

    def __init__(self) -> None:
        self.events = 0
        # Per beacon.
        self._beacons: list[tuple[int, int, int, int]] = []  # events, received_at, shift_ms, tenant
        self._senders: list[Sender] = []
        self._numbers: list[npt.NDArray[np.float64]] = []  # a row per name of _NUMBERS, a column per event
        self._types = bytearray()  # a byte per event
        # Per run.
        self._runs: list[_Run] = []
        self._view_ids: list[str] = []
        self._rare: list[tuple[int, _Rare]] = []  # with the place of the beacon's first event
        self._tenant_words = _Words()
        self._run_words = tuple(_Words() for _ in _RUN_WORDS)

    def add(self, beacon: Beacon) -> None:
        """Take a beacon of at least one event apart. Raises what is wrong with it, and is then unchanged."""
        fields = beacon.fields
        count = len(fields[TS])
        numbers = np.fromiter(chain.from_iterable(_numbers_of(fields)), np.float64, count * len(_NUMBERS))
        types = bytes(map(TYPE_CODES.__getitem__, fields[_TYPE]))
        runs, view_ids = self._runs_of(beacon, count)
        tenant = self._tenant_words[beacon.hashes.id]
        rare = _rare(fields) if _rare_of(fields) != _nothing_rare(count) else None
        # From here on nothing can fail.
        if rare is not None:
            self._rare.append((self.events, rare))
        self._numbers.append(numbers.reshape(len(_NUMBERS), count))
        self._types += types
        self._runs += runs
        self._view_ids += view_ids
        self._beacons.append((count, beacon.received_at, beacon.shift_ms, tenant))
        self._senders.append(beacon.sender)
        self.events += count

    def _runs_of(self, beacon: Beacon, count: int) -> tuple[list[_Run], list[str]]:
        heads = list(zip(*_heads_of(beacon.fields), strict=True))
        if heads.count(heads[0]) == count:
            sizes = [(heads[0], count)]
        else:
            sizes = [(head, len(list(same))) for head, same in groupby(heads)]
        hashes = beacon.hashes
        channels, videos, players, cdns, stream_types = self._run_words
        runs = []
        for (view, viewer, channel, video, player, cdn, stream_type), size in sizes:
            view_key = hashes.views[view]  # raises what Arrow could not write
            viewer_hash = hashes.viewers[viewer] if viewer else beacon.sender.viewer_hash(hashes.id)
            words = channels[channel], videos[video], players[player], cdns[cdn], stream_types[stream_type]
            runs.append((size, view_key, viewer_hash, *words))
        return runs, [head[0] for head, _ in sizes]

    def batch(self) -> pa.RecordBatch:
        """Return all events as a record batch."""
        total = self.events
        counts, received, shifts, tenants = _columns_of(self._beacons)
        columns: dict[str, Any] = self._number_columns()
        columns["ts"] = columns["ts"] + np.repeat(shifts, counts)
        columns["received_at"] = np.repeat(received, counts)
        columns["tenant_id"] = self._tenant_words.column(np.repeat(tenants.astype(np.int32), counts))
        columns.update(_sender_columns(self._senders, counts))
        columns.update(self._run_columns())
        columns["type"] = np.frombuffer(self._types, np.uint8)
        columns.update(self._rare_columns(total))
        arrays = [c if isinstance(c := columns[f.name], pa.Array) else pa.array(c) for f in EVENT_SCHEMA]
        return pa.RecordBatch.from_arrays(arrays, schema=EVENT_SCHEMA)

    def _run_columns(self) -> dict[str, Any]:
        sizes, view_keys, viewers, *words = _columns_of(self._runs)
        columns: dict[str, Any] = {"view_key": np.repeat(view_keys, sizes), "viewer_hash": np.repeat(viewers, sizes)}
        for name, known, codes in zip(_RUN_WORDS, self._run_words, words, strict=True):
            columns[name] = known.column(np.repeat(codes.astype(np.int32), sizes))
        run_of_event = np.repeat(np.arange(len(sizes)), sizes)
        columns["view_id"] = pa.array(self._view_ids, _STRING).take(pa.array(run_of_event))
        return columns

    def _rare_columns(self, total: int) -> dict[str, Any]:
        if not self._rare:
            empty = pa.py_buffer(np.zeros(total + 1, np.int32)), pa.py_buffer(b"")
            texts = pa.StringArray.from_buffers(total, *empty)  # pa.repeat("", total) takes 50 µs
            fatal, blind = np.full(total, int(Fatality.UNKNOWN), np.int8), np.zeros(total, np.bool_)
            return {"error_code": texts, "error_message": texts, "fatal": fatal, "blind": blind}
        columns: list[list[Any]] = [[""] * total, [""] * total, [int(Fatality.UNKNOWN)] * total, [False] * total]
        for start, rare in self._rare:
            for i, values in enumerate(rare):
                columns[i][start : start + len(rare[0])] = values
        codes, messages, fatalities, blinds = columns
        return {
            "error_code": pa.array(codes, _STRING),
            "error_message": pa.array(messages, _STRING),
            "fatal": np.array(fatalities, np.int8),
            "blind": np.array(blinds, np.bool_),
        }

    def _number_columns(self) -> dict[str, Any]:
        """Return the number columns, absent = -1; whole ones rounded."""
        matrix = np.concatenate(self._numbers, axis=1)
        matrix[np.isnan(matrix)] = ABSENT
        rounded = np.rint(matrix[: len(_WHOLE)]).astype(np.int64)
        columns: dict[str, Any] = dict(zip(_WHOLE, rounded, strict=True))
        columns["playback_rate"] = matrix[len(_WHOLE)]
        return columns


def _columns_of(rows: Sequence[tuple[int, ...]]) -> npt.NDArray[np.int64]:
    """Return rows of numbers as columns: two thirds of the time of `np.array`, which looks for their shape first."""
    width = len(rows[0])
    return np.fromiter(chain.from_iterable(rows), np.int64, len(rows) * width).reshape(-1, width).T


def build(beacons: Sequence[Beacon]) -> pa.RecordBatch:
    """Return the batch of some beacons."""
    columns = Columns()
    for beacon in beacons:
        columns.add(beacon)
    return columns.batch()


@functools.cache
def _nothing_rare(count: int) -> Fields:
    """Return what `_rare_of` gives of events without any. Cached for each size of a beacon, 500 at most."""
    return ((None,) * count,) * len(_RARE)


def _rare(fields: Fields) -> _Rare:
    """Return error_code, error_message, fatal and blind. Raises what Arrow could not write."""
    codes, messages, fatal, halted, blind = _rare_of(fields)
    fatalities = [
        int(Fatality.HALTED) if stands and known is None else _FATALITY[known]
        for known, stands in zip(fatal, halted, strict=True)
    ]
    return _texts(codes), _texts(messages), fatalities, list(map(bool, blind))


def _texts(column: tuple[str | int | None, ...]) -> list[str]:
    texts = ["" if text is None else str(text) for text in column]
    "".join(texts).encode()
    return texts


def _sender_columns(of_beacon: Sequence[Sender], counts: npt.NDArray[np.int64]) -> dict[str, Any]:
    """Return the columns that are constant per beacon: each distinct sender is coded once."""
    senders = list(dict.fromkeys(of_beacon))
    place_of = {sender: place for place, sender in enumerate(senders)}
    of_event = np.repeat(np.array([place_of[sender] for sender in of_beacon], np.int32), counts)
    columns: dict[str, Any] = {"is_bot": np.array([sender.agent.is_bot for sender in senders])[of_event]}
    described: list[tuple[str, list[str]]] = []
    for i, name in enumerate(_PLACE_WORDS):
        described.append((name, [sender.place[i] for sender in senders]))
    for i, name in enumerate(_AGENT_WORDS):
        described.append((name, [str(sender.agent[i]) for sender in senders]))
    for name, texts in described:
        words = _Words()
        codes = np.array([words[text] for text in texts], np.int32)
        columns[name] = words.column(codes[of_event])
    return columns
