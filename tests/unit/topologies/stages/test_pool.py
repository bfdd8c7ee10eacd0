import numpy as np
import pytest

from topologies.stages.base import Clock, StageError, ValueType
from topologies.stages.pool import MaxPool, SumPool

CLOCK = Clock(np.zeros(1, np.int64), np.zeros(1, np.bool_))
IMAGE = np.arange(16, dtype=np.int16).reshape(1, 1, 1, 4, 4)


def test_max_pool_takes_the_largest_of_each_window() -> None:
    y, _ = MaxPool((2, 2), (2, 2)).run([IMAGE], (), CLOCK)
    assert np.asarray(y).tolist() == [[[[[5, 7], [13, 15]]]]]


def test_padding_never_wins_a_maximum() -> None:
    y, _ = MaxPool((2, 2), (2, 2), (1, 1)).run([IMAGE - 100], (), CLOCK)
    assert np.asarray(y).max() < 0


def test_max_pool_keeps_spikes_spikes() -> None:
    assert MaxPool((2, 2), (2, 2)).out_type([ValueType((3, 4, 4), 0, 1)]).is_spike


def test_sum_pool_adds_each_window() -> None:
    y, _ = SumPool((2, 2), (2, 2)).run([IMAGE], (), CLOCK)
    assert np.asarray(y).tolist() == [[[[[10, 18], [42, 50]]]]]


def test_sum_of_spikes_is_not_cut_off_at_eight_bits() -> None:
    ones = np.ones((1, 1, 1, 17, 17), np.uint8)
    y, _ = SumPool((17, 17), (17, 17)).run([ones], (), CLOCK)
    assert np.asarray(y).item() == 289


def test_average_over_four_is_a_sum_in_finer_units() -> None:
    out = SumPool((2, 2), (2, 2), shift=2).out_type([ValueType((3, 4, 4), 0, 1)])
    assert (out.low, out.high, out.unit) == (0, 4, 2)


def test_overlapping_windows_step_by_the_stride() -> None:
    y, _ = SumPool((3, 3), (1, 1), (1, 1)).run([np.ones_like(IMAGE)], (), CLOCK)
    edge, inner = [4, 6, 6, 4], [6, 9, 9, 6]
    assert np.asarray(y)[0, 0, 0].tolist() == [edge, inner, inner, edge]


def test_slice_reads_the_same_channels() -> None:
    pool, value = MaxPool((2, 2), (2, 2)), ValueType((3, 4, 4), 0, 1)
    assert pool.granule([value]) == 4
    assert pool.slice([value], 4, 12).reads == ((16, 48),)


def test_slice_of_rows_reads_the_rows_under_them_and_none_between() -> None:
    pool, value = MaxPool((2, 2), (3, 2)), ValueType((3, 9, 4), 0, 1)
    # Outputs are 3 x 2 per channel; row r of them reads rows 3r and 3r + 1 of 4 values.
    assert pool.slice([value], 6, 8).reads == ((36, 44),)
    assert pool.slice([value], 8, 12).reads == ((48, 68),)


@pytest.mark.parametrize(
    ("pool", "lo", "hi"),
    [
        (MaxPool((3, 2), (2, 2)), 0, 2),
        (MaxPool((2, 2), (2, 2), (1, 0)), 0, 2),
        (MaxPool((2, 2), (2, 2)), 0, 1),
        (MaxPool((2, 2), (2, 2)), 6, 10),
    ],
    ids=["rows overlap", "padding", "part of a row", "rows of two channels"],
)
def test_slice_that_is_no_rows_of_its_own_is_refused(pool: MaxPool, lo: int, hi: int) -> None:
    with pytest.raises(StageError, match="has no slice"):
        pool.slice([ValueType((3, 8, 4), 0, 1)], lo, hi)


def test_padding_above_half_the_kernel_is_refused() -> None:
    with pytest.raises(StageError, match="half the kernel"):
        MaxPool((2, 2), (2, 2), (2, 2)).out_type([ValueType((3, 4, 4), 0, 1)])


def test_stride_defaults_to_the_kernel() -> None:
    assert SumPool.build({"kernel": [3, 2]}, {}).stride == (3, 2)


@pytest.mark.parametrize("kernel", [0, [2], [2, 2, 2], [2, 0]])
def test_illegal_kernel_is_refused(kernel: object) -> None:
    with pytest.raises(StageError, match="kernel is an integer from 1 on"):
        MaxPool.build({"kernel": kernel}, {})
