"""A copy of an archive as of one moment, while others write to it.

In: the archive's folder, a new folder, a folder on the same disk for links. Out: the manifest as it was, and exactly
the files that it names. Files never change, so a hard link holds each as it was; should one be replaced before it is
held, the manifest is copied again.
"""

from __future__ import annotations

import contextlib
import os
import shutil
from pathlib import Path
from typing import Final

from viewmeter.archive import embedded_files as files
from viewmeter.archive.embedded_manifest import NAME, Manifest
from viewmeter.archive.protocol import ArchiveUnavailableError

_TRIES: Final = 20


def copy_archive(source: Path, target: Path, links: Path) -> None:
    """Copy the archive. Raises `ArchiveUnavailableError`, OSError."""
    links.mkdir(parents=True, exist_ok=True)
    held = links / f"backup-{os.getpid()}"
    try:
        for _ in range(_TRIES):
            shutil.rmtree(held, ignore_errors=True)
            held.mkdir()
            with contextlib.closing(Manifest(source)) as manifest:
                manifest.copy_to(held / NAME)
            with contextlib.suppress(FileNotFoundError):
                _hold(source, held)
                shutil.copytree(held, target)
                return
        raise ArchiveUnavailableError("the archive changes faster than it can be copied: try again later")
    finally:
        shutil.rmtree(held, ignore_errors=True)


def _hold(source: Path, held: Path) -> None:
    with contextlib.closing(Manifest(held)) as manifest:
        listed = manifest.files()
    for file in listed:
        wanted = files.final_path(held, file)
        wanted.parent.mkdir(parents=True, exist_ok=True)
        if file.damage is not None and not files.final_path(source, file).exists():
            continue  # it was missing already
        try:
            _link(files.final_path(source, file), wanted)
        except FileNotFoundError:
            try:
                _link(files.temporary_path(source, file), wanted)
            except FileNotFoundError:
                _link(files.final_path(source, file), wanted)


def _link(path: Path, wanted: Path) -> None:
    try:
        wanted.hardlink_to(path)
    except FileNotFoundError:
        raise
    except OSError:  # a file system without links
        shutil.copy2(path, wanted)
