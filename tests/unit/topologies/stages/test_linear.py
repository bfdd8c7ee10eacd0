import numpy as np
import pytest

from topologies.stages.base import Clock, StageError, ValueType
from topologies.stages.linear import Linear

CLOCK = Clock(np.zeros(1, np.int64), np.zeros(1, np.bool_))
WEIGHT = np.array([[1, -2, 3], [4, 5, -6]], np.int8)
STAGE = Linear(WEIGHT, np.array([10, -20]), 2, "float32")


def test_each_row_is_summed_with_its_bias() -> None:
    y, _ = STAGE.run([np.array([[[1, 0, 2]]], np.uint8)], (), CLOCK)
    assert np.asarray(y).tolist() == [[[17.0, -28.0]]]
    assert np.asarray(y).dtype == np.float32


def test_window_without_steps_gives_no_steps() -> None:
    y, _ = STAGE.run([np.zeros((1, 0, 3), np.uint8)], (), CLOCK)
    assert np.asarray(y).shape == (1, 0, 2)


def test_row_bound_is_that_of_the_heaviest_row() -> None:
    assert STAGE.row_bound([ValueType((3,), 0, 4)]) == 15 * 4 + 20


def test_row_bound_counts_negative_inputs_by_magnitude() -> None:
    assert STAGE.row_bound([ValueType((3,), -7, 4)]) == 15 * 7 + 20


def test_image_is_refused_with_a_hint_to_reshape() -> None:
    with pytest.raises(StageError, match="reshape"):
        STAGE.out_type([ValueType((3, 1, 1), 0, 1)])


def test_slice_keeps_rows_and_their_biases() -> None:
    part = STAGE.slice([ValueType((3,), 0, 1)], 1, 2)
    assert part.reads == (None,)
    assert part.stage.arrays()["weight"].tolist() == [[4, 5, -6]]
    assert part.stage.arrays()["bias"].tolist() == [-20]


@pytest.mark.parametrize("span", [(0, 0), (1, 3), (-1, 1)])
def test_slice_beyond_the_rows_is_refused(span: tuple[int, int]) -> None:
    with pytest.raises(StageError, match="has no slice"):
        STAGE.slice([ValueType((3,), 0, 1)], *span)


def test_parameters_and_arrays_build_the_same_stage() -> None:
    again = Linear.build(STAGE.params(), STAGE.arrays())
    assert again.params() == STAGE.params()
    assert all(np.array_equal(again.arrays()[n], a) for n, a in STAGE.arrays().items())


def test_missing_array_is_refused() -> None:
    with pytest.raises(StageError, match="bias"):
        Linear.build(STAGE.params(), {"weight": WEIGHT})
