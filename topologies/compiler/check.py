"""Everything that can be wrong with a network beyond its document's form; all faults at once."""

import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping

import numpy as np

from topologies.compiler.order import infer_shapes, layer_order, place_of
from topologies.model import (
    ENCODERS,
    INPUT,
    NEURONS,
    READOUTS,
    WEIGHTED,
    Fault,
    Input,
    Layer,
    Network,
)
from topologies.stages.base import StageError
from topologies.stages.table import stage_class

__all__ = ["KINDS", "check_network"]

UNWEIGHTED = ("max_pool", "avg_pool", "sum_pool", "reshape", "flatten", "add")
KINDS = (*WEIGHTED, "batch_norm", *UNWEIGHTED, *NEURONS)
_NAME = re.compile(r"[A-Za-z0-9._-]{1,100}")
_RANKS = {
    ("conv2d", "weight"): 4,
    ("linear", "weight"): 2,
}
_NEEDED = {
    "conv2d": ("weight",),
    "linear": ("weight",),
    "batch_norm": ("running_mean", "running_var"),
}
_POSSIBLE = {
    "conv2d": ("weight", "bias"),
    "linear": ("weight", "bias"),
    "batch_norm": ("weight", "bias", "running_mean", "running_var"),
}


def check_network(network: Network) -> tuple[Fault, ...]:
    """All faults, each with its place and what was legal; empty for a legal network.

    Shapes are checked once the wiring is right, since they follow from it.
    """
    faults = [
        *_names(network),
        *_input(network.input),
        *(fault for layer in network.layers for fault in _layer(network, layer)),
        *_output(network),
    ]
    wiring = list(_wiring(network))
    if wiring or faults:
        return (*faults, *wiring)
    shapes, misfits = infer_shapes(network)
    faults = [*misfits, *_labels(network, shapes.get(network.output.source))]
    return tuple(faults)


def _names(network: Network) -> Iterator[Fault]:
    for place, name in (("name", network.name), ("input.name", network.input.name)):
        if not _NAME.fullmatch(name):
            legal = "1 to 100 of the characters A-Z a-z 0-9 . _ -"
            yield Fault(place, f"{name!r} cannot name a topic: legal are {legal}.")
    counts = Counter(layer.name for layer in network.layers)
    for index, layer in enumerate(network.layers):
        if layer.name == INPUT:
            yield Fault(f"layers[{index}].name", f"{INPUT!r} is the name of the input.")
        if counts[layer.name] > 1:
            yield Fault(
                f"layers[{index}].name",
                f"{layer.name!r} names {counts[layer.name]} layers: give each its own name.",
            )


def _input(spec: Input) -> Iterator[Fault]:
    for name in ("n_steps", "longest_window"):
        value = getattr(spec, name)
        if value is not None and value < 1:
            yield Fault(f"input.{name}", f"{value} steps: legal is 1 or more.")
    if spec.encoder not in ENCODERS:
        legal = ", ".join(ENCODERS)
        yield Fault("input.encoder.kind", f"{spec.encoder!r} is unknown: legal are {legal}.")
        return
    own = {"shape": list(spec.shape), "high": spec.high, "low": spec.low}
    if spec.encoder == "events":
        own = {"shape": list(spec.shape), "high": int(spec.high)}
    try:
        stage_class(spec.encoder).authored({**spec.params, **own})
    except StageError as error:
        yield Fault("input.encoder", str(error))


def _layer(network: Network, layer: Layer) -> Iterator[Fault]:
    place = place_of(network, layer.name)
    if layer.kind not in KINDS:
        yield Fault(place, f"kind {layer.kind!r} is unknown: legal are {', '.join(KINDS)}.")
        return
    if layer.kind in NEURONS:
        try:
            stage_class(layer.kind).authored(layer.params)
        except StageError as error:
            yield Fault(place, str(error))
    yield from _arrays(place, layer)
    if layer.kind == "conv2d":
        yield from _conv(place, layer)
    if layer.kind in ("max_pool", "avg_pool", "sum_pool"):
        yield from _pool(place, layer)
    if layer.kind == "reshape" and not layer.params.get("shape"):
        yield Fault(f"{place}.shape", "a reshape needs the shape to give; -1 stands for the rest.")


def _pool(place: str, layer: Layer) -> Iterator[Fault]:
    try:
        if layer.kind == "avg_pool":
            stage_class("sum_pool").build(layer.params, {})
        else:
            stage_class(layer.kind).build(layer.params, {})
    except KeyError as error:
        yield Fault(place, f"a {layer.kind} needs {error}.")
    except (StageError, TypeError) as error:
        yield Fault(place, str(error))


