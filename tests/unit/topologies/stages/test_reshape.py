import numpy as np
import pytest

from topologies.stages.base import Clock, StageError, ValueType
from topologies.stages.reshape import Reshape, Rows, Select

CLOCK = Clock(np.zeros(1, np.int64), np.zeros(1, np.bool_))
X = np.arange(24, dtype=np.int16).reshape(1, 2, 3, 2, 2)
VALUE = ValueType((3, 2, 2), 0, 100)


def test_flattening_counts_channel_by_channel() -> None:
    y, _ = Reshape((-1,)).run([X], (), CLOCK)
    assert np.asarray(y)[0, 0].tolist() == list(range(12))


def test_rest_entry_takes_what_is_left() -> None:
    assert Reshape((2, -1)).out_type([VALUE]).shape == (2, 6)


def test_shape_of_another_size_is_refused() -> None:
    with pytest.raises(StageError, match="do not fill"):
        Reshape((5,)).out_type([VALUE])


@pytest.mark.parametrize("shape", [(), (-1, -1), (0, 3)])
def test_illegal_shape_is_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(StageError, match="entries above 0"):
        Reshape.build({"shape": shape}, {})


def test_select_of_whole_channels_keeps_the_image() -> None:
    y, _ = Select(4, 12).run([X], (), CLOCK)
    assert np.array_equal(y, X[:, :, 1:])


def test_select_within_a_channel_is_flat() -> None:
    y, _ = Select(3, 5).run([X], (), CLOCK)
    assert np.asarray(y)[0, 0].tolist() == [3, 4]
    assert Select(3, 5).out_type([VALUE]).shape == (2,)


def test_select_beyond_the_values_is_refused() -> None:
    with pytest.raises(StageError, match="No slice"):
        Select(3, 13).out_type([VALUE])


def test_rows_beyond_the_image_are_zeros() -> None:
    y, _ = Rows(-1, 2).run([X], (), CLOCK)
    assert y.shape[-2] == 3
    assert not y[..., 0, :].any()
    assert np.array_equal(y[..., 1:, :], X)
    below, _ = Rows(VALUE.shape[1], VALUE.shape[1] + 2).run([X], (), CLOCK)
    assert not below.any()


def test_rows_are_those_of_an_image() -> None:
    with pytest.raises(StageError, match="No rows"):
        Rows(0, 2).out_type([ValueType((4,), 0, 1)])
    with pytest.raises(StageError, match="No rows"):
        Rows(2, 2).out_type([VALUE])
