"""Who watches, without knowing who: viewers and views as 64-bit hashes.

In: a tenant and a `viewer_id`, or an address and a user agent where there is none. Out: signed 64-bit hashes. Promised:
a `viewer_id` hashes the same for ever (keyed with the tenant's secret); the fallback (`senders.py`) hashes the same
until the end of the UTC day and never again, since its salt is then destroyed: by `expire`, which a timer calls, in
memory and on disk. All workers share the salt's file. Not done: the salt of a product that is stopped stays on the disk
until the next start.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import os
import secrets
from pathlib import Path
from typing import Final

from viewmeter.collector.recent import Hashes
from viewmeter.eventlog.protocol import LogUnavailableError
from viewmeter.metadata.keys import Tenant
from viewmeter.model.events import view_key
from viewmeter.model.time import DAY_MS, from_ms

_SALT_BYTES: Final = 32
_SALT_PREFIX: Final = "viewer-salt-"


def keyed_hash(secret: bytes, text: str) -> int:
    """Return the signed 64-bit keyed BLAKE2b of a text."""
    digest = hashlib.blake2b(text.encode("utf-8", "surrogatepass"), key=secret[:64], digest_size=8).digest()
    return int.from_bytes(digest, "little", signed=True)


class TenantHashes:
    """The hashes of one tenant: views by `view_id`, viewers by `viewer_id`."""

    def __init__(self, tenant: Tenant, size: int) -> None:
        self.id = tenant.id
        self.views = Hashes(functools.partial(view_key, tenant.id), size)
        self.viewers = Hashes(functools.partial(keyed_hash, tenant.viewer_secret), size)


class DailySalt:
    """A random salt for each UTC day, shared by the workers of one data folder through `folder`."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._day = -1
        self._expired = -1
        self._salt = b""

    def at(self, now_ms: int) -> bytes:
        """Return the salt of the day that holds `now_ms`. A clock that goes backwards stays in the later day."""
        day = now_ms // DAY_MS
        if day > self._day or not self._salt:
            wanted = max(day, self._day, self._expired)
            try:
                self._salt = self._load(wanted)
            except OSError as error:  # a full disk, say: the sender comes again, and yesterday's salt is not used on
                raise LogUnavailableError(f"the salt of the day cannot be kept: {error.strerror}") from error
            self._day = wanted
        return self._salt

    def expire(self, now_ms: int) -> None:
        """Destroy the salts of days before the one that holds `now_ms`. Free of cost but once a day.

        Raises OSError where the disk does not let them be destroyed; the next call tries again.
        """
        day = now_ms // DAY_MS
        if day > self._expired:
            if day > self._day:
                self._salt = b""
            self._destroy_before(self._path(day).name)
            self._expired = day

    def _path(self, day: int) -> Path:
        return self._folder / f"{_SALT_PREFIX}{from_ms(day * DAY_MS):%Y-%m-%d}"

    def _destroy_before(self, name: str) -> None:
        for other in (*self._folder.glob(f"{_SALT_PREFIX}*"), *self._folder.glob(f".{_SALT_PREFIX}*")):
            if other.name.lstrip(".") < name:  # those with a dot are what a killed worker left behind
                _destroy(other)

    def _load(self, day: int) -> bytes:
        """Read the day's salt, or make it; destroy those of days before."""
        self._folder.mkdir(parents=True, exist_ok=True)
        path = self._path(day)
        made = self._folder / f".{path.name}.{os.getpid()}.{secrets.token_hex(4)}"
        try:
            with os.fdopen(os.open(made, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
                file.write(secrets.token_bytes(_SALT_BYTES))
            with contextlib.suppress(FileExistsError):
                os.link(made, path)  # the first worker's salt stands, whole
        finally:
            made.unlink(missing_ok=True)
        self._destroy_before(path.name)
        return path.read_bytes()


def _destroy(path: Path) -> None:
    with contextlib.suppress(FileNotFoundError):
        with path.open("r+b") as file:
            file.write(b"\0" * _SALT_BYTES)
            file.flush()
            os.fsync(file.fileno())
        path.unlink()
