"""The event log's promises, on every implementation; and what is the embedded one's own: crashes, disks, damage."""

from __future__ import annotations

import signal
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from viewmeter.eventlog import embedded
from viewmeter.eventlog.embedded import EmbeddedLogReader, EmbeddedLogWriter
from viewmeter.model.time import HOUR_MS
from viewmeter.testing.contracts.eventlog import T0, EventLogContract, batch, seqs_by_offset


class EmbeddedLog:
    """The embedded log in a folder."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.now_ms = T0
        self._opened: list[EmbeddedLogReader | EmbeddedLogWriter | EmbeddedLog] = []

    def writer(self, partition: int = 0) -> EmbeddedLogWriter:
        self._opened.append(made := EmbeddedLogWriter(self.root, partition, lambda: self.now_ms))
        return made

    def reader(self) -> EmbeddedLogReader:
        self._opened.append(made := EmbeddedLogReader(self.root))
        return made

    def fresh(self) -> EmbeddedLog:
        self._opened.append(made := EmbeddedLog(self.root / f"fresh-{len(self._opened)}"))
        return made

    def close(self) -> None:
        for one in self._opened:
            one.close()

    def files(self, partition: int = 0) -> list[Path]:
        return sorted((self.root / f"p{partition:02d}").glob("*.sqlite"))


@pytest.fixture
def log(tmp_path: Path) -> Iterator[EmbeddedLog]:
    made = EmbeddedLog(tmp_path / "log")
    yield made
    made.close()


class TestEmbeddedLog(EventLogContract):
    pass


class Program:
    """A writer of partition 0 in a process of its own. `body` sees `writer`, `batch`, `say` and `wait`."""

    def __init__(self, body: str, root: Path) -> None:
        text = (
            "import random, resource, sys, time\nfrom pathlib import Path\n"
            "from viewmeter.eventlog.embedded import EmbeddedLogWriter\n"
            "from viewmeter.eventlog.protocol import LogUnavailableError\n"
            "from viewmeter.testing.contracts.eventlog import batch\n"
            "say = lambda *words: print('>', *words, flush=True)\n"
            "wait = sys.stdin.readline\n"
            f"writer = EmbeddedLogWriter(Path(sys.argv[1]), 0, lambda: {T0})\n" + body
        )
        pipe = subprocess.PIPE
        self.process = subprocess.Popen(
            [sys.executable, "-c", text, str(root)], stdin=pipe, stdout=pipe, stderr=pipe, text=True, bufsize=1
        )

    def __enter__(self) -> Program:
        return self

    def __exit__(self, *_: object) -> None:
        self.process.kill()
        self.process.communicate()

    def heard(self) -> list[str]:
        """Return the words that it says next; [] at its end. Log lines are skipped."""
        assert self.process.stdout is not None
        for line in self.process.stdout:
            if line.startswith("> "):
                return line[2:].split()
        return []

    def go_on(self) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write("\n")


def test_L1_every_acknowledged_batch_survives_kill_9_in_the_middle_of_appending(log: EmbeddedLog) -> None:
    acknowledged = 0
    for _ in range(3):
        body = "while True:\n    say(writer.append(batch(*range(40))))\n"
        with Program(body, log.root) as other:
            for _ in range(60):
                (word,) = other.heard()
            other.process.send_signal(signal.SIGKILL)
            while words := other.heard():
                (word,) = words
            acknowledged = int(word)
        reader = log.reader()
        found = seqs_by_offset(reader)
        assert list(found) == list(range(1, len(found) + 1))
        assert len(found) >= acknowledged, "an acknowledged batch is gone"
        assert all(seqs == list(range(40)) for seqs in found.values())
        assert reader.damaged() == []


def test_L1_commits_are_synced(log: EmbeddedLog) -> None:
    writer = log.writer()
    writer.append(batch(1))
    connection = writer._connection
    assert connection is not None
    assert connection.execute("PRAGMA synchronous").fetchone() == (2,), "FULL"
    assert connection.execute("PRAGMA journal_mode").fetchone() == ("wal",)


def test_L2_a_full_disk_refuses_the_batch_shows_nothing_of_it_and_heals_by_itself(log: EmbeddedLog) -> None:
    body = """
