"""A leaky integrator that reads out its membrane, or the mean of it over a period (`leaky`).

With i = float32(x * 2**-unit) + 0.0 the current of a step and r the steps of the period so far:

    v = decay * v + gain * i                                float32, each operation rounded
    last    emits v
    mean    m = m + v in every step, emits m / r

`gain` is 1 - decay in float32 unless it is given. Both start at 0, in every period anew (stages/
readout.py). `membrane` is the case of gain 1 that emits the last.

Source: Yin et al. 2021, doi:10.1038/s42256-021-00397-w, whose output neurons integrate so.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import prod
from typing import Any, ClassVar, Literal, Self, cast

import numpy as np

from topologies.stages.base import (
    NO_ARRAYS,
    Array,
    Json,
    Stage,
    StageError,
    StateSpec,
    ValueType,
    float32_from_bits,
    float32_to_bits,
    to_current,
)
from topologies.stages.dynamics import Constant, constant, float32_of, refuse_unknown, shown
from topologies.stages.readout import Readout

__all__ = ["STAGES", "Leaky"]

_EMITS = ("last", "mean")


@dataclass(frozen=True, eq=False, kw_only=True)
class Leaky(Readout):
    """`decay` and `gain` per step: one number, or one for each value, (n,) float32."""

    kind: ClassVar[str] = "leaky"

    decay: Constant
    gain: Constant
    emit: Literal["last", "mean"] = "last"

    def __post_init__(self) -> None:
        """Round to float32 and check. Raises StageError."""
        super().__post_init__()
        for name in ("decay", "gain"):
            object.__setattr__(self, name, _float32(getattr(self, name)))
        if self.emit not in _EMITS:
            raise StageError(f"emit is {self.emit!r}: it must be one of {', '.join(_EMITS)}.")
        if not ((np.asarray(self.decay) >= 0) & (np.asarray(self.decay) <= 1)).all():
            raise StageError(f"decay is {shown(self.decay)}: it must lie in 0 to 1.")
        if not np.isfinite(np.asarray(self.gain)).all():
            raise StageError(f"gain is {shown(self.gain)}: it must be finite.")

    @classmethod
    def authored(cls, params: Mapping[str, Any], arrays: Mapping[str, Array] = NO_ARRAYS) -> Self:
        """Parameters: every (null), decay, gain (1 - decay), emit ('last')."""
        refuse_unknown(cls.kind, params, ("every", "decay", "gain", "emit"))
        decay = _float32(constant(params, arrays, "decay"))
        given = "gain" in params or "gain" in arrays
        gain = constant(params, arrays, "gain") if given else np.float32(1.0) - float32_of(decay)
        emit = cast(Literal["last", "mean"], params.get("emit", "last"))
        return cls(every=params.get("every"), decay=decay, gain=_float32(gain), emit=emit)

    @classmethod
    def build(cls, params: Mapping[str, Any], arrays: Mapping[str, Array]) -> Self:
        """Read what `params` and `arrays` wrote."""
        both: dict[str, Any] = {
            name: arrays[name] if name in arrays else float(float32_from_bits(params[name]))
            for name in ("decay", "gain")
        }
        return cls(every=params["every"], unit=params["unit"], emit=params["emit"], **both)

    def params(self) -> dict[str, Json]:
        """The period, the unit, what is emitted; numbers as bits."""
        bits: dict[str, Json] = {
            name: float32_to_bits(value)
            for name, value in (("decay", self.decay), ("gain", self.gain))
            if not isinstance(value, np.ndarray)
        }
        return {**super().params(), "emit": self.emit, **bits}

    def arrays(self) -> dict[str, Array]:
        """Constants with one value per neuron, float32."""
        both = {"decay": self.decay, "gain": self.gain}
        return {name: value for name, value in both.items() if isinstance(value, np.ndarray)}

    def out_type(self, inputs: Sequence[ValueType]) -> ValueType:
        """What is read; emissions are fractions of it."""
        value = super().out_type(inputs)
        if any(array.size != value.n for array in self.arrays().values()):
            raise StageError(f"decay and gain must have {value.n} values, one per output.")
        return value

    def state_spec(self, inputs: Sequence[ValueType]) -> StateSpec:
        """Membranes and their sums over the period, (2, n): `v`, float32."""
        return (("v", (2, inputs[0].n), "float32"),)

    def prepared(self, inputs: Array) -> Array:
        """The currents (B, T, n), float32."""
        return to_current(inputs, self.unit).reshape(*inputs.shape[:2], prod(inputs.shape[2:]))

    def fold(self, total: Array, steps: Array) -> Array:
        """The leaky integrator, step by step; `total` is (B, 2, n)."""
        v, m = total[:, 0], total[:, 1]
        for t in range(steps.shape[1]):
            v = float32_of(self.decay) * v + float32_of(self.gain) * steps[:, t]
            m = m + v
        return np.stack([v, m], axis=1)

    def result(self, total: Array, n_steps: Array) -> Array:
        """The membrane, or its mean; 0 for no step."""
        if self.emit == "last":
            return total[:, 0] + np.float32(0.0)
        steps = np.maximum(n_steps, 1).astype(np.float32)
        mean: Array = total[:, 1] / steps[:, None]
        return mean + np.float32(0.0)


def _float32(value: Any) -> Constant:
    rounded = np.asarray(value, np.float32) + np.float32(0.0)
    return rounded if rounded.ndim else float(rounded)


STAGES: tuple[type[Stage], ...] = (Leaky,)
