"""A NIR graph as plain data: sub-graphs opened, ports joined, everything wrong with it named.

The document is what a `.nir` file holds and what `nir.NIRGraph.to_dict()` gives: a mapping with
`type` NIRGraph, `nodes` (name -> mapping with its `type`) and `edges` (pairs of names). A node's
path is its name, behind those of the sub-graphs that it is in: `rnn.lif`.

More is read than the reference reader takes: shapes are not compared here, an edge may name a node
inside a sub-graph (`rnn.lif`), and a graph may lack its Input or Output node.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from topologies.model import Fault, FloatArray, NetworkError

__all__ = ["KINDS", "Graph", "Node", "open_graph"]

# The fields that each kind must have; others have defaults.
KINDS: Mapping[str, tuple[str, ...]] = {
    "Affine": ("weight", "bias"),
    "AvgPool2d": ("kernel_size", "stride", "padding"),
    "Conv1d": ("weight", "bias", "stride", "padding", "dilation", "groups"),
    "Conv2d": ("weight", "bias", "stride", "padding", "dilation", "groups"),
    "CubaLI": ("tau_syn", "tau_mem", "r", "v_leak"),
    "CubaLIF": ("tau_syn", "tau_mem", "r", "v_leak", "v_threshold"),
    "Delay": ("delay",),
    "Flatten": (),
    "I": ("r",),
    "IF": ("r", "v_threshold"),
    "Input": (),
    "LI": ("tau", "r", "v_leak"),
    "LIF": ("tau", "r", "v_leak", "v_threshold"),
    "Linear": ("weight",),
    "Output": (),
    "Scale": ("scale",),
    "SumPool2d": ("kernel_size", "stride", "padding"),
    "Threshold": ("threshold",),
}
_GRAPH = "NIRGraph"
_PORTS = ("Input", "Output")


@dataclass(frozen=True, eq=False)
class Node:
    """A node: its path, its kind, its fields as they were read, in how many sub-graphs it is."""

    path: str
    kind: str
    fields: Mapping[str, Any]
    depth: int = 0

    def array(self, name: str, default: float | None = None) -> FloatArray:
        """A field as float64, of any shape. Raises NetworkError for what is no finite number."""
        value = self.fields.get(name)
        if value is None:
            value = default
        try:
            array = np.asarray(value, np.float64)
        except (TypeError, ValueError):
            array = np.array(np.nan)
        if not np.isfinite(array).all() or not array.size:
            raise NetworkError([Fault(self.path, f"its {name} must be finite numbers.")])
        return array

    def whole(self, name: str, default: int | None = None) -> list[int]:
        """A field of whole numbers, flat. Raises NetworkError."""
        array = self.array(name, default).ravel()
        if (array % 1).any():
            raise NetworkError([Fault(self.path, f"its {name} must be whole numbers.")])
        return [int(x) for x in array]

    @property
    def shape(self) -> tuple[int, ...]:
        """The declared shape of a port; () where it says none. Raises NetworkError."""
        if self.fields.get("shape") is None:
            return ()
        return tuple(self.whole("shape"))


@dataclass(frozen=True, eq=False)
class Graph:
    """Nodes by their paths, none of them a graph, and edges between them, in the file's order."""

    nodes: Mapping[str, Node]
    edges: tuple[tuple[str, str], ...]

    def sources(self, path: str) -> list[str]:
        """What a node reads."""
        return [a for a, b in self.edges if b == path]

    def targets(self, path: str) -> list[str]:
        """What reads a node."""
        return [b for a, b in self.edges if a == path]

    def only(self, kind: str) -> Node:
        """The single node of this kind. Raises NetworkError."""
        found = [node for node in self.nodes.values() if node.kind == kind]
        if len(found) == 1:
            return found[0]
        names = ", ".join(node.path for node in found) or "none"
        raise NetworkError(
            [Fault("", f"the graph has {len(found)} {kind} nodes ({names}): legal is one.")]
        )


def open_graph(document: Mapping[str, Any]) -> Graph:
    """The graph of a document. Raises NetworkError with everything that is wrong."""
    faults: list[Fault] = []
    kind = _text(document.get("type"))
    if kind != _GRAPH:
        alone = {"node": dict(document)} if kind in KINDS else {}
        document = {"type": _GRAPH, "nodes": alone, "edges": []}
    nodes, edges = _opened(document, "", 0, faults)
    if faults:
        raise NetworkError(faults)
    return _with_ports(_joined(Graph(nodes, tuple(edges))))


