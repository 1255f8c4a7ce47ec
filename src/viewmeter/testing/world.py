"""The world of the synthetic viewers: where they live, what they watch on, and what there is to watch.

Out: weighted tables. Promised: every address lies in its country by the free country file, and every user-agent
string is a real one. Not done: regions and cities of addresses (the free file has none).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final


@dataclass(frozen=True)
class Country:
    """A country, its share of viewers, /24 networks in it, its hour of local time against UTC, and two cities."""

    code: str
    weight: float
    networks: tuple[str, ...]
    utc_offset_h: int
    cities: tuple[tuple[str, str], ...]  # (region, city)


COUNTRIES: Final = (
    Country("US", 26, ("35.32.130", "69.117.52", "156.1.228"), -6, (("NY", "New York"), ("CA", "Los Angeles"))),
    Country("DE", 14, ("31.253.230", "89.0.169", "53.221.99"), 1, (("BE", "Berlin"), ("HH", "Hamburg"))),
    Country("GB", 10, ("25.249.14", "82.15.11", "5.80.102"), 0, (("ENG", "London"), ("SCT", "Glasgow"))),
    Country("FR", 8, ("163.90.92", "84.205.144", "82.233.57"), 1, (("IDF", "Paris"), ("ARA", "Lyon"))),
    Country("IN", 9, ("223.186.102", "157.45.119", "49.37.84"), 5, (("MH", "Mumbai"), ("KA", "Bengaluru"))),
    Country("BR", 8, ("191.170.216", "187.38.11", "200.161.105"), -3, (("SP", "São Paulo"), ("BA", "Salvador"))),
    Country("JP", 6, ("60.112.235", "126.15.240", "118.14.117"), 9, (("13", "Tokyo"), ("27", "Osaka"))),
    Country("CA", 4, ("142.119.176", "70.50.216"), -5, (("ON", "Toronto"), ("QC", "Montréal"))),
    Country("AU", 3, ("144.140.112", "124.171.186"), 10, (("NSW", "Sydney"), ("VIC", "Melbourne"))),
    Country("NL", 3, ("212.19.193", "145.58.234"), 1, (("NH", "Amsterdam"), ("ZH", "Rotterdam"))),
    Country("PL", 3, ("109.207.63", "31.220.144"), 1, (("MZ", "Warsaw"), ("MA", "Kraków"))),
    Country("ES", 2, ("87.219.109", "85.60.65"), 1, (("MD", "Madrid"), ("CT", "Barcelona"))),
    Country("IT", 2, ("151.17.245", "95.240.123"), 1, (("RM", "Rome"), ("MI", "Milan"))),
    Country("MX", 2, ("201.138.91", "189.138.46"), -6, (("CMX", "Mexico City"), ("JAL", "Guadalajara"))),
)


@dataclass(frozen=True)
class Device:
    """A kind of device with its share of viewers, as the collector would name it, and its user agent."""

    device_type: str
    os: str
    browser: str
    weight: float
    user_agent: str
    player: str


_WEBKIT: Final = "AppleWebKit/537.36 (KHTML, like Gecko)"
DEVICES: Final = (
    Device(
        *("desktop", "Windows", "Chrome", 24),
        f"Mozilla/5.0 (Windows NT 10.0; Win64; x64) {_WEBKIT} Chrome/131.0.0.0 Safari/537.36",
        "hls.js",
    ),
    Device(
        *("desktop", "Mac OS X", "Safari", 10),
        "Mozilla/5.0 (Macintosh; Intel Mac OS X 10_15_7) AppleWebKit/605.1.15 (KHTML, like Gecko) "
        "Version/17.6 Safari/605.1.15",
        "native",
    ),
    Device(
        *("desktop", "Windows", "Firefox", 8),
        "Mozilla/5.0 (Windows NT 10.0; Win64; x64; rv:132.0) Gecko/20100101 Firefox/132.0",
        "dash.js",
    ),
    Device(
        *("phone", "Android", "Chrome Mobile", 24),
        f"Mozilla/5.0 (Linux; Android 14; Pixel 8) {_WEBKIT} Chrome/131.0.0.0 Mobile Safari/537.36",
        "hls.js",
    ),
    Device(
        *("phone", "iOS", "Mobile Safari", 18),
        "Mozilla/5.0 (iPhone; CPU iPhone OS 17_6_1 like Mac OS X) AppleWebKit/605.1.15 (KHTML, like Gecko) "
        "Version/17.6 Mobile/15E148 Safari/604.1",
        "native",
    ),
    Device(
        *("tablet", "iOS", "Mobile Safari", 5),
        "Mozilla/5.0 (iPad; CPU OS 16_7 like Mac OS X) AppleWebKit/605.1.15 (KHTML, like Gecko) "
        "Version/16.6 Mobile/15E148 Safari/604.1",
        "native",
    ),
    Device(
        *("tv", "Tizen", "Samsung Internet", 7),
        "Mozilla/5.0 (SMART-TV; Linux; Tizen 7.0) AppleWebKit/537.36 (KHTML, like Gecko) "
        "SamsungBrowser/5.0 Chrome/94.0.4606.31 TV Safari/537.36",
        "shaka",
    ),
    Device(
        *("tv", "Chromecast Linux", "Chrome", 4),
        f"Mozilla/5.0 (X11; Linux armv7l) {_WEBKIT} Chrome/90.0.4430.225 Safari/537.36 CrKey/1.56.500000 "
        "DeviceType/Chromecast",
        "shaka",
    ),
)

CDNS: Final = (("alpha", 0.6), ("beta", 0.4))
LADDER_KBPS: Final = (235, 750, 1_250, 2_500, 4_500, 8_000)

TITLES: Final = {
    "harbour-kitchen": (
        *("sourdough-in-a-small-oven", "five-soups-for-november", "how-to-sharpen-a-knife", "bread-for-beginners"),
        *("the-perfect-omelette", "preserving-lemons", "ramen-from-scratch", "one-pan-dinners"),
    ),
    "north-sea-cycling": (
        *("coast-road-in-the-rain", "packing-for-a-week", "fixing-a-flat-in-4-minutes", "hamburg-to-bergen-part-1"),
        *("hamburg-to-bergen-part-2", "hamburg-to-bergen-part-3", "choosing-a-saddle", "winter-riding-live"),
    ),
    "quiet-synths": (
        *("patching-a-slow-pad", "two-oscillators-are-enough", "tape-echo-explained", "studio-tour-2026"),
        *("late-night-session-live", "drums-without-samples", "what-a-filter-does", "ambient-hour"),
    ),
    "backyard-astronomy": (
        *("first-night-with-a-telescope", "the-moons-of-jupiter", "shooting-the-milky-way", "eclipse-live"),
        *("collimation-made-simple", "orion-in-detail", "star-hopping", "reading-a-star-chart"),
    ),
    "small-house-carpentry": (
        *("a-shelf-without-screws", "dovetails-by-hand", "building-a-window-seat", "choosing-timber"),
        *("the-sagging-door", "workshop-in-a-shed", "oil-or-varnish", "a-bed-with-drawers"),
    ),
}
"""Channels and their videos, most watched first. A title that ends in `-live` is a live stream."""
