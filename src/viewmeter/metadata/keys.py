"""Tenants and keys as the rooms see them. The store behind is `metadata/store.py`; it keeps hashes, never
keys."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final, Literal, Protocol

Scope = Literal["ingest", "read", "rules", "admin", "operator"]


@dataclass(frozen=True)
class Tenant:
    """Who owns data. `viewer_secret` keys the hash of the tenant's viewer ids, for ever."""

    id: str
    name: str
    viewer_secret: bytes = field(repr=False)  # so that no log shows it
    time_zone: str = "UTC"  # of its days, weeks and months


@dataclass(frozen=True)
class Key:
    """What a key may do. `channels` None = all of the tenant; `origins` empty = any."""

    id: str
    tenant: Tenant
    scopes: frozenset[Scope]
    channels: tuple[str, ...] | None = None
    origins: tuple[str, ...] = ()


class KeysUnavailableError(Exception):
    """A key that is not cached cannot be looked up now; whether it exists is unknown. Try again later
    (503)."""


def why_unknown(text: str) -> str:
    """Return what to tell whoever sends a key that does not exist: that it is the documentation's own, where it is."""
    if "…" in text or "..." in text or text.strip("<>{}$").upper() in _PLACEHOLDERS:
        return (
            "the key is the placeholder of the documentation, not one of yours:"
            " `viewmeter init` and `viewmeter keys create` print keys, once"
        )
    return "the key does not exist or was revoked: `viewmeter keys list` shows those that do"


_PLACEHOLDERS: Final = frozenset({"", "KEY", "PK_", "SK_", "YOUR_KEY", "API_KEY", "TOKEN", "PK_KEY", "SK_KEY"})


class KeyDirectory(Protocol):
    """Looks keys up by their text.

    K1  A key created or revoked anywhere is known here within 2 seconds (creation: at the next look-up).
    K2  A look-up of a known key costs a dictionary access: no I/O on the hot path.
    K3  While `version` is the same object, a key that was found is still valid, and is the same.
    """

    @property
    def version(self) -> object:
        """Return what stands for the state of the keys that were found."""
        ...

    def find(self, text: str) -> Key | None:
        """Return the key, or None if it does not exist or was revoked. Raises `KeysUnavailableError`."""
        ...
