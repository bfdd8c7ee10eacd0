"""Cut an operator into synapse groups that fit a capacity.

A group is a run of the operator's outputs with all incoming synapses and state. Convolutions are
cut between channels and, where one channel alone is too large, between rows of every channel;
attention between heads, linear layers between rows; ingest and readout are never cut. The groups of
an operator are as few as fit, and as equal as its granules (whole channels, single rows) allow.
"""

from collections.abc import Callable
from dataclasses import dataclass

from topologies.compiled import Group, Operator
from topologies.errors import SpikeRouterError
from topologies.stages.base import Cost

__all__ = ["Capacity", "CapacityError", "cut_groups", "fewest_groups", "split"]


class CapacityError(SpikeRouterError, ValueError):
    """An operator cannot be cut so that it fits."""


@dataclass(frozen=True, slots=True)
class Capacity:
    """What one worker holds of one operator; None is unbounded.

    Without `readouts` it is a hardware node's, beside which readouts run on the host.
    """

    neurons: int | None = None
    synapses: int | None = None
    readouts: bool = True

    def __post_init__(self) -> None:
        """Refuses what nothing fits into."""
        for name, value in (("neurons", self.neurons), ("synapses", self.synapses)):
            if value is not None and value < 1:
                raise CapacityError(f"A capacity of {value} {name} holds nothing: at least 1.")

    def holds(self, cost: Cost) -> bool:
        """Whether something of this cost fits."""
        return (self.neurons is None or cost.n_neurons <= self.neurons) and (
            self.synapses is None or cost.n_synapses <= self.synapses
        )


def split(n: int, granule: int, count: int) -> tuple[Group, ...]:
    """`count` runs of n outputs, at multiples of `granule`, whose sizes differ by one granule."""
    units = n // granule
    edges = [units * index // count * granule for index in range(count + 1)]
    return tuple(Group(i, edges[i], edges[i + 1]) for i in range(count))


def fewest_groups(
    operator: Operator, fits: Callable[[Group], bool], least: int = 1
) -> tuple[Group, ...] | None:
    """The fewest groups, `least` or more, that all fit; None if not even the smallest do."""
    n = operator.output.n
    granule = operator.program.granule() or n
    for count in range(min(least, n // granule), n // granule + 1):
        groups = split(n, granule, count)
        if all(fits(group) for group in groups):
            return groups
    return _by_rows(operator, n, granule, fits)


def _by_rows(
    operator: Operator, n: int, channel: int, fits: Callable[[Group], bool]
) -> tuple[Group, ...] | None:
    """Each channel in as few equal runs of rows as all fit."""
    row = operator.program.row_granule()
    for parts in range(2, channel // row + 1) if row else ():
        runs = split(channel, row or 1, parts)
        groups = [(base + run.lo, base + run.hi) for base in range(0, n, channel) for run in runs]
        found = tuple(Group(index, lo, hi) for index, (lo, hi) in enumerate(groups))
        if all(fits(group) for group in found):
            return found
    return None


def cut_groups(operator: Operator, capacity: Capacity | None, label: str = "") -> tuple[Group, ...]:
    """The groups of an operator. Raises CapacityError when no cut fits."""
    whole = (Group(0, 0, operator.output.n),)
    if capacity is None:
        return whole
    beside = operator.kind == "ingest" or (operator.kind == "readout" and not capacity.readouts)
    if beside or capacity.holds(operator.cost):
        return whole

    def fits(group: Group) -> bool:
        return capacity.holds(operator.program.slice(group.lo, group.hi).cost)

    groups = fewest_groups(operator, fits)
    if groups is None:
        raise CapacityError(_sentence(operator, capacity, label))
    return groups


def _sentence(operator: Operator, capacity: Capacity, label: str) -> str:
    granule = operator.program.row_granule() or operator.program.granule()
    cost = operator.cost
    limits = f"{capacity.neurons or 'any'} neurons and {capacity.synapses or 'any'} synapses"
    if granule is None:
        why = (
            "and cannot be cut: it is a readout"
            if operator.kind == "readout"
            else "and cannot be cut, for its groups would share neurons: take granularity layer"
        )
    else:
        part = operator.program.slice(0, granule).cost
        why = (
            f"and even its smallest group ({granule} outputs) needs {part.n_neurons} neurons and "
            f"{part.n_synapses} synapses"
        )
    return (
        f"Operator {label or operator.id} needs {cost.n_neurons} neurons and {cost.n_synapses} "
        f"synapses, the capacity is {limits}, {why}. Give it a larger capacity."
    )
