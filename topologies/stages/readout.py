"""Readouts: what a network answers. The last stage of a readout operator.

A readout adds up one step after the other, over a period, and then emits and starts again at zero.
A period is `every` steps, counted from the stream's step 0, so that neither the cut into windows
nor its batch can change a bit; without `every` it is the whole stream. At a stream's end it emits
what the last period has so far, unless that is no step at all (a stream without any step emits
once).

With x the integers that come in, in units of 2**-unit, and r the steps of the period:

    count       c = c + x                               int64, emitted as int32, saturated
    mean        c = c + x                               int64, float32(c * 2**-unit / (r * d))
    membrane    i = float32(x * 2**-unit) + 0.0
                v = decay * v + i                       float32, emitted as it is

d is what the compiler could not fold into weights, of an average over other axes. The mean divides
in float64 and rounds to float32 once (docs/numerics.md, rules 5 and 13); its integers stay below
2**53 for 2**29 steps. Emitted zeros are +0.0.
"""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Literal, Self

import numpy as np

from topologies.stages.base import (
    NO_ARRAYS,
    Array,
    Clock,
    Cost,
    Emissions,
    Json,
    Role,
    Stage,
    StageError,
    StateSpec,
    ValueType,
    float32_from_bits,
    float32_to_bits,
    to_current,
)

__all__ = ["STAGES", "Count", "Mean", "Membrane", "Readout"]

_INT32 = 2**31 - 1


@dataclass(frozen=True, eq=False, kw_only=True)
class Readout(Stage):
    """A readout that emits each `every` steps (None: once) and at the end of the stream.

    `unit` is that of the sums that are read: `reading` sets it.
    """

    role: ClassVar[Role] = "readout"
    result_dtype: ClassVar[Literal["int32", "float32"]] = "float32"
    # Whether it takes a `divisor` of what it reads.
    divides: ClassVar[bool] = False

    every: int | None = None
    unit: int = 0

    def __post_init__(self) -> None:
        """Check `every`. Raises StageError."""
        if self.every is not None and (type(self.every) is not int or self.every < 1):
            raise StageError(f"every is {self.every!r}: it must be 1 step or more, or null.")

    @classmethod
    def authored(cls, params: Mapping[str, Any], arrays: Mapping[str, Array] = NO_ARRAYS) -> Self:
        """Parameters: every (null)."""
        return cls(every=_only(cls.kind, params, "every").get("every"))

    @classmethod
    def build(cls, params: Mapping[str, Any], arrays: Mapping[str, Array]) -> Self:
        """Read what `params` wrote."""
        return cls(every=params["every"], unit=params["unit"])

    def params(self) -> dict[str, Json]:
        """The period and the unit."""
        return {"every": self.every, "unit": self.unit}

    def reading(self, value: ValueType) -> Self:
        """This readout, reading sums in the unit of `value`."""
        return replace(self, unit=value.unit)

    def out_type(self, inputs: Sequence[ValueType]) -> ValueType:
        """What is read, of which mean and membrane are fractions: see `result_dtype`."""
        if len(inputs) != 1:
            raise StageError(f"A readout reads one input, not {len(inputs)}.")
        if inputs[0].unit != self.unit:
            raise StageError(
                f"A readout that reads units of 2**-{self.unit} is given 2**-{inputs[0].unit}."
            )
        return inputs[0]

    def row_bound(self, inputs: Sequence[ValueType]) -> int:
        """The largest input; the sum over time has integers of its own."""
        return inputs[0].largest

    def cost(self, inputs: Sequence[ValueType]) -> Cost:
        """One accumulator per value."""
        (_, shape, dtype), *_ = self.state_spec(inputs)
        state_bytes = np.dtype(dtype).itemsize * math.prod(shape)
        return Cost(n_neurons=inputs[0].n, state_bytes=state_bytes)

    def state_spec(self, inputs: Sequence[ValueType]) -> StateSpec:
        """The sum so far, `total`, int64."""
        return (("total", inputs[0].shape, "int64"),)

    def run(
        self, inputs: Sequence[Array], state: tuple[Array, ...], clock: Clock
    ) -> tuple[Emissions, tuple[Array, ...]]:
        """Add up step by step. Emissions are (K_b, n), flat, K_b often 0."""
        steps = self.prepared(inputs[0])
        emitted: list[list[Array]] = [[] for _ in range(len(steps))]
        total = state[0].copy()
        lo = 0
        for hi in self._cuts(clock.start, steps.shape[1]):
            total = self.fold(total, steps[:, lo:hi])
            if self.every is not None:
                due = (clock.start + hi) % self.every == 0
                self._emit(total, due, np.full(len(steps), self.every), emitted)
            lo = hi
        stop = clock.start + steps.shape[1]
        since = stop if self.every is None else stop % self.every
        self._emit(total, clock.end & ((since > 0) | (stop == 0)), since, emitted)
        nothing = np.empty((0, math.prod(steps.shape[2:])), self.result_dtype)
        return [_joined(parts, nothing) for parts in emitted], (total,)

    def _cuts(self, start: Array, n_steps: int) -> list[int]:
        """Where a period ends within the window in any of the streams, and the window's end."""
        if self.every is None or n_steps == 0:
            return [n_steps] if n_steps else []
        firsts = {int(self.every - phase) for phase in np.unique(start % self.every)}
        ends = {end for first in firsts for end in range(first, n_steps, self.every)}
        return sorted(ends | {n_steps})

    def _emit(self, total: Array, due: Array, since: Array, emitted: list[list[Array]]) -> None:
        rows = np.flatnonzero(due)
        if not len(rows):
            return
        results = self.result(total[rows], since[rows]).reshape(len(rows), 1, -1)
        for b, result in zip(rows.tolist(), results, strict=True):
            emitted[b].append(result)
        total[rows] = 0

    def prepared(self, inputs: Array) -> Array:
        """The window's integers (B, T, *shape) as what is added: int64."""
        return inputs.astype(np.int64)

    def fold(self, total: Array, steps: Array) -> Array:
        """The accumulators (B, *shape) after the steps (B, T, *shape); integers in one sum."""
        after: Array = total + steps.sum(axis=1)
        return after

    @abstractmethod
    def result(self, total: Array, n_steps: Array) -> Array:
        """What is emitted of accumulators (K, *shape) after periods of `n_steps` (K,) steps."""


