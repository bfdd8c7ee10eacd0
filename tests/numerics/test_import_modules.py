"""Imported modules give the spikes of their own libraries: snnTorch, SpikingJelly, Norse.

Weights are multiples of 2**-6 and inputs are spikes, so that sums are exact in float32 and no
quantising stands between the module and the network. What may differ is the order of a few
float32 operations where a current is added in two parts; such modules say so.
"""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from topologies.compiler.compile import compile_with_errors
from topologies.importers.build import Face
from topologies.importers.modules import import_module
from topologies.importers.original import run_original
from topologies.importers.trace import trace
from topologies.stages.base import Array

pytestmark = [
    pytest.mark.torch,
    pytest.mark.filterwarnings("ignore:.torch.jit.script. is deprecated:FutureWarning"),
]
N_STEPS, N_STREAMS = 40, 3


def on_grid(module: Any) -> Any:
    import torch

    with torch.no_grad():
        for parameter in module.parameters():
            if parameter.ndim:
                parameter.copy_(torch.round(parameter * 64) / 64)
    return module


def assert_same_spikes(module: Any, shape: tuple[int, ...], agreement: float = 1.0) -> None:
    """Every neuron of the module against its layer, and the counts of the last one."""
    found = import_module(on_grid(module), shape, Face("net"))
    inputs = (np.random.default_rng(2).random((N_STEPS, N_STREAMS, *shape)) < 0.4).astype(int)
    original = run_original(module, inputs.astype(np.float32), found.neurons)
    stages = compile_with_errors(found.network).quantised.stages
    wanted = set(found.neurons.values())
    mine = trace(stages, inputs.swapaxes(0, 1), N_STEPS, wanted)
    assert found.neurons
    for place, layer in found.neurons.items():
        theirs = original.spikes[place]
        spikes = mine.layers[layer].swapaxes(0, 1).reshape(theirs.shape)
        assert (spikes == theirs).mean() >= agreement, place
        assert 0.001 < theirs.mean() < 0.95, place
    if agreement == 1.0 and found.network.output.readout == "count":
        assert np.array_equal(mine.results[:, 0], original.outputs.sum(axis=0))


# snnTorch


@pytest.mark.parametrize("delayed", [True, False])
@pytest.mark.parametrize("mechanism", ["subtract", "zero"])
@pytest.mark.parametrize("kind", ["Leaky", "Synaptic"])
def test_feed_forward_cells_of_snntorch(kind: str, mechanism: str, delayed: bool) -> None:
    import snntorch
    import torch
    from torch import nn

    torch.manual_seed(1)
    leaks = {"beta": 0.8} if kind == "Leaky" else {"alpha": 0.5, "beta": 0.8}
    more: dict[str, Any] = {"reset_mechanism": mechanism, "reset_delay": delayed}

    def cells() -> Any:
        return getattr(snntorch, kind)(**leaks, threshold=0.4, init_hidden=True, **more)

    net = nn.Sequential(
        *(nn.Conv2d(1, 4, 3, stride=2, padding=1), cells(), nn.MaxPool2d(2)),
        *(nn.Flatten(), nn.Linear(16, 12), cells(), nn.Dropout(), nn.Linear(12, 5), cells()),
    )
    assert_same_spikes(net, (1, 8, 8))


def test_leaky_with_constants_per_neuron() -> None:
    import snntorch
    import torch

    torch.manual_seed(1)
    cells = snntorch.Leaky(
        torch.linspace(0.1, 0.9, 20), torch.linspace(0.2, 1, 20), init_hidden=True
    )
    assert_same_spikes(torch.nn.Sequential(torch.nn.Linear(6, 20), cells), (6,))


# RSynaptic of snnTorch 1.0.0 with reset_delay=False fails in its own forward.
@pytest.mark.parametrize(
    ("kind", "delayed"), [("RLeaky", True), ("RLeaky", False), ("RSynaptic", True)]
)
@pytest.mark.parametrize("mechanism", ["subtract", "zero"])
@pytest.mark.parametrize("all_to_all", [True, False])
def test_recurrent_cells_of_snntorch(
    all_to_all: bool, mechanism: str, kind: str, delayed: bool
) -> None:
    import snntorch
    import torch

    torch.manual_seed(5)
    leaks = {"beta": 0.75} if kind == "RLeaky" else {"alpha": 0.5, "beta": 0.75}
    more = {"linear_features": 8} if all_to_all else {"V": torch.linspace(-0.5, 0.5, 8)}
    cells = getattr(snntorch, kind)(
        **leaks,
        **more,
        threshold=0.5,
        all_to_all=all_to_all,
        init_hidden=True,
        reset_mechanism=mechanism,
        reset_delay=delayed,
    )
    net = torch.nn.Sequential(torch.nn.Linear(6, 8), cells, torch.nn.Linear(8, 3))
    net.append(snntorch.Leaky(0.5, 0.3, init_hidden=True))
    # The library adds input and recurrent current to the membrane one after the other.
    assert_same_spikes(net, (6,), agreement=0.99)


