"""Dead letters: kept with their reason, listed over all workers, bounded."""

from __future__ import annotations

import sqlite3
from pathlib import Path
from typing import Any

import pytest

from viewmeter.collector.deadletters import DeadLetters, DeadLetterWriter, NewLetter


def letter(at: int, tenant: str = "acme", code: str = "wrong_type", raw: bytes = b"{}", **fields: Any) -> NewLetter:
    return NewLetter(at, tenant, fields.get("key", "k1"), "native", code, fields.get("detail", "why"), raw)


@pytest.fixture
def letters(tmp_path: Path) -> DeadLetters:
    return DeadLetters(tmp_path)


def test_letters_of_all_workers_come_newest_first_a_page_at_a_time(tmp_path: Path, letters: DeadLetters) -> None:
    for worker in range(3):
        writer = DeadLetterWriter(tmp_path, worker)
        writer.append([letter(at * 3 + worker) for at in range(5)])
        writer.append([letter(100)])
        writer.close()
    seen: list[tuple[int, str]] = []
    cursor = None
    while True:
        page, cursor = letters.list(limit=4, cursor=cursor)
        seen += [(one.received_at, one.id) for one in page]
        if cursor is None:
            break
    assert [at for at, _ in seen] == [100, 100, 100, *reversed(range(15))]
    assert len({text for _, text in seen}) == 18
    letters.close()


def test_a_tenant_sees_and_counts_its_own_only(tmp_path: Path, letters: DeadLetters) -> None:
    writer = DeadLetterWriter(tmp_path, 0)
    writer.append([letter(1), letter(2, "other"), letter(3, code="ts_too_old"), letter(4, code="ts_too_old")])
    assert [one.received_at for one in letters.list("acme")[0]] == [4, 3, 1]
    assert [one.received_at for one in letters.list("acme", code="ts_too_old")[0]] == [4, 3]
    assert letters.counts_by_reason("acme") == {"ts_too_old": 2, "wrong_type": 1}
    assert letters.counts_by_reason() == {"ts_too_old": 2, "wrong_type": 2}
    theirs = letters.list("other")[0][0].id
    assert letters.replay([theirs], "acme") == [], "an id of another tenant is an id that does not exist"
    assert [one.id for one in letters.replay([theirs], "other")] == [theirs]
    letters.close()
    writer.close()


def test_a_replayed_letter_says_when(tmp_path: Path, letters: DeadLetters) -> None:
    writer = DeadLetterWriter(tmp_path, 7)
    writer.append([letter(1, raw=b'{"a":1}')])
    ((one,), _) = letters.list()
    assert (one.id, one.raw, one.complete, one.replayed_at) == ("w07-1", b'{"a":1}', True, None)
    letters.mark_replayed([one.id, "w07-999", "nonsense", "w99-1"], 1234)
    assert letters.list()[0][0].replayed_at == 1234
    letters.close()
    writer.close()


def test_a_long_event_is_cut_and_says_so(tmp_path: Path, letters: DeadLetters) -> None:
    writer = DeadLetterWriter(tmp_path, 0, max_bytes=10)
    writer.append([letter(1, raw=b"x" * 25, detail="d" * 5000)])
    ((one,), _) = letters.list()
    assert (one.raw, one.raw_bytes, one.complete) == (b"x" * 10, 25, False)
    assert len(one.detail) == 500
    letters.close()
    writer.close()


def test_at_the_bound_the_oldest_go_and_are_counted(tmp_path: Path, letters: DeadLetters) -> None:
    writer = DeadLetterWriter(tmp_path, 0, max_letters=10)
    for at in range(35):
        writer.append([letter(at)])
    kept, _ = letters.list(limit=100)
    assert [one.received_at for one in kept] == list(reversed(range(25, 35)))
    assert letters.dropped() == 25
    writer.append([letter(at) for at in range(100, 150)])
    kept, _ = letters.list(limit=100)
    assert [one.received_at for one in kept] == list(reversed(range(140, 150)))
    letters.close()
    writer.close()


