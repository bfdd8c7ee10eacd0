"""A network as a network file: YAML that a person can read and edit, and safetensors beside it.

Reading the file gives the network that was written: constants are float32 in the end, and are
written as the shortest decimals that stand for those.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np
import yaml
from safetensors.numpy import save

from topologies.files import FileError, check_target, write_file
from topologies.layers import layer_class
from topologies.model import INPUT, FloatArray, Layer, Network, Source
from topologies.stages.base import Array
from topologies.stages.dynamics import Neuron

__all__ = ["arrays_of", "check_targets", "document_of", "text_of", "write_network"]

_USUAL: Final = {"low": 0.0, "high": 1.0}


def check_targets(path: Path) -> Path:
    """The path of the weights file that belongs to a network file.

    Raises FileError unless both can be written: asked before the work, and not after it.
    """
    if path.suffix == ".safetensors" or not path.name:
        raise FileError(
            f"{str(path)!r} cannot be a network file, with its weights beside it: legal is a name "
            "such as net.yaml."
        )
    weights = path.with_suffix(".safetensors")
    check_target(path)
    check_target(weights)
    return weights


def write_network(path: Path, network: Network, remarks: Sequence[str] = ()) -> Path:
    """Writes `path` and `<stem>.safetensors` beside it; returns the latter's path.

    `remarks` become comments at the top. Raises FileError.
    """
    weights = check_targets(path)
    write_file(weights, save(arrays_of(network)))
    write_file(path, text_of(document_of(network, weights.name), remarks).encode("utf-8"))
    return weights


def document_of(network: Network, weights: str) -> dict[str, Any]:
    """The document of a network file (docs/topology-format.md)."""
    previous = INPUT
    layers = []
    for layer in network.layers:
        layers.append(_layer(layer, previous))
        previous = layer.name
    return {
        "format": 1,
        "name": network.name,
        "weights": weights,
        "input": _input(network),
        "layers": layers,
        "output": _output(network, previous),
    }


def arrays_of(network: Network) -> dict[str, Array]:
    """The arrays of the weights file, `<layer>.<array>`: float32 where that holds them."""
    return {
        f"{layer.name}.{name}": _narrow(array)
        for layer in network.layers
        for name, array in layer.arrays.items()
    }


def text_of(document: Mapping[str, Any], remarks: Sequence[str] = ()) -> str:
    """The YAML text: one line per layer."""
    lines = [f"# {line}" for remark in remarks for line in remark.splitlines()]
    for key, value in document.items():
        if key == "layers":
            lines += ["", "layers:", *(f"  - {_flow(layer)}" for layer in value), ""]
        elif key == "input":
            lines += ["", "input:", *(f"  {k}: {_flow(v)}" for k, v in value.items())]
        else:
            lines.append(f"{key}: {_flow(value)}")
    return "\n".join(lines) + "\n"


def _flow(value: Any) -> str:
    text: str = yaml.safe_dump(
        value, default_flow_style=True, sort_keys=False, width=1e9, allow_unicode=True
    )
    return text.removesuffix("\n").removesuffix("\n...")


def _narrow(array: FloatArray) -> Array:
    single = array.astype(np.float32)
    exact = np.array_equal(single.astype(np.float64), array)
    return np.ascontiguousarray(single if exact else array)


def _layer(layer: Layer, previous: str) -> dict[str, Any]:
    entry: dict[str, Any] = {"name": layer.name, "kind": layer.kind}
    if layer.sources != (Source(previous),):
        sources = [_source(source) for source in layer.sources]
        entry["from"] = sources[0] if len(sources) == 1 else sources
    single = issubclass(layer_class(layer.kind), Neuron)
    entry |= {name: _plain(value, single) for name, value in layer.params.items()}
    if layer.arrays and not layer_class(layer.kind).needs:
        entry["weights"] = {name: f"{layer.name}.{name}" for name in layer.arrays}
    if layer.stage is not None:
        entry["stage"] = layer.stage
    return entry


def _source(source: Source) -> Any:
    return {"layer": source.layer, "delay": source.delay} if source.delay else source.layer


def _input(network: Network) -> dict[str, Any]:
    spec = network.input
    entry: dict[str, Any] = {"shape": list(spec.shape)}
    if spec.name != network.name:
        entry["name"] = spec.name
    limits = {"low": spec.low, "high": spec.high}
    entry |= {name: _plain(v, False) for name, v in limits.items() if v != _USUAL[name]}
    lengths = {"n_steps": spec.n_steps, "longest_window": spec.longest_window}
    entry |= {name: value for name, value in lengths.items() if value is not None}
    params = {name: _plain(value, False) for name, value in spec.params.items()}
    return {**entry, "encoder": {"kind": spec.encoder, **params}}


def _output(network: Network, previous: str) -> dict[str, Any]:
    output = network.output
    entry: dict[str, Any] = {"readout": output.readout}
    if output.source != previous:
        entry["from"] = output.source
    entry |= {name: _plain(value, True) for name, value in output.params.items()}
    return {**entry, **({"labels": list(output.labels)} if output.labels else {})}


def _plain(value: Any, single: bool) -> Any:
    """What YAML can say; `single`: numbers that become float32, in their shortest form."""
    if isinstance(value, list | tuple):
        return [_plain(item, single) for item in value]
    if isinstance(value, np.generic):
        value = value.item()
    if not isinstance(value, float):
        return value
    short = float(str(np.float32(value)))
    if single and np.float32(short) == np.float32(value):
        value = short
    return int(value) if value.is_integer() and abs(value) < 2**53 else value
