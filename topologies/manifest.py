"""How the nodes of a network are wired, and the manifest that says so without weights."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

import msgpack

from topologies.artifact import canonical_json, digest
from topologies.errors import SpikeRouterError
from topologies.operators import Operator, OperatorKind, type_from_json, type_to_json
from topologies.stages.base import Cost, Json, ValueType

__all__ = [
    "CompiledNetwork",
    "Edge",
    "Group",
    "InputSpec",
    "ManifestError",
    "Node",
    "OutputSpec",
    "Summary",
    "node_id",
]

_FORMAT = 1  # of manifests


class ManifestError(SpikeRouterError, ValueError):
    """Bytes are no manifest of a compiled network, or do not fit its artifacts."""


@dataclass(frozen=True, slots=True)
class Group:
    """A synapse group: the operator's flattened (channel-major) outputs [lo, hi)."""

    index: int
    lo: int
    hi: int


@dataclass(frozen=True, slots=True)
class Edge:
    """Port i of a node reads `edges[i]`: a spike of the source's step t acts at t + `delay`."""

    source: str
    delay: int = 0


@dataclass(frozen=True, slots=True)
class Node:
    """A place where an operator stands; `id` covers everything upstream of it."""

    id: str
    operator: str
    edges: tuple[Edge, ...] = ()


def node_id(operator: str, edges: Sequence[Edge], input_name: str = "") -> str:
    """The Merkle hash of a node: its operator, what it reads, and for ingest the input's name."""
    reads: Json = [[edge.source, edge.delay] for edge in edges]
    return digest(canonical_json(["node", operator, reads, input_name]).encode("ascii"))


@dataclass(frozen=True, slots=True)
class InputSpec:
    """What a network reads: topic `snn.in.<name>`.

    `shape` is that of one sample (or one step of events); values lie in [`low`, `high`].
    `longest_window` is in steps. `n_steps` is the length of a request; None: the client says.
    """

    name: str
    node: str
    encoder: str
    shape: tuple[int, ...]
    low: float
    high: float
    longest_window: int
    n_steps: int | None = None


@dataclass(frozen=True, slots=True)
class OutputSpec:
    """What a result is: `shape` values of `dtype` per emission, at the end and each `every` steps.

    `unit`: an integer k of a count means k * 2**-unit; 0 but for graded spikes.
    """

    shape: tuple[int, ...]
    dtype: str
    readout: str
    every: int | None = None
    labels: tuple[str, ...] = ()
    unit: int = 0


@dataclass(frozen=True, slots=True)
class Summary:
    """What can be known of an operator without its weights.

    `extras` name the libraries that step it; an operator with any is not portable (numerics 18).
    """

    id: str
    kind: OperatorKind
    stages: tuple[str, ...]
    ports: tuple[ValueType, ...]
    output: ValueType
    cost: Cost
    extras: tuple[str, ...] = ()

    @classmethod
    def of(cls, operator: Operator) -> Summary:
        """The summary of an operator."""
        program = operator.program
        kinds = tuple(stage.kind for stage in program.stages)
        return cls(
            operator.id, operator.kind, kinds, program.ports, operator.output, operator.cost,
            program.extras,
        )  # fmt: skip


