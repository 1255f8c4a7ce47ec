"""The steps of a large hour's run, from files to files: any process can do any of them.

    cut n       a stretch of time of the archive, cut by views, one file a part
    compute n   a part through the rule and summed up, one file a rollup
    join n      a rollup of all parts, whole or a range of time of it; or who was there; or what is left

In: a plan. Out: files of the result in the folder that is being made. Promised: steps of one name may be done beside
each other and in any order; memory is that of one part, or of what one `join` puts together. Not done: who does which
step (`crew.py`), durability (`files.py`).
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from itertools import pairwise
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from viewmeter.archive.protocol import ArchiveReader
from viewmeter.batch import files, hour, part, present, shuffle, spill
from viewmeter.batch.window import window_of
from viewmeter.model.time import HOUR_MS, MINUTE_MS, Interval

Array = npt.NDArray[Any]

_BY_MINUTE: Final = ("delivery", "audience", "device")
_AT_ONCE: Final = ("cross", "retention")
_PARTS_A_RANGE: Final = 8
_RANGES_MOST: Final = 12


@dataclass(frozen=True)
class Plan:
    """What all processes of a run know of it."""

    hour_ms: int
    opened: str | None  # folder of the carry of the hour before
    ended: list[str]  # files of ended views, newest first
    parts: int
    stretches: int  # of time: what is cut beside each other
    scratch: str
    making: str

    @property
    def ranges(self) -> list[Interval]:
        """The ranges of time in which rows by minute are joined: memory is that of eight parts' rows."""
        count = min(_RANGES_MOST, max(self.stretches, -(-self.parts // _PARTS_A_RANGE)))
        edges = [self.hour_ms + HOUR_MS // MINUTE_MS * n // count * MINUTE_MS for n in range(count + 1)]
        return [Interval(a, b) for a, b in pairwise(edges)]

    @property
    def joins(self) -> list[tuple[str, Interval | None]]:
        """What is joined, the longest first."""
        whole: list[tuple[str, Interval | None]] = [(name, None) for name in ("left", "people", *_AT_ONCE)]
        return [*whole, *((name, span) for name in _BY_MINUTE for span in self.ranges)]


class Steps:
    """Does the steps of a plan."""

    def __init__(self, plan: Plan, reader: ArchiveReader) -> None:
        self._plan, self._reader = plan, reader
        self._scratch, self._making = Path(plan.scratch), Path(plan.making)

    @cached_property
    def _keys(self) -> Sequence[tuple[int, int]]:
        return list(part.key_ranges(self._plan.parts))

    def do(self, step: str, number: int) -> None:
        """Do one step."""
        {"cut": self._cut, "compute": self._compute, "join": self._join}[step](number)

    def _cut(self, number: int) -> None:
        plan = self._plan
        stretch = shuffle.stretches(window_of(plan.hour_ms), plan.stretches)[number]
        shuffle.cut(self._reader, stretch, self._keys, self._scratch, number)

    def _compute(self, number: int) -> None:
        plan = self._plan
        events = shuffle.part(self._scratch, number, plan.stretches)
        carried = files.read_open(Path(plan.opened) if plan.opened else None, self._keys[number])
        ended = [Path(file) for file in plan.ended]
        done = part.compute(plan.hour_ms, events, carried, lambda wanted: files.find_ended(ended, wanted))
        del events
        digested = hour.digest(plan.hour_ms, done)
        del done
        for name, rows in digested.rows.items():
            spill.write_rows(self._path(name, number), rows)
        _write_present(self._path("people", number), digested.present)
        _write_left(self._path("left", number), digested.left)

    def _join(self, number: int) -> None:
        name, span = self._plan.joins[number]
        at = [path for n in range(self._plan.parts) if (path := self._path(name, n)).exists()]
        if name == "left":
            kept_open, kept_ended, handover, counts = hour.leave([_read_left(path) for path in at])
            files.put_left(self._making, kept_open, kept_ended)
            (self._making / "left.json").write_text(json.dumps({"handover": handover, "counts": asdict(counts)}))
        elif name == "people":
            rows, viewers = hour.people(self._plan.hour_ms, [_read_present(path) for path in at])
            for rollup, table in {**rows, "viewers": viewers}.items():
                files.put_table(self._making, rollup, table)
        elif span is None:
            for rollup, whole in hour.put_together(name, [spill.read_rows(path) for path in at]).items():
                files.put_table(self._making, rollup, whole.table())
        else:
            found = [spill.read_rows(path).between(*span) for path in at]
            measures = {name for rows in found for name in rows.summed.sums}  # the pieces have the same columns
            piece = (span.start_ms - self._plan.hour_ms) // MINUTE_MS
            for rollup, whole in hour.put_together(name, [rows for rows in found if len(rows.summed.group)]).items():
                files.put_table(self._making, rollup, whole.table(measures), piece)

    def _path(self, what: str, number: int) -> Path:
        return self._scratch / f"{what}-{number}.spill"


def _write_present(path: Path, there: hour.Present) -> None:
    runs = there.runs
    narrow = {name: getattr(runs, name).astype(np.int32) for name in ("group", "begin", "end")}
    group, viewer = there.plays
    plays = pa.table({"group": group.astype(np.int32), "viewer": viewer})
    spill.write(path, [pa.table({**narrow, "viewer": runs.viewer}), plays, spill.keys_table(there.keys)])


def _read_present(path: Path) -> hour.Present:
    runs, plays, keys = spill.read(path)
    columns = (runs[name].to_numpy() for name in ("group", "viewer", "begin", "end"))
    played = (plays["group"].to_numpy(), plays["viewer"].to_numpy())
    return hour.Present(present.Runs(*columns), played, spill.keys_of(keys))


def _write_left(path: Path, left: hour.Left) -> None:
    said = json.dumps({"pushed": left.pushed, "counts": asdict(left.counts)})
    spill.write(path, [left.kept_open.replace_schema_metadata({"said": said}), left.kept_ended])


def _read_left(path: Path) -> hour.Left:
    kept_open, kept_ended = spill.read(path)
    said = json.loads(kept_open.schema.metadata[b"said"])
    return hour.Left(kept_open.replace_schema_metadata(None), kept_ended, said["pushed"], hour.Counts(**said["counts"]))
