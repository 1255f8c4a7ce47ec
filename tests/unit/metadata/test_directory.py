"""The directory: K1 to K3 of metadata/keys.py."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
import sqlalchemy as sa

from viewmeter.metadata.keys import KeysUnavailableError
from viewmeter.metadata.store import Directory, Metadata


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Metadata]:
    made = Metadata(f"sqlite:///{tmp_path}/meta.db")
    yield made
    made.close()


@pytest.fixture
def elsewhere(tmp_path: Path, store: Metadata) -> Iterator[Metadata]:
    """The same database as another process has it."""
    made = Metadata(f"sqlite:///{tmp_path}/meta.db")
    yield made
    made.close()


@pytest.fixture
def directory(store: Metadata) -> Iterator[Directory]:
    made = Directory(store, poll_every_s=0)
    yield made
    made.close()


def test_K1_a_key_made_elsewhere_is_known_at_the_next_look_up(directory: Directory, elsewhere: Metadata) -> None:
    key, text = elsewhere.create_key("t", "read")
    assert directory.find(text) == key


def test_K1_a_key_revoked_elsewhere_is_unknown_after_the_next_poll(directory: Directory, elsewhere: Metadata) -> None:
    key, text = elsewhere.create_key("t", "read")
    kept, kept_text = elsewhere.create_key("t", "ingest")
    assert directory.find(text) == key
    assert directory.find(kept_text) == kept
    elsewhere.revoke_key(key.id)
    directory.refresh()
    assert directory.find(text) is None
    assert directory.find(kept_text) == kept


def test_K1_the_poll_runs_by_itself(store: Metadata, elsewhere: Metadata) -> None:
    key, text = elsewhere.create_key("t", "read")
    directory = Directory(store, poll_every_s=0.01)
    try:
        assert directory.find(text) == key
        elsewhere.revoke_key(key.id)
        gone = threading.Event()
        for _ in range(3_000):
            if directory.find(text) is None:
                break
            gone.wait(0.01)
        assert directory.find(text) is None
    finally:
        directory.close()


def test_K3_the_version_moves_with_every_change_and_with_nothing_else(
    directory: Directory, elsewhere: Metadata
) -> None:
    key, text = elsewhere.create_key("t", "read")
    assert directory.find(text) == key
    before = directory.version
    directory.refresh()  # the key was made after the directory was: the counter has moved
    made = directory.version
    assert made is not before
    directory.refresh()
    assert directory.find(text) == key
    assert directory.version is made
    elsewhere.revoke_key(key.id)
    assert directory.version is made  # not known here yet: K1
    directory.refresh()
    assert directory.version is not made


def test_K2_a_known_key_is_found_without_any_statement(directory: Directory, store: Metadata) -> None:
    _, text = store.create_key("t", "read")
    directory.find(text)
    statements: list[str] = []
    engine = store._engine
    sa.event.listen(engine, "before_cursor_execute", lambda c, cur, statement, *rest: statements.append(statement))
    for _ in range(100):
        assert directory.find(text) is not None
    assert statements == []


def test_one_unknown_key_asked_many_times_is_looked_up_once(directory: Directory, store: Metadata) -> None:
    statements: list[str] = []
    sa.event.listen(
        store._engine, "before_cursor_execute", lambda c, cur, statement, *rest: statements.append(statement)
    )
    for _ in range(100):
        assert directory.find("sk_" + "a" * 32) is None
    assert len([statement for statement in statements if "FROM keys" in statement]) == 1


def test_while_the_store_is_away_known_keys_stay_valid_and_others_are_unavailable(
    directory: Directory, store: Metadata
) -> None:
    key, text = store.create_key("t", "ingest")
    directory.find(text)
    with store._engine.begin() as connection:
        connection.exec_driver_sql("ALTER TABLE keys RENAME TO gone")
    assert directory.find(text) == key
    with pytest.raises(KeysUnavailableError):
        directory.find("pk_" + "b" * 32)


def test_a_session_that_ended_here_is_unknown_at_once(directory: Directory, store: Metadata) -> None:
    session = store.create_session(store.create_key("t", "read")[0])
    assert directory.find_session(session, now_ms=0) is not None
    store.end_session(session)
    directory.forget_session(session)
    assert directory.find_session(session, now_ms=0) is None


def test_a_cached_session_ends_at_its_time(directory: Directory, store: Metadata) -> None:
    session = store.create_session(store.create_key("t", "read")[0])
    found = directory.find_session(session, now_ms=0)
    assert found is not None
    assert directory.find_session(session, now_ms=found.expires_at_ms - 1) is not None
    assert directory.find_session(session, now_ms=found.expires_at_ms) is None


def test_the_caches_are_bounded(directory: Directory, monkeypatch: pytest.MonkeyPatch, store: Metadata) -> None:
    monkeypatch.setattr("viewmeter.metadata.directory.MAX_CACHED", 3)
    monkeypatch.setattr("viewmeter.metadata.directory.MAX_UNKNOWN", 3)
    texts = [store.create_key("t", "read")[1] for _ in range(6)]
    for number, text in enumerate(texts):
        assert directory.find(text) is not None
        assert directory.find(f"sk_{number:032d}") is None
    assert len(directory._keys._known) == 3
    assert len(directory._keys._unknown) == 3
    assert all(directory.find(text) is not None for text in texts)
