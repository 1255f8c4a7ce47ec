"""Settings of the metadata store."""

from __future__ import annotations

from dataclasses import dataclass

from viewmeter.model.time import DAY_MS, HOUR_MS


@dataclass(frozen=True)
class MetadataSettings:
    """Where tenants and keys are kept, and how long sign-ins last."""

    url: str = ""
    """SQLAlchemy URL; empty = the SQLite file `meta.db` in the data folder."""
    signin_ttl_ms: int = HOUR_MS
    """How long a one-time sign-in link may wait for its use."""
    session_ttl_ms: int = 14 * DAY_MS
    """How long a browser stays signed in."""
