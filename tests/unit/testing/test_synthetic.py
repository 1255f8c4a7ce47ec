"""Synthetic batches are events like any others, only many."""

from __future__ import annotations

import pyarrow as pa

from viewmeter.model.events import EVENT_SCHEMA, view_key
from viewmeter.testing.columns import to_events
from viewmeter.testing.oracle import increments, views
from viewmeter.testing.oracle_metrics import total
from viewmeter.testing.scenario import START_MS
from viewmeter.testing.synthetic import Synthetic


def crowd(seed: int = 1, events: int = 4_000, mean_events: int = 8) -> pa.Table:
    made = Synthetic(seed, START_MS, active=300, videos=20, channels=5, mean_events=mean_events)
    return pa.Table.from_batches(made.batches(events, batch_rows=256), EVENT_SCHEMA)


def test_batches_have_the_schema_of_the_log_and_no_nulls() -> None:
    table = crowd()
    assert table.num_rows == 4_000
    assert table.schema.equals(EVENT_SCHEMA)
    assert sum(column.null_count for column in table.columns) == 0
    table.validate(full=True)


def test_events_come_in_the_order_of_time_and_keys_are_those_of_their_views() -> None:
    rows = to_events(crowd())
    assert [row["ts"] for row in rows] == sorted(row["ts"] for row in rows)
    assert all(row["view_key"] == view_key(row["tenant_id"], row["view_id"]) for row in rows)


def test_views_of_a_batch_live_from_request_to_end_without_holes() -> None:
    found = views(to_events(crowd())).values()
    whole = [events for events, _ in found if events[0]["seq"] == 0 and events[-1]["type"] in ("exit", "complete")]
    assert len(whole) > 100
    for events in whole:
        assert [event["seq"] for event in events] == list(range(len(events)))
        assert [event["type"] for event in events[:2]] == ["request", "play"]
    assert not any(again for _, again in found)


def test_most_events_are_heartbeats_and_most_views_play() -> None:
    sums = total(increments(to_events(crowd(mean_events=25)), START_MS + 10**9))
    assert sums["events_heartbeat"] > 0.6 * sums["events"]
    assert sums["plays"] > 0.9 * sums["attempts"]
    assert sums["played_ms"] > 0


def test_the_same_seed_gives_the_same_bytes() -> None:
    assert crowd(5, 1_000).equals(crowd(5, 1_000))
    assert not crowd(5, 1_000).equals(crowd(6, 1_000))
