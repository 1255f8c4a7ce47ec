"""The native dialect: a JSON array of event objects, as the player SDK sends it.

In: the body. Out: events, and a rejection for each element that is none. Promised: msgspec checks types, ranges and
lengths while it parses (0.48 µs an event; the same without checks 0.44). Only when that fails are elements looked at
one by one, which is where the exact reasons come from. Lenient where a strict reader would lose facts: null is absent,
unknown fields are ignored and counted, a whole `seq` may be written as 3.0, and long free text is cut.
"""

from __future__ import annotations

import re
from typing import Annotated, Any, Final, cast

import msgspec
from msgspec import Meta

from viewmeter.collector.dialects import (
    MAX_COUNT,
    MAX_EVENTS,
    MAX_KBPS,
    MAX_MS,
    MAX_PLAYBACK_RATE,
    MAX_TS_MS,
    Decoded,
    Rejection,
    UndecodableError,
)
from viewmeter.model.events import EVENT_TYPES, MAX_ID_CHARS, MAX_SEQ, MAX_TEXT_CHARS, WireEvent

_Id = Annotated[str, Meta(min_length=1, max_length=MAX_ID_CHARS)]
_OptionalId = Annotated[str, Meta(max_length=MAX_ID_CHARS)]
_Ms = Annotated[float, Meta(ge=0, le=MAX_MS)]
_Count = Annotated[float, Meta(ge=0, le=MAX_COUNT)]
_MAX_CODE: Final = 2**53


class NativeEvent(WireEvent, forbid_unknown_fields=True, omit_defaults=True, gc=False):
    """`WireEvent` with its bounds."""

    ts: Annotated[float, Meta(ge=0, le=MAX_TS_MS)]
    view_id: _Id
    seq: Annotated[int, Meta(ge=0, le=MAX_SEQ)]
    video_id: _Id
    channel_id: _OptionalId | None = None
    viewer_id: _OptionalId | None = None
    position_ms: _Ms | None = None
    duration_ms: _Ms | None = None
    played_ms: _Ms | None = None
    rebuffered_ms: _Ms | None = None
    rebuffer_count: _Count | None = None
    startup_ms: _Ms | None = None
    bitrate_kbps: Annotated[float, Meta(ge=0, le=MAX_KBPS)] | None = None
    playback_rate: Annotated[float, Meta(ge=0, le=MAX_PLAYBACK_RATE)] | None = None
    error_code: _OptionalId | Annotated[int, Meta(ge=-_MAX_CODE, le=_MAX_CODE)] | None = None
    error_message: Annotated[str, Meta(max_length=MAX_TEXT_CHARS)] | None = None
    player: _OptionalId | None = None
    cdn: _OptionalId | None = None
    stream_type: _OptionalId | None = None


class _LenientEvent(NativeEvent, forbid_unknown_fields=False, gc=False):
    """The same, where a sender adds fields of its own."""


_strict: Final = msgspec.json.Decoder(list[NativeEvent])
_lenient: Final = msgspec.json.Decoder(list[_LenientEvent])
_elements: Final = msgspec.json.Decoder(list[msgspec.Raw])
_names_only: Final = msgspec.json.Decoder(list[dict[str, msgspec.Raw]])
_element: Final = msgspec.json.Decoder()

_FIELDS: Final = frozenset(WireEvent.__struct_fields__)
_REQUIRED: Final = ("type", "ts", "view_id", "seq", "video_id")
_IDS: Final = ("view_id", "video_id", "channel_id", "viewer_id")
_CUT_AT: Final = {
    "error_code": MAX_ID_CHARS,
    "error_message": MAX_TEXT_CHARS,
    "player": MAX_ID_CHARS,
    "cdn": MAX_ID_CHARS,
    "stream_type": MAX_ID_CHARS,
}
_ESCAPED_NUL: Final = b"\\u0000"
_ERROR_PATH: Final = re.compile(r"^(?P<what>.*?)(?: - at `\$\.?(?P<field>\w*).*`)?$", re.DOTALL)
_MAX_SHOWN_CHARS: Final = 60


def decode(body: bytes, *, channel_id: str | None = None, player: str | None = None) -> Decoded:  # noqa: ARG001
    """Return the events of a JSON array. Raises `UndecodableError` where the body is no array of 1 to 500 elements.

    Not used: the arguments. A missing channel is filled in later, and each event names its own player.
    """
    # The search for a backslash is a memchr; the longer one costs 2 µs a beacon and is hardly ever needed.
    if b"\\" not in body or _ESCAPED_NUL not in body:
        ignored = 0
        try:
            events = _strict.decode(body)
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
            if "unknown field" not in str(error):
                return _one_by_one(body)
            try:
                events = cast("list[NativeEvent]", _lenient.decode(body))
                ignored = sum(len(event.keys() - _FIELDS) for event in _names_only.decode(body))
            except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
                return _one_by_one(body)
        if 0 < len(events) <= MAX_EVENTS:
            return Decoded(cast("list[WireEvent]", events), ignored_fields=ignored)
    return _one_by_one(body)


