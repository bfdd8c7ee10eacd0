"""Prove how large a sum can become, and choose the accumulator (numerics 2 and 3)."""

from collections.abc import Sequence
from dataclasses import replace

from topologies.stages.add import Add
from topologies.stages.base import Stage, ValueType, accumulator_for
from topologies.stages.conv import Conv2d
from topologies.stages.linear import Linear
from topologies.stages.pool import SumPool

__all__ = ["adding", "with_accumulator"]


def adding(inputs: Sequence[ValueType]) -> Add:
    """The add of these inputs, in the finest of their units."""
    finest = max(value.unit for value in inputs)
    return Add(tuple(finest - value.unit for value in inputs), "float64")


def with_accumulator(stage: Stage, inputs: Sequence[ValueType]) -> Stage:
    """The stage with the cheapest accumulator in which its sums are exact.

    Raises StageError when there is none.
    """
    if isinstance(stage, Conv2d | Linear | SumPool | Add):
        return replace(stage, accumulator=accumulator_for(stage.row_bound(inputs)))
    return stage
