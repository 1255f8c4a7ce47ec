"""What every archive of raw events holds (archive/protocol.py, A1 to A9, as far as one process can see it).

A suite for one implementation subclasses `ArchiveContract` and gives a fixture `here`: an empty archive and its log as
`ArchiveUnderTest`. What only the implementation can be asked for (a full disk, damage, kill -9) stands beside it.
"""

from __future__ import annotations

import itertools
import pickle
from collections import Counter
from typing import Any, Protocol

import numpy as np
import pyarrow as pa
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from viewmeter.archive.protocol import ARCHIVE_SCHEMA, IMPORTED, READER, Archive
from viewmeter.eventlog.protocol import LogReader
from viewmeter.model.events import view_key
from viewmeter.model.time import HOUR_MS, MINUTE_MS, Interval
from viewmeter.testing.columns import to_table

T0 = 1_764_000_000_000 // HOUR_MS * HOUR_MS
ALWAYS = Interval(0, 2**60)


class Died(BaseException):
    """The process is gone: nothing after this point happened."""


class ArchiveUnderTest(Protocol):
    """An archive, its log and their clock."""

    now_ms: int
    log: LogReader

    def append(self, events: pa.Table, partition: int = 0) -> None:
        """Make events durable in the log, as one batch."""
        ...

    def open(self) -> Archive:
        """Return the archive, opened anew."""
        ...

    def plain(self) -> pa.Table:
        """Return what somebody sees who reads all files of the archive without asking it."""
        ...

    def die_at(self, step: int) -> None:
        """Raise `Died` in the archive opened next, at the `step`-th step of its changes from now on."""
        ...

    def fresh(self) -> ArchiveUnderTest:
        """Return another empty archive with a log of its own."""
        ...


def event(view: str, seq: int, at_ms: int = T0, viewer: int = 1, tenant: str = "acme", **more: Any) -> dict[str, Any]:
    """Return a heartbeat at `at_ms`."""
    return {
        "type": "heartbeat", "ts": at_ms, "received_at": at_ms + 200, "view_id": view, "seq": seq, "tenant_id": tenant,
        "channel_id": "c", "video_id": "v", "viewer_hash": viewer, "played_ms": seq * 1_000, **more,
    }  # fmt: skip


def events(*rows: dict[str, Any]) -> pa.Table:
    """Return the rows as the log has them."""
    return to_table(rows)


def seen(table: pa.Table) -> Counter[tuple[str, int]]:
    """Return how often each (view, seq) is in a table."""
    return Counter(zip(table["view_id"].to_pylist(), table["seq"].to_pylist(), strict=True))


