"""The sum of several inputs of one shape.

    y = sum over i of x[i] * 2**(unit - unit of i)

in the finest of their units, so that nothing is rounded. It joins the branches of a skip
connection, of currents as of spikes (spike-element-wise ADD).
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Self

import numpy as np

from topologies.stages.base import (
    Accumulator,
    Array,
    Clock,
    Cost,
    Json,
    Slice,
    Stage,
    StageError,
    ValueType,
    accumulator_dtype,
)

__all__ = ["STAGES", "Add"]


@dataclass(frozen=True, eq=False)
class Add(Stage):
    """`lifts[i]` is the finest unit less the unit of input i, filled in by the compiler."""

    kind: ClassVar[str] = "add"
    n_sources: ClassVar[tuple[int, int | None]] = (2, None)
    homogeneous: ClassVar[bool] = True
    tail: ClassVar[bool] = True
    timeless: ClassVar[bool] = True

    lifts: tuple[int, ...]
    accumulator: Accumulator

    @classmethod
    def build(cls, params: Mapping[str, Any], arrays: Mapping[str, Array]) -> Self:
        """From lifts and accumulator."""
        return cls(tuple(params["lifts"]), params["accumulator"])

    @classmethod
    def lowered(
        cls,
        params: Mapping[str, Any],
        arrays: Mapping[str, Array],
        inputs: Sequence[ValueType],
        shift: int = 0,
    ) -> Self:
        """In the finest of the inputs' units."""
        finest = max(value.unit for value in inputs)
        return cls(tuple(finest - value.unit for value in inputs), "float64").fitted(inputs)

    @classmethod
    def faults(
        cls, params: Mapping[str, Any], arrays: Mapping[str, Array]
    ) -> Iterator[tuple[str, str]]:
        """None: an add has no parameters."""
        return iter(())

    def params(self) -> dict[str, Json]:
        """Lifts and accumulator."""
        return {"lifts": list(self.lifts), "accumulator": self.accumulator}

    def out_type(self, inputs: Sequence[ValueType]) -> ValueType:
        """The common shape, the finest unit, the sums of the ranges."""
        if len(inputs) != len(self.lifts) or len({value.shape for value in inputs}) != 1:
            shapes = [value.shape for value in inputs]
            raise StageError(f"This add reads {len(self.lifts)} inputs of one shape, not {shapes}.")
        units = {v.unit + lift for v, lift in zip(inputs, self.lifts, strict=True)}
        if len(units) != 1 or min(self.lifts) < 0:
            raise StageError(f"Lifts {self.lifts} do not bring the inputs to one unit.")
        low = sum(v.low << lift for v, lift in zip(inputs, self.lifts, strict=True))
        high = sum(v.high << lift for v, lift in zip(inputs, self.lifts, strict=True))
        return ValueType(inputs[0].shape, low, high, units.pop())

    def row_bound(self, inputs: Sequence[ValueType]) -> int:
        """The sum of the largest magnitudes: partial sums stay below it too."""
        return sum(v.largest << lift for v, lift in zip(inputs, self.lifts, strict=True))

    def cost(self, inputs: Sequence[ValueType]) -> Cost:
        """One operation per value and input."""
        return Cost(macs_per_step=inputs[0].n * len(inputs))

    def run(
        self, inputs: Sequence[Array], state: tuple[Array, ...], clock: Clock
    ) -> tuple[Array, tuple[Array, ...]]:
        """(B, T, *shape) each -> (B, T, *shape) in the accumulator's dtype."""
        dtype = accumulator_dtype(self.accumulator)
        total: Array = np.zeros(inputs[0].shape, dtype)
        for x, lift in zip(inputs, self.lifts, strict=True):
            total = total + x.astype(dtype) * dtype.type(2**lift)
        return total, state

    def granule(self, inputs: Sequence[ValueType]) -> int:
        """Any value."""
        return 1

    def slice(self, inputs: Sequence[ValueType], lo: int, hi: int) -> Slice:
        """The values [lo, hi) of every input."""
        return Slice(self, tuple((lo, hi) for _ in inputs))


STAGES: tuple[type[Stage], ...] = (Add,)
