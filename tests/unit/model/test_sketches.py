"""Sketches are faithful: coupons make the sketch that DataSketches itself would have made."""

import numpy as np
import pytest
from datasketches import hll_sketch, hll_union, kll_doubles_sketch, tgt_hll_type
from hypothesis import given, settings
from hypothesis import strategies as st

from viewmeter.model import sketches

INT64 = st.integers(-(2**63), 2**63 - 1)


def updated(values: np.ndarray) -> hll_sketch:
    sketch = hll_sketch(14, tgt_hll_type.HLL_8)
    for value in values.tolist():
        sketch.update(value)
    return sketch


def random_hashes(count: int, seed: int = 1) -> np.ndarray:
    return np.random.default_rng(seed).integers(-(2**63), 2**63 - 1, count, dtype=np.int64)


@given(st.lists(INT64, min_size=1, max_size=7, unique=True))
@settings(max_examples=100, deadline=None)
def test_a_short_list_has_the_very_coupons_that_datasketches_writes(values: list[int]) -> None:
    ours = sketches.hll_from_coupons(sketches.coupons(np.array(values, np.int64)))
    theirs = updated(np.array(values, np.int64)).serialize_compact()
    assert ours is not None
    assert ours[:8] == theirs[:8]
    assert np.array_equal(np.sort(np.frombuffer(ours[8:], "<u4")), np.sort(np.frombuffer(theirs[8:], "<u4")))


@pytest.mark.parametrize("count", [8, 24, 25, 100, 1535, 1536])
def test_a_set_of_coupons_is_the_set_of_datasketches(count: int) -> None:
    hashes = random_hashes(count)
    ours = sketches.hll_from_coupons(sketches.coupons(hashes))
    theirs = updated(hashes).serialize_compact()
    assert ours is not None
    assert ours[:12] == theirs[:12]
    assert np.array_equal(np.sort(np.frombuffer(ours[12:], "<u4")), np.sort(np.frombuffer(theirs[12:], "<u4")))
    assert sketches.hll_estimate(ours) == updated(hashes).get_estimate()


@pytest.mark.parametrize("count", [1537, 5_000, 60_000])
def test_registers_are_those_of_datasketches(count: int) -> None:
    hashes = random_hashes(count)
    ours = sketches.hll_from_coupons(sketches.coupons(hashes))
    theirs = updated(hashes).serialize_compact()
    assert ours is not None
    assert ours[40:] == theirs[40:]
    union = hll_union(14)
    union.update(updated(hashes))
    union.update(updated(hashes))  # a second part: a merge has lost the order of arrival, as ours has
    merged = union.get_result(tgt_hll_type.HLL_8)
    assert sketches.hll_estimate(ours) == pytest.approx(merged.get_estimate(), rel=0.005)
    assert sketches.hll_estimate(ours) == pytest.approx(count, rel=4 * 0.0081)


def test_coupons_cover_the_edges_of_int64() -> None:
    edges = np.array([0, 1, -1, 2**63 - 1, -(2**63)], np.int64)
    theirs = np.frombuffer(updated(edges).serialize_compact()[8:], "<u4")
    assert set(sketches.coupons(edges).tolist()) == set(theirs.tolist())


@pytest.mark.parametrize("count", [3, 500, 3_000])
def test_bytes_survive_a_round_trip_through_datasketches(count: int) -> None:
    ours = sketches.hll_from_coupons(sketches.coupons(random_hashes(count)))
    again = bytes(hll_sketch.deserialize(ours).serialize_compact())
    assert sketches.hll_estimate(again) == sketches.hll_estimate(ours)
    assert len(again) == len(ours or b"")


@pytest.mark.parametrize("count", [10, 16_384, 16_400, 100_000])
def test_thinned_coupons_make_the_same_sketch(count: int) -> None:
    made = sketches.coupons(random_hashes(count))
    thin = sketches.thin_coupons(np.concatenate([made, made]))
    assert len(thin) <= 16_384
    assert sketches.hll_from_coupons(thin) == sketches.hll_from_coupons(made)


def test_a_merge_of_parts_estimates_the_whole() -> None:
    hashes = random_hashes(20_000)
    parts = [sketches.hll_from_coupons(sketches.coupons(part)) for part in np.array_split(hashes, 40)]
    merged = sketches.merge_hll(p for p in parts if p is not None)
    whole = sketches.hll_from_coupons(sketches.coupons(hashes))
    assert sketches.hll_estimate(merged) == pytest.approx(sketches.hll_estimate(whole), rel=0.01)
    assert merged is not None
    assert whole is not None
    assert merged[40:] == whole[40:]  # the same registers; the estimators differ (composite here, HIP there)


def test_nothing_makes_no_sketch() -> None:
    assert sketches.hll_from_coupons(np.empty(0, np.uint32)) is None
    assert sketches.hll_estimate(None) == 0
    assert sketches.kll_from_values(np.empty(0)) is None
    assert sketches.kll_quantile(None, 0.5) is None
    assert sketches.merge_hll([]) is None
    assert sketches.merge_kll([]) is None


def test_quantiles_come_within_the_stated_rank_error() -> None:
    values = np.random.default_rng(3).permutation(10_000).astype(float)
    parts = [sketches.kll_from_values(part) for part in np.array_split(values, 7)]
    merged = sketches.merge_kll(p for p in parts if p is not None)
    assert merged is not None
    assert kll_doubles_sketch.deserialize(merged).n == 10_000
    for quantile in (0.5, 0.95):
        value = sketches.kll_quantile(merged, quantile)
        assert value is not None
        assert abs(value / 10_000 - quantile) < 3 * 0.0133
