import math
from typing import Any

import numpy as np
import pytest

from topologies.compiled import Group, Operator, Program
from topologies.stages.base import Array, Clock, StageError, ValueType, to_current
from topologies.stages.linear import Linear
from topologies.stages.multispike import MultiSpike
from workers.conformance import check
from workers.kernel import ReferenceKernel, load_kernel

CLOCK = Clock(np.zeros(1, np.int64), np.zeros(1, np.bool_))
f32 = np.float32


def port(n: int, unit: int = 6) -> ValueType:
    return ValueType((n,), -1500, 1500, unit)


def neurons(n: int = 3, **params: Any) -> MultiSpike:
    return MultiSpike.authored({"max_spikes": 4, **params}).reading(port(n))


def run(stage: MultiSpike, sums: Array) -> Array:
    n = sums.shape[-1]
    state = (np.zeros((1, n), np.float32), np.zeros((1, n), np.float32))
    spikes: Array = stage.run([sums[None]], state, CLOCK)[0][0]
    return spikes


def test_membrane_of_several_thresholds_emits_as_many_spikes_and_loses_as_many() -> None:
    sums = np.array([[64 * 3 + 32, -64, 63], [32, 0, 1], [0, 0, 0]])
    assert run(neurons(), sums).tolist() == [[3, 0, 0], [1, 0, 1], [0, 0, 0]]


def test_no_more_spikes_than_declared_leave_and_the_rest_stays() -> None:
    sums = np.array([[64 * 6, 0, 0], [0, 0, 0]])
    assert run(neurons(), sums)[:, 0].tolist() == [4, 2]


@pytest.mark.parametrize("decay_syn", [0.0, 0.5])
def test_spikes_and_membranes_are_those_of_the_recurrence(decay_syn: float) -> None:
    constants: dict[str, Any] = {
        "decay": 0.9,
        "r": 0.7,
        "w_in": 1.3,
        "v_leak": 0.1,
        "v_threshold": 0.37,
    }
    rng = np.random.default_rng(3)
    sums = np.rint(rng.normal(20, 60, (200, 3))).astype(np.int64)
    spikes = run(neurons(**constants, decay_syn=decay_syn), sums)
    decay, r, w_in, v_leak, th = (f32(x) for x in constants.values())
    for k in range(3):
        v, i = f32(0), f32(0)
        for t, x in enumerate(to_current(sums[:, k], 6)):
            i = f32(decay_syn) * i + w_in * x
            h = v_leak + (decay * (v - v_leak) + r * i)
            n = min(max(math.floor(h / th), 0), 4)
            v = h - f32(n) * th
            assert spikes[t, k] == n
    assert set(np.unique(spikes)) == {0, 1, 2, 3, 4}


@pytest.mark.parametrize("backend", ["numpy", "numba"])
def test_backends_step_as_the_reference_does(backend: str) -> None:
    rng = np.random.default_rng(5)
    weight = rng.integers(-90, 90, (6, 5)).astype(np.int16)
    stages = [MultiSpike.authored({"max_spikes": 4, "decay": 0.9, "decay_syn": 0.3})]
    source = ValueType((5,), 0, 4, 0)
    linear = Linear(weight, np.zeros(6, np.int64), 6, "float32").fitted([source])
    first = stages[0].reading(linear.out_type([source]))
    operator = Operator.of(Program((source,), (linear, first), ((-1,), (0,))))
    group = Group(0, 0, operator.output.n)
    check(load_kernel(operator, group, backend), ReferenceKernel(operator, group), 20)


@pytest.mark.parametrize("most", [0, 256, 1.5, None])
def test_illegal_numbers_of_spikes_are_refused(most: Any) -> None:
    with pytest.raises(StageError, match=r"max_spikes is .*: it must be a whole number, 1 to 255"):
        MultiSpike.authored({"max_spikes": most})


def test_stage_survives_writing_and_reading() -> None:
    stage = neurons(2, decay=[0.5, 0.25], v_threshold=0.3)
    again = MultiSpike.build(stage.params(), stage.arrays())
    assert again.params() == stage.params()
    assert np.array_equal(np.asarray(again.decay), np.array([0.5, 0.25]))
    assert stage.out_type([port(2)]) == ValueType((2,), 0, 4)
