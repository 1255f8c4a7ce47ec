"""Files of events in and out: what is taken, what is refused and why, and that nothing changes on the way round."""

from __future__ import annotations

import io
import json
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from viewmeter.archive import outgoing
from viewmeter.archive.embedded import EmbeddedArchive
from viewmeter.archive.importing import Imported, import_file
from viewmeter.archive.incoming import Owners, Rejected, UnreadableFileError
from viewmeter.collector.viewers import keyed_hash
from viewmeter.eventlog.embedded import EmbeddedLogReader
from viewmeter.metadata.keys import Tenant
from viewmeter.model.events import EVENT_SCHEMA, EventType, Fatality, view_key
from viewmeter.model.time import DAY_MS, HOUR_MS
from viewmeter.testing.columns import to_table
from viewmeter.testing.contracts.archive import ALWAYS, T0

ACME, GLOBEX = Tenant("acme", "Acme", b"secret of acme"), Tenant("globex", "Globex", b"secret of globex")
ONE = Owners({"acme": ACME}, default=ACME)
TWO = Owners({"acme": ACME, "globex": GLOBEX})
NOW = T0 + 40 * DAY_MS

Line = dict[str, Any]


def line(seq: int = 0, at_ms: int = T0, **more: Any) -> Line:
    return {"type": "play", "ts": at_ms, "view_id": "a", "seq": seq, "video_id": "v", "channel_id": "c", **more}


@pytest.fixture
def archives(tmp_path: Path) -> Iterator[Callable[[str], EmbeddedArchive]]:
    opened: list[Any] = []

    def make(name: str) -> EmbeddedArchive:
        opened.append(log := EmbeddedLogReader(tmp_path / name / "log"))
        opened.append(archive := EmbeddedArchive(tmp_path / name / "archive", log, lambda: NOW))
        return archive

    yield make
    for one in reversed(opened):
        one.close()


class Case:
    """Imports into one archive."""

    def __init__(self, archive: EmbeddedArchive, folder: Path) -> None:
        self.archive, self.folder = archive, folder
        self.refused: list[Rejected] = []

    def lines(self, *rows: Line | str, owners: Owners = ONE, name: str = "events.jsonl") -> Imported:
        path = self.folder / name
        path.write_text("".join((row if isinstance(row, str) else json.dumps(row)) + "\n" for row in rows))
        return self.file(path, owners)

    def file(self, path: Path, owners: Owners = ONE) -> Imported:
        return import_file(self.archive, path, owners, NOW, self.refused.append)

    def rows(self) -> list[dict[str, Any]]:
        rows: list[dict[str, Any]] = self.archive.read(ALWAYS).sort_by("seq").to_pylist()
        return rows


@pytest.fixture
def case(archives: Callable[[str], EmbeddedArchive], tmp_path: Path) -> Case:
    return Case(archives("one"), tmp_path)


def test_events_of_any_age_are_taken_with_what_the_collector_would_have_known(case: Case) -> None:
    old = line(
        0, NOW - 400 * DAY_MS, viewer_id="ann", country="DE", is_bot=True, played_ms=1.4, error_code=7, fatal=False
    )
    done = case.lines(old, line(1, NOW - 3 * HOUR_MS, received_at=NOW - HOUR_MS, halted=True, type="error"))
    assert (done.rows, done.events, sum(done.rejected.values()), len(done.hours)) == (2, 2, 0, 2)
    first, second = case.rows()
    assert (first["type"], first["country"], first["is_bot"], first["played_ms"]) == (EventType.PLAY, "DE", True, 1)
    assert (first["error_code"], first["fatal"], first["city"], first["position_ms"]) == ("7", 0, "unknown", -1)
    assert first["viewer_hash"] == keyed_hash(b"secret of acme", "ann"), "as the collector hashes it"
    assert first["view_key"] == view_key("acme", "a")
    assert (first["received_at"], second["received_at"]) == (NOW, NOW - HOUR_MS)
    assert second["fatal"] == Fatality.HALTED


