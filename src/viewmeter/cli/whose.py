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


def named(known: dict[str, Tenant], name: str) -> Tenant:
    """Return the tenant of that id or name. Raises `CommandError` where there is none."""
    tenant = known.get(name) or known.get(slug(name))
    if tenant is None:
        raise CommandError(f"there is no tenant {name!r}: there is {_names(known)}; `viewmeter keys create` makes one")
    return tenant


def owner(metadata: Metadata, name: str | None) -> Tenant:
    """Return the tenant of that name, or the only one there is. Raises `CommandError`."""
    known = tenants(metadata)
    if name is not None:
        return named(known, name)
    if not known:
        raise CommandError("there is no tenant yet: run `viewmeter init` first")
    if len(known) > 1:
        raise CommandError(f"there are {len(known)} tenants: say which with --tenant ({_names(known)})")
    return next(iter(known.values()))


def _names(known: dict[str, Tenant]) -> str:
    names = ", ".join(sorted(known)[:NAMED]) or "none"
    return f"{names}, …" if len(known) > NAMED else names
