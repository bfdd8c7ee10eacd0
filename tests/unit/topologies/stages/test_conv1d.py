import numpy as np
import pytest

from topologies.stages.base import Clock, StageError, ValueType
from topologies.stages.conv1d import Conv1d

CLOCK = Clock(np.zeros(1, np.int64), np.zeros(1, np.bool_))
VALUE = ValueType((2, 5), 0, 1)


def make(weight: object, bias: object, **geometry: int) -> Conv1d:
    return Conv1d(np.array(weight, np.int8), np.array(bias, np.int64), 3, "float32", **geometry)


def test_sum_is_that_over_channels_and_taps() -> None:
    stage = make([[[1, 2, 3], [10, 20, 30]]], [100])
    x = np.array([[[[1, 0, 1, 1, 0], [0, 1, 0, 0, 1]]]], np.uint8)
    y, _ = stage.run([x], (), CLOCK)
    assert y.tolist() == [[[[100 + 1 + 3 + 20, 100 + 2 + 3 + 10, 100 + 1 + 2 + 30]]]]


def test_stride_padding_and_dilation_move_the_taps() -> None:
    stage = make([[[1, 2], [0, 0]]], [0], stride=2, padding=1, dilation=3)
    x = np.array([[[[1, 1, 0, 1, 1], [1, 1, 1, 1, 1]]]], np.uint8)
    # taps at p - 1 and p + 2, for p = 0, 2
    assert stage.run([x], (), CLOCK)[0].tolist() == [[[[0 + 0, 1 + 2]]]]
    assert stage.out_type([VALUE]).shape == (1, 2)


def test_groups_read_their_own_channels() -> None:
    stage = make([[[1]], [[1]]], [0, 0], channel_groups=2)
    x = np.array([[[[1, 0, 0, 0, 0], [0, 0, 0, 0, 1]]]], np.uint8)
    assert stage.run([x], (), CLOCK)[0].tolist() == x.tolist()


def test_bound_and_cost_are_those_of_the_rows() -> None:
    stage = make([[[1, -2, 3], [4, 0, 0]]], [-5])
    out = stage.out_type([VALUE])
    assert (out.low, out.high, out.unit, out.shape) == (-15, 15, 3, (1, 3))
    assert stage.cost([VALUE]).n_synapses == 6 * 3


def test_slice_computes_its_channels_only() -> None:
    stage = make([[[i], [2]] for i in range(4)], list(range(4)))
    part = stage.slice([VALUE], 5, 15)
    assert isinstance(part.stage, Conv1d)
    assert part.stage.weight[:, 0, 0].tolist() == [1, 2]
    assert part.reads == (None,)
    with pytest.raises(StageError, match=r"no slice \[3, 8\)"):
        stage.slice([VALUE], 3, 8)


def test_values_that_are_no_channels_of_a_length_are_refused() -> None:
    stage = make([[[1], [1]]], [0])
    with pytest.raises(StageError, match=r"shape \(channels, length\), not \(2, 5, 1\)"):
        stage.out_type([ValueType((2, 5, 1), 0, 1)])
    with pytest.raises(StageError, match="reads 2 channels, not 3"):
        stage.out_type([ValueType((3, 5), 0, 1)])


def test_stage_survives_writing_and_reading() -> None:
    stage = make([[[1, 2]]], [3], stride=2, padding=1, dilation=2)
    again = Conv1d.build(stage.params(), stage.arrays())
    assert again.params() == stage.params()
    assert again.weight is stage.weight
