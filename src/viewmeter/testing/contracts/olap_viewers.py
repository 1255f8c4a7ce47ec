"""Exact viewers, cohorts and erasing a viewer (olap/protocol.py, O12); see `olap_batch.py`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from viewmeter.olap.protocol import (
    Filter,
    Scan,
    TimeSeriesStore,
    Visible,
)
from viewmeter.testing.contracts.facts import DAY, HOUR, MINUTE, T0, fact
from viewmeter.testing.contracts.olap import ACME
from viewmeter.testing.contracts.olap_asking import Rows, build_due, put


class ViewersContract:
    """Exact viewers, cohorts and erasing: O12."""

    def test_exact_viewers_are_distinct_over_hours_and_by_channel(self, store: TimeSeriesStore) -> None:
        facts = [
            fact(0, viewer=1, plays=1), fact(HOUR, viewer=1, plays=1), fact(HOUR, viewer=2, plays=1),
            fact(0, viewer=1, plays=1, channel_id="c2"), fact(0, viewer=9, plays=1, is_bot="true"),
            fact(0, viewer=1, plays=1, tenant_id="other"),
        ]  # fmt: skip
        for hour in (0, HOUR):
            put(store, hour, facts)
        people = (Filter("is_bot", ("false",)),)
        with store.snapshot() as state:

            def count(*edges: int, **given: Any) -> Rows:
                scan = Scan("video", (), tuple(T0 + e for e in edges), **{"visible": ACME, "filters": people, **given})
                found = state.exact_viewers(scan)
                return found.sort_by([(n, "ascending") for n in found.column_names]).to_pylist()  # type: ignore[no-any-return]

            name = "unique_viewers_exact"
            assert count(0, HOUR, 2 * HOUR) == [{"bucket": 0, name: 1}, {"bucket": 1, name: 2}]
            assert count(0, 2 * HOUR) == [{"bucket": 0, name: 2}]
            assert count(0, 2 * HOUR, filters=()) == [{"bucket": 0, name: 3}]
            assert count(0, 2 * HOUR, visible=Visible("acme", ("c2",))) == [{"bucket": 0, name: 1}]
            assert count(0, 2 * HOUR, dimensions=("channel_id",)) == [
                {"bucket": 0, "channel_id": "c1", name: 2},
                {"bucket": 0, "channel_id": "c2", name: 1},
            ]
            with pytest.raises(ValueError, match="whole hours"):
                count(0, MINUTE)
            with pytest.raises(ValueError, match="country"):
                count(0, HOUR, dimensions=("country",))

    def test_counts_of_days_and_months_outlive_the_hours(self, store: TimeSeriesStore) -> None:
        facts = [fact(day * DAY, viewer=day % 3, plays=1, channel_id=f"c{day % 2}") for day in range(-14, 17, 4)]
        facts += [fact(0, viewer=7, plays=1)]
        for hour in sorted({f.at_ms - T0 for f in facts}):
            put(store, hour, facts, only=())
        build_due(store, 17 * DAY)  # 1 January 2027 is 14 days before T0
        store.expire(T0 + 100 * DAY)
        month = (T0 - 14 * DAY, T0 + 17 * DAY)
        with store.snapshot() as state:
            day = state.exact_viewers(Scan("video", (), (T0, T0 + DAY), ACME))
            assert day.to_pylist() == [{"bucket": 0, "unique_viewers_exact": 1}]
            assert state.exact_viewers(Scan("video", (), month, ACME)).to_pylist() == [
                {"bucket": 0, "unique_viewers_exact": 4}
            ]
            one = Scan("video", (), month, Visible("acme", ("c1",)), filters=(Filter("channel_id", ("c1",)),))
            assert state.exact_viewers(one).to_pylist() == [{"bucket": 0, "unique_viewers_exact": 1}]
            with pytest.raises(ValueError, match="not held by the hour"):
                state.exact_viewers(Scan("video", (), (T0, T0 + 2 * DAY), ACME))
            with pytest.raises(ValueError, match="not held by the hour"):
                state.exact_viewers(Scan("video", (), month, Visible("acme", ("c0", "c1"))))

    def test_cohorts_follow_viewers_from_their_first_week(self, store: TimeSeriesStore) -> None:
        """T0 is a Friday; weeks from the Monday before: 1 comes every week, 2 in the first two, 3 in the last two."""
        monday = -4 * DAY
        week = 7 * DAY
        seen = {0: (1, 2), 1: (1, 2), 2: (1, 3), 3: (1, 3)}
        facts = [fact(monday + n * week, viewer=v, plays=1) for n, viewers in seen.items() for v in viewers]
        facts += [fact(monday, viewer=8, plays=1, is_bot="true"), fact(monday, viewer=2, plays=1, channel_id="c2")]
        for n in seen:
            put(store, monday + n * week, facts)
        build_due(store, monday + 3 * week)  # the last week is told by its hours
        with store.snapshot() as state:

            def cohorts(first: int, **given: Any) -> dict[tuple[int, int], int]:
                edges = tuple(T0 + monday + n * week for n in range(first, 5))
                rows = state.cohorts(Scan("video", (), edges, ACME, **given)).to_pylist()
                return {(row["cohort"], row["later"]): row["viewers"] for row in rows}

            whole = {(0, 0): 2, (0, 1): 2, (0, 2): 1, (0, 3): 1, (2, 0): 1, (2, 1): 1}
            assert cohorts(0) == whole
            assert cohorts(1) == {(1, 0): 1, (1, 1): 1}  # 1 and 2 were there before
            only = (Filter("channel_id", ("c2",)),)
            assert cohorts(0, filters=only) == {(0, 0): 1}

    def test_O12_after_erasing_no_row_names_the_viewer(
        self, store: TimeSeriesStore, reopened: Callable[[], TimeSeriesStore]
    ) -> None:
        monday = -4 * DAY
        facts = [fact(monday + n * HOUR, viewer=v, plays=1) for n in range(2) for v in (1, 2)]
        facts += [fact(monday, viewer=1, plays=1, tenant_id="other")]
        for hour in (monday, monday + HOUR):
            put(store, hour, facts)
        build_due(store, 7 * DAY)
        assert store.erase_viewer("acme", 1) == 3  # two hours and a week
        assert store.erase_viewer("acme", 1) == 0
        for one in (store, reopened()):
            with one.snapshot() as state:
                edges = (T0 + monday, T0 + monday + DAY)
                assert state.exact_viewers(Scan("video", (), edges, ACME))["unique_viewers_exact"].to_pylist() == [1]
                other = state.exact_viewers(Scan("video", (), edges, Visible("other")))
                assert other["unique_viewers_exact"].to_pylist() == [1]
                weeks = (T0 + monday, T0 + monday + 7 * DAY)
                assert state.cohorts(Scan("video", (), weeks, ACME))["viewers"].to_pylist() == [1]