def test_recurrent_convolution_of_snntorch() -> None:
    import snntorch
    import torch

    torch.manual_seed(5)
    cells = snntorch.RLeaky(0.75, conv2d_channels=2, kernel_size=3, init_hidden=True, threshold=0.5)
    assert_same_spikes(torch.nn.Sequential(torch.nn.Conv2d(1, 2, 3), cells), (1, 6, 6), 0.99)


@pytest.mark.parametrize("mechanism", ["subtract", "zero"])
def test_lapicque_of_snntorch(mechanism: str) -> None:
    import snntorch
    import torch

    torch.manual_seed(1)
    cells = snntorch.Lapicque(
        R=4.0, C=2.0, threshold=0.3, init_hidden=True, reset_mechanism=mechanism
    )
    # Its membranes are larger by dt / C than ours, and round otherwise.
    assert_same_spikes(torch.nn.Sequential(torch.nn.Linear(6, 30), cells), (6,), agreement=0.99)


def test_membrane_of_the_last_neuron_of_snntorch_is_the_result() -> None:
    import snntorch
    import torch

    torch.manual_seed(1)
    last = snntorch.Leaky(0.75, reset_mechanism="none", init_hidden=True)
    net = on_grid(
        torch.nn.Sequential(
            *(torch.nn.Linear(6, 20), snntorch.Leaky(0.5, 0.3, init_hidden=True)),
            *(torch.nn.Linear(20, 4), last),
        )
    )
    found = import_module(net, (6,), Face("net"))
    assert (found.network.output.readout, found.network.output.params) == (
        *("membrane", {"decay": 0.75}),
    )
    inputs = (np.random.default_rng(2).random((N_STEPS, N_STREAMS, 6)) < 0.4).astype(int)
    run_original(net, inputs.astype(np.float32), [])
    stages = compile_with_errors(found.network).quantised.stages
    results = trace(stages, inputs.swapaxes(0, 1), N_STEPS, set()).results[:, 0]
    assert np.array_equal(results, last.mem.detach().numpy())


# SpikingJelly


def jelly(mode: str, cells: Callable[[float], Any]) -> Any:
    import torch
    from spikingjelly.activation_based import functional, layer

    torch.manual_seed(3)
    net = torch.nn.Sequential(
        *(layer.Conv2d(1, 4, 3, padding=1, bias=False), layer.BatchNorm2d(4), cells(0.1)),
        *(layer.AvgPool2d(2), layer.Flatten(), layer.Dropout(), layer.Linear(64, 10), cells(0.01)),
    )
    # A batch norm whose factors are powers of two, so that folding it is exact.
    norm = net[1]
    norm.eps, norm.running_var[:] = 0.0, torch.tensor([0.25, 1.0, 4.0, 1.0])
    norm.running_mean[:] = torch.tensor([0.5, -0.25, 0.0, 0.125])
    functional.set_step_mode(net, mode)
    return net


@pytest.mark.parametrize("mode", ["s", "m"])
@pytest.mark.parametrize("v_reset", [None, -0.0625])
@pytest.mark.parametrize("kind", ["IFNode", "LIFNode", "ParametricLIFNode", "CUBALIFNode"])
def test_networks_of_spikingjelly(kind: str, v_reset: float | None, mode: str) -> None:
    from spikingjelly.activation_based import neuron

    # A plain CubaLIF adds its v_leak of 0, and may round a sum of three terms in another order.
    net = jelly(mode, lambda th: getattr(neuron, kind)(v_threshold=th, v_reset=v_reset))
    assert_same_spikes(net, (1, 8, 8))


@pytest.mark.parametrize("container", ["SeqToANNContainer", "MultiStepContainer"])
def test_containers_of_spikingjelly(container: str) -> None:
    import torch
    from spikingjelly.activation_based import layer, neuron

    torch.manual_seed(3)
    inner = getattr(layer, container)(torch.nn.Flatten(), torch.nn.Linear(16, 8))
    cells = neuron.LIFNode(2.0, v_threshold=0.3, step_mode="m")
    assert_same_spikes(torch.nn.Sequential(inner, cells), (4, 4))


@pytest.mark.parametrize("mode", ["s", "m"])
def test_linear_recurrence_of_spikingjelly(mode: str) -> None:
    import torch
    from spikingjelly.activation_based import layer, neuron

    torch.manual_seed(3)
    loop = layer.LinearRecurrentContainer(
        neuron.LIFNode(2.0, v_threshold=0.3), in_features=6, out_features=6, bias=True
    )
    loop.step_mode = mode
    assert_same_spikes(torch.nn.Sequential(loop), (6,))


