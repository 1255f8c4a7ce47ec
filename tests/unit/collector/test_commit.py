"""Group commit: nothing is answered before it is durable, and one group fills while another is with the disk."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable

import pyarrow as pa
import pytest
from beacons_of_tests import event

from viewmeter.collector.columns import Beacon
from viewmeter.collector.commit import GroupCommit, OverloadedError
from viewmeter.collector.settings import CollectorSettings
from viewmeter.eventlog.protocol import LogUnavailableError

Make = Callable[..., Beacon]


class Gate:
    """A log whose disk answers when it is told to: the one thing that a real disk does not do on demand."""

    def __init__(self) -> None:
        self.open = threading.Event()
        self.batches: list[list[int]] = []
        self.error: Exception | None = None
        self.closed = False

    def append(self, events: pa.RecordBatch) -> int:
        assert self.open.wait(30)
        if self.error is not None:
            raise self.error
        self.batches.append(events.column("seq").to_pylist())
        return len(self.batches)

    def close(self) -> None:
        self.closed = True


async def turn() -> None:
    """Let everything run that can."""
    for _ in range(5):
        await asyncio.sleep(0)


def commit_of(log: Gate, clock: list[float] | None = None, **settings: int) -> GroupCommit:
    """Return a group commit; `clock` holds what time it is, in seconds."""
    now = clock or [0.0]
    return GroupCommit(log, CollectorSettings(**settings), asyncio.get_running_loop(), lambda: now[0])


def test_a_beacon_is_done_only_when_its_batch_is_durable_and_the_next_group_fills_meanwhile(beacon: Make) -> None:
    async def scenario() -> None:
        log = Gate()
        commit = commit_of(log)
        first = commit.submit(beacon(event(seq=1)))
        await turn()
        later = [commit.submit(beacon(event(seq=seq))) for seq in (2, 3)]
        await turn()
        assert not first.done()
        assert commit.pending_events == 3
        log.open.set()
        await asyncio.gather(first, *later)
        assert log.batches == [[1], [2, 3]]
        assert commit.pending_events == 0
        await commit.close()

    asyncio.run(scenario())


def test_beacons_of_one_turn_of_the_loop_share_a_batch(beacon: Make) -> None:
    async def scenario() -> None:
        log = Gate()
        log.open.set()
        commit = commit_of(log)
        await asyncio.gather(*(commit.submit(beacon(event(seq=seq))) for seq in range(5)))
        assert log.batches == [[0, 1, 2, 3, 4]]
        await commit.close()

    asyncio.run(scenario())


def test_what_waits_is_bounded(beacon: Make) -> None:
    async def scenario() -> None:
        log = Gate()
        commit = commit_of(log, max_pending_events=3)
        done = [commit.submit(beacon(event(seq=seq))) for seq in range(3)]
        with pytest.raises(OverloadedError):
            commit.submit(beacon(event(seq=9)))
        log.open.set()
        await asyncio.gather(*done)
        await commit.submit(beacon(event(seq=4)))
        assert log.batches == [[0, 1, 2], [4]]
        await commit.close()

    asyncio.run(scenario())


def test_a_batch_is_bounded(beacon: Make) -> None:
    async def scenario() -> None:
        log = Gate()
        commit = commit_of(log, max_batch_events=2)
        done = [commit.submit(beacon(event(seq=seq))) for seq in range(5)]
        log.open.set()
        await asyncio.gather(*done)
        assert log.batches == [[0, 1], [2, 3], [4]]
        await commit.close()

    asyncio.run(scenario())


@pytest.mark.parametrize("error", [LogUnavailableError("full"), RuntimeError("a defect")])
def test_a_log_that_fails_fails_its_group_and_the_next_one_is_tried(beacon: Make, error: Exception) -> None:
    async def scenario() -> None:
        log = Gate()
        log.open.set()
        log.error = error
        commit = commit_of(log)
        answers = await asyncio.gather(
            *(commit.submit(beacon(event(seq=seq))) for seq in range(2)), return_exceptions=True
        )
        assert [type(answer) for answer in answers] == [LogUnavailableError] * 2
        log.error = None
        await commit.submit(beacon(event(seq=2)))
        assert log.batches == [[2]]
        assert commit.pending_events == 0
        await commit.close()

    asyncio.run(scenario())


def test_a_beacon_that_cannot_be_written_raises_and_its_neighbours_do_not_notice(beacon: Make) -> None:
    async def scenario() -> None:
        log = Gate()
        log.open.set()
        commit = commit_of(log)
        with pytest.raises(UnicodeEncodeError):
            commit.submit(beacon(event(video_id="\ud800")))
        assert commit.pending_events == 0
        good = commit.submit(beacon(event(seq=1)))
        with pytest.raises(UnicodeEncodeError):
            commit.submit(beacon(event(video_id="\ud800")))
        await good
        assert log.batches == [[1]]
        await commit.close()

    asyncio.run(scenario())


def test_close_waits_for_everything_that_was_submitted(beacon: Make) -> None:
    async def scenario() -> None:
        log = Gate()
        commit = commit_of(log, max_batch_events=1)
        done = [commit.submit(beacon(event(seq=seq))) for seq in range(4)]
        await turn()
        closing = asyncio.ensure_future(commit.close())
        await turn()
        assert not closing.done()
        log.open.set()
        await closing
        assert all(one.done() for one in done)
        assert log.batches == [[0], [1], [2], [3]]

    asyncio.run(scenario())


def test_commits_begin_apart_and_the_wait_for_the_disk_is_part_of_it(beacon: Make) -> None:
    async def scenario() -> None:
        log, clock = Gate(), [0.0]
        commit = commit_of(log, clock, linger_ms=3_600_000)
        first = commit.submit(beacon(event(seq=1)))  # after a pause: at once
        await turn()
        waits = commit.submit(beacon(event(seq=2)))
        clock[0] += 3_600
        log.open.set()
        await asyncio.gather(first, waits)  # or it would take an hour
        assert [len(batch) for batch in log.batches] == [1, 1]
        await commit.close()

    asyncio.run(scenario())


def test_what_comes_in_a_stream_is_written_together(beacon: Make) -> None:
    async def scenario() -> None:
        log = Gate()
        log.open.set()
        commit = commit_of(log, linger_ms=3_600_000)
        await commit.submit(beacon(event(seq=1)))
        waits = [commit.submit(beacon(event(seq=seq))) for seq in (2, 3)]
        await turn()
        assert waits[0] is waits[1]  # one group
        assert not waits[0].done()
        assert len(log.batches) == 1

    asyncio.run(scenario())