class ArchiveContract:
    """A1 to A9."""

    # A1

    def test_A1_every_event_of_the_log_is_in_after_flush_just_as_it_was(self, here: ArchiveUnderTest) -> None:
        sent = events(
            event("a", 0, player="html5", country="DE", error_message="naïve ☃", fatal=2, playback_rate=1.5),
            event("a", 1, T0 + HOUR_MS, blind=True, is_bot=True, position_ms=2**53),
            event("b", 0, T0 - 50 * HOUR_MS, viewer=-(2**63), tenant="globex"),
        )
        here.append(sent, 3)
        archive = here.open()
        archive.flush()
        found = archive.read(ALWAYS)
        assert found.schema.equals(ARCHIVE_SCHEMA)
        places = {"partition": 3, "offset": 1}
        expected = [row | places for row in sent.to_pylist()]
        assert sorted(found.to_pylist(), key=str) == sorted(expected, key=str)

    def test_A1_flush_takes_nothing_twice(self, here: ArchiveUnderTest) -> None:
        here.append(events(event("a", 0), event("a", 1)))
        archive = here.open()
        archive.flush()
        archive.flush()
        here.append(events(event("a", 2)), 1)
        archive.flush()
        again = here.open()
        again.flush()
        assert seen(again.read(ALWAYS)) == {("a", 0): 1, ("a", 1): 1, ("a", 2): 1}
        assert again.positions() == {0: 1, 1: 1}

    def test_A1_what_the_log_holds_twice_the_archive_holds_twice(self, here: ArchiveUnderTest) -> None:
        here.append(events(event("a", 0), event("a", 0)))
        here.append(events(event("a", 0)))
        archive = here.open()
        archive.flush()
        assert seen(archive.read(ALWAYS)) == {("a", 0): 3}
        assert sorted(archive.read(ALWAYS)["offset"].to_pylist()) == [1, 1, 2]

    def test_A1_an_empty_log_is_no_trouble(self, here: ArchiveUnderTest) -> None:
        archive = here.open()
        archive.flush()
        assert archive.read(ALWAYS).num_rows == 0
        assert archive.read(ALWAYS).schema.equals(ARCHIVE_SCHEMA)
        assert (dict(archive.hours()), archive.events(T0), archive.positions()) == ({}, 0, {})

    # A2

    def test_A2_the_log_keeps_what_the_archive_has_not_taken(self, here: ArchiveUnderTest) -> None:
        for hour in range(3):
            here.now_ms = T0 + hour * HOUR_MS
            here.append(events(event("a", hour, here.now_ms)))
        archive = here.open()
        here.log.commit("stream", {0: 3})
        assert here.log.trim(T0 + 100 * HOUR_MS) == 0
        archive.flush()
        assert here.log.committed(READER) == {0: 3}
        assert here.log.trim(T0 + 100 * HOUR_MS) == 2, "the newest file of a partition always stays"

    # A3

    def test_A3_an_interval_is_half_open_and_goes_by_the_event_s_time(self, here: ArchiveUnderTest) -> None:
        times = [T0 - 1, T0, T0 + 30 * MINUTE_MS, T0 + HOUR_MS - 1, T0 + HOUR_MS]
        here.append(events(*(event("a", seq, at) for seq, at in enumerate(times))))
        archive = here.open()
        archive.flush()
        assert sorted(archive.read(Interval(T0, T0 + HOUR_MS))["seq"].to_pylist()) == [1, 2, 3]
        margins = Interval(T0 - 5 * MINUTE_MS, T0 + 65 * MINUTE_MS)
        assert sorted(archive.read(margins)["seq"].to_pylist()) == [0, 1, 2, 3, 4]
        assert archive.read(Interval(T0 + 1, T0 + 30 * MINUTE_MS)).num_rows == 0

    def test_A3_columns_and_views_can_be_picked(self, here: ArchiveUnderTest) -> None:
        here.append(events(*(event(f"view {n}", seq) for n in range(50) for seq in range(3))))
        archive = here.open()
        archive.flush()
        keys = np.array([view_key("acme", "view 7"), view_key("acme", "view 9"), 12345], np.int64)
        found = archive.read(ALWAYS, ["seq", "view_id"], keys)
        assert found.column_names == ["seq", "view_id"]
        assert seen(found) == {(f"view {n}", seq): 1 for n in (7, 9) for seq in range(3)}

    def test_A3_ranges_of_views_cut_an_hour_into_parts_without_remainder(self, here: ArchiveUnderTest) -> None:
        here.append(events(*(event(f"view {n}", 0) for n in range(200))))
        archive = here.open()
        archive.flush()
        edges = [-(2**63), -(2**61), 0, 2**62]
        ranges = [*((a, b - 1) for a, b in itertools.pairwise(edges)), (2**62, 2**63 - 1)]
        parts = [archive.read(ALWAYS, ["view_id", "seq"], key_range=part) for part in ranges]
        assert all(0 < part.num_rows < 200 for part in parts)
        assert sum((seen(part) for part in parts), Counter()) == {(f"view {n}", 0): 1 for n in range(200)}

    def test_A3_a_reader_can_be_sent_to_another_process(self, here: ArchiveUnderTest) -> None:
        here.append(events(event("a", 0)))
        archive = here.open()
        archive.flush()
        reader = pickle.loads(pickle.dumps(archive.reader()))
        assert seen(reader.read(ALWAYS)) == {("a", 0): 1}
        assert (dict(reader.hours()), reader.events(T0)) == (dict(archive.hours()), 1)

    def test_A3_a_view_is_found_in_the_archive_and_in_what_the_log_holds_behind_it(
        self, here: ArchiveUnderTest
    ) -> None:
        here.append(events(event("a", 1, T0), event("b", 0)))
        archive = here.open()
        archive.flush()
        here.append(events(event("a", 0, T0 - 3 * HOUR_MS), event("a", 2, tenant="globex")), 1)
        here.append(events(event("a", 3, T0 + HOUR_MS)), 1)
        assert archive.view("acme", "a")["seq"].to_pylist() == [0, 1, 3]
        assert archive.view("globex", "a")["seq"].to_pylist() == [2]
        assert archive.view("acme", "nobody").num_rows == 0
        archive.flush()
        assert archive.view("acme", "a")["seq"].to_pylist() == [0, 1, 3]

    # A4

    def test_A4_an_hour_s_number_rises_when_its_events_change_and_only_then(self, here: ArchiveUnderTest) -> None:
        late, hour = T0, T0 + HOUR_MS
        here.append(events(event("a", 0, late), event("b", 0, hour, viewer=2)))
        archive = here.open()
        archive.flush()
        first = dict(archive.hours())
        assert set(first) == {late, hour}
        archive.flush()
        archive.tidy(T0 + 100 * HOUR_MS, 10**9)
        assert dict(here.open().hours()) == first
        here.append(events(event("a", 1, late)))
        archive.flush()
        second = dict(archive.hours())
        assert second[late] > first[late]
        assert second[hour] == first[hour]
        archive.add(events(event("c", 0, hour)), "source", T0)
        third = dict(archive.hours())
        assert (third[late], third[hour] > second[hour]) == (second[late], True)
        archive.erase("acme", 1)
        assert archive.hours()[late] > third[late], "an hour that lost its last events is still told of"
        assert archive.events(late) == 0
        archive.drop_before(T0 + 1_000 * HOUR_MS)
        assert dict(archive.hours()) == {}

    def test_A4_a_dropped_hour_that_comes_back_has_a_number_it_never_had(self, here: ArchiveUnderTest) -> None:
        here.append(events(event("a", 0)))
        archive = here.open()
        archive.flush()
        before = archive.hours()[T0]
        archive.drop_before(T0 + 100 * HOUR_MS)
        assert dict(archive.hours()) == {}
        archive.add(events(event("a", 1)), "source", T0)
        assert archive.hours()[T0] > before

    # A5

    def test_A5_plain_readers_see_the_same_events(self, here: ArchiveUnderTest) -> None:
        archive = here.open()
        for seq in range(10):
            here.append(events(event("a", seq), event("b", seq, T0 + HOUR_MS)))
            archive.flush()
        assert seen(here.plain()) == seen(archive.read(ALWAYS))
        assert archive.tidy(T0 + HOUR_MS, 10**9) == 20
        assert seen(here.plain()) == seen(archive.read(ALWAYS))
        assert seen(here.plain()) == {(view, seq): 1 for view in "ab" for seq in range(10)}

    # A6

    def test_A6_a_source_is_imported_once(self, here: ArchiveUnderTest) -> None:
        archive = here.open()
        once = archive.add(events(event("a", 0), event("a", 1, T0 + HOUR_MS)), "digest", T0)
        assert (once.events, once.hours, once.known) == (2, (T0, T0 + HOUR_MS), False)
        twice = here.open().add(events(event("a", 0), event("a", 1, T0 + HOUR_MS)), "digest", T0)
        assert (twice.events, twice.hours, twice.known) == (2, (), True)
        other = archive.add(events(event("a", 0)), "other digest", T0)
        assert (other.events, other.known) == (1, False)
        assert seen(archive.read(ALWAYS)) == {("a", 0): 2, ("a", 1): 1}
        assert set(archive.read(ALWAYS)["partition"].to_pylist()) == {IMPORTED}

    # A7

    def test_A7_no_event_of_an_erased_viewer_is_left_and_all_others_are(self, here: ArchiveUnderTest) -> None:
        archive = here.open()
        for hour in range(3):
            at = T0 + hour * HOUR_MS
            here.append(events(event("hers", hour, at, viewer=7), event("his", hour, at, viewer=8)))
            here.append(events(event("other tenant's", hour, at, viewer=7, tenant="globex")))
            archive.flush()
        here.append(events(event("alone", 0, T0 + 9 * HOUR_MS, viewer=7)))
        archive.flush()
        assert archive.erase("acme", 7) == [T0, T0 + HOUR_MS, T0 + 2 * HOUR_MS, T0 + 9 * HOUR_MS]
        left = {(view, hour): 1 for view in ("his", "other tenant's") for hour in range(3)}
        assert seen(archive.read(ALWAYS)) == seen(here.plain()) == left
        assert archive.erase("acme", 7) == []
        archive.flush()
        assert seen(archive.read(ALWAYS)) == left

    # A8

    def test_A8_whole_hours_go_once_they_ended_and_all_of_it_arrived_before(self, here: ArchiveUnderTest) -> None:
        here.now_ms = T0 + 3 * HOUR_MS
        here.append(events(event("a", 0, T0), event("a", 1, T0 + HOUR_MS), event("a", 2, T0 + 2 * HOUR_MS)))
        archive = here.open()
        archive.flush()
        archive.add(events(event("b", 0, T0)), "late import", T0 + 50 * HOUR_MS)
        archive.tidy(T0 + 90 * HOUR_MS, 10**9)
        assert archive.drop_before(T0 + 2 * HOUR_MS + 1) == 0, "they arrived later"
        assert archive.drop_before(T0 + 40 * HOUR_MS) == 2, "the import arrived later"
        assert seen(archive.read(ALWAYS)) == seen(here.plain()) == {("a", 0): 1, ("b", 0): 1}
        assert archive.drop_before(T0 + 51 * HOUR_MS) == 1
        assert (archive.read(ALWAYS).num_rows, here.plain().num_rows) == (0, 0)

    # Crashes

    @settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
    @given(data=st.data())
    def test_A1_A5_a_process_that_dies_at_any_step_of_any_change_loses_and_doubles_nothing(
        self, here: ArchiveUnderTest, data: st.DataObject
    ) -> None:
        """Any changes, deaths in the middle of them; the model is a list of rows."""
        under = here.fresh()
        model = _Model()
        archive = under.open()
        actions = st.tuples(
            st.sampled_from(["append", "append", "flush", "add", "tidy", "erase", "drop"]),
            st.integers(0, 3),
            st.one_of(st.none(), st.integers(1, 8)),
        )
        for number, (action, which, dies) in enumerate(data.draw(st.lists(actions, max_size=14))):
            if action == "append":
                rows = [event(f"{number}-{i}", i, T0 + i * HOUR_MS, viewer=i) for i in range(which + 1)]
                under.append(events(*rows), which)
                model.logged += rows
                continue
            if dies is not None:
                under.die_at(dies)
                archive = under.open()
            try:
                model.try_out(archive, action, which, number)
            except Died:
                archive = under.open()
                model.settle(archive)
            model.check(archive, under.plain())
        archive = under.open()
        archive.flush()
        model.taken_from_log()
        model.check(archive, under.plain())


