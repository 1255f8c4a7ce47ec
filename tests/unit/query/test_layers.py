"""Real time and history as one answer: closed hours, tiers, peaks, exact viewers, zones, curves and cohorts."""

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from viewmeter.live.embedded import MemoryLiveStore
from viewmeter.model.time import Interval
from viewmeter.olap.embedded import DuckDBSettings, DuckDBStore
from viewmeter.olap.protocol import Commit, HourRun, Scan, Visible
from viewmeter.query import Analytics, Answer, QueryProblem, QuerySettings, parse_query
from viewmeter.testing.contracts.facts import DAY, HOUR, MINUTE, T0, Fact, fact, hours_of, rows_of

LAST_SAMPLE = HOUR - 10_000
NOW = 40 * DAY


class Layers:
    """A store with both layers, and a way to ask. Times count from T0."""

    def __init__(self, path: Path) -> None:
        self.store = DuckDBStore(path, DuckDBSettings(threads=1, readers=2, keep_minutes_h=2, keep_hours_d=2))
        self.analytics = Analytics(self.store, MemoryLiveStore())
        self.number = 0

    def append(self, *facts: Fact) -> None:
        """Add facts as the speed layer does."""
        self.number += 1
        self.store.append(rows_of(facts), Commit(self.number, T0 + NOW, {0: self.number}, T0 + NOW))

    def close(self, *facts: Fact, also: Sequence[int] = ()) -> None:
        """Close the hours of the facts (and others) with exactly these."""
        by_hour: dict[int, list[Fact]] = {T0 + hour * HOUR: [] for hour in also}
        for one in facts:
            by_hour.setdefault(one.at_ms - one.at_ms % HOUR, []).append(one)
        for hour, members in sorted(by_hour.items()):
            rows, viewers = hours_of(members)
            self.store.put_hour(hour, rows, viewers.drop_columns("hour_ms"), HourRun(1, self.number, T0 + NOW))

    def build(self, until: int) -> None:
        """Build the days, weeks and months that ended by then."""
        while due := self.store.due(T0 + until):
            for period in due:
                self.store.build(period.kind, period.start_ms, period.zone)

    def ask(
        self,
        metrics: str | Sequence[str],
        start: int,
        end: int,
        visible: Visible = Visible("acme"),  # noqa: B008 - frozen
        zone: str = "UTC",
        now: int = NOW,
        **raw: Any,
    ) -> Answer:
        query = parse_query(
            {"metrics": metrics, "time_range": {"start": T0 + start, "end": T0 + end}, **raw}, now_ms=T0 + now
        )
        return self.analytics.query(query, visible, T0 + now, T0 + now, zone)

    def value(self, metric: str, start: int, end: int, **more: Any) -> Any:
        """Return the one number of a total."""
        (row,) = self.ask(metric, start, end, **more).rows
        return row[metric]


@pytest.fixture
def layers(tmp_path: Path) -> Iterator[Layers]:
    made = Layers(tmp_path / "store.duckdb")
    yield made
    made.store.close()


def tables(answer: Answer) -> list[list[str]]:
    """Return which tables each scan of the plan reads, in order."""
    return [[part["table"] for part in scan["parts"]] for scan in answer.meta["plan"]["scans"]]


# --- layers -------------------------------------------------------------------------------------------------------


def test_a_question_asked_again_sees_new_rows_and_hours_that_closed_since(layers: Layers) -> None:
    def asked() -> tuple[list[int], list[str]]:
        found = layers.ask("plays", 0, 3 * HOUR, granularity="hour")
        return [row["plays"] for row in found.rows], found.meta["sources"]

    layers.append(fact(0, plays=1), fact(HOUR, plays=10))
    assert asked() == ([1, 10, 0], ["speed"])
    layers.append(fact(2 * HOUR, plays=3))
    assert asked() == ([1, 10, 3], ["speed"])
    layers.close(fact(0, plays=5))
    assert asked() == ([5, 10, 3], ["speed", "batch"])
    layers.close(fact(HOUR, plays=7))
    layers.append(fact(2 * HOUR, plays=1))
    assert asked() == ([5, 7, 4], ["speed", "batch"])


