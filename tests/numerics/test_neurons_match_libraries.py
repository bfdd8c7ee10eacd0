"""Neurons give the bits of SpikingJelly 2.0.0, snnTorch 1.0.0 and Norse 1.1.0, step by step.

Currents are what synapses give: integers in units of 2**-10, with silent stretches long enough for
membranes to become subnormal.
"""

from collections.abc import Callable
from importlib.metadata import version
from typing import Any

import numpy as np
import pytest

from topologies.compiled import Operator, Program
from topologies.stages.base import Array, ValueType, to_current
from topologies.stages.neuron import If, Lif, OneMembrane
from workers.conformance import check
from workers.kernel import ReferenceKernel, load_kernel

pytestmark = pytest.mark.torch

N_STREAMS, N_STEPS, N, UNIT = 3, 300, 65, 10
Step = Callable[[Any], tuple[Any, Any]]


@pytest.fixture(scope="module")
def currents() -> Array:
    """Float32 (T, B, n): noise of several strengths, then 170 silent steps, then noise again."""
    rng = np.random.default_rng(4)
    strength = np.linspace(10, 4000, N)
    sums = np.rint(rng.normal(0.2, 1, (N_STEPS, N_STREAMS, N)) * strength)
    sums[90:260] = 0
    sums[:, 2] = 0
    sums[0, 2] = -900
    return to_current(sums, UNIT)


def assert_same_bits(neuron: OneMembrane, step: Step, currents: Array) -> None:
    """Every spike and every membrane, by their bits; `step` is the library's."""
    import torch

    v = np.full(currents.shape[1:], neuron.initial, np.float32)
    n_spikes = 0
    for t, current in enumerate(currents):
        spikes, v = neuron.step(v, current)
        wanted, membrane = step(torch.from_numpy(current.copy()))
        assert v.dtype == np.float32
        assert np.array_equal(spikes, wanted.detach().numpy() == 1), f"spikes of step {t}"
        theirs = membrane.detach().numpy().view(np.uint32)
        assert np.array_equal(v.view(np.uint32), theirs), f"membranes of step {t}"
        n_spikes += int(spikes.sum())
    assert 100 < n_spikes < 0.9 * currents.size


def spikingjelly_step(node: Any) -> Step:
    def step(current: Any) -> tuple[Any, Any]:
        spikes = node(current)
        return spikes, node.v

    return step


@pytest.mark.parametrize("v_threshold", [1.0, 0.73])
@pytest.mark.parametrize("v_reset", [None, 0.0, -0.3, 0.21])
@pytest.mark.parametrize("decay_input", [True, False])
@pytest.mark.parametrize("tau", [2.0, 7.7])
def test_lif_is_that_of_spikingjelly(
    currents: Array, tau: float, decay_input: bool, v_reset: float | None, v_threshold: float
) -> None:
    from spikingjelly.activation_based.neuron import LIFNode

    node = LIFNode(tau, decay_input, v_threshold, v_reset)
    mine = Lif.authored(
        {
            "form": "spikingjelly",
            "tau": tau,
            "decay_input": decay_input,
            "v_threshold": v_threshold,
            "v_reset": v_reset,
        }
    )
    assert_same_bits(mine, spikingjelly_step(node), currents)


@pytest.mark.parametrize("v_threshold", [1.0, 0.73])
@pytest.mark.parametrize("v_reset", [None, 0.0, -0.3, 0.21])
def test_if_is_that_of_spikingjelly(
    currents: Array, v_reset: float | None, v_threshold: float
) -> None:
    from spikingjelly.activation_based.neuron import IFNode

    node = IFNode(v_threshold, v_reset)
    mine = If.authored({"v_threshold": v_threshold, "v_reset": v_reset})
    assert_same_bits(mine, spikingjelly_step(node), currents)


