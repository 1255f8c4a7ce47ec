"""The live store's promises, on every implementation; and what the memory's own are."""

import threading

import pytest

from viewmeter.live.embedded import MemoryLiveSettings, MemoryLiveStore
from viewmeter.live.protocol import LiveScope
from viewmeter.testing.contracts.facts import MINUTE
from viewmeter.testing.contracts.live import ACME, NOW, LiveStoreContract, counted, everything, present, publish


@pytest.fixture
def live() -> MemoryLiveStore:
    return MemoryLiveStore()


class TestMemoryLiveStore(LiveStoreContract):
    pass


def test_V3_names_without_counters_are_forgotten() -> None:
    live = MemoryLiveStore(MemoryLiveSettings(forget_every=2))
    publish(live, [counted(video_id=f"v{i}") for i in range(500)])
    later = NOW + 70 * MINUTE
    for _ in range(4):
        publish(live, [counted(later, video_id="new")], at_ms=later)
    assert len(live._state.names[2].level) == 1
    assert live.read(LiveScope(ACME, video_id="new"), later).window["plays"] == 4


def test_above_the_exact_size_a_scope_is_counted_once_a_second_and_anew_after_a_publish() -> None:
    live = MemoryLiveStore(MemoryLiveSettings(exact_views=1))
    publish(live, views=[present(1), present(2)])
    assert live.read(everything(), NOW).concurrent_viewers == 2
    assert live.read(everything(), NOW + 1).concurrent_viewers == 2
    assert live.read(everything(), NOW + 60_000).concurrent_viewers == 0
    publish(live, views=[present(1), present(2), present(3)])
    assert live.read(everything(), NOW).concurrent_viewers == 3


def test_readers_are_never_shown_half_a_publish() -> None:
    """Each publish counts as many plays as attempts."""
    live = MemoryLiveStore(MemoryLiveSettings(forget_every=7))
    stop = threading.Event()
    wrong: list[object] = []

    def read() -> None:
        while not stop.is_set():
            window = live.read(LiveScope(ACME, video_id="v1"), NOW).window
            if window["plays"] != window["attempts"]:
                wrong.append(window)

    readers = [threading.Thread(target=read) for _ in range(2)]
    for reader in readers:
        reader.start()
    for number in range(200):
        publish(live, [counted(plays=1, attempts=1), counted(video_id=f"x{number}")])
    stop.set()
    for reader in readers:
        reader.join()
    assert not wrong
    assert live.read(LiveScope(ACME, video_id="v1"), NOW).window["plays"] == 200
