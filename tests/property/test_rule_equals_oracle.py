"""The columnar rule, its ordering and its silence agree with the oracle on whatever players may send."""

from __future__ import annotations

from collections import Counter
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st
from laws import examples

from viewmeter.stream.core import Core, Deltas
from viewmeter.stream.rows import bitrate_bucket
from viewmeter.testing import oracle, strategies
from viewmeter.testing.columns import to_table

Facts = Counter[tuple[Any, ...]]


def facts_of(core: Core, deltas: list[Deltas]) -> tuple[Facts, Facts]:
    """Return the sums per (view, instant, measure, bucket, cdn), and per (video, sample) who is present."""
    sums: Facts = Counter()
    present: Facts = Counter()
    for delta in deltas:
        inc = delta.increments
        for measure, (rows, amounts) in inc.amounts.items():
            for row, amount in zip(rows.tolist(), amounts.tolist(), strict=True):
                cdn = core.cdns[inc.cdn[row]] if inc.cdn[row] >= 0 else "unknown"
                key = int(core.keys[inc.view[row]])
                sums[key, int(inc.instant[row]), measure, bitrate_bucket(int(inc.bitrate_kbps[row])), cdn] += amount
        views, instants, signs = delta.presence.samples()
        video = core.group["video"]
        for view, t, sign in zip(views.tolist(), instants.tolist(), signs.tolist(), strict=True):
            present["views", int(video[view]), t] += sign
        run, instants, signs = delta.viewer_samples
        for row, t, sign in zip(run.tolist(), instants.tolist(), signs.tolist(), strict=True):
            present["viewers", int(video[delta.presence.view[row]]), t] += sign
    return sums, present


def oracle_facts(events: list[dict[str, Any]], now_ms: int) -> Facts:
    keys = {(e["tenant_id"], e["view_id"]): e["view_key"] for e in to_table(events).to_pylist()}
    out: Facts = Counter()
    for f in oracle.increments(events, now_ms):
        out[keys[f.view], f.instant_ms, f.measure, bitrate_bucket(f.bitrate_kbps or 0), f.cdn] += f.amount
    return out


def nonzero(facts: Facts) -> dict[tuple[Any, ...], int]:
    return {key: amount for key, amount in facts.items() if amount}


def oracle_presence(core: Core, events: list[dict[str, Any]]) -> Facts:
    """Return (kind, video group, sample) -> who is present, from the definition."""
    table = to_table(events)
    keys = {(e["tenant_id"], e["view_id"]): e["view_key"] for e in table.to_pylist()}
    slot_of = {int(key): slot for slot, key in enumerate(core.keys.tolist())}
    out: Facts = Counter()
    viewers: dict[tuple[int, int], set[int]] = {}
    for key, (distinct, _) in oracle.views(events).items():
        video = int(core.group["video"][slot_of[keys[key]]])
        samples = {
            t for start, stop in oracle.presence(distinct) for t in range(-(-start // 10_000) * 10_000, stop, 10_000)
        }
        for t in samples:
            out["views", video, t] += 1
            viewers.setdefault((video, t), set()).add(distinct[0]["viewer_hash"])
    for (video, t), who in viewers.items():
        out["viewers", video, t] = len(who)
    return out


MASK_MS = 600_000  # Viewers remembers the last 640 s of a pair's samples


def same_presence(events: list[dict[str, Any]], present: Facts, expected: Facts) -> None:
    """Views agree always; viewers where the views of one viewer lie no further apart than is remembered."""
    span = max(e["ts"] for e in events) - min(e["ts"] for e in events)
    for kind in ("views", "viewers") if span < MASK_MS else ("views",):
        assert {k: n for k, n in nonzero(present).items() if k[0] == kind} == {
            k: n for k, n in nonzero(expected).items() if k[0] == kind
        }


def last_instant(events: list[dict[str, Any]]) -> int:
    return max(max(e["ts"], e["received_at"]) for e in events)


@given(strategies.event_lists())
@settings(deadline=None, max_examples=examples(500))
def test_one_batch_in_any_order_of_arrival_counts_what_the_oracle_counts(events: list[dict[str, Any]]) -> None:
    core = Core()
    later = last_instant(events) + 3_600_000
    deltas = [core.step([to_table(events)], max(e["received_at"] for e in events) + 1_000), core.step([], later)]
    facts, present = facts_of(core, deltas)
    assert nonzero(facts) == nonzero(oracle_facts(events, later))
    same_presence(events, present, oracle_presence(core, events))


@given(strategies.event_lists(ordered=True), st.data())
@settings(deadline=None, max_examples=examples(300))
def test_cutting_ordered_events_into_other_batches_changes_nothing(
    events: list[dict[str, Any]], data: st.DataObject
) -> None:
    cuts = sorted(data.draw(st.sets(st.integers(1, len(events)), max_size=6)))
    later = last_instant(events) + 3_600_000
    core, deltas = Core(), []
    for start, stop in zip([0, *cuts], [*cuts, len(events)], strict=True):
        if start < stop:
            batch = events[start:stop]
            deltas.append(
                core.step([to_table(batch)], batch[-1]["received_at"] + data.draw(st.sampled_from((0, 1_500))))
            )
    deltas += [core.step([], events[-1]["received_at"] + 2_000), core.step([], later)]
    facts, present = facts_of(core, deltas)
    assert nonzero(facts) == nonzero(oracle_facts(events, later))
    same_presence(events, present, oracle_presence(core, events))
