"""The time-series store's promises, on every implementation; and what is DuckDB's own."""

import itertools
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import duckdb
import pyarrow as pa
import pytest

from viewmeter.model.time import Interval
from viewmeter.olap.embedded import DuckDBSettings, DuckDBStore, StoreLockedError, StoreVersionError
from viewmeter.olap.errors import ScanTooLargeError
from viewmeter.testing.contracts.facts import DAY, HOUR, T0, fact, rows_of
from viewmeter.testing.contracts.olap import TimeSeriesStoreContract, commit, scan
from viewmeter.testing.contracts.olap_batch import BatchTablesContract

SMALL = DuckDBSettings(threads=1, readers=3, compact_rows=10)


@pytest.fixture
def store(tmp_path: Path) -> Iterator[DuckDBStore]:
    made = DuckDBStore(tmp_path / "store.duckdb", SMALL)
    yield made
    made.close()


@pytest.fixture
def fresh_store(tmp_path: Path) -> Callable[[], DuckDBStore]:
    made = itertools.count()
    return lambda: DuckDBStore(tmp_path / f"fresh-{next(made)}.duckdb", SMALL)


@pytest.fixture
def reopened(tmp_path: Path) -> Callable[[], DuckDBStore]:
    def open_again() -> DuckDBStore:
        """A copy of the files as they are on disk now is what a killed process leaves."""
        copy = tmp_path / "killed"
        copy.mkdir()
        for file in tmp_path.glob("store.duckdb*"):
            shutil.copy(file, copy)
        return DuckDBStore(copy / "store.duckdb", SMALL)

    return open_again


class TestDuckDBStore(TimeSeriesStoreContract):
    pass


class TestDuckDBBatch(BatchTablesContract):
    pass


def test_O5_rows_and_commit_survive_kill_9(tmp_path: Path) -> None:
    path = tmp_path / "store.duckdb"
    program = f"""
import os, signal
from pathlib import Path
from viewmeter.olap.embedded import DuckDBStore
from viewmeter.testing.contracts.facts import fact, rows_of
from viewmeter.testing.contracts.olap import commit
store = DuckDBStore(Path({str(path)!r}))
for number in (1, 2, 3):
    store.append(rows_of([fact(0, plays=1)]), commit(number))
os.kill(os.getpid(), signal.SIGKILL)
"""
    subprocess.run([sys.executable, "-c", program], check=False, timeout=60)
    store = DuckDBStore(path, SMALL)
    assert store.last_commit() == commit(3)
    assert scan(store, "plays") == [{"bucket": 0, "plays": 3}]
    store.close()


def test_a_newer_schema_is_refused_with_what_to_do(tmp_path: Path) -> None:
    path = tmp_path / "store.duckdb"
    DuckDBStore(path, SMALL).close()
    with duckdb.connect(path) as db:
        db.execute("UPDATE schema_version SET version = 99")
    with pytest.raises(StoreVersionError, match="newer Viewmeter"):
        DuckDBStore(path, SMALL)


def test_a_second_process_is_told_who_holds_the_file(tmp_path: Path, store: DuckDBStore) -> None:
    program = f"""
from pathlib import Path
from viewmeter.olap.embedded import DuckDBStore, StoreLockedError
try:
    DuckDBStore(Path({str(tmp_path / "store.duckdb")!r}))
except StoreLockedError as error:
    print(error)
"""
    done = subprocess.run([sys.executable, "-c", program], check=True, timeout=60, capture_output=True, text=True)
    assert "held by another process" in done.stdout
    assert issubclass(StoreLockedError, Exception)


def test_a_measure_that_a_newer_catalogue_brought_is_0_in_old_rows(tmp_path: Path) -> None:
    path = tmp_path / "store.duckdb"
    before = DuckDBStore(path, SMALL)
    before.append(rows_of([fact(0, plays=1, seeks=1)]), commit(1))
    before.close()
    with duckdb.connect(path) as db:
        for table in ("speed_video", "speed_video_merged"):
            db.execute(f"ALTER TABLE {table} DROP COLUMN seeks")
    after = DuckDBStore(path, SMALL)
    assert scan(after, "plays", "seeks") == [{"bucket": 0, "plays": 1, "seeks": 0}]
    after.close()


def test_a_scan_of_too_many_groups_is_refused(tmp_path: Path) -> None:
    store = DuckDBStore(tmp_path / "s.duckdb", DuckDBSettings(scan_rows_max=3))
    store.append(rows_of([fact(0, plays=1, video_id=f"v{i}") for i in range(4)]), commit(1))
    with pytest.raises(ScanTooLargeError, match="narrow"):
        scan(store, "plays", dimensions=("video_id",))
    assert scan(store, "plays") == [{"bucket": 0, "plays": 4}]
    store.close()


def test_the_change_number_rises_with_rows_of_the_range_and_stands_otherwise(store: DuckDBStore) -> None:
    day, later = Interval(T0, T0 + DAY), Interval(T0 + DAY, T0 + 2 * DAY)
    store.append(rows_of([fact(0, plays=1)]), commit(1))
    first = store.change_number(day)
    store.append(rows_of([fact(DAY + HOUR, plays=1)]), commit(2))
    assert store.change_number(day) == first
    assert store.change_number(later) > first
    store.compact(T0 + 3 * DAY)
    assert store.change_number(day) == first
    store.append(rows_of([fact(DAY - 1, plays=1)]), commit(3))
    assert store.change_number(day) > first


def test_many_viewers_of_one_minute_are_thinned_without_changing_the_count(store: DuckDBStore) -> None:
    facts = [fact(0, viewer=i * 7_919, plays=1) for i in range(40_000)]
    rows = {"platform": rows_of(facts)["platform"]}
    store.append(rows, commit(1))
    before = scan(store, "viewers_hll", rollup="platform")
    store.compact(T0 + DAY)
    assert scan(store, "viewers_hll", rollup="platform") == before


def test_a_scan_that_takes_too_long_is_stopped_and_its_reader_serves_on(tmp_path: Path) -> None:
    store = DuckDBStore(tmp_path / "s.duckdb", DuckDBSettings(threads=1, readers=1, scan_timeout_s=0.02))
    one = rows_of([fact(0, plays=1, viewer=1)])["video"]
    for number in range(8):
        videos = pa.array([f"v{number}-{i}" for i in range(50_000)])
        rows = pa.table({**{n: one[n].take(pa.array([0] * 50_000)) for n in one.column_names}, "video_id": videos})
        store.load({"video": rows})
    with pytest.raises(TimeoutError, match="narrow"):
        scan(store, "plays", "viewers_hll", dimensions=("video_id",))
    assert scan(store, "plays", edges=(DAY, 2 * DAY)) == []
    store.close()


def test_a_scan_waits_for_a_reader_only_so_long(tmp_path: Path) -> None:
    store = DuckDBStore(tmp_path / "s.duckdb", DuckDBSettings(readers=1, reader_wait_s=0.01))
    with store._readers.one(), pytest.raises(TimeoutError, match="busy"):
        scan(store, "plays")
    assert scan(store, "plays") == []
    store.close()
