from fractions import Fraction
from typing import Any

import numpy as np
import pytest

from topologies.stages.base import Clock, StageError, ValueType
from topologies.stages.requantise import Requantise

CLOCK = Clock(np.zeros(1, np.int64), np.zeros(1, np.bool_))


def lowered(low: int, high: int, from_unit: int, **params: Any) -> Requantise:
    return Requantise.lowered(params, {}, [ValueType((1,), low, high, from_unit)])


@pytest.mark.parametrize(("unit", "from_unit"), [(2, 5), (5, 2), (3, 3), (0, 1), (-1, 2)])
def test_values_are_rounded_half_to_even(unit: int, from_unit: int) -> None:
    x = np.arange(-100, 101)
    stage = lowered(-100, 100, from_unit, unit=unit)
    y, _ = stage.run([x.reshape(1, -1, 1)], (), CLOCK)
    exact = [round(Fraction(int(k)) * Fraction(2) ** (unit - from_unit)) for k in x]
    assert y[0, :, 0].tolist() == exact


def test_range_is_the_proven_one_where_that_is_smaller() -> None:
    stage = lowered(-13, 5, 3, unit=1)
    assert (stage.low, stage.high) == (-3, 1)
    assert stage.out_type([ValueType((1,), -13, 5, 3)]) == ValueType((1,), -3, 1, 1)


def test_bound_beyond_the_bits_is_refused_unless_saturation_is_declared() -> None:
    with pytest.raises(StageError, match=r"may reach 200 .* beyond the 127 .* saturate: true"):
        lowered(-200, 10, 0, unit=0, bits=8)
    stage = lowered(-200, 10, 0, unit=0, bits=8, saturate=True)
    assert (stage.low, stage.high) == (-127, 10)


def test_saturated_values_are_cut_off_and_counted() -> None:
    stage = lowered(-200, 300, 0, unit=0, bits=8, saturate=True)
    x = np.array([[[-200], [-127], [5], [128], [300]]])
    assert stage.run([x], (), CLOCK)[0][0, :, 0].tolist() == [-127, -127, 5, 127, 127]
    assert stage.n_saturated(x) == 3


def test_negative_values_that_round_to_zero_are_not_negative_zeros() -> None:
    y, _ = lowered(-1, 1, 5, unit=0).run([np.array([[[-1]]])], (), CLOCK)
    assert not np.signbit(y).any()


@pytest.mark.parametrize("params", [{"bits": 1}, {"bits": 33}, {"unit": 40}, {"unit": 1.5}])
def test_illegal_parameters_are_refused(params: dict[str, Any]) -> None:
    with pytest.raises(StageError, match="legal are units from -32 to 32, and 2 to 32 bits"):
        Requantise.authored(params)


def test_stage_survives_writing_and_reading() -> None:
    stage = lowered(-200, 10, 2, unit=0, bits=4, saturate=True)
    assert vars(Requantise.build(stage.params(), {})) == vars(stage)
    with pytest.raises(StageError, match=r"reads units of 2\*\*-2 is given 2\*\*-3"):
        stage.out_type([ValueType((1,), -200, 10, 3)])
