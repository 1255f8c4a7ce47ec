"""What must hold of any list of events, whatever the rule says in detail."""

from __future__ import annotations

import random
from collections import Counter
from typing import Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from laws import examples

from viewmeter.testing import oracle
from viewmeter.testing.columns import to_events, to_table
from viewmeter.testing.oracle import Increment, increments
from viewmeter.testing.oracle_metrics import MEASURES, metrics, total
from viewmeter.testing.strategies import event_lists, later
from viewmeter.testing.subject import Beacon, OracleSubject, Question

Events = list[dict[str, Any]]
LONG_AFTER = 2_000_000_000_000
# A busy machine is no failure: only what comes out is tested here, not how fast.
steady = settings(
    deadline=None, max_examples=examples(100), suppress_health_check=[HealthCheck.too_slow], print_blob=True
)


def facts(events: Events, now_ms: int = LONG_AFTER) -> Counter[Increment]:
    return Counter(increments(events, now_ms))


@steady
@given(event_lists(), st.integers(0, 1 << 16))
def test_the_order_of_the_list_changes_nothing(events: Events, seed: int) -> None:
    shuffled = events[:]
    random.Random(seed).shuffle(shuffled)
    assert facts(shuffled) == facts(events)


@steady
@given(event_lists(), st.integers(0, 1 << 16))
def test_the_order_of_arrival_changes_nothing_without_duplicates(events: Events, seed: int) -> None:
    distinct: Events = [dict(e) for found, _ in oracle.views(events).values() for e in found]
    delayed = [
        {**e, "received_at": e["received_at"] + random.Random(seed + i).randrange(10**6)}
        for i, e in enumerate(distinct)
    ]
    assert facts(delayed) == facts(distinct)


@steady
@given(event_lists(), st.data())
def test_a_repeated_event_changes_only_the_duplicates(events: Events, data: st.DataObject) -> None:
    again = {**data.draw(st.sampled_from(events)), "received_at": LONG_AFTER}
    more = facts([*events, again]) - facts(events)
    assert not facts(events) - facts([*events, again])
    assert [(fact.measure, fact.amount) for fact in more.elements()] == [("duplicate_events", 1)]


@steady
@given(event_lists())
def test_every_measure_has_a_known_name_and_no_total_is_below_zero(events: Events) -> None:
    sums = total(increments(events, LONG_AFTER))
    assert set(sums) == set(MEASURES)
    assert min(sums.values()) >= 0


@steady
@given(event_lists())
def test_a_view_counts_once_for_whatever_counts_once(events: Events) -> None:
    for view, (distinct, _) in oracle.views(events).items():
        sums = total(increments(distinct, LONG_AFTER))
        assert sums["attempts"] == 1, view
        once = ("plays", "completes", "failures", "exits_before_start", "engaged_views", "startups")
        assert all(sums[name] in (0, 1) for name in once)
        assert sums["plays"] + sums["failures"] + sums["exits_before_start"] >= 1, "it played, failed or left"
        assert not (sums["exits_before_start"] and (sums["plays"] or sums["failures"]))
        assert sums["events"] == len(distinct) == sum(v for k, v in sums.items() if k.startswith("events_"))
        assert sums["lost_events"] + sums["events"] == max(e["seq"] for e in distinct) + 1


@steady
@given(event_lists())
def test_played_time_divides_into_its_bitrate_buckets(events: Events) -> None:
    sums = total(increments(events, LONG_AFTER))
    buckets = sum(v for k, v in sums.items() if k.startswith("played_ms_") and k[10].isdigit())
    assert buckets == sums["played_ms_known_bitrate"] <= sums["played_ms"]


@steady
@given(event_lists())
def test_views_do_not_know_of_each_other(events: Events) -> None:
    alone: Counter[Increment] = Counter()
    for key in oracle.views(events):
        alone += facts([e for e in events if (e["tenant_id"], e["view_id"]) == key])
    assert alone == facts(events)


@steady
@given(event_lists(), st.data())
def test_noticing_a_silence_only_adds_and_only_at_the_end_of_the_silence(events: Events, data: st.DataObject) -> None:
    now_ms = data.draw(later(events))
    before, after = facts(events, now_ms), facts(events)
    assert not before - after
    assert {fact.measure for fact in (after - before)} <= {"failures", "exits_before_start"}
    assert all(fact.instant_ms + oracle.SILENCE_MS >= now_ms - oracle.SILENCE_MS for fact in after - before)


@steady
@given(event_lists(), st.integers(0, 100))
def test_no_more_viewers_than_views_and_no_more_views_than_exist(events: Events, step: int) -> None:
    at_ms = min(e["ts"] for e in events) + step * 10_000
    viewers, views = oracle.concurrency(events, at_ms)
    assert 0 <= viewers <= views <= len(oracle.views(events))


@steady
@given(event_lists(), st.integers(0, 100))
def test_the_subject_and_the_oracle_see_the_same_viewers(events: Events, step: int) -> None:
    at_ms = min(e["ts"] for e in events) // 10_000 * 10_000 + step * 10_000
    subject = OracleSubject()
    for event in events:
        rest = {k: v for k, v in event.items() if k not in ("tenant_id", "received_at", "viewer_hash")}
        subject.feed(Beacon(event["tenant_id"], event["received_at"], [rest | {"viewer_id": event["viewer_hash"]}]))
    subject.settle(LONG_AFTER)
    asked = [
        subject.answer(Question(metric, filters={"is_bot": "any"}, at_ms=at_ms))
        for metric in ("concurrent_viewers", "concurrent_views")
    ]
    assert tuple(asked) == oracle.concurrency(events, at_ms)


@steady
@given(event_lists())
def test_ratios_lie_between_nothing_and_everything(events: Events) -> None:
    got = metrics(total(increments(events, LONG_AFTER)))
    for name in (
        "rebuffer_ratio",
        "measured_ratio",
        "completeness_ratio",
        "playback_failure_rate",
        "exit_before_start_rate",
    ):
        value = got[name]
        assert value is None or 0 <= value <= 1, name
    assert got["qoe_score"] is None or 0 <= got["qoe_score"] <= 100


@steady
@given(event_lists())
def test_columns_say_the_same_as_dicts(events: Events) -> None:
    assert facts(to_events(to_table(events))) == facts(events)
