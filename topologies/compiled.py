"""A compiled network: operators, their synapse groups, and how nodes are wired.

A node is a place in a network where an operator stands: a network may have one operator at two
nodes, and two networks share the nodes that are equal from the input on.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any, Literal, TypeAlias

import msgpack
import numpy as np

from topologies.artifact import (
    ArtifactError,
    canonical_json,
    digest,
    pack_artifact,
    unpack_artifact,
)
from topologies.errors import SpikeRouterError
from topologies.program import Program
from topologies.stages.base import Array, Clock, Cost, Encoder, Json, StageError, ValueType
from topologies.stages.table import build_stage

__all__ = [
    "CompiledNetwork",
    "Edge",
    "Group",
    "InputSpec",
    "ManifestError",
    "Node",
    "Operator",
    "OperatorKind",
    "OutputSpec",
    "Program",
    "Summary",
    "ValueType",
    "node_id",
    "run_reference",
]

OperatorKind: TypeAlias = Literal["ingest", "synaptic", "readout"]
_FORMAT = 1  # of artifacts and manifests


class ManifestError(SpikeRouterError, ValueError):
    """Bytes are no manifest of a compiled network, or do not fit its artifacts."""


@dataclass(frozen=True, eq=False)
class Operator:
    """What one worker service computes. `id` is the hash of `to_bytes()`."""

    id: str
    kind: OperatorKind
    program: Program

    @classmethod
    def of(cls, program: Program) -> Operator:
        """The operator with this program. Raises StageError when its stages do not fit."""
        return cls(digest(_artifact(program)), _kind(program), program)

    @property
    def output(self) -> ValueType:
        """What the operator sends. A readout's is the type of one emission's values."""
        return self.program.output

    @property
    def cost(self) -> Cost:
        """What one stream costs."""
        return self.program.cost

    def to_bytes(self) -> bytes:
        """The canonical artifact."""
        return _artifact(self.program)

    @classmethod
    def from_bytes(cls, data: bytes, expected: str | None = None) -> Operator:
        """The operator of an artifact.

        Raises ArtifactError when the bytes are no canonical artifact, or when the operator is not
        the `expected` one.
        """
        meta, arrays = unpack_artifact(data)
        try:
            operator = cls.of(_program(meta, arrays))
        except (KeyError, TypeError, IndexError, StageError) as error:
            raise ArtifactError(f"The artifact holds no legal program: {error}") from error
        found = digest(data)
        if operator.id != found or expected not in (None, found):
            raise ArtifactError(
                f"The artifact's hash is {found}, its operator's {operator.id}, expected was "
                f"{expected or operator.id}: the bytes are damaged or of another version."
            )
        return operator


def _kind(program: Program) -> OperatorKind:
    role = program.stages[-1].role
    if role == "encoder":
        return "ingest"
    return "readout" if role == "readout" else "synaptic"


def _artifact(program: Program) -> bytes:
    arrays: dict[str, Array] = {}
    stages: list[Json] = []
    for index, (stage, reads) in enumerate(zip(program.stages, program.reads, strict=True)):
        stages.append({"kind": stage.kind, "params": stage.params(), "reads": list(reads)})
        arrays |= {f"{index:04d}.{name}": array for name, array in stage.arrays().items()}
    types = program.types  # raises when the stages do not fit
    meta: Json = {
        "format": _FORMAT,
        "ports": [_type_json(port) for port in program.ports],
        "stages": stages,
        "output": _type_json(types[-1]),
    }
    return pack_artifact(meta, arrays)


def _program(meta: Mapping[str, Any], arrays: Mapping[str, Array]) -> Program:
    if meta["format"] != _FORMAT:
        raise ArtifactError(f"The artifact has format {meta['format']}, legal is {_FORMAT}.")
    stages = []
    for index, entry in enumerate(meta["stages"]):
        prefix = f"{index:04d}."
        mine = {n.removeprefix(prefix): a for n, a in arrays.items() if n.startswith(prefix)}
        stages.append(build_stage(entry["kind"], entry["params"], mine))
    reads = tuple(tuple(entry["reads"]) for entry in meta["stages"])
    return Program(tuple(_type_from(port) for port in meta["ports"]), tuple(stages), reads)


def _type_json(value: ValueType) -> list[Any]:
    return [list(value.shape), value.low, value.high, value.unit]


def _type_from(entry: Sequence[Any]) -> ValueType:
    shape, low, high, unit = entry
    return ValueType(tuple(shape), low, high, unit)


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
    """What can be known of an operator without its weights."""

    id: str
    kind: OperatorKind
    stages: tuple[str, ...]
    ports: tuple[ValueType, ...]
    output: ValueType
    cost: Cost

    @classmethod
    def of(cls, operator: Operator) -> Summary:
        """The summary of an operator."""
        program = operator.program
        kinds = tuple(stage.kind for stage in program.stages)
        return cls(operator.id, operator.kind, kinds, program.ports, operator.output, operator.cost)


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
    return {
        "v": _FORMAT,
        "name": network.name,
        "input": [
            *(spec.name, spec.node, spec.encoder, list(spec.shape), float(spec.low)),
            *(float(spec.high), spec.longest_window, spec.n_steps),
        ],
        "operators": [
            [
                *(s.id, s.kind, list(s.stages), [_type_json(port) for port in s.ports]),
                *(_type_json(s.output), _cost_json(s.cost)),
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
    }


def _cost_json(cost: Cost) -> list[int]:
    return [cost.n_neurons, cost.n_synapses, cost.macs_per_step, cost.state_bytes]


def _network(raw: Mapping[str, Any]) -> CompiledNetwork:
    if raw["v"] != _FORMAT:
        raise ManifestError(f"The manifest has format {raw['v']}, legal is {_FORMAT}.")
    name, node, encoder, shape, low, high, longest, n_steps = raw["input"]
    summaries: dict[str, Summary] = {}
    groups: dict[str, tuple[Group, ...]] = {}
    for oid, kind, stages, ports, output, cost, spans in raw["operators"]:
        types = tuple(_type_from(port) for port in ports)
        summaries[oid] = Summary(oid, kind, tuple(stages), types, _type_from(output), Cost(*cost))
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


def run_reference(
    network: CompiledNetwork,
    values: Array,
    seeds: Array | None = None,
    *,
    n_steps: int | None = None,
    window: int | None = None,
    by_group: bool = False,
) -> list[Array]:
    """Runs whole streams in one process, slow and plain: what every deployment must equal.

    `values` is (B, *shape) for encoders of samples, (B, T, *shape) integers for events; `seeds` is
    uint64 (B,), default 0. `n_steps` defaults to the input's, or to T. The streams are cut into
    windows of `window` steps (default: the longest legal), and with `by_group` every operator runs
    group by group: neither changes a bit. Returns for each stream all emissions, (K, n).
    """
    return _Run.of(network, values, seeds, n_steps, by_group).results(window)


@dataclass(frozen=True)
class _Run:
    network: CompiledNetwork
    values: Array
    seeds: Array
    n_steps: int
    programs: Mapping[str, tuple[Program, ...]]

    @classmethod
    def of(
        cls,
        network: CompiledNetwork,
        values: Array,
        seeds: Array | None,
        n_steps: int | None,
        by_group: bool,
    ) -> _Run:
        spec = network.input
        if spec.encoder == "events":
            n_steps = values.shape[1]
        steps = n_steps or spec.n_steps
        if steps is None:
            raise ManifestError(f"Input {spec.name!r} declares no n_steps: pass n_steps.")
        programs = {}
        for oid, operator in network.operators.items():
            whole = operator.program
            cuts = network.groups[oid] if by_group else ()
            programs[oid] = tuple(whole.slice(g.lo, g.hi) for g in cuts) or (whole,)
        if seeds is None:
            seeds = np.zeros(len(values), np.uint64)
        return cls(network, values, seeds, steps, programs)

    def results(self, window: int | None) -> list[Array]:
        longest = self.network.input.longest_window
        length = min(window or longest, longest)
        n = len(self.values)
        states = {
            node.id: [part.init_state(n) for part in self.programs[node.operator]]
            for node in self.network.nodes.values()
        }
        known: dict[str, Array] = {}
        emitted: list[list[Array]] = [[] for _ in range(n)]
        for start in range(0, self.n_steps, length):
            stop = min(start + length, self.n_steps)
            ended = np.full(n, stop == self.n_steps)
            clock = Clock(np.full(n, start, np.int64), ended)
            for node in self.network.nodes.values():
                output = self._node(node, states[node.id], known, clock, stop)
                if isinstance(output, list):
                    for mine, new in zip(emitted, output, strict=True):
                        mine.append(new)
                else:
                    before = known.get(node.id, output[:, :0])
                    known[node.id] = np.concatenate([before, output], axis=1)
        return [np.concatenate(stream) for stream in emitted]

    def _node(
        self,
        node: Node,
        states: list[tuple[Array, ...]],
        known: Mapping[str, Array],
        clock: Clock,
        stop: int,
    ) -> Array | list[Array]:
        start = int(clock.start[0]) if len(clock.start) else 0
        parts = self.programs[node.operator]
        encoder = parts[0].stages[-1]
        if isinstance(encoder, Encoder):
            return self._encode(encoder, clock, start, stop)
        types = parts[0].ports
        inputs = [
            _delayed(known.get(edge.source), len(self.values), kind.n, start, stop, edge.delay)
            for edge, kind in zip(node.edges, types, strict=True)
        ]
        outputs = []
        for index, part in enumerate(parts):
            output, states[index] = part.run(inputs, states[index], clock)
            if isinstance(output, list):
                return output
            outputs.append(output)
        return np.concatenate(outputs, axis=2)

    def _encode(self, encoder: Encoder, clock: Clock, start: int, stop: int) -> Array:
        values = self.values
        if self.network.input.encoder == "events":
            values = values[:, start:stop]
        coded = encoder.encode(values, clock.start, stop - start, self.seeds)
        return coded.reshape(*coded.shape[:2], -1)


def _delayed(known: Array | None, n: int, width: int, start: int, stop: int, delay: int) -> Array:
    """Steps [start - delay, stop - delay) of a source's output; negative steps are silent."""
    lo, hi = start - delay, stop - delay
    dtype = np.uint8 if known is None else known.dtype
    silent = np.zeros((n, min(max(0, -lo), hi - lo), width), dtype)
    if known is None or hi <= 0:
        return silent
    return np.concatenate([silent, known[:, max(0, lo) : hi]], axis=1)
