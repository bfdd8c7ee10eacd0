"""Closed forms, parameters and shapes of IF and LIF neurons."""

from typing import Any

import numpy as np
import pytest

from topologies.stages.base import Array, Clock, StageError, ValueType
from topologies.stages.neuron import If, Lif, Neuron

UNIT = 4
VALUE = ValueType((2, 3), -64, 64, UNIT)


def run(neuron: Neuron, sums: Array, *, start: int = 0, v: Array | None = None) -> Any:
    """(spikes, v) of sums (T,) in sixteenths into one neuron of one stream."""
    x = np.asarray(sums, np.float32).reshape(1, -1, 1)
    state = np.zeros((1, 1), np.float32) if v is None else v
    clock = Clock(np.array([start]), np.array([False]))
    spikes, (after,) = neuron.reading(VALUE).run([x], (state,), clock)
    return spikes[0, :, 0].tolist(), float(after[0, 0])


def test_if_fires_at_every_fourth_quarter_when_it_may_reach_the_threshold() -> None:
    spikes, v = run(If(fire=">="), np.full(12, 4))
    assert spikes == [0, 0, 0, 1] * 3
    assert v == 0.0


def test_if_that_must_exceed_the_threshold_fires_a_step_later() -> None:
    spikes, v = run(If(fire=">", v_reset=0.0), np.full(12, 4))
    assert spikes == [0, 0, 0, 0, 1] * 2 + [0, 0]
    assert v == 0.5


def test_soft_reset_keeps_what_is_above_the_threshold() -> None:
    assert run(If(), np.array([24])) == ([1], 0.5)


def test_hard_reset_loses_what_is_above_the_threshold() -> None:
    assert run(If(v_reset=0.25), np.array([24])) == ([1], 0.25)


def test_lif_halves_its_membrane_in_each_silent_step() -> None:
    neuron = Lif(form="plain", leak=0.5)
    assert run(neuron, np.array([12, 0, 0])) == ([0, 0, 0], 0.1875)


def test_lif_below_its_rheobase_never_fires() -> None:
    neuron = Lif(form="plain", leak=0.5, fire=">")
    spikes, v = run(neuron, np.full(200, 8))  # tends to 0.5 / (1 - 0.5), the threshold
    assert sum(spikes) == 0
    assert v == 1.0


def test_decayed_input_is_divided_by_tau() -> None:
    neuron = Lif(form="spikingjelly", leak=4.0, decay_input=True)
    assert run(neuron, np.array([16])) == ([0], 0.25)


def test_input_that_does_not_decay_counts_in_full() -> None:
    neuron = Lif(form="spikingjelly", leak=4.0)
    assert run(neuron, np.array([8])) == ([0], 0.5)


def test_delayed_reset_comes_with_the_next_step() -> None:
    delayed = Lif(form="snntorch", leak=0.5, fire=">", reset_delayed=True)
    assert run(delayed, np.array([24])) == ([1], 1.5)
    assert run(delayed, np.array([24, 0])) == ([1, 0], -0.25)
    prompt = Lif(form="snntorch", leak=0.5, fire=">")
    assert run(prompt, np.array([24])) == ([1], 0.5)


def test_membranes_start_at_the_reset_value_in_step_0_only() -> None:
    neuron = Lif(form="spikingjelly", leak=2.0, v_reset=-0.5)
    assert run(neuron, np.array([0])) == ([0], -0.5)
    assert run(neuron, np.array([0]), start=1) == ([0], -0.25)


def test_norse_starts_at_its_leak() -> None:
    neuron = Lif(form="norse", leak=0.5, v_leak=0.25, fire=">")
    assert run(neuron, np.array([0])) == ([0], 0.25)


def test_window_without_steps_keeps_the_state_and_emits_nothing() -> None:
    assert run(If(), np.array([]), start=3, v=np.full((1, 1), 0.75, np.float32)) == ([], 0.75)


def test_cut_into_windows_changes_no_bit() -> None:
    rng = np.random.default_rng(0)
    sums = rng.integers(-64, 64, (3, 30, 2, 3)).astype(np.float32)
    neuron = Lif(form="spikingjelly", leak=1.7, v_reset=-0.1, v_threshold=0.9).reading(VALUE)
    zeros = np.zeros((3, 2, 3), np.float32)
    never = np.zeros(3, np.bool_)
    whole, (v,) = neuron.run([sums], (zeros,), Clock(np.zeros(3, np.int64), never))
    parts: list[Array] = []
    state: tuple[Array, ...] = (zeros,)
    for lo, hi in ((0, 7), (7, 8), (8, 30)):
        part, state = neuron.run([sums[:, lo:hi]], state, Clock(np.full(3, lo), never))
        parts.append(part)
    assert np.array_equal(np.concatenate(parts, axis=1), whole)
    assert state[0].tobytes() == v.tobytes()
    assert 0 < whole.mean() < 1


