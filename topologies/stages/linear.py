"""Fully connected synapses.

    y[o] = b[o] + sum over i of w[o, i] * x[i]

in integers: w = k * 2**-shift, and b counts units of 2**-(shift + unit of x). The sum is exact in
`accumulator`, in any order.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import ClassVar

import numpy as np

from topologies.stages.base import (
    Array,
    Clock,
    Cost,
    Slice,
    Stage,
    StageError,
    ValueType,
    accumulator_dtype,
)
from topologies.stages.common import one_input
from topologies.stages.weighted import Weighted

__all__ = ["STAGES", "Linear"]


@dataclass(frozen=True, eq=False)
class Linear(Weighted):
    """From (I,) to (O,). `weight` is (O, I), int8, int16 or int32; `bias` is int64 (O,)."""

    kind: ClassVar[str] = "linear"
    needs: ClassVar[Mapping[str, int | None]] = {"weight": 2}

    def out_type(self, inputs: Sequence[ValueType]) -> ValueType:
        """(I,) -> (O,), in units of 2**-(unit + shift)."""
        value = one_input(self.kind, inputs)
        if value.shape != self.weight.shape[1:]:
            raise StageError(
                f"This linear reads {self.weight.shape[1]} values in one dimension, not "
                f"{value.shape}: put a reshape before it if only the shape differs."
            )
        bound = self.row_bound(inputs)
        return ValueType((len(self.weight),), -bound, bound, value.unit + self.shift)

    def cost(self, inputs: Sequence[ValueType]) -> Cost:
        """One synapse per weight."""
        return Cost(n_synapses=self.weight.size, macs_per_step=self.weight.size)

    def run(
        self, inputs: Sequence[Array], state: tuple[Array, ...], clock: Clock
    ) -> tuple[Array, tuple[Array, ...]]:
        """(B, T, I) -> (B, T, O) in the accumulator's dtype."""
        (x,) = inputs
        sums = x.astype(np.float64) @ self.weight.T.astype(np.float64) + self.bias
        return sums.astype(accumulator_dtype(self.accumulator)), state

    def granule(self, inputs: Sequence[ValueType]) -> int:
        """Any row."""
        return 1

    def slice(self, inputs: Sequence[ValueType], lo: int, hi: int) -> Slice:
        """The rows [lo, hi)."""
        if not 0 <= lo < hi <= len(self.weight):
            raise StageError(f"A linear of {len(self.weight)} rows has no slice [{lo}, {hi}).")
        part = replace(self, weight=self.weight[lo:hi], bias=self.bias[lo:hi])
        return Slice(part, (None,))


STAGES: tuple[type[Stage], ...] = (Linear,)
