"""Node ids: the Merkle hash of an operator and everything upstream of it.

Where delays close a cycle, "everything upstream" contains the node itself. The nodes of a strongly
connected component first take the hash of what they are alone, then, as many rounds as there are
nodes in it, that of what they read: after these rounds two nodes of a component have one id only
if no path leads to a difference, and the rest of the network has no say.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from topologies.artifact import canonical_json, digest
from topologies.compiled import Edge, node_id

__all__ = ["Place", "node_ids", "strong_components"]


@dataclass(frozen=True, slots=True)
class Place:
    """A node before it has an id: its operator, and (place, delay) of what each port reads."""

    operator: str
    reads: tuple[tuple[int, int], ...]
    input_name: str = ""


def node_ids(places: Sequence[Place]) -> tuple[str, ...]:
    """The id of each place. Cycles must pass a delay; their edges may lead to later places."""
    ids: dict[int, str] = {}
    for component in strong_components(places):
        cyclic = len(component) > 1 or any(i == component[0] for i, _ in places[component[0]].reads)
        if cyclic:
            ids |= _cycle_ids(places, component, ids)
        else:
            ids[component[0]] = _node_id(places[component[0]], ids)
    return tuple(ids[index] for index in range(len(places)))


def _node_id(place: Place, ids: Mapping[int, str]) -> str:
    edges = [Edge(ids[index], delay) for index, delay in place.reads]
    return node_id(place.operator, edges, place.input_name)


def _cycle_ids(
    places: Sequence[Place], component: Sequence[int], known: Mapping[int, str]
) -> dict[int, str]:
    ids = {i: digest(canonical_json(["cycle", places[i].operator]).encode()) for i in component}
    for _ in component:
        ids = {index: _node_id(places[index], {**known, **ids}) for index in component}
    return ids


def strong_components(places: Sequence[Place]) -> list[list[int]]:
    """Sets of places that reach each other, sources first."""
    upstream = [_reached(places, index) for index in range(len(places))]
    left = set(range(len(places)))
    components: list[list[int]] = []
    while left:
        # What has the fewest upstream of it depends on nothing that is left.
        first = min(left, key=lambda index: (len(upstream[index] | {index}), index))
        component = sorted({i for i in upstream[first] if first in upstream[i]} | {first})
        components.append(component)
        left -= set(component)
    return components


def _reached(places: Sequence[Place], index: int) -> set[int]:
    """Everything upstream of a place; the place itself if it is on a cycle."""
    found: set[int] = set()
    waiting = [source for source, _ in places[index].reads]
    while waiting:
        source = waiting.pop()
        if source not in found:
            found.add(source)
            waiting.extend(further for further, _ in places[source].reads)
    return found
