"""Values that arrive later, each by its own number of steps.

    y[t, p] = x[t - steps[p], p],   0 before the stream's first step

One number for all values is no stage: the compiler puts it on the edges behind (docs/topology-
format.md), where it may also close a cycle. Delays that differ keep the last values in their state.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from math import prod
from typing import Any, ClassVar, Self

import numpy as np

from topologies.stages.base import (
    Array,
    Clock,
    Cost,
    Json,
    Slice,
    Stage,
    StageError,
    StateSpec,
    ValueType,
    edge_dtype,
)
from topologies.stages.common import one_input, same_arrays

__all__ = ["STAGES", "Delay"]


@dataclass(frozen=True, eq=False)
class Delay(Stage):
    """`steps` (n,) int32 from 0 on, one per value; `longest` is the state's length in steps.

    `longest` is that of the uncut stage, so that a group's state is a slice of the whole.
    """

    kind: ClassVar[str] = "delay"
    homogeneous: ClassVar[bool] = True
    takes: ClassVar[Mapping[str, int | None]] = {"steps": None}

    steps: Array
    longest: int

    @classmethod
    def lowered(
        cls,
        params: Mapping[str, Any],
        arrays: Mapping[str, Array],
        inputs: Sequence[ValueType],
        shift: int = 0,
    ) -> Self:
        """One delay per value, of one number, one per value or one per channel."""
        value, given = one_input(cls.kind, inputs), _given(params, arrays)
        if given.size not in (1, value.shape[0], value.n):
            raise StageError(
                f"steps has {given.size} values: legal are 1, {value.shape[0]} (one per channel) "
                f"or {value.n} (one per value)."
            )
        steps = np.repeat(given, value.n // given.size).astype(np.int32)
        return cls(steps, int(steps.max()))

    @classmethod
    def uniform(cls, params: Mapping[str, Any], arrays: Mapping[str, Array]) -> int | None:
        """The one number of steps of all values, if it is one."""
        given = _given(params, arrays)
        return int(given.flat[0]) if np.unique(given).size == 1 else None

    @classmethod
    def build(cls, params: Mapping[str, Any], arrays: Mapping[str, Array]) -> Self:
        """The stage with these `params()` and `arrays()`."""
        same_arrays(cls.kind, arrays, ("steps",))
        return cls(arrays["steps"], params["longest"])

    @classmethod
    def faults(
        cls, params: Mapping[str, Any], arrays: Mapping[str, Array]
    ) -> Iterator[tuple[str, str]]:
        """Steps that are no whole numbers from 0 on."""
        try:
            _given(params, arrays)
        except StageError as error:
            yield "steps", str(error)

    def params(self) -> dict[str, Json]:
        """The longest delay."""
        return {"longest": self.longest}

    def arrays(self) -> dict[str, Array]:
        """The delays."""
        return {"steps": self.steps}

    def out_type(self, inputs: Sequence[ValueType]) -> ValueType:
        """As the input, and 0 before the stream's first step. Raises StageError."""
        value = one_input(self.kind, inputs)
        if self.steps.size != value.n:
            raise StageError(f"This delay has {self.steps.size} values, its input {value.n}.")
        edge_dtype(value)  # raises where no state of 32 bits holds them
        return replace(value, low=min(value.low, 0), high=max(value.high, 0))

    def cost(self, inputs: Sequence[ValueType]) -> Cost:
        """What the values of the last steps take."""
        (_, shape, dtype), *_ = self.state_spec(inputs)
        return Cost(state_bytes=prod(shape) * np.dtype(dtype).itemsize)

    def state_spec(self, inputs: Sequence[ValueType]) -> StateSpec:
        """The inputs of the last `longest` steps, oldest first: `past`, in the edge's dtype."""
        value = inputs[0]
        return (("past", (self.longest, value.n), edge_dtype(value).name),)

    def run(
        self, inputs: Sequence[Array], state: tuple[Array, ...], clock: Clock
    ) -> tuple[Array, tuple[Array, ...]]:
        """(B, T, *shape) -> the same in the edge's dtype."""
        (x,), (past,) = inputs, state
        n_steps = x.shape[1]
        flat = x.reshape(*x.shape[:2], past.shape[2]).astype(past.dtype)
        known = np.concatenate([past, flat], axis=1)
        at = np.arange(n_steps)[:, None] + self.longest - self.steps
        late = known[:, at, np.arange(past.shape[2])]
        return late.reshape(x.shape), (np.ascontiguousarray(known[:, n_steps:]),)

    def granule(self, inputs: Sequence[ValueType]) -> int:
        """Any value."""
        return 1

    def slice(self, inputs: Sequence[ValueType], lo: int, hi: int) -> Slice:
        """The values [lo, hi)."""
        return Slice(replace(self, steps=self.steps[lo:hi]), ((lo, hi),))


def _given(params: Mapping[str, Any], arrays: Mapping[str, Array]) -> Array:
    """The delays of a network file, flat. Raises StageError for anything but natural numbers."""
    given = arrays.get("steps", params.get("steps"))
    try:
        steps = np.asarray(given, np.float64).ravel()
    except (TypeError, ValueError):
        steps = np.empty(0)
    if not steps.size or not np.isfinite(steps).all() or (steps < 0).any() or (steps % 1).any():
        raise StageError(f"{given!r} steps: legal are whole numbers from 0 on.")
    return steps


STAGES: tuple[type[Stage], ...] = (Delay,)