def test_a_closed_hour_is_answered_by_its_batch_rows_and_an_open_one_by_the_speed_layer(layers: Layers) -> None:
    layers.append(fact(0, plays=1), fact(HOUR, plays=10))
    assert layers.ask("plays", 0, 2 * HOUR).meta["sources"] == ["speed"]
    layers.close(fact(0, plays=5))  # exact rows say otherwise: they stand
    found = layers.ask("plays", 0, 2 * HOUR, granularity="hour", explain=True)
    assert [row["plays"] for row in found.rows] == [5, 10]
    assert found.meta["sources"] == ["speed", "batch"]
    assert tables(found) == [["hour", "speed"]]
    assert layers.ask("plays", 0, HOUR).meta["sources"] == ["batch"]


def test_closing_an_hour_replaces_what_the_cache_held(layers: Layers) -> None:
    layers.append(fact(0, plays=1))
    assert layers.value("plays", 0, DAY) == 1
    assert layers.ask("plays", 0, DAY).meta["cached"] is True
    layers.close(fact(0, plays=2))
    assert layers.value("plays", 0, DAY) == 2


def test_metrics_of_whole_views_are_of_closed_hours_and_the_answer_says_up_to_when(layers: Layers) -> None:
    ends = [fact(i * MINUTE, watch_ms=1000.0 * (i + 1), measured_views=1, plays=1) for i in range(20)]
    layers.append(*ends, fact(HOUR, plays=1))
    metrics = ["plays", "watch_duration_p50_ms", "watch_duration_p95_ms"]
    unknown = layers.ask(metrics, 0, 2 * HOUR, now=2 * HOUR)
    assert unknown.rows == [
        {"time": "2027-01-15T00:00:00Z", "plays": 21, "watch_duration_p50_ms": None, "watch_duration_p95_ms": None}
    ]
    assert (unknown.meta["partial"], unknown.meta["closed_until"]) == (True, "2027-01-15T00:00:00Z")
    layers.close(*ends)
    half = layers.ask(metrics, 0, 2 * HOUR, now=2 * HOUR)
    assert half.rows[0]["watch_duration_p50_ms"] == 10_000.0
    assert half.rows[0]["watch_duration_p95_ms"] == 19_000.0
    assert half.rows[0]["plays"] == 21
    assert half.meta["closed_until"] == "2027-01-15T01:00:00Z"
    assert half.meta["approximate"]["watch_duration_p50_ms"] == {"rank_error": 0.0133}
    whole = layers.ask(metrics, 0, HOUR)
    assert (whole.meta["partial"], whole.meta["closed_until"]) == (False, None)
    assert layers.ask("plays", 0, 2 * HOUR).meta["closed_until"] is None


def test_average_percentage_and_ratio_per_view_are_ratios_of_batch_sums(layers: Layers) -> None:
    layers.close(
        fact(
            0, content_watched_ms=30, content_ms=100, content_views=1, watched_views=1, view_rebuffer_ratio_e9=5 * 10**8
        ),
        fact(HOUR, content_watched_ms=100, content_ms=100, content_views=1, watched_views=1),
    )
    (row,) = layers.ask(["average_percentage_watched", "rebuffer_ratio_per_view"], 0, 2 * HOUR).rows
    assert row["average_percentage_watched"] == 130 / 200
    assert row["rebuffer_ratio_per_view"] == 0.25


def test_mixed_filters_are_answered_by_the_hour_and_the_answer_says_up_to_when(layers: Layers) -> None:
    closed = [fact(0, plays=3, country="DE", os="iOS"), fact(HOUR, plays=4, country="DE", os="Linux")]
    layers.close(*closed)
    layers.append(fact(2 * HOUR, plays=9, country="DE", os="iOS"))
    asked = {"filters": [["is", "country", ["DE"]], ["is", "os", ["iOS"]]], "now": 3 * HOUR}
    found = layers.ask("plays", 0, 3 * HOUR, **asked)
    assert found.rows[0]["plays"] == 3
    assert found.meta["sources"] == ["batch"]
    assert (found.meta["partial"], found.meta["closed_until"]) == (True, "2027-01-15T02:00:00Z")
    widened = layers.ask("plays", 17 * MINUTE, HOUR + 5 * MINUTE, **asked)
    assert (widened.meta["start"], widened.meta["end"]) == ("2027-01-15T00:00:00Z", "2027-01-15T02:00:00Z")
    by_both = layers.ask("plays", 0, 2 * HOUR, dimensions=["country", "os"])
    assert [(r["os"], r["plays"]) for r in by_both.rows] == [("Linux", 4), ("iOS", 3)]
    with pytest.raises(QueryProblem, match="take granularity hour or coarser"):
        layers.ask("plays", 0, HOUR, granularity="5m", **asked)


