"""Sketches: HLL coupons in bulk, and the bytes that Apache DataSketches reads and writes.

In: viewer hashes, lists of coupons, lists of values. Out: coupons (numpy, no Python per row), serialised HLL
(lgK 14) and KLL doubles (k 200) sketches, and the numbers read from them. Promised: a sketch of coupons holds
what `hll_sketch.update(int)` would have left there, so Python, Spark and Druid read each other's bytes.
Not done: HIP estimation. It needs the order of arrival, which merged rows have lost.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable
from itertools import pairwise
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import pyarrow as pa
from datasketches import hll_sketch, hll_union, kll_doubles_sketch, tgt_hll_type

from viewmeter.model.catalogue.measures import HLL_LG_K, KLL_K, Kind

Coupons = npt.NDArray[np.uint32]

_SEED: Final = 9001  # DataSketches' default update seed
_C1: Final = np.uint64(0x87C37B91114253D5)
_C2: Final = np.uint64(0x4CF5AD432745937F)
_F1: Final = np.uint64(0xFF51AFD7ED558CCD)
_F2: Final = np.uint64(0xC4CEB9FE1A85EC53)
_ADDRESS_BITS: Final = 26

# Where a sketch of lgK 14 changes its mode (DataSketches C++, HllUtil and CouponList): a list of up to 7,
# then a hash set while it fills at most 3/4 of 2^(lgK - 3) slots, then registers.
_LIST_MAX: Final = 7
_SET_MAX: Final = 3 * 2 ** (HLL_LG_K - 3) // 4
_REGISTERS: Final = 1 << HLL_LG_K
_EMPTY_FLAG, _COMPACT_FLAG, _OUT_OF_ORDER_FLAG = 4, 8, 16
_HLL_8: Final = 2 << 2  # target type in bits 2-3 of the mode byte
_UNIQUE_BY_SORT_MAX: Final = 4 * _SET_MAX
"""Above this many coupons, registers first: cheaper than a sort, and mostly the set turns out outgrown."""


def coupons(viewer_hash: npt.NDArray[np.int64]) -> Coupons:
    """Return each hash's HLL coupon: 6 bits of value over 26 bits of address, as DataSketches' from an int64.

    MurmurHash3_x64_128 of the 8 bytes (little endian), seed 9001, specialised to one 8-byte tail.
    """
    with np.errstate(over="ignore"):
        k1 = viewer_hash.astype(np.int64, copy=False).view(np.uint64) * _C1
        k1 = ((k1 << np.uint64(31)) | (k1 >> np.uint64(33))) * _C2
        h1 = (k1 ^ np.uint64(_SEED)) ^ np.uint64(8)
        h2 = np.uint64(_SEED ^ 8)
        h1 = h1 + h2
        h2_column = _mix(h1 + h2)
        h1 = _mix(h1) + h2_column
        h2_column = h2_column + h1
    value = np.minimum(_leading_zeros(h2_column), 62) + 1
    address = h1 & np.uint64((1 << _ADDRESS_BITS) - 1)
    return (address | (value.astype(np.uint64) << np.uint64(_ADDRESS_BITS))).astype(np.uint32)


def _mix(h: npt.NDArray[np.uint64]) -> npt.NDArray[np.uint64]:
    h = (h ^ (h >> np.uint64(33))) * _F1
    h = (h ^ (h >> np.uint64(33))) * _F2
    return h ^ (h >> np.uint64(33))


def _leading_zeros(x: npt.NDArray[np.uint64]) -> npt.NDArray[np.int64]:
    # frexp of a float64 would round 53 bits up to the next power; the two halves are exact.
    high, low = (x >> np.uint64(32)).astype(np.float64), (x & np.uint64(0xFFFFFFFF)).astype(np.float64)
    bits_high, bits_low = np.frexp(high)[1], np.frexp(low)[1]
    return np.where(bits_high > 0, 32 - bits_high, 64 - bits_low).astype(np.int64)


def hll_from_coupons(values: Coupons) -> bytes | None:
    """Return the serialised HLL sketch (lgK 14, HLL_8) of coupons, repeated or not; None of none."""
    if not len(values):
        return None
    if len(values) > _UNIQUE_BY_SORT_MAX:
        registers = _registers(values)
        if np.count_nonzero(registers) > _SET_MAX:
            return _hll_bytes(registers)
    distinct = _distinct(values)
    if len(distinct) > _SET_MAX:
        return _hll_bytes(_registers(distinct))
    return _coupon_bytes(distinct)


def _distinct(values: Coupons) -> Coupons:
    # np.unique costs 15 us before it starts, and most sketches of a long answer hold a handful of viewers.
    ordered = np.sort(values)
    if len(ordered) < 2:
        return ordered
    return ordered[np.concatenate(([True], ordered[1:] != ordered[:-1]))]


def thin_coupons(values: Coupons) -> Coupons:
    """Return distinct coupons that make the same sketch, at most about 16 K of them whatever came in.

    Beyond 2^14 distinct coupons the sketch is registers for certain, and a register keeps its largest value.
    """
    distinct = _distinct(values)
    if len(distinct) <= _REGISTERS:
        return distinct
    # Sorted by (register, value): the last of each register is its largest.
    register = distinct & np.uint32(_REGISTERS - 1)
    order = np.lexsort((distinct >> np.uint32(_ADDRESS_BITS), register))
    ordered = register[order]
    last = np.append(ordered[1:] != ordered[:-1], True)
    thin: Coupons = distinct[order[last]]
    return thin


def _registers(values: Coupons) -> npt.NDArray[np.uint8]:
    registers = np.zeros(_REGISTERS, np.uint8)
    value = (values >> np.uint32(_ADDRESS_BITS)).astype(np.uint8)
    np.maximum.at(registers, values & np.uint32(_REGISTERS - 1), value)
    return registers


def _coupon_bytes(distinct: Coupons) -> bytes:
    """Return the compact LIST or SET form: the HLL preamble of DataSketches, then the coupons."""
    count = len(distinct)
    if count <= _LIST_MAX:
        # preamble ints, serial version, family HLL, lgK, lg of the array, flags, count, mode LIST
        head = struct.pack("<8B", 2, 1, 7, HLL_LG_K, 3, _COMPACT_FLAG, count, _HLL_8)
    else:
        lg_array = max(5, (count * 4 // 3 - 1).bit_length())
        head = struct.pack("<8BI", 3, 1, 7, HLL_LG_K, lg_array, _COMPACT_FLAG, 0, _HLL_8 | 1, count)
    return head + distinct.astype("<u4").tobytes()


def _hll_bytes(registers: npt.NDArray[np.uint8]) -> bytes:
    """Return the HLL_8 form: 40 bytes of preamble and one byte a register.

    kxq0 and kxq1 are the sums of 2^-register below and from 32 up; the flag says that HIP must not be used.
    """
    powers = np.ldexp(1.0, -registers.astype(np.int32))
    high = registers >= 32
    kxq1 = float(powers[high].sum())
    kxq0 = float(powers[~high].sum())
    zeros = _REGISTERS - int(np.count_nonzero(registers))
    flags = _COMPACT_FLAG | _OUT_OF_ORDER_FLAG
    head = struct.pack("<8BdddII", 10, 1, 7, HLL_LG_K, 0, flags, 0, _HLL_8 | 2, 0.0, kxq0, kxq1, zeros, 0)
    return head + registers.tobytes()


def of_lists(lists: pa.ListArray, kind: Kind) -> pa.Array:
    """Return the serialised sketch of each list of coupons (HLL) or values (KLL); null of an empty one."""
    offsets, flat = lists.offsets.to_numpy().tolist(), lists.values.to_numpy(zero_copy_only=False)
    return pa.array([of_values(flat[a:b], kind) for a, b in pairwise(offsets)], pa.binary())


def of_values(values: npt.NDArray[Any], kind: Kind) -> bytes | None:
    """Return the serialised sketch of coupons (HLL) or values (KLL); None of none."""
    return hll_from_coupons(values) if kind is Kind.HLL else kll_from_values(values)


def merge_hll(parts: Iterable[bytes]) -> bytes | None:
    """Return the union of serialised HLL sketches; None of none."""
    union: hll_union | None = None
    for part in parts:
        union = union or hll_union(HLL_LG_K)
        union.update(hll_sketch.deserialize(part))
    return None if union is None else bytes(union.get_result(tgt_hll_type.HLL_8).serialize_compact())


def hll_estimate(sketch: bytes | None) -> float:
    """Return the estimated number of distinct values; 0 of None."""
    return 0.0 if sketch is None else float(hll_sketch.deserialize(sketch).get_estimate())


def kll_from_values(values: npt.NDArray[np.float64]) -> bytes | None:
    """Return the serialised KLL doubles sketch (k 200) of the values; None of none."""
    if not len(values):
        return None
    sketch = kll_doubles_sketch(KLL_K)
    sketch.update(np.array(values, np.float64))  # a copy: the binding refuses read-only arrays
    return bytes(sketch.serialize())


def merge_kll(parts: Iterable[bytes]) -> bytes | None:
    """Return the merge of serialised KLL doubles sketches; None of none."""
    merged: kll_doubles_sketch | None = None
    for part in parts:
        merged = merged or kll_doubles_sketch(KLL_K)
        merged.merge(kll_doubles_sketch.deserialize(part))
    return None if merged is None else bytes(merged.serialize())


def kll_quantile(sketch: bytes | None, quantile: float) -> float | None:
    """Return the value at the normalised rank, or None where nothing was seen."""
    if sketch is None:
        return None
    # Inclusive is what Druid asks for (and what nearest rank means); the Python binding's default is not.
    return float(kll_doubles_sketch.deserialize(sketch).get_quantile(quantile, inclusive=True))
