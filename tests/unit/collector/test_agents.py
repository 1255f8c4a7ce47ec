# ruff: noqa: E501 - user agents are as long as they are
"""From user agents and client hints to device, system and browser."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from viewmeter.collector.agents import DEVICE_TYPES, MAX_HINT_CHARS, NO_HINTS, Hints, hints_of, parse

USER_AGENTS = Path(__file__).parents[3].parent / "shared" / "data" / "user-agents.jsonl"

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


FAMILIES_AT_LEAST = 0.97
DEVICE_TYPES_AT_LEAST = 0.95

MISLED = {
    # Where the file's grouping by words is wrong or silent: a piece of the user agent, what it is, and why.
    "python-requests/0.14": ("other", "an HTTP library is how servers hand events on (decision 14)"),
    "scooter; .NET": ("bot", "AltaVista's crawler; the browser family is scooter"),
    "10_13_5) AppleWebKit/605.1.15 (KHTML, like Gecko) CriOS/102": (
        "tablet",
        "Chrome of iOS on desktop pages: an iPad",
    ),
    "10_14_6) AppleWebKit/605.1.15 (KHTML, like Gecko) EdgiOS/108": ("tablet", "Edge of iOS on desktop pages: an iPad"),
    "Linux x86_64; Quest 2": ("other", "a headset"),
    "Linux x86_64; Quest 3": ("other", "a headset"),
    "Puffin/3.11546IP": ("phone", "uap-core says iPhone"),
    "XBLWP7; ZuneWP7": ("phone", "Windows Phone 7"),
    "KFTT Build/IML74K": ("tablet", "uap-core says Kindle Fire HD"),
    "ALCATEL-OT510A/382": ("phone", "a feature phone"),
    "ICE Browser/5.05": ("desktop", "Windows 2000"),
    "Dreamcast US": ("console", "Sega Dreamcast"),
    "Boost SCP3810": ("phone", "a feature phone (BREW)"),
    "Sprint E4100": ("phone", "a feature phone (Brew MP)"),
    "WebTV/2.6": ("tv", "a set-top box"),
    "LG-T500 AppleWebkit": ("phone", "a feature phone"),
    "NokiaC2-03/07.48": ("phone", "a feature phone"),
    "NCSA_Mosaic/2.0 (Windows": ("desktop", "Windows 3.1"),
    "Sprint LN240": ("phone", "a feature phone (BREW)"),
    "Boost LG272": ("phone", "a feature phone (BMP)"),
    "OneBrowser/3.0 (SAMSUNG-GT-S5253": ("phone", "Samsung Wave 525"),
    "S60; SymbOS; Opera Mobi/275": ("phone", "Symbian"),
    "PantechP6010/JNUS": ("phone", "a feature phone"),
    "PantechP7040/JLUS": ("phone", "a feature phone"),
    "HTC Hero Build/FRF91": ("phone", "HTC Hero"),
    "SAMSUNG SM-Z9005": ("phone", "a phone with Tizen, not a television"),
    "webOSBrowser/221.14 Safari/534.6 Pre/3.0": ("phone", "Palm Pre, not a television"),
    "webOSBrowser/221.54": ("phone", "HP Veer, not a television"),
    "CitizenFX/1.0.0.26197": ("desktop", "the file finds the word tizen in it"),
}


def lines() -> list[dict[str, Any]]:
    if not USER_AGENTS.exists():
        pytest.skip("user-agents.jsonl is not here: it is in ../shared/data")
    return [json.loads(line) for line in USER_AGENTS.read_text().splitlines()]


@pytest.mark.parametrize("part", ["browser", "os"])
def test_families_are_those_that_the_authors_of_the_patterns_expect(part: str) -> None:
    said = [line for line in lines() if line[part] is not None and line[part]["family"] not in ("Other", None)]
    right = sum(getattr(parse(line["user_agent"]), part) == line[part]["family"] for line in said)
    assert right >= len(said) * FAMILIES_AT_LEAST, f"{right} of {len(said)}"


def test_device_types_are_those_of_the_devices() -> None:
    """The truth is what uap-core expects where it says Spider, our review where words mislead, else the grouping."""
    used, wrong = set(), []
    for line in lines():
        text = line["user_agent"]
        wanted = {"mobile": "phone"}.get(line["category"], line["category"])
        for piece, (reviewed, _) in MISLED.items():
            if piece in text:
                used.add(piece)
                wanted = reviewed
        if (line["device"] or {}).get("family") == "Spider":
            wanted = "bot"
        got = parse(text).device_type
        assert got in DEVICE_TYPES
        if got != wanted:
            wrong.append((wanted, got, text))
    assert len(wrong) <= len(lines()) * (1 - DEVICE_TYPES_AT_LEAST), wrong
    assert used == MISLED.keys(), "a row of the review that is not in the file any more"


def test_even_the_grouping_by_words_agrees_in_most() -> None:
    agreed = sum(
        parse(line["user_agent"]).device_type == {"mobile": "phone"}.get(line["category"], line["category"])
        for line in lines()
    )
    assert agreed >= len(lines()) * 0.87, f"{agreed} of {len(lines())}"


CHROME = "Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/131.0.0.0 Safari/537.36"
MOBILE = (
    "Mozilla/5.0 (Linux; Android 10; K) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/131.0.0.0 Mobile Safari/537.36"
)
BRANDS = '"Not:A-Brand";v="8", "Chromium";v="131", "Google Chrome";v="131"'


@pytest.mark.parametrize(
    ("text", "hints", "agent"),
    [
        (CHROME, NO_HINTS, ("desktop", "Linux", "Chrome")),
        (CHROME, Hints(BRANDS, "?0", "Linux"), ("desktop", "Linux", "Chrome")),
        (CHROME, Hints('"Chromium";v="131", "Brave";v="131"', "?0", "Windows"), ("desktop", "Windows", "Brave")),
        (CHROME, Hints(BRANDS, "?0", "Android"), ("tablet", "Android", "Chrome")),
        (CHROME, Hints(BRANDS, "?1", "Android"), ("phone", "Android", "Chrome")),
        (CHROME, Hints(BRANDS, "?1", ""), ("phone", "Linux", "Chrome")),
        (CHROME, Hints(BRANDS, "?0", "Chrome OS"), ("desktop", "Chrome OS", "Chrome")),
        (CHROME, Hints(BRANDS, "?0", "Amiga"), ("desktop", "Linux", "Chrome")),
        (CHROME, Hints(BRANDS, "?0", "Linux", "BRAVIA 4K"), ("tv", "Linux", "Chrome")),
        (MOBILE, Hints(BRANDS, "?1", "Android", "SM-X700"), ("tablet", "Android", "Chrome Mobile")),
        (MOBILE, Hints(BRANDS, "?1", "Android", "Pixel 9"), ("phone", "Android", "Chrome Mobile")),
        ("Googlebot/2.1", Hints(BRANDS, "?1", "Android"), ("bot", "unknown", "Googlebot")),
    ],
)
def test_hints_say_what_the_user_agent_hides(text: str, hints: Hints, agent: tuple[str, str, str]) -> None:
    assert parse(text, hints)[:3] == agent


def test_hints_are_read_from_the_headers_and_bounded() -> None:
    assert hints_of({}) is NO_HINTS
    assert hints_of({"sec-ch-ua-mobile": "?1"}) is NO_HINTS, "no browser sends it alone"
    sent = {"sec-ch-ua": BRANDS, "sec-ch-ua-mobile": "?1", "sec-ch-ua-platform": '"Android"', "sec-ch-ua-model": '"K"'}
    assert hints_of(sent) == Hints(BRANDS, "?1", "Android", "K")
    assert hints_of({"sec-ch-ua": BRANDS}) == Hints(BRANDS)
    assert all(len(text) <= MAX_HINT_CHARS for text in hints_of(dict.fromkeys(sent, "x" * 9999)))


def test_a_user_agent_of_any_length_is_bounded() -> None:
    assert parse("Mozilla/5.0 (" + "a" * 1_000_000 + ") Chrome/1").browser == "unknown"
