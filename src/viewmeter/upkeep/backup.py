"""A backup of a data folder, taken while the product runs or not, and the folder that a backup becomes again.

In: a data folder. Out: another one that `viewmeter up` could start on, marked whole by `backup.json`, which is written
last. Promised: every event that was acknowledged before the backup began is counted exactly once after a restore; later
ones at most once. What must agree is copied in the order that makes it agree:

1. the views' state, then the store, while no newer state is saved: the store holds every commit behind that state;
2. the batch layer's files: ahead of the store they look like a crash between writing and committing, which it survives;
3. the archive: its hours are as new as the store's, or newer, and are then counted anew;
4. the log, last: it holds all that anybody above has read, and more.

Not copied: `run/` (sockets, and the salt of the day, which must be destroyed at its end), locks, temporary files.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import sqlite3
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, Final, Protocol

from viewmeter.archive.embedded_copy import copy_archive

MARK: Final = "backup.json"
FORMAT: Final = 1
NOT_COPIED: Final = frozenset({"run", MARK})

Told = Callable[[str], None]


class BackupError(Exception):
    """The backup cannot be made or used; the text says why and what to do."""


class HoldsState(Protocol):
    """The stream jobs, as far as a backup needs them."""

    def holding_state(self) -> contextlib.AbstractContextManager[None]:
        """Save no newer state while inside."""
        ...


class CopiesItself(Protocol):
    """The store, as far as a backup needs it."""

    def copy_to(self, path: Path) -> None:
        """Write a copy as of one moment."""
        ...


def prepare(target: Path) -> None:
    """Make the folder of a backup; refuse one that holds something."""
    try:
        target.mkdir(parents=True, exist_ok=True, mode=0o700)
        if any(target.iterdir()):
            raise BackupError(f"{target} is not empty: give a new folder for each backup")
    except OSError as problem:
        raise BackupError(f"cannot write to {target}: {problem.strerror}") from None


def order(data: Path, stream: HoldsState, store: CopiesItself) -> Callable[[dict[str, Any]], dict[str, Any]]:
    """Return the handler by which a running engine copies its part (1)."""

    def handle(values: dict[str, Any]) -> dict[str, Any]:
        target = Path(values["to"])
        with stream.holding_state():
            _copy_tree(data / "state", target / "state")
            store.copy_to(target / "store.duckdb")
        return {"copied": True}

    return handle


def engine_part(data: Path, target: Path) -> dict[str, Any]:
    """Copy the state and the store of a stopped product."""
    _copy_tree(data / "state", target / "state")
    for name in ("store.duckdb", "store.duckdb.wal"):
        if (data / name).exists():
            shutil.copy2(data / name, target / name)
    return {"copied": True}


def other_parts(data: Path, target: Path, told: Told = lambda _: None) -> None:
    """Copy what needs no engine (2 to 4), then the small files."""
    told("batch")
    _copy_tree(data / "batch", target / "batch")
    told("archive")
    if (data / "archive").is_dir():
        copy_archive(data / "archive", target / "archive", data / "run")
    told("log")
    _copy_log(data / "log", target / "log")
    told("the rest")
    for path in sorted((data / "dead-letters").glob("*.sqlite")):
        _copy_database(path, target / "dead-letters" / path.name)
    for name in ("meta.db", "viewmeter.toml"):
        if (data / name).exists():
            copy = _copy_database if name.endswith(".db") else shutil.copy2
            copy(data / name, target / name)


def finish(target: Path, version: str, at_ms: int, has_metadata: bool = True) -> dict[str, Any]:
    """Mark the backup as whole. has_metadata: tenants and keys are in it; else they are in another database."""
    size = sum(path.stat().st_size for path in _files(target))
    about = {"format": FORMAT, "version": version, "at_ms": at_ms, "bytes": size, "files": len(list(_files(target)))}
    about["has_metadata"] = has_metadata
    making = target / f".{MARK}"
    with making.open("w") as file:
        json.dump(about, file)
        file.flush()
        os.fsync(file.fileno())
    os.sync()
    making.rename(target / MARK)
    return about


def restore(source: Path, data: Path, told: Told = lambda _: None) -> dict[str, Any]:
    """Copy a backup to a new data folder. Raises `BackupError`, OSError; the folder is then not a data folder yet."""
    try:
        about: dict[str, Any] = json.loads((source / MARK).read_text())
    except (OSError, ValueError):
        raise BackupError(f"{source} is no whole backup: {MARK} is missing, which is written last") from None
    if about.get("format") != FORMAT:
        raise BackupError(f"{source} has format {about.get('format')}; this program restores format {FORMAT}")
    here = list(_files(source))
    if (len(here), sum(path.stat().st_size for path in here)) != (about["files"], about["bytes"]):
        raise BackupError(f"{source} is not what was written: it had {about['files']} files of {about['bytes']} bytes")
    prepare(data)
    # meta.db comes last: without it no command takes the folder for a data folder.
    for path in sorted(here, key=lambda path: path.name == "meta.db"):
        told(str(path.relative_to(source)))
        wanted = data / path.relative_to(source)
        wanted.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(path, wanted)
    os.sync()
    return about


def _files(folder: Path) -> Iterable[Path]:
    return (path for path in sorted(folder.rglob("*")) if path.is_file() and path.name not in (MARK, f".{MARK}"))


def _copy_tree(source: Path, target: Path) -> None:
    """Copy files that are replaced, never changed. One that goes meanwhile was replaced."""
    for path in sorted(source.rglob("*")) if source.is_dir() else ():
        if path.is_dir() or path.suffix == ".tmp" or "making" in path.parts:
            continue
        wanted = target / path.relative_to(source)
        wanted.parent.mkdir(parents=True, exist_ok=True)
        with contextlib.suppress(FileNotFoundError):
            shutil.copy2(path, wanted)


def _copy_log(source: Path, target: Path) -> None:
    """Copy the readers' positions first: older ones only keep more. Then each file as of one moment."""
    target.mkdir(parents=True, exist_ok=True)
    for path in [*source.glob("readers.sqlite"), *sorted(source.glob("p*/*.sqlite"))]:
        with contextlib.suppress(FileNotFoundError):  # dropped meanwhile: all had passed it
            _copy_database(path, target / path.relative_to(source))
    _copy_tree(source / "damaged", target / "damaged")


def _copy_database(path: Path, target: Path) -> None:
    """Copy an SQLite file, what its write-ahead log holds included."""
    target.parent.mkdir(parents=True, exist_ok=True)
    if not path.exists():
        raise FileNotFoundError(path)
    try:
        with (
            contextlib.closing(sqlite3.connect(f"{path.absolute().as_uri()}?mode=rw", uri=True, timeout=30)) as held,
            contextlib.closing(sqlite3.connect(target)) as copy,
        ):
            held.backup(copy)
            copy.execute("PRAGMA journal_mode=DELETE")
    except sqlite3.DatabaseError:
        # A damaged file is copied as it is: the log's reader knows what to do with it.
        target.unlink(missing_ok=True)
        shutil.copy2(path, target)
