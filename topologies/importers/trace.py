"""What every layer of a compiled network computes, in one process, before it is cut.

The compiler's stages are run as they are, so spikes and results are those of any deployment; a
deployment only shows what travels, and not what is fused with a readout.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from topologies.compiler.lowered import Lowered
from topologies.stages.base import Array, Clock, Emissions, Encoder
from topologies.stages.readout import Readout

__all__ = ["Trace", "trace"]


@dataclass(frozen=True, eq=False)
class Trace:
    """`layers`: what each named layer gives, (B, T, *shape) integers; `results`: (B, K, n)."""

    layers: Mapping[str, Array]
    results: Array


def trace(stages: Sequence[Lowered], values: Array, n_steps: int, wanted: set[str]) -> Trace:
    """Runs whole streams; `wanted` are the layers to keep.

    `values` are (B, *shape) samples, or (B, T, *shape) integers for events; all streams have
    `n_steps` steps and the seed 0.
    """
    run = _Run(stages, values, n_steps)
    window = 1 if any(read.delay for stage in stages for read in stage.reads) else n_steps
    for start in range(0, n_steps, window):
        run.window(start, min(start + window, n_steps))
    layers = {
        lowered.label: np.concatenate(run.known[index], axis=1)
        for index, lowered in enumerate(stages)
        if lowered.label in wanted and run.known[index]
    }
    emitted = [np.concatenate(parts) for parts in zip(*run.emitted, strict=True)]
    return Trace(layers, np.stack(emitted))


class _Run:
    def __init__(self, stages: Sequence[Lowered], values: Array, n_steps: int) -> None:
        self.stages, self.values, self.n_steps = stages, values, n_steps
        self.known: list[list[Array]] = [[] for _ in stages]
        self.emitted: list[list[Array]] = []
        self.states = [self._initial(lowered) for lowered in stages]

    def _initial(self, lowered: Lowered) -> tuple[Array, ...]:
        types = [self.stages[read.index].type for read in lowered.reads]
        spec = lowered.stage.state_spec(types) if types else ()
        return tuple(np.zeros((len(self.values), *shape), dtype) for _, shape, dtype in spec)

    def window(self, start: int, stop: int) -> None:
        n = len(self.values)
        clock = Clock(np.full(n, start, np.int64), np.full(n, stop == self.n_steps))
        for index, lowered in enumerate(self.stages):
            stage = lowered.stage
            output: Array | Emissions
            if isinstance(stage, Encoder):
                output = self._encode(stage, clock, start, stop)
            else:
                spans = ((r.index, start - r.delay, stop - r.delay) for r in lowered.reads)
                inputs = [self._read(*span) for span in spans]
                output, self.states[index] = stage.run(inputs, self.states[index], clock)
            if isinstance(stage, Readout):
                self.emitted.append(list(output))
            elif isinstance(output, np.ndarray):
                self.known[index].append(output)

    def _encode(self, encoder: Encoder, clock: Clock, start: int, stop: int) -> Array:
        events = encoder.kind == "events"
        values = self.values[:, start:stop] if events else self.values
        seeds = np.zeros(len(values), np.uint64)
        return encoder.encode(values, clock.start, stop - start, seeds)

    def _read(self, index: int, lo: int, hi: int) -> Array:
        """Steps [lo, hi) of a stage's output, which are one window; all is silent before step 0."""
        if lo >= 0:
            return self.known[index][lo // (hi - lo)]
        shape = (len(self.values), hi - lo, *self.stages[index].type.shape)
        return np.zeros(shape, np.int64)
