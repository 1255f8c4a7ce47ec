"""The archive's promises, on every implementation; and what is the embedded one's own: crashes, disks, damage."""

from __future__ import annotations

import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa
import pyarrow.dataset as ds
import pyarrow.parquet as pq
import pytest

from viewmeter.archive.archiver import Archiver
from viewmeter.archive.embedded import ArchiveSettings, EmbeddedArchive
from viewmeter.archive.protocol import ARCHIVE_SCHEMA, ArchiveDamagedError, ArchiveUnavailableError
from viewmeter.eventlog.embedded import EmbeddedLogReader, EmbeddedLogWriter
from viewmeter.model.time import DAY_MS, HOUR_MS, MINUTE_MS, Interval
from viewmeter.testing.contracts.archive import ALWAYS, T0, ArchiveContract, Died, event, events, seen


class EmbeddedUnderTest:
    """The embedded archive and the embedded log in a folder."""

    def __init__(self, root: Path) -> None:
        self.root, self.now_ms = root, T0
        self.log = EmbeddedLogReader(root / "log")
        self._writers: dict[int, EmbeddedLogWriter] = {}
        self._closing: list[Any] = [self.log]
        self._steps_left = 0
        self.settings = ArchiveSettings(group_rows=64)

    @property
    def folder(self) -> Path:
        return self.root / "archive"

    def append(self, events: pa.Table, partition: int = 0) -> None:
        if partition not in self._writers:
            self._writers[partition] = EmbeddedLogWriter(self.root / "log", partition, lambda: self.now_ms)
            self._closing.append(self._writers[partition])
        self._writers[partition].append(events.unify_dictionaries().combine_chunks().to_batches()[0])

    def open(self) -> EmbeddedArchive:
        made = EmbeddedArchive(self.folder, self.log, lambda: self.now_ms, self.settings, self._step())
        self._closing.append(made)
        return made

    def _step(self) -> Any:
        left, self._steps_left = self._steps_left, 0

        def step(_: str) -> None:
            nonlocal left
            left -= 1
            if left == 0:
                raise Died

        return step

    def die_at(self, step: int) -> None:
        self._steps_left = step

    def plain(self) -> pa.Table:
        return plain(self.folder)

    def fresh(self) -> EmbeddedUnderTest:
        self._closing.append(made := EmbeddedUnderTest(self.root / f"fresh-{len(self._closing)}"))
        return made

    def files(self) -> list[Path]:
        return sorted(self.folder.glob("date=*/hour=*/*.parquet"))

    def close(self) -> None:
        for one in reversed(self._closing):
            one.close()


def plain(folder: Path) -> pa.Table:
    """Return all events as a reader sees them that knows nothing of a manifest."""
    paths = sorted(folder.rglob("*.parquet"))
    return pa.concat_tables([ARCHIVE_SCHEMA.empty_table(), *(pq.ParquetFile(path).read() for path in paths)])


@pytest.fixture
def here(tmp_path: Path) -> Iterator[EmbeddedUnderTest]:
    made = EmbeddedUnderTest(tmp_path)
    yield made
    made.close()


class TestEmbeddedArchive(ArchiveContract):
    pass


# Crashes

_WRITER = """
import sys
from pathlib import Path
from viewmeter.archive.embedded import ArchiveSettings, EmbeddedArchive
from viewmeter.eventlog.embedded import EmbeddedLogReader, EmbeddedLogWriter
from viewmeter.testing.contracts.archive import T0, event, events
root, life = Path(sys.argv[1]), sys.argv[2]
writer = EmbeddedLogWriter(root / "log", 0, lambda: T0)
archive = EmbeddedArchive(root / "archive", EmbeddedLogReader(root / "log"), lambda: T0, ArchiveSettings(merge_files=3))
number = 0
while True:
    rows = [event(f"{life}-{number}", seq, T0 + seq * 60_000 * 7) for seq in range(20)]
    writer.append(events(*rows).unify_dictionaries().combine_chunks().to_batches()[0])
    print(life, number, flush=True)
    archive.flush()
    archive.tidy(T0, 10**9)
    number += 1
"""


