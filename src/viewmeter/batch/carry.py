"""What an hour hands to the next one: the views it leaves behind, as a table sorted by `view_key`.

In and out: `Views` (columns the rule works on) and the table that is kept in a file. Open views may still play or end;
ended ones are kept apart ("cold") and are looked up only when a view shows up again. Promised: `of(table(x))` is x.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from viewmeter.batch.codes import Coded
from viewmeter.model.content import Contents, Runs
from viewmeter.model.events import UNKNOWN
from viewmeter.model.views import FIELDS, ViewStates

Array = npt.NDArray[Any]

DIMENSIONS: Final = (
    "tenant_id", "channel_id", "video_id", "is_bot", "country", "region", "city", "asn", "device_type", "os", "browser",
    "player", "stream_type",
)  # fmt: skip
"""What freezes at a view's first event."""

_word = pa.dictionary(pa.int32(), pa.string())
_runs = pa.list_(pa.int64())

CARRY_SCHEMA: Final[pa.Schema] = pa.schema(
    [
        pa.field("view_key", pa.int64()),
        pa.field("viewer_hash", pa.int64()),
        *(pa.field(name, pa.bool_() if name == "is_bot" else _word) for name in DIMENSIONS),
        *(pa.field(f"state_{n}", pa.from_numpy_dtype(np.dtype(t))) for n, (t, _) in FIELDS.items() if n != "cdn"),
        pa.field("state_cdn", _word),
        pa.field("events", pa.int64()),  # distinct events so far
        pa.field("rebuffered_ms", pa.int64()),  # so far, from counters or state
        pa.field("position_ms", pa.int64()),
        pa.field("rate", pa.float64()),
        pa.field("broken", pa.bool_()),
        pa.field("run_begin", _runs),
        pa.field("run_end", _runs),
    ]
)


def nothing() -> pa.Table:
    """Return a carry without views."""
    return CARRY_SCHEMA.empty_table()


@dataclass
class Views:
    """Views, one row each, ascending by key. `states.cdn` are codes into words of the caller's."""

    keys: Array
    viewer: Array
    dimensions: pa.Table
    states: ViewStates
    events: Array
    rebuffered_ms: Array
    contents: Contents

    def __len__(self) -> int:
        return len(self.keys)

    @classmethod
    def of(cls, table: pa.Table, cdn: Array) -> Views:
        """Return the views of a carry; `cdn`: code of `state_cdn` of each row, -1 = unknown."""
        states = {n: _numpy(table, f"state_{n}") for n in FIELDS if n != "cdn"}
        begins = table["run_begin"].combine_chunks()
        ends = table["run_end"].combine_chunks()
        count = begins.value_lengths().to_numpy(zero_copy_only=False).astype(np.int64)
        of_view = np.repeat(np.arange(table.num_rows), count)
        runs = Runs(of_view, begins.flatten().to_numpy().copy(), ends.flatten().to_numpy().copy())
        return cls(
            _numpy(table, "view_key"),
            _numpy(table, "viewer_hash"),
            table.select(DIMENSIONS),
            ViewStates({**states, "cdn": cdn.astype(np.int32)}),
            _numpy(table, "events"),
            _numpy(table, "rebuffered_ms"),
            Contents(_numpy(table, "position_ms"), _numpy(table, "rate"), _numpy(table, "broken"), runs),
        )

    @classmethod
    def new(cls, keys: Array, viewer: Array, dimensions: pa.Table) -> Views:
        """Return views of which nothing is known but who and where they are."""
        count = len(keys)
        none = np.zeros(count, np.int64)
        return cls(keys, viewer, dimensions, ViewStates.new(count), none, none.copy(), Contents.new(count))

    def merged(self, other: Views) -> Views:
        """Return both, ascending by key; no view is in both."""
        if not len(other):
            return self
        keys = np.concatenate([self.keys, other.keys])
        order = np.argsort(keys, kind="stable")
        place = np.empty(len(order), np.int64)
        place[order] = np.arange(len(order))
        mine, theirs = self.contents, other.contents
        runs = _sorted_runs(place, mine.runs, theirs.runs, len(self))

        def both(a: Array, b: Array) -> Array:
            joined: Array = np.concatenate([a, b])[order]
            return joined

        return Views(
            keys[order],
            both(self.viewer, other.viewer),
            pa.concat_tables([self.dimensions, other.dimensions]).unify_dictionaries().take(pa.array(order)),
            ViewStates({n: both(c, other.states.__dict__[n]) for n, c in self.states.columns()}),
            both(self.events, other.events),
            both(self.rebuffered_ms, other.rebuffered_ms),
            Contents(
                both(mine.position, theirs.position),
                both(mine.rate, theirs.rate),
                both(mine.broken, theirs.broken),
                runs,
            ),
        )

    def table(self, rows: Array, cdns: pa.Array, with_runs: Array) -> pa.Table:
        """Return these rows as a carry; runs of content only where `with_runs` (an ended view needs them no more)."""
        place = np.full(len(self), -1, np.int64)
        place[rows[with_runs]] = np.flatnonzero(with_runs)
        runs = self.contents.runs
        at = place[runs.view]
        kept = at >= 0
        offsets = pa.array(np.searchsorted(at[kept], np.arange(len(rows) + 1)).astype(np.int32))
        cdn = self.states.cdn[rows]
        words = pa.concat_arrays([pa.array([UNKNOWN]), cdns.cast(pa.string())])
        columns: dict[str, Any] = {
            "view_key": self.keys[rows],
            "viewer_hash": self.viewer[rows],
            **{name: self.dimensions[name].take(pa.array(rows)) for name in DIMENSIONS},
            **{f"state_{n}": c[rows] for n, c in self.states.columns() if n != "cdn"},
            "state_cdn": pa.DictionaryArray.from_arrays(pa.array(cdn + 1, pa.int32()), words),
            "events": self.events[rows],
            "rebuffered_ms": self.rebuffered_ms[rows],
            "position_ms": self.contents.position[rows],
            "rate": self.contents.rate[rows],
            "broken": self.contents.broken[rows],
            "run_begin": pa.ListArray.from_arrays(offsets, pa.array(runs.begin[kept])),
            "run_end": pa.ListArray.from_arrays(offsets, pa.array(runs.end[kept])),
        }
        return pa.table([columns[name] for name in CARRY_SCHEMA.names], schema=CARRY_SCHEMA)


