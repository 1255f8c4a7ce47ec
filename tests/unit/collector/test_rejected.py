"""Rejected events on their way to the dead letters."""

from __future__ import annotations

import asyncio
import sqlite3
from pathlib import Path
from typing import Any, ClassVar

import msgspec
import pytest

from viewmeter.collector import metrics
from viewmeter.collector.deadletters import DeadLetter, DeadLetters, DeadLetterWriter
from viewmeter.collector.dialects import Rejection
from viewmeter.collector.places import Places
from viewmeter.collector.rejected import RejectedEvents
from viewmeter.collector.request import Admitted
from viewmeter.collector.senders import Known, Senders
from viewmeter.collector.settings import CollectorSettings
from viewmeter.collector.viewers import DailySalt, TenantHashes
from viewmeter.metadata.keys import Key, Tenant
from viewmeter.model.time import DAY_MS, HOUR_MS

T0 = 1_764_000_000_000
NAMED = msgspec.json.encode({"type": "dance", "viewer_id": "ann"})
UNNAMED = b'{"type":"dance"}'


def kept(folder: Path, *raws: bytes, anonymous: bool = False) -> list[DeadLetter]:
    """Reject events of one sender; return their letters, oldest first."""
    tenant = Tenant("acme", "Acme", b"secret")
    key = Key("k1", tenant, frozenset({"ingest"}), None, ())
    senders = Senders(Places(), DailySalt(folder / "run"), 10)
    rejected = RejectedEvents(
        DeadLetterWriter(folder / "letters", 0), senders, lambda key: TenantHashes(key.tenant, 10), CollectorSettings()
    )
    query = {"channel_id": "c9", "player": "ignored here"}
    admitted = Admitted(key, "8.8.8.8", "UA", query, [], anonymous=anonymous)
    rejections = [Rejection(n, "unknown_type", "why", raw) for n, raw in enumerate(raws)]
    asyncio.run(rejected.keep("native", admitted, rejections, T0, "web-2"))
    rejected.close()
    letters = DeadLetters(folder / "letters")
    found, _ = letters.list()
    letters.close()
    return list(reversed(found))


def known(letter: DeadLetter) -> Known:
    assert letter.sender is not None
    return msgspec.msgpack.decode(letter.sender, type=Known)


def test_a_letter_has_what_its_replay_needs(tmp_path: Path) -> None:
    (letter,) = kept(tmp_path, UNNAMED)
    assert (letter.tenant_id, letter.key_id, letter.channel_id, letter.player) == ("acme", "k1", "c9", "web-2")
    assert known(letter).place[0] == "US"
    assert known(letter).viewer_hash != 0


def test_nothing_ties_an_address_to_a_viewer_id(tmp_path: Path) -> None:
    named, unnamed = kept(tmp_path, NAMED, UNNAMED)
    assert known(named).viewer_hash == 0
    assert known(unnamed).viewer_hash != 0


def test_of_who_asked_not_to_be_followed_there_is_no_hash_at_all(tmp_path: Path) -> None:
    for letter in kept(tmp_path, NAMED, UNNAMED, anonymous=True):
        assert known(letter).anonymous
        assert known(letter).viewer_hash == 0
        assert b"viewer-hash" not in letter.raw


def test_a_letter_without_anything_of_the_event_is_not_whole(tmp_path: Path) -> None:
    (letter,) = kept(tmp_path, b"no event")
    assert (letter.raw, letter.raw_bytes, letter.complete) == (b"", 8, False)


def test_old_letters_go_by_the_clock_once_an_hour(tmp_path: Path) -> None:
    class Counting(DeadLetterWriter):
        asked: ClassVar[list[int]] = []

        def expire(self, before_ms: int) -> int:
            self.asked.append(before_ms)
            return super().expire(before_ms)

    unused: Any = None
    settings = CollectorSettings(keep_dead_letters_days=2)
    writer = Counting(tmp_path, 0)
    rejected = RejectedEvents(writer, unused, unused, settings)
    start = T0 // HOUR_MS * HOUR_MS
    for now_ms in (start, start + 1, start + HOUR_MS - 1, start + HOUR_MS):
        rejected.tidy(now_ms)
    rejected.close()
    assert writer.asked == [start - 2 * DAY_MS, start + HOUR_MS - 2 * DAY_MS]


def test_a_file_that_cannot_be_written_does_not_fail_the_beacon(tmp_path: Path) -> None:
    (tmp_path / "letters" / "w00.sqlite").mkdir(parents=True)
    before = metrics.DEAD_LETTERS_DROPPED._value.get()
    with pytest.raises(sqlite3.OperationalError):
        kept(tmp_path, UNNAMED, NAMED)  # the letters were dropped by then; only reading them raises
    assert metrics.DEAD_LETTERS_DROPPED._value.get() == before + 2