def test_A1_A5_kill_9_in_the_middle_of_archiving_and_merging_loses_and_doubles_nothing(tmp_path: Path) -> None:
    durable: set[str] = set()
    for life in range(4):
        with subprocess.Popen(
            [sys.executable, "-c", _WRITER, str(tmp_path), str(life)], stdout=subprocess.PIPE, text=True
        ) as child:
            assert child.stdout is not None
            for _ in range(10 + 7 * life):
                durable.add("-".join(child.stdout.readline().split()))
            child.send_signal(signal.SIGKILL)
            durable.update("-".join(line.split()) for line in child.stdout if line.endswith("\n"))
        before = seen(plain(tmp_path / "archive"))
        assert max(before.values(), default=1) == 1, "a plain reader sees an event twice before anybody tidied up"
        log = EmbeddedLogReader(tmp_path / "log")
        archive = EmbeddedArchive(tmp_path / "archive", log, lambda: T0)
        archive.flush()
        found = seen(archive.read(ALWAYS))
        assert set(found.values()) == {1}
        assert {view for view, _ in found} >= durable
        assert seen(plain(tmp_path / "archive")) == found
        archive.close()
        log.close()


_BESIDE = """
import sys
from pathlib import Path
from viewmeter.archive.embedded import ArchiveSettings, EmbeddedArchive
from viewmeter.eventlog.embedded import EmbeddedLogReader
from viewmeter.testing.contracts.archive import T0, event, events
root, name = Path(sys.argv[1]), sys.argv[2]
archive = EmbeddedArchive(root / "archive", EmbeddedLogReader(root / "log"), lambda: T0, ArchiveSettings(merge_files=3))
for number in range(15):
    archive.flush()
    mine = events(event(f"{name}-{number}", 0), event(f"{name}-{number}", 1, T0 + 3_600_000))
    archive.add(mine, f"{name} {number}", T0)
    archive.add(events(event(f"both-{number}", 0)), f"both {number}", T0)
    archive.tidy(T0, 10**9)
"""


def test_A1_A6_several_processes_write_to_one_archive_and_nothing_is_doubled_or_lost(here: EmbeddedUnderTest) -> None:
    command = [sys.executable, "-c", _BESIDE, str(here.root)]
    for seq in range(5):
        here.append(events(event("log", seq)))
    children = [subprocess.Popen([*command, name], stderr=subprocess.PIPE, text=True) for name in ("a", "b")]
    for seq in range(5, 40):
        here.append(events(event("log", seq)))
    for child in children:
        _, said = child.communicate(timeout=120)
        assert child.returncode == 0, said
    archive = here.open()
    archive.flush()
    expected = {("log", seq): 1 for seq in range(40)} | {(f"both-{number}", 0): 1 for number in range(15)}
    expected |= {(f"{name}-{number}", seq): 1 for name in "ab" for number in range(15) for seq in (0, 1)}
    assert seen(archive.read(ALWAYS)) == seen(here.plain()) == expected


def test_A5_readers_see_whole_hours_while_files_are_merged_and_rewritten(here: EmbeddedUnderTest) -> None:
    """Between each two steps of a change the reader of another process sees the hour before it or after it."""
    archive = here.open()
    for seq in range(6):
        here.append(events(event("a", seq, viewer=1), event("b", seq, viewer=2)))
        archive.flush()
    reader = archive.reader()
    whole, without = 12, 6
    looked: list[tuple[str, int, int]] = []

    def look(step: str) -> None:
        found = reader.read(ALWAYS)
        looked.append((step, found.num_rows, plain(here.folder).num_rows))
        assert max(seen(found).values()) == 1

    watched = EmbeddedArchive(here.folder, here.log, lambda: T0, here.settings, look)
    assert watched.tidy(T0 + 100 * HOUR_MS, 10**9) == whole
    assert [rows for _, rows, _ in looked] == [whole] * 4
    assert [rows for _, _, rows in looked] == [12, 12, 0, 12], "plain readers miss a moment rather than count twice"
    looked.clear()
    assert watched.erase("acme", 1) == [T0]
    assert [rows for _, rows, _ in looked] == [whole, without, without, without]
    watched.close()
    reader.close()


