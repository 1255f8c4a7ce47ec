"""Many beacons as one record batch of `EVENT_SCHEMA`.

In: beacons one by one, either their bodies (`take`) or what a dialect decoded of them (`add`). Out: their events, flat
and enriched, in the order of arrival. Promised: no nulls (absent numbers are -1, absent words `UNKNOWN`), fractions of
a ms are rounded, and a beacon that cannot be written as columns raises and leaves nothing behind.

A plain body goes from its bytes into the columns in C. What `add` is given is taken apart by C loops of Python: structs
become tuples, tuples are transposed, words become codes. Either way a beacon is done with before it waits for the disk,
while the processor's cache still holds it (docs/benchmarks-ingest.md has what that is worth).
"""

from __future__ import annotations

import functools
from array import array
from collections.abc import Callable, Mapping, Sequence
from itertools import chain, groupby
from operator import itemgetter
from typing import Any, Final, NamedTuple

import msgspec
import numpy as np
import pyarrow as pa

from viewmeter.collector.decoder import CompiledRows
from viewmeter.collector.rows import RUN_WORDS, WHOLE, PlainRows, Rows, Run
from viewmeter.collector.senders import Sender
from viewmeter.collector.viewers import TenantHashes
from viewmeter.model.events import EVENT_SCHEMA, TYPE_CODES, UNKNOWN, Fatality, WireEvent

Take = Callable[[bytes, "Terms", str | None, int, int], tuple[int, int, bool] | None]
"""take(body, terms, sent_at, received_at, most) adds the events of a body. It returns how many, how many fields were
ignored, and whether the sender's clock was corrected. None: the body is not plain, or has more than `most` events;
decode it and `add` it. Nothing was added then."""

Fields = tuple[tuple[Any, ...], ...]
"""A beacon's events, transposed: a tuple per field of `WireEvent`, in its order."""

_STRING: Final = pa.string()  # each call makes another object
_NUMBERS: Final = (*WHOLE, "playback_rate")
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
_heads_of: Final = itemgetter(*(_PLACES[name] for name in ("view_id", "viewer_id", *RUN_WORDS)))
_WORD_FIELDS: Final = tuple((f.name, f.type) for f in EVENT_SCHEMA if pa.types.is_dictionary(f.type))
_NUMBER_FIELDS: Final = tuple(
    (f.name, f.type) for f in EVENT_SCHEMA if pa.types.is_primitive(f.type) and not pa.types.is_boolean(f.type)
)


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


class Terms(NamedTuple):
    """What holds for all bodies of a sender, as the compiled decoder wants it.

    own: the channel of events that name none, or None. channels: those of the key; None = all. tolerance_ms: by how
    much the clocks may differ. max_age_ms, max_ahead_ms: how far from the receipt `ts` may be.
    """

    own: str | None
    channels: tuple[str, ...] | None
    views: Mapping[str, int]
    viewers: Mapping[str, int]
    sender: Sender
    tenant_id: str
    anonymous: bool
    tolerance_ms: int
    max_age_ms: int
    max_ahead_ms: int


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


