# ruff: noqa: E501 - user agents are as long as they are
"""What the server adds: device, place, and who it was without knowing who."""

from __future__ import annotations

import json
import stat
from pathlib import Path

import pytest

from viewmeter.collector.agents import DEVICE_TYPES, parse
from viewmeter.collector.places import Place, Places
from viewmeter.collector.proxies import ClientAddress, bare, parse_networks
from viewmeter.collector.senders import Senders
from viewmeter.collector.viewers import DailySalt, TenantHashes
from viewmeter.metadata.keys import Tenant
from viewmeter.model.time import DAY_MS, HOUR_MS

USER_AGENTS = Path(__file__).parents[3].parent / "shared" / "data" / "user-agents.jsonl"
T0 = 1_764_000_000_000

# fmt: off
KNOWN = [
    ("Mozilla/5.0 (Windows NT 10.0; Win64; x64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/131.0 Safari/537.36",
     "desktop", "Windows", "Chrome"),
    ("Mozilla/5.0 (Macintosh; Intel Mac OS X 10.15; rv:132.0) Gecko/20100101 Firefox/132.0",
     "desktop", "Mac OS X", "Firefox"),
    ("Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) HeadlessChrome/131.0 Safari/537.36",
     "desktop", "Linux", "HeadlessChrome"),
    ("Mozilla/5.0 (iPhone; CPU iPhone OS 18_1 like Mac OS X) AppleWebKit/605.1.15 Version/18.1 Mobile/15E Safari/604.1",
     "phone", "iOS", "Mobile Safari"),
    ("Mozilla/5.0 (iPad; CPU OS 17_0 like Mac OS X) AppleWebKit/605.1.15 Version/17.0 Mobile/15E Safari/604.1",
     "tablet", "iOS", "Mobile Safari"),
    ("Mozilla/5.0 (Linux; Android 14; Pixel 8) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/131.0.0.0 Mobile Safari/537.36",
     "phone", "Android", "Chrome Mobile"),
    ("Mozilla/5.0 (Linux; Android 13; SM-X700) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/131.0.0.0 Safari/537.36",
     "tablet", "Android", "Chrome"),
    ("Mozilla/5.0 (SMART-TV; Linux; Tizen 7.0) AppleWebKit/537.36 (KHTML, like Gecko) Version/7.0 TV Safari/537.36",
     "tv", "Tizen", "Safari"),
    ("Mozilla/5.0 (Web0S; Linux/SmartTV) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/94.0 Safari/537.36 WebAppManager",
     "tv", None, None),
    ("Roku/DVP-12.5 (12.5.0.4178-46)", "tv", "Roku", "Roku"),
    ("AppleCoreMedia/1.0.0.22J357 (Apple TV; U; CPU OS 18_0 like Mac OS X; en_us)", "tv", None, None),
    ("Mozilla/5.0 (PlayStation; PlayStation 5/2.26) AppleWebKit/605.1.15 (KHTML, like Gecko) Version/13.0 Safari/605.1.15",
     "console", None, None),
    ("Mozilla/5.0 (compatible; Googlebot/2.1; +http://www.google.com/bot.html)", "bot", None, "Googlebot"),
    ("Python-urllib/3.11", "other", None, "Python-urllib"),
    ("curl/8.5.0", "other", None, "curl"),
    ("", "other", "unknown", "unknown"),
]
# fmt: on


@pytest.mark.parametrize(("text", "device", "os", "browser"), KNOWN)
def test_devices_of_today(text: str, device: str, os: str | None, browser: str | None) -> None:
    agent = parse(text)
    assert agent.device_type == device
    assert agent.is_bot == (device == "bot")
    assert os in (None, agent.os)
    assert browser in (None, agent.browser)


def test_families_are_those_that_the_authors_of_the_patterns_expect() -> None:
    if not USER_AGENTS.exists():
        pytest.skip("user-agents.jsonl is not here: it is in ../shared/data")
    lines = [json.loads(line) for line in USER_AGENTS.read_text().splitlines()]
    wrong = []
    agreed = 0
    for line in lines:
        agent = parse(line["user_agent"])
        assert agent.device_type in DEVICE_TYPES
        for part, ours in (("browser", agent.browser), ("os", agent.os)):
            if line[part] is not None and line[part]["family"] not in (ours, "Other", None):
                wrong.append((part, line[part], ours, line["user_agent"]))
        agreed += {"mobile": "phone"}.get(line["category"], line["category"]) == agent.device_type
    assert wrong == []
    assert agreed >= len(lines) * 0.85, "the file's own grouping by words is a convenience, not a truth"


def test_a_user_agent_of_any_length_is_bounded() -> None:
    assert parse("Mozilla/5.0 (" + "a" * 1_000_000 + ") Chrome/1").browser == "unknown"


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
