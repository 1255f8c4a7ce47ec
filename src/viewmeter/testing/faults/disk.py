"""A disk that loses what was not synced: from a journal, the folder as it may be after a power cut.

In: the folder as it was when watching began, the journal, a moment in it, dice. Out: a folder. The model:

- A file has contents that are safe (all writes that had returned before its last good sync) and operations since.
  After a cut each of these may be there, or not, or in part: which is what a `Cut` decides.
- A name (made, renamed, removed) is safe once its folder was synced; syncing the file is not enough, though many file
  systems do so. Names that are not safe are kept up to some point in their order, per folder.
- After a failed sync the writes before it are lost for ever, unless they are written again.
- Nothing that was synced is lost. What a reader saw and what the disk holds are two things.

Not modelled: a sector that is half old and half new (disks write 512 bytes whole), and disks that lie.
"""

from __future__ import annotations

import random
import struct
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, Literal

from viewmeter.testing.faults.journal import JournalError, Op, Record, records

Cut = Literal["synced", "all", "prefix", "sectors"]
"""Of what was not synced: nothing; everything; all up to some moment, the last write torn; any sectors in any order."""

CUTS: Final[tuple[Cut, ...]] = ("synced", "all", "prefix", "sectors")
SECTOR_BYTES: Final = 512
_MODE: Final = 0o600


@dataclass
class _File:
    safe: bytearray = field(default_factory=bytearray)
    pending: list[Record] = field(default_factory=list)


_Names = Mapping[str, "_File | _Folder | None"]
"""Names and what is there now; None: nothing any more."""


@dataclass
class _Folder:
    safe: dict[str, _File | _Folder] = field(default_factory=dict)
    now: dict[str, _File | _Folder] = field(default_factory=dict)
    pending: list[tuple[int, _Names]] = field(default_factory=list)  # position and change

    def change(self, position: int, names: _Names) -> None:
        """Change names together: a rename has both or neither."""
        _change(self.now, names)
        self.pending.append((position, names))


class Disk:
    """Follows one journal; `cut()` may be called at any moment, as often as wanted, with rising positions."""

    def __init__(self, journal: Path, before: Before | None = None) -> None:
        """`before`: the folder when watching began; None = it was empty."""
        self._records = records(journal)
        self._next: Record | None = None
        self._root = _Folder()
        self._by_inode: dict[int, _File | _Folder] = {}
        if before is not None:
            self._take(self._root, before, "")

    def _take(self, folder: _Folder, before: Before, inside: str) -> None:
        self._by_inode[before.inodes[inside]] = folder
        for entry in (before.copy / inside).iterdir():
            name = f"{inside}/{entry.name}".lstrip("/")
            if entry.is_dir():
                inner = _Folder()
                self._take(inner, before, name)
                folder.safe[entry.name] = inner
            else:
                made = _File(bytearray(entry.read_bytes()))
                self._by_inode[before.inodes[name]] = made
                folder.safe[entry.name] = made
        folder.now = dict(folder.safe)

    def cut(self, position: int, kind: Cut, dice: random.Random, into: Path) -> None:
        """Write the folder as it may be after a power cut at `position` of the journal."""
        self._follow(position)
        into.mkdir(parents=True)
        ends = sorted({entry[0] for node in (self._root, *_nodes(self._root)) for entry in node.pending})
        moment = dice.choice(ends) if ends else 0
        _Loss(kind, dice, moment).write(self._root, into)

    def unsafe_bytes(self, position: int, name: str | None = None) -> int:
        """Return how many bytes were written, not synced, at `position`: of the file `name`, or of all files."""
        self._follow(position)
        nodes = _nodes(self._root) if name is None else [self._root.now.get(name)]
        files = [node for node in nodes if isinstance(node, _File)]
        return sum(len(record.data) for file in files for record in file.pending if record.op is Op.WRITE)

    # Following

    def _follow(self, position: int) -> None:
        while True:
            record = self._next or next(self._records, None)
            if record is None or record.end > position:
                self._next = record
                return
            self._next = None
            self._apply(record)

    def _apply(self, record: Record) -> None:
        match record.op:
            case Op.WRITE | Op.TRUNCATE | Op.PUNCH:
                self._file(record).pending.append(record)
            case Op.SYNC:
                self._sync(self._node(record))
            case Op.SYNC_FAILED:
                self._node(record).pending.clear()
            case Op.CREATE | Op.MKDIR:
                folder, name = self._place(record.path)
                known = folder.now.get(name)
                if (
                    record.op is Op.MKDIR
                    or not isinstance(known, _File)
                    or self._by_inode.get(record.inode) is not known
                ):
                    made: _File | _Folder = _Folder() if record.op is Op.MKDIR else _File()
                    self._by_inode[record.inode] = made
                    folder.change(record.end, {name: made})
            case Op.UNLINK | Op.RMDIR:
                folder, name = self._place(record.path)
                folder.change(record.end, {name: None})
            case Op.LINK:
                (source, old), (target, new) = self._place(record.path), self._place(record.other)
                target.change(record.end, {new: source.now[old]})
            case Op.RENAME:
                (source, old), (target, new) = self._place(record.path), self._place(record.other)
                node = source.now[old]
                if source is target:
                    source.change(record.end, {old: None, new: node})
                else:
                    target.change(record.end, {new: node})
                    source.change(record.end, {old: None})
            case _:
                raise JournalError(f"{record.op.name} is no operation that can be replayed")

    def _node(self, record: Record) -> _File | _Folder:
        if record.path == "" and record.op in (Op.SYNC, Op.SYNC_FAILED):
            return self._root
        try:
            return self._by_inode[record.inode]
        except KeyError:
            raise JournalError(f"{record.op.name} of an unknown file (inode {record.inode}, {record.path!r})") from None

    def _file(self, record: Record) -> _File:
        node = self._node(record)
        if not isinstance(node, _File):
            raise JournalError(f"{record.op.name} into a folder (inode {record.inode})")
        return node

    def _place(self, path: str) -> tuple[_Folder, str]:
        *parents, name = path.split("/")
        folder = self._root
        for parent in parents:
            inner = folder.now.get(parent)
            if not isinstance(inner, _Folder):
                raise JournalError(f"{path!r} lies in a folder that nobody made")
            folder = inner
        return folder, name

    @staticmethod
    def _sync(node: _File | _Folder) -> None:
        if isinstance(node, _File):
            for record in node.pending:
                _write(node.safe, record)
        else:
            node.safe = dict(node.now)
        node.pending.clear()


