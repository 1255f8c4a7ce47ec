"""One part of an hour: the events of some views through the interval rule, and what comes out.

In: raw events, the views that the hour before left open, a way to look up ended ones. Out: increments, presence, ends,
content and the views that this hour leaves behind. A pure function but for the look-up. Parts are cut by `view_key`, so
that an hour of any size fits in memory; nothing of one part depends on another.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from viewmeter.batch.carry import CARRY_SCHEMA, DIMENSIONS, Views, put_contents, take_contents
from viewmeter.batch.codes import Coded
from viewmeter.batch.window import Split, Window, place_of
from viewmeter.model import content, ends, interval, silence
from viewmeter.model import segments as seg
from viewmeter.model.content import Runs
from viewmeter.model.ends import Ends
from viewmeter.model.events import UNKNOWN
from viewmeter.model.increments import Increments, Presence
from viewmeter.model.views import INTERVAL_CAP_MS, NEVER, SILENCE_MS

Array = npt.NDArray[Any]
FindEnded = Callable[[Array], pa.Table]
"""Return the newest carry row of each of these keys that an earlier hour left as ended."""

FIRST_KEY: Final = -(1 << 63)


@dataclass(frozen=True)
class Part:
    """What a part amounts to. `view` columns are rows of `views`."""

    views: Views
    cdns: pa.Array  # words of the cdn codes
    increments: Increments
    presence: Presence
    ended: Ends
    content: Runs  # of ended views with content, clipped to it
    content_duration: Array  # by view
    kept_open: pa.Table
    kept_ended: pa.Table
    events: int
    duplicates: int
    late: int
    pushed: int
    fills_received_at: int

    @property
    def cdn_words(self) -> pa.Array:
        """The words of the cdn codes plus 1: unknown comes first."""
        return pa.concat_arrays([pa.array([UNKNOWN]), self.cdns.cast(pa.string())])

    def watched(self) -> tuple[Array, Array]:
        """Return (rows of the increments, ms): how long each measured view that ended had played.

        Measured views are counted once, from the ends: their rows come in the order of the ends.
        """
        rows, _ = self.increments.amounts.get("measured_views", (np.zeros(0, np.int64), None))
        return rows, self.ended.played_ms[self.ended.measured].astype(np.float64)


def compute(
    hour_ms: int, events: pa.Table, carried: pa.Table, find_ended: FindEnded, *, until_ms: int | None = None
) -> Part:
    """Run one part. `events`: `window.COLUMNS` of the hour's window; `carried`: open views, ascending by key.

    `until_ms`: up to when time passed, for an hour that is not over: views that fall silent later have not ended.
    """
    window = Window(hour_ms, events)
    returning = window.returning(carried["view_key"].to_numpy())
    found = find_ended(returning) if len(returning) else carried.slice(0, 0)
    if found.num_rows:
        carried = pa.concat_tables([carried, found]).unify_dictionaries()
        carried = carried.take(pc.sort_indices(carried["view_key"]))
    cdns, of_carried, of_events = _cdns(carried, events)
    views = Views.of(carried, of_carried)
    split = window.split(views)
    views = views.merged(_new_views(window, split, views.keys))
    run = _Run(window, split, views, of_events)
    run.apply()
    end_ms = window.end_ms if until_ms is None else min(window.end_ms, until_ms)
    run.pass_time(end_ms)
    return run.part(cdns, end_ms)


def key_ranges(parts: int) -> Iterator[tuple[int, int]]:
    """Yield ranges of view keys, both ends included, that cover all of them; keys are spread evenly."""
    edges = [-(1 << 63) + ((1 << 64) * i) // parts for i in range(parts + 1)]
    return ((low, high - 1) for low, high in pairwise(edges))


def _cdns(carried: pa.Table, events: pa.Table) -> tuple[pa.Array, Array, Array]:
    """Return the words without `unknown`, and the codes (-1 = unknown) of carried views and of events."""
    coded = Coded.of(pa.chunked_array([*carried["state_cdn"].chunks, *events["cdn"].chunks], carried["state_cdn"].type))
    words = coded.words.to_pylist()
    known = [i for i, word in enumerate(words) if word != UNKNOWN]
    code = np.full(len(words) + 1, -1, np.int32)
    code[known] = np.arange(len(known))
    codes = code[coded.codes]
    names = coded.words.take(pa.array(known, pa.int64())) if len(words) else pa.array([], pa.string())
    return names, codes[: carried.num_rows], codes[carried.num_rows :]


def _new_views(window: Window, split: Split, known: Array) -> Views:
    """Return the views that the hour meets first, with the dimensions of their first event.

    A view may be here by a repeated event alone, whose first copy is another hour's: it has no state then.
    """
    heads = seg.opens(split.key)
    own = split.key[heads]
    repeated = np.setdiff1d(window.columns["view_key"][split.again], own)
    keys = np.concatenate([own, repeated])
    rows = np.concatenate([split.rows[heads], window.rows[np.searchsorted(window.key, repeated)]])
    new = np.flatnonzero(place_of(known, keys) < 0)
    new = new[np.argsort(keys[new])]
    rows = rows[new]
    dimensions = window.table.select(DIMENSIONS).unify_dictionaries().take(pa.array(rows))
    dimensions = dimensions.cast(pa.schema([CARRY_SCHEMA.field(name) for name in DIMENSIONS]))
    return Views.new(keys[new], window.columns["viewer_hash"][rows], dimensions)


class _Run:
    """The steps of one part."""

    def __init__(self, window: Window, split: Split, views: Views, cdn: Array) -> None:
        self.window, self.split, self.views, self.cdn = window, split, views, cdn
        self.parts: list[Increments] = []
        self.presence: list[Presence] = []
        nobody = np.zeros(0, np.int64)
        self.ended = [ends.of_silence(views.states.take(nobody), nobody)]
        self.changed = np.zeros(len(views), bool)

    def apply(self) -> None:
        """Send the hour's events through the rule; follow content and ends."""
        split, views, window = self.split, self.views, self.window
        if len(split.rows):
            opens = seg.opens(split.key)
            touched, view = place_of(views.keys, split.key[opens]), np.cumsum(opens) - 1
            events = {name: window.columns[name][split.rows] for name in interval.RULE_COLUMNS if name != "cdn"}
            events["cdn"] = self.cdn[split.rows]
            before = views.states.take(touched)
            outcome = interval.apply(view, events, before)
            trace = outcome.trace
            so_far = ends.rebuffered_so_far(trace, views.rebuffered_ms[touched])
            position, rate = (window.columns[name][split.rows] for name in ("position_ms", "playback_rate"))
            old = take_contents(views.contents, touched)
            put_contents(views.contents, touched, content.follow(trace, position, rate, old, ~before.ended))
            views.states.put(touched, outcome.states)
            views.rebuffered_ms[touched] = so_far[trace.rows.ends]
            views.events[touched] += np.bincount(view, minlength=len(touched))
            self.ended.append(ends.of_trace(trace, so_far).at(touched))
            inc = outcome.increments
            self.parts.append(Increments(touched[inc.view], inc.instant, inc.bitrate_kbps, inc.cdn, inc.amounts))
            runs = outcome.presence
            self.presence.append(Presence(touched[runs.view], runs.first, runs.count, runs.sign))
            self.changed[touched] = True
            self._count_late(touched[view])
        self._count_duplicates()

    def _count_late(self, view: Array) -> None:
        late = self.split.rows[self.split.late]
        out = Increments.builder(view[self.split.late], self.window.columns["ts"][late])
        # An instant inside the hour may have an earlier `ts`: what is late counts in the hour that owns it.
        out.of_interval(np.zeros(len(late), np.int32), self.cdn[late])
        out.add("late_events", np.arange(len(late)), 1)
        found = out.build()
        found.instant[:] = np.maximum(found.instant, self.window.hour_ms)
        self.parts.append(found)

    def _count_duplicates(self) -> None:
        """Count repeated events at their own `ts`."""
        rows = self.split.again
        view = place_of(self.views.keys, self.window.columns["view_key"][rows])
        out = Increments.builder(view, self.window.columns["ts"][rows])
        out.of_interval(np.zeros(len(rows), np.int32), self.cdn[rows])
        out.add("duplicate_events", np.arange(len(rows)), 1)
        self.parts.append(out.build())
        self.duplicates = len(rows)

    def pass_time(self, end_ms: int) -> None:
        """End what fell silent inside the hour, and claim presence up to its end."""
        states = self.views.states
        quiet = np.flatnonzero(states.seen & ~states.ended & (states.instant + SILENCE_MS < end_ms))
        if len(quiet):
            some = states.take(quiet)
            increments, fresh = silence.end(some)
            self.ended.append(ends.of_silence(some, self.views.rebuffered_ms[quiet]).at(quiet))
            states.put(quiet, fresh)
            inc = increments
            self.parts.append(Increments(quiet[inc.view], inc.instant, inc.bitrate_kbps, inc.cdn, inc.amounts))
            self.changed[quiet] = True
        presence, rows, until = silence.presence(states, end_ms)
        states.present_until[rows] = until
        self.presence.append(presence)

    def part(self, cdns: pa.Array, end_ms: int) -> Part:
        """Return what came out."""
        views = self.views
        ended = Ends.joined(self.ended)
        has = ends.has_content(ended)
        duration = np.zeros(len(views), np.int64)
        duration[ended.view[has]] = ended.duration_ms[has]
        runs = content.clipped(views.contents.runs, duration)
        watched = content.distinct_ms(runs, len(views))
        self.parts.append(ends.count(ended, watched[ended.view]))
        states = views.states
        over = states.ended & ((states.last_active == NEVER) | (states.last_active + INTERVAL_CAP_MS <= end_ms))
        open_rows, ended_rows = np.flatnonzero(~over & states.seen), np.flatnonzero(over & self.changed)
        return Part(
            views=views,
            cdns=cdns,
            increments=Increments.joined(self.parts),
            presence=Presence.joined(*self.presence),
            ended=ended,
            content=runs,
            content_duration=duration,
            kept_open=views.table(open_rows, cdns, ~states.ended[open_rows]),
            kept_ended=views.table(ended_rows, cdns, np.zeros(len(ended_rows), bool)),
            events=len(self.split.rows),
            duplicates=self.duplicates,
            late=int(self.split.late.sum()),
            pushed=self.split.pushed,
            fills_received_at=self.split.fills_received_at,
        )
