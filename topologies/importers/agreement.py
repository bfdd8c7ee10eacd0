"""How far a compiled network agrees with what it was imported from, on a batch of samples.

The original is its own library, fed with what the encoder sends; of a NIR graph, which has no
library, it is the same network with its weights at 31 bits, whose error is below float32's own.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from topologies.compiler.compile import compile_with_errors
from topologies.compiler.quantise import Bits
from topologies.importers.build import Imported
from topologies.importers.original import Original, run_original
from topologies.importers.trace import Trace, trace
from topologies.model import INPUT, Network
from topologies.stages.base import Array, Encoder

__all__ = ["Agreement", "SpikeAgreement", "compare", "random_batch"]

_EXACT_BITS = 31
_LIBRARIES = ("snntorch", "spikingjelly", "norse")
_STEPS = 32  # of a stream, where neither the network nor the samples say


@dataclass(frozen=True, slots=True)
class SpikeAgreement:
    """Of one neuron layer: the share of equal values, and each side's spikes per value and step."""

    place: str
    layer: str
    equal: float
    rate_original: float
    rate_network: float


@dataclass(frozen=True, slots=True)
class Agreement:
    """`same_class` is the share of samples with the same class, `worst` the largest difference.

    Accuracies are None without labels.
    """

    against: str
    n_samples: int
    n_steps: int
    same_class: float
    worst: float
    accuracy_original: float | None
    accuracy_network: float | None
    spikes: tuple[SpikeAgreement, ...]


def compare(
    imported: Imported,
    values: Array,
    labels: Array | None = None,
    *,
    module: Any = None,
    bits: Bits = "auto",
) -> Agreement:
    """Runs both on `values`: (B, *shape) samples, or (B, T, *shape) integers for events.

    `module` is what was imported, None for NIR; `labels` are integers (B,). Raises EncodingError
    for samples that the network's input would refuse, and what the module raises when it is run.
    """
    network = imported.network
    values = _legal(network, values)
    n_steps = values.shape[1] if network.input.encoder == "events" else _steps(network)
    layers = set(imported.neurons.values())
    mine = _trace(network, values, n_steps, bits, layers | {INPUT})
    after = mine.results[:, -1].astype(np.float64)
    if module is None:
        exact = _trace(network, values, n_steps, _EXACT_BITS, layers)
        before = exact.results[:, -1].astype(np.float64)
        theirs: Mapping[str, Array] = {p: exact.layers[n] for p, n in imported.neurons.items()}
        against = "the graph before quantising"
    else:
        original = run_original(module, _inputs(network, mine.layers[INPUT]), imported.neurons)
        before = _read_out(network, original)
        theirs = {place: spikes.swapaxes(0, 1) for place, spikes in original.spikes.items()}
        against = _library(module)
    return Agreement(
        against=against,
        n_samples=len(values),
        n_steps=n_steps,
        same_class=float(np.mean(before.argmax(axis=1) == after.argmax(axis=1))),
        worst=float(np.abs(before - after).max()),
        accuracy_original=_accuracy(before, labels),
        accuracy_network=_accuracy(after, labels),
        spikes=tuple(
            _spikes(place, layer, theirs[place], mine.layers[layer])
            for place, layer in imported.neurons.items()
        ),
    )


def random_batch(network: Network, n_samples: int, seed: int = 0) -> Array:
    """Samples in the declared range; of events a fifth of all values, in every step anew."""
    spec, rng = network.input, np.random.default_rng(seed)
    if spec.encoder != "events":
        return rng.uniform(spec.low, spec.high, (n_samples, *spec.shape))
    size = (n_samples, _steps(network), *spec.shape)
    return rng.integers(1, int(spec.high), size, endpoint=True) * (rng.random(size) < 0.2)


def _legal(network: Network, values: Array) -> Array:
    """The samples as the encoder takes them."""
    (encoder,) = (
        lowered.stage
        for lowered in compile_with_errors(network).quantised.stages
        if isinstance(lowered.stage, Encoder)
    )
    return np.stack([encoder.validate(sample) for sample in values])


def _library(module: Any) -> str:
    """The library of its neurons."""
    found = {type(part).__module__.partition(".")[0] for part in module.modules()}
    return next((name for name in _LIBRARIES if name in found), "PyTorch")


def _steps(network: Network) -> int:
    return network.input.n_steps or _STEPS


def _trace(network: Network, values: Array, n_steps: int, bits: Bits, wanted: set[str]) -> Trace:
    stages = compile_with_errors(network, bits=bits).quantised.stages
    return trace(stages, values, n_steps, wanted)


def _inputs(network: Network, sent: Array) -> Array:
    """What the encoder sends (B, T, *shape), as what it means: (T, B, *shape)."""
    params = network.input.params
    unit = params.get("unit", params.get("grid", 8)) if network.input.encoder == "direct" else 0
    steps: Array = np.ldexp(sent.swapaxes(0, 1).astype(np.float64), -unit).astype(np.float32)
    return steps


def _read_out(network: Network, original: Original) -> Array:
    """The library's outputs (T, B, n) as the network's readout answers: (B, n)."""
    output = network.output
    every = output.params.get("every")
    outputs = original.outputs.astype(np.float64)
    outputs = outputs[-every:] if every else outputs
    if output.readout == "count":
        result: Array = outputs.sum(axis=0)
    elif output.readout == "mean":
        result = outputs.mean(axis=0)
    else:
        membrane = original.membrane
        result = (outputs[-1] if membrane is None else membrane).astype(np.float64)
    return result


def _accuracy(results: Array, labels: Array | None) -> float | None:
    return None if labels is None else float(np.mean(results.argmax(axis=1) == labels))


def _spikes(place: str, layer: str, theirs: Array, mine: Array) -> SpikeAgreement:
    flat, other = (x.reshape(len(x), x.shape[1], -1) for x in (mine, theirs))
    rates = (float(other.mean()), float(flat.mean()))
    return SpikeAgreement(place, layer, float(np.mean(flat == other)), *rates)
