"""Beacons become columns: what was sent, nothing null, and a bad beacon leaves nothing behind."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import msgspec
import pytest
from beacons_of_tests import T0, event
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from viewmeter.collector.agents import Agent
from viewmeter.collector.columns import Beacon, Columns, build
from viewmeter.collector.senders import Sender
from viewmeter.collector.viewers import TenantHashes
from viewmeter.metadata.keys import Tenant
from viewmeter.model.events import ABSENT, EVENT_SCHEMA, EVENT_TYPES, UNKNOWN, EventType, Fatality, WireEvent, view_key

Make = Callable[..., Beacon]

WORDS = ("channel_id", "video_id", "player", "cdn", "stream_type")
NUMBERS = (
    "position_ms",
    "duration_ms",
    "played_ms",
    "rebuffered_ms",
    "rebuffer_count",
    "startup_ms",
    "bitrate_kbps",
)


def expected(beacon: Beacon, sent: WireEvent) -> dict[str, Any]:
    """Say in plain Python what a row should hold."""
    hashes, sender = beacon.hashes, beacon.sender
    fatality = {None: Fatality.UNKNOWN, False: Fatality.GOES_ON, True: Fatality.FATAL}[sent.fatal]
    if sent.halted and sent.fatal is None:
        fatality = Fatality.HALTED
    viewer = hashes.viewers[sent.viewer_id] if sent.viewer_id else sender.viewer_hash(hashes.id)
    row: dict[str, Any] = {
        "tenant_id": hashes.id,
        "view_id": sent.view_id,
        "view_key": view_key(hashes.id, sent.view_id),
        "viewer_hash": viewer,
        "seq": sent.seq,
        "type": EVENT_TYPES.index(sent.type),
        "ts": round(sent.ts) + beacon.shift_ms,
        "received_at": beacon.received_at,
        "playback_rate": float(ABSENT) if sent.playback_rate is None else sent.playback_rate,
        "fatal": int(fatality),
        "blind": bool(sent.blind),
        "is_bot": sender.agent.is_bot,
        "error_code": "" if sent.error_code is None else str(sent.error_code),
        "error_message": sent.error_message or "",
        **dict(zip(("country", "region", "city", "asn"), sender.place, strict=True)),
        **dict(zip(("device_type", "os", "browser"), sender.agent, strict=False)),
    }
    for name in NUMBERS:
        value = getattr(sent, name)
        row[name] = ABSENT if value is None else round(value)
    for name in WORDS:
        row[name] = getattr(sent, name) or UNKNOWN
    return row


_number = st.one_of(st.none(), st.floats(0, 1e9), st.integers(0, 10**9).map(float))
_word = st.one_of(st.none(), st.sampled_from(["", UNKNOWN, "a", "b", "ü"]), st.text(max_size=5))
_text = _word.filter(lambda text: text is None or not any("\ud800" <= c <= "\udfff" for c in text))
_events = st.builds(
    event,
    type=st.sampled_from(EVENT_TYPES),
    ts=st.floats(T0 - 1e9, T0 + 1e9),
    view_id=st.sampled_from(["view", "another"]),
    seq=st.integers(0, 10_000_000),
    video_id=st.sampled_from(["v1", "v2"]),
    channel_id=st.sampled_from(["c1", "c2"]),
    viewer_id=_text,
    playback_rate=st.one_of(st.none(), st.floats(0, 16)),
    error_code=st.one_of(_text, st.integers(-99, 99)),
    error_message=_text,
    player=_text,
    cdn=_text,
    stream_type=_text,
    fatal=st.sampled_from([None, True, False]),
    halted=st.sampled_from([None, True, False]),
    blind=st.sampled_from([None, True, False]),
    **dict.fromkeys(NUMBERS, _number),
)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(groups=st.lists(st.lists(_events, min_size=1, max_size=8), min_size=1, max_size=6), seed=st.integers(0, 2**16))
def test_every_row_is_what_plain_python_makes_of_the_event(
    beacon: Make, groups: list[list[WireEvent]], seed: int
) -> None:
    senders = [
        Sender(("DE", UNKNOWN, UNKNOWN, UNKNOWN), Agent("tv", "Tizen", "Samsung"), b"one"),
        Sender(("US", "CA", "San José", "AS15169"), Agent("bot", UNKNOWN, "Bot", is_bot=True), b"two"),
    ]
    tenants = [TenantHashes(Tenant(name, name, name.encode()), 1000) for name in ("acme", "other")]
    made = [
        beacon(
            *events,
            received_at=T0 + n,
            shift_ms=(seed + n) % 3 * 1000,
            sender=senders[(seed + n) % 2],
            hashes=tenants[(seed // 2 + n) % 2],
        )
        for n, events in enumerate(groups)
    ]
    batch = build(made)
    assert batch.schema.equals(EVENT_SCHEMA)
    assert sum(column.null_count for column in batch.columns) == 0
    wanted = [expected(one, sent) for one, events in zip(made, groups, strict=True) for sent in events]
    assert batch.to_pylist() == wanted


def test_numbers_round_half_to_even_as_the_rest_of_the_house_does(beacon: Make) -> None:
    row = build([beacon(event(position_ms=2.5, played_ms=3.5, ts=T0 + 0.5))]).to_pylist()[0]
    assert (row["position_ms"], row["played_ms"], row["ts"]) == (2, 4, T0)


@pytest.mark.parametrize(
    "bad",
    [
        {"view_id": "\ud800"},
        {"video_id": "\ud800"},
        {"cdn": "\ud800"},
        {"error_message": "\ud800"},
        {"error_code": "\ud800"},
        {"type": "nothing"},
        {"position_ms": "far"},
    ],
)
def test_a_beacon_that_cannot_be_written_raises_and_leaves_nothing_behind(beacon: Make, bad: dict[str, Any]) -> None:
    columns = Columns()
    columns.add(beacon(event(seq=1)))
    with pytest.raises((ValueError, KeyError)):
        columns.add(beacon(event(seq=2), event(seq=3, **bad)))
    columns.add(beacon(event(seq=4)))
    assert columns.events == 2
    assert columns.batch().column("seq").to_pylist() == [1, 4]


def test_a_beacon_may_mix_views_and_each_event_keeps_its_own(beacon: Make) -> None:
    columns = Columns()
    columns.add(beacon(*(event(seq=n) for n in range(5))))
    columns.add(beacon(event(view_id="a"), event(view_id="b"), event(view_id="b"), event(view_id="a")))
    assert columns.batch().column("view_id").to_pylist() == ["view"] * 5 + ["a", "b", "b", "a"]


def test_the_types_are_those_of_the_model(beacon: Make) -> None:
    events = [event(type=kind.wire) for kind in EventType]
    assert build([beacon(*events)]).column("type").to_pylist() == [int(kind) for kind in EventType]


def test_the_order_of_fields_is_the_same_in_every_kind_of_event() -> None:
    """Events are read by place; a dialect's own struct must not change the places."""
    from viewmeter.collector.dialects.native import NativeEvent, _LenientEvent

    assert NativeEvent.__struct_fields__ == _LenientEvent.__struct_fields__ == WireEvent.__struct_fields__
    assert msgspec.structs.astuple(event())[2] == "view"
