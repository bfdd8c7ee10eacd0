"""What all importers share: names, layers as they are found, and the network they make."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from math import prod
from typing import Any, TypeAlias

import numpy as np

from topologies.compiler.check import check_network
from topologies.compiler.order import layer_order
from topologies.model import (
    INPUT,
    Fault,
    FloatArray,
    Input,
    Layer,
    Network,
    NetworkError,
    Output,
    Source,
)

__all__ = ["Builder", "Face", "Imported", "compact", "safe_name"]

_LONGEST_LIST = 16  # values of a constant; longer ones go to the weights file
_Constants: TypeAlias = Mapping[str, Any]
_ALWAYS = "always"
_LEGAL = re.compile(r"[^A-Za-z0-9._-]+")


@dataclass(frozen=True, eq=False)
class Face:
    """What neither a NIR file nor a module says of a network: how it meets the world.

    `encoder`, `params`, `low`, `high` and `n_steps` are those of `Input`; `readout` and `readings`
    those of `Output`. A readout of None is chosen by what the last node emits.
    """

    name: str
    encoder: str = "events"
    params: Mapping[str, Any] = field(default_factory=dict)
    low: float = 0.0
    high: float = 1.0
    n_steps: int | None = None
    readout: str | None = None
    readings: Mapping[str, Any] = field(default_factory=dict)
    labels: tuple[str, ...] = ()

    def input(self, shape: Sequence[int]) -> Input:
        """The input of this shape."""
        return Input(
            name=self.name,
            shape=tuple(int(size) for size in shape),
            encoder=self.encoder,
            params=self.params,
            low=self.low,
            high=self.high,
            n_steps=self.n_steps,
        )

    def output(self, source: str, readout: str, readings: Mapping[str, Any]) -> Output:
        """The output of layer `source`: as asked for, else the readout that is given."""
        if self.readout is not None:
            readout, readings = self.readout, self.readings
        return Output(readout, source, readings, self.labels)


@dataclass(frozen=True, eq=False)
class Imported:
    """A network, and where it came from.

    `neurons` maps each spiking node or module, by its path, to the layer with its spikes. `notes`
    are sentences on what was read in a way that the original does not say.
    """

    network: Network
    neurons: Mapping[str, str]
    notes: tuple[str, ...] = ()


@dataclass(eq=False)
class Builder:
    """Collects layers and faults. A place is the path of a node or module in the original."""

    layers: dict[str, Layer] = field(default_factory=dict)
    neurons: dict[str, str] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    faults: list[Fault] = field(default_factory=list)
    taken: set[str] = field(default_factory=lambda: {_ALWAYS})

    def add(
        self,
        name: str,
        kind: str,
        sources: Sequence[Source],
        params: Mapping[str, Any] | None = None,
        arrays: Mapping[str, Any] | None = None,
    ) -> Source:
        """One more layer, named as it was reserved, or by the nearest name that is free."""
        name = name if name in self.taken and name not in self.layers else self.reserve(name)
        found: dict[str, FloatArray] = {
            key: np.asarray(value, np.float64) for key, value in (arrays or {}).items()
        }
        self.layers[name] = Layer(name, kind, tuple(sources), dict(params or {}), found)
        return Source(name)

    def add_constants(
        self, name: str, kind: str, sources: Sequence[Source], constants: _Constants
    ) -> Source:
        """A layer with constants: those with many values go to its arrays."""
        params, arrays = split_constants(constants)
        return self.add(name, kind, sources, params, arrays)

    def add_neuron(
        self, place: str, name: str, kind: str, sources: Sequence[Source], constants: _Constants
    ) -> Source:
        """A layer that stands for the spikes of the original's `place`."""
        found = self.add_constants(name, kind, sources, constants)
        self.neurons[place] = found.layer
        return found

    def always(self, shape: Sequence[int]) -> Source:
        """A neuron that fires in every step; `shape` is that of the input, which it does not heed.

        Read late, it is what a bias comes from that acts from a later step on.
        """
        if _ALWAYS not in self.layers:
            n, source = prod(shape), Source(INPUT)
            if len(shape) > 1:
                source = self.add(f"{_ALWAYS}.flat", "flatten", [source])
            arrays = {"weight": np.zeros((1, n)), "bias": np.ones(1)}
            current = self.add(f"{_ALWAYS}.current", "linear", [source], {}, arrays)
            self.add(_ALWAYS, "if", [current], {"v_reset": 0.0})
        return Source(_ALWAYS)

    def reserve(self, name: str) -> str:
        """The legal name that is nearest and not taken; it is taken from now on."""
        base = candidate = safe_name(name)
        number = 2
        while candidate in self.taken:
            candidate = f"{base}_{number}"
            number += 1
        self.taken.add(candidate)
        return candidate

    def note(self, place: str, sentence: str) -> None:
        """Something that was decided, said once."""
        text = f"{place}: {sentence}"
        if text not in self.notes:
            self.notes.append(text)

    def finished(self, face: Face, shape: Sequence[int], output: Output) -> Imported:
        """The network, its layers in the order of the flow. Raises NetworkError."""
        if self.faults:
            raise NetworkError(self.faults, face.name)
        layers = tuple(self.layers.values())
        network = Network(face.name, face.input(shape), layers, output)
        known = {INPUT, *self.layers}
        if all(source.layer in known for layer in layers for source in layer.sources):
            order, cyclic = layer_order(network)
            rest = tuple(layer for layer in layers if layer.name in cyclic)
            network = Network(face.name, network.input, (*order, *rest), output)
        faults = check_network(network)
        if faults:
            raise NetworkError(faults, face.name)
        return Imported(network, dict(self.neurons), tuple(self.notes))


def safe_name(name: str) -> str:
    """The name with legal characters only, and not that of the input."""
    text = _LEGAL.sub("_", name).strip("_")[:90] or "node"
    return f"{text}_" if text == INPUT else text


def split_constants(constants: _Constants) -> tuple[dict[str, Any], dict[str, FloatArray]]:
    """(parameters, arrays): long constants are arrays, short ones lists, equal ones numbers."""
    params: dict[str, Any] = {}
    arrays: dict[str, FloatArray] = {}
    for name, value in constants.items():
        if not isinstance(value, np.ndarray):
            params[name] = value
        elif value.size > _LONGEST_LIST:
            arrays[name] = value.ravel().astype(np.float64)
        else:
            params[name] = [float(x) for x in value.ravel()]
    return params, arrays


def compact(values: FloatArray, shape: tuple[int, ...]) -> float | FloatArray:
    """A constant of neurons of `shape` in its shortest form: a number, (channels,) or (n,).

    Leading axes of length 1 that `shape` has not, such as a batch, are dropped. Raises ValueError
    where the values do not fit.
    """
    given = np.asarray(values, np.float64)
    while given.ndim > len(shape) and given.shape[0] == 1:
        given = given[0]
    full = np.broadcast_to(given, shape)
    first = full.flat[0]
    if (full == first).all():
        return float(first)
    by_channel = full.reshape(shape[0], -1)
    if (by_channel == by_channel[:, :1]).all():
        return np.ascontiguousarray(by_channel[:, 0])
    return np.ascontiguousarray(full).ravel()
