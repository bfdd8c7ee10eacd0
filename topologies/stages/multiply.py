"""The product of two inputs, value by value.

    y[p] = x[p] * z[p]

in the sum of their units. Of spikes it is AND. Where one input has trailing axes of length 1, its
values are spread over them. With reduce and a neuron it makes the attention of the Spike-driven
Transformer (SDSA), a mask for each channel, from the sum over the tokens:

    m = multiply(k, v);  s = reduce(m, axes: -1, op: sum, keep: true);  g = neuron(s);
    y = multiply(q, g)

Source: Yao et al., Spike-driven Transformer, NeurIPS 2023, arXiv:2307.01694, equations 13 to 16.
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

__all__ = ["STAGES", "Multiply"]

_Shape = tuple[int, ...]


@dataclass(frozen=True, eq=False)
class Multiply(Stage):
    """Products, exact in `accumulator`."""

    kind: ClassVar[str] = "multiply"
    n_sources: ClassVar[tuple[int, int | None]] = (2, 2)
    tail: ClassVar[bool] = True
    timeless: ClassVar[bool] = True

    accumulator: Accumulator

    @classmethod
    def build(cls, params: Mapping[str, Any], arrays: Mapping[str, Array]) -> Self:
        """From accumulator."""
        return cls(params.get("accumulator", "float64"))

    @classmethod
    def faults(
        cls, params: Mapping[str, Any], arrays: Mapping[str, Array]
    ) -> Iterator[tuple[str, str]]:
        """None: a multiply has no parameters."""
        return iter(())

    def params(self) -> dict[str, Json]:
        """The accumulator."""
        return {"accumulator": self.accumulator}

    def out_type(self, inputs: Sequence[ValueType]) -> ValueType:
        """The larger shape, the sum of the units, the extremes of the products."""
        shape, _ = _shapes(inputs)
        one, other = inputs
        products = [a * b for a in (one.low, one.high) for b in (other.low, other.high)]
        return ValueType(shape, min(products), max(products), one.unit + other.unit)

    def cost(self, inputs: Sequence[ValueType]) -> Cost:
        """One product per value."""
        return Cost(macs_per_step=self.out_type(inputs).n)

    def run(
        self, inputs: Sequence[Array], state: tuple[Array, ...], clock: Clock
    ) -> tuple[Array, tuple[Array, ...]]:
        """(B, T, *shape) twice -> (B, T, *shape) in the accumulator's dtype."""
        dtype = accumulator_dtype(self.accumulator)
        product: Array = inputs[0].astype(dtype) * inputs[1].astype(dtype)
        return product, state

    def granule(self, inputs: Sequence[ValueType]) -> int:
        """Any value, or all values over which one is spread."""
        return _shapes(inputs)[1]

    def slice(self, inputs: Sequence[ValueType], lo: int, hi: int) -> Slice:
        """The values [lo, hi): of a spread input those that are spread over them."""
        granule, n = self.granule(inputs), self.out_type(inputs).n
        if lo % granule or hi % granule or not 0 <= lo < hi <= n:
            raise StageError(f"A multiply of {n} values has no slice [{lo}, {hi}).")
        whole = [(lo, hi) if value.n == n else (lo // granule, hi // granule) for value in inputs]
        return Slice(self, tuple(whole))


def _shapes(inputs: Sequence[ValueType]) -> tuple[_Shape, int]:
    """(the larger shape, how many values share one of the smaller). Raises StageError."""
    if len(inputs) != 2:
        raise StageError(f"A multiply reads two inputs, not {len(inputs)}.")
    large, small = sorted((value.shape for value in inputs), key=prod, reverse=True)
    same = 0
    while same < min(len(large), len(small)) and large[same] == small[same]:
        same += 1
    if len(large) != len(small) or same == 0 or any(size != 1 for size in small[same:]):
        raise StageError(
            f"A multiply reads two inputs of one shape, or one whose last axes have length 1, not "
            f"{inputs[0].shape} and {inputs[1].shape}."
        )
    return large, prod(large[same:])


STAGES: tuple[type[Stage], ...] = (Multiply,)
