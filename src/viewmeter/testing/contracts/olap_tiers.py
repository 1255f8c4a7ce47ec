"""Tiers, zones and what is dropped when (olap/protocol.py, O8, O10); see `olap_batch.py`."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Final

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from viewmeter.model.calendar import Period, periods, zone_of
from viewmeter.model.catalogue.measures import HLL_RELATIVE_ERROR, KLL_RANK_ERROR
from viewmeter.model.sketches import hll_estimate, kll_quantile
from viewmeter.model.time import Interval, floor_to
from viewmeter.olap.protocol import (
    Filter,
    HourDroppedError,
    Part,
    Table,
    TimeSeriesStore,
    Visible,
)
from viewmeter.testing.contracts.facts import DAY, HOUR, MINUTE, T0, Fact, fact, hours_of, rows_of
from viewmeter.testing.contracts.olap import commit
from viewmeter.testing.contracts.olap_asking import Rows, ask, build_due, part, put, run_of, total

KOLKATA, BERLIN = "Asia/Kolkata", "Europe/Berlin"


TIERS: Final[tuple[Table, ...]] = ("minute", "hour", "day")
_MEASURES = ("plays", "played_ms", "ended_views", "viewers_hll", "startup_kll", "watch_kll")


def _facts(base: int) -> st.SearchStrategy[Fact]:
    return st.builds(
        fact,
        st.integers(0, 2 * 24 * 4 - 8).map(lambda quarter: base + quarter * 15 * MINUTE),
        viewer=st.one_of(st.none(), st.integers(-5, 5)),
        startup_ms=st.one_of(st.none(), st.integers(0, 5000).map(float)),
        watch_ms=st.one_of(st.none(), st.integers(0, 5000).map(float)),
        video_id=st.sampled_from(["v1", "v2"]),
        plays=st.integers(-1, 5),
        played_ms=st.integers(0, 10**12),
        ended_views=st.integers(0, 3),
    )


def _tiers(kind: Period) -> tuple[Table, ...]:
    return ("minute", "hour", kind)


def _readable(rows: Rows) -> Rows:
    return [
        {
            **row,
            "viewers_hll": round(hll_estimate(row["viewers_hll"])),
            "startup_kll": kll_quantile(row["startup_kll"], 0.5),
            "watch_kll": kll_quantile(row["watch_kll"], 0.9),
        }
        for row in rows
    ]


class TiersContract:
    """Coarser rows, zones, what is dropped: O8 and O10."""

    @given(data=st.data())
    @settings(
        max_examples=6,
        deadline=None,
        suppress_health_check=[HealthCheck.function_scoped_fixture],
        phases=[Phase.explicit, Phase.reuse, Phase.generate],  # a store an example: shrinking would take minutes
    )
    def test_O8_every_tier_has_the_same_measures_after_any_replacement(
        self, fresh_store: Callable[[], TimeSeriesStore], data: st.DataObject
    ) -> None:
        """Facts over a change of the clock in Berlin (28 March 2027), in days of three zones."""
        zone = data.draw(st.sampled_from(["UTC", KOLKATA, BERLIN]))
        spans_of: dict[Period, int] = {"day": 3, "week": 10, "month": 20}
        kind, days = data.draw(st.sampled_from([*spans_of.items()]))
        base = 71 * DAY
        facts = data.draw(st.lists(_facts(base), min_size=1, max_size=8))
        late = data.draw(st.lists(_facts(base), max_size=3))
        store = fresh_store()
        store.set_zones({"acme": zone}, T0)
        for hour in sorted({floor_to(f.at_ms - T0, HOUR) for f in facts}):
            put(store, hour, facts, only=("video",))
        build_due(store, base + days * DAY)
        for hour in sorted({floor_to(f.at_ms - T0, HOUR) for f in late}):
            put(store, hour, [*facts, *late], only=("video",))
        build_due(store, base + days * DAY)
        spans = list(periods(Interval(T0 + base, T0 + base + 2 * DAY), kind, zone_of(zone)))
        edges = [span.start_ms - T0 for span in spans] + [spans[-1].end_ms - T0]
        whole = Interval(spans[0].start_ms, spans[-1].end_ms)
        with store.snapshot() as state:
            answers = [
                _readable(
                    ask(state, *_MEASURES, parts=[Part(tier, whole, zone)], edges=edges, dimensions=("video_id",))
                )
                for tier in _tiers(kind)
            ]
        assert answers[0] == answers[1] == answers[2]
        store.close()

    def test_O8_a_week_that_was_built_takes_up_a_day_before_all_others(self, store: TimeSeriesStore) -> None:
        put(store, DAY, [fact(DAY, plays=1)], only=("video",))
        build_due(store, 5 * DAY)
        put(store, 0, [fact(0, plays=10)], only=("video",))
        build_due(store, 5 * DAY)
        week = next(iter(periods(Interval(T0, T0 + 1), "week", zone_of("UTC"))))
        with store.snapshot() as state:
            edges = (week.start_ms - T0, week.end_ms - T0)
            assert state.coverage("UTC").weeks == (week,)
            assert ask(state, "plays", parts=part("week", *edges), edges=edges) == [{"bucket": 0, "plays": 11}]

    def test_O8_sums_of_one_video_over_time_are_those_of_all_channels_that_have_it(
        self, store: TimeSeriesStore
    ) -> None:
        facts = [
            fact(hour * HOUR + minute * MINUTE, channel_id=channel, video_id="v", plays=1)
            for hour in range(4)
            for minute in range(hour + 1)
            for channel in ("a", "b")
        ]
        for hour in range(4):
            put(store, hour * HOUR, [*facts, fact(hour * HOUR, video_id="other", plays=100)], only=("video",))
        one = (Filter("video_id", ("v",)), Filter("is_bot", ("false",)))
        with store.snapshot() as state:
            for tier in ("minute", "hour"):
                found = ask(
                    state, "plays", parts=part(tier), edges=(0, HOUR, 3 * HOUR, 4 * HOUR, DAY), filters=one
                )  # the last bucket has no rows
                assert [(row["bucket"], row["plays"]) for row in found] == [(0, 2), (1, 10), (2, 8)]

    def test_O8_peaks_are_largest_and_last_over_any_tier(self, store: TimeSeriesStore) -> None:
        seen = {0: 5, 10_000: 9, HOUR: 4, 3 * HOUR: 7, DAY: 1}
        facts = [fact(at, concurrent_viewers=n, concurrent_views=n + 1) for at, n in seen.items()]
        for hour in (0, HOUR, 3 * HOUR, DAY):
            put(store, hour, facts)
        build_due(store, 2 * DAY)
        mine = (Filter("scope", ("video",)), Filter("bots", ("any",)))
        with store.snapshot() as state:
            found = [
                ask(state, "peak_viewers", "last_viewers", "peak_views", rollup="peaks", edges=(0, DAY, 2 * DAY),
                    filters=mine, parts=part(tier, 0, 2 * DAY))
                for tier in ("hour", "day")
            ]  # fmt: skip
        assert found[0] == found[1]
        assert found[0] == [
            {"bucket": 0, "peak_viewers": 9, "last_viewers": 7, "peak_views": 10},
            {"bucket": 1, "peak_viewers": 1, "last_viewers": 1, "peak_views": 2},
        ]

    def test_O8_sketches_stay_within_their_error_through_every_tier(self, store: TimeSeriesStore) -> None:
        """20,000 viewers and times in a day: too many for lists, so coarse rows hold thinned ones and sketches."""
        count, hours = 20_000, 24
        facts = [
            fact((i % hours) * HOUR, viewer=i * 7_919, startup_ms=float(i), watch_ms=float(i), plays=1)
            for i in range(count)
        ]
        rows, viewers = hours_of(facts, ("platform",))
        store.put_history(Interval(T0, T0 + DAY), rows, viewers, T0 + DAY)
        build_due(store, DAY)
        with store.snapshot() as state:
            for tier in TIERS:
                (row,) = ask(state, "plays", "viewers_hll", "startup_kll", "watch_kll", rollup="platform",
                             parts=part(tier))  # fmt: skip
                assert row["plays"] == count
                assert hll_estimate(row["viewers_hll"]) == pytest.approx(count, rel=3 * HLL_RELATIVE_ERROR)
                for name, quantile in itertools.product(("startup_kll", "watch_kll"), (0.1, 0.5, 0.95)):
                    value = kll_quantile(row[name], quantile)
                    assert value is not None
                    assert abs(value / count - quantile) < 2 * KLL_RANK_ERROR

    def test_O8_a_day_is_that_of_the_zone_and_everybody_has_days_in_UTC(self, store: TimeSeriesStore) -> None:
        store.set_zones({"acme": KOLKATA}, T0)
        at = {18 * HOUR + 29 * MINUTE: 1, 18 * HOUR + 30 * MINUTE: 10, DAY + HOUR: 100}
        facts = [fact(when, plays=n) for when, n in at.items()]
        facts += [fact(18 * HOUR + 30 * MINUTE, plays=5, tenant_id="other")]
        for hour in (18 * HOUR, DAY + HOUR):
            put(store, hour, facts)
        build_due(store, 3 * DAY)
        local = 18 * HOUR + 30 * MINUTE  # midnight in Kolkata
        with store.snapshot() as state:
            acme, other = state.coverage(KOLKATA, "acme"), state.coverage(KOLKATA, "other")
            assert (acme.hour_step_ms, state.coverage("UTC").hour_step_ms) == (30 * MINUTE, HOUR)
            assert acme.days[0].start_ms == T0 + local - DAY
            assert other.days == ()
            days = ask(state, "plays", parts=part("day", local - DAY, local + 2 * DAY, KOLKATA),
                       edges=(local - DAY, local, local + DAY), visible=Visible(None))  # fmt: skip
            assert days == [{"bucket": 0, "plays": 1}, {"bucket": 1, "plays": 110}]
            utc = ask(state, "plays", parts=part("day", 0, 2 * DAY), edges=(0, DAY, 2 * DAY), visible=Visible(None))
            assert utc == [{"bucket": 0, "plays": 16}, {"bucket": 1, "plays": 100}]

    def test_a_zone_that_is_changed_holds_from_the_next_day_on(self, store: TimeSeriesStore) -> None:
        put(store, 0, [fact(0, plays=1)])
        store.set_zones({"acme": BERLIN}, T0 + 5 * HOUR)
        put(store, 5 * DAY, [fact(5 * DAY, plays=1)])
        build_due(store, 7 * DAY)
        with store.snapshot() as state:
            assert state.coverage(BERLIN, "acme").days[0].start_ms == T0 + DAY - HOUR
            assert state.coverage("UTC").days[0].start_ms == T0

    def test_days_come_due_when_nothing_in_them_is_open_and_weeks_after_their_days(
        self, store: TimeSeriesStore
    ) -> None:
        store.append(rows_of([fact(HOUR, plays=1)]), commit(1))
        put(store, 0, [fact(0, plays=1)])
        assert store.due(T0 + DAY) == []
        with pytest.raises(ValueError, match="not closed"):
            store.build("day", T0, "UTC")
        put(store, HOUR, [fact(HOUR, plays=1)], run_of(seen=1))
        assert [(d.kind, d.start_ms) for d in store.due(T0 + DAY)] == [("day", T0)]
        with pytest.raises(ValueError, match="starts at"):
            store.build("day", T0 + HOUR, "UTC")
        with pytest.raises(ValueError, match="reports in"):
            store.build("day", T0 - 5 * HOUR - 30 * MINUTE, KOLKATA)
        week = next(iter(periods(Interval(T0, T0 + 1), "week", zone_of("UTC"))))
        with pytest.raises(ValueError, match="build it first"):
            store.build("week", week.start_ms, "UTC")
        kinds = [d.kind for d in store.due(week.end_ms)]
        assert kinds == ["day"] * ((week.end_ms - T0) // DAY) + ["week"]
        build_due(store, week.end_ms - T0)
        assert store.due(week.end_ms) == []

    def test_O10_minutes_go_after_a_day_and_hours_only_when_their_day_is_built(self, store: TimeSeriesStore) -> None:
        store.append(rows_of([fact(0, plays=3), fact(HOUR, plays=4)]), commit(1))
        put(store, 0, [fact(0, plays=3)], run_of(seen=1))
        store.expire(T0 + 2 * DAY)
        with store.snapshot() as state:
            coverage = state.coverage("UTC")
            assert (coverage.minute_from_ms, coverage.hour_from_ms) == (T0 + DAY, T0 - 28 * DAY)
            assert ask(state, "plays", parts=part("minute")) == []
            assert ask(state, "plays", parts=part("speed", HOUR)) == [{"bucket": 0, "plays": 4}]  # open: it stays
        assert total(store, tier="hour") == 7
        store.expire(T0 + 40 * DAY)
        assert total(store, tier="hour") == 7  # the day is not built: an hour is open
        put(store, HOUR, [fact(HOUR, plays=4)], run_of(seen=1))
        build_due(store, 40 * DAY)
        store.expire(T0 + 40 * DAY)
        with store.snapshot() as state:
            assert state.coverage("UTC").hour_from_ms == T0 + 10 * DAY
            assert ask(state, "plays", parts=part("hour")) == []
        assert total(store, tier="day") == 7
        assert sum(store.figures().rows.values()) == 0
        with pytest.raises(HourDroppedError):
            put(store, 0, [fact(0, plays=1)])
        with pytest.raises(ValueError, match="gone"):
            store.build("day", T0, "UTC")
        store.expire(T0 + 4 * 366 * DAY)
        assert total(store, tier="day") == 0

    def test_O10_an_old_hour_may_come_late_where_its_day_is_not_built(self, store: TimeSeriesStore) -> None:
        put(store, 50 * DAY, [fact(50 * DAY, plays=1)])
        build_due(store, 60 * DAY)
        store.expire(T0 + 90 * DAY)
        put(store, 0, [fact(0, plays=2, viewer=3)])
        store.expire(T0 + 90 * DAY)
        build_due(store, 60 * DAY)
        assert total(store, tier="day") == 2
        store.expire(T0 + 90 * DAY)
        with store.snapshot() as state:
            assert ask(state, "plays", parts=part("hour")) == []

    def test_parts_that_overlap_and_tiers_that_a_rollup_has_not_are_refused(self, store: TimeSeriesStore) -> None:
        with store.snapshot() as state, pytest.raises(ValueError, match="twice"):
            ask(state, "plays", parts=[*part("speed"), *part("minute", HOUR, 2 * HOUR)])
        with store.snapshot() as state, pytest.raises(ValueError, match="no day tier"):
            ask(state, "plays", rollup="cross", parts=part("day"))
        with store.snapshot() as state:
            assert ask(state, "plays", rollup="cross", parts=part("speed")) == []

    def test_mixed_rollups_are_there_by_the_hour(self, store: TimeSeriesStore) -> None:
        facts = [fact(0, plays=1, country="DE", os="iOS"), fact(MINUTE, plays=2, country="DE", os="Linux")]
        facts += [fact(0, retention_delta=1, percent="0"), fact(0, retention_delta=-1, percent="40")]
        put(store, 0, facts)
        build_due(store, DAY)
        both = (Filter("country", ("DE",)), Filter("os", ("iOS",)))
        with store.snapshot() as state:
            assert ask(state, "plays", rollup="cross", parts=part("hour"), filters=both) == [{"bucket": 0, "plays": 1}]
            for tier in ("hour", "day"):
                found = ask(state, "retention_delta", rollup="retention", dimensions=("percent",), parts=part(tier))
                assert [(row["percent"], row["retention_delta"]) for row in found] == [("0", 1), ("40", -1)]

    def test_hours_of_mixed_rollups_are_as_fine_as_the_zone_of_a_tenant_needs(self, store: TimeSeriesStore) -> None:
        store.set_zones({"acme": KOLKATA}, T0)
        local = 18 * HOUR + 30 * MINUTE  # midnight in Kolkata
        at = {local - MINUTE: 1, local: 10, local + 15 * MINUTE: 100}
        put(store, 18 * HOUR, [fact(when, plays=n, country="IN", os="iOS") for when, n in at.items()])
        both = (Filter("country", ("IN",)), Filter("os", ("iOS",)))
        with store.snapshot() as state:
            found = ask(state, "plays", rollup="cross", parts=part("hour"), filters=both, edges=(0, local, DAY))
        assert found == [{"bucket": 0, "plays": 1}, {"bucket": 1, "plays": 110}]
