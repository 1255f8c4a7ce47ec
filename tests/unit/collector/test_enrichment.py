"""What the server adds: place, and who it was without knowing who."""

from __future__ import annotations

import errno
import os
import stat
from pathlib import Path

import pytest

from viewmeter.collector.agents import Hints
from viewmeter.collector.columns import transposed
from viewmeter.collector.intake import unfollowed
from viewmeter.collector.places import Place, Places
from viewmeter.collector.proxies import ClientAddress, bare, parse_networks
from viewmeter.collector.request import Admitted
from viewmeter.collector.senders import Senders
from viewmeter.collector.viewers import DailySalt, TenantHashes
from viewmeter.eventlog.protocol import LogUnavailableError
from viewmeter.metadata.keys import Key, Tenant
from viewmeter.model.events import WireEvent
from viewmeter.model.time import DAY_MS, HOUR_MS, from_ms

T0 = 1_764_000_000_000


@pytest.mark.parametrize(
    ("peer", "address"),
    [("1.2.3.4:5", "1.2.3.4"), ("1.2.3.4", "1.2.3.4"), ("[::1]:5", "::1"), ("::1", "::1"), ("[::1]", "::1")],
)
def test_an_address_without_its_port(peer: str, address: str) -> None:
    assert bare(peer) == address


def test_forwarded_addresses_are_read_from_the_right_as_far_as_hops_are_trusted() -> None:
    client = ClientAddress(["10.0.0.0/8", "192.168.1.1", "fd00::/8"])
    assert client.of("10.0.0.1:80", ["1.1.1.1, 2.2.2.2, 10.9.9.9"]) == "2.2.2.2"
    assert client.of("10.0.0.1:80", ["1.1.1.1", "2.2.2.2, 192.168.1.1"]) == "2.2.2.2", "several lines are one list"
    assert client.of("10.0.0.1:80", []) == "10.0.0.1"
    assert client.of("9.9.9.9:80", ["1.1.1.1"]) == "9.9.9.9", "nobody believes a stranger"
    assert client.of("10.0.0.1:80", ["1.1.1.1, rubbish"]) == "10.0.0.1"
    assert client.of("[fd00::1]:80", ["2001:db8::1"]) == "2001:db8::1"
    assert client.of("[::ffff:10.0.0.1]:80", ["1.1.1.1"]) == "1.1.1.1"


def test_a_network_that_is_none_is_named() -> None:
    with pytest.raises(ValueError, match=r"'10\.0\.0\.0/99' is no network; write a CIDR"):
        parse_networks(["127.0.0.1", "10.0.0.0/99"])


def senders(folder: Path) -> Senders:
    return Senders(Places(), DailySalt(folder), 100)


def test_workers_of_one_folder_share_the_salt_of_the_day(tmp_path: Path) -> None:
    first, second = senders(tmp_path), senders(tmp_path)
    one, two = (each.find("8.8.8.8", "UA", T0) for each in (first, second))
    assert one is not two
    assert one.viewer_hash("acme") == two.viewer_hash("acme")
    assert one.viewer_hash("acme") != one.viewer_hash("other")
    assert senders(tmp_path / "elsewhere").find("8.8.8.8", "UA", T0).viewer_hash("acme") != one.viewer_hash("acme")


def test_the_next_day_nobody_is_known_again_and_yesterdays_salt_is_gone(tmp_path: Path) -> None:
    salt = DailySalt(tmp_path)
    today = salt.at(T0)
    (path,) = tmp_path.iterdir()
    assert path.read_bytes() == today
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    tomorrow = salt.at(T0 + DAY_MS)
    assert tomorrow != today
    (left,) = tmp_path.iterdir()
    assert left != path
    assert salt.at(T0) == tomorrow, "a clock that goes backwards does not bring a salt back"


def test_a_sender_is_another_one_after_midnight(tmp_path: Path) -> None:
    found = senders(tmp_path)
    late = T0 // DAY_MS * DAY_MS + DAY_MS - 1
    before, after = found.find("8.8.8.8", "UA", late), found.find("8.8.8.8", "UA", late + 1)
    assert before.viewer_hash("acme") != after.viewer_hash("acme")
    assert before.place == after.place


def test_a_sender_is_looked_up_once_an_hour(tmp_path: Path) -> None:
    found = senders(tmp_path)
    start = T0 // HOUR_MS * HOUR_MS
    assert found.find("8.8.8.8", "UA", start) is found.find("8.8.8.8", "UA", start + HOUR_MS - 1)
    assert found.find("8.8.8.8", "UA", start) is not found.find("8.8.8.8", "UA", start + HOUR_MS)


def test_addresses_are_forgotten_by_the_clock_and_not_by_the_next_beacon(tmp_path: Path) -> None:
    found = senders(tmp_path)
    start = T0 // HOUR_MS * HOUR_MS
    found.find("203.0.113.77", "UA", start)
    found.tidy(start + HOUR_MS - 1)
    assert known(found) != set()
    found.tidy(start + HOUR_MS)
    assert known(found) == set()


def known(found: Senders) -> set[object]:
    return {*found._senders.young, *found._senders._old, *found._places.young, *found._places._old}


def test_yesterdays_salt_is_gone_by_the_clock_and_not_by_the_next_beacon(tmp_path: Path) -> None:
    salt = DailySalt(tmp_path)
    salt.expire(T0)
    today = salt.at(T0)
    (path,) = tmp_path.iterdir()
    held = path.open("rb")  # whoever still has the file open reads nothing either
    salt.expire(T0 + DAY_MS)
    assert list(tmp_path.iterdir()) == []
    assert held.read() == bytes(32)
    held.close()
    assert salt._salt == b""
    assert salt.at(T0) not in (today, b""), "a clock that goes backwards gets neither the old salt nor none"


