"""What compiling did to a network: errors of weights, and of answers on samples.

"Before" is the same network with its weights at 31 bits, whose error is below float32's own, or at
as many as have exact sums where synapses follow each other without neurons in between; it is run by
the same reference. "After" has the bits that were asked for.
"""

from dataclasses import dataclass

import numpy as np

from topologies.compiled import CompiledNetwork
from topologies.compiler.compile import Compilation, compile_network
from topologies.compiler.quantise import WeightError
from topologies.compiler.saturation import Saturation, counting, saturations
from topologies.model import Network, NetworkError
from topologies.trials import Trial

__all__ = ["Agreement", "Report", "make_report", "not_portable"]

_EXACT_BITS = (31, 27, 24, 21, 18, 16)


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
    trial: Trial | None = None,
) -> Report:
    """The report of a compilation of `network`, which is tried with the samples of `trial`."""
    errors, stages = compilation.quantised.errors, compilation.quantised.stages
    if trial is None:
        return Report(errors, None, saturations(stages, {}))
    counted, counts = counting(compilation.network)
    before, after = trial.run(_exact(network)), trial.run(counted)
    n_classes = compilation.network.outputs.shape[0]
    old, new = trial.classes(before, n_classes), trial.classes(after, n_classes)
    labels = trial.labels
    same = [np.array_equal(a, b) for a, b in zip(before, after, strict=True)]
    return Report(
        errors,
        Agreement(
            n_samples=trial.n_samples,
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
