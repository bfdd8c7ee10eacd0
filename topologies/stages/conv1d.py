"""One-dimensional convolution.

    y[o, p] = b[o] + sum over c, d of w[o, c, d] * x[c, p * stride + d * dilation - padding]

in integers, as conv2d (stages/conv.py), of which it is the case of height 1. With a kernel of 1 it
is the fully connected layer that every token of a transformer, or every node of a graph, goes
through: values are (channels, tokens).
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, ClassVar

import numpy as np

from topologies.stages.base import (
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
from topologies.stages.conv import Conv2d, convolution_faults
from topologies.stages.weighted import Weighted

__all__ = ["STAGES", "Conv1d"]

_LOWEST = {"stride": 1, "padding": 0, "dilation": 1}


@dataclass(frozen=True, eq=False)
class Conv1d(Weighted):
    """Convolution of (C, L) to (O, Lo).

    `weight` is (O, C / channel_groups, k), int8, int16 or int32; `bias` is int64 (O,).
    """

    kind: ClassVar[str] = "conv1d"
    needs: ClassVar[Mapping[str, int | None]] = {"weight": 3}

    stride: int = 1
    padding: int = 0
    dilation: int = 1
    channel_groups: int = 1

    @classmethod
    def geometry(cls, params: Mapping[str, Any]) -> dict[str, Any]:
        """Stride, padding and dilation; a network file calls the channel groups groups."""
        given = {name: params.get(name, lowest) for name, lowest in _LOWEST.items()}
        numbers = {name: v if isinstance(v, int) else v[0] for name, v in given.items()}
        return {**numbers, "channel_groups": params.get("channel_groups", params.get("groups", 1))}

    @classmethod
    def faults(
        cls, params: Mapping[str, Any], arrays: Mapping[str, Array]
    ) -> Iterator[tuple[str, str]]:
        """Also a geometry that is none."""
        yield from super().faults(params, arrays)
        yield from convolution_faults(params, arrays, 1)

    def params(self) -> dict[str, Json]:
        """Geometry, shift and accumulator."""
        return {
            **super().params(),
            "stride": self.stride,
            "padding": self.padding,
            "dilation": self.dilation,
            "channel_groups": self.channel_groups,
        }

    @cached_property
    def flat(self) -> Conv2d:
        """The same as a convolution of (C, 1, L)."""
        return Conv2d(
            self.weight[:, :, None],
            *(self.bias, self.shift, self.accumulator),
            stride=(1, self.stride),
            padding=(0, self.padding),
            dilation=(1, self.dilation),
            channel_groups=self.channel_groups,
        )

    def _flat_inputs(self, inputs: Sequence[ValueType]) -> list[ValueType]:
        value = one_input(self.kind, inputs)
        if len(value.shape) != 2:
            raise StageError(
                f"A conv1d reads values of shape (channels, length), not {value.shape}."
            )
        return [replace(value, shape=(value.shape[0], 1, value.shape[1]))]

    def out_type(self, inputs: Sequence[ValueType]) -> ValueType:
        """(C, L) -> (O, Lo), in units of 2**-(unit + shift)."""
        wanted = self.weight.shape[1] * self.channel_groups
        (value,) = self._flat_inputs(inputs)
        if value.shape[0] != wanted:
            raise StageError(f"This conv1d reads {wanted} channels, not {value.shape[0]}.")
        out = self.flat.out_type([value])
        return replace(out, shape=(out.shape[0], out.shape[2]))

    def cost(self, inputs: Sequence[ValueType]) -> Cost:
        """One synapse per weight and output position."""
        return self.flat.cost(self._flat_inputs(inputs))

    def run(
        self, inputs: Sequence[Array], state: tuple[Array, ...], clock: Clock
    ) -> tuple[Array, tuple[Array, ...]]:
        """(B, T, C, L) -> (B, T, O, Lo) in the accumulator's dtype, a stream at a time."""
        (x,) = inputs
        length = self.out_type([ValueType(x.shape[2:], 0, 0)]).shape[1]
        sums = np.empty((*x.shape[:2], len(self.weight), length))
        edges = ((0, 0), (0, 0), (self.padding, self.padding))
        for stream, out in zip(x, sums, strict=True):
            out[:] = self.bias[:, None]
            padded = np.pad(stream.astype(np.float64), edges)
            for tap in range(self.weight.shape[2]):
                first = tap * self.dilation
                seen = padded[:, :, first :: self.stride][:, :, :length]
                for rows, channels in self._groups():
                    out[:, rows] += self.weight[rows, :, tap].astype(np.float64) @ seen[:, channels]
        return sums.astype(accumulator_dtype(self.accumulator)), state

    def _groups(self) -> Iterator[tuple[slice, slice]]:
        """(rows, channels that they read) of each channel group."""
        n_out, n_in = len(self.weight) // self.channel_groups, self.weight.shape[1]
        for g in range(self.channel_groups):
            yield slice(g * n_out, (g + 1) * n_out), slice(g * n_in, (g + 1) * n_in)

    def granule(self, inputs: Sequence[ValueType]) -> int:
        """Whole channels; with channel groups, whole groups of them."""
        return self.flat.granule(self._flat_inputs(inputs))

    def slice(self, inputs: Sequence[ValueType], lo: int, hi: int) -> Slice:
        """The output channels of [lo, hi)."""
        part = self.flat.slice(self._flat_inputs(inputs), lo, hi)
        cut = part.stage
        if not isinstance(cut, Conv2d):
            raise StageError(f"A conv1d has no slice [{lo}, {hi}).")
        mine = replace(
            self, weight=cut.weight[:, :, 0], bias=cut.bias, channel_groups=cut.channel_groups
        )
        return Slice(mine, part.reads)


STAGES: tuple[type[Stage], ...] = (Conv1d,)
