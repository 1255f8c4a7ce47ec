"""Where an address is: country, and with a database file also region, city and network.

In: an address as text. Out: `Place`; every part that nobody knows is `UNKNOWN`. Promised: the address is not kept
here, and nothing is looked up over the network. `iptocc` (registries' data, 0.26 µs a look-up) is always there; a city
file overrides its country, because it knows where a network is *used*. Files are MaxMind DB files in the layouts of
MaxMind (GeoLite2, GeoIP2), DB-IP, and flat ones (`country_code`, `city`, `state1`). A file that is replaced is opened
anew by `refresh()`; one that cannot be read changes nothing, is logged and counted.
"""

from __future__ import annotations

import ipaddress
from pathlib import Path
from typing import Any, Final, NamedTuple

import iptocc
import maxminddb
import structlog

from viewmeter.collector import metrics
from viewmeter.model.events import MAX_ID_CHARS, UNKNOWN

_log = structlog.get_logger(__name__)

_PROBES: Final = ("8.8.8.8", "2001:4860:4860::8888")
"""Looked up in a new file before it is used: a file that was cut may open and fail at the first look-up."""


class Place(NamedTuple):
    """Where a sender is."""

    country: str = UNKNOWN
    region: str = UNKNOWN
    city: str = UNKNOWN
    asn: str = UNKNOWN


class Places:
    """Looks addresses up. Used by one thread."""

    def __init__(self, city_database: Path | None = None, asn_database: Path | None = None) -> None:
        self._city = _File("city_database", city_database) if city_database else None
        self._asn = _File("asn_database", asn_database) if asn_database else None

    def find(self, address: str) -> Place:
        """Return the place of an address; what is no address is nowhere."""
        try:
            parsed = ipaddress.ip_address(address.split("%")[0])
        except ValueError:
            return Place()
        if isinstance(parsed, ipaddress.IPv6Address) and parsed.ipv4_mapped:
            parsed = parsed.ipv4_mapped
        text = str(parsed)
        country, region, city, asn = iptocc.country_code(text) or UNKNOWN, UNKNOWN, UNKNOWN, UNKNOWN
        if self._city is not None and (found := self._city.find(text)):
            own, region, city = _city_of(found)
            country = country if own == UNKNOWN else own
        if self._asn is not None and (found := self._asn.find(text)):
            asn = _asn_of(found)
        return Place(country, region, city, asn)

    def refresh(self) -> bool:
        """Open files that were replaced. Returns whether one was: then what was found before may be out of date."""
        replaced = [file.refresh() for file in (self._city, self._asn) if file is not None]
        return any(replaced)

    def close(self) -> None:
        """Close the files."""
        for file in (self._city, self._asn):
            if file is not None:
                file.close()


class _File:
    """One database file, and the version of it that is open."""

    def __init__(self, setting: str, path: Path) -> None:
        self._setting = setting
        self._path = path
        self._version: tuple[int, ...] | None = None
        self._reader: maxminddb.Reader | None = None
        self.refresh()

    def find(self, address: str) -> dict[str, Any] | None:
        """Return the record of an address, if there is one."""
        if self._reader is None:
            return None
        try:
            record = self._reader.get(address)
        except (maxminddb.InvalidDatabaseError, ValueError):  # damaged; or IPv6, and the file knows IPv4 only
            return None
        return record if isinstance(record, dict) else None

    def refresh(self) -> bool:
        """Open the file if it is another one than before. Each bad file is reported once."""
        version: tuple[int, ...] = ()
        try:
            about = self._path.stat()
            version = (about.st_ino, about.st_size, about.st_mtime_ns)
            if version == self._version:
                return False
            reader = maxminddb.open_database(self._path)
        except (OSError, ValueError, maxminddb.InvalidDatabaseError) as error:
            self._refuse(version, error)
            return False
        try:
            for probe in _PROBES[: 2 if reader.metadata().ip_version == 6 else 1]:
                reader.get(probe)
        except (maxminddb.InvalidDatabaseError, ValueError) as error:
            reader.close()
            self._refuse(version, error)
            return False
        replaced, self._reader, self._version = self._reader, reader, version
        if replaced is not None:
            replaced.close()
        built = reader.metadata().build_epoch
        metrics.PLACES_BUILT.labels(self._setting).set(built)
        _log.info("places_opened", setting=self._setting, path=str(self._path), built=built)
        return True

    def _refuse(self, version: tuple[int, ...], error: Exception) -> None:
        if version == self._version:
            return
        self._version = version
        metrics.PLACES_REFUSED.labels(self._setting).inc()
        effect = "what was open stays in use" if self._reader is not None else "these places stay unknown"
        _log.error("places_refused", setting=self._setting, path=str(self._path), error=str(error), effect=effect)

    def close(self) -> None:
        """Close the file."""
        if self._reader is not None:
            self._reader.close()
            self._reader = None


def _city_of(record: dict[str, Any]) -> tuple[str, str, str]:
    """Return country, region and city of a record in any of the known layouts."""
    country = record.get("country")
    if isinstance(country, dict):  # MaxMind, DB-IP
        divisions = record.get("subdivisions")
        division = divisions[0] if isinstance(divisions, list) and divisions else None
        region = _part(division, "iso_code") or _name(division)
        return _word(_part(country, "iso_code")), _word(region), _word(_name(record.get("city")))
    city, state = record.get("city"), record.get("state1") or record.get("region") or record.get("state")
    return _word(record.get("country_code") or country), _word(state), _word(city)


def _asn_of(record: dict[str, Any]) -> str:
    traits = record.get("traits")
    number = record.get("autonomous_system_number")
    if number is None and isinstance(traits, dict):
        number = traits.get("autonomous_system_number")
    if number is None:
        number = record.get("asn") or record.get("as_number")  # flat: a number, or AS15169
    digits = str(number).removeprefix("AS")
    return f"AS{int(digits)}" if digits.isascii() and digits.isdigit() else UNKNOWN


def _part(part: Any, name: str) -> Any:
    return part.get(name) if isinstance(part, dict) else None


def _name(part: Any) -> Any:
    """Return the English name, or any: DB-IP and MaxMind name nearly everything in English."""
    names = _part(part, "names")
    return (names.get("en") or next(iter(names.values()), None)) if isinstance(names, dict) else None


def _word(text: Any) -> str:
    return (text.replace("\0", "")[:MAX_ID_CHARS].strip() if isinstance(text, str) else "") or UNKNOWN