@dataclass(frozen=True)
class _Loss:
    """What one cut takes away."""

    kind: Cut
    dice: random.Random
    moment: int  # of `prefix`: the operation that ends here is torn, what was done behind it is lost

    def write(self, folder: _Folder, into: Path) -> None:
        for name, node in sorted(self._names(folder).items()):
            if isinstance(node, _Folder):
                (into / name).mkdir()
                self.write(node, into / name)
            else:
                path = into / name
                path.write_bytes(self._contents(node))
                path.chmod(_MODE)

    def _names(self, folder: _Folder) -> dict[str, _File | _Folder]:
        names = dict(folder.safe)
        for position, change in folder.pending[: self._kept(folder)]:
            if self.kind == "prefix" and position > self.moment:
                break
            _change(names, change)
        return names

    def _kept(self, folder: _Folder) -> int:
        if self.kind == "synced":
            return 0
        return self.dice.randrange(len(folder.pending) + 1) if self.kind == "sectors" else len(folder.pending)

    def _contents(self, file: _File) -> bytes:
        if self.kind == "synced" or not file.pending:
            return bytes(file.safe)
        contents = bytearray(file.safe)
        if self.kind == "sectors":
            for record in file.pending:
                for part in _sectors(record):
                    if self.dice.random() < 0.5:
                        _write(contents, part)
            return bytes(contents)
        for record in file.pending:
            if self.kind == "prefix" and record.end >= self.moment:
                whole = list(_sectors(record))
                for part in whole[: self.dice.randrange(len(whole) + 1)]:
                    _write(contents, part)
                break
            _write(contents, record)
        return bytes(contents)


def _change(names: dict[str, _File | _Folder], change: _Names) -> None:
    for name, node in change.items():
        if node is None:
            names.pop(name, None)
        else:
            names[name] = node


def _nodes(folder: _Folder) -> Iterator[_File | _Folder]:
    for node in folder.now.values():
        yield node
        if isinstance(node, _Folder):
            yield from _nodes(node)


def _sectors(record: Record) -> Iterator[Record]:
    """Yield a write as the sectors of the disk that it touches; anything else is one."""
    if record.op is not Op.WRITE:
        yield record
        return
    at = 0
    while at < len(record.data):
        bytes_left = SECTOR_BYTES - (record.offset + at) % SECTOR_BYTES
        part = record.data[at : at + bytes_left]
        yield record._replace(offset=record.offset + at, data=part)
        at += len(part)


def _write(contents: bytearray, record: Record) -> None:
    if record.op is Op.TRUNCATE:
        size = record.offset
        if size < len(contents):
            del contents[size:]
        else:
            contents.extend(bytes(size - len(contents)))
        return
    data = record.data
    if record.op is Op.PUNCH:
        (count,) = struct.unpack("<q", data)
        data = bytes(max(0, min(count, len(contents) - record.offset)))
        if not data:
            return
    if record.offset > len(contents):
        contents.extend(bytes(record.offset - len(contents)))
    contents[record.offset : record.offset + len(data)] = data


@dataclass(frozen=True)
class Before:
    """A folder as it was: a copy of its contents, and the inode of each path in the folder itself."""

    copy: Path
    inodes: Mapping[str, int]  # "" is the folder


def before(folder: Path, copy: Path) -> Before:
    """Copy files and folders (nothing else) to `copy`, which is made: what a `Disk` begins with."""
    inodes = {"": folder.stat().st_ino}
    copy.mkdir(parents=True)
    for path in sorted(folder.rglob("*")):
        name = str(path.relative_to(folder))
        if path.is_dir():
            (copy / name).mkdir()
        elif path.is_file():
            (copy / name).write_bytes(path.read_bytes())
        else:
            continue
        inodes[name] = path.stat().st_ino
    return Before(copy, inodes)
