"""Modules of SpikingJelly 2.0.0, single- and multi-step: a step is the same in both.

Its neurons fire when the membrane reaches the threshold, `>=`. Sources: spikingjelly 2.0.0
`IFNode`, `LIFNode`, `ParametricLIFNode`, `CUBALIFNode`, `LinearRecurrentContainer`, `VotingLayer`.
"""

from dataclasses import replace
from typing import Any

import numpy as np

from topologies.importers import from_torch
from topologies.importers.modules import Flow, Handler, Handlers, Walk, refused, values_of
from topologies.model import Source

__all__ = ["handlers"]


def handlers() -> Handlers:
    """What SpikingJelly has and networks know."""
    from spikingjelly.activation_based import layer, neuron

    inner = (layer.SeqToANNContainer, layer.MultiStepContainer, layer.StepModeContainer)
    leaves: dict[type, Handler] = {
        layer.Linear: from_torch.linear,
        layer.Conv1d: from_torch.conv,
        layer.Conv2d: from_torch.conv,
        layer.BatchNorm1d: from_torch.batch_norm,
        layer.BatchNorm2d: from_torch.batch_norm,
        layer.AvgPool2d: from_torch.average_pool,
        layer.AdaptiveAvgPool2d: from_torch.adaptive_pool,
        layer.MaxPool2d: from_torch.max_pool,
        layer.Flatten: from_torch.flatten,
        layer.Dropout: from_torch.passed,
        layer.Dropout2d: from_torch.passed,
        layer.VotingLayer: _voting,
        layer.LinearRecurrentContainer: _recurrent,
        neuron.IFNode: _if,
        neuron.LIFNode: _lif,
        neuron.ParametricLIFNode: _plif,
        neuron.CUBALIFNode: _cubalif,
    }
    return Handlers(leaves, dict.fromkeys(inner, _single))


def _single(walk: Walk, path: str, module: Any, flow: Flow) -> Flow:
    """A container whose children see no time."""
    return replace(walk.children(path, module, replace(flow, lead=1)), lead=flow.lead)


def _at_spike(path: str, node: Any) -> dict[str, Any]:
    if not getattr(node.surrogate_function, "spiking", True):
        raise refused(path, "its surrogate function is not spiking: legal is spiking=True.")
    found = {} if node.v_threshold == 1.0 else {"v_threshold": float(node.v_threshold)}
    return found if node.v_reset is None else {**found, "v_reset": float(node.v_reset)}


def _if(walk: Walk, path: str, node: Any, flow: Flow) -> Flow:
    return walk.neuron(path, "if", flow, _at_spike(path, node))


def _lif(walk: Walk, path: str, node: Any, flow: Flow) -> Flow:
    leak = {"tau": float(node.tau), **({} if node.decay_input else {"decay_input": False})}
    form = {"form": "spikingjelly", **leak}
    return walk.neuron(path, "lif", flow, {**form, **_at_spike(path, node)})


def _plif(walk: Walk, path: str, node: Any, flow: Flow) -> Flow:
    leak = {"tau_inv": values_of(node.w.data.sigmoid())}
    more = {} if node.decay_input else {"decay_input": False}
    return walk.neuron(path, "plif", flow, {**leak, **more, **_at_spike(path, node)})


def _cubalif(walk: Walk, path: str, node: Any, flow: Flow) -> Flow:
    leaks = {"decay": float(node.v_decay), "decay_syn": float(node.c_decay)}
    return walk.neuron(path, "cubalif", flow, {"form": "plain", **leaks, **_at_spike(path, node)})


def _voting(walk: Walk, path: str, module: Any, flow: Flow) -> Flow:
    """Means over groups of neighbours: of 2**n values exact, else with 1 / size as weights."""
    size = int(module.voting_size)
    if len(flow.shape) != 1 or flow.shape[0] % size:
        raise refused(path, f"it reads a multiple of {size} values, but is given {flow.shape}.")
    groups = (flow.shape[0] // size, size)
    if size & (size - 1):
        weight = np.kron(np.eye(groups[0]), np.full((1, size), 1.0 / size))
        return walk.add(path, "linear", flow, groups[:1], arrays={"weight": weight})
    rows = walk.add(f"{path}.groups", "reshape", flow, groups, shape=list(groups))
    return walk.add(path, "reduce", rows, groups[:1], axes=-1)


def _recurrent(walk: Walk, path: str, module: Any, flow: Flow) -> Flow:
    """One linear layer reads the input beside the last output: here it is cut into two."""
    n_out = int(module.sub_module_out_features)
    weights = from_torch.weights_of(module.rc, "weight", "bias")
    n_in = weights["weight"].shape[1] - n_out
    if flow.shape != (n_in,):
        raise refused(path, f"it reads ({n_in},), but is given {flow.shape}.")
    inner = f"{path}.sub_module"
    cells = walk.builder.reserve(f"{path}.cells")
    forward = {**weights, "weight": weights["weight"][:, :n_in]}
    rows = (len(weights["weight"]),)
    ahead = walk.add(f"{path}.rc", "linear", flow, rows, arrays=forward)
    late = replace(flow, source=Source(cells, 1), shape=(n_out,))
    back_weight = {"weight": weights["weight"][:, n_in:]}
    back = walk.add(f"{path}.rc.back", "linear", late, rows, arrays=back_weight)
    total = walk.builder.add(f"{path}.sum", "add", [ahead.source, back.source])
    found = walk.enter(inner, module.sub_module, replace(ahead, source=total))
    if not found.spikes or found.shape != (n_out,):
        raise refused(inner, f"it gives {found.shape}: legal are {n_out} spikes.")
    return _renamed(walk, found, cells)


def _renamed(walk: Walk, flow: Flow, name: str) -> Flow:
    """The same layer under the name that its own spikes were read by."""
    old = flow.source.layer
    layers = walk.builder.layers
    layers[name] = replace(layers.pop(old), name=name)
    for place, layer in walk.builder.neurons.items():
        walk.builder.neurons[place] = name if layer == old else layer
    return replace(flow, source=Source(name))
