"""One CMCD record as text in, its members as Python values out: a tolerant reader of structured fields.

In: a line such as `br=(900;v 32;a),cid="film",e=ps,sn=4,sta=p,v=2` (a dictionary of RFC 9651). Out: `Record`.
Promised: a member that is malformed is skipped by itself and counted. The caller bounds a line by
MAX_RECORD_CHARS. Not done: what a key means (`cmcd.py`), parameters of dictionary members (no key of CMCD has
any) and serialising.

Libraries for structured fields refuse the whole dictionary for one bad value, as the RFC asks; see
decision 0020.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Container
from typing import Final, NamedTuple, TypeAlias

Value: TypeAlias = "str | int | float | bool | InnerList"
"""A member's value. Strings and tokens both are `str`; dates and byte sequences are their text as sent."""

MAX_RECORD_CHARS: Final = 64 * 1024
"""A record of a real player has 90 to 900; the bound keeps even hostile text cheap to skip through."""

MAX_MEMBERS: Final = 256
"""Members of a record that are read, malformed ones included. The standard has about 60 keys."""


MAX_ITEMS: Final = 16
"""Items of an inner list, which has one for each type of object; a longer one is malformed."""


class InnerItem(NamedTuple):
    """One item of an inner list: its value, and the names of its parameters (`(900;v 32;a)`)."""

    value: str | int | float | bool
    params: tuple[str, ...]


InnerList: TypeAlias = tuple[InnerItem, ...]


class Record(NamedTuple):
    """The members that were asked for, by key, how many were skipped as malformed, and how many were read."""

    members: dict[str, Value]
    malformed: int
    read: int


Known: TypeAlias = tuple[str, "Value | None", bool]
"""A member that was read: key, value (None: the key is not wanted), and whether that is of the key's type."""

_MAX_KNOWN_CHARS: Final = 128


# Strings: the RFC allows ASCII only, but the players' encoder lets every character through that is no control,
# and titles are content ids. U+FFFD is what is left of bytes that were no UTF-8: such a value is malformed.
_STRING = r'"(?:[^"\\\x00-\x1f\x7f\ufffd]|\\["\\])*+"'
_NUMBER = r"-?[0-9]{1,15}+(?:\.[0-9]{1,3}+)?+"
_TOKEN = r"[A-Za-z*][A-Za-z0-9!#$%&'*+\-.^_`|~:/]*+"
_RARE = r":[A-Za-z0-9+/=]*+:|@-?[0-9]{1,15}+|%\"[\x20-\x21\x23-\x7e]*+\""
_BARE = rf"(?:{_STRING}|{_NUMBER}|{_TOKEN}|\?[01]|{_RARE})"
_KEY = r"[a-z*][a-z0-9_\-.*]*+"
_PARAMS = rf"(?:;[ ]*+{_KEY}(?:={_BARE})?+)*+"
_ITEM = rf"{_BARE}{_PARAMS}"
_LIST = rf"\([ ]*+(?:{_ITEM}(?:[ ]++{_ITEM}){{0,{MAX_ITEMS - 1}}}+[ ]*+)?+\)"

# One member up to and with the comma behind it. Possessive throughout: nothing is ever read twice.
_MEMBER = re.compile(
    rf"[ \t]*+({_KEY})"
    rf"(?:=(?:({_NUMBER})|({_STRING})|({_TOKEN})|({_LIST})|(\?[01])|({_RARE})))?+"
    rf"{_PARAMS}[ \t]*+(?:,|\Z)"
)
_NAME = re.compile(rf"[ \t]*+({_KEY})=")
_KEY_AT, _NUMBER_AT, _STRING_AT, _TOKEN_AT, _LIST_AT, _BOOLEAN_AT, _RARE_AT = range(1, 8)
_INNER = re.compile(rf"({_BARE})({_PARAMS})")
_PARAM = re.compile(rf";[ ]*+({_KEY})(=\?0)?")


