"""The batch layer's hours say what the oracle says: any arrival, any cut into hours and parts, late events, reruns."""

from __future__ import annotations

from collections import Counter
from typing import Any

from hours import Facts, Hours, clamped, facts, table_of
from hypothesis import given, settings
from hypothesis import strategies as st
from laws import examples

from viewmeter.model.time import HOUR_MS, MINUTE_MS, QUARTER_MS
from viewmeter.stream.core import Core
from viewmeter.stream.rows import bitrate_bucket, rollup_rows
from viewmeter.testing import oracle, oracle_views, strategies

DELIVERY = (
    "tenant_id", "channel_id", "video_id", "is_bot", "player", "cdn", "asn", "stream_type", "bitrate_bucket",
)  # fmt: skip
CROSS = (
    "tenant_id", "channel_id", "is_bot", "video_id", "country", "device_type", "os", "browser", "player", "stream_type",
)  # fmt: skip
VIDEO = ("tenant_id", "channel_id", "video_id", "is_bot")
LATER_MS = 24 * HOUR_MS

shifts = st.integers(0, HOUR_MS - 1)


def oracle_rows(events: list[dict[str, Any]], keys: tuple[str, ...], grain_ms: int) -> Facts:
    """Return the sums of every additive measure by time and these keys, whole views included, by definition."""
    later = max(e["ts"] for e in events) + LATER_MS
    first = {key: distinct[0] for key, (distinct, _) in oracle.views(events).items()}
    out: Facts = Counter()

    def add(view: oracle.Key, instant: int, bitrate: int | None, cdn: str, name: str, amount: int) -> None:
        words = {**first[view], "cdn": cdn, "bitrate_bucket": bitrate_bucket(bitrate or 0)}
        out[instant - instant % grain_ms, *(words[key] for key in keys), name] += amount

    for fact in oracle.increments(events, later):
        add(fact.view, fact.instant_ms, fact.bitrate_kbps, fact.cdn, fact.measure, fact.amount)
    for view in oracle_views.ended_views(events, later):
        for name, amount in oracle_views.per_view_sums([view]).items():
            add(view.key, view.instant_ms, view.bitrate_kbps, view.cdn, name, amount)
    return Counter({key: n for key, n in out.items() if n})


def without_late(found: Facts) -> Facts:
    """Return the facts without `late_events`, of which the oracle has no opinion."""
    return Counter({key: n for key, n in found.items() if key[-1] != "late_events"})


def sketched(results: list[Any], column: str) -> list[float]:
    """Return every value in the lists of a column of `video`."""
    tables = [r.rows["video"] for r in results if "video" in r.rows]
    return sorted(v for t in tables if column in t.column_names for values in t[column].to_pylist() for v in values)


def same_as_oracle(hours: Hours, events: list[dict[str, Any]]) -> None:
    results = list(hours.results.values())
    assert without_late(facts(results, "delivery", DELIVERY)) == oracle_rows(events, DELIVERY, MINUTE_MS)
    assert without_late(facts(results, "cross", CROSS)) == oracle_rows(events, CROSS, QUARTER_MS)
    assert without_late(facts(results, "platform", ("tenant_id",))) == oracle_rows(events, ("tenant_id",), MINUTE_MS)
    ended = oracle_views.ended_views(events, max(e["ts"] for e in events) + LATER_MS)
    steps: Facts = Counter()
    for view in ended:
        at = view.instant_ms - view.instant_ms % HOUR_MS
        for percent, step in enumerate(oracle_views.retention_steps([view])):
            if step:
                steps[at, *(view.first[key] for key in CROSS), str(percent), "retention_delta"] += step
    assert facts(results, "retention", (*CROSS, "percent")) == Counter({k: n for k, n in steps.items() if n})
    assert sketched(results, "watch_kll") == sorted(v.played_ms for v in ended if v.measured)
    same_viewers(hours, events)
    same_presence(hours, events)


