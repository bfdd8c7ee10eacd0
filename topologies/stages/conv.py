"""Two-dimensional convolution.

    y[o, p] = b[o] + sum over c, d of w[o, c, d] * x[c, p * stride + d * dilation - padding]

(a cross-correlation, as in the deep-learning libraries), all in integers: w = k * 2**-shift, and
b counts units of 2**-(shift + unit of x). The sum is exact in `accumulator`, in any order.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
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
from topologies.stages.common import (
    Pair,
    check_channels,
    one_input,
    spatial_shape,
    windows,
)
from topologies.stages.reshape import Rows
from topologies.stages.weighted import Weighted

__all__ = ["STAGES", "Conv2d", "convolution_faults"]

_LOWEST = {"stride": 1, "padding": 0, "dilation": 1}


@dataclass(frozen=True, eq=False)
class Conv2d(Weighted):
    """Convolution of (C, H, W) to (O, Ho, Wo).

    `weight` is (O, C / channel_groups, kh, kw), int8, int16 or int32; `bias` is int64 (O,).
    """

    kind: ClassVar[str] = "conv2d"
    needs: ClassVar[Mapping[str, int | None]] = {"weight": 4}

    stride: Pair = (1, 1)
    padding: Pair = (0, 0)
    dilation: Pair = (1, 1)
    channel_groups: int = 1

    @classmethod
    def geometry(cls, params: Mapping[str, Any]) -> dict[str, Any]:
        """Stride, padding and dilation as pairs; a network file calls the channel groups groups."""
        given = {name: params.get(name, lowest) for name, lowest in _LOWEST.items()}
        pairs: dict[str, Any] = {
            name: (v, v) if isinstance(v, int) else (v[0], v[-1]) for name, v in given.items()
        }
        return {**pairs, "channel_groups": params.get("channel_groups", params.get("groups", 1))}

    @classmethod
    def faults(
        cls, params: Mapping[str, Any], arrays: Mapping[str, Array]
    ) -> Iterator[tuple[str, str]]:
        """Also a geometry that is none."""
        yield from super().faults(params, arrays)
        yield from convolution_faults(params, arrays, 2)

    def params(self) -> dict[str, Json]:
        """Geometry, shift and accumulator."""
        return {
            **super().params(),
            "stride": list(self.stride),
            "padding": list(self.padding),
            "dilation": list(self.dilation),
            "channel_groups": self.channel_groups,
        }

    @property
    def reach(self) -> Pair:
        """Height and width that the dilated kernel covers."""
        kernel = self.weight.shape[2:]
        return (kernel[0] - 1) * self.dilation[0] + 1, (kernel[1] - 1) * self.dilation[1] + 1

    def out_type(self, inputs: Sequence[ValueType]) -> ValueType:
        """(C, H, W) -> (O, Ho, Wo), in units of 2**-(unit + shift)."""
        value = one_input(self.kind, inputs)
        channels, height, width = check_channels(self.kind, value)
        wanted = self.weight.shape[1] * self.channel_groups
        if channels != wanted:
            raise StageError(f"This conv2d reads {wanted} channels, not {channels}.")
        spatial = spatial_shape(self.kind, (height, width), self.reach, self.stride, self.padding)
        bound = self.row_bound(inputs)
        return ValueType((len(self.weight), *spatial), -bound, bound, value.unit + self.shift)

    def cost(self, inputs: Sequence[ValueType]) -> Cost:
        """One synapse per weight and output position."""
        positions = self.out_type(inputs).n // len(self.weight)
        return Cost(
            n_synapses=self.weight.size * positions, macs_per_step=self.weight.size * positions
        )

    def run(
        self, inputs: Sequence[Array], state: tuple[Array, ...], clock: Clock
    ) -> tuple[Array, tuple[Array, ...]]:
        """(B, T, C, H, W) -> (B, T, O, Ho, Wo) in the accumulator's dtype."""
        (x,) = inputs
        view = windows(x.astype(np.float64), self.reach, self.stride, self.padding, 0)
        taps = view[..., :: self.dilation[0], :: self.dilation[1]]
        n_groups, (n_out, n_in) = self.channel_groups, self.weight.shape[:2]
        parts = [
            np.einsum(
                "btchwij,ocij->btohw",
                taps[:, :, g * n_in : (g + 1) * n_in],
                self.weight[g * n_out // n_groups : (g + 1) * n_out // n_groups],
                optimize=True,
            )
            for g in range(n_groups)
        ]
        sums = np.concatenate(parts, axis=2) + self.bias[:, None, None]
        return sums.astype(accumulator_dtype(self.accumulator)), state

    def granule(self, inputs: Sequence[ValueType]) -> int:
        """Whole channels; with channel groups, whole groups of them."""
        per_group = len(self.weight) // self.channel_groups if self.channel_groups > 1 else 1
        return self.out_type(inputs).n // len(self.weight) * per_group

    def slice(self, inputs: Sequence[ValueType], lo: int, hi: int) -> Slice:
        """The output channels of [lo, hi), or some rows of one channel."""
        granule, out = self.granule(inputs), self.out_type(inputs)
        if self._is_rows(out, lo, hi):
            return self._rows(out, lo, hi)
        if lo % granule or hi % granule or not 0 <= lo < hi <= out.n:
            raise StageError(f"A conv2d of {out.n} outputs has no slice [{lo}, {hi}).")
        positions = out.n // len(self.weight)
        rows = slice(lo // positions, hi // positions)
        part = replace(self, weight=self.weight[rows], bias=self.bias[rows])
        if self.channel_groups == 1:
            return Slice(part, (None,))
        width = inputs[0].n // self.channel_groups
        first, last = lo // granule, hi // granule
        part = replace(part, channel_groups=last - first)
        return Slice(part, ((first * width, last * width),))

    def _is_rows(self, out: ValueType, lo: int, hi: int) -> bool:
        channel, row = out.n // len(self.weight), out.shape[2]
        within = 0 <= lo < hi <= out.n and lo // channel == (hi - 1) // channel
        return (
            within and hi - lo < channel and lo % row == hi % row == 0 and self.channel_groups == 1
        )

    def _rows(self, out: ValueType, lo: int, hi: int) -> Slice:
        """Output row r sees input rows from r * stride - padding on, as many as it reaches."""
        height, width = out.shape[1:]
        channel, first = divmod(lo // width, height)
        last = first + (hi - lo) // width - 1
        top = first * self.stride[0] - self.padding[0]
        bottom = last * self.stride[0] - self.padding[0] + self.reach[0]
        part = replace(
            self,
            weight=self.weight[channel : channel + 1],
            bias=self.bias[channel : channel + 1],
            padding=(0, self.padding[1]),
        )
        return Slice(part, (None,), Rows(top, bottom))


def convolution_faults(
    params: Mapping[str, Any], arrays: Mapping[str, Array], rank: int
) -> Iterator[tuple[str, str]]:
    """What is wrong with the groups, and with the numbers that have up to `rank` entries."""
    groups, weight = params.get("groups", 1), arrays.get("weight")
    if weight is not None and (groups < 1 or len(weight) % groups):
        yield "groups", f"{groups} groups do not divide {len(weight)} channels."
    for name, lowest in _LOWEST.items():
        value = params.get(name, lowest)
        entries = [value] if isinstance(value, int) else list(value)
        if len(entries) not in (1, rank) or any(
            not isinstance(v, int) or v < lowest for v in entries
        ):
            yield name, f"{value!r}: legal are integers from {lowest} on."


STAGES: tuple[type[Stage], ...] = (Conv2d,)
