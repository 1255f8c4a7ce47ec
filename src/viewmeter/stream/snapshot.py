"""The core's state on disk: written whole, read back at start. Arrow files in a folder that appears whole.

In: a core and the commit it stands at. Out: folders `snapshot-<commit number>`. Promised: a snapshot that can be seen
is complete and durable; the one before it is kept until then. Not done: increments; 500 K views are 90 MB and 0.4 s.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
import pyarrow as pa

from viewmeter import disk
from viewmeter.model.views import ViewStates
from viewmeter.stream.core import Core
from viewmeter.stream.groups import PARENTS, Groups
from viewmeter.stream.viewers import Viewers

VERSION: Final = 1
_PREFIX: Final = "snapshot-"


@dataclass(frozen=True)
class Snapshot:
    """A core as it was after a commit."""

    core: Core
    number: int
    positions: Mapping[int, int]


def save(core: Core, number: int, positions: Mapping[int, int], folder: Path) -> None:
    """Write the core; replaces every older snapshot once it is durable."""
    folder.mkdir(parents=True, exist_ok=True)
    path, making = folder / f"{_PREFIX}{number}", folder / "making"
    shutil.rmtree(making, ignore_errors=True)
    making.mkdir()
    slots = core.remembered()
    views = {f"state_{name}": column[slots] for name, column in core.states.columns()}
    views |= {f"group_{name}": column[slots] for name, column in core.group.items()}
    views |= {"key": core.keys[slots], "viewer": core.viewer[slots], "pair": core.pair[slots]}
    _write(making / "views.arrow", pa.table(views))
    _write(making / "viewers.arrow", pa.table(core.viewers.columns()))
    _write(making / "waiting.arrow", core.waiting)
    _write(making / "holes.arrow", _holes_table(core, slots))
    for name, groups in core.groups.items():
        _write(making / f"groups-{name}.arrow", groups.table())
    known = len(core.groups["video"])
    _write(making / "parents.arrow", pa.table({name: core.parents[name][:known] for name in PARENTS}))
    about = {"version": VERSION, "number": number, "minute": core.minute, "cdns": core.cdns}
    about["positions"] = {str(partition): offset for partition, offset in positions.items()}
    (making / "about.json").write_text(json.dumps(about))
    for file in making.iterdir():
        disk.sync(file)
    disk.sync(making)
    shutil.rmtree(path, ignore_errors=True)
    making.rename(path)
    disk.sync(folder)
    for old in folder.glob(f"{_PREFIX}*"):
        if old != path:
            shutil.rmtree(old, ignore_errors=True)


def load(folder: Path) -> Snapshot | None:
    """Return the newest snapshot, or None where there is none. Raises ValueError on one of another version."""
    found = sorted(folder.glob(f"{_PREFIX}*"), key=lambda p: int(p.name.removeprefix(_PREFIX)))
    if not found:
        return None
    path = found[-1]
    about = json.loads((path / "about.json").read_text())
    if about["version"] != VERSION:
        raise ValueError(
            f"{path} was written as version {about['version']}; this program reads version {VERSION}. "
            "Start the program that wrote it once more and stop it cleanly, or restore a backup."
        )
    core = Core()
    views = _read(path / "views.arrow")
    count = views.num_rows
    core.states = ViewStates(
        {name: views[f"state_{name}"].to_numpy().copy() for name, _ in ViewStates.new(0).columns()}
    )
    core.keys, core.viewer, core.pair = (views[name].to_numpy().copy() for name in ("key", "viewer", "pair"))
    core.group = {name: views[f"group_{name}"].to_numpy().copy() for name in core.group}
    core.groups = {name: Groups.restored(_read(path / f"groups-{name}.arrow")) for name in core.groups}
    parents = _read(path / "parents.arrow")
    core.parents = {name: parents[name].to_numpy().copy() for name in PARENTS}
    core.viewers = Viewers.restored({name: c.to_numpy().copy() for name, c in _columns(_read(path / "viewers.arrow"))})
    holes = _read(path / "holes.arrow")
    core.holes.add(*(holes[name].to_numpy() for name in ("view", "first", "last")))
    core.waiting = _read(path / "waiting.arrow")
    core.minute = about["minute"]
    core.restore_lookups(about["cdns"], np.arange(count))
    return Snapshot(core, about["number"], {int(p): offset for p, offset in about["positions"].items()})


def forget_viewer(folder: Path, tenant_id: str, viewer_hash: int) -> int:
    """Give the views of a viewer in the saved state to somebody who does not exist; return how many they were.

    They go on being counted right: a view that is going on stays one view of one viewer. Events that wait go.
    """
    found = load(folder)
    if found is None:
        return 0
    for leftover in folder.iterdir():  # of a process that died while it saved
        if leftover.name != f"{_PREFIX}{found.number}":
            shutil.rmtree(leftover, ignore_errors=True)
    core = found.core
    tenants = core.groups["video"].table()["tenant_id"].to_pylist()
    mine = core.viewer == viewer_hash
    mine &= np.array([*(tenant == tenant_id for tenant in tenants), False])[core.group["video"]]
    waiting = core.waiting
    theirs = np.asarray(waiting["viewer_hash"]) == viewer_hash
    theirs &= np.array([tenant == tenant_id for tenant in waiting["tenant_id"].to_pylist()], bool)
    if not mine.any() and not theirs.any():
        return 0
    nobody = int.from_bytes(os.urandom(8), "little", signed=True)
    core.viewer[mine] = nobody
    pairs = np.unique(core.pair[mine])
    core.viewers.rename(pairs, np.frombuffer(os.urandom(8 * len(pairs)), np.int64))
    core.waiting = waiting.filter(pa.array(~theirs))
    save(core, found.number, found.positions, folder)
    return int(mine.sum())


def _holes_table(core: Core, slots: np.ndarray) -> pa.Table:
    place = {slot: at for at, slot in enumerate(slots.tolist())} if core.holes.of else {}
    rows = [(place[v], a, b) for v, holes in core.holes.of.items() if v in place for a, b in holes]
    return pa.table(
        {name: np.array([row[at] for row in rows], np.int64) for at, name in enumerate(("view", "first", "last"))}
    )


def _columns(table: pa.Table) -> list[tuple[str, pa.ChunkedArray]]:
    return list(zip(table.column_names, table.columns, strict=True))


def _write(path: Path, table: pa.Table) -> None:
    with pa.OSFile(str(path), "wb") as sink, pa.ipc.new_file(sink, table.schema) as writer:
        writer.write_table(table.unify_dictionaries())


def _read(path: Path) -> pa.Table:
    with pa.OSFile(str(path), "rb") as source:
        return pa.ipc.open_file(source).read_all()
