"""The native dialect: the fast way and the slow way agree, and reasons are exact."""

from __future__ import annotations

import json
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from viewmeter.collector.dialects import EVENT_CODES, UndecodableError
from viewmeter.collector.dialects.native import _one_by_one, decode

GOOD = {"type": "play", "ts": 1, "view_id": "v", "seq": 0, "video_id": "x"}


def body(*events: Any) -> bytes:
    return json.dumps(events).encode()


_values = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-5, 10**8),
    st.floats(allow_nan=False, allow_infinity=False),
    st.text(max_size=300),
    st.lists(st.integers(), max_size=2),
)
_fields = st.sampled_from(
    [*GOOD, "channel_id", "viewer_id", "position_ms", "error_code", "player", "fatal", "blind", "z"]
)
_changes = st.dictionaries(_fields, _values, max_size=3)


@settings(max_examples=300, deadline=None)
@given(changes=st.lists(_changes, min_size=1, max_size=4))
def test_a_beacon_decodes_to_the_same_in_one_piece_and_event_by_event(changes: list[dict[str, Any]]) -> None:
    sent = body(*(GOOD | change for change in changes))
    whole, apart = decode(sent), _one_by_one(sent)
    assert list(map(msgspec.to_builtins, whole.events)) == list(map(msgspec.to_builtins, apart.events))
    assert whole.rejected == apart.rejected
    assert whole.ignored_fields == apart.ignored_fields
    assert {one.code for one in whole.rejected} <= set(EVENT_CODES)
    places = whole.places if whole.places is not None else list(range(len(whole.events)))
    assert sorted([*places, *(one.index for one in whole.rejected)]) == list(range(len(changes)))


@settings(max_examples=300, deadline=None)
@given(noise=st.binary(max_size=80))
def test_no_bytes_raise_anything_but_undecodable(noise: bytes) -> None:
    for sent in (noise, b"[" + noise + b"]", b"[" + body(GOOD)[1:-1] + b"," + noise + b"]"):
        try:
            decoded = decode(sent)
        except UndecodableError:
            continue
        assert decoded.events or decoded.rejected


def test_unknown_fields_are_counted_and_the_events_taken() -> None:
    decoded = decode(body(GOOD | {"a": 1, "b": 2}, GOOD, GOOD | {"a": None}))
    assert (len(decoded.events), decoded.ignored_fields, decoded.rejected) == (3, 3, [])


def test_an_escaped_nul_in_free_text_is_left_out_and_in_an_id_rejected() -> None:
    decoded = decode(body(GOOD | {"error_message": "a\0b", "type": "error"}, GOOD | {"viewer_id": "a\0b"}))
    assert decoded.events[0].error_message == "ab"
    assert [(one.index, one.code) for one in decoded.rejected] == [(1, "invalid_text")]


def test_a_rejection_keeps_exactly_the_bytes_that_were_sent() -> None:
    raw = b'{"type" :"play",  "seq":-1, "ts":1.50, "view_id":"v","video_id":"x"}'
    (rejected,) = decode(b"[" + raw + b"]").rejected
    assert rejected.raw == raw


def test_what_is_shown_of_a_value_is_bounded() -> None:
    (rejected,) = decode(body(GOOD | {"ts": "x" * 100_000})).rejected
    assert len(rejected.detail) < 200


def test_duplicate_fields_are_no_error() -> None:
    decoded = decode(b'[{"type":"play","type":"pause","ts":1,"view_id":"v","seq":0,"video_id":"x"}]')
    assert decoded.events[0].type == "pause"


@pytest.mark.parametrize("code", sorted(EVENT_CODES))
def test_every_code_has_a_meaning_that_is_a_sentence(code: str) -> None:
    assert EVENT_CODES[code].endswith(".")
