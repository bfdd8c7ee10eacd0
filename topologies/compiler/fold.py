"""Fold away what is no integer, and what is written for convenience.

    conv or linear, then batch norm:   w' = w * g,  b' = (b - mean) * g + beta,
                                       g = gamma / sqrt(var + eps)

computed in float64 (numerics 6); a batch norm of anything else is a scale, w = g and
b = beta - mean * g. A mean over 2**a * m values becomes a sum with a shift of a, and 1/m goes on
through what is homogeneous (pools, reshapes, sums) into the next weights, or into a mean that reads
it (numerics 5). Delay layers
become delays of edges where they can (compiler/delays.py).
"""

from collections.abc import Mapping
from dataclasses import replace

import numpy as np

from topologies.compiler.delays import delays_on_edges
from topologies.compiler.order import infer_shapes, layer_order, place_of, readers_of
from topologies.layers import layer_class
from topologies.model import Fault, FloatArray, Layer, Network, NetworkError, Source
from topologies.stages.readout import Readout
from topologies.stages.table import stage_class

__all__ = ["fold"]

_Shapes = Mapping[str, tuple[int, ...]]


def fold(network: Network) -> Network:
    """The same network of layers whose kinds are stages, weighted ones with their biases.

    Raises NetworkError for a divisor that no weights can take up.
    """
    folded = _fold_batch_norms(_with_biases(delays_on_edges(network)))
    return _fold_divisors(folded, infer_shapes(folded)[0])


def _has_rows(layer: Layer) -> bool:
    """Whether row o of its weights, with a bias, makes channel o of its output."""
    cls = layer_class(layer.kind)
    return cls.weighted and "bias" in cls.takes


def _with_biases(network: Network) -> Network:
    layers = []
    for layer in network.layers:
        if _has_rows(layer) and "bias" not in layer.arrays:
            zeros = np.zeros(len(layer.arrays["weight"]))
            layer = replace(layer, arrays={**layer.arrays, "bias": zeros})
        if layer.kind == "flatten":
            layer = replace(layer, kind="reshape", params={"shape": [-1]})
        layers.append(layer)
    return replace(network, layers=tuple(layers))


def _fold_batch_norms(network: Network) -> Network:
    by_name = {layer.name: layer for layer in network.layers}
    readers = readers_of(network)
    readers[network.output.source].append("")
    renamed: dict[str, str] = {}
    for norm in network.layers:
        if norm.kind != "batch_norm":
            continue
        # Norms that were folded before are no longer in between.
        source = by_name.get(_final(norm.sources[0].layer, renamed))
        if source is not None and _takes(source, norm, readers):
            by_name[source.name] = replace(source, arrays=_normed(source.arrays, norm))
            renamed[norm.name] = source.name
        else:
            by_name[norm.name] = replace(norm, kind="scale", params={}, arrays=_as_scale(norm))
    kept = (by_name[layer.name] for layer in network.layers if layer.name not in renamed)
    layers = tuple(replace(x, sources=_renamed(x.sources, renamed)) for x in kept)
    output = replace(network.output, source=_final(network.output.source, renamed))
    return replace(network, layers=layers, output=output)


def _takes(source: Layer, norm: Layer, readers: Mapping[str, list[str]]) -> bool:
    """Whether a batch norm can be folded into these weights: nobody else reads their sums."""
    alone = readers[norm.sources[0].layer] == [norm.name] and not norm.sources[0].delay
    return alone and _has_rows(source) and len(source.arrays["bias"]) == _n_channels(norm)


def _n_channels(norm: Layer) -> int:
    return len(norm.arrays["running_mean"])


def _gain(norm: Layer) -> tuple[FloatArray, FloatArray]:
    """(g, beta) of a batch norm."""
    eps = np.float64(norm.params.get("eps", 1e-5))
    gain = norm.arrays.get("weight", np.float64(1.0)) / np.sqrt(norm.arrays["running_var"] + eps)
    return gain, norm.arrays.get("bias", np.float64(0.0)) * np.ones(_n_channels(norm))


def _normed(arrays: Mapping[str, FloatArray], norm: Layer) -> dict[str, FloatArray]:
    gain, beta = _gain(norm)
    weight = arrays["weight"]
    per_row = gain.reshape(-1, *[1] * (weight.ndim - 1))
    bias = (arrays["bias"] - norm.arrays["running_mean"]) * gain + beta
    return {"weight": weight * per_row, "bias": bias}


def _as_scale(norm: Layer) -> dict[str, FloatArray]:
    gain, beta = _gain(norm)
    return {"weight": gain, "bias": (0.0 - norm.arrays["running_mean"]) * gain + beta}


def _final(name: str, renamed: Mapping[str, str]) -> str:
    while name in renamed:
        name = renamed[name]
    return name


def _renamed(sources: tuple[Source, ...], renamed: Mapping[str, str]) -> tuple[Source, ...]:
    return tuple(Source(_final(source.layer, renamed), source.delay) for source in sources)


def _fold_divisors(network: Network, shapes: _Shapes) -> Network:
    """Sums for means; `owed[layer]` is what its output is still to be divided by."""
    owed: dict[str, int] = {}
    taken: dict[str, int] = {}
    changed: dict[str, Layer] = {}
    for layer in layer_order(network)[0]:
        divisors = {owed.get(source.layer, 1) for source in layer.sources}
        taken[layer.name] = divisors.pop() if len(divisors) == 1 else 0
        changed[layer.name], owed[layer.name] = _undivided(layer, taken[layer.name], shapes)
    faults = [
        Fault(place_of(network, layer.name), _stuck(layer.kind))
        for layer in network.layers
        if not _takes_divisor(layer, taken[layer.name], owed)
    ]
    output, left = network.output, owed.get(network.output.source, 1)
    readout = stage_class(output.readout)
    if left != 1 and issubclass(readout, Readout) and readout.divides:
        output = replace(output, params={**output.params, "divisor": left})
    elif left != 1:
        faults.append(Fault("output", _stuck(f"readout {output.readout}")))
    if faults:
        raise NetworkError(faults, network.name)
    layers = tuple(changed[layer.name] for layer in network.layers)
    return replace(network, layers=layers, output=output)


def _takes_divisor(layer: Layer, taken: int, owed: Mapping[str, int]) -> bool:
    """Whether all inputs owe one divisor, known when it was taken, that the layer passes on."""
    cls = layer_class(layer.kind)
    same = all(owed.get(source.layer, 1) == taken for source in layer.sources)
    return same and (taken == 1 or cls.weighted or cls.homogeneous)


def _undivided(layer: Layer, divisor: int, shapes: _Shapes) -> tuple[Layer, int]:
    """The layer as a sum, its weights divided by what its input owes; and what it owes itself."""
    cls = layer_class(layer.kind)
    if cls.weighted:
        weight = layer.arrays["weight"] / np.float64(divisor or 1)
        return replace(layer, arrays={**layer.arrays, "weight": weight}), 1
    kind, params, over = cls.averaged(layer.params, shapes.get(layer.sources[0].layer, ()))
    shift = (over & -over).bit_length() - 1
    if over != 1 or kind != layer.kind:
        layer = replace(layer, kind=kind, params={**params, "shift": shift})
    return layer, divisor * (over >> shift) if cls.homogeneous else 1


def _stuck(kind: str) -> str:
    return (
        f"a {kind} cannot read an average over a number that is no power of two, nor add it to "
        "something else: nothing may be divided on the way. Put a conv2d or a linear in between, "
        "or average over a power of two, or take a sum."
    )
