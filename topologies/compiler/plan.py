"""What a compiled network asks of a deployment: topics, tasks, and batches that are not too large.

A batch is the outputs of one group in one window. Its worst size is that of the dense encodings:
one bit per spike, or the narrowest integers per value, for every step. It stays below 900 kB, since
a broker takes records up to 1 MB: first the longest window is shortened, which costs nothing but
frames; where one step alone is too large, the operator is cut into more groups; what is still too
large is refused.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from topologies.compiled import CompiledNetwork, Group, Operator
from topologies.compiler.digest import Place, strong_components
from topologies.compiler.groups import CapacityError, fewest_groups
from topologies.stages.base import ValueType

__all__ = [
    "LARGEST_BATCH",
    "Plan",
    "TaskPlan",
    "batch_bytes",
    "cycle_window",
    "fit_batches",
    "make_plan",
]

LARGEST_BATCH = 900_000  # bytes; a record may have 1,048,576, envelope and headers included
_OVERHEAD = 256  # bytes of a frame around its batches: names, routes, columns


@dataclass(frozen=True, slots=True)
class TaskPlan:
    """One task: what is leased and moved."""

    operator: str
    group: int
    partition: int


@dataclass(frozen=True, slots=True)
class Plan:
    """Topics with their partitions, tasks, and the worst batch of each operator in bytes."""

    topics: tuple[str, ...]
    tasks: tuple[TaskPlan, ...]
    worst_batch: Mapping[str, int]


def batch_bytes(value: ValueType, n: int, n_steps: int) -> int:
    """The most bytes that `n` values of this type take for `n_steps` steps."""
    if value.is_spike:
        return (n * n_steps + 7) // 8 + _OVERHEAD
    low, high = min(value.low, 0), value.high
    width = next(
        size
        for size, fits in ((1, low >= 0 and high < 2**8), (2, max(-low, high) < 2**15), (4, True))
        if fits
    )
    return n * n_steps * width + _OVERHEAD


def fit_batches(
    operators: Mapping[str, Operator], groups: Mapping[str, tuple[Group, ...]], longest: int
) -> tuple[dict[str, tuple[Group, ...]], int]:
    """(groups, longest window) such that no batch is too large. Raises CapacityError."""
    fitted = dict(groups)
    for oid, operator in operators.items():
        if operator.kind == "readout":
            continue
        value = operator.output

        def fits(group: Group, value: ValueType = value) -> bool:
            return batch_bytes(value, group.hi - group.lo, 1) <= LARGEST_BATCH

        if not all(fits(group) for group in groups[oid]):
            cut = fewest_groups(operator, fits, len(groups[oid]))
            if cut is None or operator.kind == "ingest":
                raise CapacityError(
                    f"One step of operator {oid} is a batch of more than {LARGEST_BATCH} bytes "
                    f"({value.n} values up to {value.largest}) and cannot be cut any further."
                )
            fitted[oid] = cut
        for group in fitted[oid]:
            while batch_bytes(value, group.hi - group.lo, longest) > LARGEST_BATCH:
                longest -= max(1, longest // 16)
    return fitted, longest


def cycle_window(places: Sequence[Place]) -> int | None:
    """The longest window with which cycles can be run; None: any.

    Window [a, b) of a place needs its source up to b - delay. A delay of at least the window's
    length never waits for the same window; so every cycle must have one such edge.
    """
    delays = sorted({delay for place in places for _, delay in place.reads if delay}, reverse=True)
    if not _has_cycle(places, None):
        return None
    return next((delay for delay in delays if not _has_cycle(places, delay)), None)


def _has_cycle(places: Sequence[Place], window: int | None) -> bool:
    """Whether edges with a delay below `window` (None: all edges) close a cycle."""
    short = [
        Place("", tuple(read for read in place.reads if window is None or read[1] < window))
        for place in places
    ]
    loops = any(index == source for index, p in enumerate(short) for source, _ in p.reads)
    return loops or any(len(component) > 1 for component in strong_components(short))


def make_plan(network: CompiledNetwork, partitions: int = 1) -> Plan:
    """The plan of a network with this many partitions in every topic."""
    topics = [f"snn.in.{network.input.name}"]
    tasks: list[TaskPlan] = []
    worst: dict[str, int] = {}
    for oid, summary in network.summaries.items():
        if summary.kind != "readout":
            topics.append(f"snn.spikes.{oid}")
            sizes = (group.hi - group.lo for group in network.groups[oid])
            window = network.input.longest_window
            worst[oid] = batch_bytes(summary.output, max(sizes), window)
        for group in network.groups[oid]:
            tasks.extend(TaskPlan(oid, group.index, p) for p in range(partitions))
    return Plan((*topics, f"snn.out.{network.name}"), tuple(tasks), worst)