def test_lif_is_that_of_spikingjelly_in_multi_step_mode(currents: Array) -> None:
    import torch
    from spikingjelly.activation_based.neuron import LIFNode

    node = LIFNode(1.7, True, 1.0, 0.0, step_mode="m", store_v_seq=True)
    wanted = node(torch.from_numpy(currents)).numpy()
    mine = Lif.authored({"tau": 1.7, "v_reset": 0.0})
    v = np.zeros(currents.shape[1:], np.float32)
    for t, current in enumerate(currents):
        spikes, v = mine.step(v, current)
        assert np.array_equal(spikes, wanted[t] == 1)
        assert np.array_equal(v.view(np.uint32), node.v_seq[t].numpy().view(np.uint32))


@pytest.mark.parametrize("threshold", [1.0, 0.73])
@pytest.mark.parametrize("beta", [0.9, 0.5, 0.0, 1.0])
@pytest.mark.parametrize("delayed", [True, False])
@pytest.mark.parametrize(("mechanism", "v_reset"), [("subtract", None), ("zero", 0.0)])
def test_lif_is_leaky_of_snntorch(
    currents: Array,
    mechanism: str,
    v_reset: float | None,
    delayed: bool,
    beta: float,
    threshold: float,
) -> None:
    import snntorch

    node = snntorch.Leaky(beta, threshold, reset_mechanism=mechanism, reset_delay=delayed)
    mine = Lif.authored(
        {
            "form": "snntorch",
            "beta": beta,
            "v_threshold": threshold,
            "v_reset": v_reset,
            "reset_delayed": delayed,
        }
    )
    assert_same_bits(mine, lambda current: node(current), currents)


@pytest.mark.filterwarnings("ignore:.torch.jit.script. is deprecated:FutureWarning")
@pytest.mark.parametrize("v_leak", [0.0, 0.05])
@pytest.mark.parametrize("tau_mem_inv", [100.0, 333.0])
@pytest.mark.parametrize("v_reset", [None, 0.0, -0.1])
def test_lif_is_lif_box_of_norse(
    currents: Array, v_reset: float | None, tau_mem_inv: float, v_leak: float
) -> None:
    import torch
    from norse.torch import LIFBoxCell
    from norse.torch.functional.lif_box import LIFBoxParameters
    from norse.torch.functional.reset import reset_subtract, reset_value

    cell = LIFBoxCell(
        LIFBoxParameters(
            tau_mem_inv=torch.as_tensor(tau_mem_inv),
            v_leak=torch.as_tensor(v_leak),
            v_th=torch.as_tensor(0.3),
            v_reset=torch.as_tensor(0.0 if v_reset is None else v_reset),
            reset_method=reset_subtract if v_reset is None else reset_value,
        )
    )
    state = None

    def step(current: Any) -> tuple[Any, Any]:
        nonlocal state
        spikes, state = cell(current, state)
        return spikes, state.v

    mine = Lif.authored(
        {
            "form": "norse",
            "tau_mem_inv": tau_mem_inv,
            "v_leak": v_leak,
            "v_threshold": 0.3,
            "v_reset": v_reset,
        }
    )
    assert_same_bits(mine, step, currents)


@pytest.mark.parametrize("backend", ["numpy", "torch"])
@pytest.mark.parametrize("fire", [">=", ">"])
@pytest.mark.parametrize("v_reset", [None, 0.0, -0.3])
@pytest.mark.parametrize("tau", [2.0, 1.3])
def test_backends_step_as_the_reference_does_for_other_parameters(
    tau: float, v_reset: float | None, fire: str, backend: str
) -> None:
    params = {"tau": tau, "v_reset": v_reset, "fire": fire, "v_threshold": 0.73}
    port = ValueType((N,), -1500, 1500, UNIT)
    for decay_input in (True, False):
        neuron = Lif.authored({**params, "decay_input": decay_input}).reading(port)
        operator = Operator.of(Program((port,), (neuron,), ((-1,),)))
        group = operator_group(operator)
        check(load_kernel(operator, group, backend), ReferenceKernel(operator, group), 20)


def operator_group(operator: Operator) -> Any:
    from topologies.compiled import Group

    return Group(0, 0, operator.output.n)


def test_installed_libraries_are_those_that_are_named() -> None:
    found = {name: version(name) for name in ("spikingjelly", "snntorch", "norse")}
    assert found == {"spikingjelly": "2.0.0", "snntorch": "1.0.0", "norse": "1.1.0"}
