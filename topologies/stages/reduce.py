"""Sums over some axes: of all tokens, or of the whole space of a channel.

    y[...] = sum over the axes of x[...], times 2**-shift

A mean over 2**n values is a sum whose unit is 2**-n as large (`shift` = n); the compiler folds an
odd divisor into the next weights (numerics 5). With `keep` the axes stay, one long, so that a
multiply can spread the sums over them again.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from math import prod
from typing import Any, ClassVar, Self

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
from topologies.stages.common import one_input

__all__ = ["STAGES", "Reduce"]

_OPS = ("mean", "sum")


@dataclass(frozen=True, eq=False)
class Reduce(Stage):
    """Sums over `axes`, numbered from the end (-1 is the last), ascending; `keep` keeps them."""

    kind: ClassVar[str] = "reduce"
    homogeneous: ClassVar[bool] = True
    tail: ClassVar[bool] = True
    timeless: ClassVar[bool] = True

    axes: tuple[int, ...]
    keep: bool = False
    shift: int = 0
    accumulator: Accumulator = "int32"

    @classmethod
    def build(cls, params: Mapping[str, Any], arrays: Mapping[str, Array]) -> Self:
        """From axes, keep (false), shift (0) and accumulator."""
        given = params["axes"]
        axes = tuple(sorted(given if isinstance(given, list | tuple) else [given]))
        if not axes or len(set(axes)) < len(axes) or any(axis >= 0 for axis in axes):
            raise StageError(
                f"axes is {given!r}: legal are different numbers below 0, -1 for the last axis."
            )
        return cls(
            axes,
            keep=params.get("keep", False),
            shift=params.get("shift", 0),
            accumulator=params.get("accumulator", "int32"),
        )

    @classmethod
    def faults(
        cls, params: Mapping[str, Any], arrays: Mapping[str, Array]
    ) -> Iterator[tuple[str, str]]:
        """Also an `op` that is neither a mean nor a sum."""
        op = params.get("op", "mean")
        if op not in _OPS:
            yield "op", f"{op!r} is unknown: legal are {', '.join(_OPS)}."
        yield from super().faults(params, arrays)

    @classmethod
    def averaged(
        cls, params: Mapping[str, Any], shape: tuple[int, ...]
    ) -> tuple[str, dict[str, Any], int]:
        """The sum that a mean divides, and by what."""
        axes = cls.build(params, {}).axes
        kept = {name: value for name, value in params.items() if name != "op"}
        over = prod(shape[axis] for axis in axes)
        return cls.kind, {**kept, "op": "sum"}, over if params.get("op", "mean") == "mean" else 1

    def params(self) -> dict[str, Json]:
        """Axes, keep, shift and accumulator."""
        return {
            "axes": list(self.axes),
            "keep": self.keep,
            "shift": self.shift,
            "accumulator": self.accumulator,
        }

    def _size(self, value: ValueType) -> int:
        if -self.axes[0] > len(value.shape):
            raise StageError(f"Values of shape {value.shape} have no axis {self.axes[0]}.")
        if len(self.axes) == len(value.shape) and not self.keep:
            raise StageError(f"A reduce over all axes of {value.shape} leaves none: set keep.")
        return prod(value.shape[axis] for axis in self.axes)

    def out_type(self, inputs: Sequence[ValueType]) -> ValueType:
        """The shape without the axes, or with ones there; as many times larger as is added."""
        value = one_input(self.kind, inputs)
        size = self._size(value)
        places = {axis % len(value.shape) for axis in self.axes}
        sizes = [1 if i in places else n for i, n in enumerate(value.shape)]
        shape = tuple(n for i, n in enumerate(sizes) if self.keep or i not in places)
        return ValueType(shape, value.low * size, value.high * size, value.unit + self.shift)

    def cost(self, inputs: Sequence[ValueType]) -> Cost:
        """One operation per value."""
        return Cost(macs_per_step=inputs[0].n)

    def run(
        self, inputs: Sequence[Array], state: tuple[Array, ...], clock: Clock
    ) -> tuple[Array, tuple[Array, ...]]:
        """(B, T, *shape) -> (B, T, *rest) in the accumulator's dtype."""
        dtype = accumulator_dtype(self.accumulator)
        sums: Array = inputs[0].sum(axis=self.axes, dtype=dtype, keepdims=self.keep)
        return sums, state

    def granule(self, inputs: Sequence[ValueType]) -> int:
        """Whole channels, else all: what is added of a channel lies side by side."""
        channels = inputs[0].shape[0]
        whole = -len(inputs[0].shape) in self.axes
        return self.out_type(inputs).n // (1 if whole else channels)

    def slice(self, inputs: Sequence[ValueType], lo: int, hi: int) -> Slice:
        """The outputs [lo, hi)."""
        granule, n = self.granule(inputs), self.out_type(inputs).n
        if lo % granule or hi % granule or not 0 <= lo < hi <= n:
            raise StageError(f"A reduce of {n} outputs has no slice [{lo}, {hi}).")
        if (lo, hi) == (0, n):
            return Slice(self, (None,))
        size = self._size(inputs[0])
        return Slice(self, ((lo * size, hi * size),))  # whole channels: the axes stay what they are


STAGES: tuple[type[Stage], ...] = (Reduce,)
