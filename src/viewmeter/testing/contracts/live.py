"""What every live store holds (live/protocol.py, V1 to V4).

A suite for one implementation subclasses `LiveStoreContract` and gives the fixture `live`, an empty store.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Sequence
from typing import Any

import pyarrow as pa

from viewmeter.live.protocol import HOP_MS, LiveScope, LiveStore, LiveUpdate
from viewmeter.olap.protocol import Visible
from viewmeter.testing.contracts.facts import MINUTE, T0

NOW = T0 + 90 * MINUTE
ACME = Visible("acme")
SECOND = 1_000

Row = dict[str, Any]


def counted(at_ms: int = NOW, **given: Any) -> Row:
    """Return one row of counters; by default a play of acme/c1/v1 now."""
    words = {"tenant_id": "acme", "channel_id": "c1", "video_id": "v1", "is_bot": False}
    measures = given if {*given} - {*words} else {**given, "plays": 1}
    return {"time_ms": at_ms - at_ms % HOP_MS, **words, **measures}


def present(viewer: int = 1, last_active_ms: int = NOW, **given: Any) -> Row:
    """Return one view that is present."""
    words = {"tenant_id": "acme", "channel_id": "c1", "video_id": "v1", "country": "DE", "is_bot": False}
    return {"viewer_hash": viewer, "last_active_ms": last_active_ms, "played_ms": 1_000, **words, **given}


def publish(
    live: LiveStore,
    counters: Sequence[Row] = (),
    views: Sequence[Row] | None = None,
    at_ms: int = NOW,
    watermark_ms: int | None = NOW,
) -> None:
    """Publish rows."""
    names = sorted({name for row in [counted(), *counters] for name in row})
    words = {name for name, value in counted().items() if isinstance(value, str)}
    columns = {
        name: pa.array(
            [row.get(name, 0) for row in counters],
            pa.string() if name in words else pa.bool_() if name == "is_bot" else pa.int64(),
        )
        for name in names
    }
    live.publish(LiveUpdate(pa.table(columns), None if views is None else _present(views), at_ms, watermark_ms))
    live.flush()


def _present(views: Sequence[Row]) -> pa.Table:
    dictionary = pa.dictionary(pa.int32(), pa.string())
    kinds = {**dict.fromkeys(("tenant_id", "channel_id", "video_id", "country"), pa.string()), "is_bot": pa.bool_()}
    numbers = dict.fromkeys(("viewer_hash", "last_active_ms", "played_ms"), pa.int64())
    columns = {name: pa.array([view[name] for view in views], kind) for name, kind in {**kinds, **numbers}.items()}
    return pa.table({n: c.cast(dictionary) if pa.types.is_string(c.type) else c for n, c in columns.items()})


def everything(visible: Visible = ACME) -> LiveScope:
    """Return the scope of all that is visible."""
    return LiveScope(visible)


class LiveStoreContract:
    """The promises as tests."""

    def test_V1_a_read_after_a_publish_shows_what_was_published(self, live: LiveStore) -> None:
        publish(live, [counted(plays=2, attempts=3)], [present(1), present(1, played_ms=3_000), present(2)])
        for scope in (LiveScope(ACME, video_id="v1"), LiveScope(ACME, "c1"), everything(), everything(Visible(None))):
            figures = live.read(scope, NOW)
            assert figures.window["plays"] == 2
            assert figures.window["attempts"] == 3
            assert figures.concurrent_viewers == 2
            assert figures.concurrent_views == 3
            assert figures.countries == {"DE": 2}
            assert figures.mean_played_ms == 5_000 / 3
            assert figures.watermark_ms == NOW

    def test_V1_counters_of_publishes_add_up(self, live: LiveStore) -> None:
        for _ in range(40):
            publish(live, [counted(plays=1), counted(plays=2, video_id="v2")])
        assert live.read(LiveScope(ACME, video_id="v1"), NOW).window["plays"] == 40
        assert live.read(everything(), NOW).window["plays"] == 120

    def test_V1_who_is_present_stays_until_somebody_says_otherwise(self, live: LiveStore) -> None:
        publish(live, views=[present(1)])
        publish(live, [counted()])
        assert live.read(everything(), NOW).concurrent_viewers == 1
        publish(live, views=[])
        assert live.read(everything(), NOW).concurrent_viewers == 0

    def test_nothing_published_is_zeros(self, live: LiveStore) -> None:
        figures = live.read(LiveScope(ACME, video_id="nothing"), NOW)
        assert figures.concurrent_viewers == 0
        assert figures.window.get("plays", 0) == 0
        assert figures.mean_played_ms is None
        assert figures.watermark_ms is None
        assert [*figures.plays_per_minute] == [0] * 60

    def test_V2_a_view_is_present_for_60_seconds(self, live: LiveStore) -> None:
        publish(live, views=[present(1)])
        assert live.read(everything(), NOW + 59_999).concurrent_viewers == 1
        assert live.read(everything(), NOW + 60_000).concurrent_viewers == 0

    def test_V2_a_count_leaves_the_window_after_5_minutes_and_a_hop(self, live: LiveStore) -> None:
        publish(live, [counted()])
        assert live.read(everything(), NOW + 5 * MINUTE - SECOND).window["plays"] == 1
        assert live.read(everything(), NOW + 5 * MINUTE + HOP_MS).window["plays"] == 0

    def test_V2_plays_per_minute_are_60_full_minutes_oldest_first(self, live: LiveStore) -> None:
        for age, plays in ((0, 7), (1, 5), (2, 4), (60, 3), (61, 9)):
            at = NOW - age * MINUTE
            publish(live, [counted(at, plays=plays), counted(at + 30_000, plays=1)], at_ms=at + 30_000)
        minutes = live.read(everything(), NOW + 30_000).plays_per_minute
        assert len(minutes) == 60
        assert minutes[0] == 4
        assert [*minutes[-2:]] == [5, 6]
        assert sum(minutes) == 4 + 5 + 6
        assert live.read(everything(), NOW + MINUTE).plays_per_minute[-1] == 8

    def test_V3_what_is_an_hour_old_takes_no_room(self, live: LiveStore) -> None:
        """As far as one can see from outside: it does not come back when the clock is set back."""
        publish(live, [counted()])
        later = NOW + 70 * MINUTE
        publish(live, [counted(later, video_id="v2")], at_ms=later)
        assert live.read(everything(), NOW).window["plays"] == 0

    def test_V4_a_scope_shows_only_what_is_visible(self, live: LiveStore) -> None:
        owners = [("acme", "c1"), ("acme", "c2"), ("other", "c1")]
        rows = [counted(tenant_id=t, channel_id=c, plays=10**i) for i, (t, c) in enumerate(owners)]
        views = [present(i, tenant_id=t, channel_id=c) for i, (t, c) in enumerate(owners)]
        publish(live, rows, views)
        seen = {
            LiveScope(Visible("acme"), video_id="v1"): (11, 2),
            LiveScope(Visible("acme", ("c2",)), video_id="v1"): (10, 1),
            LiveScope(Visible("acme", ("c2",)), "c1"): (0, 0),
            LiveScope(Visible("acme", ("c2",))): (10, 1),
            LiveScope(Visible("acme", ())): (0, 0),
            LiveScope(Visible("acme"), "c1"): (1, 1),
            LiveScope(Visible("acme"), "c1", "v1"): (1, 1),
            LiveScope(Visible("other"), video_id="v1"): (100, 1),
            LiveScope(Visible("nobody")): (0, 0),
            LiveScope(Visible(None)): (111, 3),
            LiveScope(Visible(None), "c1"): (101, 2),
        }
        for scope, (plays, viewers) in seen.items():
            figures = live.read(scope, NOW)
            assert (figures.window.get("plays", 0), figures.concurrent_viewers) == (plays, viewers), scope

    def test_bots_are_left_out(self, live: LiveStore) -> None:
        publish(live, [counted(is_bot=True, plays=5), counted(plays=1)], [present(1, is_bot=True), present(2)])
        figures = live.read(everything(), NOW)
        assert (figures.window["plays"], figures.concurrent_viewers) == (1, 1)

    def test_played_time_that_is_unknown_is_not_in_the_mean(self, live: LiveStore) -> None:
        publish(live, views=[present(1, played_ms=-1), present(2, played_ms=4_000)])
        assert live.read(everything(), NOW).mean_played_ms == 4_000

    def test_viewers_are_distinct_by_video_and_viewer(self, live: LiveStore) -> None:
        rng = random.Random(11)
        views = [
            present(
                rng.randrange(40),
                NOW - rng.randrange(90_000),
                video_id=f"v{rng.randrange(5)}",
                channel_id=f"c{rng.randrange(2)}",
                country=rng.choice(["DE", "AT", "unknown"]),
            )
            for _ in range(500)
        ]
        publish(live, views=views)
        inside = [v for v in views if NOW - v["last_active_ms"] < 60_000]
        pairs = {(v["channel_id"], v["video_id"], v["viewer_hash"]) for v in inside}
        figures = live.read(everything(), NOW)
        assert figures.concurrent_viewers == len(pairs)
        assert figures.concurrent_views == len(inside)
        assert sum(figures.countries.values()) == len(pairs)
        by_video = Counter(pair[:2] for pair in pairs)
        expected = sorted(((c, v, n) for (c, v), n in by_video.items()), key=lambda x: (-x[2], x[0], x[1]))
        assert live.top_videos(ACME, NOW, 100) == expected
        assert live.top_videos(ACME, NOW, 3) == expected[:3]
        assert live.top_videos(Visible("nobody"), NOW, 3) == []
