"""Metadata: tenants, keys, sign-ins. `keys` is what other rooms see; `store` and `directory` are behind
it."""

from viewmeter.metadata.directory import Directory
from viewmeter.metadata.keys import Key, KeyDirectory, KeysUnavailableError, Scope, Tenant
from viewmeter.metadata.store import Metadata, MetadataError, MetadataSettings, Session

__all__ = [
    "Directory",
    "Key",
    "KeyDirectory",
    "KeysUnavailableError",
    "Metadata",
    "MetadataError",
    "MetadataSettings",
    "Scope",
    "Session",
    "Tenant",
]
