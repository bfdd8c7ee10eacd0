"""Rounding back onto a grid: what carries membrane values from block to block.

    y = min(max(rint(x * 2**(unit - unit of x)), low), high)

rint is half to even. In networks with membrane shortcuts (MS-ResNet, Spike-driven Transformer) the
sums of one block are the input of the next; without this step every block would add its own
fraction bits. One grid (`unit`) serves the whole chain (numerics 21).

`low` and `high` are what `bits` hold, symmetric; where the proven bound of x is nearer to zero, it
is taken instead. If it is not, values may saturate, and the network file has to allow it
(`saturate`): `n_saturated` counts them.

Source of the shortcut: Hu et al., Advancing Spiking Neural Networks Towards Deep Residual Learning,
2024, doi:10.1109/TNNLS.2024.3355393.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Self

import numpy as np

from topologies.stages.base import (
    NO_ARRAYS,
    Array,
    Clock,
    Cost,
    Json,
    Slice,
    Stage,
    StageError,
    Travels,
    ValueType,
)
from topologies.stages.common import one_input

__all__ = ["STAGES", "Requantise"]

_BITS = range(2, 33)
_UNITS = range(-32, 33)


@dataclass(frozen=True, eq=False)
class Requantise(Stage):
    """Values in [low, high] that count units of 2**-unit."""

    kind: ClassVar[str] = "requantise"
    travels: ClassVar[Travels] = "always"
    shared: ClassVar[bool] = True
    timeless: ClassVar[bool] = True

    unit: int
    low: int
    high: int
    from_unit: int
    saturate: bool = False

    @classmethod
    def authored(cls, params: Mapping[str, Any], arrays: Mapping[str, Array] = NO_ARRAYS) -> Self:
        """Parameters: unit (10), bits (16), saturate (false)."""
        unit, bits = params.get("unit", 10), params.get("bits", 16)
        if unit not in _UNITS or bits not in _BITS:
            raise StageError(
                f"unit is {unit!r} and bits {bits!r}: legal are units from -32 to 32, and 2 to 32 "
                "bits."
            )
        high = 2 ** (bits - 1) - 1
        return cls(unit, -high, high, unit, bool(params.get("saturate", False)))

    @classmethod
    def declared(cls, params: Mapping[str, Any], shape: tuple[int, ...]) -> ValueType:
        """What it gives whatever it reads: where no bound can be proven first, as in a cycle."""
        stage = cls.authored(params)
        return ValueType(shape, stage.low, stage.high, stage.unit)

    @classmethod
    def lowered(
        cls,
        params: Mapping[str, Any],
        arrays: Mapping[str, Array],
        inputs: Sequence[ValueType],
        shift: int = 0,
    ) -> Self:
        """With the range that is proven. Raises StageError if it exceeds the bits undeclared."""
        value, stage = one_input(cls.kind, inputs), cls.authored(params, arrays)
        stage = replace(stage, from_unit=value.unit)
        low, high = stage._rounded(value.low), stage._rounded(value.high)
        if not stage.saturate and not (stage.low <= low and high <= stage.high):
            raise StageError(
                f"values may reach {max(-low, high)} units of 2**-{stage.unit}, beyond the "
                f"{stage.high} that the bits hold: take more bits or a coarser unit, or allow it "
                "with saturate: true."
            )
        return replace(stage, low=max(low, stage.low), high=min(high, stage.high))

    def filling(self, declared: ValueType) -> Self:
        """With a range that was taken to be so before the bound was known."""
        return replace(self, low=declared.low, high=declared.high)

    @classmethod
    def build(cls, params: Mapping[str, Any], arrays: Mapping[str, Array]) -> Self:
        """The stage with these `params()`."""
        names = ("unit", "low", "high", "from_unit", "saturate")
        return cls(*(params[name] for name in names))

    def params(self) -> dict[str, Json]:
        """Units, range, and whether values may lie outside it."""
        return {
            "unit": self.unit,
            "low": self.low,
            "high": self.high,
            "from_unit": self.from_unit,
            "saturate": self.saturate,
        }

    def _rounded(self, k: int) -> int:
        """rint(k * 2**(unit - from_unit)), half to even, exact at any size."""
        coarser = self.from_unit - self.unit
        if coarser <= 0:
            return k << -coarser
        floor, rest, half = k >> coarser, k & ((1 << coarser) - 1), 1 << (coarser - 1)
        return floor + int(rest > half or (rest == half and floor % 2 == 1))

    def out_type(self, inputs: Sequence[ValueType]) -> ValueType:
        """The same shape, in [low, high] and units of 2**-unit."""
        value = one_input(self.kind, inputs)
        if value.unit != self.from_unit:
            raise StageError(
                f"A requantise that reads units of 2**-{self.from_unit} is given 2**-{value.unit}."
            )
        return ValueType(value.shape, self.low, self.high, self.unit)

    def row_bound(self, inputs: Sequence[ValueType]) -> int:
        """The largest input or output."""
        return max(inputs[0].largest, -self.low, self.high)

    def cost(self, inputs: Sequence[ValueType]) -> Cost:
        """One operation per value."""
        return Cost(macs_per_step=inputs[0].n)

    def run(
        self, inputs: Sequence[Array], state: tuple[Array, ...], clock: Clock
    ) -> tuple[Array, tuple[Array, ...]]:
        """(B, T, *shape) -> the same, float64 integers."""
        scaled = self._scaled(inputs[0])
        kept = np.clip(scaled, self.low, self.high)
        if self.saturate:
            clock.saturated(int(np.count_nonzero(kept != scaled)))
        return kept, state

    def may_saturate(self, value: ValueType) -> bool:
        """Whether the proven bound of what it reads exceeds [low, high]."""
        return self._rounded(value.low) < self.low or self._rounded(value.high) > self.high

    def n_saturated(self, x: Array) -> int:
        """How many of these inputs lie outside [low, high]."""
        scaled = self._scaled(x)
        return int(((scaled < self.low) | (scaled > self.high)).sum())

    def _scaled(self, x: Array) -> Array:
        # Exact: below 2**53, and a power of two.
        scaled: Array = np.rint(np.ldexp(x.astype(np.float64), self.unit - self.from_unit))
        return scaled + 0.0

    def granule(self, inputs: Sequence[ValueType]) -> int:
        """Any value."""
        return 1

    def slice(self, inputs: Sequence[ValueType], lo: int, hi: int) -> Slice:
        """The values [lo, hi)."""
        return Slice(self, ((lo, hi),))


STAGES: tuple[type[Stage], ...] = (Requantise,)
