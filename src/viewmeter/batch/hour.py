"""One hour of all tenants, as a pure computation: raw events and carried views in, rows of every rollup out.

In: parts of the hour (cut by `view_key`; `part.compute`). Out: `HourResult`. Promised: exactly what the oracle says of
the same events, however the history is cut into hours and an hour into parts; the same input gives the same rows in the
same order. Not done: files and the store (`embedded.py`). Source: DESIGN 3 and 4, decision 0086.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from viewmeter.batch import carry, present, sums
from viewmeter.batch.codes import Coded
from viewmeter.batch.part import Part
from viewmeter.model import segments as seg

Array = npt.NDArray[Any]

VIEWER_KEYS = ("tenant_id", "channel_id", "video_id", "is_bot")


@dataclass(frozen=True)
class Counts:
    """What an hour's run read and found."""

    events: int = 0  # distinct, owned by the hour
    duplicates: int = 0
    late: int = 0
    open_views: int = 0  # left to the next hour
    ended_views: int = 0  # left as ended
    fills_received_at: int = -1  # of the newest event that may belong into a hole that the hour before left; -1 = none


@dataclass(frozen=True)
class HourResult:
    """What an hour amounts to."""

    rows: Mapping[str, pa.Table]  # by rollup, as the store takes them
    viewers: pa.Table  # distinct (tenant, channel, video, is_bot, viewer_hash) of plays
    kept_open: pa.Table  # carry to the next hour
    kept_ended: pa.Table  # views that ended: looked up when they show up again
    handover: str  # changes when the next hour has to run again
    counts: Counts


@dataclass(frozen=True)
class Present:
    """Who was there and who played, by group of `video`."""

    runs: present.Runs
    plays: tuple[Array, Array]  # group, viewer hash
    keys: dict[str, Coded]  # of the groups


@dataclass(frozen=True)
class Left:
    """What a part leaves to the next hour, and what was counted."""

    kept_open: pa.Table
    kept_ended: pa.Table
    pushed: int
    counts: Counts


@dataclass(frozen=True)
class Digested:
    """A part when its events are no longer needed."""

    rows: dict[str, sums.Rows]
    present: Present
    left: Left


def digest(hour_ms: int, part: Part) -> Digested:
    """Sum a part up; its events and views can be dropped then."""
    groups = sums.Groups(part)
    video, keys = groups.of("video")
    viewer = part.views.viewer
    inc = part.increments
    rows, _ = inc.amounts.get("plays", (np.zeros(0, np.int64), None))
    players = inc.view[rows]
    counts = Counts(
        part.events, part.duplicates, part.late, part.kept_open.num_rows, part.kept_ended.num_rows,
        part.fills_received_at,
    )  # fmt: skip
    return Digested(
        sums.rows_of(hour_ms, part, groups),
        Present(present.Runs.of(hour_ms, part.presence, video, viewer), (video[players], viewer[players]), keys),
        Left(part.kept_open, part.kept_ended, part.pushed, counts),
    )


def finish(hour_ms: int, parts: Iterable[Digested]) -> HourResult:
    """Put the parts of an hour together, in ascending order of their keys."""
    done = list(parts)
    rows: dict[str, pa.Table] = {}
    for name in (*sums.BY_VIEW, "delivery", "retention"):
        found = [part.rows[name] for part in done if name in part.rows]
        rows |= {of: whole.table() for of, whole in put_together(name, found).items()}
    among, viewers = people(hour_ms, [part.present for part in done])
    kept_open, kept_ended, handover, counts = leave([part.left for part in done])
    return HourResult(rows | among, viewers, kept_open, kept_ended, handover, counts)


def put_together(name: str, parts: list[sums.Rows]) -> dict[str, sums.Rows]:
    """Return the rows of one rollup of all parts, and of those whose rows are sums of its."""
    if not parts:
        return {}
    whole = sums.together(parts)
    return {name: whole, **sums.parents(name, whole)}


def people(hour_ms: int, parts: list[Present]) -> tuple[dict[str, pa.Table], pa.Table]:
    """Return the rows of `concurrency` and `peaks`, and the distinct viewers of plays."""
    keys, numbers = sums.one_numbering([part.keys for part in parts])
    offsets = np.cumsum([0, *(len(part.keys["video_id"].codes) for part in parts)])
    renumber = [numbers[a:b] for a, b in pairwise(offsets)]
    samples = present.count(present.Runs.joined([part.runs for part in parts], renumber), len(keys["video_id"].codes))
    rows = {}
    if len(samples.group):
        rows["concurrency"] = present.concurrency_rows(hour_ms, samples, keys)
        rows["peaks"] = present.peak_rows(hour_ms, samples, keys)
    return rows, _viewers(parts, renumber, keys)


def _viewers(parts: list[Present], renumber: list[Array], keys: dict[str, Coded]) -> pa.Table:
    group = np.concatenate([new[part.plays[0]] for part, new in zip(parts, renumber, strict=True)])
    viewer = np.concatenate([part.plays[1] for part in parts])
    order = np.lexsort((viewer, group))
    group, viewer = group[order], viewer[order]
    kept = seg.opens(group) | seg.opens(viewer)
    group, viewer = group[kept], viewer[kept]
    words = {name: keys[name].take(group).arrow() for name in VIEWER_KEYS}
    return pa.table({**words, "viewer_hash": viewer})


def leave(parts: list[Left]) -> tuple[pa.Table, pa.Table, str, Counts]:
    """Return the open and the ended views, what the next hour depends on, and the counts of all parts."""
    kept_open = pa.concat_tables([part.kept_open for part in parts]).unify_dictionaries()
    kept_ended = pa.concat_tables([part.kept_ended for part in parts]).unify_dictionaries()
    counts = _counts([part.counts for part in parts])
    return kept_open, kept_ended, _handover(sum(part.pushed for part in parts), kept_open, kept_ended), counts


def _counts(counts: list[Counts]) -> Counts:
    return Counts(
        events=sum(c.events for c in counts),
        duplicates=sum(c.duplicates for c in counts),
        late=sum(c.late for c in counts),
        open_views=sum(c.open_views for c in counts),
        ended_views=sum(c.ended_views for c in counts),
        fills_received_at=max(c.fills_received_at for c in counts),
    )


def _handover(pushed: int, kept_open: pa.Table, kept_ended: pa.Table) -> str:
    """Return what the next hour depends on: the views, and the events of this hour that it owns."""
    found = hashlib.blake2b(digest_size=16)
    found.update(carry.digest(kept_open).encode())
    found.update(carry.digest(kept_ended).encode())
    found.update(str(pushed & ((1 << 64) - 1)).encode())
    return found.hexdigest()
