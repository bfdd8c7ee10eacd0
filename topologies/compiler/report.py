"""What compiling did to a network: errors of weights, and of answers on samples.

"Before" is the same network with its weights at 31 bits, whose error is below float32's own, or at
as many as have exact sums where synapses follow each other without neurons in between; it is run by
the same reference. "After" has the bits that were asked for.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np

from topologies.compiled import CompiledNetwork, run_reference
from topologies.compiler.compile import Compilation, compile_network
from topologies.compiler.quantise import WeightError
from topologies.compiler.saturation import Saturation, counting, saturations
from topologies.model import Network, NetworkError
from topologies.stages.base import Array

__all__ = ["Agreement", "Report", "classes_of", "make_report", "not_portable"]

_EXACT_BITS = (31, 27, 24, 21, 18, 16)
_BATCH = 32  # streams that run at once


@dataclass(frozen=True, slots=True)
class Agreement:
    """On samples: the share of equal classes before and after, and each one's accuracy.

    Accuracies are None without labels. `identical` is the share of results equal bit for bit.
    """

    n_samples: int
    agreement: float
    identical: float
    accuracy_before: float | None
    accuracy_after: float | None


@dataclass(frozen=True, slots=True)
class Report:
    """The weight error of each layer, and the agreement if there were samples.

    `saturating` are the layers whose values may be cut off, counted on the samples.
    """

    weights: tuple[WeightError, ...]
    agreement: Agreement | None
    saturating: tuple[Saturation, ...] = ()

    @property
    def worst(self) -> WeightError | None:
        """The layer with the largest error, in relation to its largest weight."""
        return max(self.weights, key=lambda e: e.worst / (e.largest or 1.0), default=None)


def not_portable(network: CompiledNetwork) -> str:
    """A line about the operators whose bits depend on the machine (numerics 18); "" for none."""
    found = network.not_portable
    if not found:
        return ""
    return f"not portable: {', '.join(found)}: same bits on one machine and installation only"


def make_report(
    network: Network,
    compilation: Compilation,
    samples: Array | None = None,
    labels: Array | None = None,
) -> Report:
    """The report of a compilation of `network`.

    `samples` are as `run_reference` takes them, (B, ...); `labels` are integers (B,).
    """
    errors, stages = compilation.quantised.errors, compilation.quantised.stages
    if samples is None:
        return Report(errors, None, saturations(stages, {}))
    counted, counts = counting(compilation.network)
    before, after = _results(_exact(network), samples), _results(counted, samples)
    old, new = classes_of(before), classes_of(after)
    same = [np.array_equal(a, b) for a, b in zip(before, after, strict=True)]
    return Report(
        errors,
        Agreement(
            n_samples=len(samples),
            agreement=float(np.mean(old == new)),
            identical=float(np.mean(same)),
            accuracy_before=None if labels is None else float(np.mean(old == labels)),
            accuracy_after=None if labels is None else float(np.mean(new == labels)),
        ),
        saturations(stages, counts),
    )


def _exact(network: Network) -> CompiledNetwork:
    """With the most bits that have exact sums."""
    for bits in _EXACT_BITS[:-1]:
        try:
            return compile_network(network, bits=bits)
        except NetworkError:
            continue
    return compile_network(network, bits=_EXACT_BITS[-1])


def _results(network: CompiledNetwork, samples: Array) -> list[Array]:
    results: list[Array] = []
    for start in range(0, len(samples), _BATCH):
        results.extend(run_reference(network, samples[start : start + _BATCH]))
    return results


def classes_of(results: list[Array]) -> np.ndarray[Any, np.dtype[np.int64]]:
    """The class of each stream: the lowest index of the maximum of its last emission."""
    return np.array([int(np.argmax(result[-1])) for result in results], np.int64)
