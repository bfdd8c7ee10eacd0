"""NIR files give the membranes and spikes of the libraries that wrote or ran them.

Traces: data/nir/README.md. Libraries: snnTorch 1.0.0, SpikingJelly 2.0.0, Norse 1.1.0.
Weights are multiples of 2**-6, so that no quantising stands between the network and the library.
"""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from topologies.compiler.compile import compile_with_errors
from topologies.importers.build import Face, Imported
from topologies.importers.from_nir import import_nir
from topologies.importers.nir_file import read_nir
from topologies.importers.nir_options import NirOptions
from topologies.importers.trace import trace
from topologies.stages.base import Array, ValueType, to_current
from topologies.stages.dynamics import Neuron

pytestmark = [
    pytest.mark.torch,
    pytest.mark.filterwarnings("ignore:.torch.jit.script. is deprecated:FutureWarning"),
]
DATA = Path(__file__).parent / "data" / "nir"
N_STEPS = 60


def bits(values: Any) -> Array:
    return np.ascontiguousarray(values, np.float32).view(np.uint32)


def neuron_of(found: Imported) -> Neuron:
    stages = compile_with_errors(found.network).quantised.stages
    (neuron,) = [lowered.stage for lowered in stages if isinstance(lowered.stage, Neuron)]
    return neuron


@pytest.mark.parametrize(
    ("simulator", "options"),
    [
        ("norse", NirOptions(dt=1e-4)),
        ("snntorch", NirOptions(dt=1e-4, reset="snntorch-zero")),
        ("sinabs", NirOptions(dt=1e-4, integrator="exp", reset="subtract")),
        (
            "sinabs",
            NirOptions(dt=1e-4, integrator="exp", reset="subtract", fire=">=", max_spikes=3),
        ),
    ],
)
def test_published_traces_are_reproduced_bit_for_bit(simulator: str, options: NirOptions) -> None:
    columns = np.genfromtxt(DATA / f"lif_{simulator}.csv", delimiter=",")
    # sinabs recorded the current behind its weight of 0.04; the file's own weight is 1.
    current = (columns[:, 0] > 0).astype(np.float32)
    neuron = neuron_of(import_nir(read_nir(DATA / "lif_norse.nir"), Face("lif"), options))
    spec = neuron.state_spec([ValueType((1,), 0, 1)])
    state = tuple(np.zeros((1, 1), np.float32) for _ in spec)
    for i, (_, v, spike) in zip(current, columns, strict=True):
        fired, state = neuron.advance(state, to_current(np.full((1, 1), int(i)), 0))
        assert bits(state[0]) == bits(np.float32(v))
        assert int(fired[0, 0]) == int(spike)
    assert columns[:, 2].sum() == 4


def on_grid(module: Any) -> Any:
    """The module with its weights on a grid, so that it computes what the network computes."""
    import torch

    with torch.no_grad():
        for parameter in module.parameters():
            if parameter.ndim:
                parameter.copy_(torch.round(parameter * 64) / 64)
    return module


def events(shape: tuple[int, ...], rate: float = 0.4) -> Array:
    return (np.random.default_rng(2).random((N_STEPS, *shape)) < rate).astype(np.float32)


def spikes_of_network(found: Imported, inputs: Array, place: str) -> Array:
    stages = compile_with_errors(found.network).quantised.stages
    layer = found.neurons[place]
    values = inputs[None].astype(np.int64)
    spikes: Array = trace(stages, values, len(inputs), {layer}).layers[layer][0]
    return spikes


def assert_same_spikes(found: Imported, inputs: Array, place: str, wanted: Array) -> None:
    mine = spikes_of_network(found, inputs, place)
    assert np.array_equal(mine.reshape(wanted.shape), wanted)
    assert 0.02 < wanted.mean() < 0.9


@pytest.mark.parametrize("delayed", [True, False])
@pytest.mark.parametrize("kind", ["Leaky", "Synaptic"])
def test_files_of_snntorch_give_its_spikes(kind: str, delayed: bool, tmp_path: Path) -> None:
    import nir
    import snntorch
    import torch
    from snntorch.export_nir import export_to_nir

    torch.manual_seed(3)
    leaks = {"beta": 0.8} if kind == "Leaky" else {"alpha": 0.5, "beta": 0.8}
    mechanism = "subtract" if delayed else "zero"
    cells = [
        getattr(snntorch, kind)(
            **{name: torch.full((n,), value) for name, value in leaks.items()},
            threshold=torch.full((n,), 0.5),
            init_hidden=True,
            reset_delay=delayed,
            reset_mechanism=mechanism,
        )
        for n in (20, 5)
    ]
    net = on_grid(
        torch.nn.Sequential(torch.nn.Linear(6, 20), cells[0], torch.nn.Linear(20, 5), cells[1])
    )
    nir.write(tmp_path / "net.nir", export_to_nir(net, torch.zeros(1, 6), ignore_dims=[0]))
    options = NirOptions(dt=1e-4, reset="snntorch" if delayed else "snntorch-zero")
    found = import_nir(read_nir(tmp_path / "net.nir"), Face("net"), options)
    inputs = events((6,))
    for cell in cells:
        cell.reset_hidden()
    with torch.no_grad():
        wanted = np.stack([net(torch.from_numpy(x)[None])[0].numpy() for x in inputs])
    assert_same_spikes(found, inputs, list(found.neurons)[-1], wanted)


