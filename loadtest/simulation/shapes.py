"""Small networks of every shape that has broken a protocol before."""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache, cached_property

from topologies.compiled import (
    CompiledNetwork,
    Edge,
    Group,
    InputSpec,
    Node,
    OutputSpec,
    Summary,
    ValueType,
)
from topologies.stages.base import Cost
from workers.spec import IngestSpec, TaskSpec, ingest_spec, task_spec

__all__ = ["SHAPES", "Layout", "Shape", "Unit", "build", "layout"]

_SPIKES = ValueType((4,), 0, 1)
_DELAY = 4

Spec = tuple[str, str, tuple[tuple[str, int], ...]]
"""(node, operator, ((source node, delay), ...))."""


@dataclass(frozen=True)
class Net:
    """One network: its nodes after ingest; the last one is the readout."""

    name: str
    nodes: tuple[Spec, ...]
    input: str = "x"
    every: int | None = None
    late: bool = False


@dataclass(frozen=True)
class Unit:
    """What deploys as one task per partition."""

    operator: str
    group: int
    is_ingest: bool
    is_readout: bool
    every: int | None


def _n(name: str, *sources: str | tuple[str, int], operator: str = "") -> Spec:
    edges = tuple((s, 0) if isinstance(s, str) else s for s in sources)
    return name, operator or name, edges


_SHARED = (
    Net("n", (_n("a", "x"), _n("r", "a"))),
    Net("m", (_n("a", "x"), _n("b", "a"), _n("q", "b"))),
)
_TWICE = (_n("a1", "x", operator="a"), _n("a2", "a1", operator="a"), _n("r", "a2"))

SHAPES: Mapping[str, tuple[tuple[Net, ...], Mapping[str, int]]] = {
    "chain": ((Net("n", (_n("a", "x"), _n("b", "a"), _n("r", "b"))),), {}),
    "skip": ((Net("n", (_n("a", "x"), _n("b", "a", "x"), _n("r", "b"))),), {}),
    "join": ((Net("n", (_n("a", "x"), _n("b", "x"), _n("c", "a", "b"), _n("r", "c"))),), {}),
    "fan-out": ((Net("n", (_n("a", "x"), _n("b", "a"), _n("c", "a"), _n("r", "c", "b"))),), {}),
    "groups": ((Net("n", (_n("a", "x"), _n("b", "a"), _n("r", "b")), every=3),), {"a": 2, "b": 2}),
    "self-loop": ((Net("n", (_n("a", "x", ("a", _DELAY)), _n("r", "a"))),), {}),
    "group-loop": ((Net("n", (_n("a", "x", ("a", _DELAY)), _n("r", "a"))),), {"a": 2}),
    "loop": ((Net("n", (_n("a", "x", ("b", _DELAY)), _n("b", "a"), _n("r", "b")), every=2),), {}),
    "twin": ((Net("n", _TWICE),), {}),
    "shared": (_SHARED, {}),
    "late": ((_SHARED[0], Net("m", _SHARED[1].nodes, late=True)), {}),
    "late-prefix": ((Net("n", _SHARED[1].nodes), Net("m", _SHARED[0].nodes, late=True)), {"a": 2}),
    "heads": (
        (Net("n", (_n("a", "x"), _n("r", "a"))), Net("m", (_n("a", "x"), _n("q", "a")), every=2)),
        {"a": 2},
    ),
    "two-inputs": (
        (
            Net("n", (_n("a", "x"), _n("r", "a"))),
            Net("m", (_n("a'", "y", operator="a"), _n("r'", "a'", operator="r")), input="y"),
        ),
        {},
    ),
}  # fmt: skip


def _id(text: str) -> str:
    return hashlib.blake2b(text.encode(), digest_size=16).hexdigest()


@dataclass(frozen=True, eq=False)
class Shape:
    """Networks by name, which of them are deployed late, and what their nodes compute."""

    name: str
    networks: Mapping[str, CompiledNetwork]
    late: tuple[str, ...]
    every: Mapping[str, int | None]

    @cached_property
    def inputs(self) -> tuple[str, ...]:
        return tuple(sorted({n.input.name for n in self.networks.values()}))


@dataclass(frozen=True, eq=False)
class Layout:
    """What is deployed at one time: units, and the specs of their tasks per partition."""

    networks: Mapping[str, CompiledNetwork]
    units: tuple[Unit, ...]
    specs: Mapping[tuple[str, int, int], TaskSpec | IngestSpec]

    def unit(self, operator: str, group: int) -> Unit:
        return next(u for u in self.units if (u.operator, u.group) == (operator, group))


@cache
def build(name: str, longest: int) -> Shape:
    """The shape with windows of at most `longest` steps."""
    nets, groups = SHAPES[name]
    compiled = {net.name: _compile(net, longest, groups) for net in nets}
    every = {_id(f"op/{net.nodes[-1][1]}"): net.every for net in nets}
    return Shape(name, compiled, tuple(n.name for n in nets if n.late), every)


@cache
def layout(
    shape: Shape, names: tuple[str, ...], n_partitions: int, removed: tuple[str, ...] = ()
) -> Layout:
    """The tasks of the networks named, when only those are deployed and `removed` were before."""
    networks = {n: shape.networks[n] for n in names}
    units: dict[tuple[str, int], Unit] = {}
    specs: dict[tuple[str, int, int], TaskSpec | IngestSpec] = {}
    for network in networks.values():
        for operator, summary in network.summaries.items():
            for group in network.groups[operator]:
                is_ingest = summary.kind == "ingest"
                units[operator, group.index] = Unit(
                    operator, group.index, is_ingest, summary.kind == "readout",
                    shape.every.get(operator),
                )  # fmt: skip
                for p in range(n_partitions):
                    specs[operator, group.index, p] = (
                        ingest_spec(networks, operator, p, removed)
                        if is_ingest
                        else task_spec(networks, operator, group.index, p, removed)
                    )
    return Layout(networks, tuple(units.values()), specs)


def _compile(net: Net, longest: int, groups: Mapping[str, int]) -> CompiledNetwork:
    ingest = (net.input, f"ingest {net.input}", ())
    specs: Sequence[Spec] = (ingest, *net.nodes)
    nodes = {
        _id(f"node/{name}"): Node(
            _id(f"node/{name}"), _id(f"op/{op}"),
            tuple(Edge(_id(f"node/{source}"), delay) for source, delay in edges),
        )
        for name, op, edges in specs
    }  # fmt: skip
    summaries, cut = {}, {}
    for index, (_, op, edges) in enumerate(specs):
        last = index == len(specs) - 1
        kind = "ingest" if index == 0 else "readout" if last else "synaptic"
        ports = tuple(_SPIKES for _ in edges)
        oid = _id(f"op/{op}")
        summaries[oid] = Summary(oid, kind, (kind,), ports, _SPIKES, Cost(1, 1, 1, 1))  # type: ignore[arg-type]
        n = groups.get(op, 1)
        cut[oid] = tuple(Group(g, 4 * g // n, 4 * (g + 1) // n) for g in range(n))
    return CompiledNetwork(
        name=net.name,
        input=InputSpec(net.input, _id(f"node/{net.input}"), "events", (4,), 0, 1, longest),
        operators={}, groups=cut, nodes=nodes, readout=_id(f"node/{net.nodes[-1][0]}"),
        outputs=OutputSpec((1,), "int32", "count", net.every),
        labels={n: n for n in nodes}, summaries=summaries,
    )  # fmt: skip
