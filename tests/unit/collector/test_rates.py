"""Rate limits: what is admitted, by whom it is counted, and what it costs in memory."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from viewmeter.collector.rates import Buckets, RateLimit, network, share_buckets


def limited(per_second: int, burst_s: float, slots: int = 64) -> RateLimit:
    return RateLimit("key", per_second, burst_s, Buckets(slots=slots))


def test_a_burst_is_admitted_and_then_the_rate() -> None:
    limit = limited(8, burst_s=2.0)
    admitted = sum(limit.take("k", 0.0) == 0.0 for _ in range(100))
    assert admitted == 16
    assert sum(limit.take("k", 1.0) == 0.0 for _ in range(100)) == 8
    assert limit.left("k", 1.0) == 0
    assert limit.full_in("k", 1.0) == pytest.approx(2.0, abs=1e-5)
    assert limit.left("k", 2.0) == 8


def test_who_is_refused_is_told_how_long_to_wait() -> None:
    limit = limited(1, burst_s=0.0)
    assert limit.take("k", 5.0) == 0.0
    assert limit.take("k", 5.25) == pytest.approx(0.75, abs=1e-5)
    assert limit.take("k", 6.0) == 0.0


@given(st.lists(st.floats(0, 0.2), max_size=200))
def test_never_more_than_rate_and_burst(gaps: list[float]) -> None:
    limit = limited(10, burst_s=1.0)
    now = admitted = 0.0
    for gap in gaps:
        now += gap
        admitted += limit.take("k", now) == 0.0
    assert admitted <= 10 * now + 10 + 0.001


def test_kinds_of_limits_count_apart_and_names_too() -> None:
    buckets = Buckets(slots=64)
    by_key, by_address = (RateLimit(kind, 1, 1.0, buckets) for kind in ("key", "address"))
    assert by_key.take("a", 0.0) == by_address.take("a", 0.0) == by_key.take("b", 0.0) == 0.0
    assert by_key.take("a", 0.0) > 0.0


def test_two_processes_share_one_allowance() -> None:
    handle = share_buckets()
    code = (
        "import sys, json; from viewmeter.collector.rates import *;"
        "limit = RateLimit('key', 10, 1.0, Buckets(int(sys.argv[1])));"
        "print(json.dumps(sum(limit.take('k', 50.0) == 0.0 for _ in range(7))))"
    )
    counts = [
        json.loads(subprocess.check_output([sys.executable, "-c", code, str(handle)], pass_fds=[handle]))
        for _ in range(3)
    ]
    assert counts == [7, 3, 0]
    os.close(handle)


def test_a_name_that_is_limited_keeps_its_bucket_whatever_others_make_up() -> None:
    limit = limited(1, burst_s=10.0, slots=64)
    for _ in range(10):
        assert limit.take("victim", 100.0) == 0.0
    for n in range(10_000):
        limit.take(f"made up {n}", 100.0)
    assert limit.take("victim", 100.0) > 0.0
    newcomers = [limit.take(f"late {n}", 100.0) for n in range(1_000)]
    assert max(newcomers) > 0.0, "where no slot is free they share one"
    assert limit.take("later", 120.0) == 0.0, "and slots are free again when their buckets are full"


def test_names_beyond_what_is_remembered_are_still_counted() -> None:
    limit = RateLimit("key", 1, 1.0, Buckets(slots=1 << 17))
    assert limit.take("first", 0.0) == 0.0
    for n in range(60_000):
        limit.take(f"n{n}", 0.0)
    assert limit.take("first", 0.0) > 0.0


def test_a_number_that_no_limit_can_have_written_is_begun_anew() -> None:
    buckets = Buckets(slots=8)
    limit = RateLimit("key", 1, 1.0, buckets)
    limit.take("k", 0.0)
    for slot in range(8):
        buckets.levels[slot] = 1e12  # as of a clock that has begun anew
    assert limit.take("k", 1.0) == 0.0
    assert 0.0 < limit.take("k", 1.0) <= 1.0


@pytest.mark.parametrize(
    ("address", "counted_as"),
    [
        ("203.0.113.7", "203.0.113.0/24"),
        ("203.0.113.255", "203.0.113.0/24"),
        ("::ffff:203.0.113.7", "203.0.113.0/24"),
        ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::/64"),
        ("fe80::1%eth0", "fe80::/64"),
        ("no address", "no address"),
    ],
)
def test_addresses_are_counted_by_their_network(address: str, counted_as: str) -> None:
    assert network(address) == counted_as


def test_addresses_of_one_network_share_a_bucket() -> None:
    limit = RateLimit("address", 1, 2.0, Buckets(slots=64), network)
    assert limit.take("192.0.2.1", 0.0) == limit.take("192.0.2.200", 0.0) == 0.0
    assert limit.take("192.0.2.3", 0.0) > 0.0
    assert limit.take("192.0.3.1", 0.0) == 0.0
