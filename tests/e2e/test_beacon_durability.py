"""What was answered 2xx is on disk, whatever happens to the server."""

from __future__ import annotations

import signal
from pathlib import Path

import pytest
from collecting import Senders, Server, Start, event

from viewmeter.eventlog.embedded import EmbeddedLogReader

# Durability


def test_beacons_that_arrive_together_share_a_commit(start: Start) -> None:
    server = start()
    senders = Senders(server, 8)
    senders.wait_for(200)
    senders.end()
    reader = EmbeddedLogReader(server.data / "log")
    batches = reader.ends()[0]
    reader.close()
    assert sorted(row["seq"] for row in server.events()) == sorted(senders.acknowledged)
    assert batches < len(senders.acknowledged)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_what_was_acknowledged_is_there_after_a_stop_or_a_kill_under_load(start: Start, number: signal.Signals) -> None:
    server = start()
    senders = Senders(server, 8)
    senders.wait_for(100)
    server.process.send_signal(number)
    code = server.process.wait(60)
    senders.end()
    assert code == (0 if number == signal.SIGTERM else -number)
    durable = {row["seq"] for row in server.events()}
    assert set(senders.acknowledged) <= durable
    if number == signal.SIGTERM:
        assert durable == set(senders.acknowledged), "a stop gives every answer that is due"


def test_after_a_kill_the_next_start_goes_on(start: Start, tmp_path: Path) -> None:
    server = start()
    server.post([event(view_id="first")])
    server.process.kill()
    server.process.wait()
    again = Server(server.data)
    assert again.post([event(view_id="second")]).status_code == 204
    assert [row["view_id"] for row in again.events()] == ["first", "second"]
    assert again.stop() == 0
