import numpy as np
import pytest

from topologies.stages.add import Add
from topologies.stages.base import Clock, StageError, ValueType

CLOCK = Clock(np.zeros(1, np.int64), np.zeros(1, np.bool_))


def test_inputs_are_added_in_the_finest_unit() -> None:
    coarse, fine = ValueType((2,), 0, 1), ValueType((2,), -8, 8, 3)
    stage = Add.lowered({}, {}, [coarse, fine])
    y, _ = stage.run([np.array([[[1, 0]]], np.uint8), np.array([[[-3, 5]]], np.int16)], (), CLOCK)
    assert np.asarray(y).tolist() == [[[5, 5]]]
    out = stage.out_type([coarse, fine])
    assert (out.low, out.high, out.unit) == (-8, 16, 3)


def test_bound_covers_partial_sums_that_cancel() -> None:
    stage = Add((0, 0), "int32")
    assert stage.row_bound([ValueType((1,), -9, 0), ValueType((1,), 0, 9)]) == 18


def test_accumulator_follows_the_bound() -> None:
    wide = [ValueType((1,), 0, 2**23), ValueType((1,), 0, 2**23)]
    narrow = [ValueType((1,), 0, 2**23), ValueType((1,), 0, 2**22)]
    assert Add.lowered({}, {}, wide).params()["accumulator"] == "int32"
    assert Add.lowered({}, {}, narrow).params()["accumulator"] == "float32"


def test_different_shapes_are_refused() -> None:
    with pytest.raises(StageError, match="of one shape"):
        Add((0, 0), "int32").out_type([ValueType((1,), 0, 1), ValueType((2,), 0, 1)])


def test_lifts_that_miss_a_common_unit_are_refused() -> None:
    with pytest.raises(StageError, match="one unit"):
        Add((0, 1), "int32").out_type([ValueType((1,), 0, 1), ValueType((1,), 0, 1)])


def test_slice_takes_the_same_range_of_every_input() -> None:
    value = ValueType((6,), 0, 1)
    assert Add((0, 0), "int32").slice([value, value], 2, 5).reads == ((2, 5), (2, 5))
