"""What a deployment must equal: the same streams in one process that nothing disturbs. Pure."""

import hashlib
from collections.abc import Mapping
from dataclasses import replace

import numpy as np

from topologies.compiled import CompiledNetwork, Operator, run_reference
from topologies.program import Program
from topologies.stages.base import Array, Encoder
from topologies.stages.encoder import Events

__all__ = ["digest_of", "run_streams"]


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


def digest_of(outputs: Mapping[str, Array]) -> str:
    """SHA-256 over all outputs: name, type, shape and bytes of each stream, sorted by name."""
    total = hashlib.sha256()
    for name, values in sorted(outputs.items()):
        total.update(f"{name} {values.dtype.str} {values.shape}\n".encode())
        total.update(np.ascontiguousarray(values).tobytes())
    return total.hexdigest()
