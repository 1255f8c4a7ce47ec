"""The data folder as commands find it: made, prepared, or in use.

Layout: `meta.db` (tenants, keys), `log/` (events as they came), `archive/` (by the hour they happened in),
`dead-letters/`, `store.duckdb`, `state/` (of the stream jobs), `run/` (sockets, lock, metrics), and perhaps
`viewmeter.toml` (settings).
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from viewmeter import config, wiring
from viewmeter.cli.output import CommandError
from viewmeter.metadata.settings import MetadataSettings
from viewmeter.metadata.store import Metadata, MetadataError, SchemaTooNewError
from viewmeter.supervisor import lock, port
from viewmeter.supervisor.settings import ServerSettings

DEFAULT_DATA: Final = Path("viewmeter-data")
OURS: Final = frozenset({"meta.db", config.FILE_NAME, "run", "lost+found"})


def settings(data: Path, file: Path | None) -> config.Loaded:
    """Return the settings in force for a folder."""
    return config.load(file, data, os.environ)


def make(data: Path) -> None:
    """Make the folder where it is missing; refuse one that holds something else."""
    try:
        data.mkdir(parents=True, exist_ok=True, mode=0o700)
        found = {entry.name for entry in data.iterdir()}
    except (NotADirectoryError, FileExistsError):
        raise CommandError(f"{data} is not a folder: give a folder as --data") from None
    except OSError as problem:
        raise CommandError(f"cannot use {data}: {problem.strerror}; give another folder as --data") from None
    if found and "meta.db" not in found and found - OURS:
        raise CommandError(f"{data} holds other files: give an empty or a new folder as --data")
    if not os.access(data, os.W_OK | os.X_OK):
        raise CommandError(f"{data} is not writable: change its owner, or give another folder as --data")


@contextmanager
def open_metadata(data: Path, loaded: config.Loaded, *, made: bool = False) -> Iterator[Metadata]:
    """Open the folder's tenants and keys. `made`: it need not have been prepared before."""
    wanted = loaded.config.of(MetadataSettings)
    if not made and not wanted.url and not (data / "meta.db").exists():
        raise CommandError(f"{data} is not prepared: run `viewmeter init --data {data}` first")
    try:
        metadata = Metadata(wiring.metadata_url(loaded.config, data), settings=wanted)
    except SchemaTooNewError as problem:
        raise CommandError(str(problem)) from None
    try:
        yield metadata
    except MetadataError as problem:
        raise CommandError(str(problem)) from None
    finally:
        metadata.close()


def base_url(data: Path, loaded: config.Loaded) -> str:
    """Return where the product of the folder is, or would be, reached."""
    address = data / "run" / "url"
    if lock.running(data) is not None and address.exists():
        return address.read_text().strip()
    server = loaded.config.of(ServerSettings)
    return port.url(server.host, server.port)
