"""Who a beacon comes from and where that is, as far as it is known, over HTTP."""

from __future__ import annotations

import socket

import pytest
from collecting import CHROME, IPHONE, Server, Start, event

# Who and where


def test_viewers_are_known_again_by_their_id_and_differ_between_tenants(shared: Server) -> None:
    for view, key in (("who 1", "pk_acme"), ("who 2", "pk_acme"), ("who 3", "pk_other")):
        assert shared.post([event(view_id=view, viewer_id="ann")], key=key).status_code == 204
    first, second, third = (shared.event(view_id=f"who {n}")["viewer_hash"] for n in (1, 2, 3))
    assert first == second != third


def test_without_an_id_a_viewer_is_an_address_and_a_user_agent(shared: Server) -> None:
    senders = [("198.51.100.1", CHROME), ("198.51.100.1", CHROME), ("198.51.100.2", CHROME), ("198.51.100.1", IPHONE)]
    for n, (address, agent) in enumerate(senders):
        headers = {"X-Forwarded-For": address, "User-Agent": agent}
        assert shared.post([event(view_id=f"fallback {n}")], headers=headers).status_code == 204
    assert shared.post([event(view_id="fallback 4")], key="pk_other", headers=headers).status_code == 204
    hashes = [shared.event(view_id=f"fallback {n}")["viewer_hash"] for n in range(5)]
    assert hashes[0] == hashes[1]
    assert len(set(hashes)) == 4


@pytest.mark.parametrize(
    ("forwarded", "country"),
    [
        ("8.8.8.8", "US"),
        ("8.8.8.8, 127.0.0.1", "US"),
        ("8.8.8.8:443", "US"),
        ("2001:4860:4860::8888", "US"),
        ("[2001:4860:4860::8888]:443", "US"),
        ("::ffff:8.8.8.8", "US"),
        ("8.8.8.8, 193.0.6.139", "NL"),
        ("nonsense", "unknown"),
        ("10.1.2.3", "unknown"),
    ],
)
def test_the_country_is_that_of_the_last_address_which_no_trusted_proxy_has(
    shared: Server, forwarded: str, country: str
) -> None:
    view = f"from {forwarded}"
    answer = shared.post([event(view_id=view)], headers={"X-Forwarded-For": forwarded})
    assert answer.status_code == 204
    assert shared.event(view_id=view)["country"] == country


def test_nobody_chooses_an_address_where_no_proxy_is_trusted(start: Start) -> None:
    server = start()
    assert server.post([event()], headers={"X-Forwarded-For": "8.8.8.8"}).status_code == 204
    assert server.event()["country"] == "unknown"


def test_no_address_is_written_to_disk(start: Start) -> None:
    server = start(trusted_proxies=["127.0.0.1"])
    address = "203.0.113.77"
    for sent in (event(), event(seq=-1), event(viewer_id="ann", seq=1)):
        server.post([sent], headers={"X-Forwarded-For": address})
    server.process.terminate()
    output, _ = server.process.communicate(timeout=60)
    assert address not in output
    packed = socket.inet_aton(address)
    for path in server.data.rglob("*"):
        if path.is_file():
            assert address.encode() not in path.read_bytes(), path
            assert packed not in path.read_bytes(), path


def test_the_device_comes_from_the_user_agent(shared: Server) -> None:
    assert shared.post([event(view_id="phone")], headers={"User-Agent": IPHONE}).status_code == 204
    row = shared.event(view_id="phone")
    assert (row["device_type"], row["os"], row["browser"], row["is_bot"]) == ("phone", "iOS", "Mobile Safari", False)
