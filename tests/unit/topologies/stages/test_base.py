import numpy as np
import pytest

from topologies.stages.base import (
    StageError,
    ValueType,
    accumulator_for,
    edge_dtype,
    float32_from_bits,
    float32_to_bits,
    slice_type,
    to_current,
)


@pytest.mark.parametrize(
    ("bound", "accumulator"),
    [
        (2**24 - 1, "float32"),
        (2**24, "int32"),
        (2**31 - 1, "int32"),
        (2**31, "float64"),
        (2**53 - 1, "float64"),
    ],
)
def test_accumulator_is_the_cheapest_exact_one(bound: int, accumulator: str) -> None:
    assert accumulator_for(bound) == accumulator


def test_bound_beyond_float64_is_refused_with_a_way_out() -> None:
    with pytest.raises(StageError, match="fewer bits"):
        accumulator_for(2**53)


def test_current_is_rounded_once_half_to_even() -> None:
    sums = np.array([2**24 + 1, 2**24 + 3, -(2**24) - 1], np.int32)
    assert to_current(sums, 24).tolist() == [1.0, (2**24 + 4) / 2**24, -1.0]


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_current_is_never_negative_zero(dtype: type) -> None:
    assert not np.signbit(to_current(np.array([-0.0], dtype), 3)).any()


def test_int32_and_float64_sums_round_alike() -> None:
    sums = np.random.default_rng(0).integers(-(2**31) + 1, 2**31, 1000)
    from_int = to_current(sums.astype(np.int32), 9)
    assert np.array_equal(from_int, to_current(sums.astype(np.float64), 9))


@pytest.mark.parametrize(
    ("value", "dtype"),
    [
        (ValueType((1,), 0, 1), np.uint8),
        (ValueType((1,), 0, 1, 2), np.int16),
        (ValueType((1,), 0, 2**15 - 1), np.int16),
        (ValueType((1,), -(2**15), 0), np.int32),
    ],
)
def test_edge_dtype_holds_the_range(value: ValueType, dtype: type) -> None:
    assert edge_dtype(value) == dtype


def test_edge_beyond_32_bits_is_refused() -> None:
    with pytest.raises(StageError, match="32-bit"):
        edge_dtype(ValueType((1,), 0, 2**31))


def test_slice_of_whole_channels_keeps_the_image() -> None:
    assert slice_type(ValueType((4, 2, 2), 0, 1), 4, 12).shape == (2, 2, 2)


def test_float_constants_survive_as_bits() -> None:
    for value in (0.1, -0.0, 1e-45):
        bits = float32_to_bits(value)
        assert float32_to_bits(float(float32_from_bits(bits))) == bits
