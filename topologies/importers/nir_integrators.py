"""Integrators of NIR, which never fire: I, LI, CubaLI.

As the last node they are the readout where one exists (`leaky`); elsewhere their membrane travels
on a grid, as a layer `integrator`.
"""

from collections.abc import Mapping
from typing import Any, TypeAlias

import numpy as np

from topologies.importers.build import compact
from topologies.importers.nir_graph import Node
from topologies.importers.nir_options import NirOptions
from topologies.model import FloatArray

__all__ = ["INTEGRATING", "integrator_of", "readout_of"]

INTEGRATING = ("CubaLI", "I", "LI")
_Found: TypeAlias = tuple[str, dict[str, Any]]


def integrator_of(node: Node, options: NirOptions, shape: tuple[int, ...]) -> _Found:
    """(kind of layer, its constants). Raises NetworkError, naming the node."""
    constants = _constants(node, options)
    usual = {"decay": 1.0, "decay_syn": 0.0, "w_in": 1.0, "r": 1.0, "v_leak": 0.0}
    found = {name: compact(value, shape) for name, value in constants.items()}
    return "integrator", {
        k: v for k, v in found.items() if isinstance(v, np.ndarray) or v != usual[k]
    }


def readout_of(node: Node, options: NirOptions, shape: tuple[int, ...]) -> _Found | None:
    """(readout, its parameters) if a readout computes it; None: it is a layer."""
    constants = _constants(node, options)
    if constants["v_leak"].any() or constants["decay_syn"].any():
        return None
    decay = compact(constants["decay"], shape)
    gain = compact(constants["w_in"] * constants["r"], shape)
    both = {"decay": decay, "gain": gain}
    return "leaky", {k: _listed(v, shape) for k, v in both.items()}


def _listed(value: float | FloatArray, shape: tuple[int, ...]) -> float | list[float]:
    if isinstance(value, float):
        return value
    n = int(np.prod(shape))
    return [float(x) for x in np.repeat(value, n // len(value))]


def _constants(node: Node, options: NirOptions) -> Mapping[str, FloatArray]:
    zero, one = np.zeros(1), np.ones(1)
    if node.kind == "I":
        r = node.array("r") * options.seconds(node)
        return {"decay": one, "decay_syn": zero, "w_in": one, "r": r, "v_leak": zero}
    decay, g = options.charge(node, "tau" if node.kind == "LI" else "tau_mem")
    found = {"decay": decay, "r": node.array("r") * g, "v_leak": node.array("v_leak")}
    if node.kind == "LI":
        return {**found, "decay_syn": zero, "w_in": one}
    decay_syn, g_syn = options.charge(node, "tau_syn")
    return {**found, "decay_syn": decay_syn, "w_in": node.array("w_in", 1.0) * g_syn}
