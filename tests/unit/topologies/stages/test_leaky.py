from typing import Any

import numpy as np
import pytest

from topologies.stages.base import Array, Clock, StageError, ValueType
from topologies.stages.leaky import Leaky

VALUE = ValueType((2,), -64, 64, 4)
X = np.array([[[16, 32], [0, -16], [8, 0]]])


def run(readout: Leaky, x: Array = X, end: bool = True) -> Any:
    state = np.zeros((len(x), 2, 2), np.float32)
    clock = Clock(np.zeros(len(x), np.int64), np.full(len(x), end))
    return readout.reading(VALUE).run([x], (state,), clock)


def test_membrane_is_emitted_at_the_end() -> None:
    emitted, _ = run(Leaky(decay=0.5, gain=2.0))
    # 2, 1, 0.5 + 1; 4, 2 - 2, 0
    assert emitted[0].tolist() == [[1.5, 0.0]]


def test_mean_is_that_of_the_membranes_of_all_steps() -> None:
    emitted, _ = run(Leaky(decay=0.5, gain=2.0, emit="mean"))
    assert emitted[0].tolist() == [[1.5, np.float32(4.0) / np.float32(3.0)]]


def test_period_starts_anew_after_each_result() -> None:
    emitted, _ = run(Leaky(decay=0.5, gain=2.0, every=1))
    assert emitted[0].tolist() == [[2.0, 4.0], [0.0, -2.0], [1.0, 0.0]]


def test_gain_is_one_less_the_decay_in_float32() -> None:
    stage = Leaky.authored({"decay": 0.9})
    assert stage.gain == float(np.float32(1) - np.float32(0.9))
    assert Leaky.authored({"decay": 0.9, "gain": 0.5}).gain == 0.5


def test_each_output_may_have_its_decay() -> None:
    stage = Leaky.authored({"decay": [0.5, 0.25], "gain": 1.0})
    assert run(stage)[0][0].tolist() == [[0.25 + 0.5, (2 * 0.25 - 1) * 0.25]]
    with pytest.raises(StageError, match="must have 2 values"):
        Leaky.authored({"decay": [0.5, 0.25, 0.1]}).reading(VALUE).out_type([VALUE])


def test_cut_into_windows_changes_no_bit() -> None:
    readout = Leaky(decay=0.9, gain=0.3, emit="mean", every=4).reading(VALUE)
    x = np.random.default_rng(0).integers(-64, 64, (1, 11, 2))
    whole, _ = run(readout, x)
    state: tuple[Array, ...] = (np.zeros((1, 2, 2), np.float32),)
    parts = []
    for lo, hi in ((0, 3), (3, 9), (9, 11)):
        clock = Clock(np.array([lo]), np.array([hi == 11]))
        emitted, state = readout.run([x[:, lo:hi]], state, clock)
        parts.append(emitted[0])
    assert np.concatenate(parts).tobytes() == whole[0].tobytes()
    assert len(whole[0]) == 3


def test_stage_survives_writing_and_reading() -> None:
    stage = Leaky.authored({"decay": [0.5, 0.1], "every": 3, "emit": "mean"}).reading(VALUE)
    again = Leaky.build(stage.params(), stage.arrays())
    assert again.params() == stage.params()
    assert again.arrays().keys() == {"decay", "gain"}


@pytest.mark.parametrize(
    ("params", "sentence"),
    [
        ({}, "decay is None"),
        ({"decay": 1.5}, "decay is 1.5: it must lie in 0 to 1"),
        ({"decay": 0.5, "emit": "first"}, "emit is 'first'"),
        ({"decay": 0.5, "tau": 2}, "no parameter tau"),
    ],
)
def test_illegal_parameters_are_refused(params: dict[str, Any], sentence: str) -> None:
    with pytest.raises(StageError, match=sentence):
        Leaky.authored(params)
