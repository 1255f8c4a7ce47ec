"""Who was present in an hour: 10-second samples by video, and the peaks of each scope.

In: runs of presence of views. Out: rows of `concurrency` and of `peaks`. A viewer with two views of one video counts
once: the runs of a (video, viewer) are united. Counting is by differences (+1 where a run begins, -1 behind it), so a
view costs two numbers however long it is. Promised: exact for any number of tabs.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from viewmeter.batch.codes import Coded, combined
from viewmeter.model import segments as seg
from viewmeter.model.increments import SAMPLE_MS, Presence
from viewmeter.model.time import HOUR_MS

Array = npt.NDArray[Any]

SAMPLES: Final = HOUR_MS // SAMPLE_MS
_BLOCK: Final = 10_000
"""Videos counted at a time: 10,000 × 361 differences are 29 MB."""


@dataclass(frozen=True)
class Runs:
    """Stretches of samples `[begin, end)` of the hour: by group of `video`, and who."""

    group: Array
    viewer: Array
    begin: Array
    end: Array

    @staticmethod
    def of(hour_ms: int, presence: Presence, group: Array, viewer: Array) -> Runs:
        """Put each view's runs end to end where they touch. `group`, `viewer`: of each view."""
        order = seg.order(presence.view, presence.first)
        view = presence.view[order]
        begin = (presence.first[order] - hour_ms) // SAMPLE_MS
        end = begin + presence.count[order]
        if not len(view):
            return Runs(view, view, begin, end)
        opens = seg.opens(view)
        opens[1:] |= begin[1:] > end[:-1]
        at = np.flatnonzero(opens)
        last = np.append(at[1:], len(view)) - 1
        return Runs(group[view[at]], viewer[view[at]], begin[at], end[last])

    @staticmethod
    def joined(parts: list[Runs], groups: list[Array]) -> Runs:
        """Put parts end to end; `groups`: the new number of each part's groups."""
        return Runs(
            np.concatenate([new[part.group] for part, new in zip(parts, groups, strict=True)]),
            np.concatenate([part.viewer for part in parts]),
            np.concatenate([part.begin for part in parts]),
            np.concatenate([part.end for part in parts]),
        )

    def of_viewers(self) -> Runs:
        """Return the runs of (video, viewer), united."""
        if not len(self.group):
            return self
        order = np.lexsort((self.begin, self.viewer, self.group))
        group, viewer, begin, end = (c[order] for c in (self.group, self.viewer, self.begin, self.end))
        opens = seg.opens(group) | seg.opens(viewer)
        pair = np.cumsum(opens) - 1
        reached = seg.running_max(end, pair)
        heads = opens.copy()
        heads[1:] |= begin[1:] > reached[:-1]
        at = np.flatnonzero(heads)
        last = np.append(at[1:], len(group)) - 1
        return Runs(group[at], viewer[at], begin[at], reached[last])


@dataclass(frozen=True)
class Samples:
    """Who is present at each sample of a video at which anybody is; ascending by group, then sample."""

    group: Array
    sample: Array
    viewers: Array
    views: Array


def count(runs: Runs, groups: int) -> Samples:
    """Count the samples of all groups."""
    viewers = runs.of_viewers()
    found = [_block(runs, viewers, start, min(start + _BLOCK, groups)) for start in range(0, groups, _BLOCK)]
    columns = zip(*found, strict=True) if found else ((np.zeros(0, np.int64),) for _ in range(4))
    return Samples(*(np.concatenate(column) for column in columns))


def _block(views: Runs, viewers: Runs, start: int, stop: int) -> tuple[Array, Array, Array, Array]:
    size = stop - start

    def dense(runs: Runs) -> Array:
        inside = (runs.group >= start) & (runs.group < stop)
        at = (runs.group[inside] - start) * (SAMPLES + 1)
        span = size * (SAMPLES + 1)
        steps = np.bincount(at + runs.begin[inside], minlength=span) - np.bincount(
            at + runs.end[inside], minlength=span
        )
        counts: Array = np.cumsum(steps.reshape(size, SAMPLES + 1), axis=1)[:, :SAMPLES]
        return counts

    of_views, of_viewers = dense(views), dense(viewers)
    group, sample = np.nonzero(of_views)
    return group + start, sample, of_viewers[group, sample], of_views[group, sample]


def concurrency_rows(hour_ms: int, samples: Samples, keys: dict[str, Coded]) -> pa.Table:
    """Return the rows of `concurrency`, ascending by time and words."""
    order = np.argsort(samples.sample, kind="stable")
    group = samples.group[order]
    return pa.table(
        {
            "time_ms": hour_ms + samples.sample[order] * SAMPLE_MS,
            **{name: coded.take(group).arrow() for name, coded in keys.items()},
            "concurrent_viewers": samples.viewers[order],
            "concurrent_views": samples.views[order],
        }
    )


_SCOPES: Final = {
    "platform": (),
    "tenant": ("tenant_id",),
    "channel": ("tenant_id", "channel_id"),
    "video": ("tenant_id", "channel_id", "video_id"),
}


def peak_rows(hour_ms: int, samples: Samples, keys: dict[str, Coded]) -> pa.Table:
    """Return the rows of `peaks`: the largest and the last sample of each scope, with bots, without, and bots alone."""
    tables = []
    for scope, names in _SCOPES.items():
        for bots in ("false", "true", "any"):
            kept = np.ones(len(samples.group), bool)
            if bots != "any":
                kept = keys["is_bot"].codes[samples.group] == (bots == "true")
            if kept.any():
                tables.append(_peaks(hour_ms, samples, kept, keys, scope, names, bots))
    return pa.concat_tables(tables) if tables else pa.table({"time_ms": pa.array([], pa.int64())})


def _peaks(
    hour_ms: int, samples: Samples, kept: Array, keys: dict[str, Coded], scope: str, names: tuple[str, ...], bots: str
) -> pa.Table:
    group = samples.group[kept]
    if names:
        first, of = combined([keys[name] for name in names])
        group = of[group]
    else:
        first, group = np.zeros(1, np.int64), np.zeros(len(group), np.int64)
    key = group * SAMPLES + samples.sample[kept]
    at, row_of = np.unique(key, return_inverse=True)
    sums = [np.bincount(row_of, weights=c[kept]).astype(np.int64) for c in (samples.viewers, samples.views)]
    of_row = at // SAMPLES
    starts = np.flatnonzero(seg.opens(of_row))
    last = np.append(starts[1:], len(of_row)) - 1
    is_last = at[last] % SAMPLES == SAMPLES - 1
    groups = of_row[starts]
    words: dict[str, Any] = {
        name: keys[name].take(first[groups]).arrow().cast(pa.string()) if name in names else [""] * len(groups)
        for name in ("tenant_id", "channel_id", "video_id")
    }
    return pa.table(
        {
            "time_ms": np.full(len(groups), hour_ms),
            "tenant_id": pa.array(words["tenant_id"], pa.string()),
            "scope": pa.array([scope] * len(groups)),
            "channel_id": pa.array(words["channel_id"], pa.string()),
            "video_id": pa.array(words["video_id"], pa.string()),
            "bots": pa.array([bots] * len(groups)),
            "peak_viewers": np.maximum.reduceat(sums[0], starts),
            "peak_views": np.maximum.reduceat(sums[1], starts),
            "last_viewers": np.where(is_last, sums[0][last], 0),
            "last_views": np.where(is_last, sums[1][last], 0),
        }
    )
