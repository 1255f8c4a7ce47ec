"""Who owns data: `tenants list` and `tenants set`. Both work while the product runs.

A tenant is made by `init` and `keys create`. Its zone is the one whose days, weeks and months are kept for years; a
change holds for days that begin after it.
"""

from __future__ import annotations

from pathlib import Path

from viewmeter.cli import folder
from viewmeter.cli.access import Flag
from viewmeter.cli.output import CommandError, result, table
from viewmeter.metadata.keys import Tenant
from viewmeter.metadata.store import MetadataError, slug


def list_tenants(*, data: Path = folder.DEFAULT_DATA, config: Path | None = None, json: Flag = False) -> None:
    """List tenants and the zone that each reports in.

    Parameters
    ----------
    data
        The data folder.
    config
        Settings file (TOML).
    json
        Print JSON alone.
    """
    with folder.open_metadata(data, folder.settings(data, config)) as metadata:
        tenants = metadata.all_tenants()
    answer = [_described(tenant) for tenant in tenants]
    rows = [(tenant.id, tenant.name, tenant.time_zone) for tenant in tenants]
    result({"tenants": answer}, table(("ID", "NAME", "ZONE"), rows), json)


def set_tenant(
    tenant: str,
    /,
    *,
    zone: str,
    data: Path = folder.DEFAULT_DATA,
    config: Path | None = None,
    json: Flag = False,
) -> None:
    """Change in which time zone a tenant reports: whose days, weeks and months its history has.

    Days that begin later are of the new zone; those before stay as they were, and are there in UTC too.

    Parameters
    ----------
    tenant
        Name or id of the owner of the data.
    zone
        IANA name, like Europe/Berlin.
    data
        The data folder.
    config
        Settings file (TOML).
    json
        Print JSON alone.
    """
    with folder.open_metadata(data, folder.settings(data, config)) as metadata:
        try:
            changed = metadata.set_time_zone(slug(tenant), zone)
        except MetadataError as problem:
            raise CommandError(str(problem)) from None
    result(_described(changed), f"{changed.id} reports in {changed.time_zone}, from its next day on", json)


def _described(tenant: Tenant) -> dict[str, object]:
    return {"id": tenant.id, "name": tenant.name, "time_zone": tenant.time_zone}
