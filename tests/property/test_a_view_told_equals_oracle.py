"""What `GET /api/v1/views/{view_id}` says was counted is what the oracle counts of the same events."""

from __future__ import annotations

from collections import Counter
from typing import Any

import msgspec
from hypothesis import given, settings
from hypothesis import strategies as st
from laws import examples

from viewmeter.model.time import DAY_MS
from viewmeter.query.views import explain
from viewmeter.testing import oracle, strategies
from viewmeter.testing.columns import to_table
from viewmeter.web.view_schemas import View


@given(events=strategies.event_lists(max_views=1))
@settings(deadline=None, max_examples=examples(60))
def test_the_measures_of_a_view_are_the_oracles(events: list[dict[str, Any]]) -> None:
    now_ms = max(event["ts"] for event in events) + DAY_MS
    expected: Counter[str] = Counter()
    for fact in oracle.increments(events, now_ms):
        expected[fact.measure] += fact.amount
    del expected["duplicate_events"]
    told = explain(to_table(events), now_ms)
    assert told["measures"] == {name: n for name, n in expected.items() if n}
    assert {v["measure"]: v["count"] for v in told["counted"]} == {
        v["measure"]: expected[v["measure"]] for v in told["counted"]
    }


@given(events=strategies.event_lists(max_views=1), waited_ms=st.sampled_from((0, 1_000, 200_000, DAY_MS)))
@settings(deadline=None, max_examples=examples(100))
def test_what_each_event_changed_adds_up_to_what_the_view_counts(events: list[dict[str, Any]], waited_ms: int) -> None:
    told = explain(to_table(events), max(event["ts"] for event in events) + waited_ms)
    changed = Counter(told["changed_by_silence"])
    for event in told["events"]:
        changed.update(event["changed"])
        assert not (event["duplicate"] and event["changed"])
    assert {name: n for name, n in changed.items() if n} == told["measures"]
    for name in ("played_ms", "rebuffered_ms", "rebuffer_count"):
        assert sum(i[name] for i in told["intervals"]) == told["measures"].get(name, 0)
    assert sum(event["lost_before"] for event in told["events"]) == told["measures"].get("lost_events", 0)
    msgspec.convert(told, View)