def test_state_and_inputs_are_not_written_to() -> None:
    sums = np.full((1, 4, 1), 20, np.float32)
    state = np.full((1, 1), 0.5, np.float32)
    clock = Clock(np.zeros(1, np.int64), np.zeros(1, np.bool_))
    If().reading(VALUE).run([sums], (state,), clock)
    assert state[0, 0] == 0.5
    assert (sums == 20).all()


@pytest.mark.parametrize(
    "neuron",
    [
        If(v_threshold=0.1, v_reset=-0.2, fire=">", unit=7),
        If(),
        Lif(form="norse", leak=0.1, v_leak=0.3, fire=">", v_reset=0.2),
        Lif(form="snntorch", leak=0.9, fire=">", reset_delayed=True),
        Lif(form="spikingjelly", leak=1.1, decay_input=True, unit=20),
    ],
)
def test_parameters_survive_writing_and_reading(neuron: Neuron) -> None:
    again = type(neuron).build(neuron.params(), neuron.arrays())
    assert vars(again) == vars(neuron)
    assert all(value is None or not isinstance(value, float) for value in neuron.params().values())


def test_parameters_are_rounded_to_float32() -> None:
    neuron = Lif.authored({"form": "plain", "decay": 0.9, "v_threshold": 0.1})
    assert neuron.leak == float(np.float32(0.9))
    assert neuron.v_threshold == float(np.float32(0.1))


def test_leak_of_norse_is_a_product_of_float32_numbers() -> None:
    neuron = Lif.authored({"form": "norse", "dt": 0.001, "tau_mem_inv": 100.0})
    assert neuron.leak == float(np.float32(0.001) * np.float32(100.0))


def test_defaults_are_those_of_the_library_that_the_form_names() -> None:
    spikingjelly = Lif.authored({"tau": 2.0})
    assert (spikingjelly.form, spikingjelly.fire) == ("spikingjelly", ">=")
    assert spikingjelly.decay_input
    snntorch = Lif.authored({"form": "snntorch", "beta": 0.5})
    assert (snntorch.fire, snntorch.reset_delayed) == (">", True)


@pytest.mark.parametrize(
    ("params", "sentence"),
    [
        ({"form": "brian"}, "form is 'brian': it must be one of spikingjelly, snntorch"),
        ({"tau": 1.0}, "tau is 1.0: it must be above 1"),
        ({"tau": "2"}, "tau is '2': it must be a number"),
        ({}, "tau is None: it must be a number"),
        ({"tau": 2.0, "beta": 0.5}, "has no parameter beta"),
        ({"tau": 2.0, "v_threshold": 0}, "v_threshold is 0.0: it must be above 0"),
        ({"tau": 2.0, "v_reset": float("nan")}, "v_reset is nan: it must be a finite number"),
        ({"tau": 2.0, "fire": "=="}, "fire is '==': it must be '>=' or '>'"),
        ({"tau": 2.0, "decay_input": 1}, "decay_input is 1: it must be true or false"),
        ({"form": "plain", "decay": 1.5}, "decay is 1.5: it must lie in 0 to 1"),
        ({"form": "snntorch", "beta": 0.5, "fire": ">="}, "fire must be '>'"),
        ({"form": "snntorch", "beta": 0.5, "v_reset": 0.1}, "v_reset is 0.1"),
        ({"form": "plain", "decay": 0.5, "reset_delayed": True}, "no parameter reset_delayed"),
    ],
)
def test_illegal_parameters_are_refused_with_a_sentence(
    params: dict[str, Any], sentence: str
) -> None:
    with pytest.raises(StageError) as refused:
        Lif.authored(params)
    assert sentence in str(refused.value)


def test_output_is_spikes_of_the_same_shape() -> None:
    neuron = If().reading(VALUE)
    assert neuron.out_type([VALUE]) == ValueType((2, 3), 0, 1)
    assert neuron.cost([VALUE]).n_neurons == 6
    assert neuron.cost([VALUE]).state_bytes == 24
    assert neuron.state_spec([VALUE]) == (("v", (2, 3), "float32"),)


def test_neuron_refuses_another_unit_and_several_inputs() -> None:
    with pytest.raises(StageError, match=r"reads units of 2\*\*-0 is given 2\*\*-4"):
        If().out_type([VALUE])
    with pytest.raises(StageError, match="reads one input, not 2"):
        If().out_type([VALUE, VALUE])


def test_any_slice_is_the_same_neuron() -> None:
    neuron = If().reading(VALUE)
    assert neuron.granule([VALUE]) == 1
    part = neuron.slice([VALUE], 1, 4)
    assert part.stage is neuron
    assert part.reads == ((1, 4),)
