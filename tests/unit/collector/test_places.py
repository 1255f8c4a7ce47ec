"""Where an address is, by the files of different makers, and what happens when a file is replaced."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import mmdb_writer
import netaddr
import pytest

from viewmeter.collector import metrics
from viewmeter.collector.places import Place, Places
from viewmeter.collector.senders import Senders
from viewmeter.collector.viewers import DailySalt

BERLIN = "203.0.113.0/24"
IN_BERLIN, ELSEWHERE = "203.0.113.7", "198.51.100.7"

T0 = 1_764_000_000_000

# Layouts as their makers document them; values made up.
MAXMIND = {
    "city": {"geoname_id": 1, "names": {"de": "Köln", "en": "Cologne"}},
    "country": {"iso_code": "DE", "names": {"en": "Germany"}},
    "location": {"latitude": 50.9, "longitude": 6.9, "time_zone": "Europe/Berlin"},
    "registered_country": {"iso_code": "FR"},
    "subdivisions": [{"iso_code": "NW", "names": {"en": "North Rhine-Westphalia"}}, {"iso_code": "X"}],
}
DB_IP_LITE = {
    "city": {"names": {"en": "Cologne"}},
    "continent": {"code": "EU", "names": {"en": "Europe"}},
    "country": {"iso_code": "DE", "is_in_european_union": True, "names": {"en": "Germany"}},
    "location": {"latitude": 50.9, "longitude": 6.9},
    "subdivisions": [{"names": {"en": "North Rhine-Westphalia"}}],
}
FLAT = {"city": "Cologne", "country_code": "DE", "state1": "North Rhine-Westphalia", "state2": "Cologne District"}


def write(path: Path, record: Any, network: str = BERLIN, kind: str = "City") -> Path:
    """Write a file as tools do that replace one: beside it, then renamed."""
    writer = mmdb_writer.MMDBWriter(6, kind, ipv4_compatible=True)
    writer.insert_network(netaddr.IPSet([network]), record)
    writer.to_db_file(str(path.with_suffix(".new")))
    path.with_suffix(".new").rename(path)
    return path


@pytest.mark.parametrize(
    ("address", "country"),
    [
        ("8.8.8.8", "US"),
        ("2001:4860:4860::8888", "US"),
        ("::ffff:8.8.8.8", "US"),
        ("193.0.6.139", "NL"),
        ("127.0.0.1", "unknown"),
        ("fe80::1%eth0", "unknown"),
        ("no address", "unknown"),
        ("", "unknown"),
    ],
)
def test_the_country_of_an_address(address: str, country: str) -> None:
    assert Places().find(address) == Place(country)


@pytest.mark.parametrize(
    ("record", "place"),
    [
        (MAXMIND, ("DE", "NW", "Cologne")),
        (DB_IP_LITE, ("DE", "North Rhine-Westphalia", "Cologne")),
        (FLAT, ("DE", "North Rhine-Westphalia", "Cologne")),
        ({"country": "DE", "region": "NW", "city": "Cologne"}, ("DE", "NW", "Cologne")),
        ({"country": {"iso_code": "DE"}}, ("DE", "unknown", "unknown")),
        ({"country": {}, "subdivisions": [], "city": {}}, ("unknown", "unknown", "unknown")),
        ({"city": {"names": {"de": "Köln"}}, "country": {"iso_code": "DE"}}, ("DE", "unknown", "Köln")),
        ({"country_code": "", "city": "x" * 1_000, "state1": "a\0b"}, ("unknown", "ab", "x" * 255)),
        ("not a map", ("unknown", "unknown", "unknown")),
    ],
)
def test_a_city_file_of_any_known_layout(tmp_path: Path, record: Any, place: tuple[str, str, str]) -> None:
    places = Places(write(tmp_path / "city.mmdb", record))
    assert places.find(IN_BERLIN) == Place(*place)
    assert places.find(f"::ffff:{IN_BERLIN}") == Place(*place)
    assert places.find(ELSEWHERE) == Place()
    places.close()


@pytest.mark.parametrize(
    ("record", "asn"),
    [
        ({"autonomous_system_number": 64_500, "autonomous_system_organization": "Example"}, "AS64500"),
        ({"traits": {"autonomous_system_number": 64_500}}, "AS64500"),
        ({"asn": "AS64500", "as_name": "Example"}, "AS64500"),
        ({"asn": 64_500}, "AS64500"),
        ({"asn": "none"}, "unknown"),
        ({}, "unknown"),
    ],
)
def test_an_asn_file_of_any_known_layout(tmp_path: Path, record: Any, asn: str) -> None:
    places = Places(None, write(tmp_path / "asn.mmdb", record, kind="ASN"))
    assert places.find(IN_BERLIN) == Place(asn=asn)
    places.close()


def test_a_city_file_says_better_than_the_registries_where_a_network_is_used(tmp_path: Path) -> None:
    places = Places(write(tmp_path / "city.mmdb", MAXMIND, "8.8.8.0/24"))
    assert places.find("8.8.8.8").country == "DE"
    assert places.find("8.8.4.4").country == "US"
    places.close()


def test_a_file_that_is_replaced_is_used_without_a_restart(tmp_path: Path) -> None:
    path = write(tmp_path / "city.mmdb", MAXMIND)
    places = Places(path)
    assert not places.refresh()
    write(path, {**MAXMIND, "city": {"names": {"en": "Bonn"}}})
    assert places.find(IN_BERLIN).city == "Cologne"
    assert places.refresh()
    assert places.find(IN_BERLIN).city == "Bonn"
    assert not places.refresh()
    places.close()


def test_senders_are_looked_up_anew_within_ten_seconds_of_a_new_file(tmp_path: Path) -> None:
    path = write(tmp_path / "city.mmdb", MAXMIND)
    places = Places(path)
    found = Senders(places, DailySalt(tmp_path), 10)
    found.tidy(T0)
    assert found.find(IN_BERLIN, "UA", T0).place[2] == "Cologne"
    write(path, {**MAXMIND, "city": {"names": {"en": "Bonn"}}})
    found.tidy(T0 + 9_999)
    assert found.find(IN_BERLIN, "UA", T0 + 9_999).place[2] == "Cologne"
    found.tidy(T0 + 10_000)
    assert found.find(IN_BERLIN, "UA", T0 + 10_000).place[2] == "Bonn"
    places.close()


def refused() -> float:
    return float(metrics.PLACES_REFUSED.labels("city_database")._value.get())


@pytest.mark.parametrize("damage", ["text", "cut", "empty", "gone"])
def test_a_bad_file_changes_nothing_and_is_counted_once(tmp_path: Path, damage: str) -> None:
    path = write(tmp_path / "city.mmdb", MAXMIND)
    places = Places(path)
    bad = tmp_path / "bad"
    bad.write_bytes({"text": b"<html>", "cut": path.read_bytes()[200:], "empty": b"", "gone": b""}[damage])
    if damage == "gone":
        path.unlink()
    else:
        bad.replace(path)
    before = refused()
    assert not places.refresh()
    assert not places.refresh()
    assert refused() == before + 1
    assert places.find(IN_BERLIN).city == "Cologne"
    write(path, {**MAXMIND, "city": {"names": {"en": "Bonn"}}})
    assert places.refresh()
    assert places.find(IN_BERLIN).city == "Bonn"
    places.close()


def test_a_file_that_is_not_there_yet_stops_no_collector(tmp_path: Path) -> None:
    places = Places(tmp_path / "city.mmdb", tmp_path / "asn.mmdb")
    assert places.find("8.8.8.8") == Place("US")
    write(tmp_path / "city.mmdb", MAXMIND)
    assert places.refresh()
    assert places.find(IN_BERLIN).city == "Cologne"
    places.close()


def test_a_file_for_ipv4_alone_knows_no_ipv6(tmp_path: Path) -> None:
    writer = mmdb_writer.MMDBWriter(4, "City")
    writer.insert_network(netaddr.IPSet([BERLIN]), FLAT)
    writer.to_db_file(str(tmp_path / "city.mmdb"))
    places = Places(tmp_path / "city.mmdb")
    assert places.find(IN_BERLIN).city == "Cologne"
    assert places.find("2001:db8::1").city == "unknown"
    places.close()


def test_a_file_of_the_same_size_and_name_is_another_one(tmp_path: Path) -> None:
    path = write(tmp_path / "city.mmdb", FLAT)
    times = path.stat()
    places = Places(path)
    write(path, {**FLAT, "city": "Colonia"})
    os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))
    assert places.refresh()
    places.close()
