from dataclasses import replace

import numpy as np
import pytest

from topologies.stages.base import Array, Clock, StageError, ValueType
from topologies.stages.conv import Conv2d

CLOCK = Clock(np.zeros(2, np.int64), np.zeros(2, np.bool_))


def conv(
    n_out: int = 4, n_in: int = 2, kernel: int = 3, groups: int = 1, **geometry: tuple[int, int]
) -> Conv2d:
    rng = np.random.default_rng(3)
    weight = rng.integers(-9, 10, (n_out, n_in // groups, kernel, kernel)).astype(np.int8)
    bias = rng.integers(-5, 6, n_out).astype(np.int64)
    return Conv2d(weight, bias, 4, "int32", channel_groups=groups, **geometry)


def by_hand(stage: Conv2d, x: Array) -> Array:
    """Loops over everything."""
    per_group = len(stage.weight) // stage.channel_groups
    value = ValueType(x.shape[2:], -9, 9)
    y = np.zeros((*x.shape[:2], *stage.out_type([value]).shape), np.int64)
    for o, r, c in np.ndindex(y.shape[2:]):
        y[:, :, o, r, c] = stage.bias[o]
        for i, dr, dc in np.ndindex(stage.weight.shape[1:]):
            channel = o // per_group * stage.weight.shape[1] + i
            row = r * stage.stride[0] + dr * stage.dilation[0] - stage.padding[0]
            column = c * stage.stride[1] + dc * stage.dilation[1] - stage.padding[1]
            if 0 <= row < x.shape[3] and 0 <= column < x.shape[4]:
                k = int(stage.weight[o, i, dr, dc])
                y[:, :, o, r, c] += k * x[:, :, channel, row, column].astype(np.int64)
    return y


@pytest.mark.parametrize(
    "stage",
    [
        conv(),
        conv(padding=(1, 1)),
        conv(stride=(2, 1), padding=(0, 2)),
        conv(dilation=(2, 2), padding=(2, 2)),
        conv(groups=2),
        conv(kernel=1),
    ],
    ids=["plain", "padded", "strided", "dilated", "grouped", "pointwise"],
)
def test_convolution_equals_the_sum_written_out(stage: Conv2d) -> None:
    x = np.random.default_rng(4).integers(-9, 10, (2, 3, 2, 6, 5)).astype(np.int16)
    y, state = stage.run([x], (), CLOCK)
    assert state == ()
    assert y.dtype == np.int32
    assert np.array_equal(y, by_hand(stage, x))


@pytest.mark.parametrize("groups", [1, 2])
def test_channel_slices_together_equal_the_whole(groups: int) -> None:
    stage, value = conv(groups=groups, padding=(1, 1)), ValueType((2, 6, 5), 0, 3)
    x = np.random.default_rng(5).integers(0, 4, (2, 3, 2, 6, 5)).astype(np.uint8)
    whole, _ = stage.run([x], (), CLOCK)
    half = stage.out_type([value]).n // 2
    parts = []
    for lo, hi in ((0, half), (half, 2 * half)):
        part = stage.slice([value], lo, hi)
        read = part.reads[0] or (0, value.n)
        seen = x.reshape(2, 3, -1)[:, :, slice(*read)].reshape(2, 3, -1, 6, 5)
        parts.append(part.stage.run([seen], (), CLOCK)[0])
    assert np.array_equal(np.concatenate([np.asarray(p) for p in parts], axis=2), whole)


def test_slice_through_a_channel_is_refused() -> None:
    with pytest.raises(StageError, match="has no slice"):
        conv().slice([ValueType((2, 6, 5), 0, 1)], 0, 7)


def test_wrong_number_of_channels_is_refused() -> None:
    with pytest.raises(StageError, match="reads 2 channels, not 3"):
        conv().out_type([ValueType((3, 6, 5), 0, 1)])


def test_kernel_larger_than_the_padded_input_is_refused() -> None:
    with pytest.raises(StageError, match="does not fit"):
        conv().out_type([ValueType((2, 2, 5), 0, 1)])


def test_flat_input_is_refused() -> None:
    with pytest.raises(StageError, match="channels, height, width"):
        conv().out_type([ValueType((12,), 0, 1)])


def test_row_bound_is_reached_by_the_worst_input() -> None:
    stage = conv(n_in=1)
    stage = replace(stage, bias=np.abs(stage.bias))
    value = ValueType((1, 3, 3), -2, 2)
    worst = [2 * np.sign(row).reshape(1, 1, 1, 3, 3) for row in stage.weight.astype(np.int64)]
    reached = max(np.asarray(stage.run([x], (), CLOCK)[0]).max() for x in worst)
    assert reached == stage.row_bound([value])


def test_unit_grows_by_the_shift() -> None:
    assert conv().out_type([ValueType((2, 6, 5), 0, 16, 4)]).unit == 8


def test_cost_counts_one_synapse_per_weight_and_position() -> None:
    assert conv().cost([ValueType((2, 6, 5), 0, 1)]).n_synapses == 4 * 2 * 9 * (4 * 3)
