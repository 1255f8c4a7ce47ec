"""What sends: device type, operating system and browser, from the user agent and the client hints.

In: the User-Agent header, and the Sec-CH-UA headers where a browser sends them. Out: `Agent`. Families are ua-parser's,
unchanged (its Rust matcher answers in about 2 µs, and senders are cached). The device type is ours: the first rule of
`_RULES` that fits. A bot is a crawler; an HTTP library is none (it is how other servers hand their viewers' events on),
although uap-core files Python-urllib there.

Hints say three things that a user agent hides: a browser that calls itself Chrome (Brave), Android that asks for
desktop pages and says Linux, and the model of a device. Versions are not stored, so the platform's is not read.
"""

from __future__ import annotations

import re
from typing import Any, Final, NamedTuple, Protocol

import ua_parser

from viewmeter.model.events import MAX_ID_CHARS, UNKNOWN

MAX_AGENT_CHARS: Final = 1_024
"""A longer user agent is cut before it is matched: regular expressions see bounded text only."""

DEVICE_TYPES: Final = ("desktop", "phone", "tablet", "tv", "console", "bot", "other")


MAX_HINT_CHARS: Final = 256


class Headers(Protocol):
    """Request headers; names in lower case."""

    def get(self, key: str, default: Any = None) -> Any:
        """Return the first header of that name."""
        ...


class Hints(NamedTuple):
    """The client hints of a browser, as sent; "" where it sent none."""

    brands: str = ""
    mobile: str = ""
    platform: str = ""
    model: str = ""


NO_HINTS: Final = Hints()
HINTS: Final = ("sec-ch-ua", "sec-ch-ua-mobile", "sec-ch-ua-platform", "sec-ch-ua-model")
"""The headers that `hints_of` reads."""


def hints_of(headers: Headers) -> Hints:
    """Return the hints of a request. Browsers that send any send the first two; others cost one look-up."""
    brands = headers.get(HINTS[0])
    if brands is None:
        return NO_HINTS
    rest = (headers.get(name) or "" for name in HINTS[1:])
    return Hints(brands[:MAX_HINT_CHARS], *(text.strip().strip('"')[:MAX_HINT_CHARS] for text in rest))


class Agent(NamedTuple):
    """What a sender is. Families as ua-parser names them."""

    device_type: str = "other"
    os: str = UNKNOWN
    browser: str = UNKNOWN
    is_bot: bool = False


_LIBRARIES: Final = re.compile(
    r"^(python-urllib|python-requests|python-httpx|python/|curl/|wget/|okhttp/)", re.IGNORECASE
)
_BOT_WORDS: Final = re.compile(r"bot\b|crawler|spider\b|spider/|slurp", re.IGNORECASE)

# (device type, pattern over the whole string, pattern over "os|device family|device model"); either one decides.
_TV_TEXT: Final = (
    r"hbbtv|smart[-_ ]?tv|google ?tv|android ?tv|apple ?tv|tvos|netcast|roku|crkey|web0s|\baft[a-z0-9]+\b|bravia|viera"
    r"|netrange|nettv|vewd|vestel-|webtv|dtv\b|large screen|\btizen.*\btv\b|viziocast|opera tv|webos.*\btv\b"
)
_TV_FAMILY: Final = (
    r"^(tvos|atv os x|googletv|roku|chromecast|webtv|fire os tv)|\|(hbbtv|appletv|chromecast|roku|netcast)"
)
_TABLET_TEXT: Final = r"ipad|tablet|touchpad|playbook|kindle|\bkf[a-z]{2,5}\b|nexus (7|9|10)\b|sm-[tx]\d|gt-p\d|xoom"
_PHONE_TEXT: Final = (
    r"iphone|ipod|phone|\bpre/|p160una|blackberry|\bbb10\b|symb|series ?[346]0|midp|brew|opera mini|opera mobi"
    r"|\bmobile\b|bmp/|\b(samsung-)?(sm-[gasn]\d|gt-[is]\d)|\bpixel \d"
)
_PHONE_FAMILY: Final = (
    r"^(ios|windows phone|blackberry|symbian|nokia|bada|firefox os|kaios|brew)"
    r"|\|(iphone|ipod|ios-device|generic (smartphone|feature phone)|nokia|blackberry|htc|alcatel)"
)
_RULES: Final = tuple(
    (device_type, re.compile(text, re.IGNORECASE), re.compile(families, re.IGNORECASE))
    for device_type, text, families in (
        ("console", r"playstation|nintendo|xbox|dreamcast", r"\|(playstation|nintendo|xbox|sega)"),
        ("tv", _TV_TEXT, _TV_FAMILY),
        ("tablet", _TABLET_TEXT, r"\|(ipad|kindle|generic tablet|hp touchpad)"),
        ("phone", _PHONE_TEXT, _PHONE_FAMILY),
    )
)
_ANDROID: Final = re.compile(r"android|\btizen|harmonyos|webos|hpwos", re.IGNORECASE)
_ANDROID_WITHOUT_MOBILE_IS: Final = "tablet"  # as Google asks makers to build their user agents
_OTHER: Final = re.compile(r"watch|quest|oculus", re.IGNORECASE)
_DESKTOP: Final = re.compile(
    r"windows|mac os x|macintosh|linux|x11|chrome ?os|cros|bsd|solaris|ubuntu|fedora|debian|red hat|suse|os/2|amiga"
    r"|haiku|beos|mandriva|gentoo",
    re.IGNORECASE,
)


