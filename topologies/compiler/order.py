"""The order of layers, and the shapes that pass between them."""

from collections.abc import Iterator, Mapping, Sequence

import numpy as np

from topologies.model import INPUT, NEURONS, WEIGHTED, Fault, Layer, Network
from topologies.stages.add import Add
from topologies.stages.base import Stage, StageError, ValueType
from topologies.stages.conv import Conv2d
from topologies.stages.linear import Linear
from topologies.stages.pool import SumPool
from topologies.stages.reshape import Reshape
from topologies.stages.table import stage_class

__all__ = ["conv_geometry", "infer_shapes", "layer_order", "place_of", "readers_of"]

_Shape = tuple[int, ...]


def place_of(network: Network, name: str) -> str:
    """Where a layer stands: `layers[2] (conv2)`."""
    index = next(i for i, layer in enumerate(network.layers) if layer.name == name)
    return f"layers[{index}] ({name})"


def readers_of(network: Network) -> dict[str, list[str]]:
    """For each layer and the input, the layers that read it, once per reading."""
    readers: dict[str, list[str]] = {layer.name: [] for layer in network.layers}
    readers[INPUT] = []
    for layer in network.layers:
        for source in layer.sources:
            readers[source.layer].append(layer.name)
    return readers


def layer_order(network: Network) -> tuple[tuple[Layer, ...], tuple[str, ...]]:
    """(layers in topological order of the edges without delay, names on undelayed cycles).

    Among layers that are ready, the one that was authored first comes first.
    """
    done = {INPUT}
    ordered: list[Layer] = []
    left = list(network.layers)
    while left:
        ready = [x for x in left if all(s.delay or s.layer in done for s in x.sources)]
        if not ready:
            return tuple(ordered), tuple(layer.name for layer in left)
        ordered.append(ready[0])
        done.add(ready[0].name)
        left.remove(ready[0])
    return tuple(ordered), ()


def conv_geometry(layer: Layer) -> dict[str, tuple[int, int]]:
    """Stride, padding and dilation of an authored conv2d."""
    usual = {"stride": 1, "padding": 0, "dilation": 1}
    found = {name: layer.params.get(name, default) for name, default in usual.items()}
    return {n: (v, v) if isinstance(v, int) else (v[0], v[1]) for n, v in found.items()}


def infer_shapes(network: Network) -> tuple[dict[str, _Shape], list[Fault]]:
    """The shape of every layer's output, and what does not fit.

    Delays may close cycles; an add of a known and an unknown input opens them: all its inputs have
    one shape. A layer behind a fault has no shape and no further fault.
    """
    shapes: dict[str, _Shape] = {INPUT: network.input.shape}
    broken: set[str] = set()
    faults: list[Fault] = []
    while True:
        step = next(_known(network, shapes, broken), None)
        if step is None:
            break
        layer, inputs = step
        try:
            shapes[layer.name] = _shape_of(layer, inputs)
        except (StageError, KeyError, ValueError, TypeError) as error:
            broken.add(layer.name)
            faults.append(Fault(place_of(network, layer.name), str(error)))
    for layer in network.layers:
        if layer.kind == "add" and layer.name in shapes:
            faults.extend(_unequal(network, layer, shapes))
    return shapes, faults


def _known(
    network: Network, shapes: Mapping[str, _Shape], broken: set[str]
) -> Iterator[tuple[Layer, list[_Shape]]]:
    """Layers without a shape whose inputs have one; then adds with at least one such input."""
    for partial in (False, True):
        for layer in network.layers:
            known = [shapes[s.layer] for s in layer.sources if s.layer in shapes]
            enough = known and (
                len(known) == len(layer.sources) or (partial and layer.kind == "add")
            )
            if enough and layer.name not in shapes and layer.name not in broken:
                yield layer, known


def _unequal(network: Network, layer: Layer, shapes: Mapping[str, _Shape]) -> Iterator[Fault]:
    found = {s.layer: shapes[s.layer] for s in layer.sources if s.layer in shapes}
    if len(set(found.values())) > 1:
        given = ", ".join(f"{name} has {list(shape)}" for name, shape in found.items())
        place = place_of(network, layer.name)
        yield Fault(place, f"an add needs inputs of one shape, but {given}.")


def _shape_of(layer: Layer, inputs: Sequence[_Shape]) -> _Shape:
    if layer.kind == "add":
        return inputs[0]
    return _model(layer).out_type([ValueType(shape, 0, 1) for shape in inputs]).shape


def _model(layer: Layer) -> Stage:
    """A stage with the layer's shapes, whatever its values."""
    if layer.kind in WEIGHTED:
        weight = np.zeros(layer.arrays["weight"].shape, np.int8)
        bias = np.zeros(len(weight), np.int64)
        if layer.kind == "linear":
            return Linear(weight, bias, 0, "int32")
        groups = layer.params.get("groups", 1)
        return Conv2d(weight, bias, 0, "int32", channel_groups=groups, **conv_geometry(layer))
    if layer.kind == "avg_pool":
        return SumPool.build(layer.params, {})
    if layer.kind in ("flatten", "batch_norm"):
        return Reshape((-1,)) if layer.kind == "flatten" else Add((0,), "int32")
    if layer.kind in NEURONS:
        return stage_class(layer.kind).authored(layer.params)
    return stage_class(layer.kind).build(layer.params, {})