class Events:
    """Raw events of a test: facts, summed for what is asked."""

    def __init__(self, *facts: Fact) -> None:
        self.facts, self.asked = facts, list[Sequence[Interval]]()

    def events(self, pieces: Sequence[Interval]) -> int:
        return sum(p.start_ms <= f.at_ms < p.end_ms for f in self.facts for p in pieces)

    def reach_ms(self) -> int:
        return T0

    def scan(self, question: Scan, pieces: Sequence[Interval]) -> pa.Table:
        self.asked.append(pieces)
        inside = [f for f in self.facts if any(p.start_ms <= f.at_ms < p.end_ms for p in pieces)]
        kept = [f for f in inside if all((f.word(w.dimension) in w.values) != w.negate for w in question.filters)]
        buckets = [sum(edge <= f.at_ms for edge in question.edges_ms[:-1]) - 1 for f in kept]
        rows = rows_of(kept)["platform"] if kept else None
        columns: dict[str, Any] = {"bucket": pa.array(buckets, pa.int32())}
        columns |= {d: pa.array([f.word(d) for f in kept], pa.string()) for d in question.dimensions}
        for name in question.measures:
            columns[name] = rows[name] if rows is not None else pa.array([], pa.int64())
        table = pa.table(columns)
        return (
            table.group_by(["bucket", *question.dimensions])
            .aggregate([(m, "sum") for m in question.measures])
            .rename_columns(["bucket", *question.dimensions, *question.measures])
            if rows is not None
            else table
        )


def test_raw_events_fill_what_rows_by_the_hour_cannot_tell_and_what_no_rollup_keeps(layers: Layers) -> None:
    facts = [
        fact(0, plays=3, country="DE", os="iOS", cdn="k"),
        fact(30 * MINUTE, plays=1, country="DE", os="iOS", cdn="k"),
        fact(HOUR, plays=4, country="DE", os="iOS", cdn="l"),
        fact(2 * HOUR, plays=9, country="DE", os="iOS", cdn="k"),
    ]
    layers.close(*facts[:3])
    layers.append(facts[3])
    raw = Events(*facts)
    layers.analytics = Analytics(layers.store, MemoryLiveStore(), raw=raw)
    asked = {"filters": [["is", "country", ["DE"]], ["is", "os", ["iOS"]]], "now": 3 * HOUR, "explain": True}
    found = layers.ask("plays", 0, 3 * HOUR, **asked)
    assert found.rows[0]["plays"] == 17
    assert found.meta["sources"] == ["batch", "archive"]
    assert found.meta["closed_until"] is None
    assert tables(found) == [["hour", "events"]]
    assert raw.asked == [(Interval(T0 + 2 * HOUR, T0 + 3 * HOUR),)]
    series = layers.ask("plays", 15 * MINUTE, 2 * HOUR + MINUTE, granularity="5m", dimensions=["os"], **asked)
    assert series.meta["start"] == "2027-01-15T00:15:00Z"
    assert {r["time"][11:16]: r["plays"] for r in series.rows if r["plays"]} == {"00:30": 1, "01:00": 4, "02:00": 9}
    nobody = layers.ask("plays", 0, 3 * HOUR, dimensions=["country", "cdn"])
    assert [(r["cdn"], r["plays"]) for r in nobody.rows] == [("k", 13), ("l", 4)]
    assert nobody.meta["sources"] == ["archive"]


def test_too_many_raw_events_are_refused_where_nothing_else_answers_and_left_out_where_hours_do(layers: Layers) -> None:
    facts = [fact(i * MINUTE, plays=1, country="DE", os="iOS", cdn="k") for i in range(70)]
    layers.close(*facts[:60])
    layers.analytics = Analytics(layers.store, MemoryLiveStore(), QuerySettings(raw_events_max=5), raw=Events(*facts))
    with pytest.raises(QueryProblem, match=r"holds 70 of them, and a query reads at most 5") as refused:
        layers.ask("plays", 0, 2 * HOUR, dimensions=["country", "cdn"])
    assert refused.value.code == "not_covered"
    found = layers.ask("plays", 0, 2 * HOUR, dimensions=["country", "os"])
    assert found.rows[0]["plays"] == 60
    assert (found.meta["partial"], found.meta["closed_until"]) == (True, "2027-01-15T01:00:00Z")
    with pytest.raises(QueryProblem, match="the archive reaches back to 2027-01-15T00:00:00Z"):
        layers.ask("plays", -HOUR, HOUR, dimensions=["country", "cdn"])


