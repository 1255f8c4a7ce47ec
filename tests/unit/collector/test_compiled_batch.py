"""The compiled store hands its columns to Arrow without a copy; what Arrow gets is what the plain store makes."""

from __future__ import annotations

import random
import threading
from typing import Any

import pyarrow as pa
import pytest
from beacons_of_tests import T0, event

from viewmeter.collector.agents import Agent
from viewmeter.collector.columns import Beacon, Columns, transposed
from viewmeter.collector.decoder import CompiledRows, decoder
from viewmeter.collector.rows import RUN_WORDS
from viewmeter.collector.senders import Sender
from viewmeter.collector.viewers import TenantHashes
from viewmeter.metadata.keys import Tenant
from viewmeter.model.events import WORD_COLUMNS

pytestmark = pytest.mark.skipif(CompiledRows is None, reason=decoder()[1])

TENANTS = [TenantHashes(Tenant(name, name, b"secret"), 1000) for name in ("acme", "other", "ü")]
SENDERS = [
    Sender((country, "", city, "unknown"), Agent("phone", "iOS", browser, is_bot), b"today")
    for country, city, browser, is_bot in (
        ("DE", "Köln", "Safari", False),
        ("FR", "", "", True),
        ("", "Köln", "X", True),
    )
]


def beacons(seed: int, count: int) -> list[Beacon]:
    rng = random.Random(seed)

    def one() -> dict[str, Any]:
        return {
            "view_id": rng.choice(["v", "ü" * 40, "w" * 255]),
            "video_id": rng.choice(["x", "y", "😀"]),
            "seq": rng.randrange(100),
            "error_code": rng.choice([None, None, None, 7, "ü"]),
            "error_message": rng.choice([None, None, None, "", "what", "é" * 30]),
            "blind": rng.choice([None, True, False]),
            "fatal": rng.choice([None, True, False]),
        }

    return [
        Beacon(
            rng.choice(TENANTS),
            rng.choice(SENDERS),
            T0,
            0,
            transposed([event(**one()) for _ in range(rng.randint(1, 9))]),
        )
        for _ in range(count)
    ]


def filled(of: list[Beacon], *, compiled: bool) -> Columns:
    columns = Columns(compiled=compiled)
    for beacon in of:
        columns.add(beacon)
    return columns


@pytest.mark.parametrize("count", [1, 2, 7, 300])
def test_both_stores_make_the_same_batch(count: int) -> None:
    seed = random.randrange(2**32)
    print("seed", seed)
    sent = beacons(seed, count)
    compiled, plain = filled(sent, compiled=True).batch(), filled(sent, compiled=False).batch()
    compiled.validate(full=True)
    assert compiled.schema.equals(plain.schema)
    assert compiled.to_pylist() == plain.to_pylist()
    words = [
        [column.dictionary.to_pylist() for column in b.columns if hasattr(column, "dictionary")]
        for b in (compiled, plain)
    ]
    assert words[0] == words[1]


def test_a_batch_outlives_its_store_and_may_end_in_another_thread() -> None:
    sent = beacons(1, 20)
    kept = [filled(sent, compiled=True).batch()]
    column = kept[0].column("error_message")
    thread = threading.Thread(target=kept.clear)
    thread.start()
    thread.join()
    assert column.to_pylist() == filled(sent, compiled=False).batch().column("error_message").to_pylist()


def test_a_store_whose_columns_are_gone_refuses_everything_but_its_size() -> None:
    columns = filled(beacons(1, 3), compiled=True)
    size = columns.events
    assert columns.batch().num_rows == size == columns.events
    with pytest.raises(RuntimeError, match="gone"):
        columns.batch()
    with pytest.raises(RuntimeError, match="gone"):
        columns.add(beacons(1, 1)[0])
    with pytest.raises(RuntimeError, match="gone"):
        columns.rows.columns()


@pytest.mark.parametrize(
    ("words", "bots", "codes"),
    [
        ([], b"\0", b"\0" * 28),  # no words
        ([["a"]] * 12, b"\0", b"\0" * 28),  # one list too few
        ([["a"]] * 13, b"\0", b"\0" * 27),  # codes that are none
        ([["a"]] * 13, b"", b""),  # an event of a sender that is not there
        ([["a"]] * 13, b"\0", b"\1\0\0\0" * 7),  # a code of no word
        ([["a"]] * 12 + [["\ud800"]], b"\0", b"\0" * 28),  # a word that Arrow cannot write
    ],
)
def test_what_does_not_fit_the_columns_is_refused(words: list[list[str]], bots: bytes, codes: bytes) -> None:
    assert CompiledRows is not None
    rows = CompiledRows(({},) * len(RUN_WORDS), ([],) * len(RUN_WORDS), {}, {}, [])
    assert len(WORD_COLUMNS) == 13
    numbers = pa.array([0.0] * 10).to_numpy()
    rows.extend(numbers, b"\0", b"\0", b"\0", [(1, "v", 1, 1, 0, 0, 0, 0, 0)], 0, 0, 0, T0)
    with pytest.raises((ValueError, UnicodeEncodeError)):
        rows.batch(tuple(words), bots, codes)