# Disks

_FULL = """
import resource, sys
from pathlib import Path
from viewmeter.archive.embedded import EmbeddedArchive
from viewmeter.archive.protocol import ArchiveUnavailableError
from viewmeter.eventlog.embedded import EmbeddedLogReader
from viewmeter.testing.contracts.archive import ALWAYS, T0
root = Path(sys.argv[1])
archive = EmbeddedArchive(root / "archive", EmbeddedLogReader(root / "log"), lambda: T0)
resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, resource.RLIM_INFINITY))
refused = 0
for _ in range(3):
    try:
        archive.flush()
    except ArchiveUnavailableError as error:
        refused += 1
        assert "free disk space" in str(error), error
left = [str(path) for path in (root / "archive").rglob("*") if "parquet" in path.name]
print(refused, archive.read(ALWAYS).num_rows, archive.positions(), left)
resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
archive.flush()
print(archive.read(ALWAYS).num_rows, archive.positions())
"""


def test_A9_a_full_disk_refuses_and_leaves_nothing_and_heals_by_itself(here: EmbeddedUnderTest) -> None:
    noise = [event(f"{seq * 7919 % 10_007:x}" * 4, seq, T0 + seq, viewer=seq**5 % 2**60) for seq in range(9_000)]
    here.append(events(*noise))
    done = subprocess.run([sys.executable, "-c", _FULL, str(here.root)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == ["3 0 {} []", "9000 {0: 1}"]


def test_A9_the_archiver_tells_of_a_disk_that_refuses_and_goes_on_afterwards(here: EmbeddedUnderTest) -> None:
    archive = here.open()
    archiver = Archiver(archive, lambda: here.now_ms, here.settings)
    here.append(events(event("a", 0)))
    in_the_way = here.folder / "date=2025-11-24"
    in_the_way.write_text("no folder can be made here")
    archiver.turn()
    assert "free disk space or repair the disk" in (archiver.check() or "")
    in_the_way.unlink()
    archiver.turn()
    assert archiver.check() is None
    assert seen(archive.read(ALWAYS)) == {("a", 0): 1}


# Damage


def test_A3_a_flipped_byte_is_found_and_told_and_never_read_as_less(here: EmbeddedUnderTest) -> None:
    archive = here.open()
    here.append(events(*(event(f"view {n}", 0, T0 + n) for n in range(500)), event("b", 0, T0 + 5 * HOUR_MS)))
    archive.flush()
    path = here.files()[0]
    sound = path.read_bytes()
    path.write_bytes(sound[:2_000] + bytes([sound[2_000] ^ 0xFF]) + sound[2_001:])
    with pytest.raises(ArchiveDamagedError, match="put it back from a backup") as caught:
        archive.read(ALWAYS)
    assert (caught.value.hour_ms, here.folder / caught.value.path) == (T0, path)
    assert [damaged for damaged, _ in archive.figures().damaged] == [str(path.relative_to(here.folder))]
    assert seen(archive.read(Interval(T0 + HOUR_MS, T0 + 9 * HOUR_MS))) == {("b", 0): 1}, "other hours are served"
    path.write_bytes(sound)
    assert archive.read(ALWAYS).num_rows == 501
    assert archive.figures().damaged == (), "a file that was put back is sound again"


@pytest.mark.parametrize("harm", ["empty", "cut", "gone"])
def test_A3_a_file_that_is_cut_or_gone_is_told_too(here: EmbeddedUnderTest, harm: str) -> None:
    archive = here.open()
    here.append(events(*(event(f"view {n}", 0) for n in range(100))))
    archive.flush()
    (path,) = here.files()
    if harm == "gone":
        path.unlink()
    else:
        path.write_bytes(b"" if harm == "empty" else path.read_bytes()[:-100])
    with pytest.raises(ArchiveDamagedError):
        archive.read(ALWAYS)
    assert len(archive.figures().damaged) == 1


def test_A3_damaged_files_are_left_out_of_merges_and_the_rest_goes_on(here: EmbeddedUnderTest) -> None:
    archive = here.open()
    for seq in range(4):
        here.append(events(event("a", seq)))
        archive.flush()
    here.files()[1].write_bytes(b"PAR1 no more")
    assert archive.tidy(T0 + 100 * HOUR_MS, 10**9) == 0
    assert archive.tidy(T0 + 100 * HOUR_MS, 10**9) == 3
    with pytest.raises(ArchiveDamagedError):
        archive.read(ALWAYS)


def test_A7_erasing_from_a_damaged_file_keeps_what_can_be_read_of_it(here: EmbeddedUnderTest) -> None:
    archive = here.open()
    here.append(events(*(event(f"view {n}", 0, viewer=n % 2) for n in range(400))))
    archive.flush()
    (path,) = here.files()
    about = pq.ParquetFile(path).metadata.row_group(0).column(3)
    data = bytearray(path.read_bytes())
    data[about.data_page_offset + about.total_compressed_size // 2] ^= 0xFF
    path.write_bytes(bytes(data))
    with pytest.raises(ArchiveDamagedError):
        archive.read(ALWAYS)
    assert archive.erase("acme", 1) == [T0]
    left = archive.read(ALWAYS)
    assert set(left["viewer_hash"].to_pylist()) == {0}
    assert 100 < left.num_rows < 200, "one group of rows of seven was damaged"


def test_a_manifest_that_is_gone_is_made_anew_from_the_files(here: EmbeddedUnderTest) -> None:
    archive = here.open()
    for seq in range(4):
        here.append(events(event("a", seq), event("b", seq, T0 + HOUR_MS)), seq % 2)
        archive.flush()
    archive.tidy(T0 + 100 * HOUR_MS, 10**9)
    archive.add(events(event("c", 0)), "source", T0)
    before, hours, positions = seen(archive.read(ALWAYS)), dict(archive.hours()), archive.positions()
    archive.close()
    for path in here.folder.glob("manifest.db*"):
        path.unlink()
    half = here.folder / "date=2025-11-24" / "hour=16" / ".0000000077.parquet.tmp"
    half.write_bytes(b"half a file")
    again = here.open()
    assert (seen(again.read(ALWAYS)), again.positions()) == (before, positions)
    assert {hour for hour, version in again.hours().items() if version > hours[hour]} == set(hours), "counted anew"
    assert not half.exists()
    here.append(events(event("a", 9)))
    again.flush()
    assert seen(again.read(ALWAYS)) == seen(here.plain()) == before | {("a", 9): 1}


def test_a_manifest_that_is_damaged_says_what_to_do(here: EmbeddedUnderTest) -> None:
    here.open().close()
    (here.folder / "manifest.db").write_bytes(b"no database at all" * 100)
    with pytest.raises(ArchiveUnavailableError, match=r"remove archive/manifest\.db"):
        here.open()


# Merging


def test_merging_takes_an_hour_s_small_files_together_and_rewrites_an_event_seldom(here: EmbeddedUnderTest) -> None:
    archive = here.open()
    rewritten = 0
    for turn in range(64):
        here.append(events(*(event(f"v{turn}", seq, T0 + turn * 20_000) for seq in range(10))))
        archive.flush()
        rewritten += archive.tidy(T0 + turn * 20_000, 10**9)
    assert rewritten <= 3 * 640
    assert len(here.files()) < 8
    archive.tidy(T0 + 2 * HOUR_MS, 10**9)
    assert len(here.files()) <= 2
    assert len(seen(archive.read(ALWAYS))) == 640


def test_late_events_do_not_rewrite_a_large_hour(here: EmbeddedUnderTest) -> None:
    archive = here.open()
    here.append(events(*(event(f"v{n}", 0) for n in range(2_000))))
    archive.flush()
    for late in range(20):
        here.append(events(event(f"late {late}", 0)))
        archive.flush()
        assert archive.tidy(T0 + 5 * HOUR_MS, 10**9) < 100


def test_a_large_file_is_cut_where_the_setting_says(here: EmbeddedUnderTest) -> None:
    here.settings = ArchiveSettings(file_events=1_000)
    archive = here.open()
    for n in range(5):
        here.append(events(*(event(f"v{n}-{i}", 0) for i in range(600))))
    archive.flush()
    assert [pq.ParquetFile(path).metadata.num_rows for path in here.files()] == [1_200, 1_200, 600]


def test_the_archiver_archives_merges_and_drops_by_its_clock(here: EmbeddedUnderTest) -> None:
    archive = here.open()
    archiver = Archiver(archive, lambda: here.now_ms, ArchiveSettings(keep_days=2))
    for seq in range(5):
        here.append(events(event("a", seq)))
        archiver.turn()
    assert len(here.files()) == 5
    here.now_ms = T0 + 2 * HOUR_MS
    archiver.turn()
    assert len(here.files()) == 1
    here.now_ms = T0 + 2 * DAY_MS + 2 * HOUR_MS
    archiver.turn()
    assert here.files() == []
    here.append(events(event("b", 0)))
    archiver.start()
    archiver.stop()
    assert seen(archive.read(ALWAYS)) == {("b", 0): 1}, "stop() takes what is durable"


# Others


def _told(number: int) -> dict[str, Any]:
    """Return words and numbers for every kind of column: edges of int64, no number, other letters, nothing said."""
    return {
        "viewer": (-(2**63), 2**63 - 1, 0, -1, 7)[number % 5], "country": "DE",
        "error_message": ("", "naïve ☃ 動画")[number % 2],
        "playback_rate": (-1.0, 0.5, 2.0)[number % 3], "fatal": (-1, 0, 1, 2)[number % 4], "blind": number % 2 == 0,
        "is_bot": number % 7 == 0, "position_ms": (-1, 0, 2**40)[number % 3], "city": f"city {number}",
    }  # fmt: skip


def _four_hours(here: EmbeddedUnderTest) -> list[tuple[Any, ...]]:
    """Archive events of four hours; return every column of each, as the archive itself reads them."""
    archive = here.open()
    for hour in range(4):
        rows = [event(f"v{n}", hour, T0 + hour * HOUR_MS + n * MINUTE_MS, **_told(n)) for n in range(30)]
        here.append(events(*rows))
        archive.flush()
    (here.folder / "date=2025-11-24" / "hour=99").mkdir(parents=True, exist_ok=True)
    (here.folder / "date=2025-11-24" / "hour=99" / ".0000000099.parquet.tmp").write_bytes(b"half a file")
    return _rows(archive.read(ALWAYS))


def _rows(table: pa.Table) -> list[tuple[Any, ...]]:
    return sorted(zip(*(table[name].to_pylist() for name in ARCHIVE_SCHEMA.names), strict=True), key=repr)


def test_A5_duckdb_reads_the_folder(here: EmbeddedUnderTest) -> None:
    expected = _four_hours(here)
    pattern = f"{here.folder}/**/*.parquet"
    rows = duckdb.sql(f"SELECT * FROM read_parquet('{pattern}') WHERE country = 'DE'").to_arrow_table()
    assert _rows(rows) == expected
    by_hour = duckdb.sql(
        f"SELECT date, hour, count(*) FROM read_parquet('{pattern}', hive_partitioning=true) GROUP BY ALL ORDER BY ALL"
    ).fetchall()
    assert [count for _, _, count in by_hour] == [30] * 4


def test_A5_pyarrow_reads_the_folder(here: EmbeddedUnderTest) -> None:
    expected = _four_hours(here)
    table = ds.dataset(here.folder, format="parquet", partitioning="hive", exclude_invalid_files=True).to_table()
    assert _rows(table) == expected


def test_A5_spark_reads_the_folder(here: EmbeddedUnderTest) -> None:
    pyspark = pytest.importorskip("pyspark.sql", reason="Spark is not installed here")
    expected = _four_hours(here)
    spark = pyspark.SparkSession.builder.master("local[1]").config("spark.ui.enabled", "false").getOrCreate()
    try:
        rows = spark.read.parquet(str(here.folder)).select(*ARCHIVE_SCHEMA.names).collect()
    finally:
        spark.stop()
    assert sorted((tuple(row) for row in rows), key=repr) == expected