_HIDDEN_BRANDS: Final = re.compile(r'"(Brave|Vivaldi|DuckDuckGo)"')
"""Brands whose user agent is that of Chrome or Edge to the letter."""

_PLATFORMS: Final = {
    "Android": "Android",
    "Chrome OS": "Chrome OS",
    "Chromium OS": "Chrome OS",
    "iOS": "iOS",
    "Linux": "Linux",
    "macOS": "Mac OS X",
    "Windows": "Windows",
}
"""Platforms of hints, as ua-parser names them."""

_DESKTOP_PAGES: Final = frozenset(("Linux", "Mac OS X", "Windows", UNKNOWN))
"""What a phone or tablet says it is when it asks for desktop pages."""


def parse(user_agent: str, hints: Hints = NO_HINTS) -> Agent:
    """Return what a user agent and its hints tell."""
    agent = _parsed(user_agent[:MAX_AGENT_CHARS], hints.model)
    if hints is NO_HINTS or agent.is_bot:
        return agent
    hidden = _HIDDEN_BRANDS.search(hints.brands)
    browser = hidden[1] if hidden else agent.browser
    os, device_type = agent.os, agent.device_type
    platform = _PLATFORMS.get(hints.platform, os)
    if platform != os and os in _DESKTOP_PAGES:
        os = platform
        if platform in ("Android", "iOS") and device_type == "desktop":
            device_type = "phone" if hints.mobile == "?1" else _ANDROID_WITHOUT_MOBILE_IS
    elif hints.mobile == "?1" and device_type == "desktop":
        device_type = "phone"
    return Agent(device_type, os, browser)


def _parsed(text: str, model_hint: str) -> Agent:
    if not text.strip():
        return Agent()
    found = ua_parser.parse(text)
    os = _named(found.os.family if found.os else None)
    browser = _named(found.user_agent.family if found.user_agent else None)
    device = found.device.family if found.device else ""
    model = (found.device.model or "") if found.device else ""
    library = _LIBRARIES.match(text) is not None
    if not library and (device == "Spider" or _BOT_WORDS.search(text)):
        return Agent("bot", os, browser, is_bot=True)
    if library:
        return Agent("other", os, browser)
    return Agent(_device_type(f"{text} {model_hint}" if model_hint else text, os, device, model), os, browser)


def _device_type(text: str, os: str, device: str, model: str) -> str:
    families = f"{os}|{device}|{model}"
    for device_type, in_text, in_families in _RULES:
        if in_text.search(text) or in_families.search(families):
            # An iPad that asks for desktop pages says Macintosh, and only the browser's name (CriOS) gives it away.
            return "tablet" if device_type == "phone" and os == "iOS" and "Macintosh" in text else device_type
    if _OTHER.search(families):
        return "other"
    if _ANDROID.search(text) or os == "Android":
        return _ANDROID_WITHOUT_MOBILE_IS
    return "desktop" if _DESKTOP.search(os) or _DESKTOP.search(text) else "other"


def _named(family: str | None) -> str:
    return (family or UNKNOWN)[:MAX_ID_CHARS]
