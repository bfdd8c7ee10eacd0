"""A network as compiled stages, still in one piece: what is cut into operators afterwards.

Everything that decides bits (scales, accumulators) is fixed here, so that no cut can change one.
"""

from dataclasses import dataclass

from topologies.stages.base import Stage, ValueType

__all__ = ["Lowered", "Read"]


@dataclass(frozen=True, slots=True)
class Read:
    """The output of stage `index`, `delay` steps late. With a delay the stage may come later."""

    index: int
    delay: int = 0


@dataclass(frozen=True, eq=False)
class Lowered:
    """One stage of the whole network, in topological order of the undelayed reads.

    `label` is the authored layer's name, `service` what the layer said about its stage. `signal`:
    made of spikes and unweighted sums of them only, so that it may travel.
    """

    label: str
    stage: Stage
    reads: tuple[Read, ...]
    type: ValueType
    signal: bool
    service: str | None = None