def read_record(
    text: str,
    wanted: Container[str] | None = None,
    fits: Callable[[str, Value], bool] | None = None,
    known: dict[str, Known] | None = None,
) -> Record:
    """Return the members of one record; with `wanted` only those keys. Of a repeated key the last stands.

    What comes after MAX_MEMBERS members is not read. fits: says whether a value is of its key's type; one that is not
    is in `members` and counted as malformed. known: what the caller read with the same arguments; records of one body
    repeat most of their members, and a look-up costs a fifth of reading one.
    """
    members: dict[str, Value] = {}
    misfits: set[str] = set()
    malformed, at, end, count = 0, 0, len(text), 0
    known = {} if known is None else known
    while at < end and count < MAX_MEMBERS:
        count += 1
        comma = text.find(",", at) + 1
        raw = text[at:comma] if comma else ""
        # How a member is read depends on nothing behind its comma, so what was read once is read the same again.
        member = known.get(raw)
        if member is not None:
            key, value, good = member
            at = comma
        else:
            found = _MEMBER.match(text, at)
            if found is None:
                malformed += not _only_blank(text, at)
                at = comma or end
                continue
            start, at = at, found.end()
            key = found[_KEY_AT]
            value = _value(found) if wanted is None or key in wanted else None
            good = value is None or fits is None or fits(key, value)
            if at == comma and at - start <= _MAX_KNOWN_CHARS:
                known[raw] = key, value, good
        if value is not None:
            members[key] = value
            if not good:
                misfits.add(key)
            elif misfits:
                misfits.discard(key)
    return Record(members, malformed + len(misfits), count)


def only_members(text: str, wanted: Container[str]) -> str:
    """Return a record with the wanted members as they were written; of all others only their names are left."""
    kept: list[str] = []
    at, end = 0, len(text)
    for _ in range(MAX_MEMBERS):
        if at >= end:
            break
        found = _MEMBER.match(text, at)
        behind = found.end() if found else text.find(",", at) + 1 or end
        if found and found[_KEY_AT] in wanted:
            kept.append(text[at:behind].rstrip(",").strip(" \t"))
        elif (name := found[_KEY_AT] if found else _name_at(text, at)) and name not in wanted:
            kept.append(name)  # a wanted one without its value would be another value
        at = behind
    return ",".join(kept)


def _name_at(text: str, at: int) -> str:
    """Return what seems to be the name of a malformed member; a value without a name has none."""
    name = _NAME.match(text, at)
    return name[1] if name else ""


def _only_blank(text: str, at: int) -> bool:
    """Return whether up to the next comma there is nothing: `a=1,,b=2` and a trailing comma harm nobody."""
    comma = text.find(",", at)
    return not text[at : comma if comma >= 0 else len(text)].strip(" \t")


def _value(found: re.Match[str]) -> Value:
    kind, text = found.lastindex or _KEY_AT, found[found.lastindex or _KEY_AT]
    if kind == _KEY_AT:  # a bare key
        return True
    return _inner(text) if kind == _LIST_AT else _bare(text)


def _bare(text: str) -> str | int | float | bool:
    first = text[0]
    if first == '"':
        return re.sub(r"\\(.)", r"\1", text[1:-1]) if "\\" in text else text[1:-1]
    if first == "-" or first.isdigit():
        return float(text) if "." in text else int(text)
    return text == "?1" if first == "?" else text


def _inner(text: str) -> InnerList:
    """Return the items of a list whose syntax was checked."""
    if '"' not in text and "; " not in text and "=" not in text:  # numbers or tokens, with the names of their types
        plain: list[InnerItem] = []
        for item in text[1:-1].split():
            bare, _, params = item.partition(";")
            value = int(bare) if bare.isdigit() else _bare(bare)
            plain.append(InnerItem(value, tuple(params.split(";")) if params else ()))
        return tuple(plain)
    items = _INNER.finditer(text[1:-1])
    return tuple(
        InnerItem(_bare(item[1]), tuple(p[1] for p in _PARAM.finditer(item[2]) if not p[2]) if item[2] else ())
        for item in items
    )
