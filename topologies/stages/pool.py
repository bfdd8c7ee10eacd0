"""Pooling over (kh, kw) windows of each channel.

    max_pool: y[c, p] = max over d of x[c, p * stride + d - padding]
    sum_pool: y[c, p] = sum over d of x[c, p * stride + d - padding], times 2**-shift

Padding never wins a maximum and adds nothing to a sum. An average over 2**n values is a sum whose
unit is 2**-n as large (`shift` = n): nothing is divided. Averages over other numbers are sums here,
and the compiler folds the divisor into the next weights (numerics 5).
"""

from collections.abc import Mapping, Sequence
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
from topologies.stages.common import Pair, check_channels, one_input, pair, spatial_shape, windows

__all__ = ["STAGES", "MaxPool", "SumPool"]


@dataclass(frozen=True, eq=False)
class _Pool(Stage):
    homogeneous: ClassVar[bool] = True
    tail: ClassVar[bool] = True
    timeless: ClassVar[bool] = True

    kernel: Pair
    stride: Pair
    padding: Pair = (0, 0)

    def _shape(self, inputs: Sequence[ValueType]) -> tuple[int, int, int]:
        channels, height, width = check_channels(self.kind, one_input(self.kind, inputs))
        if any(2 * pad > size for pad, size in zip(self.padding, self.kernel, strict=True)):
            raise StageError(f"The padding {self.padding} is above half the kernel {self.kernel}.")
        size = (height, width)
        return channels, *spatial_shape(self.kind, size, self.kernel, self.stride, self.padding)

    def params(self) -> dict[str, Json]:
        """The geometry."""
        return {
            "kernel": list(self.kernel),
            "stride": list(self.stride),
            "padding": list(self.padding),
        }

    def cost(self, inputs: Sequence[ValueType]) -> Cost:
        """One operation per value under a kernel; no synapses, for there are no weights."""
        return Cost(macs_per_step=self.out_type(inputs).n * self.kernel[0] * self.kernel[1])

    def granule(self, inputs: Sequence[ValueType]) -> int:
        """Whole channels."""
        _, height, width = self._shape(inputs)
        return height * width

    def slice(self, inputs: Sequence[ValueType], lo: int, hi: int) -> Slice:
        """The channels of [lo, hi), or some rows of one channel."""
        granule, n = self.granule(inputs), self.out_type(inputs).n
        plane = inputs[0].n // inputs[0].shape[0]
        if 0 <= lo < hi <= n and lo % granule == hi % granule == 0:
            return Slice(self, ((lo // granule * plane, hi // granule * plane),))
        channel, first = divmod(lo, granule)
        rows = self._rows(inputs, first, hi - channel * granule)
        if not 0 <= lo < hi <= n or rows is None:
            raise StageError(f"A {self.kind} of {n} outputs has no slice [{lo}, {hi}).")
        return Slice(self, ((channel * plane + rows[0], channel * plane + rows[1]),))

    def _rows(self, inputs: Sequence[ValueType], lo: int, hi: int) -> tuple[int, int] | None:
        """What the rows [lo, hi) of a channel's outputs read of that channel.

        None where these are no rows, or where two rows read one value: the neurons before the pool
        would belong to both.
        """
        _, height, width = self._shape(inputs)
        apart = self.kernel[0] <= self.stride[0] and not self.padding[0]
        if not apart or lo % width or hi % width or hi > height * width:
            return None
        wide = inputs[0].shape[2]
        top, last = lo // width * self.stride[0], (hi // width - 1) * self.stride[0]
        return top * wide, (last + self.kernel[0]) * wide


def _geometry(params: Mapping[str, Any]) -> dict[str, Pair]:
    kernel = pair("kernel", params["kernel"], 1)
    return {
        "kernel": kernel,
        "stride": pair("stride", params.get("stride", list(kernel)), 1),
        "padding": pair("padding", params.get("padding", 0), 0),
    }


@dataclass(frozen=True, eq=False)
class MaxPool(_Pool):
    """The largest value under each position: spikes stay spikes."""

    kind: ClassVar[str] = "max_pool"

    @classmethod
    def build(cls, params: Mapping[str, Any], arrays: Mapping[str, Array]) -> Self:
        """From kernel, stride (default: the kernel) and padding (default: none)."""
        return cls(**_geometry(params))

    def out_type(self, inputs: Sequence[ValueType]) -> ValueType:
        """(C, H, W) -> (C, Ho, Wo), values as before."""
        value = one_input(self.kind, inputs)
        return ValueType(self._shape(inputs), value.low, value.high, value.unit)

    def run(
        self, inputs: Sequence[Array], state: tuple[Array, ...], clock: Clock
    ) -> tuple[Array, tuple[Array, ...]]:
        """(B, T, C, H, W) -> (B, T, C, Ho, Wo) in the input's dtype."""
        (x,) = inputs
        limits = np.finfo(x.dtype) if x.dtype.kind == "f" else np.iinfo(x.dtype)
        view = windows(x, self.kernel, self.stride, self.padding, float(limits.min))
        pooled: Array = view.max(axis=(-2, -1))
        return pooled, state


@dataclass(frozen=True, eq=False)
class SumPool(_Pool):
    """The sum under each position, in units 2**-shift as large as the input's."""

    kind: ClassVar[str] = "sum_pool"

    shift: int = 0
    accumulator: Accumulator = "int32"

    @classmethod
    def build(cls, params: Mapping[str, Any], arrays: Mapping[str, Array]) -> Self:
        """From kernel, stride (default: the kernel), padding (0), shift (0) and accumulator."""
        return cls(
            **_geometry(params),
            shift=params.get("shift", 0),
            accumulator=params.get("accumulator", "int32"),
        )

    def params(self) -> dict[str, Json]:
        """The geometry, shift and accumulator."""
        return {**super().params(), "shift": self.shift, "accumulator": self.accumulator}

    def out_type(self, inputs: Sequence[ValueType]) -> ValueType:
        """(C, H, W) -> (C, Ho, Wo), up to kh * kw times as large."""
        value = one_input(self.kind, inputs)
        size = self.kernel[0] * self.kernel[1]
        low = min(value.low * size, 0) if any(self.padding) else value.low * size
        return ValueType(self._shape(inputs), low, value.high * size, value.unit + self.shift)

    def run(
        self, inputs: Sequence[Array], state: tuple[Array, ...], clock: Clock
    ) -> tuple[Array, tuple[Array, ...]]:
        """(B, T, C, H, W) -> (B, T, C, Ho, Wo) in the accumulator's dtype."""
        (x,) = inputs
        dtype = accumulator_dtype(self.accumulator)
        view = windows(x.astype(dtype), self.kernel, self.stride, self.padding, 0)
        pooled: Array = view.sum(axis=(-2, -1), dtype=dtype)
        return pooled, state


STAGES: tuple[type[Stage], ...] = (MaxPool, SumPool)
