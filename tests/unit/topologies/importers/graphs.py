"""NIR graphs as plain documents, and what comes out when their networks run."""

from typing import Any

import numpy as np

from topologies.compiler.compile import compile_with_errors
from topologies.importers.build import Face, Imported
from topologies.importers.from_nir import import_nir
from topologies.importers.nir_options import NirOptions
from topologies.importers.trace import Trace, trace

Document = dict[str, Any]


def node(kind: str, **fields: Any) -> Document:
    return {"type": kind, **fields}


def graph(nodes: dict[str, Document], *edges: str) -> Document:
    """Edges are written `a b`, chains `a b c`."""
    pairs = [pair for edge in edges for pair in zip(edge.split(), edge.split()[1:], strict=False)]
    return node("NIRGraph", nodes=nodes, edges=pairs)


def ports(n_in: int, n_out: int) -> dict[str, Document]:
    return {
        "input": node("Input", shape=np.array([n_in])),
        "output": node("Output", shape=np.array([n_out])),
    }


def lif(n: int = 1, **fields: Any) -> Document:
    """Euler with dt 1 gives v = v + 0.5 * (i - v): all values are short binary fractions."""
    usual = {"tau": 2.0, "r": 1.0, "v_leak": 0.0, "v_threshold": 0.5, "v_reset": 0.0}
    return node("LIF", **{k: np.full(n, v) for k, v in {**usual, **fields}.items()})


def perfect(n: int = 1, **fields: Any) -> Document:
    """An integrate-and-fire neuron: with dt 1 it adds up what comes."""
    usual = {"r": 1.0, "v_threshold": 0.9, "v_reset": 0.0}
    return node("IF", **{k: np.full(n, v) for k, v in {**usual, **fields}.items()})


def affine(weight: Any, bias: Any = None) -> Document:
    weight = np.asarray(weight, np.float64)
    bias = np.zeros(weight.shape[:-1]) if bias is None else np.asarray(bias, np.float64)
    return node("Affine", weight=weight, bias=bias)


def imported(document: Document, face: Face | None = None, **options: Any) -> Imported:
    return import_nir(document, face or Face("net"), NirOptions(**{"dt": 1.0, **options}))


def traced(found: Imported, events: Any, wanted: set[str]) -> Trace:
    """The network on one stream of `events` (T, ...)."""
    stages = compile_with_errors(found.network).quantised.stages
    values = np.asarray(events)[None].astype(np.int64)
    return trace(stages, values, values.shape[1], wanted)


def spikes_of(found: Imported, place: str, events: Any) -> list[Any]:
    """What the layer of a node sends when `events` (T, ...) come in: a list of steps."""
    layer = found.neurons[place]
    (spikes,) = traced(found, events, {layer}).layers[layer]
    flat = spikes.reshape(len(spikes), -1).tolist()
    return [row[0] if len(row) == 1 else row for row in flat]


def result_of(found: Imported, events: Any) -> list[float]:
    """The last result for `events` (T, ...)."""
    result: list[float] = traced(found, events, set()).results[0, -1].tolist()
    return result
