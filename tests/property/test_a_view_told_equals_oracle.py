"""What `GET /api/v1/views/{view_id}` says was counted is what the oracle counts of the same events."""

from __future__ import annotations

from collections import Counter
from typing import Any

from hypothesis import given, settings

from viewmeter.model.time import DAY_MS
from viewmeter.query.views import explain
from viewmeter.testing import oracle, strategies
from viewmeter.testing.columns import to_table


@given(events=strategies.event_lists(max_views=1))
@settings(deadline=None, max_examples=60)
def test_the_measures_of_a_view_are_the_oracles(events: list[dict[str, Any]]) -> None:
    now_ms = max(event["ts"] for event in events) + DAY_MS
    expected: Counter[str] = Counter()
    for fact in oracle.increments(events, now_ms):
        expected[fact.measure] += fact.amount
    del expected["duplicate_events"]
    assert explain(to_table(events), now_ms)["measures"] == {name: n for name, n in expected.items() if n}
