"""What a compiled network asks of a deployment: topics, tasks, and batches that are not too large.

A batch is the outputs of one group in one window. Its worst size is that of the dense encodings:
one bit per spike, or the narrowest integers per value, for every step; that of a readout, all its
emissions. A record with it stays below 900 kB (`topologies.batches`), since a broker takes records
up to 1 MB: first the longest window is shortened, which costs nothing but
frames; where one step alone is too large, the operator is cut into more groups; what is still too
large is refused.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

from topologies.batches import (
    LARGEST_RECORD,
    ROUTE_BYTES,
    payload_bytes,
    record_bytes,
    result_bytes,
)
from topologies.compiled import CompiledNetwork, Group, Operator
from topologies.compiler.digest import Place, strong_components
from topologies.compiler.groups import CapacityError, fewest_groups
from topologies.stages.base import ValueType
from topologies.stages.readout import Readout

__all__ = [
    "Plan",
    "TaskPlan",
    "cycle_window",
    "fit_batches",
    "make_plan",
    "worst_records",
]


@dataclass(frozen=True, slots=True)
class TaskPlan:
    """One task: what is leased and moved."""

    operator: str
    group: int
    partition: int


@dataclass(frozen=True, slots=True)
class Plan:
    """Topics with their partitions, tasks, and the largest record of each operator in bytes."""

    topics: tuple[str, ...]
    tasks: tuple[TaskPlan, ...]
    worst_record: Mapping[str, int]


def fit_batches(
    operators: Mapping[str, Operator], groups: Mapping[str, tuple[Group, ...]], longest: int
) -> tuple[dict[str, tuple[Group, ...]], int]:
    """(groups, longest window) such that no batch is too large. Raises CapacityError."""
    fitted = dict(groups)
    for oid, operator in operators.items():
        largest = partial(_largest_record, operator.kind, operator.output, _every(operator))

        def fits(group: Group, largest: Callable[[int, int], int] = largest) -> bool:
            return largest(group.hi - group.lo, 1) <= LARGEST_RECORD

        if not all(fits(group) for group in groups[oid]):
            is_whole = operator.kind in ("ingest", "readout")
            cut = None if is_whole else fewest_groups(operator, fits, len(groups[oid]))
            if cut is None:
                value = operator.output
                raise CapacityError(
                    f"One step of operator {oid} is a record of more than {LARGEST_RECORD} bytes "
                    f"({value.n} values up to {value.largest}) and cannot be cut any further."
                )
            fitted[oid] = cut
        for group in fitted[oid]:
            while largest(group.hi - group.lo, longest) > LARGEST_RECORD:
                longest -= max(1, longest // 16)
    return fitted, longest


def _every(operator: Operator) -> int | None:
    """The steps from one emission of a readout to the next; None: one, at the end."""
    stage = operator.program.stages[-1]
    return stage.every if isinstance(stage, Readout) else None


def _largest_record(
    kind: str, value: ValueType, every: int | None, n: int, n_steps: int, routes: int = ROUTE_BYTES
) -> int:
    """What `n` outputs of an operator take at most in a window of `n_steps`."""
    if kind == "readout":
        return record_bytes(result_bytes(n, every, n_steps), routes)
    return record_bytes(payload_bytes(value, n, n_steps), routes)


def worst_records(network: CompiledNetwork, routes: int = ROUTE_BYTES) -> dict[str, int]:
    """The largest record of each operator in bytes, where a stream's networks take `routes`."""
    window, every = network.input.longest_window, network.outputs.every
    return {
        oid: max(
            _largest_record(summary.kind, summary.output, every, g.hi - g.lo, window, routes)
            for g in network.groups[oid]
        )
        for oid, summary in network.summaries.items()
    }


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
    for oid, summary in network.summaries.items():
        if summary.kind != "readout":
            topics.append(f"snn.spikes.{oid}")
        for group in network.groups[oid]:
            tasks.extend(TaskPlan(oid, group.index, p) for p in range(partitions))
    return Plan((*topics, f"snn.out.{network.name}"), tuple(tasks), worst_records(network))
