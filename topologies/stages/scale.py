"""A factor and an offset: one for all values, one per channel, or one per value.

    y[c, p] = w[c] * x[c, p] + b[c]

in integers: w = k * 2**-shift, and b counts units of 2**-(shift + unit of x). What a batch norm
becomes that cannot be folded into the weights before it.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from math import prod
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

__all__ = ["STAGES", "Scale"]


@dataclass(frozen=True, eq=False)
class Scale(Weighted):
    """`weight` (C,), int8, int16 or int32, and `bias` int64 (C,): C is 1, the channels or all."""

    kind: ClassVar[str] = "scale"
    needs: ClassVar[Mapping[str, int | None]] = {"weight": 1}
    timeless: ClassVar[bool] = True

    def out_type(self, inputs: Sequence[ValueType]) -> ValueType:
        """The same shape, in units of 2**-(unit + shift)."""
        value = one_input(self.kind, inputs)
        legal = {1, value.shape[0], value.n}
        if len(self.weight) not in legal:
            raise StageError(
                f"This scale has {len(self.weight)} factors: legal for values of shape "
                f"{value.shape} are {', '.join(map(str, sorted(legal)))}."
            )
        bound = self.row_bound(inputs)
        return ValueType(value.shape, -bound, bound, value.unit + self.shift)

    def cost(self, inputs: Sequence[ValueType]) -> Cost:
        """One synapse per value."""
        return Cost(n_synapses=inputs[0].n, macs_per_step=inputs[0].n)

    def run(
        self, inputs: Sequence[Array], state: tuple[Array, ...], clock: Clock
    ) -> tuple[Array, tuple[Array, ...]]:
        """(B, T, *shape) -> the same in the accumulator's dtype."""
        (x,) = inputs
        n = prod(x.shape[2:])
        rows = x.astype(np.float64).reshape(*x.shape[:2], len(self.weight), n // len(self.weight))
        sums = rows * self.weight.astype(np.float64)[:, None] + self.bias[:, None]
        return sums.astype(accumulator_dtype(self.accumulator)).reshape(x.shape), state

    def granule(self, inputs: Sequence[ValueType]) -> int:
        """Whole rows of values with one factor; any value when there is but one."""
        return 1 if len(self.weight) == 1 else inputs[0].n // len(self.weight)

    def slice(self, inputs: Sequence[ValueType], lo: int, hi: int) -> Slice:
        """The values [lo, hi) with their factors."""
        granule, n = self.granule(inputs), inputs[0].n
        if lo % granule or hi % granule or not 0 <= lo < hi <= n:
            raise StageError(f"A scale of {n} values has no slice [{lo}, {hi}).")
        if len(self.weight) == 1:
            return Slice(self, ((lo, hi),))
        rows = slice(lo // granule, hi // granule)
        part = replace(self, weight=self.weight[rows], bias=self.bias[rows])
        return Slice(part, ((lo, hi),))


STAGES: tuple[type[Stage], ...] = (Scale,)
