"""All passes in order: authored network in, compiled network out. Pure.

1. Check: all faults at once.
2. Fold batch norm and odd divisors into weights.
3. Quantise, prove bounds, choose accumulators: every bit is decided here.
4. Cut at spike edges into operators.
5. Hash them, and the places where they stand.
6. Cut operators into synapse groups.
7. Keep batches and windows within their limits.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from topologies.compiled import (
    CompiledNetwork,
    Edge,
    Group,
    InputSpec,
    Node,
    Operator,
    OutputSpec,
)
from topologies.compiler.check import check_network
from topologies.compiler.cut import GRANULARITIES, Granularity, Piece, cut
from topologies.compiler.digest import Place, node_ids
from topologies.compiler.fold import fold
from topologies.compiler.groups import Capacity, cut_groups
from topologies.compiler.order import infer_shapes
from topologies.compiler.plan import cycle_window, fit_batches
from topologies.compiler.quantise import Bits, Quantised, quantise
from topologies.model import Fault, Network, NetworkError
from topologies.stages.base import StageError, edge_dtype
from topologies.stages.readout import Readout

__all__ = ["Compilation", "compile_network", "compile_with_errors"]

LONGEST_WINDOW = 64  # steps, when neither the input nor a request's length says otherwise
# Neurons of one group at granularity `group` without a capacity: a TrueNorth core has as many.
GROUP_NEURONS = 256
_BITS = range(2, 32)


@dataclass(frozen=True, eq=False)
class Compilation:
    """A compiled network and what quantising did to it."""

    network: CompiledNetwork
    quantised: Quantised


def compile_network(
    network: Network,
    *,
    granularity: Granularity = "layer",
    bits: Bits = "auto",
    capacity: Capacity | None = None,
) -> CompiledNetwork:
    """The compiled network; see the module. The same input gives the same bytes everywhere.

    Raises NetworkError with all faults of the network, or CapacityError.
    """
    return compile_with_errors(
        network, granularity=granularity, bits=bits, capacity=capacity
    ).network


def compile_with_errors(
    network: Network,
    *,
    granularity: Granularity = "layer",
    bits: Bits = "auto",
    capacity: Capacity | None = None,
) -> Compilation:
    """`compile_network`, with the errors of the weights."""
    _check_options(granularity, bits)
    faults = check_network(network)
    if faults:
        raise NetworkError(faults, network.name)
    folded = fold(network)
    shapes, _ = infer_shapes(folded)
    quantised = quantise(folded, shapes, bits)
    pieces = cut(quantised.stages, granularity)
    return Compilation(_wired(network, pieces, granularity, capacity), quantised)


def _check_options(granularity: str, bits: Bits) -> None:
    faults = []
    if granularity not in GRANULARITIES:
        legal = ", ".join(GRANULARITIES)
        faults.append(Fault("granularity", f"{granularity!r} is none of {legal}."))
    if bits != "auto" and bits not in _BITS:
        faults.append(Fault("bits", f"{bits!r} is neither 'auto' nor an integer from 2 to 31."))
    if faults:
        raise NetworkError(faults)


def _wired(
    network: Network, pieces: Sequence[Piece], granularity: Granularity, capacity: Capacity | None
) -> CompiledNetwork:
    standing = [_operator(network, piece) for piece in pieces]
    operators = {operator.id: operator for operator in standing}
    labels = {op.id: _label(piece) for op, piece in zip(standing, pieces, strict=True)}
    places = [
        Place(op.id, piece.reads, "" if piece.reads else network.input.name)
        for op, piece in zip(standing, pieces, strict=True)
    ]
    ids = node_ids(places)
    groups = {
        oid: _groups(operator, granularity, capacity, labels[oid])
        for oid, operator in operators.items()
    }
    groups, longest = fit_batches(operators, groups, _longest_window(network, places))
    nodes = [_node(nid, place, ids) for nid, place in zip(ids, places, strict=True)]
    return CompiledNetwork(
        name=network.name,
        input=_input(network, ids[0], longest),
        operators=operators,
        groups=groups,
        nodes={node.id: node for node in nodes},
        readout=ids[-1],
        outputs=_outputs(network, standing[-1]),
        labels={nid: _label(piece) for nid, piece in zip(ids, pieces, strict=True)},
    )


def _operator(network: Network, piece: Piece) -> Operator:
    """The operator of a piece, whose values must fit what travels."""
    operator = Operator.of(piece.program, "" if piece.reads else network.input.name)
    if operator.kind != "readout":
        try:
            edge_dtype(operator.output)
        except StageError as error:
            fault = Fault(piece.labels[-1], f"{error} Put a requantise behind it.")
            raise NetworkError([fault], network.name) from error
    return operator


def _label(piece: Piece) -> str:
    return "+".join(piece.labels)


def _node(nid: str, place: Place, ids: Sequence[str]) -> Node:
    return Node(nid, place.operator, tuple(Edge(ids[i], delay) for i, delay in place.reads))


def _groups(
    operator: Operator, granularity: Granularity, capacity: Capacity | None, label: str
) -> tuple[Group, ...]:
    if granularity == "group" and capacity is None:
        smallest = operator.program.granule()
        if smallest is None or operator.kind == "ingest":
            return (Group(0, 0, operator.output.n),)
        cost = operator.program.slice(0, smallest).cost
        return cut_groups(operator, Capacity(neurons=max(GROUP_NEURONS, cost.n_neurons)), label)
    return cut_groups(operator, capacity, label)


def _longest_window(network: Network, places: Sequence[Place]) -> int:
    spec = network.input
    asked = spec.longest_window or spec.n_steps or LONGEST_WINDOW
    legal = cycle_window(places)
    if legal is None or asked <= legal:
        return asked
    if spec.longest_window is None:
        return legal
    raise NetworkError(
        [
            Fault(
                "input.longest_window",
                f"{asked} steps, but a cycle of this network has no delay above {legal} steps: "
                f"legal is 1 to {legal}.",
            )
        ],
        network.name,
    )


def _input(network: Network, node: str, longest: int) -> InputSpec:
    spec = network.input
    return InputSpec(
        name=spec.name,
        node=node,
        encoder=spec.encoder,
        shape=spec.shape,
        low=float(spec.low),
        high=float(spec.high),
        longest_window=longest,
        n_steps=spec.n_steps,
    )


def _outputs(network: Network, operator: Operator) -> OutputSpec:
    readout = operator.program.stages[-1]
    if not isinstance(readout, Readout):
        raise NetworkError([Fault("output.readout", f"{readout.kind!r} is no readout.")])
    return OutputSpec(
        shape=operator.output.shape,
        dtype=readout.result_dtype,
        readout=readout.kind,
        every=readout.every,
        labels=network.output.labels,
    )