@pytest.mark.parametrize("delayed", [True, False])
@pytest.mark.parametrize("all_to_all", [True, False])
def test_recurrent_files_of_snntorch_give_its_spikes(
    all_to_all: bool, delayed: bool, tmp_path: Path
) -> None:
    import nir
    import snntorch
    import torch
    from snntorch.export_nir import export_to_nir

    torch.manual_seed(5)
    more = {"linear_features": 8} if all_to_all else {"V": torch.linspace(-0.5, 0.5, 8)}
    cell = snntorch.RLeaky(
        0.75,
        all_to_all=all_to_all,
        init_hidden=True,
        reset_delay=delayed,
        reset_mechanism="subtract" if delayed else "zero",
        **more,
    )
    net = on_grid(torch.nn.Sequential(torch.nn.Linear(6, 8), cell))
    nir.write(tmp_path / "net.nir", export_to_nir(net, torch.zeros(1, 6), ignore_dims=[0]))
    options = NirOptions(dt=1e-4, reset="snntorch" if delayed else "snntorch-zero")
    found = import_nir(read_nir(tmp_path / "net.nir"), Face("net"), options)
    cell.reset_hidden()
    inputs = events((6,))
    with torch.no_grad():
        wanted = np.stack([net(torch.from_numpy(x)[None])[0].numpy() for x in inputs])
    (place,) = found.neurons
    assert place.endswith(".lif")
    assert_same_spikes(found, inputs, place, wanted)


@pytest.mark.parametrize("decay_input", [True, False])
def test_files_of_spikingjelly_give_its_spikes(decay_input: bool, tmp_path: Path) -> None:
    import torch
    from spikingjelly.activation_based import functional, layer, neuron
    from spikingjelly.activation_based.nir_exchange import export_to_nir

    torch.manual_seed(3)
    net = on_grid(
        torch.nn.Sequential(
            layer.Conv2d(1, 4, 3, padding=1),
            neuron.LIFNode(4.0, decay_input, 0.25, 0.0),
            layer.AvgPool2d(2),
            layer.Flatten(),
            layer.Linear(64, 10),
            neuron.IFNode(0.5, 0.0),
        )
    )
    export_to_nir(net, torch.zeros(1, 1, 8, 8), tmp_path / "net.nir", dt=1e-4)
    functional.reset_net(net)
    options = NirOptions(dt=1e-4, fire=">=")
    found = import_nir(read_nir(tmp_path / "net.nir"), Face("net"), options)
    inputs = events((1, 8, 8))
    with torch.no_grad():
        wanted = np.stack([net(torch.from_numpy(x)[None]).numpy() for x in inputs])
    mine = spikes_of_network(found, inputs, list(found.neurons)[-1])
    # Its membranes are divided by tau where NIR's are multiplied by dt / tau: they round otherwise.
    assert (mine.reshape(wanted.shape) == wanted).mean() > 0.99
    assert 0.02 < wanted.mean() < 0.9


def test_graphs_of_norse_give_its_spikes_with_dt_squared() -> None:
    """Norse 1.1.0 writes dt / tau_mem_inv as tau, which is dt times too small."""
    import norse.torch as norse
    import torch

    torch.manual_seed(3)
    constants = {"tau_mem_inv": 250.0, "v_th": 0.1, "v_leak": 0.0}
    tensors = {name: torch.full((20,), value) for name, value in constants.items()}
    cells = norse.LIFBoxParameters(**tensors)
    net = on_grid(norse.SequentialState(torch.nn.Linear(6, 20), norse.LIFBoxCell(cells)))
    graph = norse.to_nir(net, torch.zeros(6), dt=0.001)
    found = import_nir(graph.to_dict(), Face("net"), NirOptions(dt=1e-6))
    inputs, state, wanted = events((6,)), None, []
    with torch.no_grad():
        for x in inputs:
            spikes, state = net(torch.from_numpy(x), state)
            wanted.append(spikes.numpy())
    assert_same_spikes(found, inputs, list(found.neurons)[-1], np.stack(wanted))