@pytest.mark.parametrize(
    ("row", "code"),
    [
        (line(type="nope"), "unknown_type"),
        (line(ts=NOW + 6 * 60_000), "ts_in_future"),
        (line(seq=-1), "out_of_range"),
        (line(view_id=""), "wrong_length"),
        (line(video_id=None), "missing_field"),
        (line(channel_id=None), "missing_field"),
        (line(tenant_id="somebody else"), "unknown_tenant"),
        (line(viewer_hash="12x"), "wrong_type"),
        (line(viewer_hash=2**63), "wrong_type"),
        (line(country=7), "wrong_type"),
        ("not json", "malformed"),
        (json.dumps(line()) + json.dumps(line(1)), "malformed"),
        (json.dumps(line()) + "," + json.dumps(line(1)), "malformed"),
        ("[]", "not_an_object"),
        (json.dumps(line(junk="x" * 70_000)), "malformed"),
    ],
)
def test_a_row_that_is_no_event_is_named_and_spoils_nothing(case: Case, row: Line | str, code: str) -> None:
    done = case.lines(line(5), "", row, line(6))
    assert [(one.row, one.code) for one in case.refused] == [(3, code)]
    assert dict(done.rejected) == {code: 1}
    assert [found["seq"] for found in case.rows()] == [5, 6]


def test_the_same_file_counts_once_whatever_it_is_called(case: Case, archives: Any) -> None:
    case.lines(line(0), line(1))
    again = case.lines(line(0), line(1), name="copy.jsonl")
    assert (again.known, again.events, again.hours) == (True, 2, set())
    assert len(case.rows()) == 2


