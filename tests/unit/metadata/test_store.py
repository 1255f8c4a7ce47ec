"""The metadata store: tenants, keys, sign-ins, over a real SQLite file."""

from __future__ import annotations

import sqlite3
import stat
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import sqlalchemy as sa

from viewmeter.metadata import tables
from viewmeter.metadata.store import Metadata, MetadataError, MetadataSettings, SchemaTooNewError, slug

HOUR = 3_600_000


class Clock:
    """Time as the test says."""

    def __init__(self) -> None:
        self.now_ms = 1_000_000

    def __call__(self) -> int:
        return self.now_ms


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def open_store(tmp_path: Path, clock: Clock) -> Iterator[Callable[[], Metadata]]:
    opened: list[Metadata] = []

    def make() -> Metadata:
        opened.append(Metadata(f"sqlite:///{tmp_path}/meta.db", clock, MetadataSettings(session_ttl_ms=2 * HOUR)))
        return opened[-1]

    yield make
    for store in opened:
        store.close()


@pytest.fixture
def store(open_store: Callable[[], Metadata]) -> Metadata:
    return open_store()


def test_init_makes_a_tenant_and_two_keys_with_the_scopes_of_the_contract(store: Metadata) -> None:
    made = store.init("Acme Video")
    ingest, secret = store.find_key(made.ingest_key), store.find_key(made.secret_key)
    assert made.tenant.id == "acme-video"
    assert made.ingest_key.startswith("pk_")
    assert made.secret_key.startswith("sk_")
    assert ingest is not None
    assert secret is not None
    assert ingest.scopes == {"ingest"}
    assert secret.scopes == {"read", "rules", "admin"}
    assert secret.channels is None
    assert secret.tenant == made.tenant


def test_no_secret_is_stored_readable(store: Metadata, tmp_path: Path) -> None:
    made = store.init()
    link = store.create_signin(made.tenant)
    session = store.redeem_signin(store.create_signin(made.tenant))
    assert session is not None
    store.close()
    written = b"".join(path.read_bytes() for path in tmp_path.iterdir())
    for text in (made.ingest_key, made.secret_key, link, session):
        assert text.encode() not in written


def test_the_file_is_readable_by_its_owner_only(store: Metadata, tmp_path: Path) -> None:
    store.init()
    for path in tmp_path.iterdir():
        assert stat.S_IMODE(path.stat().st_mode) & 0o077 == 0, path.name


def test_a_tenant_made_again_is_the_same_with_the_same_viewer_secret(store: Metadata) -> None:
    first = store.ensure_tenant("Acme")
    assert store.ensure_tenant("acme") == first
    assert len(first.viewer_secret) == 32
    assert store.find_tenant("acme") == first


def test_two_tenants_have_different_viewer_secrets(store: Metadata) -> None:
    assert store.ensure_tenant("a").viewer_secret != store.ensure_tenant("b").viewer_secret


def test_a_zone_that_is_changed_is_seen_with_every_key_of_the_tenant(store: Metadata) -> None:
    _, text = store.create_key("Acme", "read")
    before = store.changes()
    assert store.set_time_zone("acme", "Europe/Berlin").time_zone == "Europe/Berlin"
    assert store.changes() > before
    found = store.find_key(text)
    assert found is not None
    assert found.tenant.time_zone == "Europe/Berlin"
    with pytest.raises(MetadataError, match="IANA"):
        store.set_time_zone("acme", "Mars/Olympus")
    with pytest.raises(MetadataError, match="no tenant"):
        store.set_time_zone("nobody", "UTC")


def test_a_viewer_secret_is_not_shown_when_a_tenant_is_printed(store: Metadata) -> None:
    tenant = store.ensure_tenant("a")
    assert repr(tenant.viewer_secret) not in repr(tenant)


@pytest.mark.parametrize(
    ("name", "expected"),
    [("Acme Video, Inc.", "acme-video-inc"), ("Île", "ile"), ("a_b", "a_b"), ("x" * 80, "x" * 63)],
)
def test_a_tenant_id_is_the_slug_of_its_name(name: str, expected: str) -> None:
    assert slug(name) == expected
    assert slug(expected) == expected


def test_a_name_without_latin_letters_still_has_an_id_of_its_own() -> None:
    assert slug("東京") != slug("京都")
    assert slug("東京").startswith("t-")


def test_a_key_is_made_for_a_tenant_that_does_not_exist_yet(store: Metadata) -> None:
    key, text = store.create_key("New One", "read", channels=["c1", "c1", "c2"])
    assert key.tenant.id == "new-one"
    assert store.find_key(text) == key
    assert key.channels == ("c1", "c2")


def test_a_revoked_key_is_unknown_and_stays_listed(store: Metadata, clock: Clock) -> None:
    key, text = store.create_key("t", "read")
    clock.now_ms += 5
    assert store.revoke_key(key.id)
    assert store.find_key(text) is None
    assert not store.revoke_key(key.id)
    records, following = store.list_keys("t")
    assert [(record.key.id, record.revoked_at_ms) for record in records] == [(key.id, clock.now_ms)]
    assert following is None
    found = store.find_key_by_id(key.id)
    assert found == key