@pytest.mark.parametrize("size", [4, 3])
def test_votes_of_spikingjelly_are_means(size: int) -> None:
    import torch
    from spikingjelly.activation_based import layer, neuron

    torch.manual_seed(3)
    net = torch.nn.Sequential(
        *(torch.nn.Linear(6, 12), neuron.IFNode(0.5), layer.VotingLayer(size)),
    )
    found = import_module(on_grid(net), (6,), Face("net"))
    inputs = (np.random.default_rng(2).random((N_STEPS, N_STREAMS, 6)) < 0.4).astype(int)
    original = run_original(net, inputs.astype(np.float32), found.neurons)
    stages = compile_with_errors(found.network).quantised.stages
    results = trace(stages, inputs.swapaxes(0, 1), N_STEPS, set()).results[:, 0]
    assert np.allclose(results, original.outputs.mean(axis=0), atol=1e-4)


# Norse


def norse_net(*modules: Any) -> Any:
    import norse.torch as norse

    return norse.SequentialState(*modules)


@pytest.mark.parametrize("kind", ["LIFBoxCell", "LIFCell", "IAFCell"])
def test_cells_of_norse(kind: str) -> None:
    import norse.torch as norse
    import torch

    torch.manual_seed(3)
    cells = getattr(norse, kind)()
    cells.p = cells.p._replace(v_th=torch.as_tensor(0.05))
    last = norse.LIFBoxCell()
    last.p = last.p._replace(v_th=torch.as_tensor(0.05))
    assert_same_spikes(norse_net(torch.nn.Linear(6, 20), cells, torch.nn.Linear(20, 5), last), (6,))


def test_modules_of_norse_with_time() -> None:
    import norse.torch as norse
    import torch

    torch.manual_seed(3)
    cells = norse.LIF(norse.LIFParameters(v_th=torch.as_tensor(0.05)))
    net = norse_net(norse.Lift(torch.nn.Conv2d(1, 2, 3)), torch.nn.Flatten(2), cells)
    assert_same_spikes(net, (1, 5, 5))


@pytest.mark.parametrize("kind", ["LIFRecurrentCell", "LIFRecurrent"])
def test_recurrent_cells_of_norse(kind: str) -> None:
    import norse.torch as norse
    import torch

    torch.manual_seed(3)
    cells = getattr(norse, kind)(6, 12, p=norse.LIFParameters(v_th=torch.as_tensor(0.05)))
    # The library adds input and recurrent current one after the other.
    assert_same_spikes(norse_net(cells), (6,), agreement=0.99)


@pytest.mark.parametrize("bias", [True, False])
def test_loop_of_norse_skips_its_bias_in_step_0(bias: bool) -> None:
    import norse.torch as norse
    import torch

    torch.manual_seed(3)
    cells = norse.LIFBoxCell()
    cells.p = cells.p._replace(v_th=torch.as_tensor(0.05))
    loop = norse.RecurrentSequential(cells, torch.nn.Linear(8, 8, bias=bias))
    assert_same_spikes(norse_net(torch.nn.Linear(6, 8), loop), (6,), agreement=0.99)


def test_loop_of_norse_may_feed_spikes_back() -> None:
    import norse.torch as norse
    import torch

    torch.manual_seed(3)
    cells = norse.IAFCell()
    loop = norse.RecurrentSequential(torch.nn.Linear(6, 6), cells)
    assert_same_spikes(norse_net(loop), (6,))


@pytest.mark.parametrize("kind", ["LICell", "LIBoxCell"])
def test_integrators_of_norse_are_the_result(kind: str) -> None:
    import norse.torch as norse
    import torch

    torch.manual_seed(3)
    cells = norse.LIFBoxCell()
    cells.p = cells.p._replace(v_th=torch.as_tensor(0.05))
    net = on_grid(
        norse_net(torch.nn.Linear(6, 9), cells, torch.nn.Linear(9, 4), getattr(norse, kind)())
    )
    found = import_module(net, (6,), Face("net"))
    inputs = (np.random.default_rng(2).random((N_STEPS, N_STREAMS, 6)) < 0.4).astype(int)
    original = run_original(net, inputs.astype(np.float32), found.neurons)
    stages = compile_with_errors(found.network).quantised.stages
    results: Array = trace(stages, inputs.swapaxes(0, 1), N_STEPS, set()).results[:, 0]
    assert np.abs(results - original.outputs[-1]).max() <= 2.0**-12
    assert np.abs(results).max() > 0.01
