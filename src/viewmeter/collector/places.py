"""Where an address is: country, and with a database file also region, city and network.

In: an address as text. Out: `Place`; every part that nobody knows is `UNKNOWN`. Promised: the address is not kept
here, and nothing is looked up over the network. `iptocc` (registries' data, 0.26 µs a look-up) is always there;
a city file (GeoIP2, GeoLite2, DB-IP) overrides its country, because it knows where a network is *used*.
"""

from __future__ import annotations

import ipaddress
from pathlib import Path
from typing import Any, NamedTuple

import iptocc
import maxminddb

from viewmeter.model.events import UNKNOWN


class Place(NamedTuple):
    """Where a sender is."""

    country: str = UNKNOWN
    region: str = UNKNOWN
    city: str = UNKNOWN
    asn: str = UNKNOWN


class Places:
    """Looks addresses up."""

    def __init__(self, city_database: Path | None = None, asn_database: Path | None = None) -> None:
        self._city = maxminddb.open_database(city_database) if city_database else None
        self._asn = maxminddb.open_database(asn_database) if asn_database else None

    def find(self, address: str) -> Place:
        """Return the place of an address; what is no address is nowhere."""
        try:
            parsed = ipaddress.ip_address(address.split("%")[0])
        except ValueError:
            return Place()
        if isinstance(parsed, ipaddress.IPv6Address) and parsed.ipv4_mapped:
            parsed = parsed.ipv4_mapped
        text = str(parsed)
        country, region, city = iptocc.country_code(text) or UNKNOWN, UNKNOWN, UNKNOWN
        if self._city is not None:
            found: Any = self._city.get(text) or {}
            country = found.get("country", {}).get("iso_code") or country
            divisions = found.get("subdivisions") or [{}]
            region = divisions[0].get("iso_code") or _english(divisions[0]) or UNKNOWN
            city = _english(found.get("city", {})) or UNKNOWN
        asn = UNKNOWN
        if self._asn is not None:
            record: Any = self._asn.get(text) or {}
            number = record.get("autonomous_system_number")
            asn = UNKNOWN if number is None else f"AS{number}"
        return Place(country, region, city, asn)


def _english(part: dict[str, Any]) -> str | None:
    name = part.get("names", {}).get("en")
    return None if name is None else str(name)
