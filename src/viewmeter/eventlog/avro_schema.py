"""The Avro schema of an event, written from `EVENT_SCHEMA`, and the versions of it that were ever published.

In: `EVENT_SCHEMA`. Out: `schemas/event-v1.avsc`, `event-v2.avsc`, …; `VERSIONS.json` holds the fingerprint of each. A
published version is never edited: `python -m viewmeter.eventlog.avro_schema --write` adds the next one when the event
has changed, and refuses one that could not read the events of every version before it (BACKWARD, transitive).
Promised: no Avro library is needed for any of this. Not done: registering them with a schema registry.

Why plain `int` and `long` and no enum or timestamp: a reader whose schema comes from a table definition (Flink, Druid)
resolves plain types only; Avro does not promote an enum to a string (decision 0068).
"""

from __future__ import annotations

import hashlib
import json
import re
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import pyarrow as pa

from viewmeter.model.events import ABSENT, EVENT_SCHEMA, UNKNOWN, EventType, Fatality

FOLDER: Final = Path(__file__).parent / "schemas"
LOCK: Final = "VERSIONS.json"

Schema = dict[str, Any]

_IDENTITY: Final = frozenset(
    ("tenant_id", "channel_id", "video_id", "view_id", "view_key", "viewer_hash", "seq", "type", "ts", "received_at")
)
"""An event without one of these is none, so they have no default. All others do: a later version may drop them."""

_DOCS: Final[Mapping[str, str]] = {
    "view_key": "first 8 bytes of BLAKE2b of tenant, NUL and view_id, little-endian, signed",
    "viewer_hash": "salted 64-bit hash; never an id",
    "type": ", ".join(f"{int(kind)} {kind.wire}" for kind in EventType),
    "ts": "ms since the epoch, the player's clock, corrected",
    "received_at": "ms since the epoch, the server's clock",
    "duration_ms": "0 = live",
    "played_ms": "cumulative for the view",
    "rebuffered_ms": "cumulative for the view",
    "rebuffer_count": "cumulative for the view",
    "fatal": ", ".join(f"{int(kind)} {kind.name.lower()}" for kind in Fatality),
}
# Avro may read the first as any of the second (specification 1.12, Schema Resolution).
_PROMOTIONS: Final[Mapping[str, frozenset[str]]] = {
    "int": frozenset(("long", "float", "double")),
    "long": frozenset(("float", "double")),
    "float": frozenset(("double",)),
    "string": frozenset(("bytes",)),
    "bytes": frozenset(("string",)),
}


def generated() -> Schema:
    """Return the schema that `EVENT_SCHEMA` asks for."""
    return {
        "type": "record",
        "name": "Event",
        "namespace": "viewmeter",
        "doc": f"One enriched event. Absent numbers are {ABSENT}, absent words '{UNKNOWN}', absent texts ''.",
        "fields": [_field(field) for field in EVENT_SCHEMA],
    }


def _field(field: pa.Field) -> Schema:
    kind, default = _type_of(field.type)
    described: Schema = {"name": field.name, "type": kind}
    if field.name in _DOCS:
        described["doc"] = _DOCS[field.name]
    if field.name not in _IDENTITY:
        described["default"] = default
    return described


def _type_of(kind: pa.DataType) -> tuple[str, object]:
    if pa.types.is_dictionary(kind):
        return "string", UNKNOWN
    if pa.types.is_string(kind):
        return "string", ""
    if pa.types.is_boolean(kind):
        return "boolean", False
    if pa.types.is_floating(kind):
        return "double", float(ABSENT)
    if not pa.types.is_integer(kind):
        raise TypeError(f"EVENT_SCHEMA has a column of type {kind}, for which no Avro type is chosen: add it here")
    return ("long" if kind.bit_width == 64 else "int"), ABSENT


def text_of(schema: Schema) -> str:
    """Return a schema as it stands in its file."""
    return json.dumps(schema, indent=2, ensure_ascii=False) + "\n"


def fingerprint(text: str) -> str:
    """Return what the lock file holds of a version: SHA-256 of its text."""
    return hashlib.sha256(text.encode()).hexdigest()


def versions(folder: Path = FOLDER) -> dict[int, Schema]:
    """Return all published versions by number, ascending."""
    numbered = {int(m[1]): p for p in folder.glob("*.avsc") if (m := re.fullmatch(r"event-v(\d+)\.avsc", p.name))}
    return {number: json.loads(numbered[number].read_text(encoding="utf-8")) for number in sorted(numbered)}


def newest(folder: Path = FOLDER) -> tuple[int, Schema]:
    """Return the newest version's number and schema."""
    found = versions(folder)
    number = max(found)
    return number, found[number]


def obstacles(reader: Schema, writer: Schema) -> list[str]:
    """Return why `reader` cannot read what was written with `writer`; empty = it can. Flat records only."""
    if (reader["namespace"], reader["name"]) != (writer["namespace"], writer["name"]):
        return [f"the record was called {writer['namespace']}.{writer['name']}"]
    written = {field["name"]: field for field in writer["fields"]}
    found = []
    for field in reader["fields"]:
        name, kind = field["name"], field["type"]
        if name not in written:
            if "default" not in field:
                found.append(f"{name} is new and has no default")
        elif kind != (was := written[name]["type"]) and kind not in _PROMOTIONS.get(was, ()):
            found.append(f"{name} was {was} and is {kind}")
    return found


def problems(folder: Path = FOLDER) -> list[str]:
    """Return what is wrong with the published versions and the event; each a sentence that says what to do."""
    lock: dict[str, str] = json.loads((folder / LOCK).read_text(encoding="utf-8"))
    published = versions(folder)
    if list(published) != list(range(1, len(published) + 1)) or {f"event-v{n}.avsc" for n in published} != lock.keys():
        return [f"{LOCK} and the files event-v1.avsc, v2, … are not the same versions: restore what was published"]
    edited = [n for n, was in lock.items() if fingerprint((folder / n).read_text(encoding="utf-8")) != was]
    if edited:
        return [f"{name} was edited after it was published: restore it" for name in edited]
    wanted = generated()
    found = [
        f"version {n} cannot be read any more: {why}" for n in published for why in obstacles(wanted, published[n])
    ]
    if not found and published[max(published)] != wanted:
        found.append("the event has changed: python -m viewmeter.eventlog.avro_schema --write adds a version")
    return found


def publish(folder: Path = FOLDER) -> int | None:
    """Add the event of today as the next version, where it differs from the newest; return its number.

    Raises ValueError where it could not read what was written before.
    """
    published, wanted = versions(folder), generated()
    if published and published[max(published)] == wanted:
        return None
    if against := [f"v{n}: {why}" for n, was in published.items() for why in obstacles(wanted, was)]:
        raise ValueError(f"this event cannot read what was written before ({'; '.join(against)}): give it a default")
    number = len(published) + 1
    text, path = text_of(wanted), folder / f"event-v{number}.avsc"
    lock = json.loads((folder / LOCK).read_text(encoding="utf-8")) if published else {}
    path.write_text(text, encoding="utf-8")
    (folder / LOCK).write_text(json.dumps({**lock, path.name: fingerprint(text)}, indent=2) + "\n", encoding="utf-8")
    return number


if __name__ == "__main__":
    if "--write" in sys.argv:
        publish()
    sys.exit("\n".join(problems()) or 0)