def put_contents(contents: Contents, views: Array, new: Contents) -> None:
    """Overwrite the contents of `views` (ascending); `new` has one entry for each."""
    contents.position[views], contents.rate[views], contents.broken[views] = new.position, new.rate, new.broken
    touched = np.zeros(len(contents.rate), bool)
    touched[views] = True
    rest = contents.runs.where(~touched[contents.runs.view])
    contents.runs = _joined(rest, Runs(views[new.runs.view], new.runs.begin, new.runs.end))


def take_contents(contents: Contents, views: Array) -> Contents:
    """Return copies of the contents of `views` (ascending)."""
    place = np.full(len(contents.rate), -1, np.int64)
    place[views] = np.arange(len(views))
    at = place[contents.runs.view]
    kept = at >= 0
    runs = Runs(at[kept], contents.runs.begin[kept], contents.runs.end[kept])
    return Contents(contents.position[views], contents.rate[views], contents.broken[views], runs)


def _sorted_runs(place: Array, mine: Runs, theirs: Runs, count: int) -> Runs:
    a = Runs(place[mine.view], mine.begin, mine.end)
    return _joined(a, Runs(place[theirs.view + count], theirs.begin, theirs.end))


def _joined(a: Runs, b: Runs) -> Runs:
    view = np.concatenate([a.view, b.view])
    order = np.argsort(view, kind="stable")
    return Runs(view[order], np.concatenate([a.begin, b.begin])[order], np.concatenate([a.end, b.end])[order])


def _numpy(table: pa.Table, name: str) -> Array:
    column: Array = table[name].to_numpy()
    return column.copy()


def digest(table: pa.Table) -> str:
    """Return what changes when any value of a carry does; the order and the encoding of words do not matter."""
    found = hashlib.blake2b(digest_size=16)
    for name in table.column_names:
        column = table[name]
        if pa.types.is_dictionary(column.type):
            coded = Coded.of(column)
            used = np.unique(coded.codes)
            found.update(np.searchsorted(used, coded.codes).tobytes())
            found.update("\0".join(coded.words.take(pa.array(used)).to_pylist()).encode())
        elif pa.types.is_list(column.type):
            flat = column.combine_chunks()
            found.update(flat.value_lengths().to_numpy(zero_copy_only=False).astype(np.int64).tobytes())
            found.update(np.ascontiguousarray(flat.flatten().to_numpy()).tobytes())
        else:
            found.update(np.ascontiguousarray(column.to_numpy()).tobytes())
    return found.hexdigest()
