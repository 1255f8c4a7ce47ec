"""Coverage-guided fuzzing of both dialects, of the compiled decoder against the plain one, and of decompression.

It needs atheris, and is skipped where there is none.

`VIEWMETER_TEST_FUZZ_S` sets how long each target is fuzzed (default 3 s; `make fuzz` 120), `VIEWMETER_TEST_SEED` the
seed. What breaks a target is kept as a file; its name stands in the error.
"""

from __future__ import annotations

import gzip
import importlib.util
import os
import re
import subprocess
import sys
import time
from pathlib import Path

import pytest
import zstandard

from viewmeter.collector.decoder import CompiledRows, decoder

SECONDS = max(1, int(float(os.environ.get("VIEWMETER_TEST_FUZZ_S", "3"))))
SEED = int(os.environ.get("VIEWMETER_TEST_SEED", time.time_ns() % 1_000_000))
EVENT = b'[{"type":"play","ts":1764000000000.5,"view_id":"v","seq":3,"video_id":"x","channel_id":"c","fatal":true}]'
RECORD = b'v=2,e=ps,sta=p,cid="x",sid="s",ts=1764000000000,br=(3000;v 128;a),bl=(4000),sn=4,pt=9,com.x-y="z"'
SEEDS = {
    "both": [EVENT, EVENT[:-1] + b"," + EVENT[1:].replace(b'"seq":3', b'"seq":4')],
    "native": [EVENT, b"[]"],
    "cmcd": [RECORD, b'v=2,e=t,sid="s",cid="c",sn=0,ts=1'],
    "gzip": [gzip.compress(EVENT, mtime=0), gzip.compress(b"", mtime=0) * 3],
    "zstd": [zstandard.compress(EVENT), zstandard.compress(b"") * 3],
}
NUMBERS = (
    "-0",
    "1E5",
    "0.5",
    "2.5",
    "1e400",
    "00",
    "9007199254740993",
    "1764000000000.4999999999999999",
    "null",
    "true",
)
TEXTS = (r"\ud83d\ude00", r"\ud800", r"\u0000", r"\n", "é", "\x7f", "error", "buffer", "heartbeat", "exit")
NAMES = ("position_ms", "bitrate_kbps", "played_ms", "viewer_id", "error_code", "playback_rate", "unknown")
WORDS = [*NUMBERS, *TEXTS, *(f'"{name}":1,' for name in NAMES), *(f'"{name}":"a",' for name in NAMES)]
"""What a fuzzer that sees no branch of the compiled decoder would hardly come upon."""


def quoted(word: str) -> str:
    """Return a word as libFuzzer's dictionaries have it."""
    return '"' + "".join(f"\\x{byte:02x}" for byte in word.encode()) + '"\n'


@pytest.mark.skipif(importlib.util.find_spec("atheris") is None, reason="atheris is not made for this machine")
@pytest.mark.parametrize("target", SEEDS)
def test_no_bytes_that_reach_new_code_break_a_promise(target: str, tmp_path: Path) -> None:
    if target == "both" and CompiledRows is None:
        pytest.skip(decoder()[1])
    corpus = tmp_path / "corpus"
    corpus.mkdir()
    for number, seed in enumerate(SEEDS[target]):
        (corpus / str(number)).write_bytes(seed)
    (tmp_path / "words").write_text("".join(map(quoted, WORDS)))
    limits = ("-max_len=65536", f"-max_total_time={SECONDS}", f"-seed={SEED % (1 << 31)}", "-rss_limit_mb=1024")
    # A shell between: by Linux's count a process begins with the peak of memory of the one that started it, and that of
    # a process which ran many other tests may be beyond the limit.
    alone = ("sh", "-c", '"$@"; exit $?', "sh")
    command = [*alone, sys.executable, str(Path(__file__).with_name("guided.py")), target, *limits]
    ran = subprocess.run(
        [*command, f"-dict={tmp_path}/words", f"-artifact_prefix={tmp_path}/", str(corpus)],
        capture_output=True,
        text=True,
        timeout=SECONDS * 5 + 120,
        check=False,
    )
    report = (ran.stdout + ran.stderr)[-3_000:]
    assert ran.returncode == 0, f"seed {SEED}, {target}; the bytes are in {tmp_path}:\n{report}"
    runs = re.findall(r"Done (\d+) runs|#(\d+)\t", report)
    print(f"{target}: seed {SEED}, {max((int(a or b) for a, b in runs), default=0):,} bodies in {SECONDS} s")
    assert runs, report
