"""What neurons of every kind have in common: constants, and how they are written, read and cut."""

from typing import Any

import numpy as np
import pytest

from topologies.stages.alif import Alif
from topologies.stages.base import Clock, StageError, ValueType
from topologies.stages.cubalif import CubaLif
from topologies.stages.dynamics import Neuron
from topologies.stages.neuron import If, Lif
from topologies.stages.plif import Plif

VALUE = ValueType((2, 3), -64, 64, 4)
SIX = np.linspace(0.2, 0.9, 6)
NEURONS: list[Neuron] = [
    If(v_threshold=SIX),
    Lif(form="plain", leak=SIX, v_reset=-SIX),
    Plif(tau_inv=SIX, v_threshold=0.3),
    CubaLif(form="plain", leak=0.5, leak_syn=SIX, v_leak=0.1),
    Alif(form="yin", decay=SIX, rho=0.9, beta=SIX, v_threshold=0.2),
    Alif(form="lsnn", decay=SIX, rho=0.9, beta=SIX, v_threshold=0.2, refractory=3),
]


def run(neuron: Neuron, x: Any) -> Any:
    n = int(np.prod(x.shape[2:]))
    value = ValueType(x.shape[2:], -64, 64, 4)
    state = tuple(np.zeros((1, n), dtype) for _, _, dtype in neuron.state_spec([value]))
    clock = Clock(np.zeros(1, np.int64), np.zeros(1, np.bool_))
    return neuron.run([x], tuple(a.reshape(1, *x.shape[2:]) for a in state), clock)


@pytest.mark.parametrize("neuron", NEURONS)
def test_neurons_with_constants_of_their_own_are_many_of_one(neuron: Neuron) -> None:
    read = neuron.reading(VALUE)
    x = np.random.default_rng(1).integers(-20, 40, (1, 25, 2, 3))
    spikes, states = run(read, x)
    for p in range(6):
        alone = read.slice([VALUE], p, p + 1).stage
        assert isinstance(alone, Neuron)
        one, after = run(alone, x.reshape(1, 25, 6)[:, :, p : p + 1])
        assert np.array_equal(one[0, :, 0], spikes.reshape(25, 6)[:, p])
        for mine, whole in zip(after, states, strict=True):
            assert mine.tobytes() == whole.reshape(6)[p : p + 1].tobytes()


@pytest.mark.parametrize("neuron", NEURONS)
def test_constants_survive_writing_and_reading(neuron: Neuron) -> None:
    read = neuron.reading(VALUE)
    again = type(read).build(read.params(), read.arrays())
    assert again.params() == read.params()
    assert {n: a.tobytes() for n, a in again.arrays().items()} == {
        n: a.tobytes() for n, a in read.arrays().items()
    }
    assert all(array.dtype == np.float32 for array in read.arrays().values())


def test_one_constant_per_channel_serves_its_neurons() -> None:
    read = If.authored({"v_threshold": [1.0, 2.0]}).reading(VALUE)
    assert read.arrays()["v_threshold"].tolist() == [1, 1, 1, 2, 2, 2]
    assert not read.is_uniform
    assert If().is_uniform


def test_array_of_the_weights_file_is_a_constant() -> None:
    read = Lif.authored({"form": "plain"}, {"decay": SIX}).reading(VALUE)
    assert np.array_equal(read.arrays()["leak"], SIX.astype(np.float32))


def test_wrong_number_of_constants_is_refused() -> None:
    with pytest.raises(StageError, match=r"4 values: legal are one, 2 .* or 6"):
        If(v_threshold=np.ones(4)).reading(VALUE)


def test_alif_without_a_refractory_period_is_written_as_before_there_was_one() -> None:
    plain = Alif.authored({"decay": 0.5, "rho": 0.5, "beta": 1.0})
    constants = ("v_threshold", "decay", "rho", "beta", "r")
    assert sorted(plain.params()) == sorted((*constants, "fire", "form", "unit"))
    assert [name for name, _, _ in plain.state_spec([VALUE])] == ["v", "a", "z"]


@pytest.mark.parametrize("refractory", [0, 1, 3])
def test_neuron_under_a_constant_current_is_silent_for_its_refractory_period(
    refractory: int,
) -> None:
    params = {"decay": 1.0, "rho": 0.0, "beta": 0.0, "refractory": refractory}
    spikes, _ = run(Alif.authored(params).reading(VALUE), np.full((1, 13, 1), 64))
    at = np.flatnonzero(spikes[0, 1:, 0]) + 1
    assert set(np.diff(at)) == {refractory + 1}


def test_state_bytes_are_those_of_all_states() -> None:
    yin = Alif.authored({"form": "yin", "decay": 0.5, "rho": 0.5, "beta": 1.0}).reading(VALUE)
    assert yin.cost([VALUE]).state_bytes == 6 * (4 + 4 + 1)
    assert yin.cost([VALUE]).n_neurons == 6


@pytest.mark.parametrize(
    ("cls", "params", "sentence"),
    [
        (Plif, {}, "tau_inv is None"),
        (Plif, {"tau_inv": 1.5}, "tau_inv is 1.5: it must lie in 0 to 1"),
        (Plif, {"tau_inv": 0.5, "tau": 2}, "plif has no parameter tau"),
        (If, {"v_threshold": [1.0, -1.0]}, r"v_threshold is -1.0 to 1.0: it must be above 0"),
        (If, {"v_threshold": [1.0, "2"]}, r"\[1.0, '2'\]: it must be a number"),
        (CubaLif, {"form": "nest"}, "form is 'nest': it must be one of plain, norse, snntorch"),
        (CubaLif, {"decay": 0.5}, "decay_syn is None"),
        (CubaLif, {"decay": 0.5, "decay_syn": 2}, "decay_syn is 2.0: it must lie in 0 to 1"),
        (CubaLif, {"form": "snntorch", "alpha": 1, "beta": 1, "fire": ">="}, "compares with '>'"),
        (CubaLif, {"form": "norse", "w_in": 2.0}, "no parameter w_in"),
        (Alif, {"decay": 0.5, "rho": 0.5}, "beta is None"),
        (Alif, {"form": "adex", "decay": 1, "rho": 1, "beta": 1}, "one of lsnn, yin"),
        (Alif, {"decay": 0.5, "rho": -0.5, "beta": 1}, "rho is -0.5: it must lie in 0 to 1"),
        (Alif, {"decay": 0.5, "rho": 0.5, "beta": 1, "r": 2}, "r is a parameter of the form yin"),
        (Alif, {"decay": 1, "rho": 1, "beta": 1, "refractory": -1}, "number of steps, 0 to 65535"),
        (Alif, {"decay": 1, "rho": 1, "beta": 1, "refractory": 2.0}, "refractory is 2.0: it must"),
        (
            Alif,
            {"form": "yin", "decay": 1, "rho": 1, "beta": 1, "refractory": 2},
            "refractory is a parameter of the form lsnn",
        ),
    ],
)
def test_illegal_parameters_are_refused_with_a_sentence(
    cls: type[Neuron], params: dict[str, Any], sentence: str
) -> None:
    with pytest.raises(StageError, match=sentence):
        cls.authored(params)
