"""The realtime object: live figures by the catalogue's formulas."""

from typing import Any

from viewmeter.live.protocol import LiveScope
from viewmeter.olap.protocol import Visible
from viewmeter.testing.contracts.live import NOW, counted, present, publish

FIELDS = [
    "as_of", "concurrent_viewers", "concurrent_views", "plays_last_5m", "plays_per_minute", "qoe_score", "qoe_version",
    "points_lost", "average_watch_duration_ms", "rebuffer_ratio", "startup_time_avg_ms", "average_bitrate_kbps",
    "bitrate_distribution", "countries", "watermark", "freshness_ms",
]  # fmt: skip
ACME = Visible("acme")


def test_the_object_has_the_fields_of_the_contract_and_the_id_of_its_scope(house: Any) -> None:
    video = house.analytics.realtime(LiveScope(ACME, video_id="v1"), NOW)
    assert [*video] == ["video_id", *FIELDS]
    assert [*house.analytics.realtime(LiveScope(ACME, "c1"), NOW)] == ["channel_id", *FIELDS]
    assert [*house.analytics.realtime(LiveScope(ACME), NOW)] == FIELDS


def test_of_nothing_counts_are_0_and_ratios_null(house: Any) -> None:
    found = house.analytics.realtime(LiveScope(ACME, video_id="nothing"), NOW)
    assert found["concurrent_viewers"] == found["plays_last_5m"] == 0
    assert found["plays_per_minute"] == [0] * 60
    assert found["countries"] == {}
    assert found["qoe_score"] is None
    assert found["points_lost"] == {"startup": None, "smoothness": None, "playback": None}
    assert found["rebuffer_ratio"] is None
    assert found["watermark"] is None
    assert found["freshness_ms"] is None


def test_figures_are_computed_from_the_sums_of_the_window(house: Any) -> None:
    sums = {
        "attempts": 2, "plays": 2, "played_ms": 90_000, "rebuffered_ms": 10_000, "startup_ms": 2_000, "startups": 2,
        "rebuffer_count": 1, "played_kbit": 90_000 * 3000, "played_ms_known_bitrate": 90_000,
        "played_ms_3000_6000": 90_000,
    }  # fmt: skip
    publish(house.live, [counted(**sums)], [present(1), present(2, country="US"), present(3)], watermark_ms=NOW - 700)
    found = house.analytics.realtime(LiveScope(ACME, video_id="v1"), NOW)
    assert found["plays_last_5m"] == 2
    assert found["rebuffer_ratio"] == 0.1
    assert found["startup_time_avg_ms"] == 1000
    assert found["average_bitrate_kbps"] == 3000
    assert found["bitrate_distribution"]["3000_6000"] == 90_000
    assert found["average_watch_duration_ms"] == 1_000
    assert found["countries"] == {"DE": 2, "US": 1}
    assert found["freshness_ms"] == 700
    assert found["watermark"] == "2027-01-15T01:29:59.300Z"
    assert abs(found["qoe_score"] + sum(found["points_lost"].values()) - 100) < 1e-9
