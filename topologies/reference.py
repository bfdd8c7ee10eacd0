"""The oracle: a whole network in one process, slow and plain."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np

from topologies.manifest import CompiledNetwork, ManifestError, Node
from topologies.operators import Operator
from topologies.program import Program
from topologies.stages.base import Array, Clock, Encoder
from topologies.stages.encoder import Events

__all__ = ["run_reference", "run_reference_nodes", "run_streams"]


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
    return _Run.of(network, values, seeds, n_steps, by_group).results(window, {})


def run_reference_nodes(
    network: CompiledNetwork,
    values: Array,
    seeds: Array | None = None,
    *,
    n_steps: int | None = None,
) -> dict[str, Array]:
    """What each node but the readout sends, (B, T, n) integers, in a run of `run_reference`."""
    sent: dict[str, Array] = {}
    _Run.of(network, values, seeds, n_steps, False).results(None, sent)
    return sent


def run_streams(network: CompiledNetwork, values: Array, seeds: Array | None = None) -> list[Array]:
    """Whole streams, slow and plain; gives the emissions (K, n) of each.

    `values` is (B, T, *shape) for an input of events; else (B, S, *shape): S samples per stream,
    one after the other, each for `n_steps` of the input (1 if it declares none). `seeds` is uint64
    (B,), default 0.
    """
    if seeds is None:
        seeds = np.zeros(len(values), np.uint64)
    if network.input.encoder == "events":
        return run_reference(network, values, seeds)
    return run_reference(*_encoded(network, values, seeds), seeds)


def _encoded(
    network: CompiledNetwork, samples: Array, seeds: Array
) -> tuple[CompiledNetwork, Array]:
    """The network behind its encoder, and what the samples are encoded to, (B, T, *shape)."""
    ingest = network.nodes[network.input.node].operator
    encoder = network.operators[ingest].program.stages[-1]
    if not isinstance(encoder, Encoder):
        raise TypeError(f"The input of network {network.name} has no encoder.")
    period = network.input.n_steps or 1
    parts = []
    for i in range(samples.shape[1]):
        start = np.full(len(samples), i * period, np.int64)
        parts.append(encoder.encode(samples[:, i], start, period, seeds))
    as_they_come = Events(shape=network.input.shape, high=max(1, encoder.out_type(()).high))
    stand_in = Operator(ingest, "ingest", Program((), (as_they_come,), ((),)))
    return (
        replace(
            network,
            input=replace(network.input, encoder="events"),
            operators={**network.operators, ingest: stand_in},
        ),
        np.concatenate(parts, axis=1),
    )


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

    def results(self, window: int | None, known: dict[str, Array]) -> list[Array]:
        """Each stream's emissions. Fills `known` with what the nodes send."""
        longest = self.network.input.longest_window
        length = min(window or longest, longest)
        n = len(self.values)
        states = {
            node.id: [part.init_state(n) for part in self.programs[node.operator]]
            for node in self.network.nodes.values()
        }
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
