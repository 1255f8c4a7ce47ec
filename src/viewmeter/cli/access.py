"""Who may come in: `init`, `keys create|list|revoke`, `signin`. All of them work while the product runs."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from cyclopts import Parameter

from viewmeter.cli import folder, whose
from viewmeter.cli.output import CommandError, result, table
from viewmeter.metadata.keys import Key
from viewmeter.metadata.store import KeyRecord, Metadata, slug
from viewmeter.model.time import rfc3339

Scope = Literal["ingest", "read", "rules", "admin", "operator"]
Flag = Annotated[bool, Parameter(negative=())]


def init(
    *, data: Path = folder.DEFAULT_DATA, tenant: str = "default", config: Path | None = None, json: Flag = False
) -> None:
    """Prepare a data folder without starting; print its two keys, once.

    Parameters
    ----------
    data
        Folder to prepare; made if it is missing.
    tenant
        Who owns the data.
    config
        Settings file (TOML).
    json
        Print JSON alone.
    """
    folder.make(data)
    with folder.open_metadata(data, folder.settings(data, config), made=True) as metadata:
        known = metadata.find_tenant(slug(tenant))
        if known is not None and metadata.list_keys(known.id, limit=1)[0]:
            raise CommandError(
                f"tenant {known.id} of {data} has its keys already, and they are shown only once: "
                f"make another one with `viewmeter keys create --data {data} --tenant {known.id} --scope …`"
            )
        made = metadata.init(tenant)
    answer = {"tenant": made.tenant.id, "ingest_key": made.ingest_key, "secret_key": made.secret_key}
    result(answer, keys_text(made.ingest_key, made.secret_key), json)


def keys_text(ingest_key: str, secret_key: str) -> str:
    """Return the two first keys for a person; they are never shown again."""
    return (
        f"ingest key  {ingest_key}   (public: players send events with it)\n"
        f"secret key  {secret_key}   (read, rules, admin: keep it; it is not shown again)"
    )


def create(
    *,
    tenant: str,
    scope: list[Scope],
    data: Path = folder.DEFAULT_DATA,
    channel: list[str] | None = None,
    origin: list[str] | None = None,
    config: Path | None = None,
    json: Flag = False,
) -> None:
    """Make one more key, of a tenant that is made if missing.

    Parameters
    ----------
    tenant
        Name of the owner of the data.
    scope
        What the key may do: ingest, read, rules, admin or operator; may be repeated.
    data
        The data folder.
    channel
        Bind the key to this channel; may be repeated.
    origin
        Accept an ingest key only from pages of this origin (https://example.org); may be repeated.
    config
        Settings file (TOML).
    json
        Print JSON alone.
    """
    with folder.open_metadata(data, folder.settings(data, config)) as metadata:
        key, text = metadata.create_key(tenant, scope, channel, origin or ())
    answer = {"id": key.id, "key": text, **_described(key)}
    result(answer, f"{text}\n(id {key.id}; it is not shown again)", json)


def _described(key: Key) -> dict[str, object]:
    scopes = sorted(key.scopes)
    return {
        "tenant": key.tenant.id,
        "scope": scopes[0] if len(scopes) == 1 else scopes,
        "channels": None if key.channels is None else list(key.channels),
        "origins": list(key.origins),
    }


def list_keys(
    *,
    data: Path = folder.DEFAULT_DATA,
    tenant: str | None = None,
    config: Path | None = None,
    json: Flag = False,
) -> None:
    """List keys, revoked ones too; their texts are known to nobody any more.

    Parameters
    ----------
    data
        The data folder.
    tenant
        Only the keys of this tenant.
    config
        Settings file (TOML).
    json
        Print JSON alone.
    """
    with folder.open_metadata(data, folder.settings(data, config)) as metadata:
        records = _all_keys(metadata, None if tenant is None else whose.owner(metadata, tenant).id)
    answer = [
        {
            "id": record.key.id,
            "prefix": record.prefix,
            **_described(record.key),
            "created_at": rfc3339(record.created_at_ms),
            "revoked_at": None if record.revoked_at_ms is None else rfc3339(record.revoked_at_ms),
        }
        for record in records
    ]
    rows = [
        (
            item["id"],
            f"{item['prefix']}…",
            item["tenant"],
            " ".join(sorted(record.key.scopes)),
            " ".join(record.key.channels or ("(all channels)",)),
            item["revoked_at"] or "-",
        )
        for item, record in zip(answer, records, strict=True)
    ]
    result({"keys": answer}, table(("ID", "KEY", "TENANT", "SCOPES", "CHANNELS", "REVOKED"), rows), json)


def _all_keys(metadata: Metadata, tenant_id: str | None) -> list[KeyRecord]:
    records: list[KeyRecord] = []
    cursor: str | None = None
    while True:
        page, cursor = metadata.list_keys(tenant_id, limit=1000, cursor=cursor)
        records += page
        if cursor is None:
            return records


def revoke(key_id: str, /, *, data: Path = folder.DEFAULT_DATA, config: Path | None = None, json: Flag = False) -> None:
    """End a key for ever; a running product refuses it within 2 seconds.

    Parameters
    ----------
    key_id
        The id that `keys create` and `keys list` show.
    data
        The data folder.
    config
        Settings file (TOML).
    json
        Print JSON alone.
    """
    with folder.open_metadata(data, folder.settings(data, config)) as metadata:
        if not metadata.revoke_key(key_id):
            raise CommandError(f"no valid key has the id {key_id}: `viewmeter keys list --data {data}` shows them")
    result({"id": key_id, "revoked": True}, f"{key_id} is revoked", json)


def signin(
    *,
    data: Path = folder.DEFAULT_DATA,
    tenant: str | None = None,
    channel: list[str] | None = None,
    config: Path | None = None,
    json: Flag = False,
) -> None:
    """Print a new one-time link that signs a browser in to the dashboard.

    Parameters
    ----------
    data
        The data folder.
    tenant
        Whose dashboard; may be left out where there is only one tenant.
    channel
        Show this channel only; may be repeated.
    config
        Settings file (TOML).
    json
        Print JSON alone.
    """
    loaded = folder.settings(data, config)
    with folder.open_metadata(data, loaded) as metadata:
        link = signin_link(metadata, folder.base_url(data, loaded), whose.owner(metadata, tenant).id, channel)
    result({"url": link}, link, json)


def signin_link(metadata: Metadata, base_url: str, tenant: str, channels: list[str] | None = None) -> str:
    """Return a new one-time link to the dashboard."""
    return f"{base_url}/signin?token={metadata.create_signin(tenant, channels=channels)}"
