import numpy as np
import pytest

from topologies.stages.base import Clock, StageError, ValueType
from topologies.stages.multiply import Multiply

CLOCK = Clock(np.zeros(1, np.int64), np.zeros(1, np.bool_))
SPIKES, MASK = ValueType((2, 3), 0, 1), ValueType((2, 1), -3, 2, 4)


def test_mask_is_spread_over_the_tokens() -> None:
    x = np.array([[[[1, 0, 1], [1, 1, 0]]]], np.uint8)
    y, _ = Multiply("float32").run([x, np.array([[[[2], [-3]]]])], (), CLOCK)
    assert y.tolist() == [[[[2, 0, 2], [-3, -3, 0]]]]


def test_product_of_spikes_is_and() -> None:
    a, b = np.array([[[0, 0, 1, 1]]], np.uint8), np.array([[[0, 1, 0, 1]]], np.uint8)
    y, _ = Multiply("float32").run([a, b], (), CLOCK)
    assert y.tolist() == [[[0, 0, 0, 1]]]
    assert Multiply("float32").out_type([ValueType((4,), 0, 1)] * 2).is_spike


def test_range_is_that_of_the_products_in_the_sum_of_the_units() -> None:
    out = Multiply("float32").out_type([ValueType((2, 3), -2, 5, 1), MASK])
    assert (out.low, out.high, out.unit, out.shape) == (-15, 10, 5, (2, 3))


def test_order_of_the_inputs_does_not_matter_to_the_shape() -> None:
    assert Multiply("float32").out_type([MASK, SPIKES]).shape == (2, 3)
    assert Multiply("float32").slice([MASK, SPIKES], 3, 6).reads == ((1, 2), (3, 6))


def test_equal_shapes_are_cut_anywhere_and_spread_ones_by_channel() -> None:
    assert Multiply("float32").slice([SPIKES, SPIKES], 1, 2).reads == ((1, 2), (1, 2))
    assert Multiply("float32").granule([SPIKES, MASK]) == 3
    with pytest.raises(StageError, match=r"no slice \[1, 2\)"):
        Multiply("float32").slice([SPIKES, MASK], 1, 2)


@pytest.mark.parametrize("shape", [(3, 3), (1, 3), (2, 2), (2,), (2, 3, 1)])
def test_other_shapes_are_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(StageError, match="two inputs of one shape"):
        Multiply("float32").out_type([SPIKES, ValueType(shape, 0, 1)])
