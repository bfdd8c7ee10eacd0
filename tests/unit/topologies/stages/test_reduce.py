import numpy as np
import pytest

from topologies.stages.base import Clock, StageError, ValueType
from topologies.stages.reduce import Reduce

CLOCK = Clock(np.zeros(1, np.int64), np.zeros(1, np.bool_))
VALUE = ValueType((2, 2, 3), -1, 4, 1)
X = np.arange(12).reshape(1, 1, 2, 2, 3)


def test_space_of_each_channel_is_added() -> None:
    y, _ = Reduce((-2, -1)).run([X], (), CLOCK)
    assert y.tolist() == [[[0 + 1 + 2 + 3 + 4 + 5, 6 + 7 + 8 + 9 + 10 + 11]]]


def test_axes_that_are_kept_have_length_one() -> None:
    stage = Reduce((-1,), keep=True)
    assert stage.run([X], (), CLOCK)[0].tolist() == [[[[[3], [12]], [[21], [30]]]]]
    assert stage.out_type([VALUE]).shape == (2, 2, 1)


def test_range_grows_by_what_is_added_and_the_unit_by_the_shift() -> None:
    out = Reduce((-2, -1), shift=1).out_type([VALUE])
    assert (out.shape, out.low, out.high, out.unit) == ((2,), -6, 24, 2)


def test_slices_are_whole_channels() -> None:
    stage = Reduce((-1,))
    assert stage.granule([VALUE]) == 2
    assert stage.slice([VALUE], 2, 4).reads == ((6, 12),)
    with pytest.raises(StageError, match=r"no slice \[1, 2\)"):
        stage.slice([VALUE], 1, 2)


def test_sum_over_channels_is_not_cut() -> None:
    stage = Reduce((-3,))
    assert stage.granule([VALUE]) == 6
    assert stage.slice([VALUE], 0, 6).reads == (None,)


@pytest.mark.parametrize("axes", [0, [], [-1, -1], [1]])
def test_axes_are_different_numbers_below_zero(axes: object) -> None:
    with pytest.raises(StageError, match="different numbers below 0"):
        Reduce.build({"axes": axes}, {})


def test_axis_that_is_not_there_and_nothing_left_are_refused() -> None:
    with pytest.raises(StageError, match="no axis -4"):
        Reduce((-4,)).out_type([VALUE])
    with pytest.raises(StageError, match="leaves none"):
        Reduce((-3, -2, -1)).out_type([VALUE])


def test_mean_is_a_sum_and_its_divisor() -> None:
    assert Reduce.averaged({"axes": [-1, -2]}, (5, 2, 3))[2] == 6
    assert Reduce.averaged({"axes": -1, "op": "sum"}, (5, 2, 3))[2] == 1
    assert [f for f, _ in Reduce.faults({"axes": -1, "op": "median"}, {})] == ["op"]
