"""The client's address: the socket's peer, or what trusted proxies say it is.

In: the peer and X-Forwarded-For. Out: an address. Promised: nobody can choose an address by sending the header, since
it is read from the right, and only as far as each hop is a configured proxy.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable

from viewmeter.collector.recent import Recent


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
        for hop in reversed([part.strip() for line in forwarded for part in line.split(",")]):
            candidate = bare(hop)
            if not _is_address(candidate):
                break
            address = candidate
            if not self._trusted[address]:
                break
        return address

    def _is_trusted(self, address: str) -> bool:
        try:
            parsed = ipaddress.ip_address(address)
        except ValueError:
            return False
        if isinstance(parsed, ipaddress.IPv6Address) and parsed.ipv4_mapped:
            parsed = parsed.ipv4_mapped
        return any(parsed in network for network in self._networks)


def bare(peer: str) -> str:
    """Return an address without its port: `1.2.3.4:5` and `[::1]:5` and both without a port."""
    if peer.startswith("["):
        return peer[1:].partition("]")[0]
    return peer.partition(":")[0] if peer.count(":") == 1 else peer


def _is_address(text: str) -> bool:
    try:
        ipaddress.ip_address(text)
    except ValueError:
        return False
    return True
