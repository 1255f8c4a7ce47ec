"""The metadata store: who owns data, which keys exist, who is signed in.

In: a database URL and a clock. Out: `Metadata`, used by any number of processes and threads at once (the
command line creates keys while `up` runs). Promised: secrets are stored hashed and told once; a change here
is seen by every process's `Directory` (directory.py) within 2 seconds. Not done here: deciding what a key may
do (web/auth.py, the collector).
"""

from __future__ import annotations

import re
import secrets as random
import time
import unicodedata
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from hashlib import sha256
from typing import Any, Final, get_args
from urllib.parse import urlsplit
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

import sqlalchemy as sa

from viewmeter.metadata import tables as t
from viewmeter.metadata.directory import Directory
from viewmeter.metadata.keys import Key, Scope, Tenant
from viewmeter.metadata.secrets import (
    INGEST_PREFIX,
    SECRET_PREFIX,
    SESSION_PREFIX,
    SHOWN_CHARS,
    SIGNIN_PREFIX,
    digest,
    looks_real,
    random_text,
)
from viewmeter.metadata.settings import MetadataSettings
from viewmeter.metadata.tables import SchemaTooNewError

__all__ = [
    "FULL_SCOPES",
    "Directory",
    "Initial",
    "KeyRecord",
    "Metadata",
    "MetadataError",
    "MetadataSettings",
    "SchemaTooNewError",
    "Session",
    "slug",
]

SCOPES: Final[tuple[Scope, ...]] = get_args(Scope)
FULL_SCOPES: Final[tuple[Scope, ...]] = ("read", "rules", "admin")
"""What the first secret key and the sign-in link of a tenant may do."""

MAX_CHANNELS: Final = 1_000
MAX_ORIGINS: Final = 100
MAX_LIST: Final = 1_000


class MetadataError(ValueError):
    """What was asked for cannot be stored; the message says why and what would be right."""


@dataclass(frozen=True)
class KeyRecord:
    """A key as it is listed: everything but the secret."""

    key: Key
    prefix: str  # its first characters
    created_at_ms: int
    revoked_at_ms: int | None


@dataclass(frozen=True)
class Session:
    """A signed-in browser. `key` says what it may do; its id starts with `session:` after a sign-in link."""

    key: Key
    expires_at_ms: int


@dataclass(frozen=True)
class Initial:
    """What `init` prints, once."""

    tenant: Tenant
    ingest_key: str
    secret_key: str


def _now_ms() -> int:
    return time.time_ns() // 1_000_000


