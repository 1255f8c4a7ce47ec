"""What a dead letter may keep of a rejected event: nothing that tells who watched.

In: the rejected bytes, the detail, and the viewer's hash. Out: bytes and detail to keep. Promised: of a `viewer_id`
only its keyed hash is left, marked so that a replay counts the same viewer (`viewer_of`); of fields and keys that are
none of ours the name alone; what cannot be read as an event is not kept at all. What is left is rejected, or accepted,
for the same reasons as the whole. Not done: free text that an event may hold (`error_message`, ids), which the log
keeps too.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any, Final

import msgspec

from viewmeter.collector.dialects.cmcd import WANTED
from viewmeter.collector.dialects.cmcd_records import MAX_RECORD_CHARS, only_members
from viewmeter.model.events import WireEvent

_MARK: Final = "viewer-hash:"
_MARKED: Final = re.compile(re.escape(_MARK) + r"([0-9a-f]{16})")
_NAMED: Final = b'"viewer_id":"' + _MARK.encode()
_FIELDS: Final = frozenset(WireEvent.__struct_fields__)
_MAX_NAMES: Final = 50
_MAX_NAME_CHARS: Final = 64
_ABOUT_VIEWER: Final = "`viewer_id`"
_NOT_LONGER_THAN: Final = " is another type than text, or too long"


def redacted(dialect: str, raw: bytes, detail: str, hash_of: Callable[[str], int] | None) -> tuple[bytes, str]:
    """Return what may be kept. `hash_of`: the tenant's hash of a `viewer_id`; None = not even that may be kept."""
    if detail.startswith(_ABOUT_VIEWER):
        detail = _ABOUT_VIEWER + _NOT_LONGER_THAN
    return (_native(raw, hash_of) if dialect == "native" else _cmcd(raw)), detail


def names_viewer(raw: bytes) -> bool:
    """Return whether a redacted event has a viewer of its own; else it is the sender's."""
    return _NAMED in raw


def viewer_of(viewer_id: str, hash_of: Callable[[str], int]) -> int:
    """Return the hash of a `viewer_id` as a dead letter has it: of the mark that stands for it, or of itself."""
    if marked := _MARKED.fullmatch(viewer_id):
        return int.from_bytes(bytes.fromhex(marked[1]), "big", signed=True)
    return hash_of(viewer_id)


def _native(raw: bytes, hash_of: Callable[[str], int] | None) -> bytes:
    try:
        event: Any = msgspec.json.decode(raw)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return b""
    if not isinstance(event, dict):
        return raw if event is None or isinstance(event, bool | int | float) else b""
    kept: dict[str, object] = {}
    others = 0
    for name, value in event.items():
        if name in _FIELDS:
            kept[name] = _viewer(value, hash_of) if name == "viewer_id" else _plain(value)
        elif others < _MAX_NAMES:
            others += 1
            kept[name[:_MAX_NAME_CHARS]] = None
    return msgspec.json.encode(kept)


def _viewer(value: object, hash_of: Callable[[str], int] | None) -> object:
    if not isinstance(value, str):
        return None if value is None else type(value)()  # an empty one of its type is refused for the same reason
    if not value or hash_of is None:
        return ""
    return _MARK + hash_of(value).to_bytes(8, "big", signed=True).hex()


def _plain(value: object) -> object:
    return type(value)() if isinstance(value, dict | list) else value


def _cmcd(raw: bytes) -> bytes:
    return only_members(raw.decode("utf-8", "replace")[:MAX_RECORD_CHARS], WANTED).encode()