# --- tiers ---------------------------------------------------------------------------------------------------------


def test_long_ranges_come_from_coarse_tiers_and_say_the_same(layers: Layers) -> None:
    facts = [fact(day * DAY + 5 * HOUR, plays=day + 1, viewer=day % 7, startup_ms=float(day)) for day in range(11)]
    layers.close(*facts)
    layers.build(11 * DAY)
    metrics = ["plays", "unique_viewers", "startup_time_p50_ms"]
    found = layers.ask(metrics, 0, 12 * DAY, explain=True)
    assert found.rows[0]["plays"] == sum(range(1, 12))
    assert found.rows[0]["unique_viewers"] == 7
    assert found.rows[0]["startup_time_p50_ms"] == 5.0
    assert tables(found)[0][:2] == ["day", "week"]
    by_day = layers.ask("plays", 0, 11 * DAY, granularity="day", explain=True)
    assert [row["plays"] for row in by_day.rows] == [*range(1, 12)]
    assert tables(by_day)[0] == ["day"]
    layers.store.expire(T0 + 13 * DAY)
    again = layers.ask("plays", HOUR, 11 * DAY, granularity="day")
    assert [row["plays"] for row in again.rows] == [*range(1, 12)]
    assert again.meta["start"] == "2027-01-15T00:00:00Z"
    with pytest.raises(QueryProblem, match="take granularity day or coarser"):
        layers.ask("plays", 0, 2 * DAY, granularity="hour")


def test_days_of_a_tenants_zone_are_that_zones_and_another_zone_falls_back_to_it(layers: Layers) -> None:
    layers.store.set_zones({"acme": "Asia/Kolkata"}, T0 - 90 * DAY)
    facts = [fact(hour * HOUR, plays=1) for hour in range(0, 5 * 24, 6)]
    layers.close(*facts)
    layers.build(5 * DAY)
    layers.store.expire(T0 + 8 * DAY)
    # 6-hourly plays at 05:30, 11:30, 17:30 and 23:30 of Kolkata: four a day.
    asked = {"granularity": "day", "zone": "Asia/Kolkata"}
    local = layers.ask("plays", DAY, 4 * DAY, time_zone="Asia/Kolkata", **asked)
    assert local.meta["time_zone"] == "Asia/Kolkata"
    assert [row["plays"] for row in local.rows] == [4] * 4
    assert local.meta["start"] == "2027-01-16T00:00:00+05:30"
    other = layers.ask("plays", DAY, 4 * DAY, time_zone="Europe/Berlin", **asked)
    assert other.meta["time_zone"] == "Asia/Kolkata"
    assert other.rows == local.rows


def test_mixed_filters_are_answered_by_the_days_of_a_zone_off_the_hour(layers: Layers) -> None:
    layers.store.set_zones({"acme": "Asia/Kolkata"}, T0 - 90 * DAY)
    midnight = 18 * HOUR + 30 * MINUTE  # in Kolkata
    plays = {midnight - 15 * MINUTE: 1, midnight: 10, midnight + 20 * MINUTE: 100}
    layers.close(*(fact(at, plays=n, country="IN", os="iOS") for at, n in plays.items()), also=range(-24, 72))
    both = [["is", "country", ["IN"]], ["is", "os", ["iOS"]]]
    asked = {"granularity": "day", "zone": "Asia/Kolkata", "time_zone": "Asia/Kolkata", "filters": both}
    found = layers.ask("plays", midnight - DAY, midnight + DAY, **asked)
    assert [row["plays"] for row in found.rows] == [1, 110]
    assert found.meta["start"] == "2027-01-15T00:00:00+05:30"  # nothing is widened


# --- gauges ---------------------------------------------------------------------------------------------------------


def present(at: int, viewers: int, **words: Any) -> Fact:
    return fact(at, concurrent_viewers=viewers, concurrent_views=viewers, **words)


