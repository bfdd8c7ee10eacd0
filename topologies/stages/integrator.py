"""A leaky integrator that never fires and whose membrane travels, on a grid (`integrator`).

One step, x being the current that arrives, i = float32(x * 2**-unit) + 0.0 as for neurons:

    j = decay_syn * j + w_in * i                            float32, each operation rounded
    v = v_leak + (decay * (v - v_leak) + r * j)
    y = min(max(rint(v * 2**unit_out), -limit), limit)      half to even; limit = 2**(bits - 1) - 1

y counts units of 2**-unit_out; what lies beyond the limit is cut off. v starts at v_leak in the
step with number 0, j at 0. With decay_syn 0 there is no synaptic current.

A readout that integrates is `leaky`, whose result is not rounded to a grid.

Source: NIR's I, LI and CubaLI: Pedersen et al., Neuromorphic intermediate representation, 2024,
doi:10.1038/s41467-024-52259-9.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from math import prod
from typing import Any, ClassVar, Self, cast

import numpy as np

from topologies.stages.base import (
    NO_ARRAYS,
    Array,
    Clock,
    Cost,
    Json,
    Slice,
    Stage,
    StageError,
    StateSpec,
    Travels,
    ValueType,
    float32_from_bits,
    float32_to_bits,
    to_current,
)
from topologies.stages.common import one_input
from topologies.stages.dynamics import (
    Constant,
    constant,
    float32_of,
    refuse_unknown,
    rounded,
    shown,
    spread,
)

__all__ = ["STAGES", "Integrator"]

_CONSTANTS = ("decay", "decay_syn", "w_in", "r", "v_leak")
_BITS = range(2, 33)
_UNITS = range(-32, 33)


@dataclass(frozen=True, eq=False, kw_only=True)
class Integrator(Stage):
    """`decay` of the membrane and `decay_syn` of the current, per step; the others as in NIR.

    A constant is one float32 for all, or (n,) float32, one for each. `unit` is that of the sums
    that are read, `unit_out` and `bits` say what is sent.
    """

    kind: ClassVar[str] = "integrator"
    travels: ClassVar[Travels] = "always"
    shared: ClassVar[bool] = True
    takes: ClassVar[Mapping[str, int | None]] = dict.fromkeys(_CONSTANTS)

    decay: Constant
    decay_syn: Constant = 0.0
    w_in: Constant = 1.0
    r: Constant = 1.0
    v_leak: Constant = 0.0
    unit: int = 0
    unit_out: int = 12
    bits: int = 24

    def __post_init__(self) -> None:
        """Round the constants to float32 and check. Raises StageError."""
        for name in _CONSTANTS:
            object.__setattr__(self, name, rounded(name, getattr(self, name)))
        for name in ("decay", "decay_syn"):
            value = np.asarray(getattr(self, name))
            if not ((value >= 0.0) & (value <= 1.0)).all():
                raise StageError(f"{name} is {shown(getattr(self, name))}: it must lie in 0 to 1.")
        if self.unit_out not in _UNITS or self.bits not in _BITS:
            raise StageError(
                f"unit is {self.unit_out!r} and bits {self.bits!r}: legal are units from -32 to "
                "32, and 2 to 32 bits."
            )

    @classmethod
    def authored(cls, params: Mapping[str, Any], arrays: Mapping[str, Array] = NO_ARRAYS) -> Self:
        """Parameters: those of the class (decay 1), and unit (12) and bits (24) of what is sent."""
        refuse_unknown(cls.kind, [*params, *arrays], (*_CONSTANTS, "unit", "bits"))
        return cls(
            decay=constant(params, arrays, "decay", 1.0),
            decay_syn=constant(params, arrays, "decay_syn", 0.0),
            w_in=constant(params, arrays, "w_in", 1.0),
            r=constant(params, arrays, "r", 1.0),
            v_leak=constant(params, arrays, "v_leak", 0.0),
            unit_out=params.get("unit", 12),
            bits=params.get("bits", 24),
        )

    @classmethod
    def lowered(
        cls,
        params: Mapping[str, Any],
        arrays: Mapping[str, Array],
        inputs: Sequence[ValueType],
        shift: int = 0,
    ) -> Self:
        """Reading `inputs[0]`; constants per channel become constants per value."""
        value, stage = one_input(cls.kind, inputs), cls.authored(params, arrays)
        wide = {name: spread(name, array, value) for name, array in stage.arrays().items()}
        return replace(stage, unit=value.unit, **cast("dict[str, Any]", wide))

    @classmethod
    def build(cls, params: Mapping[str, Any], arrays: Mapping[str, Array]) -> Self:
        """Read what `params` and `arrays` wrote."""
        constants: dict[str, Any] = {
            name: arrays[name] if name in arrays else float(float32_from_bits(params[name]))
            for name in _CONSTANTS
        }
        numbers = {name: params[name] for name in ("unit", "unit_out", "bits")}
        return cls(**constants, **numbers)

    def params(self) -> dict[str, Json]:
        """Units and bits, and constants that are one number, as bits."""
        written: dict[str, Json] = {
            name: getattr(self, name) for name in ("unit", "unit_out", "bits")
        }
        for name in _CONSTANTS:
            value = getattr(self, name)
            if not isinstance(value, np.ndarray):
                written[name] = float32_to_bits(value)
        return written

    def arrays(self) -> dict[str, Array]:
        """Constants with one value each, float32."""
        values = {name: getattr(self, name) for name in _CONSTANTS}
        return {name: v for name, v in values.items() if isinstance(v, np.ndarray)}

    @property
    def limit(self) -> int:
        """The largest integer that is sent."""
        return int(2 ** (self.bits - 1)) - 1

    def out_type(self, inputs: Sequence[ValueType]) -> ValueType:
        """Membranes in units of 2**-unit_out, of the shape of the only input."""
        value = one_input(self.kind, inputs)
        if value.unit != self.unit:
            raise StageError(
                f"An integrator that reads units of 2**-{self.unit} is given 2**-{value.unit}."
            )
        wrong = [name for name, array in self.arrays().items() if array.size != value.n]
        if wrong:
            raise StageError(f"{', '.join(wrong)} must have {value.n} values, one for each.")
        return ValueType(value.shape, -self.limit, self.limit, self.unit_out)

    def row_bound(self, inputs: Sequence[ValueType]) -> int:
        """The largest input; what is sent is cut off."""
        return inputs[0].largest

    def cost(self, inputs: Sequence[ValueType]) -> Cost:
        """One neuron per value, with membrane and current."""
        return Cost(n_neurons=inputs[0].n, state_bytes=8 * inputs[0].n)

    def state_spec(self, inputs: Sequence[ValueType]) -> StateSpec:
        """The membranes `v` and the synaptic currents `i`, float32."""
        shape = inputs[0].shape
        return (("v", shape, "float32"), ("i", shape, "float32"))

    def run(
        self, inputs: Sequence[Array], state: tuple[Array, ...], clock: Clock
    ) -> tuple[Array, tuple[Array, ...]]:
        """Step by step over the window: (B, T, *shape) -> the same, float64 integers."""
        x = to_current(inputs[0], self.unit)
        flat = x.reshape(*x.shape[:2], prod(x.shape[2:]))
        v, j = (array.reshape(len(array), flat.shape[2]) for array in state)
        fresh = (clock.start == 0)[:, None]
        v = np.where(fresh, float32_of(self.v_leak), v)
        sent = np.empty(flat.shape, np.float64)
        for t in range(flat.shape[1]):
            v, j = self._step(v, j, flat[:, t])
            sent[:, t] = np.rint(np.ldexp(v.astype(np.float64), self.unit_out))
        clipped = np.clip(sent, -self.limit, self.limit) + 0.0
        return clipped.reshape(x.shape), (v.reshape(state[0].shape), j.reshape(state[1].shape))

    def _step(self, v: Array, j: Array, i: Array) -> tuple[Array, Array]:
        v_leak = float32_of(self.v_leak)
        j = float32_of(self.decay_syn) * j + float32_of(self.w_in) * i
        return v_leak + (float32_of(self.decay) * (v - v_leak) + float32_of(self.r) * j), j

    def granule(self, inputs: Sequence[ValueType]) -> int:
        """Any value."""
        return 1

    def slice(self, inputs: Sequence[ValueType], lo: int, hi: int) -> Slice:
        """The values [lo, hi)."""
        part = {name: array[lo:hi] for name, array in self.arrays().items()}
        kept = replace(self, **cast("dict[str, Any]", part)) if part else self
        return Slice(kept, ((lo, hi),))


STAGES: tuple[type[Stage], ...] = (Integrator,)