@dataclass(frozen=True, eq=False)
class CompiledNetwork:
    """A network, ready to be deployed.

    `nodes` are in topological order of the edges without delay, the ingest node first.
    `groups[operator]` cover the operator's outputs without gaps; ingest and readout have one.
    `operators` is empty in a network that was read from a manifest without artifacts; `summaries`
    are always there. `labels[node]` names the layers of a node, for people.
    """

    name: str
    input: InputSpec
    operators: Mapping[str, Operator]
    groups: Mapping[str, tuple[Group, ...]]
    nodes: Mapping[str, Node]
    readout: str
    outputs: OutputSpec
    labels: Mapping[str, str] = field(default_factory=dict)
    summaries: Mapping[str, Summary] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Derives the summaries from the operators, if there are any."""
        if self.operators:
            found = {oid: Summary.of(operator) for oid, operator in self.operators.items()}
            object.__setattr__(self, "summaries", found)

    @cached_property
    def not_portable(self) -> tuple[str, ...]:
        """The labels of nodes whose bits depend on the machine and installation (numerics 18)."""
        foreign = {summary.id for summary in self.summaries.values() if summary.extras}
        return tuple(
            self.labels.get(node.id, node.operator)
            for node in self.nodes.values()
            if node.operator in foreign
        )

    @cached_property
    def version(self) -> str:
        """The hash of the manifest: what is served under the name."""
        return digest(self.to_bytes())

    def to_bytes(self) -> bytes:
        """The manifest: everything but the weights, canonical."""
        packed: bytes = msgpack.packb(_manifest(self))
        return packed

    @classmethod
    def from_bytes(
        cls, data: bytes, artifacts: Mapping[str, bytes] | None = None
    ) -> CompiledNetwork:
        """The network of a manifest; with `artifacts` (operator id -> bytes), also its operators.

        Raises ManifestError for damaged bytes, ArtifactError for a wrong artifact.
        """
        try:
            network = _network(msgpack.unpackb(data))
        except (ValueError, KeyError, TypeError, IndexError, msgpack.UnpackException) as error:
            raise ManifestError(f"These {len(data)} bytes are no manifest: {error!r}.") from error
        if artifacts is None:
            return network
        missing = sorted(set(network.summaries) - set(artifacts))
        if missing:
            raise ManifestError(f"Network {network.name!r} misses the artifacts {missing}.")
        operators = {i: Operator.from_bytes(artifacts[i], i) for i in network.summaries}
        return replace(network, operators=operators)


def _manifest(network: CompiledNetwork) -> dict[str, Any]:
    spec, out = network.input, network.outputs
    extras = {s.id: list(s.extras) for _, s in sorted(network.summaries.items()) if s.extras}
    return {
        "v": _FORMAT,
        "name": network.name,
        "input": [
            *(spec.name, spec.node, spec.encoder, list(spec.shape), float(spec.low)),
            *(float(spec.high), spec.longest_window, spec.n_steps),
        ],
        "operators": [
            [
                *(s.id, s.kind, list(s.stages), [type_to_json(port) for port in s.ports]),
                *(type_to_json(s.output), _cost_json(s.cost)),
                [[group.lo, group.hi] for group in network.groups[s.id]],
            ]
            for _, s in sorted(network.summaries.items())
        ],
        "nodes": [
            [n.id, n.operator, [[e.source, e.delay] for e in n.edges], network.labels.get(n.id, "")]
            for n in network.nodes.values()
        ],
        "readout": network.readout,
        "outputs": [
            *(list(out.shape), out.dtype, out.readout, out.every, list(out.labels), out.unit),
        ],
        **({"extras": extras} if extras else {}),  # the version of other networks is older than it
    }


def _cost_json(cost: Cost) -> list[int]:
    return [cost.n_neurons, cost.n_synapses, cost.macs_per_step, cost.state_bytes]


def _network(raw: Mapping[str, Any]) -> CompiledNetwork:
    if raw["v"] != _FORMAT:
        raise ManifestError(f"The manifest has format {raw['v']}, legal is {_FORMAT}.")
    name, node, encoder, shape, low, high, longest, n_steps = raw["input"]
    extras = dict(raw.get("extras", {}))
    summaries: dict[str, Summary] = {}
    groups: dict[str, tuple[Group, ...]] = {}
    for oid, kind, stages, ports, output, cost, spans in raw["operators"]:
        types = tuple(type_from_json(port) for port in ports)
        summaries[oid] = Summary(
            oid, kind, tuple(stages), types, type_from_json(output), Cost(*cost),
            tuple(extras.get(oid, ())),
        )  # fmt: skip
        groups[oid] = tuple(Group(index, lo, hi) for index, (lo, hi) in enumerate(spans))
    nodes = {
        nid: Node(nid, oid, tuple(Edge(source, delay) for source, delay in edges))
        for nid, oid, edges, _ in raw["nodes"]
    }
    out_shape, dtype, readout, every, labels, unit = raw["outputs"]
    return CompiledNetwork(
        name=raw["name"],
        input=InputSpec(name, node, encoder, tuple(shape), low, high, longest, n_steps),
        operators={},
        summaries=summaries,
        groups=groups,
        nodes=nodes,
        readout=raw["readout"],
        outputs=OutputSpec(tuple(out_shape), dtype, readout, every, tuple(labels), unit),
        labels={nid: label for nid, _, _, label in raw["nodes"]},
    )
