"""The scanner of bodies reads no byte outside of them, whatever is in them."""

from __future__ import annotations

import os
import random
import shutil
import struct
import subprocess
from pathlib import Path

import pytest
from beacons_of_tests import T0

from viewmeter.bench.ingest import bodies

HERE = Path(__file__).parent
SOURCES = HERE.parents[2] / "src" / "viewmeter" / "collector" / "compiled"
ROUNDS = int(os.environ.get("VIEWMETER_TEST_MUTANTS", "40000"))
SMALL = [
    b'[{"type":"error","ts":1764000000000.5,"view_id":"v\xc3\xbc","seq":3,"video_id":"x","error_code":-4,"fatal":true,"z":null}]',
    b' [ { "type" : "play" , "ts" : 1 , "view_id" : "v" , "seq" : 0 , "video_id" : "x" , "playback_rate" : 1.25 } ] ',
    b'[{"type":"exit","ts":0,"view_id":"v","seq":0,"video_id":"x","position_ms":2.4999,"a":"b","c":-1.5,"error_message":"m"}]',
]


@pytest.fixture(scope="module")
def scanner(tmp_path_factory: pytest.TempPathFactory) -> Path:
    compiler = shutil.which("gcc") or shutil.which("clang")
    if compiler is None:
        pytest.skip("no C compiler")
    program = tmp_path_factory.mktemp("scan") / "scan_alone"
    sanitized = ["-fsanitize=address,undefined", "-fno-sanitize-recover=all", "-Wall", "-Wextra", "-Werror", "-std=c11"]
    files = [str(HERE / "scan_alone.c"), str(SOURCES / "scan.c"), f"-I{SOURCES}"]
    built = subprocess.run(
        [compiler, "-O1", "-g", *sanitized, *files, "-o", str(program)], check=False, capture_output=True, text=True
    )
    if "cannot find -lasan" in built.stderr or "cannot find -lubsan" in built.stderr:
        pytest.skip("the compiler has no sanitizers")
    assert built.returncode == 0, built.stderr
    return program


def test_no_mutant_of_a_body_makes_the_scanner_read_outside_or_break_a_promise(scanner: Path, tmp_path: Path) -> None:
    corpus = tmp_path / "bodies"
    corpus.write_bytes(b"".join(struct.pack("<I", len(body)) + body for body in (*bodies(1, T0, 8), *SMALL * 6)))
    seed = random.randrange(2**32)
    print("seed", seed)
    run = subprocess.run(
        [scanner, corpus, str(seed), str(ROUNDS)], check=False, capture_output=True, text=True, timeout=3600
    )
    assert run.returncode == 0, f"seed {seed}: {run.stderr[-3000:]}"
    taken = int(run.stdout.split()[2])
    assert ROUNDS // 20 < taken < ROUNDS, "mutants that are never taken, or always, prove little"