def old_samples(layers: Layers) -> None:
    """Two videos of two channels in hour 0, seen from days later, when the samples are gone."""
    layers.close(
        present(0, 5, channel_id="c1", video_id="a"),
        present(LAST_SAMPLE, 2, channel_id="c1", video_id="a"),
        present(0, 1, channel_id="c2", video_id="b"),
        present(LAST_SAMPLE, 7, channel_id="c2", video_id="b"),
        also=[24],
    )
    layers.build(2 * DAY)
    layers.store.expire(T0 + 5 * DAY)


def test_peaks_outlive_their_samples_for_each_scope(layers: Layers) -> None:
    old_samples(layers)
    assert layers.value("peak_concurrent_viewers", 0, DAY) == 9
    assert layers.value("peak_concurrent_viewers", 0, DAY, channel_id="c1") == 5
    assert layers.value("peak_concurrent_viewers", 0, DAY, video_id="b") == 7
    assert layers.value("peak_concurrent_viewers", 0, DAY, visible=Visible("acme", ("c1",))) == 5
    assert layers.value("peak_concurrent_viewers", 0, DAY, visible=Visible(None)) == 9
    by_video = layers.ask("peak_concurrent_viewers", 0, DAY, dimensions=["video_id"], explain=True)
    assert {r["video_id"]: r["peak_concurrent_viewers"] for r in by_video.rows} == {"a": 5, "b": 7}
    assert by_video.meta["sources"] == ["batch"]


def test_peaks_of_days_of_a_zone_off_the_hour_say_that_they_are_of_utc_hours(layers: Layers) -> None:
    """The hour from 18:00 UTC is in the day of Kolkata in which it begins, though that day ends at 18:30."""
    layers.store.set_zones({"acme": "Asia/Kolkata"}, T0 - 90 * DAY)
    late = 18 * HOUR + 45 * MINUTE  # 00:15 of the 16th in Kolkata
    layers.close(present(0, 1), present(late, 5), fact(late, plays=1), also=range(-24, 72))
    layers.build(3 * DAY)
    layers.store.expire(T0 + 8 * DAY)
    metrics = ["plays", "peak_concurrent_viewers"]
    asked = {"granularity": "day", "zone": "Asia/Kolkata", "time_zone": "Asia/Kolkata"}
    found = layers.ask(metrics, 0, DAY, **asked)
    assert [row["time"][:10] for row in found.rows] == ["2027-01-15", "2027-01-16"]
    assert [tuple(row[name] for name in metrics) for row in found.rows] == [(0, 5), (1, 0)]
    assert found.meta["by_utc_hours"] == metrics[1:]
    assert layers.ask("plays", 0, DAY, **asked).meta["by_utc_hours"] == []
    assert layers.ask(metrics, 0, DAY, granularity="day").meta["by_utc_hours"] == []
    layers.append(present(40 * DAY, 3))
    of_samples = layers.ask(metrics[1], 40 * DAY, 41 * DAY, now=41 * DAY, **asked)
    assert of_samples.meta["by_utc_hours"] == []


def test_peaks_of_recent_days_of_a_zone_off_the_hour_are_exact_while_minutes_tell(layers: Layers) -> None:
    """And from hours alone they are those of the hours that begin in the day; nothing is refused, nothing widened."""
    layers.store.set_zones({"acme": "Asia/Kolkata"}, T0 - 90 * DAY)
    seen = {17 * HOUR: 4, 18 * HOUR + 45 * MINUTE: 5, 20 * HOUR: 2}  # the second at 00:15 of the 16th in Kolkata
    layers.close(*(present(at, viewers) for at, viewers in seen.items()), also=range(-24, 72))
    asked = {"granularity": "day", "zone": "Asia/Kolkata", "time_zone": "Asia/Kolkata"}
    metrics = ["plays", "peak_concurrent_viewers"]

    def peaks() -> tuple[list[int], list[str]]:
        found = layers.ask(metrics, -5 * HOUR - 30 * MINUTE, 42 * HOUR + 30 * MINUTE, **asked)
        assert [row["time"][:10] for row in found.rows] == ["2027-01-15", "2027-01-16"]
        return [row[metrics[1]] for row in found.rows], found.meta["by_utc_hours"]

    assert peaks() == ([4, 5], [])
    layers.store.expire(T0 + 2 * DAY)  # minutes of two hours are kept
    assert peaks() == ([5, 2], metrics[1:])
    layers.build(3 * DAY)
    layers.store.expire(T0 + 8 * DAY)  # and now days alone
    assert peaks() == ([5, 2], metrics[1:])