class Metadata:
    """Tenants, keys, sign-in tokens and sessions in one database."""

    def __init__(
        self,
        url: str,
        clock: Callable[[], int] = _now_ms,
        settings: MetadataSettings | None = None,
    ) -> None:
        self._engine = t.open_engine(url)
        self._clock = clock
        self.settings = settings or MetadataSettings()

    def close(self) -> None:
        """Close every connection."""
        self._engine.dispose()

    # Tenants

    def ensure_tenant(self, name: str, time_zone: str = "UTC") -> Tenant:
        """Return the tenant of that name (or id), making it if it is missing. Raises `MetadataError`."""
        tenant_id = slug(name)
        _check_zone(time_zone)
        with self._writing() as c:
            return self._ensure_tenant(c, tenant_id, name.strip(), time_zone)

    def find_tenant(self, tenant_id: str) -> Tenant | None:
        """Return the tenant of that id."""
        with self._engine.connect() as c:
            row = c.execute(sa.select(t.tenants).where(t.tenants.c.id == tenant_id)).one_or_none()
        return None if row is None else _tenant(row)

    def list_tenants(self, limit: int = 100, cursor: str | None = None) -> tuple[list[Tenant], str | None]:
        """Return tenants by id, and the cursor of the next page or None."""
        limit = _bounded(limit)
        question = sa.select(t.tenants).order_by(t.tenants.c.id).limit(limit + 1)
        if cursor is not None:
            question = question.where(t.tenants.c.id > cursor)
        with self._engine.connect() as c:
            found = [_tenant(row) for row in c.execute(question)]
        return found[:limit], found[limit - 1].id if len(found) > limit else None

    def all_tenants(self, enough: int | None = None) -> list[Tenant]:
        """Return every tenant by id; where `enough` is given, no further page is read once there are that many."""
        found: list[Tenant] = []
        cursor: str | None = None
        while True:
            page, cursor = self.list_tenants(1_000, cursor)
            found += page
            if cursor is None or (enough is not None and len(found) >= enough):
                return found

    def set_time_zone(self, tenant_id: str, time_zone: str) -> Tenant:
        """Change the zone whose days a tenant reports by. Raises `MetadataError`."""
        _check_zone(time_zone)
        mine = t.tenants.c.id == tenant_id
        with self._writing() as c:
            if c.execute(sa.update(t.tenants).where(mine).values(time_zone=time_zone)).rowcount != 1:
                raise MetadataError(
                    f"There is no tenant {tenant_id!r}; `viewmeter tenants list` shows those there are."
                )
            return _tenant(c.execute(sa.select(t.tenants).where(mine)).one())

    def _ensure_tenant(self, c: sa.Connection, tenant_id: str, name: str, zone: str) -> Tenant:
        row = c.execute(sa.select(t.tenants).where(t.tenants.c.id == tenant_id)).one_or_none()
        if row is not None:
            return _tenant(row)
        values = {
            "id": tenant_id,
            "name": name,
            "viewer_secret": random.token_bytes(32),
            "time_zone": zone,
            "created_at_ms": self._clock(),
        }
        c.execute(sa.insert(t.tenants).values(**values))
        return Tenant(tenant_id, name, values["viewer_secret"], zone)  # type: ignore[arg-type]

    # Keys

    def init(self, tenant: str = "default") -> Initial:
        """Make the tenant and its first two keys (API 1): one to ingest, one with `FULL_SCOPES`."""
        made = self.ensure_tenant(tenant)
        _, ingest = self.create_key(made, "ingest")
        _, secret = self.create_key(made, FULL_SCOPES)
        return Initial(made, ingest, secret)

    def has_keys(self) -> bool:
        """Say whether any key was ever made here: whether the data folder was initialised."""
        with self._engine.connect() as c:
            return c.execute(sa.select(t.keys.c.id).limit(1)).first() is not None

    def create_key(
        self,
        tenant: Tenant | str,
        scope: Scope | Iterable[Scope],
        channels: Iterable[str] | None = None,
        origins: Iterable[str] = (),
    ) -> tuple[Key, str]:
        """Make a key; return it and its text, which nobody can read again. Raises `MetadataError`.

        A tenant given by name is made if missing. `channels` None or empty: all of the tenant.
        """
        scopes = _check_scopes([scope] if isinstance(scope, str) else list(scope))
        bound = _check_channels(channels, scopes)
        allowed = _check_origins(origins, scopes)
        text = random_text(INGEST_PREFIX if "ingest" in scopes else SECRET_PREFIX)
        with self._writing() as c:
            name = tenant.name if isinstance(tenant, Tenant) else tenant
            tenant_id = tenant.id if isinstance(tenant, Tenant) else slug(tenant)
            owner = self._ensure_tenant(c, tenant_id, name.strip(), "UTC")
            key = Key(random_text("key_", 12), owner, scopes, bound, allowed)
            c.execute(
                sa.insert(t.keys).values(
                    id=key.id,
                    tenant_id=owner.id,
                    prefix=text[:SHOWN_CHARS],
                    hash=digest(text),
                    scopes=sorted(scopes),
                    channels=None if bound is None else list(bound),
                    origins=list(allowed),
                    created_at_ms=self._clock(),
                )
            )
        return key, text

    def find_key(self, text: str) -> Key | None:
        """Return the key of that text, or None if it does not exist or was revoked."""
        return self.find_keys([digest(text)]).get(digest(text)) if looks_real(text) else None

    def find_keys(self, digests: Sequence[bytes]) -> dict[bytes, Key]:
        """Return the valid keys among the digests (at most 500 of them)."""
        question = _KEYS.where(t.keys.c.hash.in_(digests), t.keys.c.revoked_at_ms.is_(None))
        with self._engine.connect() as c:
            return {row.hash: _key(row) for row in c.execute(question)}

    def find_key_by_id(self, key_id: str) -> Key | None:
        """Return the key of that id, a revoked one too: whose something was, not whether it may go on."""
        with self._engine.connect() as c:
            row = c.execute(_KEYS.where(t.keys.c.id == key_id)).one_or_none()
        return None if row is None else _key(row)

    def list_keys(
        self, tenant_id: str | None = None, limit: int = 100, cursor: str | None = None
    ) -> tuple[list[KeyRecord], str | None]:
        """Return keys (of one tenant, or of all) by id, revoked ones too, and the next cursor or None."""
        limit = _bounded(limit)
        question = _KEYS.order_by(t.keys.c.id).limit(limit + 1)
        if tenant_id is not None:
            question = question.where(t.keys.c.tenant_id == tenant_id)
        if cursor is not None:
            question = question.where(t.keys.c.id > cursor)
        with self._engine.connect() as c:
            found = [
                KeyRecord(_key(row), row.prefix, row.created_at_ms, row.revoked_at_ms) for row in c.execute(question)
            ]
        return found[:limit], found[limit - 1].key.id if len(found) > limit else None

    def revoke_key(self, key_id: str, tenant_id: str | None = None) -> bool:
        """End a key and the sessions opened with it, for ever. False: no valid key has that id."""
        question = sa.update(t.keys).where(t.keys.c.id == key_id, t.keys.c.revoked_at_ms.is_(None))
        if tenant_id is not None:
            question = question.where(t.keys.c.tenant_id == tenant_id)
        with self._writing() as c:
            done = c.execute(question.values(revoked_at_ms=self._clock())).rowcount == 1
            if done:
                c.execute(sa.delete(t.sessions).where(t.sessions.c.key_id == key_id))
        return done

    # Signing in

    def create_signin(
        self,
        tenant: Tenant | str,
        scopes: Iterable[Scope] = FULL_SCOPES,
        channels: Iterable[str] | None = None,
    ) -> str:
        """Return the token of a sign-in link: good once, for `signin_ttl_ms`."""
        checked = _check_scopes(list(scopes))
        if "ingest" in checked:
            raise MetadataError("A sign-in link is for reading; scope 'ingest' belongs to a key.")
        bound = _check_channels(channels, checked)
        owner = tenant if isinstance(tenant, Tenant) else self.ensure_tenant(tenant)
        token, now = random_text(SIGNIN_PREFIX), self._clock()
        with self._writing(counts=False) as c:
            c.execute(sa.delete(t.signin_tokens).where(t.signin_tokens.c.expires_at_ms <= now))
            c.execute(
                sa.insert(t.signin_tokens).values(
                    hash=digest(token),
                    tenant_id=owner.id,
                    scopes=sorted(checked),
                    channels=None if bound is None else list(bound),
                    expires_at_ms=now + self.settings.signin_ttl_ms,
                )
            )
        return token

    def redeem_signin(self, token: str) -> str | None:
        """Use up a sign-in token; return the session's cookie text, or None if it is unknown, used or old."""
        if not looks_real(token):
            return None
        mine = t.signin_tokens.c.hash == digest(token)
        with self._writing(counts=False) as c:
            row = c.execute(sa.select(t.signin_tokens).where(mine)).one_or_none()
            # Of two processes that redeem at once, one deletes: only that one may go on.
            if row is None or c.execute(sa.delete(t.signin_tokens).where(mine)).rowcount != 1:
                return None
            if row.expires_at_ms <= self._clock():
                return None
            return self._open_session(c, row.tenant_id, None, row.scopes, row.channels)

    def create_session(self, key: Key) -> str:
        """Open a session with the rights of a secret key; return the cookie text."""
        if "ingest" in key.scopes:
            raise MetadataError("An ingest key cannot sign in; use a secret key (sk_…).")
        channels = None if key.channels is None else list(key.channels)
        with self._writing(counts=False) as c:
            return self._open_session(c, key.tenant.id, key.id, sorted(key.scopes), channels)

    def find_session(self, text: str) -> Session | None:
        """Return the session of that cookie text, or None if it does not exist or is over."""
        return self.find_sessions([digest(text)]).get(digest(text)) if looks_real(text) else None

    def find_sessions(self, digests: Sequence[bytes]) -> dict[bytes, Session]:
        """Return the open sessions among the digests (at most 500 of them)."""
        question = _SESSIONS.where(t.sessions.c.hash.in_(digests), t.sessions.c.expires_at_ms > self._clock())
        with self._engine.connect() as c:
            return {row.hash: _session(row) for row in c.execute(question)}

    def end_session(self, text: str) -> None:
        """Sign a browser out; nothing happens when it was not signed in."""
        with self._writing() as c:
            c.execute(sa.delete(t.sessions).where(t.sessions.c.hash == digest(text)))

    def _open_session(
        self,
        c: sa.Connection,
        tenant_id: str,
        key_id: str | None,
        scopes: list[str],
        channels: list[str] | None,
    ) -> str:
        text, now = random_text(SESSION_PREFIX), self._clock()
        c.execute(sa.delete(t.sessions).where(t.sessions.c.expires_at_ms <= now))
        c.execute(
            sa.insert(t.sessions).values(
                hash=digest(text),
                tenant_id=tenant_id,
                key_id=key_id,
                scopes=scopes,
                channels=channels,
                created_at_ms=now,
                expires_at_ms=now + self.settings.session_ttl_ms,
            )
        )
        return text

    # Changes

    def changes(self) -> int:
        """Return a number that rises with every change that a directory must see."""
        with self._engine.connect() as c:
            return int(c.execute(sa.select(t.schema_version.c.changes)).scalar_one())

    @contextmanager
    def _writing(self, counts: bool = True) -> Iterator[sa.Connection]:
        with self._engine.execution_options(**t.WRITE).begin() as c:
            yield c
            if counts:
                c.execute(sa.update(t.schema_version).values(changes=t.schema_version.c.changes + 1))