rng = random.Random(1)
noise = lambda: batch(*(rng.randrange(10**9) for _ in range(400)))
resource.setrlimit(resource.RLIMIT_FSIZE, (300_000, resource.RLIM_INFINITY))
refused = 0
while refused < 3:  # closing the file after an error makes a little room once more
    try:
        kept = writer.append(noise())
        refused = 0
    except LogUnavailableError as error:
        refused += 1
        teaches = "free disk space" in str(error)
say(kept, teaches)
wait()
resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
say(writer.append(batch(7)))
writer.close()
"""
    with Program(body, log.root) as other:
        kept, teaches = other.heard()
        assert teaches == "True"
        reader = log.reader()
        assert reader.ends() == {0: int(kept)}
        assert list(seqs_by_offset(reader)) == list(range(1, int(kept) + 1))
        other.go_on()
        assert other.heard() == [str(int(kept) + 1)]
        assert other.process.wait() == 0
    assert seqs_by_offset(reader)[int(kept) + 1] == [7]
    assert reader.damaged() == []


def test_L2_a_row_that_a_failed_commit_left_behind_never_comes_to_light(log: EmbeddedLog) -> None:
    """What an fsync error may leave: the row is complete in the file, but its sender got a 503."""
    writer = log.writer()
    writer.append(batch(1))
    writer.close()
    (path,) = log.files()
    again = log.writer()
    ghost = sqlite3.connect(path)
    ghost.execute("INSERT INTO batches SELECT 2, received_min, received_max, events, checksum, blob FROM batches")
    ghost.commit()
    ghost.close()
    assert again.append(batch(2)) == 2
    assert seqs_by_offset(log.reader()) == {1: [1], 2: [2]}


def test_L3_a_writer_in_another_process_is_refused_until_the_first_is_dead(log: EmbeddedLog) -> None:
    with Program("say('open')\nwait()\n", log.root) as other:
        assert other.heard() == ["open"]
        with pytest.raises(RuntimeError, match="already has a writer"):
            log.writer()
        other.process.kill()
        other.process.wait()
    log.writer()


def test_L4_a_reader_in_another_process_than_the_writer_sees_all_batches(log: EmbeddedLog) -> None:
    reader = log.reader()
    with Program("for seq in range(1, 201):\n    writer.append(batch(seq))\nsay('done')\n", log.root) as other:
        seen: list[int] = []
        after: dict[int, int] = {}
        while len(seen) < 200 and other.process.poll() in (None, 0):
            for one in reader.read(after, max_events=5):
                after[0] = one.offset
                seen += one.events.column("seq").to_pylist()
        assert other.heard() == ["done"]
    assert seen == list(range(1, 201))


def written(log: EmbeddedLog, hours: int = 3, per_hour: int = 4) -> None:
    """Fill the log: offset n holds seq n."""
    writer = log.writer()
    offset = 0
    for hour in range(hours):
        log.now_ms = T0 + hour * HOUR_MS
        for _ in range(per_hour):
            offset += 1
            assert writer.append(batch(offset)) == offset
    writer.close()


def flip(path: Path, at: int) -> None:
    with path.open("r+b") as file:
        file.seek(at)
        byte = file.read(1)[0]
        file.seek(at)
        file.write(bytes([byte ^ 0x40]))


def blob_at(path: Path, offset: int) -> int:
    """Return where in the file the middle of a batch's bytes is."""
    connection = sqlite3.connect(path)
    (blob,) = connection.execute('SELECT blob FROM batches WHERE "offset" = ?', (offset,)).fetchone()
    connection.close()
    start = path.read_bytes().find(blob)
    assert start > 0
    return start + len(blob) // 2


def test_L7_a_flipped_byte_costs_one_batch_which_is_reported_and_kept_aside(log: EmbeddedLog) -> None:
    written(log)
    path = log.files()[1]
    flip(path, blob_at(path, 6))
    reader = log.reader()
    found = seqs_by_offset(reader)
    assert found.pop(6) == [], "in its place stands a batch of no events, so that positions pass it"
    assert found == {n: [n] for n in range(1, 13) if n != 6}
    ((partition, offset, reason),) = reader.damaged()
    assert (partition, offset) == (0, 6)
    assert "checksum" in reason
    assert (log.root / "damaged" / "p00-000000000006.batch").stat().st_size > 0
    assert log.reader().damaged() == reader.damaged(), "another reader knows of it too"
    reader.read({})
    assert len(reader.damaged()) == 1, "and it is reported once"