def _opened(
    document: Mapping[str, Any], prefix: str, depth: int, faults: list[Fault]
) -> tuple[dict[str, Node], list[tuple[str, str]]]:
    found: dict[str, Node] = {}
    edges: list[tuple[str, str]] = []
    graphs: dict[str, dict[str, Node]] = {}
    for name, fields in _mapping(document.get("nodes", {}), f"{prefix}nodes", faults).items():
        path = f"{prefix}{name}"
        kind = _text(_mapping(fields, path, faults).get("type"))
        if kind == _GRAPH:
            graphs[name], inner = _opened(fields, f"{path}.", depth + 1, faults)
            found |= graphs[name]
            edges += inner
        elif isinstance(fields, Mapping):
            found[path] = Node(path, kind, fields, depth)
            faults += _field_faults(found[path])
    for pair, count in Counter(_pairs(document, f"{prefix}edges", faults)).items():
        place = f"edge {prefix}{pair[0]} -> {prefix}{pair[1]}"
        if count > 1:
            faults.append(Fault(place, f"stands {count} times: legal is once."))
        try:
            first = _end(pair[0], prefix, found, graphs, "Output")
            edges.append((first, _end(pair[1], prefix, found, graphs, "Input")))
        except LookupError as error:
            faults.append(Fault(place, str(error.args[0])))
    return found, edges


def _mapping(value: Any, place: str, faults: list[Fault]) -> Mapping[str, Any]:
    if isinstance(value, Mapping):
        return value
    faults.append(Fault(place, f"holds a {type(value).__name__}: legal is a group of fields."))
    return {}


def _pairs(document: Mapping[str, Any], place: str, faults: list[Fault]) -> list[tuple[str, str]]:
    """The edges, as text. Everything that is no pair is a fault."""
    given = document.get("edges", ())
    is_scalar = isinstance(given, np.ndarray) and given.ndim == 0
    if not isinstance(given, list | tuple | np.ndarray) or is_scalar:
        faults.append(Fault(place, "are no list of pairs of names."))
        return []
    pairs = [pair for pair in given if isinstance(pair, list | tuple | np.ndarray)]
    if len(pairs) != len(given) or any(len(pair) != 2 for pair in pairs):
        faults.append(Fault(place, "are no list of pairs of names."))
        return []
    return [(_text(pair[0]), _text(pair[1])) for pair in pairs]


def _field_faults(node: Node) -> Iterator[Fault]:
    if node.kind not in KINDS:
        legal = ", ".join(sorted(KINDS))
        yield Fault(node.path, f"{node.kind!r} is no NIR primitive that is known: {legal}.")
        return
    missing = [name for name in KINDS[node.kind] if node.fields.get(name) is None]
    if missing:
        yield Fault(node.path, f"this {node.kind} lacks {', '.join(missing)}.")


def _end(
    name: str,
    prefix: str,
    found: Mapping[str, Node],
    graphs: Mapping[str, Mapping[str, Node]],
    port: str,
) -> str:
    """The path of the node at an end of an edge; `port` is what stands for a whole sub-graph.

    Raises LookupError with a sentence.
    """
    if f"{prefix}{name}" in found:
        return f"{prefix}{name}"
    if name in graphs:
        depth = min((node.depth for node in graphs[name].values()), default=0)
        inside = graphs[name].values()
        ports = [node.path for node in inside if node.kind == port and node.depth == depth]
        if len(ports) == 1:
            return ports[0]
        shown = ", ".join(ports) or "none"
        raise LookupError(
            f"{name!r} is a sub-graph with {len(ports)} {port} nodes ({shown}): name one of them."
        )
    # A node of the sub-graph `rnn` may itself be called `rnn.lif`.
    doubled = [path for g in graphs for path in graphs[g] if path == f"{prefix}{g}.{name}"]
    if len(doubled) == 1:
        return doubled[0]
    raise LookupError(f"there is no node {name!r}: there are {', '.join((*found, *graphs))}.")


def _text(end: Any) -> str:
    return end.decode("utf-8", "replace") if isinstance(end, bytes) else str(end)


def _joined(graph: Graph) -> Graph:
    """Without the ports of sub-graphs: what fed them feeds what they fed."""
    edges = list(graph.edges)
    nodes = dict(graph.nodes)
    depth = min((node.depth for node in nodes.values()), default=0)
    for path, node in graph.nodes.items():
        if node.kind not in _PORTS or node.depth == depth:
            continue
        before = [a for a, b in edges if b == path and a != path]
        after = [b for a, b in edges if a == path and b != path]
        edges = [edge for edge in edges if path not in edge]
        edges += [(a, b) for a in before for b in after if (a, b) not in edges]
        del nodes[path]
    return Graph(nodes, tuple(edges))


def _with_ports(graph: Graph) -> Graph:
    """With an Input before what reads nothing and an Output behind what nothing reads."""
    nodes, edges = dict(graph.nodes), list(graph.edges)
    kinds = {node.kind for node in nodes.values()}
    if "Input" not in kinds:
        roots = [path for path in nodes if not graph.sources(path)]
        nodes["input"] = Node("input", "Input", {"shape": None})
        edges += [("input", path) for path in roots]
    if "Output" not in kinds:
        leaves = [path for path in graph.nodes if not graph.targets(path)]
        nodes["output"] = Node("output", "Output", {"shape": None})
        edges += [(path, "output") for path in leaves]
    return Graph(nodes, tuple(edges))
