"""Views as they are at their end: what percentiles, per-view ratios and content metrics are made of.

In: how the rule went through a batch (`interval.Trace`), or states of views that fell silent. Out: one row a view that
ended, and the increments of the per-view measures, at the instant of the end with the bitrate and CDN known then.
Promised: pure functions. Not done: content, which needs positions (`content.py`).
Source: DESIGN 3 "The end of a view", "Per-view metrics".
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any

import numpy as np
import numpy.typing as npt

from viewmeter.model import segments as seg
from viewmeter.model.increments import Builder, Increments
from viewmeter.model.interval import Trace
from viewmeter.model.views import SILENCE_MS, ViewStates

Array = npt.NDArray[Any]


@dataclass(frozen=True)
class Ends:
    """Columns, one row a view that ended. `view` is its row in the states given to the rule; times in ms."""

    view: Array
    instant: Array
    bitrate_kbps: Array
    cdn: Array
    played: Array  # a proof of playing by then
    blind: Array
    played_ms: Array
    rebuffered_ms: Array
    duration_ms: Array  # last known; 0 = live, -1 = never told

    def __len__(self) -> int:
        return len(self.view)

    @property
    def measured(self) -> Array:
        """Whose time is known: it played, and its player tells its state."""
        known: Array = self.played & ~self.blind
        return known

    def at(self, views: Array) -> Ends:
        """Return the same, its views named by `views[view]`."""
        columns = {f.name: getattr(self, f.name) for f in fields(self)}
        return Ends(**{**columns, "view": views[self.view]})

    @staticmethod
    def joined(parts: list[Ends]) -> Ends:
        """Put ends over the same states end to end."""
        return Ends(**{f.name: np.concatenate([getattr(p, f.name) for p in parts]) for f in fields(Ends)})


def rebuffered_so_far(trace: Trace, before_ms: Array) -> Array:
    """Return the rebuffering time up to each row; `before_ms`: what each view brought along."""
    amounts = trace.rebuffered.copy()
    amounts[trace.rows.starts] = before_ms
    return seg.running_sum(amounts, trace.rows.starts, trace.rows.segment)


def of_trace(trace: Trace, rebuffered_ms: Array) -> Ends:
    """Return the views that the batch ended; `rebuffered_ms` is what `rebuffered_so_far` returned."""
    end, state = trace.ends, trace.state
    upto = end.upto
    return Ends(
        end.view,
        end.instant,
        state.bitrate[upto].astype(np.int32),
        state.cdn[upto],
        end.played,
        trace.blind[end.view],
        trace.played_total[upto],
        rebuffered_ms[upto],
        state.duration[upto],
    )


def of_silence(states: ViewStates, rebuffered_ms: Array) -> Ends:
    """Return these views (whose end has not come) as ended by silence: at their last instant + 5 minutes."""
    return Ends(
        np.arange(len(states)),
        states.instant + SILENCE_MS,
        states.bitrate_kbps,
        states.cdn,
        states.played,
        states.blind,
        states.played_ms,
        rebuffered_ms,
        states.duration_ms,
    )


def count(ends: Ends, content_watched_ms: Array) -> Increments:
    """Return the per-view measures as increments; `content_watched_ms`: distinct content of each end's view."""
    out: Builder = Increments.builder(ends.view, ends.instant)
    out.of_interval(ends.bitrate_kbps, ends.cdn)
    everyone = np.arange(len(ends))
    out.add("ended_views", everyone, 1)
    measured = everyone[ends.measured]
    out.add("measured_views", measured, 1)
    watched_ms = ends.played_ms + ends.rebuffered_ms
    watched = everyone[ends.measured & (watched_ms > 0)]
    out.add("watched_views", watched, 1)
    ratio = np.rint(ends.rebuffered_ms[watched] / watched_ms[watched] * 1e9).astype(np.int64)
    out.add("view_rebuffer_ratio_e9", watched, ratio)
    content = everyone[has_content(ends)]
    out.add("content_views", content, 1)
    out.add("content_watched_ms", content, content_watched_ms[content])
    out.add("content_ms", content, ends.duration_ms[content])
    return out.build()


def has_content(ends: Ends) -> Array:
    """Return which ended views are of content of known length and measured: those that content metrics are over."""
    some: Array = ends.measured & (ends.duration_ms > 0)
    return some
