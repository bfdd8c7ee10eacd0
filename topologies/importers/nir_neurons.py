"""Neurons of NIR: which kind of layer each is, and its constants per step.

With decay d and g = dt / tau of `NirOptions.charge`, one step of a LIF is

    v = v_leak + d * (v - v_leak) + g * r * i

It becomes the first of these that says the same:

    lif, snntorch     for snnTorch's resets: everything is divided by the gain g * r
    lif, norse        Euler and r = 1: v + g * ((i + v_leak) - v), in Norse's order of operations
    lif, plain        g * r = 1 and v_leak = 0: d * v + i, what snnTorch exports
    cubalif, plain    else, with a synaptic current that is gone after a step

so that each library's own files are stepped in its own operations. An IF charges dt * r * i; it
is divided by dt * r, and its threshold and reset with it.
"""

from collections.abc import Callable, Mapping
from typing import Any, TypeAlias

import numpy as np

from topologies.importers.build import compact
from topologies.importers.nir_graph import Node
from topologies.importers.nir_options import NirOptions
from topologies.model import Fault, FloatArray, NetworkError

__all__ = ["SPIKING", "neuron_of", "parameter_shape"]

_Found: TypeAlias = tuple[str, dict[str, Any]]
_SHAPED = ("tau", "tau_mem", "tau_syn", "r", "v_leak", "v_threshold", "v_reset", "w_in")
_USUAL = {"v_leak": 0.0, "w_in": 1.0, "r": 1.0, "v_reset": None}
_CLOSE = 1e-6  # relative: files hold float32


def neuron_of(node: Node, options: NirOptions, shape: tuple[int, ...]) -> _Found:
    """(kind of layer, its constants) of a spiking node whose input has `shape`.

    Raises NetworkError, naming the node.
    """
    kind, constants = SPIKING[node.kind](node, options)
    short = {
        name: compact(value, shape) if isinstance(value, np.ndarray) else value
        for name, value in constants.items()
    }
    return kind, {k: v for k, v in short.items() if isinstance(v, np.ndarray) or _says(k, v)}


def parameter_shape(node: Node) -> tuple[int, ...]:
    """The shape that the parameters of a node have together."""
    names = (*_SHAPED, "threshold", "scale", "delay")
    found = [node.array(name).shape for name in names if node.fields.get(name) is not None]
    try:
        return tuple(np.broadcast_shapes(*found))
    except ValueError as error:
        raise _refused(node, f"its parameters have shapes {found}, which do not fit.") from error


def _says(name: str, value: Any) -> bool:
    """Whether a constant is another than a network file takes without it."""
    return name not in _USUAL or value != _USUAL[name]


def _refused(node: Node, sentence: str) -> NetworkError:
    return NetworkError([Fault(node.path, sentence)])


def _close(values: FloatArray, wanted: float) -> bool:
    return bool(np.allclose(values, wanted, rtol=_CLOSE, atol=_CLOSE))


def _gain(node: Node, gain: FloatArray) -> FloatArray:
    """A gain by which constants are divided. Raises NetworkError unless it is above 0."""
    if (gain <= 0).any():
        raise _refused(node, f"its r is {node.array('r').min()}: legal is above 0.")
    return np.ones(1) if _close(gain, 1.0) else gain


def _at_spike(node: Node, options: NirOptions, gain: FloatArray) -> dict[str, Any]:
    reset = options.v_reset(node)
    return {
        "v_threshold": node.array("v_threshold") / gain,
        "v_reset": None if reset is None else reset / gain,
        "fire": options.fire,
    }


def _lif(node: Node, options: NirOptions) -> _Found:
    decay, g = options.charge(node, "tau")
    r, v_leak = node.array("r"), node.array("v_leak")
    plain = _at_spike(node, options, np.ones(1))
    if options.like_snntorch:
        return _like_snntorch("lif", node, options, {"beta": decay}, g * r)
    if options.max_spikes > 1:
        return _multi(options, plain, decay, np.zeros(1), np.ones(1), g * r, v_leak)
    if options.integrator == "euler" and (r == 1).all():
        dt, inverse = options.seconds(node), np.float32(1) / node.array("tau").astype(np.float32)
        leak = {"dt": dt, "tau_mem_inv": inverse.astype(np.float64), "v_leak": v_leak}
        return "lif", {"form": "norse", **leak, **plain}
    if not v_leak.any() and _close(g * r, 1.0):
        return "lif", {"form": "plain", "decay": decay, **plain}
    rest = {"decay": decay, "decay_syn": 0.0, "w_in": g * r, "v_leak": v_leak}
    return "cubalif", {"form": "plain", **rest, **plain}


def _if(node: Node, options: NirOptions) -> _Found:
    r = node.array("r")
    gain = _gain(node, r if options.if_per_step else r * options.seconds(node))
    at_spike = _at_spike(node, options, gain)
    if options.like_snntorch:
        return _like_snntorch("lif", node, options, {"beta": 1.0}, gain)
    if options.max_spikes > 1:
        one, zero = np.ones(1), np.zeros(1)
        return _multi(options, at_spike, one, zero, one, one, zero)
    return "if", at_spike


def _cubalif(node: Node, options: NirOptions) -> _Found:
    decay, g = options.charge(node, "tau_mem")
    decay_syn, g_syn = options.charge(node, "tau_syn")
    w_in, r = node.array("w_in", 1.0) * g_syn, node.array("r") * g
    if options.like_snntorch:
        leaks = {"alpha": decay_syn, "beta": decay}
        return _like_snntorch("cubalif", node, options, leaks, w_in * r)
    plain = _at_spike(node, options, np.ones(1))
    if options.max_spikes > 1:
        return _multi(options, plain, decay, decay_syn, r, w_in, node.array("v_leak"))
    leaks = {"decay": decay, "decay_syn": decay_syn}
    gains = {"w_in": w_in, "r": r, "v_leak": node.array("v_leak")}
    return "cubalif", {"form": "plain", **leaks, **gains, **plain}


def _threshold(node: Node, options: NirOptions) -> _Found:
    at_spike = {"v_threshold": node.array("threshold"), "v_reset": 0.0, "fire": options.fire}
    return "lif", {"form": "plain", "decay": 0.0, **at_spike}


def _like_snntorch(
    kind: str, node: Node, options: NirOptions, leaks: Mapping[str, Any], gain: FloatArray
) -> _Found:
    if node.array("v_leak", 0.0).any():
        raise _refused(node, "its v_leak is not 0, to which snnTorch's neurons decay.")
    at_spike = _at_spike(node, options, _gain(node, gain))
    delayed = options.reset == "snntorch"
    return kind, {"form": "snntorch", **leaks, **at_spike, "reset_delayed": delayed}


def _multi(
    options: NirOptions,
    at_spike: Mapping[str, Any],
    decay: FloatArray,
    decay_syn: FloatArray,
    r: FloatArray,
    w_in: FloatArray,
    v_leak: FloatArray,
) -> _Found:
    leaks = {"decay": decay, "decay_syn": decay_syn}
    gains = {"w_in": w_in, "r": r, "v_leak": v_leak}
    most = {"v_threshold": at_spike["v_threshold"], "max_spikes": options.max_spikes}
    return "multispike", {**leaks, **gains, **most}


SPIKING: Mapping[str, Callable[[Node, NirOptions], _Found]] = {
    "CubaLIF": _cubalif,
    "IF": _if,
    "LIF": _lif,
    "Threshold": _threshold,
}
