"""Raw events answer what the store answers where a rollup has the grouping, and what the oracle says everywhere."""

from __future__ import annotations

import contextlib
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from hours import Facts, clamped
from hypothesis import given, settings
from hypothesis import strategies as st

from viewmeter.archive.embedded import EmbeddedArchive
from viewmeter.batch.child import run_here
from viewmeter.batch.embedded import BatchSettings, EmbeddedBatch
from viewmeter.batch.raw import ArchivedEvents
from viewmeter.eventlog.embedded import EmbeddedLogReader
from viewmeter.model.catalogue.measures import ADDITIVE, VIEW_ENDS
from viewmeter.model.sketches import hll_estimate, kll_quantile
from viewmeter.model.time import HOUR_MS, MINUTE_MS, Interval, floor_to
from viewmeter.olap.embedded import DuckDBStore
from viewmeter.olap.errors import ScanTooLargeError
from viewmeter.olap.protocol import Filter, Part, Scan, Visible
from viewmeter.stream.rows import bitrate_bucket
from viewmeter.testing import oracle, oracle_views, strategies
from viewmeter.testing.columns import to_table

SUMS = tuple(m.name for m in (*ADDITIVE, *VIEW_ENDS) if m.name != "watch_kll")
SKETCHED = ("viewers_hll", "startup_kll", "watch_kll")
DELIVERY = ("channel_id", "video_id", "is_bot", "player", "cdn", "asn", "stream_type", "bitrate_bucket")
MIXED = ("country", "cdn", "is_bot", "bitrate_bucket", "os")
EVERYONE = Visible(None)

Events = list[dict[str, Any]]
shifts = st.integers(0, HOUR_MS - 1)


class Product:
    """Archive, store and batch jobs in a folder; the clock is set by hand."""

    def __init__(self, root: Path, events: Events, now_ms: int, part_events: int) -> None:
        self.now_ms = now_ms
        clock = lambda: self.now_ms  # noqa: E731
        self.log = EmbeddedLogReader(root / "log")
        self.archive = EmbeddedArchive(root / "archive", self.log, clock)
        self.archive.add(to_table(events), "test", now_ms)
        self.store = DuckDBStore(root / "store.duckdb")
        how = BatchSettings(part_events=part_events, rerun_after_s=0)
        self.batch = EmbeddedBatch(
            self.archive, root / "archive", self.store, root / "batch", clock, how, runner=run_here
        )
        self.raw = ArchivedEvents(
            self.archive.reader(), root / "batch", clock, how, closed=self.store.closed, groups_max=10_000
        )

    def close_hours(self, hours: list[int]) -> None:
        for hour in hours:
            self.batch.run_hour(hour)

    def end(self) -> None:
        self.archive.close()
        self.store.close()
        self.log.close()


@contextlib.contextmanager
def product(tmp: pytest.TempPathFactory, events: Events, now_ms: int, part_events: int = 1_000) -> Iterator[Product]:
    made = Product(tmp.mktemp("raw"), events, now_ms, part_events)
    try:
        yield made
    finally:
        made.end()


