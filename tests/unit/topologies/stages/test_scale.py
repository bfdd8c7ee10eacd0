import numpy as np
import pytest

from topologies.stages.base import Clock, StageError, ValueType
from topologies.stages.scale import Scale

CLOCK = Clock(np.zeros(1, np.int64), np.zeros(1, np.bool_))
VALUE = ValueType((2, 3), -2, 4, 1)
X = np.array([[[[1, -2, 4], [0, 3, 1]]]], np.int16)


def lowered(weight: object, bias: object) -> Scale:
    arrays = {"weight": np.array(weight, np.float64), "bias": np.array(bias, np.float64)}
    return Scale.lowered({}, arrays, [VALUE], 2)


def test_each_channel_has_its_factor_and_offset() -> None:
    stage = lowered([0.5, -1.0], [0.25, 1.0])
    assert stage.weight.tolist() == [2, -4]
    assert stage.bias.tolist() == [2, 8]  # in units of 2**-3
    y, _ = stage.run([X], (), CLOCK)
    assert y.tolist() == [[[[4, -2, 10], [8, -4, 4]]]]


def test_one_factor_serves_all_values() -> None:
    y, _ = lowered([0.25], [0.0]).run([X], (), CLOCK)
    assert y.tolist() == X.tolist()


def test_each_value_may_have_its_factor() -> None:
    y, _ = lowered(np.arange(6) / 4, np.zeros(6)).run([X], (), CLOCK)
    assert y.tolist() == [[[[0, -2, 8], [0, 12, 5]]]]


def test_bound_is_that_of_the_largest_row() -> None:
    out = lowered([0.5, -1.0], [0.25, 1.0]).out_type([VALUE])
    assert (out.high, out.unit, out.shape) == (4 * 4 + 8, 3, (2, 3))


def test_number_of_factors_must_fit() -> None:
    with pytest.raises(StageError, match=r"has 4 factors: legal .* are 1, 2, 6"):
        lowered(np.ones(4), np.zeros(4)).out_type([VALUE])


def test_slices_keep_the_factors_of_their_values() -> None:
    part = lowered([0.5, -1.0], [0.25, 1.0]).slice([VALUE], 3, 6)
    assert isinstance(part.stage, Scale)
    assert part.stage.weight.tolist() == [-4]
    assert part.reads == ((3, 6),)
    with pytest.raises(StageError, match=r"no slice \[1, 3\)"):
        lowered([0.5, -1.0], [0.25, 1.0]).slice([VALUE], 1, 3)
    assert lowered([0.5], [0.0]).slice([VALUE], 1, 3).reads == ((1, 3),)
