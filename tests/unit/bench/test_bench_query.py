"""The query benchmark compares equal answers, over a history that is made once and the same wherever it stopped."""

from __future__ import annotations

import contextlib
from pathlib import Path

import duckdb
import pytest

from viewmeter.bench import query_history
from viewmeter.bench.query import beside_sql
from viewmeter.bench.query_history import DAYS, History, history
from viewmeter.bench.query_questions import Question, different, questions
from viewmeter.model.time import DAY_MS
from viewmeter.olap.embedded import DuckDBStore

ROWS = 2_000
END_MS = 1_793_491_200_000  # a Sunday


@pytest.fixture(scope="module")
def kept(tmp_path_factory: pytest.TempPathFactory) -> History:
    return history(ROWS, tmp_path_factory.mktemp("kept"), END_MS)


def test_each_of_20_questions_has_the_answer_of_hand_written_sql(kept: History) -> None:
    asked = questions(kept.interval.end_ms)
    assert len({question.name for question in asked}) == 20
    store = DuckDBStore(kept.path)
    try:
        found = beside_sql(store, kept, asked, 0.0)  # raises where one differs
    finally:
        store.close()
    assert {*found} == {question.name for question in asked}
    assert all(one["tables"] for one in found.values())


def test_answers_that_differ_are_told_apart() -> None:
    question = Question("plays of countries", {"metrics": ["plays"], "dimensions": ["country"]}, "")
    row = {"country": "DE", "plays": 3}
    assert different(question, [row], [("DE", 3)]) == ""
    assert different(question, [row], [("DE", 4)])
    assert different(question, [row], [("FR", 3)])
    assert different(question, [row], [("DE", 3), ("FR", 1)])
    assert different(question, [], [("DE", 3)])


def test_the_history_covers_three_years_and_its_sums_agree_over_tiers(kept: History) -> None:
    assert kept.interval.end_ms - kept.interval.start_ms == DAYS * DAY_MS
    with contextlib.closing(duckdb.connect(kept.path, read_only=True)) as con:
        sums = [
            con.execute(f"SELECT sum(plays), sum(played_ms) FROM {table}").fetchall()
            for table in ("day_video", "day_channel", "day_platform", "week_video", "month_channel", "month_platform")
        ]
        keys = "time_ms, channel_id, video_id, is_bot, device_type, os, browser"
        twice = con.execute(f"SELECT count(*) - count(DISTINCT ({keys})) FROM day_device").fetchall()
    assert sums == [sums[0]] * len(sums)
    assert sums[0][0][0] > 0
    assert twice == [(0,)]  # a row a key, as a product's


def test_a_history_whose_making_was_interrupted_is_made_to_its_end(
    kept: History, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = query_history._steps

    def broken(*given: object) -> object:
        for number, step in enumerate(whole(*given)):  # type: ignore[arg-type]
            if number == 7:
                raise KeyboardInterrupt
            yield step

    with monkeypatch.context() as patched:
        patched.setattr(query_history, "_steps", broken)
        with pytest.raises(KeyboardInterrupt):
            history(ROWS, tmp_path, END_MS)
    assert history(ROWS, tmp_path).rows == kept.rows
    assert history(ROWS, tmp_path).interval == kept.interval
