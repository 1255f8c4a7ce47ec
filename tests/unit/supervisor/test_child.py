"""How long a process that dies stays down."""

from __future__ import annotations

import socket

import pytest

from viewmeter.supervisor import port
from viewmeter.supervisor.child import FIRST_DELAY_S, HEALTHY_AFTER_S, next_delay


def test_the_pause_doubles_with_each_death_up_to_a_bound() -> None:
    pauses, pause = [], 0.0
    for _ in range(8):
        pause = next_delay(pause, lived_s=0.0, bound_s=5.0)
        pauses.append(pause)
    assert pauses == [0.1, 0.2, 0.4, 0.8, 1.6, 3.2, 5.0, 5.0]


def test_a_process_that_lived_long_enough_begins_anew() -> None:
    assert next_delay(5.0, lived_s=HEALTHY_AFTER_S, bound_s=5.0) == FIRST_DELAY_S


def test_a_port_that_somebody_serves_is_refused_even_where_he_would_share_it() -> None:
    with socket.socket() as other:
        other.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        other.bind(("127.0.0.1", 0))
        other.listen()
        with pytest.raises(port.PortError, match="is in use"):
            port.reserve("127.0.0.1", other.getsockname()[1])


def test_a_reserved_port_is_held_but_takes_no_connections() -> None:
    with port.reserve("127.0.0.1", 0) as holder, socket.socket() as client, pytest.raises(ConnectionRefusedError):
        client.connect(holder.getsockname())


def test_an_address_that_cannot_be_resolved_is_named() -> None:
    with pytest.raises(port.PortError, match=r"cannot listen on 'no\.such\.invalid'"):
        port.reserve("no.such.invalid", 0)


@pytest.mark.parametrize(
    ("host", "url"),
    [("127.0.0.1", "http://127.0.0.1:80"), ("0.0.0.0", "http://127.0.0.1:80"), ("::", "http://[::1]:80"),
     ("::1", "http://[::1]:80"), ("example.org", "http://example.org:80")],
)  # fmt: skip
def test_the_address_to_sign_in_at_is_one_that_a_browser_can_reach(host: str, url: str) -> None:
    assert port.url(host, 80) == url