_TENANT_COLUMNS: Final = (
    t.tenants.c.name.label("tenant_name"),
    t.tenants.c.viewer_secret,
    t.tenants.c.time_zone,
)
_KEYS: Final = sa.select(t.keys, *_TENANT_COLUMNS).join(t.tenants)
_SESSIONS: Final = sa.select(t.sessions, *_TENANT_COLUMNS).join(t.tenants)


def _tenant(row: Any) -> Tenant:
    return Tenant(row.id, row.name, bytes(row.viewer_secret), row.time_zone)


def _key(row: Any) -> Key:
    owner = Tenant(row.tenant_id, row.tenant_name, bytes(row.viewer_secret), row.time_zone)
    channels = None if row.channels is None else tuple(row.channels)
    return Key(row.id, owner, frozenset(row.scopes), channels, tuple(row.origins))


def _session(row: Any) -> Session:
    owner = Tenant(row.tenant_id, row.tenant_name, bytes(row.viewer_secret), row.time_zone)
    channels = None if row.channels is None else tuple(row.channels)
    key_id = row.key_id or f"session:{row.hash.hex()[:12]}"
    return Session(Key(key_id, owner, frozenset(row.scopes), channels), row.expires_at_ms)


def slug(name: str) -> str:
    """Return the id of a tenant name: `Acme Video, Inc.` → `acme-video-inc`.

    An id is its own slug, so a tenant may be named by either. A name without a Latin letter or digit gets a
    short hash.
    """
    wanted = name.strip()
    if not 1 <= len(wanted) <= 255:
        raise MetadataError(f"A tenant's name has 1 to 255 characters; this one has {len(wanted)}.")
    plain = unicodedata.normalize("NFKD", wanted).encode("ascii", "ignore").decode().lower()
    made = re.sub(r"[^a-z0-9_]+", "-", plain).strip("-")[:63].strip("-")
    return made or "t-" + sha256(wanted.encode()).hexdigest()[:12]


