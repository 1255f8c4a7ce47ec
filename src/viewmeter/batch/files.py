"""The batch layer's folder: what each hour left to the next, and results on their way to the store.

    carry/<hour>-<n>/   open.parquet, ended.parquet, about.json: of the n-th run of the hour; the largest n counts
    out/<hour>/         a finished result that the store may not have yet: rows, viewers and the next carry

Promised: a folder under its final name is complete and durable; everything else is a leftover and removed at start.
Ended views are found by key without reading a file whole.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from viewmeter import disk
from viewmeter.batch import carry
from viewmeter.batch.hour import Counts, HourResult
from viewmeter.batch.window import place_of

Array = npt.NDArray[Any]

_GROUP_ROWS: Final = 65_536
_UNFINISHED: Final = ".tmp"


@dataclass(frozen=True)
class About:
    """What is known of a run."""

    hour_ms: int
    at_ms: int  # the engine's clock at its beginning; with the hour, its name
    archive_version: int
    seen_commit: int
    handover: str = ""
    counts: Counts = field(default_factory=Counts)
    kept: bool = False  # the hour's rows come from no job: this run made the carry alone
    stages: dict[str, tuple[float, float]] = field(default_factory=dict)  # step of a large run -> wall and CPU seconds


def begin(folder: Path) -> Path:
    """Return the folder in which a result is made that shall lie at `folder`."""
    making = folder.with_name(f"{folder.name}-{os.getpid()}{_UNFINISHED}")
    shutil.rmtree(making, ignore_errors=True)
    making.mkdir(parents=True)
    return making


def put_table(making: Path, name: str, table: pa.Table, piece: int | None = None) -> None:
    """Write the rows of a rollup, or a piece of them: pieces ascend, and have the same columns."""
    path = making / (f"{name}.arrow" if piece is None else f"{name}-{piece:02}.arrow")
    with pa.OSFile(str(path), "wb") as sink, pa.ipc.new_file(sink, table.schema) as writer:
        writer.write_table(table.combine_chunks())


def put_left(making: Path, kept_open: pa.Table, kept_ended: pa.Table) -> None:
    """Write what the hour leaves to the next ones."""
    for name, table in (("open", kept_open), ("ended", kept_ended)):
        pq.write_table(table, making / f"{name}.parquet", row_group_size=_GROUP_ROWS, compression="zstd")


def finish(making: Path, about: About, folder: Path) -> None:
    """Give a result its final name, durably."""
    (making / "about.json").write_text(json.dumps(asdict(about)))
    for file in making.iterdir():
        disk.sync(file)
    disk.sync(making)
    shutil.rmtree(folder, ignore_errors=True)
    making.rename(folder)
    disk.sync(folder.parent)


def put_result(result: HourResult, about: About, folder: Path) -> None:
    """Write a result under its final name, durably."""
    making = begin(folder)
    for name, table in {**result.rows, "viewers": result.viewers}.items():
        put_table(making, name, table)
    put_left(making, result.kept_open, result.kept_ended)
    finish(making, replace(about, handover=result.handover, counts=result.counts), folder)


def rows_of(folder: Path) -> tuple[Mapping[str, pa.Table], pa.Table]:
    """Return the rows by rollup and the viewers of a finished result, mapped into memory."""
    found: dict[str, list[pa.Table]] = {}
    for file in sorted(folder.glob("*.arrow")):
        table = pa.ipc.open_file(pa.memory_map(str(file))).read_all()
        found.setdefault(file.stem.partition("-")[0], []).append(table)
    # Each piece is in as few bytes as it takes.
    tables = {name: pa.concat_tables(pieces, promote_options="permissive") for name, pieces in found.items()}
    viewers = tables.pop("viewers")
    return tables, viewers


def about_of(folder: Path) -> About:
    """Return what is known of the run that made this folder."""
    said = json.loads((folder / "about.json").read_text())
    return About(**{**said, "counts": Counts(**said["counts"])})


class Carries:
    """The folder of all carries. For one writer; readers get paths."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.out = root / "out"
        self._folder = root / "carry"
        for folder in (self._folder, self.out):
            folder.mkdir(parents=True, exist_ok=True)
        self._known: dict[int, tuple[Path, About]] = {}

    def settle(self) -> None:
        """Remove leftovers, and learn what is there."""
        for folder in (*self._folder.iterdir(), *self.out.iterdir()):
            if folder.name.endswith(_UNFINISHED):
                shutil.rmtree(folder, ignore_errors=True)
        self._known = {}
        for folder in sorted(self._folder.iterdir(), key=_number):
            about = about_of(folder)
            older = self._known.get(about.hour_ms)
            if older is not None:
                shutil.rmtree(older[0], ignore_errors=True)
            self._known[about.hour_ms] = (folder, about)

    def finished(self) -> list[Path]:
        """Return results that may not be in the store yet."""
        return sorted(self.out.iterdir())

    def hours(self) -> Mapping[int, About]:
        """Return the hours that have a carry."""
        return {hour: about for hour, (_, about) in self._known.items()}

    def path(self, hour_ms: int) -> Path | None:
        """Return the folder of an hour's carry."""
        found = self._known.get(hour_ms)
        return found[0] if found else None

    def ended_before(self, hour_ms: int, since_ms: int) -> list[Path]:
        """Return the files of ended views of the hours in [since, hour), newest first."""
        hours = sorted((h for h in self._known if since_ms <= h < hour_ms), reverse=True)
        return [self._known[h][0] / "ended.parquet" for h in hours if self._known[h][1].counts.ended_views]

    def install(self, result: Path, *, kept: bool = False) -> None:
        """Make a result's carry that of its hour; the rest of the result is dropped."""
        about = replace(about_of(result), kept=kept)
        older = self._known.get(about.hour_ms)
        folder = self._folder / f"{about.hour_ms}-{_number(older[0])[1] + 1 if older else 0}"
        for file in result.glob("*.arrow"):
            file.unlink()
        if kept:
            (result / "about.json").write_text(json.dumps(asdict(about)))
            disk.sync(result / "about.json")
        result.rename(folder)
        disk.sync(self._folder)
        self._known[about.hour_ms] = (folder, about)
        if older:
            shutil.rmtree(older[0], ignore_errors=True)

    def drop_before(self, hour_ms: int) -> int:
        """Drop the carries of hours before; return how many."""
        old = [hour for hour in self._known if hour < hour_ms]
        for hour in old:
            shutil.rmtree(self._known.pop(hour)[0], ignore_errors=True)
        return len(old)


