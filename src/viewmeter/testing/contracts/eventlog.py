"""What every event log holds (eventlog/protocol.py, L1 to L7, as far as one process can see it).

A suite for one implementation subclasses `EventLogContract` and gives a fixture `log`: an empty log as `LogUnderTest`.
What only the implementation can be asked for (a full disk, a flipped byte, kill -9) stands beside that suite.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from typing import Any, Protocol

import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from viewmeter.eventlog.protocol import LogReader, LogWriter
from viewmeter.model.events import EVENT_SCHEMA, EventType
from viewmeter.model.time import HOUR_MS

T0 = 1_764_000_000_000


class LogUnderTest(Protocol):
    """A log, and the clock that its writers see."""

    now_ms: int

    def writer(self, partition: int = 0) -> LogWriter:
        """Open a writer. The fixture closes what is still open."""
        ...

    def reader(self) -> LogReader:
        """Open one more reader."""
        ...

    def fresh(self) -> LogUnderTest:
        """Return another empty log."""
        ...


def batch(*seqs: int, view: str = "view", received_at: int = T0) -> pa.RecordBatch:
    """Return heartbeats of one view with these `seq`; words differ, so that dictionaries do too."""
    rows = []
    for seq in seqs:
        row: dict[str, Any] = {}
        for field in EVENT_SCHEMA:
            if pa.types.is_dictionary(field.type) or pa.types.is_string(field.type):
                row[field.name] = f"{field.name} {seq % 3}"
            else:
                row[field.name] = False if pa.types.is_boolean(field.type) else -1
        rows.append(
            row | {"view_id": view, "seq": seq, "type": int(EventType.HEARTBEAT), "ts": T0, "received_at": received_at}
        )
    return pa.RecordBatch.from_pylist(rows, schema=EVENT_SCHEMA)


def seqs_by_offset(reader: LogReader, partition: int = 0, after: int = 0) -> dict[int, list[int]]:
    """Read a partition to its end, a batch at a time."""
    found: dict[int, list[int]] = {}
    while batches := reader.read({partition: after, **_others(reader, partition)}, max_events=1):
        for one in batches:
            assert one.partition == partition
            assert one.offset > after, "a batch came twice or out of order"
            found[one.offset] = one.events.column("seq").to_pylist()
            after = one.offset
    return found


def _others(reader: LogReader, partition: int) -> dict[int, int]:
    return {other: 2**62 for other in reader.partitions() if other != partition}


class EventLogContract:
    """L1 to L7."""

    def test_L1_append_returns_offsets_from_1_rising_by_1(self, log: LogUnderTest) -> None:
        writer = log.writer()
        assert [writer.append(batch(seq)) for seq in range(5)] == [1, 2, 3, 4, 5]

    def test_L1_what_was_appended_is_read_by_a_reader_opened_afterwards(self, log: LogUnderTest) -> None:
        sent = batch(1, 2, 3, 4)
        log.writer().append(sent)
        (read,) = log.reader().read({})
        assert (read.partition, read.offset) == (0, 1)
        assert read.events.schema.equals(EVENT_SCHEMA)
        assert read.events.to_pylist() == sent.to_pylist()

    def test_L1_offsets_go_on_after_a_restart_and_in_the_next_hour(self, log: LogUnderTest) -> None:
        writer = log.writer()
        assert writer.append(batch(1)) == 1
        log.now_ms += HOUR_MS
        assert writer.append(batch(2)) == 2
        writer.close()
        log.now_ms += 3 * HOUR_MS
        again = log.writer()
        assert again.append(batch(3)) == 3
        assert seqs_by_offset(log.reader()) == {1: [1], 2: [2], 3: [3]}

    def test_L1_a_clock_that_goes_backwards_changes_no_order(self, log: LogUnderTest) -> None:
        writer = log.writer()
        writer.append(batch(1))
        log.now_ms -= 5 * HOUR_MS
        writer.append(batch(2))
        writer.close()
        log.writer().append(batch(3))
        assert seqs_by_offset(log.reader()) == {1: [1], 2: [2], 3: [3]}

    def test_L2_a_batch_of_no_events_is_refused_and_leaves_nothing(self, log: LogUnderTest) -> None:
        writer = log.writer()
        with pytest.raises(ValueError, match="no events"):
            writer.append(batch())
        assert writer.append(batch(1)) == 1

    def test_L3_a_second_writer_of_a_partition_is_refused(self, log: LogUnderTest) -> None:
        log.writer(0)
        with pytest.raises(RuntimeError, match="already has a writer"):
            log.writer(0)
        log.writer(1)

    def test_L3_a_closed_writer_makes_room_for_the_next(self, log: LogUnderTest) -> None:
        log.writer().close()
        assert log.writer().append(batch(1)) == 1

    def test_L4_batches_come_once_and_in_order_from_a_position_on(self, log: LogUnderTest) -> None:
        writer = log.writer()
        for seq in range(1, 8):
            writer.append(batch(seq))
        reader = log.reader()
        assert [one.offset for one in reader.read({0: 4})] == [5, 6, 7]
        assert reader.read({0: 7}) == []
        writer.append(batch(8))
        assert [one.offset for one in reader.read({0: 7})] == [8]

    def test_L4_a_reader_sees_partitions_and_hours_that_come_later(self, log: LogUnderTest) -> None:
        reader = log.reader()
        assert (list(reader.partitions()), reader.read({}), reader.ends()) == ([], [], {})
        first = log.writer(0)
        assert (list(reader.partitions()), reader.ends()) == ([0], {0: 0})
        first.append(batch(1))
        log.writer(3).append(batch(2))
        log.now_ms += HOUR_MS
        first.append(batch(3))
        assert reader.ends() == {0: 2, 3: 1}
        assert [(one.partition, one.offset) for one in reader.read({})] == [(0, 1), (0, 2), (3, 1)]

    def test_L4_read_stops_at_until_inclusive(self, log: LogUnderTest) -> None:
        writer = log.writer()
        for seq in range(1, 6):
            writer.append(batch(seq))
        other = log.writer(1)
        other.append(batch(9))
        found = log.reader().read({0: 1}, until={0: 3})
        assert [(one.partition, one.offset) for one in found] == [(0, 2), (0, 3)]

    def test_L4_read_returns_one_batch_at_least_however_large(self, log: LogUnderTest) -> None:
        writer = log.writer()
        writer.append(batch(*range(50)))
        writer.append(batch(*range(50)))
        assert [one.offset for one in log.reader().read({}, max_events=10)] == [1]

    def test_L4_no_partition_starves_another(self, log: LogUnderTest) -> None:
        for partition in range(3):
            writer = log.writer(partition)
            for seq in range(20):
                writer.append(batch(seq))
        reader = log.reader()
        after: dict[int, int] = {}
        for _ in range(6):
            after |= {one.partition: one.offset for one in reader.read(after, max_events=6)}
        assert min(after.get(partition, 0) for partition in range(3)) > 0

    def test_L5_a_committed_reader_resumes_at_its_commit(self, log: LogUnderTest) -> None:
        reader = log.reader()
        assert reader.committed("stream") == {}
        reader.commit("stream", {0: 7, 1: 2})
        reader.commit("archive", {0: 3})
        reader.commit("stream", {0: 9})
        again = log.reader()
        assert again.committed("stream") == {0: 9, 1: 2}
        assert again.committed("archive") == {0: 3}

    def test_L6_only_what_every_reader_has_passed_and_retention_too_is_dropped(self, log: LogUnderTest) -> None:
        writer = log.writer()
        for hour in range(4):
            log.now_ms = T0 + hour * HOUR_MS
            writer.append(batch(hour, received_at=log.now_ms))
        reader = log.reader()
        late = T0 + 100 * HOUR_MS
        assert reader.trim(late) == 0, "nobody committed yet"
        reader.commit("stream", {0: 3})
        reader.commit("archive", {0: 1})
        assert reader.trim(T0) == 0, "nothing is older"
        assert reader.trim(late) == 1, "the archive still needs the second"
        assert list(seqs_by_offset(log.reader())) == [2, 3, 4]
        reader.commit("archive", {0: 4})
        reader.commit("stream", {0: 4})
        assert reader.trim(T0 + 2 * HOUR_MS) == 1, "only the second is old enough"
        assert list(seqs_by_offset(reader)) == [3, 4]

    def test_L6_offsets_go_on_when_everything_was_passed(self, log: LogUnderTest) -> None:
        writer = log.writer()
        writer.append(batch(1))
        log.now_ms += HOUR_MS
        writer.append(batch(2))
        writer.close()
        reader = log.reader()
        reader.commit("stream", {0: 2})
        reader.trim(T0 + 100 * HOUR_MS)
        log.now_ms += 50 * HOUR_MS
        assert log.writer().append(batch(3)) == 3
        assert [one.offset for one in reader.read({0: 2})] == [3]

    def test_L6_a_reader_that_has_not_come_to_a_partition_still_needs_it(self, log: LogUnderTest) -> None:
        writer = log.writer(1)
        writer.append(batch(1))
        log.now_ms += HOUR_MS
        writer.append(batch(2))
        reader = log.reader()
        reader.commit("stream", {0: 5})
        assert reader.trim(T0 + 100 * HOUR_MS) == 0

    def test_L7_nothing_is_damaged_in_a_sound_log(self, log: LogUnderTest) -> None:
        log.writer().append(batch(1))
        reader = log.reader()
        reader.read({})
        assert reader.damaged() == []

    @settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
    @given(data=st.data())
    def test_L4_any_history_is_read_as_it_was_written(self, log: LogUnderTest, data: st.DataObject) -> None:
        """Appends, hours, restarts and reads in any order; the reader sees a list."""
        here = log.fresh()
        written: Mapping[int, list[list[int]]] = {0: [], 1: []}
        writers = {partition: here.writer(partition) for partition in written}
        reader = here.reader()
        after = {0: 0, 1: 0}
        numbers = itertools.count()
        step = st.tuples(st.sampled_from(["append", "hour", "restart", "read"]), st.integers(0, 1), st.integers(1, 30))
        for action, partition, size in data.draw(st.lists(step, max_size=25)):
            if action == "append":
                seqs = [next(numbers) for _ in range(size)]
                written[partition].append(seqs)
                assert writers[partition].append(batch(*seqs)) == len(written[partition])
            elif action == "hour":
                here.now_ms += HOUR_MS
            elif action == "restart":
                writers[partition].close()
                writers[partition] = here.writer(partition)
            else:
                for one in reader.read(after, max_events=size):
                    assert one.offset == after[one.partition] + 1
                    assert one.events.column("seq").to_pylist() == written[one.partition][one.offset - 1]
                    after[one.partition] = one.offset
        assert reader.ends() == {partition: len(batches) for partition, batches in written.items()}
        rest = reader.read(after)
        for one in rest:
            after[one.partition] = one.offset
        assert after == reader.ends()
