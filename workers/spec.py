"""What one task is: its operator, its slice, the places it stands in, and whom it speaks to.

Derived from the manifests of all deployed networks, purely, so that every worker derives the same.
"""

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Final

from router.kinds import task_kind
from router.topics import in_topic, out_topic, spikes_topic
from topologies.compiled import CompiledNetwork, Group, InputSpec, Node, Summary, ValueType
from topologies.errors import SpikeRouterError

__all__ = [
    "MOST_WINDOWS",
    "IngestSpec",
    "Place",
    "Source",
    "TaskSpec",
    "UnknownOperatorError",
    "ingest_spec",
    "kernels_wanted",
    "task_spec",
]


MOST_WINDOWS: Final = 4096
"""Windows that one record may end: more would keep ingest cutting, and fill its queue."""


class UnknownOperatorError(SpikeRouterError, LookupError):
    """The manifest of a task's network is missing or damaged."""


@dataclass(frozen=True)
class Source:
    """One synapse group of one upstream node: it fills `[group.lo, group.hi)` of `port`."""

    port: int
    node: str
    operator: str
    group: Group
    delay: int


@dataclass(frozen=True)
class Place:
    """A node that this task runs: state and cursors are kept per (node, stream) (PROTOCOL 3).

    `sources` stand in the fixed order in which inputs are taken (PROTOCOL 11). `readout_of` names
    the networks whose results this node is; `consumed` says whether another node reads it.
    """

    node: str
    input: str
    sources: tuple[Source, ...]
    networks: frozenset[str]
    readout_of: tuple[str, ...]
    consumed: bool


@dataclass(frozen=True)
class TaskSpec:
    """A synapse group of an operator on one partition, in every network that has the operator."""

    operator: str
    group: Group
    partition: int
    places: tuple[Place, ...]
    ports: tuple[ValueType, ...]
    output: ValueType
    known_networks: frozenset[str]

    @cached_property
    def topics(self) -> tuple[str, ...]:
        sources = {s.operator for place in self.places for s in place.sources}
        return tuple(sorted(spikes_topic(operator) for operator in sources))

    @cached_property
    def networks(self) -> frozenset[str]:
        """All networks that the operator stands in."""
        return frozenset[str]().union(*(place.networks for place in self.places))


@dataclass(frozen=True)
class IngestSpec:
    """The ingest of one input on one partition.

    `step_bytes` is the most that one step of one stream takes in any topic of any routed network:
    what flow control reckons with (PROTOCOL 18 and 19).
    """

    input: InputSpec
    operator: str
    partition: int
    networks: frozenset[str]
    known_networks: frozenset[str]
    step_bytes: int

    @property
    def most_steps(self) -> int:
        """Steps that the payload of one record may cover."""
        return MOST_WINDOWS * self.input.longest_window

    @cached_property
    def in_topic(self) -> str:
        return in_topic(self.input.name)

    @cached_property
    def topics(self) -> tuple[str, ...]:
        return (self.in_topic, *(out_topic(n) for n in sorted(self.networks)))


def task_spec(
    networks: Mapping[str, CompiledNetwork],
    operator: str,
    group: int,
    partition: int,
    removed: Iterable[str] = (),
) -> TaskSpec:
    """The task of `operator`'s synapse group `group`; `removed` are networks that are no more."""
    users = _users(networks, operator)
    summary = next(iter(users.values())).summaries[operator]
    found: dict[str, Node] = {}
    for network in users.values():
        found.update({n.id: n for n in network.nodes.values() if n.operator == operator})
    groups = next(iter(users.values())).groups[operator]
    return TaskSpec(
        operator=operator,
        group=groups[group],
        partition=partition,
        places=tuple(_place(node, users) for _, node in sorted(found.items())),
        ports=summary.ports,
        output=summary.output,
        known_networks=frozenset(networks) | frozenset(removed),
    )


def _users(networks: Mapping[str, CompiledNetwork], operator: str) -> dict[str, CompiledNetwork]:
    """The networks that have an operator, at least one. Raises UnknownOperatorError."""
    users = {name: n for name, n in sorted(networks.items()) if operator in n.summaries}
    if not users:
        raise UnknownOperatorError(
            f"No network whose manifest can be read has operator {operator}; those that can are"
            f" {', '.join(sorted(networks)) or 'none'}: deploy its network again."
        )
    return users


def _place(node: Node, users: Mapping[str, CompiledNetwork]) -> Place:
    homes = {name: n for name, n in users.items() if node.id in n.nodes}
    home = next(iter(homes.values()))
    sources = tuple(
        Source(port, edge.source, home.nodes[edge.source].operator, group, edge.delay)
        for port, edge in enumerate(node.edges)
        for group in home.groups[home.nodes[edge.source].operator]
    )
    readers = (e.source for n in homes.values() for other in n.nodes.values() for e in other.edges)
    return Place(
        node=node.id,
        input=home.input.name,
        sources=sources,
        networks=frozenset(homes),
        readout_of=tuple(name for name, n in homes.items() if n.readout == node.id),
        consumed=node.id in set(readers),
    )


def ingest_spec(
    networks: Mapping[str, CompiledNetwork],
    operator: str,
    partition: int,
    removed: Iterable[str] = (),
) -> IngestSpec:
    """The ingest task of `operator` for all networks that declare its input."""
    users = _users(networks, operator)
    spec = next(iter(users.values())).input
    outputs = [op.output for n in users.values() for op in n.summaries.values()]
    return IngestSpec(
        input=spec,
        operator=operator,
        partition=partition,
        networks=frozenset(users),
        known_networks=frozenset(networks) | frozenset(removed),
        step_bytes=max(map(_step_bytes, outputs)),
    )


def kernels_wanted(
    networks: Iterable[CompiledNetwork], kinds: Collection[str], *, on_nodes: bool
) -> dict[tuple[str, Group], Summary]:
    """Synapse groups of these kinds of task that a worker needs a kernel for, if it gets them.

    Ingest has none, nor has what is computed `on_nodes` of a device.
    """
    without = {"ingest", "synaptic"} if on_nodes else {"ingest"}
    return {
        (operator, group): summary
        for network in networks
        for operator, summary in network.summaries.items()
        if summary.kind not in without and task_kind(summary.kind, summary.extras) in kinds
        for group in network.groups[operator]
    }


def _step_bytes(output: ValueType) -> int:
    """Bytes of one step in the densest encoding its canonical form can take."""
    widest = max(abs(output.low), abs(output.high))
    return (output.n + 7) // 8 if output.is_spike else output.n * (1 if widest < 256 else 4)