def test_peaks_that_would_have_to_add_up_are_refused(layers: Layers) -> None:
    old_samples(layers)
    with pytest.raises(QueryProblem, match="peaks of each of the channels") as refused:
        layers.value("peak_concurrent_viewers", 0, DAY, visible=Visible("acme", ("c1", "c2")))
    assert refused.value.code == "not_covered"
    with pytest.raises(QueryProblem, match="group by channel_id and video_id"):
        layers.value("peak_concurrent_viewers", 0, DAY, filters=[["is", "video_id", ["a", "b"]]])


def test_samples_and_peaks_of_one_range_are_put_together(layers: Layers) -> None:
    layers.close(present(0, 9), present(LAST_SAMPLE, 3))
    layers.append(present(HOUR, 4), present(HOUR + LAST_SAMPLE, 5))
    assert layers.value("peak_concurrent_viewers", 0, 2 * HOUR) == 9
    assert layers.value("concurrent_viewers", 0, 2 * HOUR) == 5
    by_hour = layers.ask(["concurrent_viewers", "peak_concurrent_viewers"], 0, 3 * HOUR, granularity="hour")
    found = [(r["concurrent_viewers"], r["peak_concurrent_viewers"]) for r in by_hour.rows]
    assert found == [(3, 9), (5, 5), (0, 0)]


# --- exact viewers ---------------------------------------------------------------------------------------------------


def test_exact_viewers_are_counted_once_over_hours_channels_and_videos(layers: Layers) -> None:
    plays: Callable[..., Fact] = lambda hour, viewer, **words: fact(hour * HOUR, viewer=viewer, plays=1, **words)  # noqa: E731
    layers.close(plays(0, 1), plays(1, 1), plays(1, 2, channel_id="c2", video_id="z"), plays(1, 1, channel_id="c2"))
    assert layers.value("unique_viewers_exact", 0, 2 * HOUR) == 2
    assert layers.value("unique_viewers_exact", 0, HOUR) == 1
    by_channel = layers.ask("unique_viewers_exact", 0, 2 * HOUR, dimensions=["channel_id"]).rows
    assert {r["channel_id"]: r["unique_viewers_exact"] for r in by_channel} == {"c1": 1, "c2": 2}
    series = layers.ask(["unique_viewers_exact", "plays"], 0, 3 * HOUR, granularity="hour", now=3 * HOUR)
    assert [r["unique_viewers_exact"] for r in series.rows] == [1, 2, 0]
    assert series.meta["closed_until"] == "2027-01-15T02:00:00Z"
    now = layers.ask(["unique_viewers_exact"], 0, 2 * HOUR + 17 * MINUTE, now=2 * HOUR + 17 * MINUTE)
    assert now.rows[0]["unique_viewers_exact"] == 2
    assert now.meta["end"] == "2027-01-15T02:17:00Z"
    with pytest.raises(QueryProblem, match="is not counted by country"):
        layers.ask("unique_viewers_exact", 0, HOUR, dimensions=["country"])


def test_exact_viewers_of_days_of_a_zone_off_the_hour_count_where_their_hour_begins(layers: Layers) -> None:
    """And nothing is widened: the plays beside them are those of the days that were asked for."""
    layers.store.set_zones({"acme": "Asia/Kolkata"}, T0 - 90 * DAY)
    watched = {18 * HOUR + 15 * MINUTE: 1, 19 * HOUR: 2, 20 * HOUR: 3, 42 * HOUR: 3, 43 * HOUR: 4}
    layers.close(*(fact(at, viewer=viewer, plays=1) for at, viewer in watched.items()), also=range(-24, 72))
    layers.build(3 * DAY)
    metrics = ["plays", "unique_viewers_exact"]
    asked = {"granularity": "day", "zone": "Asia/Kolkata", "time_zone": "Asia/Kolkata"}
    for later in (3, 8, 100):  # by the hour; hours of plays are gone; viewers of hours too
        layers.store.expire(T0 + later * DAY)
        found = layers.ask(metrics, 18 * HOUR + 30 * MINUTE - DAY, 18 * HOUR + 30 * MINUTE + DAY, **asked)
        assert [row["time"] for row in found.rows] == ["2027-01-15T00:00:00+05:30", "2027-01-16T00:00:00+05:30"]
        assert found.meta["end"] == "2027-01-17T00:00:00+05:30"
        assert [tuple(row[name] for name in metrics) for row in found.rows] == [(1, 1), (3, 2)]
        assert found.meta["by_utc_hours"] == metrics[1:]