def test_a_crash_in_the_middle_is_made_up_for_by_importing_again(case: Case, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("viewmeter.archive.importing.PART_ROWS", 500)
    put, parts = case.archive.add, []

    def add(events: pa.Table, source: str, now_ms: int) -> Any:
        if len(parts) == 2:
            raise KeyboardInterrupt
        parts.append(source)
        return put(events, source, now_ms)

    rows = [line(seq) for seq in range(1_800)]
    with monkeypatch.context() as patched:
        patched.setattr(case.archive, "add", add)
        with pytest.raises(KeyboardInterrupt):
            case.lines(*rows)
    assert len(case.rows()) == 1_000
    assert case.lines(*rows).events == 1_800
    assert [row["seq"] for row in case.rows()] == list(range(1_800))


def test_rows_that_were_refused_are_taken_once_their_tenant_exists(case: Case) -> None:
    rows = [line(0, tenant_id="acme"), line(1, tenant_id="globex")]
    assert case.lines(*rows, owners=Owners({"acme": ACME})).rejected == {"unknown_tenant": 1}
    assert case.lines(rows[1], owners=TWO, name="repaired.jsonl").events == 1
    assert [row["tenant_id"] for row in case.rows()] == ["acme", "globex"]


def test_whose_events_they_are_can_be_said_for_all_of_them(case: Case) -> None:
    case.lines(line(0, tenant_id="acme"), line(1), owners=Owners(TWO.known, forced=GLOBEX))
    assert {row["tenant_id"] for row in case.rows()} == {"globex"}
    assert {row["view_key"] for row in case.rows()} == {view_key("globex", "a")}


def test_several_tenants_and_none_named_is_refused(case: Case) -> None:
    assert case.lines(line(0), owners=TWO).rejected == {"unknown_tenant": 1}
    assert "--tenant" in case.refused[0].detail


@pytest.mark.parametrize("content", [b"[{}]", b"hello\nworld\n", b"\x89PNG\r\n", b"PAR1 and no more"])
def test_a_file_that_is_something_else_is_refused_whole(case: Case, content: bytes) -> None:
    path = case.folder / "other"
    path.write_bytes(content)
    with pytest.raises(UnreadableFileError, match="Parquet"):
        case.file(path)


def test_parquet_with_the_columns_of_the_wire_is_taken(case: Case) -> None:
    moments = [datetime.fromtimestamp(T0 / 1000 + n, UTC) for n in range(3)]
    table = pa.table(
        {
            "type": ["play", "heartbeat", "bad"],
            "ts": pa.array(moments, pa.timestamp("ms", "UTC")),
            "view_id": ["a"] * 3,
            "seq": [0, 1, 2],
            "video_id": ["v"] * 3,
            "channel_id": ["c"] * 3,
            "played_ms": pa.array([None, 900, None], pa.int32()),
            "something_else": [1, 2, 3],
        }
    )
    pq.write_table(table, path := case.folder / "wire.parquet")
    assert case.file(path).rejected == {"unknown_type": 1}
    assert case.refused[0].row == 3
    assert [(row["ts"], row["played_ms"]) for row in case.rows()] == [(T0, -1), (T0 + 1_000, 900)]


def test_parquet_without_a_column_that_is_needed_says_which(case: Case) -> None:
    pq.write_table(pa.table({"type": ["play"], "ts": [T0]}), path := case.folder / "less.parquet")
    with pytest.raises(UnreadableFileError, match="view_id, seq, video_id"):
        case.file(path)


def test_parquet_of_the_archive_is_judged_column_by_column(case: Case) -> None:
    good = to_table([line(seq, tenant_id="acme", viewer_hash=1, received_at=T0) for seq in range(9)]).to_pylist()
    spoil: list[dict[str, Any]] = [
        {"type": 11}, {"ts": NOW + 10**6}, {"tenant_id": "globex"}, {"view_id": ""}, {"view_id": None},
        {"played_ms": -2}, {"playback_rate": float("nan")}, {"error_message": "x" * 2_000},
    ]  # fmt: skip
    rows = [good[0], *(row | bad for row, bad in zip(good[1:], spoil, strict=True))]
    nullable = pa.schema([field.with_nullable(True) for field in EVENT_SCHEMA])
    pq.write_table(pa.Table.from_pylist(rows, schema=nullable), path := case.folder / "archived.parquet")
    assert case.file(path).events == 1
    assert [(one.row, one.code) for one in case.refused] == [
        (2, "out_of_range"), (3, "ts_in_future"), (4, "unknown_tenant"), (5, "wrong_length"), (6, "missing_field"),
        (7, "out_of_range"), (8, "out_of_range"), (9, "wrong_length"),
    ]  # fmt: skip
    assert "keys create" in case.refused[2].detail


def test_an_import_cannot_aim_at_another_tenants_view(case: Case) -> None:
    rows = to_table([line(0, tenant_id="acme", viewer_hash=1, received_at=T0)]).to_pylist()
    rows[0]["view_key"] = view_key("globex", "a")
    pq.write_table(pa.Table.from_pylist(rows, schema=EVENT_SCHEMA), path := case.folder / "forged.parquet")
    case.file(path)
    assert [row["view_key"] for row in case.rows()] == [view_key("acme", "a")]


@pytest.mark.parametrize("form", ["parquet", "jsonl"])
def test_what_was_exported_is_imported_as_it_was(
    case: Case, archives: Callable[[str], EmbeddedArchive], tmp_path: Path, form: str
) -> None:
    case.lines(
        line(0, viewer_id="ann", country="DE", city="Köln", bitrate_kbps=1_200, playback_rate=1.25, blind=True),
        line(1, T0 + HOUR_MS, type="error", fatal=True, error_code="E", error_message="☃", startup_ms=0),
        line(2, T0 + HOUR_MS, type="error", halted=True, player="unknown", stream_type="live", duration_ms=0),
        line(2, T0 + HOUR_MS, type="exit", tenant_id="acme", is_bot=True),
        line(9, T0 + 9 * HOUR_MS, type="exit"),
    )
    sink = io.BytesIO()
    write = outgoing.write_parquet if form == "parquet" else outgoing.write_lines
    assert write(outgoing.parts(case.archive, ALWAYS._replace(end_ms=T0 + 9 * HOUR_MS), "acme"), sink) == 4
    (path := tmp_path / f"export.{form}").write_bytes(sink.getvalue())
    other = Case(archives("other"), tmp_path)
    assert other.file(path).events == 4
    assert other.refused == []

    def told(rows: list[dict[str, Any]]) -> list[str]:
        return sorted(str({name: row[name] for name in EVENT_SCHEMA.names}) for row in rows if row["seq"] < 9)

    assert told(other.rows()) == told(case.rows())


def test_large_hours_are_exported_in_parts(case: Case, monkeypatch: pytest.MonkeyPatch) -> None:
    case.lines(*(line(0, view_id=f"view {n}") for n in range(1_000)))
    monkeypatch.setattr(outgoing, "PART_EVENTS", 100)
    parts = list(outgoing.parts(case.archive, ALWAYS, None))
    assert len(parts) == 10
    assert sum(part.num_rows for part in parts) == 1_000
    assert len(set(pa.concat_tables(parts)["view_id"].to_pylist())) == 1_000
