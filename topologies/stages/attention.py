"""Spiking self-attention (SSA): no softmax, so a product of three integer matrices.

    y[e, n] = sum over tokens m of (sum over d of q[d, n] * k[d, m]) * v[e, m], times 2**-shift

for each head by itself: d and e run over its channels. Values are (channels, tokens), and a head's
channels lie side by side. All sums are exact, so the inner two matrices may be multiplied first;
`run` takes the attention map first, as the equation does. Every partial sum in either order stays
below head channels * tokens * the largest |q|, |k|, |v| (`row_bound`).

The scale of the paper, 0.125, is a shift of 3. (SDSA: stages/multiply.py.)

Source: Zhou et al., Spikformer, ICLR 2023, arXiv:2209.15425, equation 6.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from math import frexp
from typing import Any, ClassVar, Self

import numpy as np

from topologies.stages.base import (
    NO_ARRAYS,
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

__all__ = ["STAGES", "Ssa"]


@dataclass(frozen=True, eq=False)
class Ssa(Stage):
    """Attention of q (D, N) to k and v (D, M), each cut into `heads` of D / heads channels."""

    kind: ClassVar[str] = "ssa"
    n_sources: ClassVar[tuple[int, int | None]] = (3, 3)
    timeless: ClassVar[bool] = True

    heads: int
    shift: int
    accumulator: Accumulator

    @classmethod
    def authored(cls, params: Mapping[str, Any], arrays: Mapping[str, Array] = NO_ARRAYS) -> Self:
        """Parameters: heads (1), scale (0.125), a power of two."""
        heads, scale = params.get("heads", 1), params.get("scale", 0.125)
        if not isinstance(heads, int) or heads < 1:
            raise StageError(f"heads is {heads!r}: legal is 1 or more.")
        mantissa, exponent = frexp(scale) if isinstance(scale, int | float) else (0.0, 0)
        if mantissa != 0.5:
            raise StageError(
                f"scale is {scale!r}: it must be a power of two, for nothing is rounded here; put "
                "the rest of it into the weights or the threshold behind it."
            )
        return cls(heads, 1 - exponent, "float64")

    @classmethod
    def build(cls, params: Mapping[str, Any], arrays: Mapping[str, Array]) -> Self:
        """The stage with these `params()`."""
        return cls(params["heads"], params["shift"], params["accumulator"])

    def params(self) -> dict[str, Json]:
        """Heads, shift and accumulator."""
        return {"heads": self.heads, "shift": self.shift, "accumulator": self.accumulator}

    def _sizes(self, inputs: Sequence[ValueType]) -> tuple[int, int, int]:
        """(channels of a head, tokens of q, tokens of k and v). Raises StageError."""
        shapes = [value.shape for value in inputs]
        ranks = [len(shape) for shape in shapes]
        if ranks != [2, 2, 2] or len({s[0] for s in shapes}) != 1 or shapes[1] != shapes[2]:
            raise StageError(
                f"An ssa reads q, k and v of shape (channels, tokens), k and v alike, not {shapes}."
            )
        channels, n_queries = shapes[0]
        if channels % self.heads:
            raise StageError(f"{self.heads} heads do not divide {channels} channels.")
        return channels // self.heads, n_queries, shapes[1][1]

    def out_type(self, inputs: Sequence[ValueType]) -> ValueType:
        """(D, N), in the sum of the three units and `shift`."""
        self._sizes(inputs)
        bound = self.row_bound(inputs)
        low = 0 if all(value.low >= 0 for value in inputs) else -bound
        unit = sum(value.unit for value in inputs) + self.shift
        return ValueType(inputs[0].shape, low, bound, unit)

    def row_bound(self, inputs: Sequence[ValueType]) -> int:
        """Head channels * tokens * the largest values: all partial sums stay below it."""
        width, _, n_keys = self._sizes(inputs)
        bound = width * n_keys
        for value in inputs:
            bound *= max(1, value.largest)
        return bound

    def cost(self, inputs: Sequence[ValueType]) -> Cost:
        """The products of the cheaper order."""
        width, n_queries, n_keys = self._sizes(inputs)
        per_head = min(2 * width * n_queries * n_keys, width * width * (n_queries + n_keys))
        return Cost(macs_per_step=self.heads * per_head)

    def run(
        self, inputs: Sequence[Array], state: tuple[Array, ...], clock: Clock
    ) -> tuple[Array, tuple[Array, ...]]:
        """(B, T, D, N) and twice (B, T, D, M) -> (B, T, D, N) in the accumulator's dtype."""
        q, k, v = (self._by_head(x.astype(np.float64)) for x in inputs)
        attention = np.einsum("bthdn,bthdm->bthnm", q, k)
        sums = np.einsum("bthnm,bthem->bthen", attention, v)
        return sums.astype(accumulator_dtype(self.accumulator)).reshape(inputs[0].shape), state

    def _by_head(self, x: Array) -> Array:
        return x.reshape(*x.shape[:2], self.heads, x.shape[2] // self.heads, x.shape[3])

    def granule(self, inputs: Sequence[ValueType]) -> int:
        """Whole heads."""
        return inputs[0].n // self.heads

    def slice(self, inputs: Sequence[ValueType], lo: int, hi: int) -> Slice:
        """The heads of [lo, hi)."""
        granule = self.granule(inputs)
        if lo % granule or hi % granule or not 0 <= lo < hi <= inputs[0].n:
            raise StageError(f"An ssa of {inputs[0].n} outputs has no slice [{lo}, {hi}).")
        first, last = lo // granule, hi // granule
        wide = inputs[1].n // self.heads
        keys = (first * wide, last * wide)
        return Slice(replace(self, heads=last - first), ((lo, hi), keys, keys))


STAGES: tuple[type[Stage], ...] = (Ssa,)
