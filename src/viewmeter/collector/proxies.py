"""The client's address: the socket's peer, or what trusted proxies say it is.

In: the peer and X-Forwarded-For. Out: an address; IPv4 written as IPv6 (`::ffff:1.2.3.4`) comes out as IPv4. Promised:
nobody can choose an address by sending the header, since it is read from the right, and only as far as each hop is a
configured proxy. Not read: `Forwarded` (RFC 7239); where two headers say the same, a client writes the one that the
proxy does not.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable
from typing import Final

from viewmeter.collector.recent import Recent

_MAX_HOPS: Final = 32
"""Proxies in a row that are looked through; a longer chain is made up."""


def parse_networks(cidrs: Iterable[str]) -> list[ipaddress.IPv4Network | ipaddress.IPv6Network]:
    """Return the networks. Raises ValueError that names the entry that is none."""
    networks = []
    for cidr in cidrs:
        try:
            networks.append(ipaddress.ip_network(cidr.strip(), strict=False))
        except ValueError as error:
            raise ValueError(
                f"trusted_proxies: {cidr!r} is no network; write a CIDR like 10.0.0.0/8 or one address"
            ) from error
    return networks


class ClientAddress:
    """Finds the address that a request comes from."""

    def __init__(self, trusted_proxies: Iterable[str]) -> None:
        self._networks = parse_networks(trusted_proxies)
        self._trusted: Recent[str, bool] = Recent(self._is_trusted, 10_000)
        self.uses_forwarded = bool(self._networks)

    def of(self, peer: str, forwarded: Iterable[str]) -> str:
        """Return the address. `peer` is `address:port`; `forwarded` the X-Forwarded-For lines in their order."""
        address = bare(peer)
        if not self._networks or not self._trusted[address]:
            return address
        hops = [hop for line in forwarded for hop in line.rsplit(",", _MAX_HOPS)]
        for hop in reversed(hops[-_MAX_HOPS:]):
            candidate = bare(hop.strip())
            if not _is_address(candidate):
                break
            address = candidate
            if not self._trusted[address]:
                break
        return address

    def trusts(self, peer: str) -> bool:
        """Say whether the socket's peer is a configured proxy."""
        return bool(self._networks) and self._trusted[bare(peer)]

    def _is_trusted(self, address: str) -> bool:
        try:
            parsed = ipaddress.ip_address(address)
        except ValueError:
            return False
        return any(parsed in network for network in self._networks)


def bare(peer: str) -> str:
    """Return an address without its port: `1.2.3.4:5` and `[::1]:5` and both without a port."""
    address = peer.rpartition(":")[0]
    if address and ":" not in address and address[0] != "[":
        return address
    if peer.startswith("["):
        peer = peer[1:].partition("]")[0]
    elif peer.count(":") == 1:  # nothing stands in front of it
        return ""
    if ":" in peer and peer[:7].lower() == "::ffff:" and "." in peer:
        return peer[7:]
    return peer


def _is_address(text: str) -> bool:
    try:
        ipaddress.ip_address(text)
    except ValueError:
        return False
    return True
