from typing import Any

import numpy as np
import pytest

from topologies.compiled import Group, Operator, Program
from topologies.stages.base import Array, Clock, StageError, ValueType, to_current
from topologies.stages.integrator import Integrator
from workers.conformance import check
from workers.kernel import ReferenceKernel, load_kernel

f32 = np.float32
PORT = ValueType((3,), -1500, 1500, 6)


def lowered(**params: Any) -> Integrator:
    return Integrator.lowered(params, {}, [PORT])


def run(stage: Integrator, sums: Array, windows: tuple[int, ...]) -> Array:
    state: tuple[Array, ...] = (np.zeros((1, 3), np.float32), np.zeros((1, 3), np.float32))
    parts, start = [], 0
    for length in windows:
        clock = Clock(np.array([start]), np.zeros(1, np.bool_))
        sent, state = stage.run([sums[None, start : start + length]], state, clock)
        parts.append(sent[0])
        start += length
    return np.concatenate(parts)


@pytest.mark.parametrize("decay_syn", [0.0, 0.5])
def test_membranes_are_those_of_the_recurrence_rounded_to_the_grid(decay_syn: float) -> None:
    constants = {"decay": 0.9, "r": 0.7, "w_in": 1.3, "v_leak": 0.1}
    sums = np.rint(np.random.default_rng(3).normal(0, 60, (50, 3))).astype(np.int64)
    sent = run(lowered(**constants, decay_syn=decay_syn, unit=10), sums, (50,))
    decay, r, w_in, v_leak = (f32(x) for x in constants.values())
    for k in range(3):
        v, j = v_leak, f32(0)
        for t, x in enumerate(to_current(sums[:, k], 6)):
            j = f32(decay_syn) * j + w_in * x
            v = v_leak + (decay * (v - v_leak) + r * j)
            assert sent[t, k] == round(float(v) * 1024)


def test_cut_into_windows_changes_no_bit() -> None:
    sums = np.rint(np.random.default_rng(4).normal(0, 60, (40, 3))).astype(np.int64)
    stage = lowered(decay=0.93, v_leak=0.2, decay_syn=0.4)
    assert np.array_equal(run(stage, sums, (40,)), run(stage, sums, (1, 7, 32)))


def test_membranes_beyond_the_bits_are_cut_off() -> None:
    sums = np.array([[1500, -1500, 64]])
    assert run(lowered(bits=5, unit=0), sums, (1,)).tolist() == [[15, -15, 1]]
    assert lowered(bits=5, unit=0).out_type([PORT]) == ValueType((3,), -15, 15, 0)


def test_negative_membranes_that_round_to_zero_are_not_negative_zeros() -> None:
    sent = run(lowered(unit=0), np.array([[-1, -1, -1]]), (1,))
    assert not np.signbit(sent).any()


@pytest.mark.parametrize("backend", ["numpy", "numba"])
def test_backends_step_as_the_reference_does(backend: str) -> None:
    stage = lowered(decay=[0.5, 0.9, 1.0], decay_syn=0.3, v_leak=0.1)
    operator = Operator.of(Program((PORT,), (stage,), ((-1,),)))
    group = Group(0, 0, operator.output.n)
    check(load_kernel(operator, group, backend), ReferenceKernel(operator, group), 20)


@pytest.mark.parametrize(
    ("params", "sentence"),
    [
        ({"decay": 1.1}, "decay is 1.1.*0 to 1"),
        ({"bits": 33}, "legal are units from -32 to 32, and 2 to 32 bits"),
        ({"tau": 2.0}, "integrator has no parameter tau"),
        ({"decay": [0.5, 0.2]}, "decay has 2 values"),
    ],
)
def test_illegal_parameters_are_refused(params: dict[str, Any], sentence: str) -> None:
    with pytest.raises(StageError, match=sentence):
        lowered(**params)


def test_stage_survives_writing_and_reading() -> None:
    stage = lowered(decay=[0.5, 0.25, 1.0], v_leak=0.3, unit=9, bits=20)
    again = Integrator.build(stage.params(), stage.arrays())
    assert again.params() == stage.params()
    assert np.array_equal(again.arrays()["decay"], np.array([0.5, 0.25, 1.0]))
