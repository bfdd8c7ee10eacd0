"""The kinds of layers that a network file may have.

They are the kinds of stages that are no encoders and no readouts, and a few that the compiler folds
into others (compiler/fold.py), which therefore never stand in an operator.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from math import prod
from typing import Any, ClassVar, Self

from topologies.stages.add import Add
from topologies.stages.base import NO_ARRAYS, Array, Stage, StageError, ValueType
from topologies.stages.common import pair
from topologies.stages.loop import Loop
from topologies.stages.pool import SumPool
from topologies.stages.reshape import Reshape, Rows, Select
from topologies.stages.table import KINDS

__all__ = ["LAYERS", "layer_class"]


@dataclass(frozen=True, eq=False)
class _AvgPool(SumPool):
    """An average: a sum, whose divisor becomes a shift and a factor of the next weights."""

    kind: ClassVar[str] = "avg_pool"

    @classmethod
    def averaged(
        cls, params: Mapping[str, Any], shape: tuple[int, ...]
    ) -> tuple[str, dict[str, Any], int]:
        """The sum pool, and the number of values under its kernel."""
        return "sum_pool", dict(params), prod(pair("kernel", params["kernel"], 1))


@dataclass(frozen=True, eq=False)
class _Flatten(Reshape):
    """A reshape to one axis."""

    kind: ClassVar[str] = "flatten"

    @classmethod
    def authored(cls, params: Mapping[str, Any], arrays: Mapping[str, Array] = NO_ARRAYS) -> Self:
        """No parameters."""
        return cls((-1,))

    @classmethod
    def faults(
        cls, params: Mapping[str, Any], arrays: Mapping[str, Array]
    ) -> Iterator[tuple[str, str]]:
        """None: a flatten has no parameters."""
        return iter(())


@dataclass(frozen=True, eq=False)
class _BatchNorm(Add):
    """A factor and an offset per channel, folded into the weights before it, or else a scale."""

    kind: ClassVar[str] = "batch_norm"
    n_sources: ClassVar[tuple[int, int | None]] = (1, 1)
    homogeneous: ClassVar[bool] = False
    needs: ClassVar[Mapping[str, int | None]] = {"running_mean": 1, "running_var": 1}
    takes: ClassVar[Mapping[str, int | None]] = {"weight": 1, "bias": 1}

    @classmethod
    def lowered(
        cls,
        params: Mapping[str, Any],
        arrays: Mapping[str, Array],
        inputs: Sequence[ValueType],
        shift: int = 0,
    ) -> Self:
        """Only its shape, that of its input. Raises StageError for another number of channels."""
        n, channels = len(arrays["running_mean"]), inputs[0].shape[0]
        if n != channels:
            raise StageError(f"its arrays have {n} values: legal is {channels}, one per channel.")
        return cls((0,), "float64")

    @classmethod
    def faults(
        cls, params: Mapping[str, Any], arrays: Mapping[str, Array]
    ) -> Iterator[tuple[str, str]]:
        """Variances below zero, arrays of several lengths."""
        if "running_var" in arrays and (arrays["running_var"] < 0).any():
            yield "weights", "'running_var' has negative values."
        lengths = {name: len(array) for name, array in arrays.items()}
        if len(set(lengths.values())) > 1:
            yield "weights", f"its arrays have {lengths} values: legal is one per channel in each."


LAYERS: Mapping[str, type[Stage]] = {
    **{
        kind: cls
        for kind, cls in KINDS.items()
        if cls.role in ("linear", "neuron") and cls not in (Select, Rows, Loop)
    },
    **{cls.kind: cls for cls in (_AvgPool, _Flatten, _BatchNorm)},
}


def layer_class(kind: str) -> type[Stage]:
    """The class of a layer's kind, which must be one of LAYERS."""
    return LAYERS[kind]
