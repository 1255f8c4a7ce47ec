"""What every time-series store holds (olap/protocol.py, O1 to O5).

A suite for one implementation subclasses `TimeSeriesStoreContract` and gives two fixtures: `store`, an empty one, and
`reopened`, a function that closes nothing and opens what is durable of that store again, as after kill -9.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from viewmeter.model.sketches import hll_estimate, kll_quantile
from viewmeter.olap.protocol import Commit, Filter, Scan, TimeSeriesStore, Top, Visible
from viewmeter.testing.contracts.facts import DAY, HOUR, MINUTE, T0, Fact, fact, rows_of

ACME = Visible("acme")


def commit(number: int) -> Commit:
    """Return a commit like the speed layer's."""
    return Commit(number, T0 + number, {0: number, 1: 2 * number}, T0 + number)


def scan(
    store: TimeSeriesStore,
    *measures: str,
    rollup: str = "video",
    edges: Sequence[int] = (0, DAY),
    visible: Visible = ACME,
    dimensions: tuple[str, ...] = (),
    filters: tuple[Filter, ...] = (),
) -> list[dict[str, Any]]:
    """Ask; `edges` count from T0. Rows come sorted."""
    at = tuple(T0 + edge for edge in edges)
    table = store.scan(Scan(rollup, measures, at, visible, dimensions, filters))
    keys = [n for n in ("bucket", "time_ms", *dimensions) if n in table.column_names]
    return table.sort_by([(k, "ascending") for k in keys]).to_pylist()  # type: ignore[no-any-return]


