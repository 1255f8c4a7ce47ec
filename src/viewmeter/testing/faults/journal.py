"""The journal of a shim: what was done to the files of a folder, in order.

In: the file, perhaps while processes still append to it. Out: `Record`s. Promised: only whole records; where each one
ends, so that a moment in the journal can be named. Raises on what the shim could not describe.
"""

from __future__ import annotations

import enum
import os
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Final, NamedTuple

_HEAD: Final = struct.Struct("<IHHHHIQQQ")
_MAGIC: Final = 0x564D4A31


class Op(enum.IntEnum):
    """What was done."""

    CREATE = 1
    WRITE = 2
    TRUNCATE = 3
    SYNC = 4
    SYNC_FAILED = 5
    RENAME = 6
    UNLINK = 7
    MKDIR = 8
    RMDIR = 9
    PUNCH = 10
    UNKNOWN = 11
    LINK = 12


class Record(NamedTuple):
    """One operation. `end` is the position behind it; paths are relative to the watched folder, "" is that folder."""

    end: int
    op: Op
    inode: int
    offset: int
    path: str
    other: str
    data: bytes


class JournalError(Exception):
    """The journal holds what cannot be replayed."""


def records(journal: Path, until: int | None = None) -> Iterator[Record]:
    """Yield the records that end at or before `until` (None: all that are whole)."""
    with journal.open("rb") as file:
        limit = os.fstat(file.fileno()).st_size if until is None else until
        at = 0
        while at + _HEAD.size <= limit:
            head = file.read(_HEAD.size)
            magic, op, path_bytes, other_bytes, _, _, inode, offset, data_bytes = _HEAD.unpack(head)
            if magic != _MAGIC:
                raise JournalError(f"{journal} is damaged at {at}: no record begins there")
            end = at + _HEAD.size + path_bytes + other_bytes + data_bytes
            if end > limit:
                return
            body = file.read(path_bytes + other_bytes + data_bytes)
            path = _normal(body[:path_bytes])
            other = body[path_bytes : path_bytes + other_bytes]
            if op == Op.UNKNOWN:
                raise JournalError(f"{other.decode()} of {path!r} cannot be replayed: teach the shim about it")
            yield Record(end, Op(op), inode, offset, path, _normal(other), body[path_bytes + other_bytes :])
            at = end


def _normal(path: bytes) -> str:
    text = path.decode().removesuffix(" (deleted)")
    return os.path.normpath(text).strip("/") if text.strip("/") else ""
