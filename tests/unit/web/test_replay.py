"""Dead letters that are sent in again: who, where and on what they were watched is what it was."""

from __future__ import annotations

import functools
from typing import Any

import msgspec
import pytest

from viewmeter.collector.agents import Agent
from viewmeter.collector.deadletters import DeadLetterWriter, NewLetter
from viewmeter.collector.redaction import redacted
from viewmeter.collector.senders import Known
from viewmeter.collector.settings import CollectorSettings
from viewmeter.collector.viewers import keyed_hash
from viewmeter.eventlog.embedded import EmbeddedLogWriter
from viewmeter.web.replay import Resubmitter

from .conftest import NOW, World

KNOWN = Known(("DE", "BE", "Berlin", "AS1"), Agent("tv", "Tizen", "Safari", True), 77, False)


def event(view: str, **fields: Any) -> bytes:
    said = {"type": "play", "ts": NOW - 1_000, "view_id": view, "seq": 0, "video_id": "v", "channel_id": "c1"}
    return msgspec.json.encode(said | fields)


@pytest.fixture
def replayed(world: World, request: pytest.FixtureRequest) -> dict[str, Any]:
    """Send letters in again; return the events by view."""
    letters = world.services.dead_letters
    assert letters is not None
    key, _ = world.metadata.create_key("a", "ingest", ["c1", "c9"])
    found = world.metadata.find_key_by_id(key.id)
    assert found is not None
    secret = found.tenant.viewer_secret
    writer = DeadLetterWriter(world.folder / "dead-letters", 3)
    sender, unfollowed = msgspec.msgpack.encode(KNOWN), msgspec.msgpack.encode(KNOWN._replace(anonymous=True))
    of_ann, _ = redacted("native", event("ann's", viewer_id="ann"), "why", functools.partial(keyed_hash, secret))
    record = f'cid="v",e=ps,sid="record",sn=0,sta=p,ts={NOW - 1_000},v=2'.encode()
    letter = functools.partial(NewLetter, NOW, "a", key.id)
    writer.append(
        [
            letter("native", "ts_in_future", "why", of_ann, sender=sender),
            letter("native", "ts_in_future", "why", event("nobody's"), sender=sender),
            letter("cmcd", "ts_in_future", "why", record, channel_id="c9", player="hls.js-1.7", sender=sender),
            letter("native", "ts_in_future", "why", event("unfollowed", viewer_id=""), sender=unfollowed),
            letter("native", "ts_in_future", "why", event("old", viewer_id="ann")),
        ]
    )
    writer.close()
    log = world.folder / "log"
    again = Resubmitter(
        lambda: EmbeddedLogWriter(log, 900, lambda: NOW), letters, world.metadata, CollectorSettings(), lambda: NOW
    )
    assert again.resubmit(letters.list("a")[0]) == {"accepted": 5, "rejected": 0}
    again.close()
    (batch,) = world.services.log.read({})
    return {row["view_id"]: row for row in batch.events.to_pylist()} | {"secret": secret}


def test_the_viewer_is_the_one_of_then(replayed: dict[str, Any]) -> None:
    ann = keyed_hash(replayed["secret"], "ann")
    assert replayed["ann's"]["viewer_hash"] == ann
    assert replayed["nobody's"]["viewer_hash"] == 77, "the hash of that day, whose salt may be gone"
    assert replayed["unfollowed"]["viewer_hash"] not in (ann, 77)


def test_place_and_device_are_those_of_then(replayed: dict[str, Any]) -> None:
    for view in ("ann's", "nobody's", "record", "unfollowed"):
        row = replayed[view]
        assert (row["country"], row["region"], row["city"], row["asn"]) == KNOWN.place
        assert (row["device_type"], row["os"], row["browser"], row["is_bot"]) == KNOWN.agent


def test_a_record_keeps_the_player_and_the_channel_of_its_url(replayed: dict[str, Any]) -> None:
    assert (replayed["record"]["player"], replayed["record"]["channel_id"]) == ("hls.js-1.7", "c9")


def test_a_letter_of_an_earlier_release_counts_too(replayed: dict[str, Any]) -> None:
    assert replayed["old"]["viewer_hash"] == keyed_hash(replayed["secret"], "ann")
    assert replayed["old"]["country"] == "unknown"