def same_viewers(hours: Hours, events: list[dict[str, Any]]) -> None:
    first = {key: distinct[0] for key, (distinct, _) in oracle.views(events).items()}
    expected = {
        (f.instant_ms // HOUR_MS * HOUR_MS, *(first[f.view][key] for key in (*VIDEO, "viewer_hash")))
        for f in oracle.increments(events, max(e["ts"] for e in events) + LATER_MS)
        if f.measure == "plays"
    }
    found = [(at, *row.values()) for at, r in hours.results.items() for row in r.viewers.to_pylist()]
    assert sorted(found) == sorted(expected)


def same_presence(hours: Hours, events: list[dict[str, Any]]) -> None:
    views: Facts = Counter()
    viewers: dict[tuple[Any, ...], set[int]] = {}
    for distinct, _ in oracle.views(events).values():
        video = tuple(distinct[0][key] for key in VIDEO)
        samples = {t for a, b in oracle.presence(distinct) for t in range(-(-a // 10_000) * 10_000, b, 10_000)}
        for t in samples:
            views[t, *video, "concurrent_views"] += 1
            viewers.setdefault((t, *video, "concurrent_viewers"), set()).add(distinct[0]["viewer_hash"])
    expected = Counter({**views, **{key: len(who) for key, who in viewers.items()}})
    assert facts(hours.results.values(), "concurrency", VIDEO) == expected
    peaks: Facts = Counter()
    for (t, tenant, channel, video_id, bot, name), n in expected.items():
        del bot
        peaks[t, tenant, channel, video_id, name] += n
    for at, result in hours.results.items():
        table = result.rows.get("peaks")
        for row in () if table is None else table.to_pylist():
            if row["scope"] == "video" and row["bots"] == "any":
                scope = (row["tenant_id"], row["channel_id"], row["video_id"], "concurrent_viewers")
                found = {t: n for (t, *rest), n in peaks.items() if at <= t < at + HOUR_MS and tuple(rest) == scope}
                assert row["peak_viewers"] == max(found.values())
                assert row["last_viewers"] == found.get(at + HOUR_MS - 10_000, 0)
            if row["scope"] == "platform" and row["bots"] == "any":
                sums: Facts = Counter()
                for (t, *_, name), n in peaks.items():
                    if at <= t < at + HOUR_MS and name == "concurrent_viewers":
                        sums[(t,)] += n
                assert row["peak_viewers"] == max(sums.values())


@given(strategies.event_lists(max_views=4), shifts, st.integers(1, 3))
@settings(deadline=None, max_examples=examples(300))
def test_any_arrival_and_any_cut_into_hours_and_parts_count_what_the_oracle_counts(
    events: list[dict[str, Any]], shift_ms: int, parts: int
) -> None:
    events = clamped(events, shift_ms)
    hours = Hours(parts)
    hours.run_all(table_of(events))
    same_as_oracle(hours, events)


@given(strategies.event_lists(), shifts, st.data())
@settings(deadline=None, max_examples=examples(150))
def test_late_events_and_the_cascade_end_as_if_they_had_been_in_time(
    events: list[dict[str, Any]], shift_ms: int, data: st.DataObject
) -> None:
    events = clamped(events, shift_ms)
    late = data.draw(st.sets(st.integers(0, len(events) - 1), max_size=len(events) - 1))
    on_time = [e for i, e in enumerate(events) if i not in late]
    hours = Hours()
    hours.run_all(table_of(on_time))
    whole = table_of(events)
    for event in (events[i] for i in sorted(late)):
        at = event["ts"] // HOUR_MS * HOUR_MS
        if at not in hours.results:  # an hour that nobody knew of yet: all from there on run for the first time
            hours.results = {h: r for h, r in hours.results.items() if h < at}
    stale = {e["ts"] // HOUR_MS * HOUR_MS for i, e in enumerate(events) if i in late}
    first = min(e["ts"] for e in events) // HOUR_MS * HOUR_MS
    last = max(e["ts"] for e in events) // HOUR_MS * HOUR_MS
    at = first
    while at <= last or hours.results[at - HOUR_MS].kept_open.num_rows:
        if at not in hours.results:
            hours.run(at, whole)
        elif at in stale:
            hours.cascade(at, whole)
        at += HOUR_MS
    for result_at in list(hours.results):
        if hours.results[result_at].counts.fills_received_at >= 0:
            hours.cascade(result_at - HOUR_MS, whole)
    same_as_oracle(hours, events)


@given(strategies.event_lists(), shifts, st.randoms(use_true_random=False))
@settings(deadline=None, max_examples=examples(100))
def test_running_an_hour_again_gives_the_same_rows_in_whatever_order_the_files_hold_its_events(
    events: list[dict[str, Any]], shift_ms: int, random: Any
) -> None:
    events = clamped(events, shift_ms)
    first, second = Hours(), Hours(2)
    first.run_all(table_of(events))
    shuffled = list(events)
    random.shuffle(shuffled)
    second.run_all(table_of(shuffled))
    for at, result in first.results.items():
        other = second.results[at]
        assert {n: t.to_pylist() for n, t in result.rows.items()} == {n: t.to_pylist() for n, t in other.rows.items()}
        assert result.viewers.to_pylist() == other.viewers.to_pylist()
        assert result.handover == other.handover


@given(strategies.event_lists(ordered=True), shifts)
@settings(deadline=None, max_examples=examples(150))
def test_events_in_order_have_the_additive_measures_of_the_speed_layer(
    events: list[dict[str, Any]], shift_ms: int
) -> None:
    events = clamped(events, shift_ms)
    core, speed = Core(), Counter[tuple[Any, ...]]()
    at = max(e["ts"] for e in events) + LATER_MS
    for table, now in ((table_of(events), events[-1]["received_at"] + 2_000), (table_of([]), at)):
        rows, _ = rollup_rows(core, core.step([table], now))
        for row in rows["delivery"].to_pylist() if "delivery" in rows else ():
            for name, value in row.items():
                if isinstance(value, int) and name not in (*DELIVERY, "time_ms"):
                    speed[row["time_ms"], *(row[key] for key in DELIVERY), name] += value
    hours = Hours()
    hours.run_all(table_of(events))
    batch = facts(hours.results.values(), "delivery", DELIVERY)
    known = {key[-1] for key in speed}
    assert {k: n for k, n in speed.items() if n and k[-1] != "late_events"} == {
        k: n for k, n in batch.items() if k[-1] in known and k[-1] != "late_events"
    }
