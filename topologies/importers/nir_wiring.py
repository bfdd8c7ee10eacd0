"""Cycles of a NIR graph. A NIR edge has no delay; a network that is stepped needs one per cycle.

The edges that close a cycle, coming from the input, take one step: what a neuron sends in step t
reaches itself in t + 1, as in snnTorch, SpikingJelly and Norse. A cycle that passes a Delay node
of a step or more needs no other.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from topologies.importers.nir_graph import Graph
from topologies.model import Fault, NetworkError

__all__ = ["Edge", "Wiring", "wire"]

Edge = tuple[str, str]


@dataclass(frozen=True, eq=False)
class Wiring:
    """`late` are the edges that take a step more; `closing` all that close a cycle.

    `order` has every node behind those it reads, closing edges aside. `cyclic` are the nodes that
    lie on cycles.
    """

    late: frozenset[Edge]
    closing: frozenset[Edge]
    order: tuple[str, ...]
    cyclic: frozenset[str]


def wire(graph: Graph, root: str, delaying: set[str], travelling: set[str]) -> Wiring:
    """The wiring of a graph whose input is `root`.

    `delaying` are the Delay nodes of at least a step, `travelling` the nodes whose output may be
    sent late. Raises NetworkError for a cycle without any such node.
    """
    after: dict[str, list[str]] = {path: [] for path in graph.nodes}
    for source, target in graph.edges:
        after[source].append(target)
    stuck = _closing({p: after[p] for p in after if p not in travelling}, ())
    if stuck:
        names = ", ".join(sorted({path for edge in stuck for path in edge}))
        text = f"{names} lie on a cycle without a neuron: a cycle must pass one, or an integrator."
        raise NetworkError([Fault("", text)])
    starts = (root, *(b for a in delaying for b in after[a]))
    undelayed = {path: [] if path in delaying else after[path] for path in after}
    late = _closing(undelayed, starts)
    rest = {a: [b for b in after[a] if (a, b) not in late] for a in after}
    closing = late | _closing(rest, (root,))
    open_ends = {a: [b for b in after[a] if (a, b) not in closing] for a in after}
    order = tuple(reversed([path for path, is_left in _walk(open_ends, (root,)) if is_left]))
    return Wiring(frozenset(late), frozenset(closing), order, frozenset(_cyclic(after)))


def _walk(after: Mapping[str, Sequence[str]], starts: Sequence[str]) -> Iterator[tuple[str, bool]]:
    """Depth first: (node, False) when it is entered, (node, True) when it is left."""
    seen: set[str] = set()
    for start in (*starts, *after):
        if start in seen or start not in after:
            continue
        seen.add(start)
        yield start, False
        stack = [(start, iter(after[start]))]
        while stack:
            path, targets = stack[-1]
            found = next((b for b in targets if b not in seen and b in after), None)
            if found is None:
                yield path, True
                stack.pop()
            else:
                seen.add(found)
                yield found, False
                stack.append((found, iter(after[found])))


def _closing(after: Mapping[str, Sequence[str]], starts: Sequence[str]) -> set[Edge]:
    """The edges that lead back to a node through which the walk came."""
    leaving = [path for path, is_left in _walk(after, starts) if is_left]
    left = {path: number for number, path in enumerate(leaving)}
    # Only a node through which the walk came, or the node itself, is not left before.
    return {(a, b) for a in after for b in after[a] if b in left and left[b] >= left[a]}


def _cyclic(after: Mapping[str, Sequence[str]]) -> set[str]:
    """Nodes that can be reached from themselves (Kosaraju's components of two or more, loops)."""
    leaving = [path for path, is_left in _walk(after, ()) if is_left]
    before: dict[str, list[str]] = {path: [] for path in after}
    for a, targets in after.items():
        for b in targets:
            before[b].append(a)
    component: dict[str, int] = {}
    for number, path in enumerate(reversed(leaving)):
        stack = [path] if path not in component else []
        while stack:
            one = stack.pop()
            if one not in component:
                component[one] = number
                stack += [b for b in before[one] if b not in component]
    sizes: dict[int, int] = {}
    for number in component.values():
        sizes[number] = sizes.get(number, 0) + 1
    return {p for p in after if sizes[component[p]] > 1 or p in after[p]}