def _one_by_one(body: bytes) -> Decoded:
    """Take what can be taken, and say of the rest what is wrong with it."""
    elements = _split(body)
    decoded = Decoded([], [], [])
    places = cast("list[int]", decoded.places)
    for index, raw in enumerate(elements):
        text = bytes(raw)
        try:
            fields = _element.decode(text)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            # Not by the error's type: up to msgspec 0.22 text that is not UTF-8 is a UnicodeDecodeError, then no more.
            if _is_utf8(text):
                why = "malformed", f"the event is not valid JSON: {error}"
            else:
                why = "invalid_text", "the event is not valid UTF-8"
            decoded.rejected.append(Rejection(index, *why, text))
            continue
        reason = _why_not(fields) or _take(fields, decoded)
        if reason is None:
            places.append(index)
        else:
            decoded.rejected.append(Rejection(index, *reason, text))
    return decoded


def _is_utf8(text: bytes) -> bool:
    """Say whether the bytes are UTF-8 (RFC 3629)."""
    try:
        text.decode()
    except UnicodeDecodeError:
        return False
    return True


def _split(body: bytes) -> list[msgspec.Raw]:
    try:
        elements = _elements.decode(body)
    except msgspec.ValidationError:
        raise UndecodableError(
            "not_an_array", f"the body starts with {chr(body.lstrip()[0])!r}: send an array, [{{…}}, {{…}}]"
        ) from None
    except msgspec.DecodeError as error:
        what = "the body is empty" if not body.strip() else str(error)
        raise UndecodableError("invalid_json", f"the body is not JSON: {what}") from None
    except (UnicodeDecodeError, RecursionError):
        raise UndecodableError("invalid_json", "the body is not JSON: it is nested too deeply or not UTF-8") from None
    if not elements:
        raise UndecodableError("empty_beacon", "the array is empty: send at least one event")
    if len(elements) > MAX_EVENTS:
        raise UndecodableError(
            "too_many_events", f"the beacon holds {len(elements)} events; send at most {MAX_EVENTS} in one"
        )
    return elements


def _why_not(fields: Any) -> tuple[str, str] | None:
    """Return why the element is no event, as far as msgspec does not say it better."""
    if not isinstance(fields, dict):
        return "not_an_object", f"expected an event object, got {_kind(fields)}"
    missing = [name for name in _REQUIRED if fields.get(name) is None]
    if missing:
        names = ", ".join(f"`{name}`" for name in missing)
        return "missing_field", f"{names} {'is' if len(missing) == 1 else 'are'} required and absent (or null)"
    kind = fields["type"]
    if isinstance(kind, str) and kind not in EVENT_TYPES:
        return "unknown_type", f"`type` is {_shown(kind)}; known are {', '.join(EVENT_TYPES)}"
    for name in _IDS:
        value = fields.get(name)
        if isinstance(value, str) and "\0" in value:
            return "invalid_text", f"`{name}` holds the character U+0000"
    return None


def _take(fields: dict[str, Any], decoded: Decoded) -> tuple[str, str] | None:
    """Add the event; return (code, detail) where it cannot be one."""
    known = {name: value for name, value in fields.items() if name in _FIELDS and value is not None}
    for name, limit in _CUT_AT.items():
        if isinstance(value := known.get(name), str):
            known[name] = value.replace("\0", "")[:limit]
    seq = known["seq"]
    if isinstance(seq, float) and seq.is_integer():
        known["seq"] = int(seq)
    try:
        event = msgspec.convert(known, NativeEvent)
    except msgspec.ValidationError as error:
        return _explained(str(error), known)
    decoded.events.append(event)
    decoded.ignored_fields += len(fields.keys() - _FIELDS)
    return None


def _explained(message: str, fields: dict[str, Any]) -> tuple[str, str]:
    """Turn msgspec's message into (code, detail)."""
    found = cast("re.Match[str]", _ERROR_PATH.match(message))
    what, name = found["what"], found["field"] or "event"
    value = fields.get(name)
    if "of length" in what:
        code = "wrong_length"
        value = f"{len(value)} characters long" if isinstance(value, str) else value
        return code, f"`{name}` is {value}: an id has 1 to {MAX_ID_CHARS}"
    code = "out_of_range" if "=" in what or "out of range" in what else "wrong_type"
    return code, f"`{name}` is {_shown(value)}: {what[0].lower()}{what[1:]}"


def _kind(value: Any) -> str:
    names = {str: "a string", bool: "a boolean", int: "a number", float: "a number", list: "an array"}
    return "null" if value is None else names.get(type(value), "something else")


def _shown(value: Any) -> str:
    text = msgspec.json.encode(value).decode(errors="replace")
    return text if len(text) <= _MAX_SHOWN_CHARS else text[:_MAX_SHOWN_CHARS] + "…"
