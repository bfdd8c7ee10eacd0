from itertools import pairwise

import numpy as np
import pytest

from topologies.stages.base import Array, Clock, StageError, ValueType
from topologies.stages.delay import Delay

CLOCK = Clock(np.zeros(1, np.int64), np.zeros(1, np.bool_))
VALUE = ValueType((2, 2), 0, 9)
STEPS = [0, 1, 3, 2]


def lowered(steps: object = STEPS) -> Delay:
    return Delay.lowered({"steps": steps}, {}, [VALUE])


def zeros(stage: Delay) -> tuple[Array, ...]:
    ((_, shape, dtype),) = stage.state_spec([VALUE])
    return (np.zeros((1, *shape), dtype),)


def test_each_value_comes_as_many_steps_late_as_it_says() -> None:
    x = np.arange(1, 21, dtype=np.int16).reshape(1, 5, 2, 2)
    y, _ = lowered().run([x], zeros(lowered()), CLOCK)
    for place, late in enumerate(STEPS):
        column = x.reshape(5, 4)[:, place].tolist()
        assert y.reshape(5, 4)[:, place].tolist() == ([0] * late + column)[:5]


@pytest.mark.parametrize("cuts", [(0, 5), (0, 1, 2, 5), (0, 0, 4, 4, 5)])
def test_cut_into_windows_changes_nothing(cuts: tuple[int, ...]) -> None:
    x = np.arange(1, 21, dtype=np.int16).reshape(1, 5, 2, 2)
    whole, (past,) = lowered().run([x], zeros(lowered()), CLOCK)
    state, parts = zeros(lowered()), []
    for lo, hi in pairwise(cuts):
        part, state = lowered().run([x[:, lo:hi]], state, CLOCK)
        parts.append(part)
    assert np.array_equal(np.concatenate(parts, axis=1), whole)
    assert np.array_equal(state[0], past)


def test_one_delay_per_channel_serves_its_values() -> None:
    assert lowered([1, 4]).steps.tolist() == [1, 1, 4, 4]
    assert Delay.uniform({"steps": [2, 2]}, {}) == 2
    assert Delay.uniform({"steps": [2, 3]}, {}) is None


def test_state_of_a_slice_is_as_long_as_that_of_the_whole() -> None:
    part = lowered().slice([VALUE], 0, 2)
    assert isinstance(part.stage, Delay)
    assert part.stage.steps.tolist() == [0, 1]
    assert part.stage.longest == 3


def test_silence_before_the_stream_is_in_the_range() -> None:
    stage = Delay(np.ones(4, np.int32), 1)
    assert stage.out_type([ValueType((4,), 2, 5)]) == ValueType((4,), 0, 5)


@pytest.mark.parametrize("steps", [-1, 1.5, None, "late", []])
def test_steps_are_whole_numbers_from_zero_on(steps: object) -> None:
    ((field, message),) = Delay.faults({"steps": steps}, {})
    assert field == "steps"
    assert "legal are whole numbers from 0 on" in message


def test_number_of_delays_must_fit() -> None:
    with pytest.raises(StageError, match=r"3 values: legal are 1, 2 .* or 4"):
        lowered([1, 2, 3])


def test_values_that_no_state_holds_are_refused() -> None:
    with pytest.raises(StageError, match="at most 32-bit integers"):
        lowered().out_type([ValueType((2, 2), 0, 2**40)])
