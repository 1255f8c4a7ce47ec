"""An hour done in steps, by one process or several, is the hour done at once; and what ends a run on the way."""

from __future__ import annotations

import itertools
import subprocess
import sys
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from viewmeter.archive.embedded import EmbeddedArchive
from viewmeter.batch import files
from viewmeter.batch.child import Request, run_here, run_in_child
from viewmeter.batch.crew import Crew
from viewmeter.batch.protocol import BatchFailedError
from viewmeter.eventlog.embedded import EmbeddedLogReader
from viewmeter.model.time import HOUR_MS, MINUTE_MS
from viewmeter.testing.synthetic import Synthetic

T0 = 1_800_000_000_000 // HOUR_MS * HOUR_MS


@pytest.fixture(scope="module")
def archive(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two tenants, over two hours; the second tenant is only there for some minutes."""
    root = tmp_path_factory.mktemp("steps")
    log = EmbeddedLogReader(root / "log")
    made = EmbeddedArchive(root / "archive", log, lambda: T0 + 2 * HOUR_MS)
    for number, (tenant, active, minutes) in enumerate((("t1", 9, 120), ("t2", 5, 7))):
        crowd = Synthetic(number, T0 - 9 * MINUTE_MS, active=active, videos=5, channels=2, tenant_id=tenant)
        for batch in crowd.batches(active * 2 * minutes, batch_rows=300):
            made.add(pa.Table.from_batches([batch]), f"{tenant}-{batch['ts'][0]}", T0 + 2 * HOUR_MS)
    made.close()
    log.close()
    return root / "archive"


def request(archive: Path, out: Path, part_events: int, hour_ms: int = T0, before: Path | None = None) -> Request:
    ended = [str(before / "ended.parquet")] if before else []
    about = files.About(hour_ms, hour_ms + HOUR_MS, 1, 0)
    return Request(str(archive), str(out), about, str(before) if before else None, ended, part_events, 2)


def result(out: Path) -> dict[str, Any]:
    rows, viewers = files.rows_of(out)
    tables = {name: plain(table) for name, table in {**rows, "viewers": viewers}.items()}
    left = {name: pq.read_table(out / f"{name}.parquet").to_pylist() for name in ("open", "ended")}
    about = files.about_of(out)
    return {**tables, **left, "handover": about.handover, "counts": about.counts}


def plain(table: pa.Table) -> list[dict[str, Any]]:
    """Return the rows in order; a measure that is 0 throughout may be told or not."""
    return [{name: value for name, value in row.items() if value not in (0, [])} for row in table.to_pylist()]


def never() -> bool:
    return False


def nothing(_step: str, _number: int) -> None:
    """Do it."""


@pytest.mark.parametrize("run", [run_here, run_in_child])
def test_an_hour_in_steps_is_the_hour_at_once_and_so_is_the_next_one(archive: Path, tmp_path: Path, run: Any) -> None:
    for part_events, out in ((1_000_000, "whole"), (100, "steps")):
        first, second = tmp_path / f"{out}-1", tmp_path / f"{out}-2"
        run(request(archive, first, part_events), never, 60.0)
        run(request(archive, second, part_events, T0 + HOUR_MS, first), never, 60.0)
    for number in (1, 2):
        whole, steps = (result(tmp_path / f"{out}-{number}") for out in ("whole", "steps"))
        assert steps.keys() == whole.keys()
        for name, expected in whole.items():
            assert steps[name] == expected, name
    assert whole["counts"].events > 500
    assert len(whole["delivery"]) > 500
    assert sorted(path.name for path in tmp_path.iterdir()) == ["steps-1", "steps-2", "whole-1", "whole-2"]


def test_a_run_in_steps_tells_how_long_each_step_took(archive: Path, tmp_path: Path) -> None:
    run_here(request(archive, tmp_path / "out", 100), never, 60.0)
    assert [*files.about_of(tmp_path / "out").stages] == ["cut", "compute", "join"]


def test_a_run_that_fails_in_a_step_says_why_and_leaves_nothing(archive: Path, tmp_path: Path) -> None:
    asked = request(archive, tmp_path / "out", 100, before=tmp_path / "nowhere")
    for run in (run_here, run_in_child):
        with pytest.raises((BatchFailedError, FileNotFoundError), match="nowhere"):
            run(asked, never, 60.0)
        assert list(tmp_path.iterdir()) == []


def test_a_worker_that_dies_ends_the_round() -> None:
    dies = [sys.executable, "-c", "import sys; sys.stdin.readline()"]
    with Crew(nothing, dies, 1) as crew, pytest.raises(BatchFailedError, match="a worker ended in the step many"):
        crew.each("many", itertools.count())


def test_each_number_is_done_once_by_whoever_is_free(tmp_path: Path) -> None:
    done: list[int] = []
    served = (
        "import sys\nfrom viewmeter.batch.crew import serve\nserve(lambda step, n: open(sys.argv[1] + f'/{n}', 'x'))"
    )
    with Crew(lambda step, number: done.append(number), [sys.executable, "-c", served, str(tmp_path)], 2) as crew:
        crew.each("a", range(500))
        crew.each("a", range(500, 600))
    elsewhere = [int(path.name) for path in tmp_path.iterdir()]
    assert sorted(done + elsewhere) == [*range(600)]


def test_a_worker_answers_each_step_and_ends_when_its_parent_is_gone_also_in_the_midst_of_one() -> None:
    served = (
        "import time\nfrom viewmeter.batch.crew import serve\nserve(lambda _, n: time.sleep(n // 2) or 1 // (n - 1))"
    )
    with subprocess.Popen(
        [sys.executable, "-c", served], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as it:
        assert it.stdin is not None
        assert it.stdout is not None
        for number, answer in ((0, "done "), (1, "ZeroDivisionError: ")):
            it.stdin.write(f"a {number}\n")
            it.stdin.flush()
            assert it.stdout.readline().startswith(answer)
        it.stdin.write("a 1000000\n")
        it.stdin.close()
        assert it.wait(60) == 1
