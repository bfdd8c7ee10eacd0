from itertools import pairwise

import numpy as np
import pytest

from topologies.program import Program
from topologies.stages.add import Add
from topologies.stages.base import Array, Clock, StageError, ValueType
from topologies.stages.loop import Loop
from topologies.stages.neuron import If

VALUE = ValueType((1, 2), 0, 1)


def make(*delays: int) -> Loop:
    """Neurons that add their input to what they sent `delays` steps ago."""
    ports = (VALUE,) * (1 + len(delays))
    reads = (tuple(-1 - i for i in range(len(ports))), (0,))
    stages = (Add.lowered({}, {}, ports), If(v_threshold=1.0, v_reset=0.0))
    return Loop(Program(ports, stages, reads), tuple(enumerate(delays, 1)))


def zeros(loop: Loop, n: int = 1) -> tuple[Array, ...]:
    return tuple(np.zeros((n, *shape), dtype) for _, shape, dtype in loop.state_spec([VALUE]))


def run(loop: Loop, x: Array, state: tuple[Array, ...], start: int = 0) -> tuple[Array, ...]:
    clock = Clock(np.full(len(x), start), np.zeros(len(x), np.bool_))
    y, after = loop.run([x], state, clock)
    return (y, *after)


def once(n_steps: int) -> Array:
    """A spike in the first step."""
    x = np.zeros((1, n_steps, 1, 2), np.uint8)
    x[0, 0, 0, 1] = 1
    return x


@pytest.mark.parametrize(
    ("delays", "steps"), [((1,), [1, 1, 1, 1, 1]), ((2,), [1, 0, 1, 0, 1]), ((3,), [1, 0, 0, 1, 0])]
)
def test_spike_comes_back_after_the_delay(delays: tuple[int, ...], steps: list[int]) -> None:
    loop = make(*delays)
    y, *_ = run(loop, once(5), zeros(loop))
    assert y[0, :, 0, 1].tolist() == steps
    assert not y[0, :, 0, 0].any()


def test_several_delays_are_added() -> None:
    loop = make(2, 3)
    y, *_ = run(loop, once(7), zeros(loop))
    assert y[0, :, 0, 1].tolist() == [1, 0, 1, 1, 1, 1, 1]


@pytest.mark.parametrize("cuts", [(0, 1, 2, 9), (0, 0, 4, 4, 9), (0, 7, 9)])
def test_cut_into_windows_changes_no_bit(cuts: tuple[int, ...]) -> None:
    loop = make(2, 3)
    x = (np.random.default_rng(0).random((2, 9, 1, 2)) < 0.2).astype(np.uint8)
    whole, *final = run(loop, x, zeros(loop, 2))
    state, parts = zeros(loop, 2), []
    for lo, hi in pairwise(cuts):
        part, *after = run(loop, x[:, lo:hi], state, lo)
        state = tuple(after)
        parts.append(part)
    assert np.concatenate(parts, axis=1).tobytes() == whole.tobytes()
    assert [a.tobytes() for a in state] == [a.tobytes() for a in final]


def test_stage_survives_writing_and_reading() -> None:
    loop = make(2)
    again = Loop.build(loop.params(), loop.arrays())
    assert again.params() == loop.params()
    assert again.out_type([VALUE]) == VALUE
    assert again.state_spec([VALUE])[-1] == ("past", (2, 2), "uint8")
    assert again.cost([VALUE]).state_bytes == 2 * 4 + 4


def test_loop_is_not_cut() -> None:
    assert make(1).granule([VALUE]) is None


def test_loop_without_a_delay_or_with_other_inputs_is_refused() -> None:
    with pytest.raises(StageError, match="1 step late or later"):
        make(0)
    with pytest.raises(StageError, match="This loop of"):
        make(1).out_type([VALUE, VALUE])