def _facts(draw: Callable[[st.SearchStrategy[Any]], Any]) -> list[Fact]:
    one = st.builds(
        fact,
        st.integers(0, 3 * HOUR // MINUTE).map(lambda m: m * MINUTE),
        viewer=st.one_of(st.none(), st.integers(-5, 5)),
        startup_ms=st.one_of(st.none(), st.integers(0, 5000).map(float)),
        tenant_id=st.sampled_from(["acme", "other"]),
        video_id=st.sampled_from(["v1", "v2"]),
        is_bot=st.sampled_from(["false", "true"]),
        plays=st.integers(-1, 5),
        played_ms=st.integers(0, 10**12),
    )
    return draw(st.lists(one, min_size=1, max_size=30))  # type: ignore[no-any-return]


class TimeSeriesStoreContract:
    """The promises as tests."""

    def test_O1_rows_of_all_rollups_and_the_commit_are_visible_together(self, store: TimeSeriesStore) -> None:
        store.append(rows_of([fact(0, plays=2), fact(0, concurrent_viewers=3)]), commit(1))
        store.flush()
        assert scan(store, "plays") == [{"bucket": 0, "plays": 2}]
        assert scan(store, "plays", rollup="audience") == [{"bucket": 0, "plays": 2}]
        assert scan(store, "concurrent_viewers", rollup="concurrency") == [
            {"bucket": 0, "time_ms": T0, "concurrent_viewers": 3}
        ]
        assert store.last_commit() == commit(1)

    def test_O1_an_append_that_is_refused_leaves_nothing(self, store: TimeSeriesStore) -> None:
        good = rows_of([fact(0, plays=1)])
        bad = {**good, "video": good["video"].append_column("surprise", pa.array([1]))}
        with pytest.raises(ValueError, match="surprise"):
            store.append(bad, commit(1))
        assert scan(store, "plays", rollup="audience") == []
        assert store.last_commit() is None

    def test_O2_a_commit_number_that_is_in_is_refused(self, store: TimeSeriesStore) -> None:
        store.append(rows_of([fact(0, plays=1)]), commit(1))
        with pytest.raises(ValueError, match="already in"):
            store.append(rows_of([fact(0, plays=1)]), commit(1))
        store.append({}, commit(2))
        with pytest.raises(ValueError, match="already in"):
            store.append(rows_of([fact(0, plays=1)]), commit(1))
        assert scan(store, "plays") == [{"bucket": 0, "plays": 1}]

    @given(data=st.data())
    @settings(
        max_examples=15,
        deadline=None,
        suppress_health_check=[HealthCheck.function_scoped_fixture],
        phases=[Phase.explicit, Phase.reuse, Phase.generate],  # a store an example: shrinking would take minutes
    )
    def test_O3_a_scan_is_the_merge_however_rows_were_cut_and_compacted(
        self, fresh_store: Callable[[], TimeSeriesStore], data: st.DataObject
    ) -> None:
        facts = _facts(data.draw)
        store = fresh_store()
        number = 0
        rest = list(facts)
        while rest:
            size = data.draw(st.integers(1, len(rest)))
            number += 1
            store.append(rows_of(rest[:size]), commit(number))
            rest = rest[size:]
            if data.draw(st.booleans()):
                store.compact(T0 + data.draw(st.integers(0, 4)) * HOUR)
        edges = (0, MINUTE, HOUR, 2 * HOUR, 4 * HOUR)
        rows = scan(
            store, "plays", "played_ms", "viewers_hll", "startup_kll", edges=edges, dimensions=("video_id", "is_bot")
        )
        assert [_readable(row) for row in rows] == _merged(facts, edges)
        store.close()

    def test_O3_compaction_saves_rows_and_no_numbers(self, store: TimeSeriesStore) -> None:
        for number in range(1, 4):
            store.append(rows_of([fact(0, plays=1, viewer=7), fact(HOUR, plays=1, viewer=number)]), commit(number))
        before = scan(store, "plays", "viewers_hll", edges=(0, HOUR, DAY))
        assert store.compact(T0 + HOUR) > 0
        assert store.compact(T0 + HOUR) == 0
        assert scan(store, "plays", "viewers_hll", edges=(0, HOUR, DAY)) == before
        assert store.figures().rows["video"] == 4

    def test_O3_late_rows_merge_into_minutes_that_were_compacted(self, store: TimeSeriesStore) -> None:
        store.append(rows_of([fact(0, plays=1, video_id="a"), fact(0, plays=1, video_id="b")]), commit(1))
        store.compact(T0 + DAY)
        store.append(rows_of([fact(0, plays=5, video_id="a")]), commit(2))
        store.compact(T0 + DAY)
        assert store.figures().rows["video"] == 2
        found = scan(store, "plays", dimensions=("video_id",))
        assert [(row["video_id"], row["plays"]) for row in found] == [("a", 6), ("b", 1)]

    def test_O4_a_scan_sees_one_state_while_appends_and_compactions_go_on(self, store: TimeSeriesStore) -> None:
        """Each append adds as many plays as coupons, so any one state has as many of both."""
        done = threading.Event()
        failures: list[BaseException] = []

        def write() -> None:
            try:
                for number in range(1, 40):
                    store.append(rows_of([fact(0, plays=1, viewer=number)]), commit(number))
                    if number % 5 == 0:
                        store.compact(T0 + DAY)
            except BaseException as failure:
                failures.append(failure)
            finally:
                done.set()

        writer = threading.Thread(target=write)
        writer.start()
        seen = 0
        while not done.is_set() or seen == 0:
            for row in scan(store, "plays", "viewers_hll"):
                assert row["plays"] == round(hll_estimate(row["viewers_hll"]))
                assert row["plays"] >= seen
                seen = row["plays"]
        writer.join()
        assert not failures
        assert scan(store, "plays") == [{"bucket": 0, "plays": 39}]

    def test_O5_what_append_returned_for_survives(
        self, store: TimeSeriesStore, reopened: Callable[[], TimeSeriesStore]
    ) -> None:
        store.append(rows_of([fact(0, plays=3, viewer=1)]), commit(1))
        store.append(rows_of([fact(HOUR, plays=4, viewer=2)]), commit(2))
        store.compact(T0 + HOUR)
        again = reopened()
        assert again.last_commit() == commit(2)
        assert scan(again, "plays", edges=(0, HOUR, DAY)) == [{"bucket": 0, "plays": 3}, {"bucket": 1, "plays": 4}]
        with pytest.raises(ValueError, match="already in"):
            again.append({}, commit(2))
        again.close()

    def test_commits_come_in_order_and_the_newest_is_never_forgotten(self, store: TimeSeriesStore) -> None:
        for number in range(1, 6):
            store.append({}, commit(number))
        assert store.commits_after(3) == [commit(4), commit(5)]
        store.forget_commits(4)
        assert store.commits_after(0) == [commit(5)]
        store.forget_commits(99)
        assert store.last_commit() == commit(5)
        assert store.commits_after(0) == [commit(5)]

    def test_loaded_rows_need_no_commit(self, store: TimeSeriesStore) -> None:
        store.load(rows_of([fact(0, plays=2)]))
        assert scan(store, "plays") == [{"bucket": 0, "plays": 2}]
        assert store.last_commit() is None

    def test_a_tenant_sees_its_own_rows_and_a_key_its_channels(self, store: TimeSeriesStore) -> None:
        store.append(
            rows_of([
                fact(0, plays=1, tenant_id="acme", channel_id="c1"),
                fact(0, plays=2, tenant_id="acme", channel_id="c2"),
                fact(0, plays=4, tenant_id="other", channel_id="c1"),
            ]),
            commit(1),
        )  # fmt: skip
        seen = {
            Visible("acme"): [{"bucket": 0, "plays": 3}],
            Visible("acme", ("c1",)): [{"bucket": 0, "plays": 1}],
            Visible("acme", ("c1", "c9")): [{"bucket": 0, "plays": 1}],
            Visible("acme", ()): [],
            Visible("nobody"): [],
            Visible(None): [{"bucket": 0, "plays": 7}],
        }
        for visible, rows in seen.items():
            assert scan(store, "plays", visible=visible) == rows

    def test_filters_keep_and_drop_values(self, store: TimeSeriesStore) -> None:
        countries = [f"x{i}" for i in range(200)]
        store.append(rows_of([fact(0, plays=1, country=c) for c in ("DE", "AT", "'; --")]), commit(1))

        def plays(*filters: Filter) -> int:
            rows = scan(store, "plays", rollup="audience", filters=filters)
            return sum(row["plays"] for row in rows)

        assert plays(Filter("country", ("DE", "AT"))) == 2
        assert plays(Filter("country", ("DE",), negate=True)) == 2
        assert plays(Filter("country", ("'; --",))) == 1
        assert plays(Filter("country", ("DE", *countries))) == 1
        assert plays(Filter("country", ("DE", *countries), negate=True)) == 2
        assert plays(Filter("country", ("DE",)), Filter("is_bot", ("false",))) == 1
        assert plays(Filter("is_bot", ("true",))) == 0

    def test_buckets_may_have_any_width(self, store: TimeSeriesStore) -> None:
        widths = [MINUTE * (1 + i % 7) for i in range(400)]
        edges = [sum(widths[:i]) for i in range(len(widths) + 1)]
        store.append(rows_of([fact(edge, plays=1) for edge in edges]), commit(1))
        for shown in (edges, edges[5:9], edges[3:5]):
            assert scan(store, "plays", edges=shown) == [{"bucket": i, "plays": 1} for i in range(len(shown) - 1)]
        every_second = edges[::2]
        assert scan(store, "plays", edges=every_second) == [
            {"bucket": i, "plays": 2} for i in range(len(every_second) - 1)
        ]

    @pytest.mark.parametrize("largest_first", [True, False])
    @pytest.mark.parametrize("count", [1, 3, 4, 9])
    def test_the_first_groups_by_a_sum_are_those_of_all_equal_ones_in_the_order_of_their_words(
        self, store: TimeSeriesStore, count: int, largest_first: bool
    ) -> None:
        plays = {"b": 5, "é": 7, "a": 5, "B": 5, "z": 9, "y": 0}
        facts = [fact(i * MINUTE, video_id=name, plays=n) for i, (name, n) in enumerate(plays.items())]
        store.append(rows_of([*facts, fact(0, video_id="z", plays=-8, is_bot="true")]), commit(1))
        question = Scan(
            "video", ("plays",), (T0, T0 + DAY), ACME, ("video_id",), (Filter("is_bot", ("false",)),),
            top=Top("plays", largest_first, count),
        )  # fmt: skip
        every = sorted(plays, key=lambda name: (-plays[name] if largest_first else plays[name], name.encode()))
        assert store.scan(question).column("video_id").to_pylist() == every[:count]

    @pytest.mark.parametrize(("measures", "edges"), [(("plays",), (0, HOUR, DAY)), (("played_ms",), (0, DAY))])
    def test_first_groups_are_those_of_one_bucket_by_what_is_asked_for(
        self, store: TimeSeriesStore, measures: tuple[str, ...], edges: tuple[int, ...]
    ) -> None:
        at = tuple(T0 + edge for edge in edges)
        with pytest.raises(ValueError, match="first groups"):
            store.scan(Scan("video", measures, at, ACME, ("video_id",), top=Top("plays", True, 3)))

    def test_a_group_with_rows_is_there_though_its_sketch_is_empty(self, store: TimeSeriesStore) -> None:
        store.append(rows_of([fact(0, plays=1, viewer=1, video_id="a"), fact(0, events=1, video_id="b")]), commit(1))
        found = scan(store, "viewers_hll", "startup_kll", dimensions=("video_id",))
        assert [(row["video_id"], row["viewers_hll"] is None) for row in found] == [("a", False), ("b", True)]
        assert all(row["startup_kll"] is None for row in found)

    def test_what_the_rollup_does_not_have_is_refused(self, store: TimeSeriesStore) -> None:
        with pytest.raises(ValueError, match="country"):
            scan(store, "plays", dimensions=("country",))
        with pytest.raises(ValueError, match="channel_id"):
            scan(store, "plays", rollup="platform", visible=Visible("acme", ("c1",)))
        with pytest.raises(ValueError, match="concurrent_viewers"):
            scan(store, "concurrent_viewers")
        with pytest.raises(ValueError, match="ascending"):
            scan(store, "plays", edges=(HOUR, 0))
        with pytest.raises(ValueError, match="grain"):
            scan(store, "plays", edges=(0, HOUR + 1))
        with pytest.raises(ValueError, match="nothing"):
            scan(store, "plays", rollup="nothing")


def _readable(row: dict[str, Any]) -> dict[str, Any]:
    sketches = {
        "viewers_hll": round(hll_estimate(row["viewers_hll"])),
        "startup_kll": kll_quantile(row["startup_kll"], 0.5),
    }
    return {**row, **sketches}


def _merged(facts: Sequence[Fact], edges: Sequence[int]) -> list[dict[str, Any]]:
    """Merge facts of `acme` by hand."""
    groups: dict[tuple[int, str, str], list[Fact]] = {}
    for one in facts:
        if one.word("tenant_id") == "acme":
            bucket = sum(one.at_ms - T0 >= edge for edge in edges) - 1
            groups.setdefault((bucket, one.word("video_id"), one.word("is_bot")), []).append(one)
    rows = []
    for (bucket, video, bot), members in sorted(groups.items()):
        startups = sorted(f.startup_ms for f in members if f.startup_ms is not None)
        rows.append(
            {
                "bucket": bucket,
                "video_id": video,
                "is_bot": bot,
                "plays": sum(f.sums["plays"] for f in members),
                "played_ms": sum(f.sums["played_ms"] for f in members),
                "viewers_hll": len({f.viewer for f in members if f.viewer is not None}),
                "startup_kll": startups[(len(startups) - 1) // 2] if startups else None,
            }
        )
    return rows
