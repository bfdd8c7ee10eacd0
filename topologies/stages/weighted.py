"""Stages with synaptic weights: what they share, and how weights come onto the grid.

    weight = k * 2**-shift,   bias = k * 2**-(shift + unit of x),   k = rint(value * 2**shift) etc.,

half to even (numerics 1 and 6), in the narrowest integers that hold k. Which shift is for the
compiler to say: all weights that are summed before a neuron share one.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Self

import numpy as np

from topologies.stages.base import (
    Accumulator,
    Array,
    Json,
    Stage,
    StageError,
    Travels,
    ValueType,
)
from topologies.stages.common import largest_row, narrowest, one_input, same_arrays

__all__ = ["Weighted", "bias_on_grid", "grid", "weight_on_grid"]

_MOST_BIAS = 2.0**53  # grid units: up to there rint is exact in float64


def grid(values: Array, shift: int) -> Array:
    """values * 2**shift, rounded half to even, int64."""
    k: Array = np.rint(np.ldexp(values, shift)).astype(np.int64)
    return k


def weight_on_grid(weight: Array, shift: int) -> Array:
    """Weights in units of 2**-shift, int8 to int32. Raises StageError when none holds them."""
    return narrowest(grid(weight, shift))


def bias_on_grid(bias: Array, unit: int) -> Array:
    """Biases in units of 2**-unit, int64. Raises StageError for one that is not exact there."""
    if np.abs(np.ldexp(bias, unit)).max(initial=0.0) >= _MOST_BIAS:
        raise StageError(
            f"A bias of {np.abs(bias).max()} is more than 2**53 grid units of 2**-{unit}: scale "
            "the weights up or the bias down."
        )
    return grid(bias, unit)


@dataclass(frozen=True, eq=False)
class Weighted(Stage):
    """Sums of weighted inputs, and a bias, per output row.

    `weight` is (rows, ...), int8, int16 or int32; `bias` is int64 (rows,). Row o makes the values
    of channel o, so that a batch norm can be folded into it.
    """

    weighted: ClassVar[bool] = True
    travels: ClassVar[Travels] = "never"
    takes: ClassVar[Mapping[str, int | None]] = {"bias": 1}

    weight: Array
    bias: Array
    shift: int
    accumulator: Accumulator

    @classmethod
    def geometry(cls, params: Mapping[str, Any]) -> dict[str, Any]:
        """Further fields of the class, from a layer's parameters or from `params()`."""
        return {}

    @classmethod
    def build(cls, params: Mapping[str, Any], arrays: Mapping[str, Array]) -> Self:
        """The stage with these `params()` and `arrays()`."""
        same_arrays(cls.kind, arrays, ("weight", "bias"))
        fixed = (arrays["weight"], arrays["bias"], params["shift"], params["accumulator"])
        return cls(*fixed, **cls.geometry(params))

    @classmethod
    def lowered(
        cls,
        params: Mapping[str, Any],
        arrays: Mapping[str, Array],
        inputs: Sequence[ValueType],
        shift: int = 0,
    ) -> Self:
        """Weights and bias on the grid of 2**-shift."""
        weight = weight_on_grid(arrays["weight"], shift)
        given = arrays.get("bias", np.zeros(len(weight)))
        bias = bias_on_grid(given, shift + one_input(cls.kind, inputs).unit)
        return cls(weight, bias, shift, "float64", **cls.geometry(params)).fitted(inputs)

    @classmethod
    def faults(
        cls, params: Mapping[str, Any], arrays: Mapping[str, Array]
    ) -> Iterator[tuple[str, str]]:
        """A bias that does not fit the weights."""
        weight, bias = arrays.get("weight"), arrays.get("bias")
        if weight is not None and bias is not None and bias.shape != weight.shape[:1]:
            yield (
                "weights",
                f"'bias' has shape {list(bias.shape)}: legal is [{weight.shape[0]}], one per "
                "output of 'weight'.",
            )

    def params(self) -> dict[str, Json]:
        """Shift and accumulator."""
        return {"shift": self.shift, "accumulator": self.accumulator}

    def arrays(self) -> dict[str, Array]:
        """Weights and biases, integers."""
        return {"weight": self.weight, "bias": self.bias}

    def row_bound(self, inputs: Sequence[ValueType]) -> int:
        """The largest over the rows of sum |k| * max |x| + |b| (numerics 2)."""
        return largest_row(self.weight, self.bias, one_input(self.kind, inputs).largest)
