"""A view id that a player uses again: what each layer makes of it (decision 125)."""

from __future__ import annotations

from collections import Counter
from typing import Any

from hours import Hours, facts

from viewmeter.model.time import DAY_MS, HOUR_MS, MINUTE_MS, floor_to
from viewmeter.stream.core import Core
from viewmeter.stream.rows import rollup_rows
from viewmeter.testing.columns import to_table

T0 = floor_to(1_800_000_000_000, DAY_MS)
WATCHED = ((0, 0, "request"), (1, 1_000, "play"), (2, 31_000, "exit"))


def sent(at_ms: int, first_seq: int = 0, **more: Any) -> list[dict[str, Any]]:
    """Return a view of half a minute, under one id whenever it is asked for."""
    view = {"tenant_id": "acme", "channel_id": "c", "video_id": "v", "view_id": "same", "viewer_hash": 7} | more
    return [
        {**view, "seq": first_seq + seq, "type": kind, "ts": at_ms + ms, "received_at": at_ms + ms}
        for seq, ms, kind in WATCHED
    ]


def by_batch(*views: list[dict[str, Any]]) -> dict[str, int]:
    """Return the sums of all hours."""
    hours = Hours()
    hours.run_all(to_table([event for view in views for event in view]))
    sums = Counter[str]()
    for (*_, measure), amount in facts(hours.results.values(), "platform", ("tenant_id",)).items():
        sums[measure] += amount
    return {name: sums[name] for name in ("attempts", "plays", "played_ms", "duplicate_events")}


def by_speed(*views: list[dict[str, Any]]) -> dict[str, int]:
    """Return the same of the speed layer, to which each view comes when it is sent."""
    core, sums = Core(), Counter[str]()
    for view in views:
        core.forget(view[0]["received_at"])  # as the engine does after each step
        rows, _ = rollup_rows(core, core.step([to_table(view)], view[-1]["received_at"] + 2_000))
        for row in rows["platform"].to_pylist():
            sums.update({name: value for name, value in row.items() if isinstance(value, int)})
    return {name: sums[name] for name in ("attempts", "plays", "played_ms", "duplicate_events")}


ONCE = {"attempts": 1, "plays": 1, "played_ms": 30_000, "duplicate_events": 3}
ANEW = {"attempts": 2, "plays": 2, "played_ms": 60_000, "duplicate_events": 0}


def test_the_same_events_again_count_once_whenever_they_come() -> None:
    late = [{**event, "received_at": T0 + 5 * HOUR_MS} for event in sent(T0)]
    assert by_batch(sent(T0), late) == ONCE


def test_an_id_used_again_in_the_same_hour_is_the_same_view() -> None:
    assert by_batch(sent(T0), sent(T0 + 20 * MINUTE_MS)) == ONCE
    assert by_speed(sent(T0), sent(T0 + 20 * MINUTE_MS)) == ONCE


def test_an_id_that_begins_again_later_is_a_new_view_from_the_next_hour_in_batch_and_from_2_h_on_in_speed() -> None:
    assert by_batch(sent(T0), sent(T0 + HOUR_MS + 20 * MINUTE_MS)) == ANEW
    assert by_speed(sent(T0), sent(T0 + HOUR_MS + 20 * MINUTE_MS)) == ONCE
    assert by_batch(sent(T0), sent(T0 + 4 * HOUR_MS)) == by_speed(sent(T0), sent(T0 + 4 * HOUR_MS)) == ANEW


def test_a_view_that_goes_on_in_a_later_hour_is_still_the_same_one() -> None:
    went_on = by_batch(sent(T0), sent(T0 + 4 * HOUR_MS, first_seq=3))
    assert (went_on["attempts"], went_on["plays"], went_on["duplicate_events"]) == (1, 1, 0)
    after_1_h, after_4_h = (by_speed(sent(T0), sent(T0 + h * HOUR_MS, first_seq=3)) for h in (1, 4))
    assert (after_1_h["attempts"], after_4_h["attempts"]) == (1, 2)
