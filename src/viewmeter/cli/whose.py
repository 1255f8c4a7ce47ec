"""Whose data a command is about: the tenant that `--tenant` names, or the only one there is."""

from __future__ import annotations

from typing import Final

from viewmeter.cli.output import CommandError
from viewmeter.metadata.keys import Tenant
from viewmeter.metadata.store import Metadata, slug

MAX_TENANTS: Final = 100_000
NAMED: Final = 5


def tenants(metadata: Metadata) -> dict[str, Tenant]:
    """Return every tenant by its id."""
    return {tenant.id: tenant for tenant in metadata.all_tenants(MAX_TENANTS)}


def named(metadata: Metadata, name: str) -> Tenant:
    """Return the tenant of that id or name. Raises `CommandError` where there is none."""
    tenant = metadata.find_tenant(slug(name))  # an id is its own
    if tenant is None:
        there, _ = _some(metadata)
        raise CommandError(f"there is no tenant {name!r}: there is {there}; `viewmeter keys create` makes one")
    return tenant


def owner(metadata: Metadata, name: str | None) -> Tenant:
    """Return the tenant of that name, or the only one there is. Raises `CommandError`."""
    if name is not None:
        return named(metadata, name)
    there, found = _some(metadata)
    if not found:
        raise CommandError("there is no tenant yet: run `viewmeter init` first")
    if len(found) > 1:
        raise CommandError(f"there are several tenants: say which with --tenant ({there})")
    return found[0]


def _some(metadata: Metadata) -> tuple[str, list[Tenant]]:
    """Return the first tenants' names as an error tells them, and these tenants."""
    found, more = metadata.list_tenants(NAMED)
    names = ", ".join(tenant.id for tenant in found) or "none"
    return (f"{names}, …" if more else names), found
