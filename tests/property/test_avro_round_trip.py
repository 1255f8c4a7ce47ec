"""An event written as Avro and read again says the same."""

from __future__ import annotations

import contextlib
import io

import fastavro
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from laws import examples

from viewmeter.eventlog.avro import UndecodableEventError, decode, encode, schema
from viewmeter.model.events import EVENT_SCHEMA

NUMBERS = (pa.int8(), pa.uint8(), pa.int64(), pa.float64(), pa.bool_())
BOUNDS = {8: (-(2**7), 2**7 - 1), 64: (-(2**63), 2**63 - 1)}


def values(kind: pa.DataType) -> st.SearchStrategy[object]:
    if pa.types.is_boolean(kind):
        return st.booleans()
    if pa.types.is_floating(kind):
        return st.floats(allow_nan=False)
    if pa.types.is_unsigned_integer(kind):
        return st.integers(0, 2**kind.bit_width - 1)
    if pa.types.is_integer(kind):
        return st.integers(*BOUNDS[kind.bit_width])
    return st.text(st.characters(codec="utf-8"), max_size=20)


rows = st.lists(st.fixed_dictionaries({f.name: values(f.type) for f in EVENT_SCHEMA}), max_size=6)


def batch_of(events: list[dict[str, object]]) -> pa.RecordBatch:
    arrays = []
    for field in EVENT_SCHEMA:
        column = [event[field.name] for event in events]
        word = pa.types.is_dictionary(field.type)
        arrays.append(pa.array(column, pa.string()).dictionary_encode() if word else pa.array(column, field.type))
    return pa.RecordBatch.from_arrays(arrays, schema=EVENT_SCHEMA)


@settings(max_examples=examples(60), deadline=None)
@given(rows)
def test_what_was_encoded_is_decoded(events: list[dict[str, object]]) -> None:
    batch = batch_of(events)
    messages = encode(batch)
    assert len(messages) == len(events)
    again = decode(messages)
    assert again.schema == EVENT_SCHEMA
    assert again.to_pylist() == batch.to_pylist()


@settings(max_examples=examples(60), deadline=None)
@given(rows.filter(bool), st.data())
def test_a_message_that_is_cut_or_has_a_tail_is_refused_by_its_place(
    events: list[dict[str, object]], data: st.DataObject
) -> None:
    messages = encode(batch_of(events))
    place = data.draw(st.integers(0, len(messages) - 1))
    cut = data.draw(st.integers(0, len(messages[place]) - 1))
    for bad in (messages[place][:cut], messages[place] + b"\0"):
        with pytest.raises(UndecodableEventError, match=f"message {place} "):
            decode([*messages[:place], bad, *messages[place + 1 :]])


@settings(max_examples=examples(200), deadline=None)
@given(st.binary(max_size=400))
def test_any_bytes_are_an_event_or_refused(noise: bytes) -> None:
    with contextlib.suppress(UndecodableEventError):
        assert len(decode([noise])) == 1


def test_a_number_that_no_column_holds_is_refused() -> None:
    event = dict.fromkeys(EVENT_SCHEMA.names, 0) | {f.name: "" for f in EVENT_SCHEMA if f.type not in NUMBERS}
    stream = io.BytesIO()
    fastavro.schemaless_writer(stream, schema(), event | {"type": 256, "blind": False, "is_bot": False})
    with pytest.raises(UndecodableEventError, match="type holds what the log cannot"):
        decode([stream.getvalue()])


def test_a_version_that_does_not_exist_is_named() -> None:
    with pytest.raises(ValueError, match="no version 99 of the event's schema; there are 1"):
        schema(99)
