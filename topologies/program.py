"""A straight-line program of stages: what one operator computes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property, reduce
from math import gcd
from operator import add
from typing import Any, TypeAlias

import numpy as np

from topologies.stages.base import (
    Array,
    Clock,
    Cost,
    Emissions,
    Slice,
    Stage,
    StageError,
    StateSpec,
    ValueType,
    edge_dtype,
)
from topologies.stages.reshape import Select

__all__ = ["Program"]

_Range: TypeAlias = tuple[int, int]


@dataclass(frozen=True, eq=False)
class Program:
    """Stages in topological order; each reads earlier stages or input ports.

    `reads[i]` lists what stage i reads: j >= 0 is the output of stage j, -1 - k is port k. The
    program's output is that of the last stage. An ingest operator's program is one encoder that
    reads nothing.
    """

    ports: tuple[ValueType, ...]
    stages: tuple[Stage, ...]
    reads: tuple[tuple[int, ...], ...]

    @cached_property
    def types(self) -> tuple[ValueType, ...]:
        """The output type of each stage. Raises StageError when the stages do not fit."""
        types: list[ValueType] = []
        for stage, reads in zip(self.stages, self.reads, strict=True):
            if any(read >= len(types) or -1 - read >= len(self.ports) for read in reads):
                raise StageError(f"Stage {len(types)} reads {reads}: no such stage before it.")
            types.append(stage.out_type([_at(types, self.ports, read) for read in reads]))
        if not types:
            raise StageError("A program has at least one stage.")
        return tuple(types)

    def inputs_of(self, index: int) -> list[ValueType]:
        """The types that stage `index` reads."""
        return [_at(self.types, self.ports, read) for read in self.reads[index]]

    @property
    def output(self) -> ValueType:
        """The type of the program's output."""
        return self.types[-1]

    @cached_property
    def cost(self) -> Cost:
        """What one stream costs, over all stages."""
        costs = (stage.cost(self.inputs_of(i)) for i, stage in enumerate(self.stages))
        return reduce(add, costs, Cost())

    @cached_property
    def extras(self) -> tuple[str, ...]:
        """The extras whose libraries step one of the stages, sorted; without any it is portable."""
        return tuple(sorted({extra for stage in self.stages for extra in stage.extras}))

    @cached_property
    def state_specs(self) -> tuple[StateSpec, ...]:
        """The state of each stage, of one stream."""
        return tuple(s.state_spec(self.inputs_of(i)) for i, s in enumerate(self.stages))

    def state_spec(self) -> StateSpec:
        """The state of one stream, flattened over the stages: ("<stage>.<name>", shape, dtype)."""
        return tuple(
            (f"{index}.{name}", shape, dtype)
            for index, spec in enumerate(self.state_specs)
            for name, shape, dtype in spec
        )

    def init_state(self, n: int) -> tuple[Array, ...]:
        """The state of `n` new streams: zeros, with leading axis n."""
        return tuple(np.zeros((n, *shape), dtype) for _, shape, dtype in self.state_spec())

    def run(
        self, inputs: Sequence[Array], state: tuple[Array, ...], clock: Clock
    ) -> tuple[Array | Emissions, tuple[Array, ...]]:
        """The reference run of one window of B streams.

        `inputs[k]` is (B, T, n) or (B, T, *shape), integers, for port k; `state` is as
        `init_state` makes it. Returns the output, flat: (B, T, n) in `edge_dtype`, or a readout's
        emissions, and the new state.
        """
        ports = [
            array.reshape(*array.shape[:2], *port.shape)
            for array, port in zip(inputs, self.ports, strict=True)
        ]
        outputs: list[Any] = []
        after: list[Array] = []
        used = 0
        for stage, reads, spec in zip(self.stages, self.reads, self.state_specs, strict=True):
            mine = state[used : used + len(spec)]
            used += len(spec)
            output, new = stage.run([_at(outputs, ports, read) for read in reads], mine, clock)
            outputs.append(output)
            after.extend(new)
        return _flat(outputs[-1], self.output), tuple(after)

    def granule(self) -> int | None:
        """Groups begin and end at multiples of this many outputs.

        None: the program is one group, since it ends in a readout, or since two groups would both
        need the state of a neuron.
        """
        return self._granule(len(self.stages) - 1)

    def row_granule(self) -> int | None:
        """Groups within one channel begin and end at multiples of this many outputs: its rows.

        None: the program gives no channels of rows, or has a stage that is not cut so.
        """
        shape = self.output.shape
        if len(shape) != 3 or shape[1] < 2 or self.granule() is None:
            return None
        try:
            self.slice(shape[2], 2 * shape[2])
        except StageError:
            return None
        return shape[2]

    def _granule(self, index: int) -> int | None:
        stage, inputs = self.stages[index], self.inputs_of(index)
        granule = stage.granule(inputs)
        if granule is None:
            return None
        width, part = granule, stage.slice(inputs, 0, granule)
        for read, span in zip(self.reads[index], part.reads, strict=True):
            if read < 0:
                continue
            if span is None:
                if self._has_state(read):
                    return None
                continue
            above = self._granule(read)
            if above is None:
                return None
            granule *= above // gcd(above, span[1] * granule // width)
        return granule

    def _has_state(self, index: int) -> bool:
        if self.state_specs[index]:
            return True
        return any(self._has_state(read) for read in self.reads[index] if read >= 0)

    def slice(self, lo: int, hi: int) -> Program:
        """The part that computes the flattened outputs [lo, hi), from the same full ports.

        Raises StageError when lo and hi are no multiples of `granule()`, nor in one channel and
        multiples of `row_granule()`.
        """
        if (lo, hi) == (0, self.output.n):
            return self
        spans = self._spans(lo, hi)
        stages: list[Stage] = []
        reads: list[tuple[int, ...]] = []
        place: dict[int, int] = {}
        for index, span in sorted(spans.items()):
            part = self._part(index, span)
            mine: list[int] = []
            for read, wanted in zip(self.reads[index], part.reads, strict=True):
                source = place[read] if read >= 0 else read
                given = spans[read] if read >= 0 else (0, self.ports[-1 - read].n)
                if wanted is not None and wanted != given:
                    stages.append(Select(wanted[0] - given[0], wanted[1] - given[0]))
                    reads.append((source,))
                    source = len(stages) - 1
                mine.append(source)
            if part.before is not None:
                stages.append(part.before)
                reads.append(tuple(mine))
                mine = [len(stages) - 1]
            stages.append(part.stage)
            reads.append(tuple(mine))
            place[index] = len(stages) - 1
        return Program(self.ports, tuple(stages), tuple(reads))

    def _part(self, index: int, span: _Range) -> Slice:
        stage, inputs = self.stages[index], self.inputs_of(index)
        if span == (0, self.types[index].n):
            return Slice(stage, tuple(None for _ in inputs))
        return stage.slice(inputs, *span)

    def _spans(self, lo: int, hi: int) -> dict[int, _Range]:
        """The flattened outputs of each stage that [lo, hi) of the last one needs."""
        spans = {len(self.stages) - 1: (lo, hi)}
        for index in reversed(range(len(self.stages))):
            if index not in spans:
                continue
            part = self._part(index, spans[index])
            for read, span in zip(self.reads[index], part.reads, strict=True):
                if read >= 0:
                    wanted = span or (0, self.types[read].n)
                    known = spans.get(read, wanted)
                    spans[read] = (min(wanted[0], known[0]), max(wanted[1], known[1]))
        return spans


def _at(stages: Sequence[Any], ports: Sequence[Any], read: int) -> Any:
    return stages[read] if read >= 0 else ports[-1 - read]


def _flat(output: Array | Emissions, kind: ValueType) -> Array | Emissions:
    if isinstance(output, list):
        return output
    flat = output.reshape(*output.shape[:2], kind.n)
    return flat.astype(edge_dtype(kind), copy=False)
