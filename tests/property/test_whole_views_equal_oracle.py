"""Views at their end, and the content they played: the columnar rule agrees with the oracle, however events are cut."""

from __future__ import annotations

from collections import Counter
from typing import Any

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from laws import examples

from viewmeter.model import content, ends, interval, silence
from viewmeter.model.events import view_key
from viewmeter.model.views import ViewStates
from viewmeter.testing import oracle, oracle_views, strategies
from viewmeter.testing.columns import to_table


def batches_of(events: list[dict[str, Any]], cuts: list[int]) -> list[tuple[np.ndarray, dict[str, np.ndarray]]]:
    """Return the distinct events in order, cut by instant: (view numbers, columns) of each batch."""
    keys = sorted(oracle.views(events))
    pieces: list[list[tuple[int, dict[str, Any]]]] = [[] for _ in range(len(cuts) + 1)]
    for number, key in enumerate(keys):
        distinct = oracle.views(events)[key][0]
        for event, moment in zip(distinct, oracle.moments(distinct), strict=True):
            pieces[sum(moment.instant >= cut for cut in cuts)].append((number, dict(event)))
    out = []
    for piece in pieces:
        table = to_table([event for _, event in piece])
        columns = {name: table[name].to_numpy() for name in interval.RULE_COLUMNS if name != "cdn"}
        columns |= {name: table[name].to_numpy() for name in ("position_ms", "playback_rate")}
        columns["cdn"] = np.full(len(piece), -1, np.int32)
        out.append((np.array([number for number, _ in piece], np.int64), columns))
    return out


def whole_views(
    events: list[dict[str, Any]], now_ms: int, cuts: list[int]
) -> tuple[Counter[str], list[int], list[Any]]:
    """Return the per-view sums, the retention steps and (view, played ms at the end), by the columnar rule."""
    count = len(oracle.views(events))
    states, contents = ViewStates.new(count), content.Contents.new(count)
    rebuffered = np.zeros(count, np.int64)
    found: list[ends.Ends] = []
    for view, columns in batches_of(events, cuts):
        if not len(view):
            continue
        touched, dense = np.unique(view, return_inverse=True)
        before = states.take(touched)
        trace = (outcome := interval.apply(dense, columns, before)).trace
        so_far = ends.rebuffered_so_far(trace, rebuffered[touched])
        mine = _some(contents, touched)
        after = content.follow(trace, columns["position_ms"], columns["playback_rate"], mine, ~before.ended)
        _put(contents, touched, after)
        states.put(touched, outcome.states)
        rebuffered[touched] = so_far[trace.rows.ends]
        found.append(ends.of_trace(trace, so_far).at(touched))
    quiet = np.flatnonzero(states.seen & ~states.ended & (states.instant + 300_000 < now_ms))
    found.append(ends.of_silence(states.take(quiet), rebuffered[quiet]).at(quiet))
    states.put(quiet, silence.end(states.take(quiet))[1])
    ended = ends.Ends.joined(found)
    duration = np.zeros(count, np.int64)
    duration[ended.view[ends.has_content(ended)]] = ended.duration_ms[ends.has_content(ended)]
    inside = content.clipped(contents.runs, duration)
    watched = content.distinct_ms(inside, count)
    sums = Counter(
        {name: int(values.sum()) for name, (_, values) in ends.count(ended, watched[ended.view]).amounts.items()}
    )
    _, percent, sign = content.retention_steps(inside, duration)
    steps = np.bincount(percent, weights=sign, minlength=100).astype(int).tolist()
    return sums, steps, sorted(zip(ended.view.tolist(), ended.instant.tolist(), ended.played_ms.tolist(), strict=True))


def _some(contents: content.Contents, views: np.ndarray) -> content.Contents:
    mine = np.isin(contents.runs.view, views)
    runs = contents.runs.where(mine)
    runs = content.Runs(np.searchsorted(views, runs.view), runs.begin, runs.end)
    return content.Contents(contents.position[views], contents.rate[views], contents.broken[views], runs)


def _put(contents: content.Contents, views: np.ndarray, new: content.Contents) -> None:
    contents.position[views], contents.rate[views], contents.broken[views] = new.position, new.rate, new.broken
    rest = contents.runs.where(~np.isin(contents.runs.view, views))
    joined = [
        np.concatenate(pair)
        for pair in zip(
            (rest.view, rest.begin, rest.end), (views[new.runs.view], new.runs.begin, new.runs.end), strict=True
        )
    ]
    order = np.argsort(joined[0], kind="stable")
    contents.runs = content.Runs(*(column[order] for column in joined))


@given(strategies.event_lists(ordered=True), st.data())
@settings(deadline=None, max_examples=examples(400))
def test_views_at_their_end_are_those_of_the_oracle_however_cut(
    events: list[dict[str, Any]], data: st.DataObject
) -> None:
    low, high = min(e["ts"] for e in events), max(e["ts"] for e in events)
    cuts = sorted(data.draw(st.sets(st.integers(low, high), max_size=4)))
    later = high + 3_600_000
    sums, steps, totals = whole_views(events, later, cuts)
    expected = oracle_views.ended_views(events, later)
    assert {n: v for n, v in sums.items() if v} == {n: v for n, v in oracle_views.per_view_sums(expected).items() if v}
    assert steps == oracle_views.retention_steps(expected)
    names = {key: number for number, key in enumerate(sorted(oracle.views(events)))}
    assert totals == sorted((names[v.key], v.instant_ms, v.played_ms) for v in expected)
    assert all(view_key(*v.key) for v in expected)


def film(*events: tuple[int, str, dict[str, Any]], duration_ms: int = 100_000) -> oracle_views.EndedView:
    """Return one view at its end: (second, type, fields)."""
    told = [
        {
            "tenant_id": "t1",
            "view_id": "v",
            "seq": i,
            "type": kind,
            "ts": second * 1_000,
            "received_at": second,
            **fields,
        }
        for i, (second, kind, fields) in enumerate(events)
    ]
    told[0]["duration_ms"] = duration_ms
    (view,) = oracle_views.ended_views(told, 10_000_000)
    return view


def test_a_stretch_watched_twice_is_two_runs_and_counts_once_as_content() -> None:
    view = film(
        (0, "play", {"position_ms": 0}), (20, "seek", {"position_ms": 0}), (20, "play", {}), (40, "exit", {}),
    )  # fmt: skip
    assert view.runs == [(0, 20_000), (0, 20_000)]
    assert view.distinct_content_ms() == 20_000
    assert oracle_views.retention_steps([view])[0] == 2
    assert oracle_views.retention_steps([view])[20] == -2


def test_twice_the_speed_is_twice_the_content() -> None:
    view = film((0, "play", {"position_ms": 10_000, "playback_rate": 2.0}), (30, "exit", {}))
    assert view.runs == [(10_000, 70_000)]


def test_a_told_position_within_two_seconds_goes_on_with_the_run() -> None:
    view = film((0, "play", {"position_ms": 0}), (10, "heartbeat", {"position_ms": 11_900}), (20, "exit", {}))
    assert view.runs == [(0, 21_900)]
