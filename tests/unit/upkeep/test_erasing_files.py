"""What erasing does to each kind of file; the whole is in tests/e2e/test_erase.py."""

from __future__ import annotations

import random
from pathlib import Path

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from viewmeter.eventlog import embedded_erase
from viewmeter.eventlog.embedded import EmbeddedLogReader, EmbeddedLogWriter
from viewmeter.model.time import HOUR_MS
from viewmeter.stream import snapshot
from viewmeter.stream.core import Core
from viewmeter.testing.contracts.archive import T0, event, events
from viewmeter.upkeep import erase

HER = 0x1122334455667788


def batch(*rows: dict[str, object]) -> pa.RecordBatch:
    return events(*rows).unify_dictionaries().combine_chunks().to_batches()[0]


def test_the_log_keeps_its_offsets_and_everybody_else_also_while_it_is_written(tmp_path: Path) -> None:
    now = [T0]
    writer = EmbeddedLogWriter(tmp_path, 0, lambda: now[0])
    writer.append(batch(event("a", 0, viewer=HER), event("b", 0, viewer=2)))
    writer.append(batch(event("a", 1, viewer=HER)))
    now[0] += HOUR_MS
    writer.append(batch(event("c", 0, viewer=HER, tenant="globex"), event("a", 2, viewer=HER)))
    assert embedded_erase.erase(tmp_path, "acme", HER) == 3
    assert embedded_erase.erase(tmp_path, "acme", HER) == 0
    writer.append(batch(event("d", 0)))
    reader = EmbeddedLogReader(tmp_path)
    found = {one.offset: one.events.column("view_id").to_pylist() for one in reader.read({})}
    assert found == {1: ["b"], 2: [], 3: ["c"], 4: ["d"]}
    assert reader.damaged() == []
    reader.close()
    writer.close()


def test_no_page_of_the_log_holds_what_was_there(tmp_path: Path) -> None:
    """Noise does not compress: the bytes of the hash stand in the file as they are."""
    rng = random.Random(3)
    writer = EmbeddedLogWriter(tmp_path, 0, lambda: T0)
    for number in range(30):
        noise = [event(f"{rng.random()}", 0, viewer=rng.getrandbits(62), error_message=f"{rng.getrandbits(4_000):x}")]
        writer.append(batch(*noise, event(f"her-{number}", 0, viewer=HER, error_message=f"{rng.getrandbits(900):x}")))
    needle = b"her-2"
    assert any(needle in path.read_bytes() for path in tmp_path.rglob("*.sqlite*"))
    embedded_erase.erase(tmp_path, "acme", HER)
    for path in tmp_path.rglob("*"):
        if path.is_file():
            assert HER.to_bytes(8, "little") not in path.read_bytes()
            assert needle not in path.read_bytes()
    writer.close()


@pytest.mark.parametrize("clean", [True, False], ids=["checkpointed", "in the write-ahead log"])
def test_the_store_s_file_is_written_anew_without_freed_pages(tmp_path: Path, clean: bool) -> None:
    path = tmp_path / "store.duckdb"
    with duckdb.connect(path) as held:
        held.execute("CREATE TABLE viewers (hour_ms BIGINT, tenant VARCHAR, viewer_hash BIGINT)")
        held.execute("CREATE TABLE commits (number BIGINT PRIMARY KEY, positions MAP(INTEGER, BIGINT))")
        held.execute("INSERT INTO commits VALUES (7, MAP {0: 12})")
        held.execute(
            f"INSERT INTO viewers SELECT i, 't', hash(i) // 2 FROM range(50000) AS r(i) UNION ALL SELECT 1, 't', {HER}"
        )
        held.execute("CHECKPOINT")
        held.execute(f"DELETE FROM viewers WHERE viewer_hash = {HER}")
        if not clean:
            held.execute("PRAGMA disable_checkpoint_on_shutdown")
    erase.rewrite_store(path)
    with duckdb.connect(path) as made:
        assert made.execute("SELECT count(*) FROM viewers").fetchone() == (50_000,)
        assert made.execute("SELECT * FROM commits").fetchall() == [(7, {0: 12})]
        with pytest.raises(duckdb.ConstraintException):
            made.execute("INSERT INTO commits VALUES (7, MAP {0: 12})")
    left = [one for one in tmp_path.iterdir() if HER.to_bytes(8, "little") in one.read_bytes()]
    assert left == []


def test_files_of_the_batch_layer_lose_the_viewer_s_rows(tmp_path: Path) -> None:
    (tmp_path / "batch" / "carry").mkdir(parents=True)
    table = pa.table({"tenant_id": ["acme", "acme", "globex"], "viewer_hash": [HER, 2, HER], "x": [1, 2, 3]})
    pq.write_table(table, path := tmp_path / "batch" / "carry" / "1.parquet")
    pq.write_table(pa.table({"other": [1]}), tmp_path / "batch" / "2.parquet")
    (tmp_path / "batch" / "out" / "3600000").mkdir(parents=True)
    (tmp_path / "batch" / "out" / "3600000" / "viewers.arrow").write_bytes(HER.to_bytes(8, "little"))

    def no_store() -> None:
        raise AssertionError("there is none")

    gone = erase.from_state(tmp_path, no_store, "acme", HER)  # type: ignore[arg-type]
    assert gone.batch_files == 1
    assert pq.read_table(path)["x"].to_pylist() == [2, 3]
    assert list((tmp_path / "batch" / "out").iterdir()) == []


def test_the_saved_state_forgets_who_it_was_and_counts_on(tmp_path: Path) -> None:
    core = Core()
    core.step([events(event("a", 0, viewer=HER, type="play"), event("b", 0, viewer=2, type="play"))], T0 + 5_000)
    core.step([events(event("g", 0, viewer=HER, tenant="globex", type="play"))], T0 + 5_000)
    core.step([events(event("w", 5, T0 + 6_000, viewer=HER))], T0 + 6_000)  # waits for its predecessors
    waiting = core.waiting.num_rows
    snapshot.save(core, 3, {0: 1}, tmp_path)
    assert snapshot.forget_viewer(tmp_path, "acme", HER) >= 1
    found = snapshot.load(tmp_path)
    assert found is not None
    assert (found.number, found.positions, found.core.views) == (3, {0: 1}, core.views - 1), (
        "the one that only waited is gone"
    )
    assert found.core.viewer.tolist().count(HER) == 1, "the other tenant's viewer of that hash is somebody else"
    assert found.core.waiting.num_rows == waiting - 1
    assert snapshot.forget_viewer(tmp_path, "acme", HER) == 0
    later = found.core.step([events(event("a", 1, T0 + 30_000, type="heartbeat"))], T0 + 31_000)
    assert later.increments is not None
    assert snapshot.forget_viewer(tmp_path / "nothing here", "acme", HER) == 0
