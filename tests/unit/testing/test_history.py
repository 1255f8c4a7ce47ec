"""History adds up: the demo may be invented, but not inconsistent."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from viewmeter.testing.history import DAY_MS, GROUPINGS, HOUR_MS, Columns, History, history, viewers_at
from viewmeter.testing.oracle_metrics import BITRATE_BUCKETS, MEASURES, metrics
from viewmeter.testing.scenario import START_MS

MIDNIGHT = START_MS - START_MS % DAY_MS
SMALL = History(seed=3, start_ms=MIDNIGHT, days=2, videos=8, peak_views=60)


def by_hour_and_video(columns: Columns, measure: str) -> dict[tuple[int, str], int]:
    out: dict[tuple[int, str], int] = {}
    for time, video, value in zip(columns["time_ms"], columns["video_id"], columns[measure], strict=True):
        out[int(time), video] = out.get((int(time), video), 0) + int(value)
    return {key: value for key, value in out.items() if value}


def test_every_grouping_has_the_same_sums_by_hour_and_video() -> None:
    for day in history(SMALL):
        for measure in MEASURES:
            expected = by_hour_and_video(day["video"], measure)
            for grouping in GROUPINGS:
                assert by_hour_and_video(day[grouping], measure) == expected, (SMALL, grouping, measure)


def test_every_grouping_has_its_dimensions_and_no_row_of_zeros() -> None:
    day = next(history(SMALL))
    for grouping, dimensions in GROUPINGS.items():
        columns = day[grouping]
        assert {*dimensions, *MEASURES, "time_ms", "tenant_id", "channel_id", "video_id", "is_bot"} <= set(columns)
        assert len({len(values) for values in columns.values()}) == 1
        assert np.all(np.any([columns[measure] != 0 for measure in MEASURES], axis=0))
        assert all(columns[measure].dtype == np.int64 for measure in MEASURES), grouping
        keys = list(zip(*(columns[k] for k in ("time_ms", "video_id", *dimensions)), strict=True))
        assert len(set(keys)) == len(keys)


def test_a_bitrate_row_holds_only_time_of_its_bitrate() -> None:
    columns = next(history(SMALL))["delivery"]
    for bucket in BITRATE_BUCKETS:
        here = columns["bitrate_bucket"] == bucket
        assert np.array_equal(columns["played_ms"][here], columns[f"played_ms_{bucket}"][here])
        assert columns["plays"][here].sum() == 0


def test_the_viewers_of_a_row_are_its_plays_and_some_return() -> None:
    video = next(history(SMALL))["video"]
    assert [len(hashes) for hashes in video["viewer_hashes"]] == video["plays"].tolist()
    everyone = np.concatenate(video["viewer_hashes"])
    assert len(np.unique(everyone)) < len(everyone)


def test_the_same_seed_gives_the_same_history_and_another_one_does_not() -> None:
    first, again, other = (next(history(replace(SMALL, seed=seed))) for seed in (3, 3, 4))
    assert all(np.array_equal(first["device"][m], again["device"][m]) for m in MEASURES)
    assert first["video"]["plays"].sum() != other["video"]["plays"].sum()


def test_steps_of_a_minute_give_the_rows_of_minutes() -> None:
    columns = next(history(replace(SMALL, days=1, step_ms=60_000)))["video"]
    assert len(np.unique(columns["time_ms"])) > 24
    assert np.all(columns["time_ms"] % 60_000 == 0)
    assert columns["time_ms"].max() < MIDNIGHT + DAY_MS


def test_one_evening_stalls_enough_to_alert_and_the_others_do_not() -> None:
    setting = replace(SMALL, days=5, peak_views=400)
    ratios = {}
    for day in history(setting):
        for hour in np.unique(day["video"]["time_ms"]):
            rows = day["video"]["time_ms"] == hour
            ratios[int(hour)] = metrics({m: int(day["video"][m][rows].sum()) for m in MEASURES})["rebuffer_ratio"]
    evening = MIDNIGHT + DAY_MS + 19 * HOUR_MS
    assert {hour for hour, ratio in ratios.items() if ratio and ratio > 0.02} == {evening, evening + HOUR_MS}


def test_as_many_watch_as_viewers_at_says() -> None:
    setting = replace(SMALL, peak_views=3_000, step_ms=300_000)
    (*_, last) = history(setting)
    table = last["concurrency"]
    evening = setting.end_ms - HOUR_MS
    samples = np.unique(table["time_ms"][table["time_ms"] >= evening])
    found = table["concurrent_viewers"][table["time_ms"] >= evening].sum() / len(samples)
    assert np.all(samples % 300_000 == 290_000)
    assert 0.8 < found / viewers_at(setting, setting.end_ms) < 1.2


def test_a_history_that_fades_leaves_out_what_is_still_going_on() -> None:
    setting = replace(SMALL, peak_views=3_000, step_ms=300_000)
    (*_, whole), (*_, faded) = history(setting), history(replace(setting, fade_ms=200_000))
    plays = [
        [
            int(day["video"]["plays"][day["video"]["time_ms"] == setting.end_ms - ago].sum())
            for ago in (300_000, HOUR_MS)
        ]
        for day in (whole, faded)
    ]
    assert 0.3 < plays[1][0] / plays[0][0] < 0.8
    assert 0.8 < plays[1][1] / plays[0][1] < 1.2


def test_days_before_the_first_one_are_left_out() -> None:
    (*_, last), (only,) = history(SMALL), history(replace(SMALL, first_day=1))
    assert all(np.array_equal(last["video"][m], only["video"][m]) for m in MEASURES)
