"""Metadata blocks that a power cut in a checkpoint left half written: their checksums are made to fit again.

In: the store's file, before it is opened. Out: a file that DuckDB opens, with the contents of its last whole
checkpoint; what was committed since is in its log. Promised: contents are never changed, only the checksum of blocks
that DuckDB itself lists as metadata; nothing is touched unless the store was in use when it ended.

Why it is right (decision 100): DuckDB writes data to unused blocks only, but metadata (256 KiB blocks, each cut in 64
parts) into the unused parts of blocks that the header on the disk still points to, and so writes the used parts again
as they are. Whichever sectors of such a write reached the disk, the used parts are whole; what does not fit is the one
checksum in front. Not done here: disks that rot. A checksum that does not fit in a store that was closed is left alone.
"""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Final

import duckdb
import numpy as np
import structlog

_HEADERS_BYTES: Final = 3 * 4096
_BLOCK_BYTES: Final = 262_144
_CHECKSUM_BYTES: Final = 8
_TORN: Final = re.compile(r"Corrupt database file: computed checksum \d+ does not match .* in block at location (\d+)")
_FACTOR: Final = np.uint64(0xBF58476D1CE4E5B9)  # of DuckDB's checksum: words times this, xored, from 5381 on
_START: Final = 5381

log = structlog.get_logger(__name__)


class TornFileError(Exception):
    """A block of the store does not fit its checksum, and no power cut explains it."""


def seal_torn_blocks(path: Path, log_path: Path) -> int:
    """Make the checksums of metadata blocks fit; return how many did not. Raises `TornFileError`.

    Call it before the file is opened: a second handle that is closed would drop DuckDB's lock of the file.
    """
    if not log_path.exists() or not log_path.stat().st_size:
        return 0
    # Under another name DuckDB finds no log: it shows what the file alone holds, and replays nothing.
    alone = path.with_name(path.name + ".alone")
    alone.unlink(missing_ok=True)
    try:
        alone.hardlink_to(path)
    except OSError:  # a file system without: the log is replayed too, and that is all
        return _seal(path, path)
    try:
        return _seal(path, alone)
    finally:
        alone.unlink()


def _seal(path: Path, alone: Path) -> int:
    sealed: dict[int, _Seal] = {}
    listed: list[int] | None = None
    while listed is None:
        try:
            with duckdb.connect(alone, read_only=True) as db:
                listed = [int(row[0]) for row in db.execute("SELECT block_id FROM pragma_metadata_info()").fetchall()]
        except duckdb.Error as error:
            torn = _TORN.search(str(error))
            if torn is None:
                break  # not ours: whoever opens the file says it
            location = int(torn[1])
            seal = None if location in sealed else _seal_block(path, location)
            if seal is None:
                break
            sealed[location] = seal
    metadata = {_HEADERS_BYTES + block * _BLOCK_BYTES for block in listed or ()}
    if listed is None or not sealed.keys() <= metadata:
        for location, seal in sealed.items():
            _write(path, location, seal.before)
        if listed is None:
            return 0
        raise TornFileError(
            f"{path} is damaged in blocks that no checkpoint writes again ({sorted(sealed.keys() - metadata)}): "
            "the disk changed them. Restore a backup"
        )
    for location in sorted(metadata - sealed.keys()):  # those that are read later, when a table is
        seal = _seal_block(path, location)
        if seal is not None:
            sealed[location] = seal
    for location, seal in sorted(sealed.items()):
        log.error(
            "store_block_sealed",
            location=location,
            stored_checksum=int.from_bytes(seal.before, "little"),
            checksum=int.from_bytes(seal.after, "little"),
            reason="a power cut in a checkpoint; what the store needs of the block was not written anew by it",
        )
    return len(sealed)


@dataclass(frozen=True)
class _Seal:
    before: bytes
    after: bytes


def _seal_block(path: Path, location: int) -> _Seal | None:
    """Make the checksum of the block fit, on the disk. Returns None where it does, or where no whole block is."""
    with path.open("rb") as file:
        stored, contents = _read(file, location)
    if location < _HEADERS_BYTES or len(contents) != _BLOCK_BYTES - _CHECKSUM_BYTES:
        return None
    fits = checksum(contents).to_bytes(_CHECKSUM_BYTES, "little")
    if stored == fits:
        return None
    _write(path, location, fits)
    return _Seal(stored, fits)


def _read(file: BinaryIO, location: int) -> tuple[bytes, bytes]:
    file.seek(location)
    block = file.read(_BLOCK_BYTES)
    return block[:_CHECKSUM_BYTES], block[_CHECKSUM_BYTES:]


def _write(path: Path, location: int, stored: bytes) -> None:
    # Eight bytes at the start of a sector: there or not.
    with path.open("r+b", buffering=0) as file:
        file.seek(location)
        file.write(stored)
        os.fsync(file.fileno())


def checksum(contents: bytes) -> int:
    """Return DuckDB's checksum of whole 64-bit words (src/common/checksum.cpp of DuckDB 2.0)."""
    words = np.frombuffer(contents, dtype="<u8")
    return int(np.bitwise_xor.reduce(words * _FACTOR)) ^ _START
