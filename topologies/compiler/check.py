"""Everything that can be wrong with a network beyond its document's form; all faults at once."""

from collections import Counter
from collections.abc import Iterable, Iterator

import numpy as np

from topologies.compiler.delays import delays_on_edges
from topologies.compiler.order import infer_shapes, layer_order, place_of, signals_of
from topologies.layers import LAYERS, layer_class
from topologies.model import INPUT, Fault, Input, Layer, Network
from topologies.names import LEGAL_NAMES, TOPIC_NAME
from topologies.stages.base import StageError
from topologies.stages.table import kinds_of, stage_class

__all__ = ["check_network"]


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
        if not TOPIC_NAME.fullmatch(name):
            yield Fault(place, f"{name!r} cannot name a topic: legal are {LEGAL_NAMES}")
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
    if spec.encoder not in (encoders := kinds_of("encoder")):
        legal = ", ".join(encoders)
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
    if layer.kind not in LAYERS:
        yield Fault(place, f"kind {layer.kind!r} is unknown: legal are {', '.join(LAYERS)}.")
        return
    faults = list(_arrays(place, layer))
    yield from faults
    if not faults:
        for field, message in layer_class(layer.kind).faults(layer.params, layer.arrays):
            yield Fault(f"{place}.{field}" if field else place, message)


def _arrays(place: str, layer: Layer) -> Iterator[Fault]:
    cls = layer_class(layer.kind)
    possible = {**cls.needs, **cls.takes}
    for name in cls.needs:
        if name not in layer.arrays:
            yield Fault(f"{place}.weights", f"the array {name!r} of this {layer.kind} is missing.")
    for name, array in layer.arrays.items():
        if name not in possible:
            legal = ", ".join(possible) or "none"
            yield Fault(f"{place}.weights", f"the array {name!r} is unknown: legal are {legal}.")
            continue
        rank = possible[name]
        if array.size == 0 or rank not in (None, array.ndim):
            dimensions = "any number of" if rank is None else rank
            yield Fault(
                f"{place}.weights",
                f"{name!r} has shape {list(array.shape)}: legal are {dimensions} dimensions, none "
                "empty.",
            )
        elif not np.isfinite(array).all():
            bad = int((~np.isfinite(array)).sum())
            yield Fault(f"{place}.weights", f"{name!r} has {bad} values that are not finite.")


def _wiring(network: Network) -> Iterator[Fault]:
    by_name = {layer.name: layer for layer in network.layers}
    known = {INPUT, *by_name}
    sound = all(s.layer in known and s.delay >= 0 for x in network.layers for s in x.sources)
    legal = all(layer.kind in LAYERS for layer in network.layers)
    for layer in network.layers:
        yield from _sources(network, layer, known)
    read = {source.layer for layer in network.layers for source in layer.sources}
    for layer in network.layers:
        if layer.name not in read and layer.name != network.output.source:
            place = place_of(network, layer.name)
            yield Fault(place, "no layer and no readout reads this layer: remove or connect it.")
    if sound and legal:
        yield from _delays(network)


def _sources(network: Network, layer: Layer, known: Iterable[str]) -> Iterator[Fault]:
    place = f"{place_of(network, layer.name)}.from"
    n = len(layer.sources)
    least, most = layer_class(layer.kind).n_sources if layer.kind in LAYERS else (0, None)
    if n < least or (most is not None and n > most):
        legal = f"{least} or more layers" if most is None else f"{least} layer{'s' * (least > 1)}"
        advice = " (add several with an add)" if most == 1 else ""
        yield Fault(place, f"a {layer.kind} reads {legal}{advice}, not {n}.")
    for source in layer.sources:
        if source.layer not in known:
            yield Fault(place, f"there is no layer {source.layer!r}: legal are {', '.join(known)}.")
        elif source.delay < 0:
            yield Fault(place, f"a delay of {source.delay} steps: legal is 0 or more.")


def _delays(network: Network) -> Iterator[Fault]:
    """Delays of what may not travel, and cycles without one."""
    signals = signals_of(network)
    for layer in network.layers:
        for source in layer.sources:
            if source.delay and source.layer not in signals:
                yield Fault(
                    f"{place_of(network, layer.name)}.from",
                    f"{source.layer!r} has no spikes to delay: its sums stay in their operator. "
                    "Delay what it reads, or put a layer of kind delay behind it.",
                )
    _, cyclic = layer_order(delays_on_edges(network))
    if cyclic:
        yield Fault(
            "layers",
            f"{', '.join(cyclic)} wait for each other: a cycle must pass a delay of at least 1.",
        )


def _output(network: Network) -> Iterator[Fault]:
    output = network.output
    names: Iterable[str] = [layer.name for layer in network.layers]
    if output.source not in (*names, INPUT):
        legal = ", ".join(names)
        yield Fault("output.from", f"there is no layer {output.source!r}: legal are {legal}.")
    if output.readout not in (readouts := kinds_of("readout")):
        legal = ", ".join(readouts)
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