def _arrays(place: str, layer: Layer) -> Iterator[Fault]:
    possible = _POSSIBLE.get(layer.kind, ())
    for name in _NEEDED.get(layer.kind, ()):
        if name not in layer.arrays:
            yield Fault(f"{place}.weights", f"the array {name!r} of this {layer.kind} is missing.")
    for name, array in layer.arrays.items():
        if name not in possible:
            legal = ", ".join(possible) or "none"
            yield Fault(f"{place}.weights", f"the array {name!r} is unknown: legal are {legal}.")
            continue
        rank = _RANKS.get((layer.kind, name), 1)
        if array.ndim != rank or array.size == 0:
            yield Fault(
                f"{place}.weights",
                f"{name!r} has shape {list(array.shape)}: legal are {rank} dimensions, none empty.",
            )
        elif not np.isfinite(array).all():
            bad = int((~np.isfinite(array)).sum())
            yield Fault(f"{place}.weights", f"{name!r} has {bad} values that are not finite.")
    yield from _bias(place, layer)


def _bias(place: str, layer: Layer) -> Iterator[Fault]:
    weight, bias = layer.arrays.get("weight"), layer.arrays.get("bias")
    if weight is None or bias is None or weight.ndim == 0 or layer.kind not in WEIGHTED:
        pass
    elif bias.shape != weight.shape[:1]:
        yield Fault(
            f"{place}.weights",
            f"'bias' has shape {list(bias.shape)}: legal is [{weight.shape[0]}], one per output "
            "of 'weight'.",
        )
    variance = layer.arrays.get("running_var")
    if variance is not None and (variance < 0).any():
        yield Fault(f"{place}.weights", "'running_var' has negative values.")


def _conv(place: str, layer: Layer) -> Iterator[Fault]:
    groups = layer.params.get("groups", 1)
    weight = layer.arrays.get("weight")
    if weight is not None and weight.ndim == 4 and (groups < 1 or len(weight) % groups):
        yield Fault(f"{place}.groups", f"{groups} groups do not divide {len(weight)} channels.")
    for name, lowest in (("stride", 1), ("padding", 0), ("dilation", 1)):
        value = layer.params.get(name, lowest)
        both = [value] if isinstance(value, int) else list(value)
        if len(both) not in (1, 2) or any(not isinstance(v, int) or v < lowest for v in both):
            yield Fault(f"{place}.{name}", f"{value!r}: legal are integers from {lowest} on.")


def _wiring(network: Network) -> Iterator[Fault]:
    by_name = {layer.name: layer for layer in network.layers}
    for layer in network.layers:
        yield from _sources(network, layer, by_name)
    read = {source.layer for layer in network.layers for source in layer.sources}
    for layer in network.layers:
        if layer.name not in read and layer.name != network.output.source:
            place = place_of(network, layer.name)
            yield Fault(place, "no layer and no readout reads this layer: remove or connect it.")
    _, cyclic = layer_order(network)
    known = all(s.layer in by_name or s.layer == INPUT for x in network.layers for s in x.sources)
    if cyclic and known:
        yield Fault(
            "layers",
            f"{', '.join(cyclic)} wait for each other: a cycle must pass a delay of at least 1.",
        )


def _sources(network: Network, layer: Layer, by_name: Mapping[str, Layer]) -> Iterator[Fault]:
    place = f"{place_of(network, layer.name)}.from"
    least = 2 if layer.kind == "add" else 1
    n = len(layer.sources)
    if n < least or (layer.kind != "add" and n != 1):
        legal = "2 or more layers" if layer.kind == "add" else "1 layer (add several with an add)"
        yield Fault(place, f"a {layer.kind} reads {legal}, not {n}.")
    for source in layer.sources:
        if source.layer not in by_name and source.layer != INPUT:
            legal = ", ".join([INPUT, *by_name])
            yield Fault(place, f"there is no layer {source.layer!r}: legal are {legal}.")
        elif source.delay < 0:
            yield Fault(place, f"a delay of {source.delay} steps: legal is 0 or more.")
        elif source.delay and (source.layer == INPUT or by_name[source.layer].kind not in NEURONS):
            yield Fault(place, f"{source.layer!r} has no spikes to delay: only neurons do.")


def _output(network: Network) -> Iterator[Fault]:
    output = network.output
    names: Iterable[str] = [layer.name for layer in network.layers]
    if output.source not in (*names, INPUT):
        legal = ", ".join(names)
        yield Fault("output.from", f"there is no layer {output.source!r}: legal are {legal}.")
    if output.readout not in READOUTS:
        legal = ", ".join(READOUTS)
        yield Fault("output.readout", f"{output.readout!r} is unknown: legal are {legal}.")
        return
    try:
        stage_class(output.readout).authored(output.params)
    except StageError as error:
        yield Fault("output", str(error))


def _labels(network: Network, shape: tuple[int, ...] | None) -> Iterator[Fault]:
    n = int(np.prod(shape)) if shape else 0
    labels = network.output.labels
    if shape and labels and len(labels) != n:
        yield Fault("output.labels", f"{len(labels)} labels for {n} values: legal is {n} or none.")
