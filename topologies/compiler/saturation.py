"""Which values may be cut off on their way back to a grid, and on samples how many are."""

from collections.abc import Sequence
from dataclasses import dataclass, field, fields, replace

from topologies.compiled import CompiledNetwork
from topologies.compiler.lowered import Lowered
from topologies.stages.base import Array, Clock, Stage
from topologies.stages.requantise import Requantise

__all__ = ["Counts", "Saturation", "counting", "saturations"]


@dataclass(frozen=True, slots=True)
class Saturation:
    """A layer whose bound exceeds its bits. Of samples: all its values, and those cut off."""

    layer: str
    low: int
    high: int
    unit: int
    n_values: int = 0
    n_saturated: int = 0


@dataclass
class Counts:
    """What has passed a stage."""

    n_values: int = 0
    n_saturated: int = 0


@dataclass(frozen=True, eq=False)
class _Counting(Requantise):
    """Counts what it cuts off: not pure, so it stands in no artifact."""

    counts: Counts = field(default_factory=Counts)

    def run(
        self, inputs: Sequence[Array], state: tuple[Array, ...], clock: Clock
    ) -> tuple[Array, tuple[Array, ...]]:
        self.counts.n_values += inputs[0].size
        self.counts.n_saturated += self.n_saturated(inputs[0])
        return super().run(inputs, state, clock)


def counting(network: CompiledNetwork) -> tuple[CompiledNetwork, dict[int, Counts]]:
    """The network with counts in it, by the `id` of each requantise stage."""
    counts: dict[int, Counts] = {}

    def counted(stage: Stage) -> Stage:
        if not isinstance(stage, Requantise):
            return stage
        values = {f.name: getattr(stage, f.name) for f in fields(stage)}
        return _Counting(**values, counts=counts.setdefault(id(stage), Counts()))

    operators = {}
    for oid, operator in network.operators.items():
        stages = tuple(counted(stage) for stage in operator.program.stages)
        operators[oid] = replace(operator, program=replace(operator.program, stages=stages))
    return replace(network, operators=operators), counts


def saturations(stages: Sequence[Lowered], counts: dict[int, Counts]) -> tuple[Saturation, ...]:
    """The layers that may saturate, with what has been counted of each."""
    found = []
    for lowered in stages:
        stage = lowered.stage
        if not isinstance(stage, Requantise):
            continue
        if stage.may_saturate(stages[lowered.reads[0].index].type):
            mine = counts.get(id(stage), Counts())
            limits = (stage.low, stage.high, stage.unit)
            found.append(Saturation(lowered.label, *limits, mine.n_values, mine.n_saturated))
    return tuple(found)