class Columns:
    """Events as columns that grow. Hand beacons in, then take the `batch` once.

    compiled: use the compiled store where there is one.
    """

    def __init__(self, *, compiled: bool = True) -> None:
        self._tenants = _Words()
        self._senders: dict[Sender, int] = {}
        self._run_words = tuple(_Words() for _ in RUN_WORDS)
        self._texts: list[tuple[int, str, str]] = []  # error_code and error_message, where there is any
        self._compiled = None
        if compiled and CompiledRows is not None:
            lists = tuple(words.words for words in self._run_words)
            self._compiled = CompiledRows(self._run_words, lists, self._tenants, self._senders, self._texts)
        self.rows: Rows = self._compiled if self._compiled is not None else PlainRows()

    @property
    def events(self) -> int:
        """How many there are."""
        return self.rows.events

    @property
    def take(self) -> Take | None:
        """What adds the events of a body of the native dialect. None: nothing does; decode each body and `add` it."""
        return None if self._compiled is None else self._compiled.take

    def add(self, beacon: Beacon) -> None:
        """Take a beacon of at least one event apart. Raises what is wrong with it, and is then unchanged."""
        fields = beacon.fields
        count = len(fields[TS])
        numbers = np.fromiter(chain.from_iterable(_numbers_of(fields)), np.float64, count * len(_NUMBERS))
        types = bytes(map(TYPE_CODES.__getitem__, fields[_TYPE]))
        texts: list[tuple[int, str, str]] = []
        fatal, blind = b"\xff" * count, bytes(count)  # unknown, and not blind
        if _rare_of(fields) != _nothing_rare(count):
            texts, fatal, blind = _rare(fields, self.events)
        self.rows.extend(
            numbers.reshape(len(_NUMBERS), count),
            types,
            fatal,
            blind,
            self._runs_of(beacon, count),
            beacon.shift_ms,
            self._tenants[beacon.hashes.id],
            self._senders.setdefault(beacon.sender, len(self._senders)),
            beacon.received_at,
        )
        self._texts += texts

    def _runs_of(self, beacon: Beacon, count: int) -> list[Run]:
        heads = list(zip(*_heads_of(beacon.fields), strict=True))
        if heads.count(heads[0]) == count:
            sizes = [(heads[0], count)]
        else:
            sizes = [(head, len(list(same))) for head, same in groupby(heads)]
        hashes = beacon.hashes
        channels, videos, players, cdns, stream_types = self._run_words
        runs: list[Run] = []
        for (view, viewer, channel, video, player, cdn, stream_type), size in sizes:
            view_key = hashes.views[view]  # raises what Arrow could not write
            viewer_hash = hashes.viewers[viewer] if viewer else beacon.sender.viewer_hash(hashes.id)
            words = channels[channel], videos[video], players[player], cdns[cdn], stream_types[stream_type]
            runs.append((size, view, view_key, viewer_hash, *words))
        return runs

    def batch(self) -> pa.RecordBatch:
        """Return all events, of which there is at least one, as a record batch. Nothing can be added then."""
        words = dict(zip(RUN_WORDS, (table.words for table in self._run_words), strict=True))
        words["tenant_id"] = self._tenants.words
        described = _sender_words(self._senders)
        words.update((name, known) for name, _, known in described)
        bots = bytes(sender.agent.is_bot for sender in self._senders)
        if self._compiled is not None:
            codes = b"".join(codes for _, codes, _ in described)
            address = self._compiled.batch(tuple(words[name] for name, _ in _WORD_FIELDS), bots, codes)
            return pa.RecordBatch._import_from_c(address, EVENT_SCHEMA)
        return self._plain_batch(words, bots, {name: codes for name, codes, _ in described})

    def _plain_batch(self, words: dict[str, list[str]], bots: bytes, of_senders: dict[str, bytes]) -> pa.RecordBatch:
        total = self.events
        buffers = self.rows.columns()
        columns: dict[str, Any] = {
            name: pa.Array.from_buffers(kind, total, [None, pa.py_buffer(buffers[name])], 0)
            for name, kind in _NUMBER_FIELDS
        }
        ends = np.zeros(total + 1, np.int32)
        ends[1:] = np.frombuffer(buffers["view_ends"], np.int32)
        columns["view_id"] = pa.StringArray.from_buffers(total, pa.py_buffer(ends), pa.py_buffer(buffers["view_text"]))
        columns["blind"] = pa.array(np.frombuffer(buffers["blind"], np.bool_))
        columns["error_code"], columns["error_message"] = self._error_columns(total)
        of_event = np.frombuffer(buffers["sender"], np.int32)
        columns["is_bot"] = pa.array(np.frombuffer(bots, np.bool_)[of_event])
        for name, codes in of_senders.items():
            buffers[name] = np.frombuffer(codes, np.int32)[of_event]
        for name, kind in _WORD_FIELDS:
            known = pa.array(words[name], _STRING)
            columns[name] = pa.DictionaryArray.from_buffers(kind, total, [None, pa.py_buffer(buffers[name])], known, 0)
        return pa.RecordBatch.from_arrays([columns[field.name] for field in EVENT_SCHEMA], schema=EVENT_SCHEMA)

    def _error_columns(self, total: int) -> tuple[Any, Any]:
        if not self._texts:
            empty = pa.py_buffer(np.zeros(total + 1, np.int32)), pa.py_buffer(b"")
            none = pa.StringArray.from_buffers(total, *empty)  # pa.repeat("", total) takes 50 µs
            return none, none
        codes, messages = [""] * total, [""] * total
        for place, code, message in self._texts:
            codes[place], messages[place] = code, message
        return pa.array(codes, _STRING), pa.array(messages, _STRING)


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


def _rare(fields: Fields, first: int) -> tuple[list[tuple[int, str, str]], bytes, bytes]:
    """Return the error texts with their places (from `first` on), `fatal`, and `blind`.

    Raises what Arrow could not write.
    """
    codes, messages, fatal, halted, blind = _rare_of(fields)
    texts = [
        (place, "" if code is None else str(code), message or "")
        for place, (code, message) in enumerate(zip(codes, messages, strict=True), first)
        if code is not None or message
    ]
    "".join(chain.from_iterable(note[1:] for note in texts)).encode()
    fatalities = np.array(
        [
            int(Fatality.HALTED) if stands and known is None else _FATALITY[known]
            for known, stands in zip(fatal, halted, strict=True)
        ],
        np.int8,
    )
    return texts, fatalities.tobytes(), bytes(map(bool, blind))


def _sender_words(senders: dict[Sender, int]) -> list[tuple[str, bytes, list[str]]]:
    """Return the columns that a sender decides: name, a code (int32) for each sender, and the words."""
    places = zip(*[sender.place for sender in senders], strict=True)
    agents = zip(*[sender.agent for sender in senders], strict=True)
    columns = []
    for name, texts in (*zip(_PLACE_WORDS, places, strict=True), *zip(_AGENT_WORDS, agents, strict=False)):
        words = _Words()
        columns.append((name, array("i", [words[text] for text in texts]).tobytes(), words.words))
    return columns
