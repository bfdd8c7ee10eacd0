"""From a network file's document, whose form is legal, to the network it describes. Pure."""

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from topologies.layers import layer_class
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
from topologies.stages.base import Array

__all__ = ["needs_weights", "network_of"]

_COMMON = {"name", "kind", "from", "stage", "weights"}
_NO_PARAMS = {"readout", "from", "labels"}


def needs_weights(document: Mapping[str, Any]) -> bool:
    """Whether any layer reads the weights file."""
    return any(layer_class(x["kind"]).needs or "weights" in x for x in document["layers"])


def network_of(document: Mapping[str, Any], arrays: Mapping[str, Array]) -> Network:
    """The network of a document with the arrays of its weights file.

    Raises NetworkError when arrays are missing; other faults are the compiler's to find.
    """
    faults: list[Fault] = []
    layers = []
    previous = INPUT
    for index, entry in enumerate(document["layers"]):
        place = f"layers[{index}] ({entry['name']}).weights"
        found, missing = _arrays(entry, arrays)
        faults.extend(Fault(place, _missing(name, arrays)) for name in missing)
        layers.append(_layer(entry, previous, found))
        previous = entry["name"]
    if faults:
        raise NetworkError(faults, document["name"])
    return Network(document["name"], _input(document), tuple(layers), _output(document, previous))


def _missing(name: str, arrays: Mapping[str, Array]) -> str:
    legal = ", ".join(sorted(arrays)) or "no array at all"
    return f"the weights file has no array {name!r}: it has {legal}."


def _arrays(
    entry: Mapping[str, Any], arrays: Mapping[str, Array]
) -> tuple[dict[str, FloatArray], list[str]]:
    """(arrays of a layer, names in the file that are missing).

    A kind whose arrays are all optional has some only if it says which: `weights`.
    """
    cls = layer_class(entry["kind"])
    if not cls.needs and "weights" not in entry:
        return {}, []
    given = entry.get("weights", entry["name"])
    if isinstance(given, Mapping):
        keys, needed = dict(given), list(given.values())
    else:
        keys = {name: f"{given}.{name}" for name in (*cls.needs, *cls.takes)}
        needed = [keys[name] for name in cls.needs]
    found = {n: arrays[key].astype(np.float64) for n, key in keys.items() if key in arrays}
    return found, [key for key in needed if key not in arrays]


def _layer(entry: Mapping[str, Any], previous: str, arrays: Mapping[str, FloatArray]) -> Layer:
    return Layer(
        name=entry["name"],
        kind=entry["kind"],
        sources=tuple(_sources(entry.get("from", previous))),
        params={name: value for name, value in entry.items() if name not in _COMMON},
        arrays=arrays,
        stage=entry.get("stage"),
    )


def _sources(given: Any) -> Iterator[Source]:
    for one in given if isinstance(given, list) else [given]:
        yield Source(one) if isinstance(one, str) else Source(one["layer"], one.get("delay", 0))


def _input(document: Mapping[str, Any]) -> Input:
    entry = document["input"]
    encoder = dict(entry["encoder"])
    return Input(
        name=entry.get("name", document["name"]),
        shape=tuple(entry["shape"]),
        encoder=encoder.pop("kind"),
        params=encoder,
        low=float(entry.get("low", 0.0)),
        high=float(entry.get("high", 1.0)),
        n_steps=entry.get("n_steps"),
        longest_window=entry.get("longest_window"),
    )


def _output(document: Mapping[str, Any], previous: str) -> Output:
    entry = document["output"]
    params = {name: value for name, value in entry.items() if name not in _NO_PARAMS}
    labels = tuple(entry.get("labels", ()))
    return Output(entry["readout"], entry.get("from", previous), params, labels)