class _Model:
    """What the archive should hold, as a list of rows; after a death each change may have happened or not."""

    def __init__(self) -> None:
        self.logged: list[dict[str, Any]] = []  # durable, not archived for sure
        self.held: list[dict[str, Any]] = []
        self._now: tuple[str, int, int] = ("", 0, 0)

    def try_out(self, archive: Archive, action: str, which: int, number: int) -> None:
        self._now = (action, which, number)
        if action == "flush":
            archive.flush()
            self.taken_from_log()
        elif action == "add":
            archive.add(events(*self._import(which, number)), f"source {number}", T0)
            self.held += self._import(which, number)
        elif action == "tidy":
            archive.tidy(T0 + 1_000 * HOUR_MS, 10**9)
        elif action == "erase":
            archive.erase("acme", which)
            self._erased(which)
        else:
            archive.drop_before(T0 + which * HOUR_MS)
            self._dropped(which)

    def _import(self, which: int, number: int) -> list[dict[str, Any]]:
        return [event(f"import {number}", seq, T0 + which * HOUR_MS, viewer=seq % 4) for seq in range(5)]

    def taken_from_log(self) -> None:
        self.held += self.logged
        self.logged = []

    def _erased(self, viewer: int) -> None:
        self.held = [row for row in self.held if row["viewer_hash"] != viewer]

    def _dropped(self, hours: int) -> None:
        # The clock stands at T0: everything arrived then.
        if hours:
            self.held = [row for row in self.held if row["ts"] + HOUR_MS > T0 + hours * HOUR_MS]

    def settle(self, archive: Archive) -> None:
        """After a death: do it again, to its end. What had happened must not happen twice."""
        self.try_out(archive, *self._now)

    def check(self, archive: Archive, plain: pa.Table) -> None:
        expected = Counter((row["view_id"], row["seq"]) for row in self.held)
        assert seen(archive.read(ALWAYS)) == expected
        assert seen(plain) == expected
        by_hour = Counter(int(row["ts"]) // HOUR_MS * HOUR_MS for row in self.held)
        assert {hour: archive.events(hour) for hour in archive.hours() if archive.events(hour)} == by_hour
