"""Sorting and numbering by one number give what they give by several columns, also where one number is too short."""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from viewmeter.model import segments as seg
from viewmeter.model.summing import lists

ROW = st.integers(0, 5)
COUPONS = st.one_of(st.integers(0, 3), st.integers(0, (1 << 32) - 1))
VALUES = st.one_of(
    st.integers(0, (1 << 32) - 1).map(float),
    st.floats(-1e12, 1e12, allow_nan=False).map(lambda value: value + 0.0),  # not -0.0, which equals 0.0
)


def by_hand(pairs: list[tuple[int, Any]], count: int, *, distinct: bool) -> list[list[Any]]:
    found = [[value for row, value in pairs if row == wanted] for wanted in range(count)]
    return [sorted(set(of)) if distinct else sorted(of) for of in found]


@given(st.lists(st.tuples(ROW, COUPONS)))
def test_a_row_lists_its_coupons_once_each_ascending(pairs: list[tuple[int, int]]) -> None:
    rows = np.array([row for row, _ in pairs], np.int64)
    values = np.array([value for _, value in pairs], np.uint32)
    assert lists(rows, values, 6, pa.uint32(), distinct=True).to_pylist() == by_hand(pairs, 6, distinct=True)


@given(st.lists(st.tuples(ROW, VALUES)))
def test_a_row_lists_all_its_values_ascending(pairs: list[tuple[int, float]]) -> None:
    rows, values = np.array([row for row, _ in pairs], np.int64), np.array([value for _, value in pairs], np.float64)
    assert lists(rows, values, 6, pa.float64(), distinct=False).to_pylist() == by_hand(pairs, 6, distinct=False)


@pytest.mark.parametrize("most", [5, 1 << 62])
@given(data=st.data())
def test_rows_are_ordered_by_two_columns_and_equals_stay(most: int, data: st.DataObject) -> None:
    pairs = data.draw(st.lists(st.tuples(st.integers(0, 5), st.integers(-most, most))))
    major, minor = (np.array([pair[n] for pair in pairs], np.int64) for n in (0, 1))
    assert seg.order(major, minor).tolist() == sorted(range(len(pairs)), key=lambda at: pairs[at])


@pytest.mark.parametrize("span", [6, 1 << 40])
@given(key=st.lists(st.integers(0, 5)))
def test_numbers_are_numbered_from_the_least(span: int, key: list[int]) -> None:
    distinct, number = seg.numbered(np.array(key, np.int64), span)
    assert distinct.tolist() == sorted(set(key))
    assert number.tolist() == [sorted(set(key)).index(value) for value in key]