def test_a_key_of_another_tenant_cannot_be_revoked_by_a_tenant(store: Metadata) -> None:
    key, text = store.create_key("mine", "read")
    assert not store.revoke_key(key.id, tenant_id="other")
    assert store.find_key(text) == key


def test_keys_are_listed_page_by_page_and_none_is_missed(store: Metadata) -> None:
    made = {store.create_key("t", "read")[0].id for _ in range(7)}
    store.create_key("other", "read")
    seen: list[str] = []
    cursor = None
    while True:
        page, cursor = store.list_keys("t", limit=3, cursor=cursor)
        seen += [record.key.id for record in page]
        if cursor is None:
            break
    assert sorted(seen) == sorted(made)


@pytest.mark.parametrize(
    ("scope", "options", "hint"),
    [
        ("write", {}, "known: ingest"),
        (["ingest", "read"], {}, "second key"),
        ([], {}, "Unknown scope"),
        ("operator", {"channels": ["c"]}, "whole platform"),
        ("read", {"origins": ["https://a.example"]}, "ingest keys"),
        ("ingest", {"origins": ["example.com"]}, "https://www.example.com"),
        ("ingest", {"origins": ["https://a.example/path"]}, "no origin"),
        ("read", {"channels": [""]}, "1 to 255"),
        ("read", {"channels": [str(n) for n in range(1001)]}, "at most 1000"),
    ],
)
def test_a_key_that_makes_no_sense_is_refused_with_a_hint(
    store: Metadata, scope: str, options: dict[str, list[str]], hint: str
) -> None:
    with pytest.raises(MetadataError, match=hint):
        store.create_key("t", scope, **options)  # type: ignore[arg-type]
    assert not store.has_keys()


def test_a_sign_in_link_is_good_once(store: Metadata) -> None:
    token = store.create_signin(store.ensure_tenant("t"), scopes=["read"], channels=["c1"])
    session = store.redeem_signin(token)
    assert session is not None
    assert store.redeem_signin(token) is None
    found = store.find_session(session)
    assert found is not None
    assert found.key.scopes == {"read"}
    assert found.key.channels == ("c1",)
    assert found.key.tenant.id == "t"


def test_a_sign_in_link_is_too_old_after_an_hour(store: Metadata, clock: Clock) -> None:
    token = store.create_signin("t")
    clock.now_ms += HOUR
    assert store.redeem_signin(token) is None


def test_a_session_ends_by_time_by_signing_out_and_with_its_key(store: Metadata, clock: Clock) -> None:
    key, _ = store.create_key("t", "read")
    by_time, by_hand, with_key = (store.create_session(key) for _ in range(3))
    store.end_session(by_hand)
    assert store.find_session(by_hand) is None
    assert store.find_session(with_key) is not None
    store.revoke_key(key.id)
    assert store.find_session(with_key) is None
    other, _ = store.create_key("t", "read")
    by_time = store.create_session(other)
    clock.now_ms += 2 * HOUR
    assert store.find_session(by_time) is None


def test_an_ingest_key_cannot_sign_in(store: Metadata) -> None:
    key, _ = store.create_key("t", "ingest")
    with pytest.raises(MetadataError, match="sk_"):
        store.create_session(key)


@pytest.mark.parametrize("text", ["", "pk_", "sk_" + "x" * 31, "sk_" + "é" * 32, "xx_" + "a" * 32, "a" * 100_000])
def test_what_has_not_the_shape_of_a_secret_is_unknown(store: Metadata, text: str) -> None:
    assert store.find_key(text) is None
    assert store.find_session(text) is None
    assert store.redeem_signin(text) is None


def test_a_database_of_a_newer_version_is_refused_by_name(store: Metadata, tmp_path: Path) -> None:
    store.close()
    with sqlite3.connect(tmp_path / "meta.db") as connection:
        connection.execute("UPDATE schema_version SET version = 99")
    with pytest.raises(SchemaTooNewError, match="version 99"):
        Metadata(f"sqlite:///{tmp_path}/meta.db")


def test_metadata_in_memory_is_refused_since_processes_share_it() -> None:
    with pytest.raises(ValueError, match="file"):
        Metadata("sqlite://")


_MAKE_KEYS = """
import sys
from viewmeter.metadata.store import Metadata
store = Metadata(sys.argv[1])
for _ in range(10):
    print(store.create_key("shared", "read")[1])
store.close()
"""


def test_processes_that_open_a_new_file_and_make_keys_at_once_lose_none(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/meta.db"
    running = [
        subprocess.Popen([sys.executable, "-c", _MAKE_KEYS, url], stdout=subprocess.PIPE, text=True) for _ in range(3)
    ]
    texts = [line for process in running for line in process.communicate(timeout=120)[0].split()]
    assert [process.returncode for process in running] == [0, 0, 0]
    store = Metadata(url)
    try:
        assert len(texts) == 30
        assert all(store.find_key(text) is not None for text in texts)
        assert len(store.list_tenants()[0]) == 1
    finally:
        store.close()


def test_every_table_can_be_written_as_postgresql_too() -> None:
    from sqlalchemy.dialects import postgresql

    for table in tables.metadata.sorted_tables:
        text = str(sa.schema.CreateTable(table).compile(dialect=postgresql.dialect()))  # type: ignore[no-untyped-call]
        assert table.name in text
