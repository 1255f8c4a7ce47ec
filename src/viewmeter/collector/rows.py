"""Where the events of a group gather as columns: in the compiled store, or in lists where none was built.

In: events that were decoded (`extend`), and bodies (`take`, compiled only). Out: one buffer per column. Promised: both
stores give the same columns for the same events. The compiled one is optional (decoder.py): without it msgspec decodes
everything and `PlainRows` holds it.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import chain
from typing import Any, Final, Protocol

import numpy as np
import numpy.typing as npt

from viewmeter.model.events import ABSENT

WHOLE: Final = (
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
"""Numbers that are rounded."""

RUN_WORDS: Final = ("channel_id", "video_id", "player", "cdn", "stream_type")
"""What a run says in words, beside its view."""

Run = tuple[int, str, int, int, int, int, int, int, int]
"""Neighbours of one beacon that differ in nothing but numbers, type and errors, mostly all of them: how many events,
view id, view key, viewer hash, and the codes of `RUN_WORDS`."""

Columns = dict[str, Any]
"""Buffers by name: those of `EVENT_SCHEMA` that are numbers or codes, `sender` (codes), and the view_ids as
`view_text` and `view_ends`, where each ends in it."""


class Rows(Protocol):
    """A store of columns that grow."""

    @property
    def events(self) -> int:
        """How many there are."""
        ...

    def extend(
        self,
        numbers: npt.NDArray[np.float64],
        types: bytes,
        fatal: bytes,
        blind: bytes,
        runs: list[Run],
        shift_ms: int,
        tenant: int,
        sender: int,
        received_at: int,
        /,
    ) -> None:
        """Add the events of one beacon, or raise and add nothing.

        numbers: a row for each of `WHOLE` and one for `playback_rate`, NaN = absent. types, fatal, blind: a byte each.
        """
        ...

    def columns(self) -> Columns:
        """Return a copy of all columns."""
        ...


class PlainRows:
    """The store in Python: pieces of beacons, put together when they are asked for."""

    def __init__(self) -> None:
        self.events = 0
        self._numbers: list[npt.NDArray[np.float64]] = []
        self._beacons: list[tuple[int, int, int, int, int]] = []  # events, received_at, shift_ms, tenant, sender
        self._runs: list[tuple[int, ...]] = []
        self._view_ids: list[bytes] = []
        self._bytes = bytearray(), bytearray(), bytearray()  # types, fatal, blind

    def extend(
        self,
        numbers: npt.NDArray[np.float64],
        types: bytes,
        fatal: bytes,
        blind: bytes,
        runs: list[Run],
        shift_ms: int,
        tenant: int,
        sender: int,
        received_at: int,
        /,
    ) -> None:
        """Add the events of one beacon."""
        view_ids = [run[1].encode() for run in runs]
        for column, more in zip(self._bytes, (types, fatal, blind), strict=True):
            column.extend(more)
        self._view_ids += view_ids
        self._runs += [(run[0], *run[2:]) for run in runs]
        self._numbers.append(numbers)
        self._beacons.append((len(types), received_at, shift_ms, tenant, sender))
        self.events += len(types)

    def columns(self) -> Columns:
        """Return a copy of all columns."""
        if not self.events:
            return {}
        matrix = np.concatenate(self._numbers, axis=1)
        matrix[np.isnan(matrix)] = ABSENT
        rounded = np.rint(matrix[: len(WHOLE)]).astype(np.int64)
        columns: Columns = dict(zip(WHOLE, rounded, strict=True))
        columns["playback_rate"] = matrix[len(WHOLE)]
        counts, received, shifts, tenants, senders = _transposed(self._beacons)
        columns["ts"] = columns["ts"] + np.repeat(shifts, counts)
        columns["received_at"] = np.repeat(received, counts)
        columns["tenant_id"] = np.repeat(tenants.astype(np.int32), counts)
        columns["sender"] = np.repeat(senders.astype(np.int32), counts)
        sizes, view_keys, viewers, *words = _transposed(self._runs)
        columns["view_key"] = np.repeat(view_keys, sizes)
        columns["viewer_hash"] = np.repeat(viewers, sizes)
        for name, codes in zip(RUN_WORDS, words, strict=True):
            columns[name] = np.repeat(codes.astype(np.int32), sizes)
        lengths = np.fromiter(map(len, self._view_ids), np.int64, len(self._view_ids))
        columns["view_ends"] = np.repeat(lengths, sizes).cumsum().astype(np.int32)
        columns["view_text"] = b"".join(text * size for text, size in zip(self._view_ids, sizes.tolist(), strict=True))
        for name, column in zip(("type", "fatal", "blind"), self._bytes, strict=True):
            columns[name] = bytes(column)
        return columns


def _transposed(rows: Sequence[tuple[int, ...]]) -> npt.NDArray[np.int64]:
    """Return rows of numbers as columns: two thirds of the time of `np.array`, which looks for their shape first."""
    width = len(rows[0])
    return np.fromiter(chain.from_iterable(rows), np.int64, len(rows) * width).reshape(-1, width).T
