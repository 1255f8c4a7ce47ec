"""Every key, event and state of CMCD version 2 (CTA-5004-B), and what a value of each may be.

In: nothing. Out: `KEYS`, `EVENTS`, `STATES`, and `fits()`: whether a value is of its key's type. Promised: lenient
where players are (a list of one may be written bare, a string is as good as a token), never where a number would be
misread. Not done: what a key means to us (`cmcd.py`); limits on roundness and length, which change no number.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Final, NamedTuple

from viewmeter.collector.dialects.cmcd_records import Value


class Key(NamedTuple):
    """A key of the standard. `where`: `any` report, `event` mode only, or only with a `response` (`e=rr`)."""

    kind: str
    where: str = "any"
    in_v1: bool = False
    tokens: frozenset[str] = frozenset()


EVENTS: Final[Mapping[str, str | None]] = {
    "abs": None,  # ad break starts
    "abe": None,  # ad break ends
    "as": None,  # ad starts
    "ae": None,  # ad ends
    "b": "bg",  # goes to the background, or comes back
    "bc": "br",  # bitrate changes
    "c": "cid",  # content changes
    "ce": "cen",  # custom event
    "e": "ec",  # error
    "h": "h",  # host name
    "m": None,  # muted
    "um": None,  # no longer muted
    "pc": None,  # player collapses
    "pe": None,  # player expands
    "pr": "pr",  # playback rate changes
    "ps": "sta",  # play state changes
    "rr": "url",  # response received
    "sk": None,  # an ad is skipped
    "t": None,  # time interval
}
"""Events, and the key that the standard asks for with each."""

STATES: Final = frozenset("spkrawefqd")
"""starting, playing, seeking, rebuffering, paused, waiting, ended, fatal error, quit, preloading."""

_STREAMS: Final = frozenset(("v", "l", "ll"))
_FORMATS: Final = frozenset("dheso")
_OBJECTS: Final = frozenset(("m", "a", "v", "av", "i", "c", "tt", "k", "o"))

KEYS: Final[Mapping[str, Key]] = {
    "ab": Key("numbers"),
    "bg": Key("boolean"),
    "bl": Key("numbers", in_v1=True),
    "br": Key("numbers", in_v1=True),
    "bs": Key("boolean", in_v1=True),
    "bsa": Key("numbers"),
    "bsd": Key("numbers"),
    "bsda": Key("numbers"),
    "cdn": Key("string"),
    "cen": Key("string", "event"),
    "cid": Key("string", in_v1=True),
    "cmsdd": Key("string", "response"),
    "cmsds": Key("string", "response"),
    "cs": Key("string"),
    "d": Key("integer", in_v1=True),
    "dfa": Key("integer"),
    "dl": Key("integer", in_v1=True),
    "e": Key("token", "event", tokens=frozenset(EVENTS)),
    "ec": Key("strings"),
    "h": Key("string", "event"),
    "lab": Key("numbers"),
    "lb": Key("numbers"),
    "ltc": Key("integer"),
    "msd": Key("integer"),
    "mtp": Key("numbers", in_v1=True),
    "nor": Key("strings", in_v1=True),
    "nr": Key("boolean"),
    "ot": Key("token", in_v1=True, tokens=_OBJECTS),
    "pb": Key("numbers"),
    "pr": Key("decimal", in_v1=True),
    "pt": Key("integer"),
    "rc": Key("integer", "response"),
    "rtp": Key("integer", in_v1=True),
    "sf": Key("token", in_v1=True, tokens=_FORMATS),
    "sid": Key("string", in_v1=True),
    "smrt": Key("string", "response"),
    "sn": Key("integer"),
    "st": Key("token", in_v1=True, tokens=_STREAMS),
    "sta": Key("token", tokens=STATES),
    "su": Key("boolean", in_v1=True),
    "tab": Key("numbers"),
    "tb": Key("numbers", in_v1=True),
    "tbl": Key("numbers"),
    "tpb": Key("numbers"),
    "ts": Key("integer", "event"),
    "ttfb": Key("integer", "response"),
    "ttfbb": Key("integer", "response"),
    "ttlb": Key("integer", "response"),
    "url": Key("string", "event"),  # the standard: with `rr`; the players' library lets it stand in any event
    "v": Key("integer", in_v1=True),
}
"""Keys of version 2. (Of version 1 one is gone: `nrr`, now a parameter of `nor`.) Custom keys: `is_custom`."""

ADDRESSES: Final = frozenset(("url", "nor", "cmsdd", "cmsds", "smrt", "h", "cs"))
"""Keys whose text may name a signed address or a person; nothing of ours needs them."""

FIRST_CHARS: Final = frozenset("abcdefghijklmnopqrstuvwxyz*")
_KEY_CHARS: Final = FIRST_CHARS | frozenset("0123456789_-.")


def is_custom(key: str) -> bool:
    """Return whether a key is an application's own: a hyphen with a prefix before it (`com.example-key`)."""
    prefix, hyphen, rest = key.partition("-")
    well_formed = key[:1] in FIRST_CHARS - {"*"} and frozenset(key) <= _KEY_CHARS
    return bool(hyphen and prefix and rest and well_formed and "_" not in prefix)


def fits(key: str, value: Value) -> bool:
    """Return whether a value may stand under a key of the standard; any may under another one."""
    check = _CHECK_OF.get(key)
    return check is None or check(value)


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _is_integer(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _is_text(value: object) -> bool:
    return isinstance(value, str)


def _each(*types: type) -> Callable[[Value], bool]:
    """Return the check of a list, or of the one item that a player writes bare; `bool` is no `int` here."""
    known = frozenset(types)
    return lambda value: known.issuperset([type(i[0]) for i in value] if isinstance(value, tuple) else (type(value),))


_CHECKS: Final[Mapping[str, Callable[[Value], bool]]] = {
    "integer": _is_integer,
    "decimal": _is_number,
    "boolean": lambda value: isinstance(value, bool),
    "string": _is_text,
    "token": _is_text,
    "numbers": _each(int, float),
    "strings": _each(int, float, str),  # dash.js sends `ec=27`
}


def _one_of(tokens: frozenset[str]) -> Callable[[Value], bool]:
    return lambda value: isinstance(value, str) and value in tokens


_CHECK_OF: Final[Mapping[str, Callable[[Value], bool]]] = {
    key: _one_of(spec.tokens) if spec.tokens else _CHECKS[spec.kind] for key, spec in KEYS.items()
}
