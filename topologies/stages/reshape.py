"""The same values in another shape, or some of them. Nothing is computed.

Values are counted channel-major (C order), as everywhere.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from math import prod
from typing import Any, ClassVar, Self

import numpy as np

from topologies.stages.base import (
    Array,
    Clock,
    Json,
    Slice,
    Stage,
    StageError,
    ValueType,
    slice_type,
)
from topologies.stages.common import one_input

__all__ = ["STAGES", "Reshape", "Rows", "Select"]


@dataclass(frozen=True, eq=False)
class Reshape(Stage):
    """All values, in `shape`; one entry may be -1, for what is left; (-1,) flattens."""

    kind: ClassVar[str] = "reshape"
    homogeneous: ClassVar[bool] = True
    timeless: ClassVar[bool] = True

    shape: tuple[int, ...]

    @classmethod
    def build(cls, params: Mapping[str, Any], arrays: Mapping[str, Array]) -> Self:
        """From shape."""
        shape = tuple(params["shape"])
        if shape.count(-1) > 1 or any(size < 1 for size in shape if size != -1) or not shape:
            raise StageError(f"A shape has entries above 0 and at most one -1, not {shape}.")
        return cls(shape)

    @classmethod
    def faults(
        cls, params: Mapping[str, Any], arrays: Mapping[str, Array]
    ) -> Iterator[tuple[str, str]]:
        """A shape that is missing or none."""
        if not params.get("shape"):
            yield "shape", "a reshape needs the shape to give; -1 stands for the rest."
        else:
            yield from super().faults(params, arrays)

    def params(self) -> dict[str, Json]:
        """The shape."""
        return {"shape": list(self.shape)}

    def out_type(self, inputs: Sequence[ValueType]) -> ValueType:
        """The same values in the new shape."""
        value = one_input(self.kind, inputs)
        known = prod(size for size in self.shape if size != -1)
        shape = tuple(value.n // known if size == -1 else size for size in self.shape)
        if prod(shape) != value.n:
            raise StageError(f"{value.n} values of shape {value.shape} do not fill {self.shape}.")
        return ValueType(shape, value.low, value.high, value.unit)

    def run(
        self, inputs: Sequence[Array], state: tuple[Array, ...], clock: Clock
    ) -> tuple[Array, tuple[Array, ...]]:
        """(B, T, ...) -> (B, T, *shape) in the input's dtype."""
        (x,) = inputs
        known = prod(size for size in self.shape if size != -1)
        n = prod(x.shape[2:])
        shape = tuple(n // known if size == -1 else size for size in self.shape)
        return x.reshape(*x.shape[:2], *shape), state

    def granule(self, inputs: Sequence[ValueType]) -> int:
        """Any value."""
        return 1

    def slice(self, inputs: Sequence[ValueType], lo: int, hi: int) -> Slice:
        """The values [lo, hi)."""
        return Slice(Reshape(slice_type(self.out_type(inputs), lo, hi).shape), ((lo, hi),))


@dataclass(frozen=True, eq=False)
class Select(Stage):
    """The flattened values [lo, hi): what a synapse group reads of a wider edge."""

    kind: ClassVar[str] = "select"
    timeless: ClassVar[bool] = True

    lo: int
    hi: int

    @classmethod
    def build(cls, params: Mapping[str, Any], arrays: Mapping[str, Array]) -> Self:
        """From lo and hi."""
        return cls(params["lo"], params["hi"])

    def params(self) -> dict[str, Json]:
        """The range."""
        return {"lo": self.lo, "hi": self.hi}

    def out_type(self, inputs: Sequence[ValueType]) -> ValueType:
        """Whole channels keep their shape, others are flat."""
        return slice_type(one_input(self.kind, inputs), self.lo, self.hi)

    def run(
        self, inputs: Sequence[Array], state: tuple[Array, ...], clock: Clock
    ) -> tuple[Array, tuple[Array, ...]]:
        """(B, T, *shape) -> (B, T, *part) in the input's dtype."""
        (x,) = inputs
        part = slice_type(ValueType(x.shape[2:], 0, 0), self.lo, self.hi)
        flat = x.reshape(*x.shape[:2], prod(x.shape[2:]))
        return flat[:, :, self.lo : self.hi].reshape(*x.shape[:2], *part.shape), state


@dataclass(frozen=True, eq=False)
class Rows(Stage):
    """Rows [lo, hi) of every channel, (C, H, W) -> (C, hi - lo, W); those beyond are zeros.

    What a synapse group of some rows of a convolution sees of its input, padding included.
    """

    kind: ClassVar[str] = "rows"
    timeless: ClassVar[bool] = True

    lo: int
    hi: int

    @classmethod
    def build(cls, params: Mapping[str, Any], arrays: Mapping[str, Array]) -> Self:
        """From lo and hi."""
        return cls(params["lo"], params["hi"])

    def params(self) -> dict[str, Json]:
        """The range."""
        return {"lo": self.lo, "hi": self.hi}

    def out_type(self, inputs: Sequence[ValueType]) -> ValueType:
        """As many rows as asked for; the range of the values has 0 in it."""
        value = one_input(self.kind, inputs)
        if len(value.shape) != 3 or self.lo >= self.hi:
            raise StageError(f"No rows [{self.lo}, {self.hi}) of values of shape {value.shape}.")
        shape = (value.shape[0], self.hi - self.lo, value.shape[2])
        return ValueType(shape, min(0, value.low), max(0, value.high), value.unit)

    def run(
        self, inputs: Sequence[Array], state: tuple[Array, ...], clock: Clock
    ) -> tuple[Array, tuple[Array, ...]]:
        """(B, T, C, H, W) -> (B, T, C, hi - lo, W) in the input's dtype."""
        (x,) = inputs
        height = x.shape[3]
        out = np.zeros((*x.shape[:3], self.hi - self.lo, x.shape[4]), x.dtype)
        first, last = max(self.lo, 0), min(self.hi, height)
        if first < last:
            out[..., first - self.lo : last - self.lo, :] = x[..., first:last, :]
        return out, state


STAGES: tuple[type[Stage], ...] = (Reshape, Select, Rows)
