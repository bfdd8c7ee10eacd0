from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest

from topologies.compiled import CompiledNetwork, Program
from topologies.compiler import compile_network
from topologies.model import Layer, Network, Source
from topologies.profiles import (
    LIMITS,
    PROFILES,
    Profile,
    ProfileError,
    find_profile,
    misfits,
    needs_of,
    operator_needs,
)
from topologies.stages.base import ValueType
from topologies.stages.conv import Conv2d
from topologies.stages.linear import Linear
from topologies.stages.neuron import If

Make = Callable[..., Network]
MakeLayer = Callable[..., Layer]


def dense(weight: np.ndarray, high: int = 1) -> Program:
    stage = Linear(weight, np.zeros(len(weight), np.int64), 0, "float32")
    return Program((ValueType(weight.shape[1:], 0, high),), (stage, If()), ((-1,), (0,)))


@pytest.fixture
def network(make_network: Make, make_layer: MakeLayer) -> CompiledNetwork:
    """A recurrent layer of 4 neurons, whose own spikes come 3 steps late."""
    return compile_network(
        make_network(
            make_layer("w", "linear", "input", weight=np.eye(4)),
            make_layer("u", "linear", Source("n", 3), weight=np.eye(4) / 2),
            make_layer("sum", "add", "w", "u"),
            make_layer("n", "if", "sum"),
        )
    )


def test_needs_of_a_linear_layer_are_counted_per_neuron() -> None:
    needs = needs_of(dense(np.full((5, 7), 3, np.int8)))
    assert (needs.neurons, needs.synapses, needs.fan_in) == (5, 35, 7)
    assert (needs.state_bits, needs.payload_bits, needs.delay) == (24, 1, 0)


@pytest.mark.parametrize(("largest", "bits"), [(0, 1), (1, 2), (-127, 8), (127, 8), (-128, 9)])
def test_weight_bits_are_those_of_the_largest_and_a_sign(largest: int, bits: int) -> None:
    assert needs_of(dense(np.array([[0, largest]], np.int16))).weight_bits == bits


def test_fan_in_of_a_convolution_is_its_kernel() -> None:
    stage = Conv2d(np.ones((2, 3, 3, 3), np.int8), np.zeros(2, np.int64), 0, "float32")
    program = Program((ValueType((3, 5, 5), 0, 1),), (stage, If()), ((-1,), (0,)))
    assert needs_of(program).fan_in == 27


def test_branches_of_one_neuron_add_up_and_delays_count(network: CompiledNetwork) -> None:
    (operator,) = [o for o, s in network.summaries.items() if s.kind == "synaptic"]
    (needs,) = operator_needs(network, operator)
    assert (needs.fan_in, needs.delay) == (8, 3)


@pytest.mark.parametrize("limit", LIMITS)
def test_one_less_of_anything_does_not_fit(network: CompiledNetwork, limit: str) -> None:
    (operator,) = [o for o, s in network.summaries.items() if s.kind == "synaptic"]
    (needs,) = operator_needs(network, operator)
    just = Profile("just", **{name: getattr(needs, name) for name in LIMITS})
    assert misfits(network, just) == ()
    less = replace(just, **{limit: getattr(needs, limit) - 1})
    (found,) = misfits(network, less)
    assert (found.limit, found.most) == (limit, getattr(less, limit))


def test_presets_have_a_source_and_their_own_name() -> None:
    assert all(profile.name == name and profile.source for name, profile in PROFILES.items())
    assert find_profile("cpu").exceeded(needs_of(dense(np.ones((3, 3), np.int8)))) == ()


def test_unknown_profile_is_refused_with_the_legal_ones() -> None:
    with pytest.raises(ProfileError, match="cpu, darwin3-core, loihi2-core, spinnaker1-core"):
        find_profile("abacus")


def test_integer_neurons_count_with_the_bits_that_they_hold(
    make_network: Make, make_layer: MakeLayer
) -> None:
    compiled = compile_network(
        make_network(
            make_layer("w", "linear", "input", weight=np.eye(4)),
            make_layer("n", "cubalif_int", "w"),
        ),
        bits=8,
    )
    assert misfits(compiled, find_profile("loihi2-core")) == ()
