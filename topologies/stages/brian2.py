"""Neurons whose equations are text, stepped by Brian2 (`brian2`, which needs the extra `brian2`).

One step of one neuron, in float64, in the order of Brian2's schedule:

    I = k * 2**-unit                                        the exact sum, not rounded
    the differential equations advance by dt, by `method`
    s = threshold, and not refractory
    reset, where s

Equations, threshold and reset are those of the layer: `topologies.stages.brian2_text` says what may
stand in them. States start at `initial`, else at 0, in the step with number 0. A state that is no
finite number ends its stream with an error.

Not portable: Brian2, SymPy and NumPy choose the operations, and an exp differs between processors.
The bits are the same on one machine with one installation, whatever batch, cut or restart; see
docs/numerics.md, rule 18.

Source: Stimberg, Brette and Goodman, Brian 2, an intuitive and efficient neural simulator, 2019,
doi:10.7554/eLife.47314; version 2.9.0, code generation for NumPy.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Final, Self

import numpy as np

from topologies.stages.base import (
    NO_ARRAYS,
    Array,
    Clock,
    Cost,
    Json,
    Role,
    Slice,
    Stage,
    StageError,
    StateSpec,
    Travels,
    ValueType,
)
from topologies.stages.brian2_run import run_window
from topologies.stages.brian2_text import FIELDS, Model
from topologies.stages.common import one_input
from topologies.stages.dynamics import refuse_unknown

__all__ = ["STAGES", "Brian2"]

_TRIAL_STEPS: Final = 16


@dataclass(frozen=True, eq=False, kw_only=True)
class Brian2(Stage):
    """`model` is checked text; `unit` is that of the sums that are read."""

    kind: ClassVar[str] = "brian2"
    role: ClassVar[Role] = "neuron"
    travels: ClassVar[Travels] = "always"

    model: Model
    unit: int = 0

    @classmethod
    def authored(cls, params: Mapping[str, Any], arrays: Mapping[str, Array] = NO_ARRAYS) -> Self:
        """Parameters: equations, threshold, dt; reset, parameters, initial, refractory, method."""
        refuse_unknown(cls.kind, params, FIELDS)
        return cls(model=Model.parse(params))

    @classmethod
    def lowered(
        cls,
        params: Mapping[str, Any],
        arrays: Mapping[str, Array],
        inputs: Sequence[ValueType],
        shift: int = 0,
    ) -> Self:
        """The neurons of a layer that reads `inputs[0]`, after a trial: units, method, extremes.

        Raises StageError, also where Brian2 is not installed: such networks are compiled with it.
        """
        value = one_input(cls.kind, inputs)
        stage = replace(cls.authored(params, arrays), unit=value.unit)
        stage._try(value)
        return stage

    def _try(self, value: ValueType) -> None:
        """Some steps of the lowest, no, and the highest current. Raises StageError."""
        current = np.array([value.low, min(max(0, value.low), value.high), value.high], np.int64)
        inputs = np.tile(current[:, None, None], (1, _TRIAL_STEPS, 1))
        spec = self.state_spec([ValueType((1,), value.low, value.high, value.unit)])
        state = tuple(np.zeros((3, *shape), dtype) for _, shape, dtype in spec)
        self.run([inputs], state, Clock(np.zeros(3, np.int64), np.zeros(3, np.bool_)))

    @classmethod
    def build(cls, params: Mapping[str, Any], arrays: Mapping[str, Array]) -> Self:
        """Read what `params` wrote; the text is checked again."""
        return cls(model=Model.parse(params), unit=params["unit"])

    def params(self) -> dict[str, Json]:
        """The text in its stored form."""
        return {**self.model.written(), "unit": self.unit}

    def out_type(self, inputs: Sequence[ValueType]) -> ValueType:
        """Spikes, of the shape of the only input."""
        value = one_input(self.kind, inputs)
        if value.unit != self.unit:
            raise StageError(
                f"A neuron that reads units of 2**-{self.unit} is given 2**-{value.unit}."
            )
        return ValueType(value.shape, 0, 1)

    @property
    def extras(self) -> tuple[str, ...]:
        """Brian2, so not portable: see the module."""
        return ("brian2",)

    def cost(self, inputs: Sequence[ValueType]) -> Cost:
        """One neuron per value, with its states."""
        n = inputs[0].n
        per_neuron = sum(np.dtype(dtype).itemsize for _, _, dtype in self.state_spec(inputs))
        return Cost(n_neurons=n, state_bytes=per_neuron * n)

    def state_spec(self, inputs: Sequence[ValueType]) -> StateSpec:
        """The states, float64 in base units; the steps left of `refractory`, int32."""
        shape = inputs[0].shape
        spec = tuple((name, shape, "float64") for name in self.model.states)
        return spec if self.model.refractory is None else (*spec, ("refractory", shape, "int32"))

    def run(
        self, inputs: Sequence[Array], state: tuple[Array, ...], clock: Clock
    ) -> tuple[Array, tuple[Array, ...]]:
        """(B, T, *shape) sums -> (B, T, *shape) spikes."""
        sums = inputs[0]
        n = math.prod(sums.shape[2:])
        current = sums.reshape(*sums.shape[:2], n).astype(np.float64) * 2.0**-self.unit + 0.0
        flat = [array.reshape(len(array), n) for array in state]
        spikes, after = run_window(self.model, current, flat, clock.start == 0)
        shaped = tuple(a.reshape(b.shape) for a, b in zip(after, state, strict=True))
        return spikes.reshape(sums.shape), shaped

    def granule(self, inputs: Sequence[ValueType]) -> int:
        """Neurons do not see each other."""
        return 1

    def slice(self, inputs: Sequence[ValueType], lo: int, hi: int) -> Slice:
        """The same neurons for fewer values."""
        return Slice(replace(self), ((lo, hi),))


STAGES: tuple[type[Stage], ...] = (Brian2,)