def _check_zone(name: str) -> None:
    try:
        ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError, OSError) as error:
        raise MetadataError(f"Unknown time zone {name!r}; use an IANA name such as Europe/Berlin.") from error


def _check_scopes(scopes: Sequence[str]) -> frozenset[Scope]:
    unknown = sorted(set(scopes) - set(SCOPES))
    if unknown or not scopes:
        raise MetadataError(f"Unknown scope {', '.join(unknown) or '(none)'}; known: {', '.join(SCOPES)}.")
    if "ingest" in scopes and len(set(scopes)) > 1:
        raise MetadataError("An ingest key is public and can do nothing else; make a second key for the other scopes.")
    return frozenset(scopes)  # type: ignore[arg-type]


def _check_channels(channels: Iterable[str] | None, scopes: frozenset[Scope]) -> tuple[str, ...] | None:
    wanted = tuple(dict.fromkeys(channels or ()))
    if not wanted:
        return None
    if "operator" in scopes:
        raise MetadataError("An operator key sees the whole platform; it cannot be bound to channels.")
    if len(wanted) > MAX_CHANNELS:
        raise MetadataError(f"A key can be bound to at most {MAX_CHANNELS} channels, not {len(wanted)}.")
    for channel in wanted:
        if not 1 <= len(channel) <= 255:
            raise MetadataError(f"A channel id has 1 to 255 characters; this one has {len(channel)}.")
    return wanted


def _check_origins(origins: Iterable[str], scopes: frozenset[Scope]) -> tuple[str, ...]:
    wanted = tuple(dict.fromkeys(origin.rstrip("/").lower() for origin in origins))
    if wanted and "ingest" not in scopes:
        raise MetadataError("Origins are for ingest keys: a secret key must not be in a web page at all.")
    if len(wanted) > MAX_ORIGINS:
        raise MetadataError(f"A key can have at most {MAX_ORIGINS} origins, not {len(wanted)}.")
    for origin in wanted:
        parts = urlsplit(origin)
        if parts.scheme not in ("http", "https") or not parts.hostname or f"{parts.scheme}://{parts.netloc}" != origin:
            raise MetadataError(
                f"{origin!r} is no origin; it looks like https://www.example.com or http://localhost:3000."
            )
    return wanted


def _bounded(limit: int) -> int:
    if not 1 <= limit <= MAX_LIST:
        raise MetadataError(f"limit must be 1 to {MAX_LIST}, not {limit}.")
    return limit