def read_open(folder: Path | None, keys: tuple[int, int]) -> pa.Table:
    """Return the open views of a carry with keys in the range; of no carry, none."""
    if folder is None:
        return carry.nothing()
    table = pq.read_table(folder / "open.parquet", memory_map=True).cast(carry.CARRY_SCHEMA)
    key = table["view_key"].to_numpy()
    first, behind = np.searchsorted(key, keys[0]), np.searchsorted(key, keys[1], side="right")
    return table.slice(first, behind - first)


def find_ended(files: list[Path], keys: Array) -> pa.Table:
    """Return the newest row of each key; `files` newest first, `keys` ascending."""
    found = [carry.nothing()]
    left = keys
    for path in files:
        if not len(left):
            break
        with pq.ParquetFile(path) as file:
            for group in range(file.metadata.num_row_groups):
                stats = file.metadata.row_group(group).column(0).statistics
                if stats is not None and (stats.max < left[0] or stats.min > left[-1]):
                    continue
                here = place_of(file.read_row_group(group, ["view_key"])["view_key"].to_numpy(), left)
                if (here >= 0).any():
                    rows = file.read_row_group(group).take(pa.array(here[here >= 0]))
                    found.append(rows.cast(carry.CARRY_SCHEMA))
                    left = left[here < 0]
                    if not len(left):
                        break
    return pa.concat_tables(found)


def _number(folder: Path) -> tuple[int, int]:
    hour, _, number = folder.name.rpartition("-")
    return int(hour), int(number)