def test_L7_a_batch_that_vanished_is_reported(log: EmbeddedLog) -> None:
    written(log)
    connection = sqlite3.connect(log.files()[0])
    connection.execute('DELETE FROM batches WHERE "offset" IN (2, 3)')
    connection.commit()
    connection.close()
    reader = log.reader()
    found = seqs_by_offset(reader)
    assert found == {1: [1], 3: []} | {n: [n] for n in range(4, 13)}
    assert [(offset, "missing" in reason) for _, offset, reason in reader.damaged()] == [(3, True)]


@pytest.mark.parametrize("place", [0, 1])
def test_L7_a_file_that_is_no_database_any_more_costs_its_batches_only(log: EmbeddedLog, place: int) -> None:
    written(log)
    path = log.files()[place]
    path.write_bytes(b"\x00" * path.stat().st_size)
    reader = log.reader()
    found = seqs_by_offset(reader)
    lost = set(range(place * 4 + 1, place * 4 + 5))
    assert {n: seqs for n, seqs in found.items() if seqs} == {n: [n] for n in range(1, 13) if n not in lost}
    assert {offset for _, offset, _ in reader.damaged()} <= lost
    assert reader.damaged()


def test_L7_a_broken_page_costs_the_batches_on_it(log: EmbeddedLog) -> None:
    written(log, hours=2, per_hour=30)
    path = log.files()[0]
    size = path.stat().st_size
    with path.open("r+b") as file:
        file.seek(size - 8192)  # the last page of the file: a leaf of the table
        file.write(b"\xff" * 8192)
    reader = log.reader()
    found = {n: seqs for n, seqs in seqs_by_offset(reader).items() if seqs}
    assert all(seqs == [n] for n, seqs in found.items())
    assert set(range(31, 61)) <= set(found), "the next file is untouched"
    assert 0 < sum(n <= 30 for n in found) < 30, "the other pages are served"
    assert reader.damaged()


def test_L7_a_writer_goes_on_behind_a_newest_file_that_cannot_be_read(log: EmbeddedLog) -> None:
    written(log)
    newest = log.files()[-1]
    newest.write_bytes(b"\xff" * newest.stat().st_size)
    writer = log.writer()
    offset = writer.append(batch(99))
    assert offset > 12, "an offset that may have been used is never used again"
    reader = log.reader()
    found = seqs_by_offset(reader)
    assert found[offset] == [99]
    assert {n: seqs for n, seqs in found.items() if seqs} == {n: [n] for n in range(1, 9)} | {offset: [99]}
    assert reader.damaged()


def test_a_file_that_is_full_is_put_in_order_beside_the_next_one(
    log: EmbeddedLog, monkeypatch: pytest.MonkeyPatch
) -> None:
    size = len(embedded.rows.encode(batch(0)))
    monkeypatch.setattr(embedded, "_FILE_BYTES", 3 * size - 1)
    writer, reader = log.writer(), log.reader()
    for number in range(9):
        assert writer.append(batch(0)) == number + 1
        assert reader.ends() == {0: number + 1}
    reader.close()
    writer.close()
    assert [int(path.stem.rpartition("-")[2]) for path in log.files()] == [1, 4, 7]
    assert list(log.root.glob("p00/*-wal")) == [], "each file is complete by itself"
    assert log.writer().next_offset == 10
    assert list(seqs_by_offset(log.reader())) == [number + 1 for number in range(9)]


def test_a_batch_of_ten_events_takes_about_a_kilobyte(log: EmbeddedLog) -> None:
    from viewmeter.eventlog.embedded_rows import encode

    assert len(encode(batch(*range(10)))) < 1_500


def test_L7_what_cannot_be_read_for_now_is_not_taken_for_damage(log: EmbeddedLog) -> None:
    written(log, hours=2)
    body = """
from viewmeter.eventlog.embedded import EmbeddedLogReader
from viewmeter.testing.contracts.eventlog import seqs_by_offset
reader = EmbeddedLogReader(Path(sys.argv[1]))
taken = [open("/dev/null") for _ in range(3)]
soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
resource.setrlimit(resource.RLIMIT_NOFILE, (taken[-1].fileno() + 2, hard))
for read in (lambda: reader.read({}), reader.ends):
    try:
        read()
    except LogUnavailableError as error:
        say("try again later" in str(error))
resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
say(len(seqs_by_offset(reader)), len(reader.damaged()))
"""
    with Program(body, log.root) as other:
        assert [other.heard() for _ in range(3)] == [["True"], ["True"], ["8", "0"]]