# --- curves and cohorts -------------------------------------------------------------------------------------------


def retention(layers: Layers, visible: Visible = Visible("acme"), **raw: Any) -> dict[str, Any]:  # noqa: B008 - frozen
    body = {"metrics": ["plays"], "video_id": "v1", "time_range": {"start": T0, "end": T0 + DAY}, **raw}
    query = parse_query(body, now_ms=T0 + NOW)
    return layers.analytics.retention(query, visible, T0 + NOW, T0 + NOW)


def test_retention_is_the_running_sum_of_runs_over_views(layers: Layers) -> None:
    def run(first: int, last: int, **words: Any) -> list[Fact]:
        begins = fact(0, retention_delta=1, percent=str(first), **words)
        return [begins] if last > 99 else [begins, fact(0, retention_delta=-1, percent=str(last), **words)]

    view = {"content_views": 1, "content_ms": 200_000}
    layers.close(
        *run(0, 100), *run(0, 50, country="DE"), *run(40, 50, country="DE"),
        fact(0, **view), fact(0, country="DE", **view),
    )  # fmt: skip
    curve = retention(layers)
    assert curve["views"] == 2
    assert len(curve["buckets"]) == 100
    assert curve["buckets"][0] == {"from_ratio": 0.0, "viewers_ratio": 1.0, "seconds": 0.0, "views": 2}
    assert curve["buckets"][45] == {"from_ratio": 0.45, "viewers_ratio": 1.5, "seconds": 90.0, "views": 3}
    assert curve["buckets"][50]["viewers_ratio"] == curve["buckets"][99]["viewers_ratio"] == 0.5
    germans = retention(layers, filters=[["is", "country", ["DE"]]])
    assert [germans["buckets"][i]["viewers_ratio"] for i in (0, 45, 50)] == [1.0, 2.0, 0.0]
    for nobody in (retention(layers, video_id="v9"), retention(layers, visible=Visible("other"))):
        assert {b["viewers_ratio"] for b in nobody["buckets"]} == {None}
        assert nobody["views"] == 0
    with pytest.raises(QueryProblem, match=r"retention is kept by .*, not by cdn"):
        retention(layers, filters=[["is", "cdn", ["k"]]])


def test_cohorts_follow_the_viewers_of_a_week(layers: Layers) -> None:
    # T0 is a Friday; 18 January a Monday.
    weeks = [3 * DAY, 10 * DAY, 17 * DAY]
    layers.close(
        *(fact(weeks[0], viewer=v, plays=1) for v in (1, 2, 3)),
        *(fact(weeks[1], viewer=v, plays=1) for v in (1, 2, 4)),
        *(fact(weeks[2], viewer=v, plays=1, channel_id="c2") for v in (1, 4)),
    )

    def ask(channel: str | None = None, visible: Visible = Visible("acme")) -> list[Any]:  # noqa: B008 - frozen
        found = layers.analytics.cohorts(channel, 3, visible, T0 + 18 * DAY, T0 + 18 * DAY)
        return [(c["week"][:10], c["viewers"], c["returned"]) for c in found["cohorts"]]

    assert ask() == [("2027-01-18", 3, [2, 1]), ("2027-01-25", 1, [1]), ("2027-02-01", 0, [])]
    assert ask("c2") == [("2027-01-18", 0, [0, 0]), ("2027-01-25", 0, [0]), ("2027-02-01", 2, [])]
    assert [c[1] for c in ask(visible=Visible("other"))] == [0, 0, 0]
    assert [c[1] for c in ask("c1", Visible("acme", ("c2",)))] == [0, 0, 0]


def test_what_arrives_for_an_hour_without_rows_of_a_built_day_is_in_the_answer_at_once(layers: Layers) -> None:
    layers.close(fact(HOUR, plays=3))
    layers.build(DAY)
    assert layers.value("plays", 0, DAY) == 3
    layers.append(fact(5 * HOUR, plays=4))
    assert layers.value("plays", 0, DAY) == 7
    layers.close(fact(5 * HOUR, plays=4))
    assert layers.value("plays", 0, DAY) == 7
