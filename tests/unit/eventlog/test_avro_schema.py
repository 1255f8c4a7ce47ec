"""The published versions of the event's Avro schema: never edited, and each reads all before it."""

from __future__ import annotations

import copy
import io
import json
import shutil
from pathlib import Path
from typing import Any

import fastavro
import pyarrow as pa
import pytest

from viewmeter.eventlog import avro_schema
from viewmeter.eventlog.avro_schema import FOLDER, LOCK, Schema, generated, obstacles, problems, publish, versions
from viewmeter.model.events import EVENT_SCHEMA

V1 = "0095a73e96abff6cbda0ee3be15432fa27e43a830abf38994e50bfd90302b71b"
BLANK = {"int": 1, "long": 2, "double": 0.5, "string": "x", "boolean": True}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return Path(shutil.copytree(FOLDER, tmp_path / "schemas"))


def event_with(monkeypatch: pytest.MonkeyPatch, schema: pa.Schema) -> None:
    monkeypatch.setattr(avro_schema, "EVENT_SCHEMA", schema)


def test_the_newest_version_is_the_event_of_today_and_no_published_one_was_edited() -> None:
    assert problems() == []


def test_version_1_is_the_one_that_was_published() -> None:
    """Pinned here too, so that file and lock cannot be edited together unseen."""
    assert json.loads((FOLDER / LOCK).read_text())["event-v1.avsc"] == V1


def test_every_column_of_the_log_is_a_field() -> None:
    assert [field["name"] for field in generated()["fields"]] == EVENT_SCHEMA.names


@pytest.mark.parametrize("number", versions())
def test_events_of_every_version_are_read_with_the_newest(number: int) -> None:
    """BACKWARD, transitive: not only by our rule, by the library that readers use."""
    writer = versions()[number]
    event = {field["name"]: BLANK[field["type"]] for field in writer["fields"]}
    stream = io.BytesIO()
    fastavro.schemaless_writer(stream, fastavro.parse_schema(copy.deepcopy(writer)), event)
    stream.seek(0)
    read: Any = fastavro.schemaless_reader(stream, writer, generated())  # type: ignore[arg-type]
    assert {name: read[name] for name in event if name in read} == {n: v for n, v in event.items() if n in read}
    assert obstacles(generated(), writer) == []


def test_an_event_with_another_column_needs_a_version(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    event_with(monkeypatch, EVENT_SCHEMA.append(pa.field("battery", pa.int64(), nullable=False)))
    assert problems(folder) == [
        "the event has changed: python -m viewmeter.eventlog.avro_schema --write adds a version"
    ]
    assert publish(folder) == 2
    assert problems(folder) == []
    assert publish(folder) is None


def test_a_column_may_go_and_its_events_are_still_read(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    event_with(monkeypatch, EVENT_SCHEMA.remove(EVENT_SCHEMA.get_field_index("asn")))
    assert publish(folder) == 2
    assert problems(folder) == []


@pytest.mark.parametrize(
    ("column", "kind", "why"),
    [("seq", pa.string(), "seq was long and is string"), ("type", pa.string(), "type was int and is string")],
)
def test_a_column_of_another_type_is_refused(
    folder: Path, monkeypatch: pytest.MonkeyPatch, column: str, kind: pa.DataType, why: str
) -> None:
    place = EVENT_SCHEMA.get_field_index(column)
    event_with(monkeypatch, EVENT_SCHEMA.set(place, pa.field(column, kind, nullable=False)))
    assert problems(folder) == [f"version 1 cannot be read any more: {why}"]
    with pytest.raises(ValueError, match=why):
        publish(folder)


def test_a_version_that_was_edited_is_found(folder: Path) -> None:
    path = folder / "event-v1.avsc"
    path.write_text(path.read_text().replace('"battery"', "").replace('"asn"', '"as_number"'))
    assert problems(folder) == ["event-v1.avsc was edited after it was published: restore it"]


def test_a_version_that_is_missing_is_found(folder: Path) -> None:
    (folder / "event-v1.avsc").rename(folder / "event-v2.avsc")
    assert "not the same versions" in problems(folder)[0]


def changed(field: str, **changes: object) -> Schema:
    schema = copy.deepcopy(generated())
    place = [f["name"] for f in schema["fields"]].index(field)
    schema["fields"][place].update(changes)
    return schema


def test_our_rule_says_what_the_library_does() -> None:
    """The rule of `obstacles` against fastavro's own resolution, over all pairs of types."""
    kinds = ("int", "long", "float", "double", "string", "bytes", "boolean")
    values = {"int": 1, "long": 1, "float": 1.0, "double": 1.0, "string": "1", "bytes": b"1", "boolean": True}
    for was in kinds:
        for now in kinds:
            writer, reader = (
                {"type": "record", "name": "E", "namespace": "n", "fields": [{"name": "f", "type": kind}]}
                for kind in (was, now)
            )
            stream = io.BytesIO()
            fastavro.schemaless_writer(stream, copy.deepcopy(writer), {"f": values[was]})
            stream.seek(0)
            try:
                fastavro.schemaless_reader(stream, copy.deepcopy(writer), copy.deepcopy(reader))
                readable = True
            except fastavro.read.SchemaResolutionError:
                readable = False
            assert (obstacles(reader, writer) == []) == readable, (was, now)


def test_a_new_field_without_a_default_is_an_obstacle() -> None:
    schema = copy.deepcopy(generated())
    schema["fields"].append({"name": "battery", "type": "long"})
    assert obstacles(schema, generated()) == ["battery is new and has no default"]
    assert obstacles(changed("asn", name="as_number"), generated()) == []
    assert obstacles({**generated(), "name": "Beacon"}, generated()) == ["the record was called viewmeter.Event"]
