"""The demo's crowd: steady, the same on both sides of the opening, and with an incident one can see."""

from __future__ import annotations

from collections import Counter
from itertools import takewhile
from pathlib import Path

from viewmeter import wiring
from viewmeter.cli.crowd import (
    INCIDENT_CDN,
    INCIDENT_COUNTRY,
    INCIDENT_FIRST_MS,
    INCIDENT_MS,
    Crowd,
    people,
    write_recent,
)
from viewmeter.metadata.keys import Tenant
from viewmeter.model.time import MINUTE_MS
from viewmeter.testing.beacons import SentBeacon
from viewmeter.testing.scenario import START_MS

TENANT = Tenant("demo", "demo", b"s" * 32)
CROWD = Crowd(seed=3, viewers=200, opened_ms=START_MS)


def sent(since_ms: int, until_ms: int) -> list[SentBeacon]:
    return list(takewhile(lambda beacon: beacon.send_at_ms < until_ms, CROWD.sent(since_ms)))


def test_what_is_sent_does_not_depend_on_where_one_begins() -> None:
    edges = [START_MS - 2 * MINUTE_MS, START_MS - 12_345, START_MS + MINUTE_MS]
    whole = [(beacon.send_at_ms, beacon.events) for beacon in sent(edges[0], edges[2])]
    parts = [(b.send_at_ms, b.events) for i in range(2) for b in sent(edges[i], edges[i + 1])]
    assert sorted(map(str, whole)) == sorted(map(str, parts))
    assert len(whole) > 1_000


def test_about_as_many_watch_as_asked_for_at_any_time() -> None:
    beacons = sent(START_MS - 40 * MINUTE_MS, START_MS)
    views = {beacon.plan.view_id: beacon.plan for beacon in beacons}.values()
    for minute in range(0, 40, 5):
        at = START_MS - minute * MINUTE_MS
        watching = sum(plan.start_ms <= at < plan.start_ms + plan.length_ms for plan in views)
        assert 0.7 < watching / CROWD.viewers < 1.3, (CROWD.seed, minute)


def test_in_an_incident_one_country_on_one_network_stalls_and_nobody_else() -> None:
    start = START_MS + INCIDENT_FIRST_MS
    stalls: Counter[bool] = Counter()
    views: Counter[bool] = Counter()
    for beacon in sent(start, start + INCIDENT_MS):
        hit = (beacon.plan.country.code, beacon.plan.cdn) == (INCIDENT_COUNTRY, INCIDENT_CDN)
        stalls[hit] += sum(event["type"] == "buffer" for event in beacon.events)
        views[hit] += sum(event["type"] == "play" for event in beacon.events)
    assert stalls[True] > 10 * stalls[False] > 0
    assert views[True] > 0


def test_the_recent_past_in_the_log_ends_where_the_live_viewers_begin(tmp_path: Path) -> None:
    since = START_MS - 5 * MINUTE_MS
    written = write_recent(tmp_path, TENANT, CROWD, since)
    batches = wiring.log_reader(tmp_path).read({}, max_events=1_000_000)
    events = [row for batch in batches for row in batch.events.to_pylist()]
    assert len(events) == written
    views = {event["view_id"] for event in events}
    assert max(event["received_at"] for event in events) < START_MS
    live = {beacon.plan.view_id for beacon in sent(START_MS, START_MS + MINUTE_MS)}
    assert len(views & live) > CROWD.viewers / 2
    # The same people go on, under the hash that the collector will give them.
    assert {event["viewer_hash"] for event in events} <= {*people(CROWD, TENANT)}
    # Views that were over before are left out; those that were not are there from their first event.
    ends: Counter[str] = Counter()
    for event in events:
        ends[event["view_id"]] = max(ends[event["view_id"]], event["received_at"])
    assert min(ends.values()) >= since - MINUTE_MS
