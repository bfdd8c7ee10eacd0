"""Fold into the weights what is no integer: batch norm, and divisors that are no power of two.

    conv or linear, then batch norm:   w' = w * g,  b' = (b - mean) * g + beta,
                                       g = gamma / sqrt(var + eps)

computed in float64 (numerics 6). An average pool over 2**a * m values becomes a sum pool with a
shift of a, and 1/m goes on through pools and reshapes into the next weights (numerics 5).
"""

from collections.abc import Mapping
from dataclasses import replace

import numpy as np

from topologies.compiler.order import layer_order, place_of, readers_of
from topologies.model import WEIGHTED, Fault, FloatArray, Layer, Network, NetworkError, Source
from topologies.stages.common import pair

__all__ = ["fold"]


def fold(network: Network) -> Network:
    """The same network of conv2d, linear (with biases), max_pool, sum_pool, reshape, add, neurons.

    Raises NetworkError for a batch norm or a divisor that no weights can take up.
    """
    return _fold_divisors(_fold_batch_norms(_with_biases(network)))


def _with_biases(network: Network) -> Network:
    layers = []
    for layer in network.layers:
        if layer.kind in WEIGHTED and "bias" not in layer.arrays:
            zeros = np.zeros(len(layer.arrays["weight"]))
            layer = replace(layer, arrays={**layer.arrays, "bias": zeros})
        if layer.kind == "flatten":
            layer = replace(layer, kind="reshape", params={"shape": [-1]})
        layers.append(layer)
    return replace(network, layers=tuple(layers))


def _fold_batch_norms(network: Network) -> Network:
    by_name = {layer.name: layer for layer in network.layers}
    readers = readers_of(network)
    faults = []
    renamed: dict[str, str] = {}
    for norm in network.layers:
        if norm.kind != "batch_norm":
            continue
        source = by_name.get(norm.sources[0].layer)
        fault = _unfoldable(source, norm, readers)
        if fault or source is None:
            faults.append(Fault(place_of(network, norm.name), fault))
            continue
        by_name[source.name] = replace(source, arrays=_normed(source.arrays, norm))
        renamed[norm.name] = source.name
    if faults:
        raise NetworkError(faults, network.name)
    kept = (by_name[layer.name] for layer in network.layers if layer.name not in renamed)
    layers = tuple(replace(x, sources=_renamed(x.sources, renamed)) for x in kept)
    output = replace(network.output, source=_final(network.output.source, renamed))
    return replace(network, layers=layers, output=output)


def _unfoldable(source: Layer | None, norm: Layer, readers: Mapping[str, list[str]]) -> str:
    if source is None or source.kind not in WEIGHTED or norm.sources[0].delay:
        return (
            "a batch norm reads a conv2d or a linear directly, for it is folded into its weights."
        )
    if len(readers[source.name]) > 1:
        return f"a batch norm must be the only reader of {source.name!r}, whose weights it changes."
    wrong = [name for name, a in norm.arrays.items() if a.shape != source.arrays["bias"].shape]
    if wrong:
        n = len(source.arrays["bias"])
        return f"{', '.join(wrong)} must have {n} values, one per channel of {source.name!r}."
    return ""


def _normed(arrays: Mapping[str, FloatArray], norm: Layer) -> dict[str, FloatArray]:
    gamma = norm.arrays.get("weight", np.float64(1.0))
    beta = norm.arrays.get("bias", np.float64(0.0))
    scale = gamma / np.sqrt(norm.arrays["running_var"] + np.float64(norm.params.get("eps", 1e-5)))
    weight = arrays["weight"]
    per_row = scale.reshape(-1, *[1] * (weight.ndim - 1))
    bias = (arrays["bias"] - norm.arrays["running_mean"]) * scale + beta
    return {"weight": weight * per_row, "bias": bias}


def _final(name: str, renamed: Mapping[str, str]) -> str:
    while name in renamed:
        name = renamed[name]
    return name


def _renamed(sources: tuple[Source, ...], renamed: Mapping[str, str]) -> tuple[Source, ...]:
    return tuple(Source(_final(source.layer, renamed), source.delay) for source in sources)


def _fold_divisors(network: Network) -> Network:
    """Sum pools for average pools; `owed[layer]` is what its output is still to be divided by."""
    owed: dict[str, int] = {}
    changed: dict[str, Layer] = {}
    faults = []
    for layer in layer_order(network)[0]:
        divisors = {owed.get(source.layer, 1) for source in layer.sources}
        divisor = divisors.pop()
        if divisors or (divisor != 1 and layer.kind in ("lif", "if")):
            faults.append(Fault(place_of(network, layer.name), _stuck(layer.kind)))
        elif layer.kind in WEIGHTED:
            weight = layer.arrays["weight"] / np.float64(divisor)
            layer = replace(layer, arrays={**layer.arrays, "weight": weight})
        elif layer.kind == "avg_pool":
            layer, odd = _summed(layer)
            owed[layer.name] = divisor * odd
        else:
            owed[layer.name] = divisor
        changed[layer.name] = layer
    if owed.get(network.output.source, 1) != 1:
        faults.append(Fault("output", _stuck("readout")))
    if faults:
        raise NetworkError(faults, network.name)
    return replace(network, layers=tuple(changed[layer.name] for layer in network.layers))


def _summed(layer: Layer) -> tuple[Layer, int]:
    """The sum pool of an average pool, and the odd part of its divisor."""
    height, width = pair("kernel", layer.params["kernel"], 1)
    shift, odd = 0, height * width
    while odd % 2 == 0:
        shift, odd = shift + 1, odd // 2
    return replace(layer, kind="sum_pool", params={**layer.params, "shift": shift}), odd


def _stuck(kind: str) -> str:
    return (
        f"a {kind} cannot read an average over a number that is no power of two, nor add it to "
        "something else: nothing may be divided on the way. Put a conv2d or a linear in between, "
        "or pool over a power of two, or take sum_pool."
    )
