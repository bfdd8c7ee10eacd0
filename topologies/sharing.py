"""What networks have in common, and what that saves. Pure.

Two operators may be equal on three levels, each a coarser one:

- *exact*: the same content hash. They are one operator: one set of tasks, weights once in memory.
- *signature*: the same stages, shapes and counts, other weights. A spare that fits one fits the
  other; it fetches the weights when it claims.
- *kind*: the same stages in the same order, whatever their size. The same image and class of worker
  runs both, given the capacity.

A place where an operator stands counts once per network, so an operator that stands twice in a
network counts twice. Places that are equal from the input on (nodes) are computed once as well.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, TypeAlias, get_args

from topologies.artifact import canonical_json, digest
from topologies.compiled import CompiledNetwork, Summary
from topologies.errors import SpikeRouterError
from topologies.stages.base import Json

__all__ = [
    "LEVELS",
    "Level",
    "Place",
    "Row",
    "Sharing",
    "SharingError",
    "Spares",
    "class_of",
    "share",
]

Level: TypeAlias = Literal["exact", "signature", "kind"]
LEVELS: tuple[Level, ...] = get_args(Level)


class SharingError(SpikeRouterError, ValueError):
    """There is nothing to compare."""


@dataclass(frozen=True, slots=True)
class Place:
    """An operator standing in a network: the node, its layers' names, and its class per level."""

    network: str
    node: str
    label: str
    summary: Summary
    classes: Mapping[Level, str]

    @property
    def size(self) -> int:
        """Neurons plus synapses: what it takes of a worker's capacity."""
        return self.summary.cost.n_neurons + self.summary.cost.n_synapses


@dataclass(frozen=True, slots=True)
class Spares:
    """Spares that outlast the loss of any one operator's worker.

    `n` spares with `size` neurons plus synapses in all. A pool has one spare per class, as large as
    the largest operator of the class.
    """

    pool: str
    n: int
    size: int


@dataclass(frozen=True, slots=True)
class Row:
    """One network, one family, or all of them.

    `distinct` counts classes per level; `shared` the operators that stand in more than one of all
    networks that were compared. The spares are those of `networks` alone.
    """

    name: str
    networks: tuple[str, ...]
    n_operators: int
    distinct: Mapping[Level, int]
    shared: Mapping[Level, int]
    n_nodes: int
    per_model: Spares
    pools: Mapping[Level, Spares]

    def ratio(self, level: Level) -> float:
        """Operators per distinct one: 1 where nothing is shared."""
        return self.n_operators / self.distinct[level]

    def saved_spares(self, level: Level) -> float:
        """The share of the spares that a pool saves against spares per model."""
        return _saved(self.pools[level].n, self.per_model.n)

    def saved_size(self, level: Level) -> float:
        """The share of the spares' neurons and synapses that it saves."""
        return _saved(self.pools[level].size, self.per_model.size)


@dataclass(frozen=True, slots=True)
class Sharing:
    """The analysis of some networks. `families` is empty when none were given."""

    places: tuple[Place, ...]
    networks: tuple[Row, ...]
    families: tuple[Row, ...]
    total: Row


def _saved(n: int, of: int) -> float:
    return 1.0 - n / of if of else 0.0


def class_of(summary: Summary, level: Level) -> str:
    """The class of an operator: equal for two operators if and only if they are equal there."""
    if level == "exact":
        return summary.id
    # A stage may hide others in it (`loop`), but not what a worker must have for them.
    kind = "+".join((summary.kind, *summary.extras))
    if level == "kind":
        return f"{kind}: {' '.join(summary.stages)}"
    cost = summary.cost
    shapes = [list(port.shape) for port in summary.ports]
    counts = [cost.n_neurons, cost.n_synapses, cost.macs_per_step, cost.state_bytes]
    content: Json = [kind, list(summary.stages), shapes, list(summary.output.shape), counts]
    return digest(canonical_json(content).encode("ascii"))


def share(
    networks: Sequence[CompiledNetwork], families: Mapping[str, str] | None = None
) -> Sharing:
    """Compare networks; `families` names the family of each, if they are to be counted by family.

    Raises SharingError for no network, for two of one name, or for one without a family.
    """
    _check(networks, families)
    places = tuple(place for network in networks for place in _places(network))
    names = [network.name for network in networks]
    by_family: dict[str, str] = {} if families is None else {n: families[n] for n in names}
    return Sharing(
        places=places,
        networks=tuple(_row(name, places, [name]) for name in names),
        families=tuple(
            _row(family, places, [name for name in names if by_family[name] == family])
            for family in dict.fromkeys(by_family.values())
        ),
        total=_row("all", places, names),
    )


def _check(networks: Sequence[CompiledNetwork], families: Mapping[str, str] | None) -> None:
    names = [network.name for network in networks]
    twice = sorted({name for name in names if names.count(name) > 1})
    if not names:
        raise SharingError("No network was given: name at least one.")
    if twice:
        raise SharingError(f"Networks {', '.join(twice)} were given twice: name each once.")
    missing = [name for name in names if families is not None and name not in families]
    if missing:
        raise SharingError(f"Networks {', '.join(missing)} have no family: give each one.")


def _places(network: CompiledNetwork) -> Iterable[Place]:
    classes = {
        summary.id: {level: class_of(summary, level) for level in LEVELS}
        for summary in network.summaries.values()
    }
    for node in network.nodes.values():
        summary = network.summaries[node.operator]
        label = network.labels.get(node.id) or summary.kind
        yield Place(network.name, node.id, label, summary, classes[summary.id])


def _row(name: str, places: Sequence[Place], networks: Sequence[str]) -> Row:
    own = [place for place in places if place.network in networks]
    return Row(
        name=name,
        networks=tuple(networks),
        n_operators=len(own),
        distinct={level: len({place.classes[level] for place in own}) for level in LEVELS},
        shared={level: _shared(level, places, own) for level in LEVELS},
        n_nodes=len({place.node for place in own}),
        per_model=_per_model(own),
        pools={level: _pool(level, own) for level in LEVELS},
    )


def _shared(level: Level, places: Iterable[Place], own: Iterable[Place]) -> int:
    users: dict[str, set[str]] = {}
    for place in places:
        users.setdefault(place.classes[level], set()).add(place.network)
    return sum(len(users[place.classes[level]]) > 1 for place in own)


def _per_model(places: Sequence[Place]) -> Spares:
    """Each network keeps spares of its own, one for each of its operators."""
    found = {(place.network, place.summary.id): place.size for place in places}
    return Spares("per model", len(found), sum(found.values()))


def _pool(level: Level, places: Iterable[Place]) -> Spares:
    largest: dict[str, int] = {}
    for place in places:
        key = place.classes[level]
        largest[key] = max(place.size, largest.get(key, 0))
    return Spares(level, len(largest), sum(largest.values()))