def hours_of(events: Events) -> list[int]:
    first, last = (f(e["ts"] for e in events) // HOUR_MS * HOUR_MS for f in (min, max))
    return [*range(first, last + HOUR_MS, HOUR_MS)]


def told(table: pa.Table, dimensions: tuple[str, ...]) -> dict[tuple[Any, ...], tuple[Any, ...]]:
    """Return the rows by group; sketches by what they answer."""
    out = {}
    for row in table.to_pylist():
        sums = tuple(row[name] for name in SUMS if name in row)
        found = [hll_estimate(row["viewers_hll"])] if "viewers_hll" in row else []
        found += [kll_quantile(row[n], q) for n in ("startup_kll", "watch_kll") if n in row for q in (0, 0.3, 0.5, 1)]
        out[row["bucket"], *(row[d] for d in dimensions)] = (sums, tuple(found))
    return out


def by_oracle(events: Events, edges: tuple[int, ...], now_ms: int) -> Facts:
    """Return the sums by bucket, `MIXED` and measure, by definition."""
    first = {key: distinct[0] for key, (distinct, _) in oracle.views(events).items()}
    out: Facts = Counter()

    def add(view: oracle.Key, instant: int, bitrate: int | None, cdn: str, name: str, amount: int) -> None:
        if edges[0] <= instant < edges[-1]:
            words = {**first[view], "cdn": cdn, "bitrate_bucket": bitrate_bucket(bitrate or 0)}
            words["is_bot"] = str(words["is_bot"]).lower()
            out[sum(e <= instant for e in edges) - 1, *(words[key] for key in MIXED), name] += amount

    for fact in oracle.increments(events, now_ms):
        add(fact.view, fact.instant_ms, fact.bitrate_kbps, fact.cdn, fact.measure, fact.amount)
    for view in oracle_views.ended_views(events, now_ms):
        for name, amount in oracle_views.per_view_sums([view]).items():
            add(view.key, view.instant_ms, view.bitrate_kbps, view.cdn, name, amount)
    return Counter({key: n for key, n in out.items() if n})


@given(events=strategies.event_lists(max_views=4), shift=shifts, parts=st.sampled_from([3, 1_000]), data=st.data())
@settings(deadline=None, max_examples=12)
def test_a_grouping_that_a_rollup_has_is_answered_as_by_the_store(
    tmp_path_factory: pytest.TempPathFactory, events: Events, shift: int, parts: int, data: st.DataObject
) -> None:
    events = clamped(events, shift)
    hours = hours_of(events)
    with product(tmp_path_factory, events, hours[-1] + 2 * HOUR_MS, parts) as made:
        made.close_hours(hours)
        start, end = hours[0], hours[-1] + HOUR_MS
        cuts = data.draw(st.sets(st.integers(1, (end - start) // MINUTE_MS - 1), max_size=3))
        edges = (start, *(start + cut * MINUTE_MS for cut in sorted(cuts)), end)
        words = data.draw(st.sets(st.sampled_from(sorted({e["cdn"] for e in events})), max_size=2))
        filters = (Filter("cdn", tuple(words), negate=data.draw(st.booleans())),)
        visible = data.draw(st.sampled_from([EVERYONE, Visible("t1"), Visible("t1", (events[0]["channel_id"],))]))
        question = Scan("delivery", (*SUMS, *SKETCHED), edges, visible, DELIVERY, filters)
        piece = Interval(start, end)
        stored = made.store.scan(Scan(**{**vars(question), "parts": (Part("minute", piece),)}))
        raw = made.raw.scan(question, [piece])
        assert raw.column_names == stored.column_names
        assert told(raw, DELIVERY) == told(stored, DELIVERY)


@given(events=strategies.event_lists(max_views=4), shift=shifts, parts=st.sampled_from([3, 1_000]), data=st.data())
@settings(deadline=None, max_examples=15)
def test_any_grouping_and_any_pieces_are_answered_as_by_the_oracle_whichever_hours_are_closed(
    tmp_path_factory: pytest.TempPathFactory, events: Events, shift: int, parts: int, data: st.DataObject
) -> None:
    events = clamped(events, shift)
    hours = hours_of(events)
    said_by = max(max(e["ts"], e["received_at"]) for e in events)
    now_ms = said_by + data.draw(st.integers(0, HOUR_MS))
    over = [hour for hour in hours if hour + HOUR_MS <= now_ms]
    with product(tmp_path_factory, events, now_ms, parts) as made:
        made.close_hours(over[: data.draw(st.integers(0, len(over)))])
        start, span = hours[0], hours[-1] + HOUR_MS - hours[0]
        edges = tuple(start + cut for cut in sorted(data.draw(st.sets(st.integers(0, span), min_size=2, max_size=5))))
        question = Scan("", SUMS, edges, EVERYONE, MIXED)
        found: Facts = Counter()
        # The buckets one by one in any number of questions amount to all of them in one.
        cut = data.draw(st.sampled_from(edges))
        for piece in (Interval(edges[0], cut), Interval(cut, edges[-1])):
            if piece.start_ms < piece.end_ms:
                for row in made.raw.scan(question, [piece]).to_pylist():
                    for name in SUMS:
                        found[row["bucket"], *(row[d] for d in MIXED), name] += row[name]
        found = Counter({key: n for key, n in found.items() if n and key[-1] != "late_events"})
        assert found == by_oracle(events, edges, now_ms)


T0 = floor_to(1_800_000_000_000, HOUR_MS)


def a_view(view: str, at_ms: int, beats: int = 4, **more: Any) -> Events:
    kinds = ["request", "play", *["heartbeat"] * beats]
    return [
        {
            "tenant_id": "t1", "channel_id": "c1", "video_id": "clip", "view_id": view, "viewer_hash": len(view),
            "seq": seq, "type": kind, "ts": at_ms + 30_000 * seq, "received_at": at_ms + 30_000 * seq + 20, **more,
        }
        for seq, kind in enumerate(kinds)
    ]  # fmt: skip


def test_it_counts_the_hours_it_reads_and_those_computed_on_the_way(tmp_path_factory: pytest.TempPathFactory) -> None:
    events = [e for n in range(4) for e in a_view(f"v{n}", T0 + n * HOUR_MS + 20 * MINUTE_MS)]
    with product(tmp_path_factory, events, T0 + 5 * HOUR_MS) as made:
        last = [Interval(T0 + 3 * HOUR_MS + MINUTE_MS, T0 + 3 * HOUR_MS + 2 * MINUTE_MS)]
        assert made.raw.events(last) == 24  # nothing is closed: from the first event on
        made.close_hours([T0, T0 + HOUR_MS])
        assert made.raw.events(last) == 12
        made.close_hours([T0 + 2 * HOUR_MS])
        assert made.raw.events(last) == 6
        assert made.raw.events([Interval(T0, T0 + 1), *last]) == 12


def test_it_reaches_back_to_the_first_event_where_rows_tell_of_more(tmp_path_factory: pytest.TempPathFactory) -> None:
    with product(tmp_path_factory, a_view("v", T0), T0 + 5 * HOUR_MS) as made:
        assert made.raw.reach_ms() == 0
        made.close_hours([T0])
        assert made.raw.reach_ms() == 0
    with product(tmp_path_factory, a_view("v", T0), T0 + 5 * HOUR_MS) as made:
        whom = ("tenant_id", "channel_id", "video_id", "is_bot", "viewer_hash", "hour_ms")
        kinds = (*[pa.string()] * 3, pa.bool_(), pa.int64(), pa.int64())
        viewers = pa.schema(zip(whom, kinds, strict=True)).empty_table()
        made.store.put_history(Interval(T0 - 3 * HOUR_MS, T0 - HOUR_MS), {}, viewers, T0)
        assert made.raw.reach_ms() == T0


def test_too_many_groups_and_what_events_cannot_tell_are_refused(tmp_path_factory: pytest.TempPathFactory) -> None:
    events = [e for n in range(30) for e in a_view(f"v{n}", T0, video_id=f"clip{n}")]
    with product(tmp_path_factory, events, T0 + HOUR_MS) as made:
        made.raw._groups_max = 29
        question = Scan("", ("plays",), (T0, T0 + HOUR_MS), EVERYONE, ("video_id",))
        with pytest.raises(ScanTooLargeError, match="more than 29 groups"):
            made.raw.scan(question, [question.interval])
        with pytest.raises(ValueError, match="no dimension percent"):
            made.raw.scan(Scan("", ("plays",), (T0, T0 + 1), EVERYONE, ("percent",)), [])
        with pytest.raises(ValueError, match="not asked for peak_viewers"):
            made.raw.scan(Scan("", ("peak_viewers",), (T0, T0 + 1), EVERYONE), [])


def test_one_question_at_a_time_reads_raw_events(tmp_path_factory: pytest.TempPathFactory) -> None:
    with product(tmp_path_factory, a_view("v", T0), T0 + HOUR_MS) as made:
        made.raw._wait_s = 0.01
        question = Scan("", ("plays",), (T0, T0 + HOUR_MS), EVERYONE)
        with made.raw._one_at_a_time(), pytest.raises(TimeoutError, match="ask again"):
            made.raw.scan(question, [question.interval])
        assert made.raw.scan(question, [question.interval])["plays"].to_pylist() == [1]
