"""Cut a lowered network into operators, where the signal is spikes.

A cut is a set of stages whose output travels. An operator is one of them with everything it needs
back to the next ones: so the cut decides which stages share a program, and nothing else.

- The ingest encoder and the readout always end an operator, and so does what is read with a delay.
- `layer`: every neuron layer ends one, with its *tail*: a pool or an add that is the only reader of
  the neurons goes with them, for after it fewer or the same number of values travel, and several
  consumers or groups need not compute it again. An add of two branches goes with the later one.
  Linear stages go with the neurons that they feed. Membrane values that several layers read end one
  too: else each reader would compute all blocks before it again.
- `group`: as `layer`; only the synapse groups are smaller.
- `stage`: neighbours of one stage are fused where nobody else needs what passes between them. A
  layer says its stage; else layers whose outputs have the same height and width are one, and so
  are all flat ones.
- `model`: all is fused that can be.

At `stage` and `model` a layer that reads itself does so inside of its operator: it cannot be cut
into groups then, but sends nothing to itself, and its delay does not limit the windows.

An operator that reads nothing but delayed values reads the input as well, for its windows: a
delayed source may be ahead of it or behind (PROTOCOL 11).
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, TypeAlias

from topologies.compiler.lowered import Lowered, Read
from topologies.program import Program
from topologies.stages.loop import Loop

__all__ = ["GRANULARITIES", "Granularity", "Piece", "cut"]

Granularity: TypeAlias = Literal["model", "stage", "layer", "group"]
GRANULARITIES: tuple[Granularity, ...] = ("model", "stage", "layer", "group")


@dataclass(frozen=True, eq=False)
class Piece:
    """A node to be: its program, the pieces (by place in the list) and delays that its ports read.

    `labels` are the authored layers in it, in order.
    """

    program: Program
    reads: tuple[tuple[int, int], ...]
    labels: tuple[str, ...]


def cut(stages: Sequence[Lowered], granularity: Granularity) -> tuple[Piece, ...]:
    """The pieces in topological order of undelayed reads, ingest first and the readout last."""
    ends = _layer_ends(stages)
    fused = granularity in ("stage", "model")
    if fused:
        ends = _fused(stages, ends, _services(stages, ends, granularity))
    order = sorted(ends)
    places = {end: place for place, end in enumerate(order)}
    return tuple(_piece(stages, places, end, fused) for end in order)


def _layer_ends(stages: Sequence[Lowered]) -> set[int]:
    """The stages whose output travels at granularity `layer`."""
    last = len(stages) - 1
    fixed = _fixed(stages)
    readers = _readers(stages)
    ends = fixed | {i for i, stage in enumerate(stages) if stage.stage.role == "neuron"}
    ends |= {i for i, s in enumerate(stages) if s.stage.shared and len(readers[i]) > 1}
    for index in range(1, last + 1):
        source = max(read.index for read in stages[index].reads)
        tail = stages[index].signal and stages[index].stage.tail
        if (tail or index == last) and source in ends - fixed and readers[source] == {index}:
            ends.remove(source)
            ends.add(index)
    return ends


def _fixed(stages: Sequence[Lowered]) -> set[int]:
    """What ends an operator at every granularity."""
    delayed = {read.index for stage in stages for read in stage.reads if read.delay}
    return {0, len(stages) - 1} | delayed


def _readers(stages: Sequence[Lowered]) -> list[set[int]]:
    readers: list[set[int]] = [set() for _ in stages]
    for index, stage in enumerate(stages):
        for read in stage.reads:
            readers[read.index].add(index)
    return readers


def _fused(stages: Sequence[Lowered], ends: set[int], services: Mapping[int, object]) -> set[int]:
    """Without the ends that only one operator of the same service reads.

    From the readout back: what is left to read an end is then already decided. So a fused operator
    has one output, and no path leads out of it and in again.
    """
    kept = set(ends)
    for end in sorted(ends - _fixed(stages), reverse=True):
        consumers = [e for e in kept if any(r.index == end for r in _ports(stages, kept, e))]
        if len(consumers) == 1 and services[consumers[0]] == services[end]:
            kept.remove(end)
    return kept


def _services(
    stages: Sequence[Lowered], ends: set[int], granularity: Granularity
) -> dict[int, object]:
    if granularity == "model":
        return dict.fromkeys(ends, "")
    return {end: _service(stages, _members(stages, ends, end)) for end in ends}


def _service(stages: Sequence[Lowered], members: Sequence[int]) -> object:
    declared = [stages[i].service for i in members if stages[i].service is not None]
    if declared:
        return declared[-1]
    neurons = [i for i in members if stages[i].stage.role == "neuron"]
    return stages[(neurons or members)[-1]].type.shape[1:]


def _walk(stages: Sequence[Lowered], ends: set[int], end: int) -> Iterator[tuple[int, list[Read]]]:
    """The stages of an operator, each with the reads that cross into it, sources first.

    The order follows from the wiring alone: depth first, in the order of the reads. So equal
    operators have equal programs, whatever their place and their layers' names.
    """
    seen: set[int] = set()

    def visit(index: int) -> Iterator[tuple[int, list[Read]]]:
        seen.add(index)
        crossing = []
        for read in stages[index].reads:
            if read.delay or read.index in ends:
                crossing.append(read)
            elif read.index not in seen:
                yield from visit(read.index)
        yield index, crossing

    yield from visit(end)


def _members(stages: Sequence[Lowered], ends: set[int], end: int) -> list[int]:
    return [index for index, _ in _walk(stages, ends, end)]


def _ports(stages: Sequence[Lowered], ends: set[int], end: int) -> list[Read]:
    """What an operator reads from others, each once, in the order of its program."""
    crossing = (read for _, reads in _walk(stages, ends, end) for read in reads)
    return list(dict.fromkeys(crossing))


def _piece(stages: Sequence[Lowered], places: Mapping[int, int], end: int, fused: bool) -> Piece:
    ends = set(places)
    members = _members(stages, ends, end)
    ports = _ports(stages, ends, end)
    if ports and all(read.delay for read in ports):
        ports.append(Read(0))  # no stage reads it: it tells how far the stream has come
    local = {index: place for place, index in enumerate(members)}

    def read_of(read: Read) -> int:
        return -1 - ports.index(read) if read in ports else local[read.index]

    program = Program(
        ports=tuple(stages[read.index].type for read in ports),
        stages=tuple(stages[index].stage for index in members),
        reads=tuple(tuple(read_of(read) for read in stages[index].reads) for index in members),
    )
    if fused:
        program, ports = _closed(program, ports, end)
    reads = tuple((places[read.index], read.delay) for read in ports)
    return Piece(program, reads, tuple(stages[index].label for index in sorted(members)))


def _closed(program: Program, ports: Sequence[Read], end: int) -> tuple[Program, list[Read]]:
    """The program with what it reads of itself inside, and the ports that are left."""
    feedback = tuple((port, r.delay) for port, r in enumerate(ports) if r.index == end)
    if not feedback:
        return program, list(ports)
    others = [port for port, read in enumerate(ports) if read.index != end]
    types = tuple(program.ports[port] for port in others)
    reads = (tuple(-1 - i for i in range(len(others))),)
    return Program(types, (Loop(program, feedback),), reads), [ports[port] for port in others]
