"""`viewmeter backup` and `restore`: the data folder to another place and back."""

from __future__ import annotations

from pathlib import Path

from sqlalchemy import make_url

from viewmeter import __version__, wiring
from viewmeter.archive.protocol import ArchiveUnavailableError
from viewmeter.cli import folder
from viewmeter.cli.access import Flag
from viewmeter.cli.output import CommandError, note, result
from viewmeter.cli.progress import progress
from viewmeter.cli.upkeep import alone_or_asked
from viewmeter.metadata.settings import MetadataSettings
from viewmeter.upkeep import backup as backups


def backup(to: Path, /, *, data: Path = folder.DEFAULT_DATA, config: Path | None = None, json: Flag = False) -> None:
    """Copy a data folder, while the product runs or not.

    Every event that was acknowledged before is in the copy and is counted exactly once after `viewmeter restore`.
    Nothing waits for it: events are taken, counted and shown meanwhile. Keys and tenants are copied too: keep it as
    safe as the folder itself. Where `metadata.url` names another database, tenants and keys are not copied, and a note
    says so.

    Parameters
    ----------
    to
        A new folder for the backup.
    data
        The data folder.
    config
        Settings file (TOML).
    json
        Print JSON alone.
    """
    if not (data / "log").is_dir() and not (data / "meta.db").exists():
        raise CommandError(f"{data} is no data folder: give the one of `viewmeter up` as --data")
    target = to.absolute()
    elsewhere = folder.settings(data, config).config.of(MetadataSettings).url
    try:
        backups.prepare(target)
        with progress("backing up") as tell:
            tell("state and store")
            order = {"to": str(target)}
            alone_or_asked(data, "backup", order, lambda: backups.engine_part(data, target))
            backups.other_parts(data, target, tell)
            about = backups.finish(target, __version__, wiring.now_ms(), has_metadata=not elsewhere)
    except (backups.BackupError, ArchiveUnavailableError) as problem:
        raise CommandError(str(problem)) from None
    except OSError as problem:
        why = problem.strerror or problem
        raise CommandError(f"the backup could not be written ({why}): {target} is not whole") from None
    if elsewhere:
        named = make_url(elsewhere).set(query={}).render_as_string()  # its options may hold a password, too
        note(
            f"tenants and keys are not in this backup: they are in {named}. Back that "
            "database up with its own tool right after this one (pg_dump; for SQLite `sqlite3 FILE '.backup COPY'`)"
        )
    text = f"{about['files']} files, {about['bytes'] / 2**20:.1f} MiB in {to}"
    result({"to": str(target), **about}, text, json)


def restore(source: Path, /, *, data: Path = folder.DEFAULT_DATA, json: Flag = False) -> None:
    """Make a data folder from a backup; then `viewmeter up --data DIR` goes on from there.

    Parameters
    ----------
    source
        The folder of the backup.
    data
        The data folder to make; new or empty.
    json
        Print JSON alone.
    """
    try:
        with progress("restoring") as tell:
            about = backups.restore(source, data, tell)
    except backups.BackupError as problem:
        raise CommandError(str(problem)) from None
    except OSError as problem:
        why = problem.strerror or problem
        raise CommandError(f"the backup could not be restored ({why}): {data} is not whole") from None
    if not about.get("has_metadata", True):
        note(f"tenants and keys were in another database: restore it too, and name it as metadata.url of {data}")
    result({"data": str(data), **about}, f"{about['files']} files restored to {data}", json)
