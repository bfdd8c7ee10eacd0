"""A network as it was authored: named layers with float weights, before any compiling."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from topologies.errors import SpikeRouterError

__all__ = [
    "INPUT",
    "Fault",
    "FloatArray",
    "Input",
    "Layer",
    "Network",
    "NetworkError",
    "Output",
    "Source",
]

FloatArray = npt.NDArray[np.float64]

INPUT = "input"  # the name by which layers read the encoded input


@dataclass(frozen=True, slots=True)
class Fault:
    """Something wrong in a network. `place` is a path such as `layers[2].stride`."""

    place: str
    message: str

    def __str__(self) -> str:
        """One line."""
        return f"{self.place}: {self.message}" if self.place else self.message


class NetworkError(SpikeRouterError, ValueError):
    """A network is not legal; `faults` has everything that is wrong with it."""

    def __init__(self, faults: Iterable[Fault], name: str = "") -> None:
        """Keeps the faults and says all of them."""
        self.faults = tuple(faults)
        of = f" of network {name!r}" if name else ""
        count = "1 fault" if len(self.faults) == 1 else f"{len(self.faults)} faults"
        super().__init__("\n  ".join([f"{count}{of}:", *map(str, self.faults)]))


@dataclass(frozen=True, slots=True)
class Source:
    """What a layer reads: the output of `layer`, `delay` steps late."""

    layer: str
    delay: int = 0


@dataclass(frozen=True, eq=False)
class Layer:
    """One layer. `arrays` are float64: weight, bias, statistics, constants with many values.

    `stage` names the service it belongs to at granularity `stage`; None: derived from the shapes.
    """

    name: str
    kind: str
    sources: tuple[Source, ...]
    params: Mapping[str, Any] = field(default_factory=dict)
    arrays: Mapping[str, FloatArray] = field(default_factory=dict)
    stage: str | None = None


@dataclass(frozen=True, eq=False)
class Input:
    """What a network reads. Several networks may declare one input by its name.

    `params` are the encoder's own. `longest_window` and `n_steps` are in steps; `n_steps` is the
    length of a request, None when the client says it.
    """

    name: str
    shape: tuple[int, ...]
    encoder: str
    params: Mapping[str, Any] = field(default_factory=dict)
    low: float = 0.0
    high: float = 1.0
    n_steps: int | None = None
    longest_window: int | None = None


@dataclass(frozen=True, eq=False)
class Output:
    """The readout at the end: of layer `source`. `params` are the readout's own."""

    readout: str
    source: str
    params: Mapping[str, Any] = field(default_factory=dict)
    labels: tuple[str, ...] = ()


@dataclass(frozen=True, eq=False)
class Network:
    """An authored network. Layers stand in any order; delays may close cycles."""

    name: str
    input: Input
    layers: tuple[Layer, ...]
    output: Output