def test_what_a_killed_worker_left_of_a_salt_is_destroyed_too(tmp_path: Path) -> None:
    left = tmp_path / ".viewer-salt-2020-01-01.123.abcdef"
    left.write_bytes(b"x" * 32)
    DailySalt(tmp_path).expire(T0)
    assert not left.exists()


def test_a_start_on_a_later_day_destroys_the_salt_of_the_stop(tmp_path: Path) -> None:
    DailySalt(tmp_path).at(T0)
    DailySalt(tmp_path).expire(T0 + 3 * DAY_MS)
    assert list(tmp_path.iterdir()) == []


class Somewhere(Places):
    def find(self, address: str) -> Place:
        return Place("DE", "BE", "Berlin", "AS1")


def test_who_asks_not_to_be_followed_has_a_country_and_no_more(tmp_path: Path) -> None:
    found = Senders(Somewhere(), DailySalt(tmp_path), 100)
    assert found.find("192.0.2.1", "UA", T0).place == Place("DE", "BE", "Berlin", "AS1")
    sender = found.find("192.0.2.1", "UA", T0, anonymous=True)
    assert sender.place == Place("DE")
    assert sender.anonymous
    assert not found.find("192.0.2.1", "UA", T0).anonymous


def test_who_asks_not_to_be_followed_is_another_viewer_in_each_view() -> None:
    viewers = WireEvent.__struct_fields__.index("viewer_id")
    events = [
        WireEvent("play", float(T0), view, 0, "video", "channel", viewer_id=viewer)
        for view, viewer in (("v1", "ann"), ("v2", "ann"), ("v3", None))
    ]
    assert unfollowed(transposed(events))[viewers] == ("v1", "v2", "v3")
    rest = [f for i, f in enumerate(transposed(events)) if i != viewers]
    assert [f for i, f in enumerate(unfollowed(transposed(events))) if i != viewers] == rest


def test_hints_are_part_of_who_sends(tmp_path: Path) -> None:
    found = senders(tmp_path)
    chrome = "Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/131.0.0.0 Safari/537.36"
    brave = Hints('"Brave";v="131"', "?0", "Linux")
    assert found.find("192.0.2.1", chrome, T0).agent.browser == "Chrome"
    assert found.find("192.0.2.1", chrome, T0, brave).agent.browser == "Brave"


def test_a_viewer_id_hashes_by_the_secret_of_its_tenant_for_ever() -> None:
    one = TenantHashes(Tenant("acme", "", b"secret"), 10)
    again = TenantHashes(Tenant("acme", "", b"secret"), 10)
    other = TenantHashes(Tenant("acme", "", b"other"), 10)
    assert one.viewers["ann"] == again.viewers["ann"] != other.viewers["ann"]
    assert -(2**63) <= one.viewers["ann"] < 2**63


def test_remembered_hashes_are_bounded() -> None:
    hashes = TenantHashes(Tenant("acme", "", b"secret"), 10)
    values = [hashes.views[f"view {n % 25}"] for n in range(100)]
    assert values[:25] == values[25:50]
    assert len(hashes.views) <= 10


def test_a_request_keeps_its_sender_until_the_hour_is_over(tmp_path: Path) -> None:
    found = senders(tmp_path)
    asker = Admitted(Key("k", Tenant("acme", "", b""), frozenset()), "8.8.8.8", "UA", {}, [])
    first = found.of(asker, T0)
    assert found.of(asker, T0 + 1) is first is found.find("8.8.8.8", "UA", T0)
    later = found.of(asker, T0 + HOUR_MS)
    assert later is not first
    assert later.viewer_hash("acme") == first.viewer_hash("acme"), "of one day"
    assert found.of(asker, T0 + DAY_MS).viewer_hash("acme") != first.viewer_hash("acme"), "of the next"


def test_a_day_whose_salt_cannot_be_kept_takes_no_beacon_and_never_uses_yesterdays(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = senders(tmp_path)
    today = found.find("8.8.8.8", "UA", T0).viewer_hash("acme")
    with monkeypatch.context() as broken:
        broken.setattr(os, "link", full_disk)
        for _ in range(2):
            with pytest.raises(LogUnavailableError, match="the salt of the day cannot be kept: No space left"):
                found.find("8.8.8.8", "UA", T0 + DAY_MS)
    (left,) = tmp_path.iterdir()
    assert left.name.endswith(f"{from_ms(T0):%Y-%m-%d}"), "nothing is left of the attempts"
    tomorrow = found.find("8.8.8.8", "UA", T0 + DAY_MS).viewer_hash("acme")
    assert tomorrow != today
    (left,) = tmp_path.iterdir()
    assert left.name.endswith(f"{from_ms(T0 + DAY_MS):%Y-%m-%d}"), "yesterday's is gone"


def test_a_salt_that_could_not_be_destroyed_is_tried_again_and_not_used(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    salt = DailySalt(tmp_path)
    today = salt.at(T0)
    (path,) = tmp_path.iterdir()
    with monkeypatch.context() as broken:
        broken.setattr(os, "fsync", full_disk)
        with pytest.raises(OSError, match="No space left"):
            salt.expire(T0 + DAY_MS)
        with pytest.raises(OSError, match="No space left"):
            salt.expire(T0 + DAY_MS + 1)
    assert path.exists()
    salt.expire(T0 + DAY_MS + 2)
    assert list(tmp_path.iterdir()) == []
    assert salt.at(T0 + DAY_MS) != today


def full_disk(*_: object) -> None:
    raise OSError(errno.ENOSPC, "No space left on device")