def test_what_is_too_old_goes_also_from_workers_that_are_gone(tmp_path: Path, letters: DeadLetters) -> None:
    for worker in range(2):
        writer = DeadLetterWriter(tmp_path, worker)
        writer.append([letter(at, raw=b'"%d"' % at) for at in (10, 20, 30)])
        writer.close()
    writer = DeadLetterWriter(tmp_path, 0)
    assert writer.expire(20) == 2
    assert [one.received_at for one in letters.list()[0]] == [30, 30, 20, 20]
    assert writer.expire(20) == 0
    assert letters.dropped() == 0, "their time was over; nothing was dropped for want of room"
    writer.close()
    letters.close()


def test_what_went_is_not_left_in_the_file_or_its_log(tmp_path: Path) -> None:
    writer = DeadLetterWriter(tmp_path, 0)
    writer.append([letter(10, raw=b"the first secret"), letter(30, raw=b"what stays")])
    assert in_files(tmp_path, b"the first secret")
    writer.expire(20)
    assert not in_files(tmp_path, b"the first secret")
    assert in_files(tmp_path, b"what stays")
    writer.close()


def in_files(folder: Path, text: bytes) -> bool:
    return any(text in path.read_bytes() for path in folder.iterdir())


def test_a_letter_keeps_what_its_url_said_and_who_sent_it(tmp_path: Path, letters: DeadLetters) -> None:
    writer = DeadLetterWriter(tmp_path, 0)
    writer.append([NewLetter(1, "acme", "k1", "cmcd", "malformed", "why", b"", 99, "c1", "hls.js", b"known")])
    ((one,), _) = letters.list()
    assert (one.channel_id, one.player, one.sender) == ("c1", "hls.js", b"known")
    assert (one.raw, one.raw_bytes, one.complete) == (b"", 99, False)
    writer.close()
    letters.close()


def test_a_file_of_an_earlier_release_is_read_and_written_on(tmp_path: Path, letters: DeadLetters) -> None:
    old = sqlite3.connect(tmp_path / "w00.sqlite")
    old.execute(
        "CREATE TABLE letters (number INTEGER PRIMARY KEY AUTOINCREMENT, received_at INTEGER NOT NULL, tenant_id TEXT"
        " NOT NULL, key_id TEXT NOT NULL, dialect TEXT NOT NULL, code TEXT NOT NULL, detail TEXT NOT NULL,"
        " raw BLOB NOT NULL, raw_bytes INTEGER NOT NULL, replayed_at INTEGER) STRICT"
    )
    old.execute("INSERT INTO letters VALUES (1, 5, 'acme', 'k1', 'native', 'malformed', 'why', x'7b7d', 2, NULL)")
    old.commit()
    old.close()
    assert [(one.received_at, one.raw, one.player) for one in letters.list()[0]] == [(5, b"{}", None)]
    writer = DeadLetterWriter(tmp_path, 0)
    writer.append([letter(6)])
    assert [one.received_at for one in letters.list()[0]] == [6, 5]
    writer.close()
    letters.close()


def test_what_was_appended_is_there_after_a_restart(tmp_path: Path, letters: DeadLetters) -> None:
    for at in range(3):
        writer = DeadLetterWriter(tmp_path, 0)
        writer.append([letter(at)])
        writer.close()
    assert [one.id for one in letters.list()[0]] == ["w00-3", "w00-2", "w00-1"]
    letters.close()


@pytest.mark.parametrize("cursor", ["x", "AAAA", "!!!", "MS8y"])
def test_a_cursor_that_is_none_is_refused(letters: DeadLetters, cursor: str) -> None:
    with pytest.raises(ValueError, match="next_cursor"):
        letters.list(cursor=cursor)


def test_an_empty_folder_has_no_letters(letters: DeadLetters) -> None:
    assert letters.list() == ([], None)
    assert letters.counts_by_reason() == {}
    assert letters.dropped() == 0
