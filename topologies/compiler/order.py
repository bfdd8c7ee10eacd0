"""The order of layers, the shapes that pass between them, and which of them may travel."""

from collections.abc import Iterator, Mapping, Sequence

import numpy as np

from topologies.layers import layer_class
from topologies.model import INPUT, Fault, Layer, Network
from topologies.stages.base import StageError, ValueType

__all__ = ["infer_shapes", "layer_order", "place_of", "readers_of", "signals_of"]

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


def signals_of(network: Network) -> set[str]:
    """The input and the layers whose output may travel: no sum of synapses is in it."""
    found = {INPUT} | {x.name for x in network.layers if layer_class(x.kind).travels == "always"}
    grown = True
    while grown:
        more = {
            layer.name
            for layer in network.layers
            if layer_class(layer.kind).travels == "as its inputs"
            and all(source.layer in found for source in layer.sources)
        }
        grown = not more <= found
        found |= more
    return found


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
        if _joins(layer) and layer.name in shapes:
            faults.extend(_unequal(network, layer, shapes))
    return shapes, faults


def _known(
    network: Network, shapes: Mapping[str, _Shape], broken: set[str]
) -> Iterator[tuple[Layer, list[_Shape]]]:
    """Layers without a shape whose inputs have one; then adds with at least one such input."""
    for partial in (False, True):
        for layer in network.layers:
            known = [shapes[s.layer] for s in layer.sources if s.layer in shapes]
            enough = known and (len(known) == len(layer.sources) or (partial and _joins(layer)))
            if enough and layer.name not in shapes and layer.name not in broken:
                yield layer, known


def _unequal(network: Network, layer: Layer, shapes: Mapping[str, _Shape]) -> Iterator[Fault]:
    found = {s.layer: shapes[s.layer] for s in layer.sources if s.layer in shapes}
    if len(set(found.values())) > 1:
        given = ", ".join(f"{name} has {list(shape)}" for name, shape in found.items())
        place = place_of(network, layer.name)
        yield Fault(place, f"an {layer.kind} needs inputs of one shape, but {given}.")


def _joins(layer: Layer) -> bool:
    """Whether it takes any number of inputs, of one shape, which is its output's."""
    return layer_class(layer.kind).n_sources[1] is None


def _shape_of(layer: Layer, inputs: Sequence[_Shape]) -> _Shape:
    if _joins(layer):
        return inputs[0]
    cls = layer_class(layer.kind)
    values = [ValueType(shape, 0, 0) for shape in inputs]
    arrays = {
        name: np.zeros(array.shape) if cls.weighted and name in ("weight", "bias") else array
        for name, array in layer.arrays.items()
    }
    return cls.lowered(layer.params, arrays, values).out_type(values).shape