@dataclass(frozen=True, eq=False, kw_only=True)
class Count(Readout):
    """The number of spikes (or the sum of integers) of a period, int32."""

    kind: ClassVar[str] = "count"
    result_dtype: ClassVar[Literal["int32", "float32"]] = "int32"

    def out_type(self, inputs: Sequence[ValueType]) -> ValueType:
        """Counts, in the unit of what is counted."""
        value = super().out_type(inputs)
        return ValueType(value.shape, -_INT32 if value.low < 0 else 0, _INT32, value.unit)

    def result(self, total: Array, n_steps: Array) -> Array:
        """The count, saturated at +-(2**31 - 1)."""
        return np.clip(total, -_INT32, _INT32).astype(np.int32)


@dataclass(frozen=True, eq=False, kw_only=True)
class Mean(Readout):
    """The mean over a period, float32, divided by `divisor` too."""

    kind: ClassVar[str] = "mean"
    divides: ClassVar[bool] = True

    divisor: int = 1

    @classmethod
    def authored(cls, params: Mapping[str, Any], arrays: Mapping[str, Array] = NO_ARRAYS) -> Self:
        """Parameters: every (null), divisor (1)."""
        known = _only(cls.kind, params, "every", "divisor")
        return cls(every=known.get("every"), divisor=known.get("divisor", 1))

    @classmethod
    def build(cls, params: Mapping[str, Any], arrays: Mapping[str, Array]) -> Self:
        """Read what `params` wrote."""
        return cls(every=params["every"], unit=params["unit"], divisor=params.get("divisor", 1))

    def params(self) -> dict[str, Json]:
        """The period and the unit, and the divisor if there is one."""
        return {**super().params(), **({} if self.divisor == 1 else {"divisor": self.divisor})}

    def result(self, total: Array, n_steps: Array) -> Array:
        """The sum over the number of steps; 0 for no step."""
        scaled = total.astype(np.float64) * np.float64(2.0**-self.unit)
        steps = np.maximum(n_steps, 1).astype(np.float64) * np.float64(self.divisor)
        mean = scaled / steps.reshape(-1, *[1] * (total.ndim - 1))
        return mean.astype(np.float32) + np.float32(0.0)


@dataclass(frozen=True, eq=False, kw_only=True)
class Membrane(Readout):
    """The membrane of a leaky integrator that never fires, at the end of a period, float32."""

    kind: ClassVar[str] = "membrane"

    decay: float = 1.0

    def __post_init__(self) -> None:
        """Round the decay to float32. Raises StageError."""
        super().__post_init__()
        if not 0 <= self.decay <= 1:
            raise StageError(f"decay is {self.decay}: it must lie in 0 to 1.")
        object.__setattr__(self, "decay", float(np.float32(self.decay)) + 0.0)

    @classmethod
    def authored(cls, params: Mapping[str, Any], arrays: Mapping[str, Array] = NO_ARRAYS) -> Self:
        """Parameters: every (null), decay (1)."""
        known = _only(cls.kind, params, "every", "decay")
        decay = known.get("decay", 1.0)
        if isinstance(decay, bool) or not isinstance(decay, int | float):
            raise StageError(f"decay is {decay!r}: it must be a number.")
        return cls(every=known.get("every"), decay=decay)

    @classmethod
    def build(cls, params: Mapping[str, Any], arrays: Mapping[str, Array]) -> Self:
        """Read what `params` wrote."""
        decay = float(float32_from_bits(params["decay"]))
        return cls(every=params["every"], unit=params["unit"], decay=decay)

    def params(self) -> dict[str, Json]:
        """The period, the unit, and the decay as bits."""
        return {**super().params(), "decay": float32_to_bits(self.decay)}

    def state_spec(self, inputs: Sequence[ValueType]) -> StateSpec:
        """The membrane `v`, float32."""
        return (("v", inputs[0].shape, "float32"),)

    def prepared(self, inputs: Array) -> Array:
        """The currents, float32."""
        return to_current(inputs, self.unit)

    def fold(self, total: Array, steps: Array) -> Array:
        """The leaky integrator, step by step."""
        decay = np.float32(self.decay)
        for t in range(steps.shape[1]):
            total = decay * total + steps[:, t]
        return total

    def result(self, total: Array, n_steps: Array) -> Array:
        """The membrane."""
        return total + np.float32(0.0)


def _joined(parts: list[Array], nothing: Array) -> Array:
    if len(parts) == 1:
        return parts[0]
    return np.concatenate(parts) if parts else nothing


def _only(kind: str, params: Mapping[str, Any], *known: str) -> Mapping[str, Any]:
    unknown = sorted(set(params) - set(known))
    if unknown:
        raise StageError(
            f"{kind} has no parameter {', '.join(unknown)}: it has {', '.join(known)}."
        )
    return params


STAGES: tuple[type[Stage], ...] = (Count, Mean, Membrane)
