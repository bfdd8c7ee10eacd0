"""The current-based neuron in integers, as digital neuromorphic chips compute it (`cubalif_int`).

One step, all in integers; x is the sum of weights that arrives, k of k * 2**-unit, so that 8-bit
weights are those of the compiler's grid. decay_u and decay_v count in 1/4096:

    u = sat(trunc(u * (4096 - decay_u) / 4096) + x * 2**(6 + exponent))
    v = sat(trunc(v * (4096 - decay_v) / 4096) + u + bias)
    s = v > v_threshold * 2**6;  v = 0 where s

trunc rounds towards zero, so that what decays reaches zero; sat keeps 24 bits with a sign: -2**23
to 2**23 - 1. The current of a step acts on the membrane of the same step; the comparison is strict;
a spike leaves u as it is. u and v start at 0.

A network file gives threshold and bias in units of the weights, as everywhere; they become
v_threshold = rint(th * 2**unit) and bias = rint(b * 2**unit) * 2**6, ties to even. On a grid so
fine that the threshold would exceed 2**16, a lower exponent drops as many bits of x as needed, and
threshold and bias are put onto the coarser grid.

Source: Davies et al., Loihi: a neuromorphic manycore processor with on-chip learning, 2018,
doi:10.1109/MM.2018.112130359, the discrete-time equations of its neuron; 12-bit decays, 8-bit
weights scaled by 2**(6 + exponent) and 24-bit state are those of that chip.
"""

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
from topologies.stages.common import one_input
from topologies.stages.dynamics import refuse_unknown

__all__ = ["STAGES", "STATE_BITS", "CubaLifInt"]

STATE_BITS: Final = 24
_DECAY_BITS, _SCALE_BITS = 12, 6
_TOP = 2 ** (STATE_BITS - 1)
_EXPONENTS = range(-64, 8)
_MOST_THRESHOLD = 2**16


@dataclass(frozen=True, eq=False, kw_only=True)
class CubaLifInt(Stage):
    """`v_threshold` counts in units of the weights' grid, `bias` in those of the membrane."""

    kind: ClassVar[str] = "cubalif_int"
    role: ClassVar[Role] = "neuron"
    travels: ClassVar[Travels] = "always"
    state_bits: ClassVar[int | None] = STATE_BITS

    decay_u: int
    decay_v: int
    v_threshold: int
    bias: int = 0
    exponent: int = 0

    def __post_init__(self) -> None:
        """Check what the registers hold. Raises StageError."""
        for name in ("decay_u", "decay_v"):
            if not 0 <= getattr(self, name) <= 2**_DECAY_BITS:
                raise StageError(f"{name} is {getattr(self, name)}: it must lie in 0 to 4096.")
        if not 0 < self.v_threshold << _SCALE_BITS < _TOP:
            raise StageError(
                f"v_threshold is {self.v_threshold} units of the weights: it must lie in 1 to "
                f"{(_TOP >> _SCALE_BITS) - 1}, so that {STATE_BITS} bits can exceed it."
            )
        if not -_TOP <= self.bias < _TOP or self.exponent not in _EXPONENTS:
            raise StageError(
                f"bias is {self.bias} and exponent {self.exponent}: the one must fit {STATE_BITS} "
                "bits, the other lie in -64 to 7."
            )

    @classmethod
    def lowered(
        cls,
        params: Mapping[str, Any],
        arrays: Mapping[str, Array],
        inputs: Sequence[ValueType],
        shift: int = 0,
    ) -> Self:
        """Parameters: decay_u (4096), decay_v (0), v_threshold (1), bias (0), exponent (0).

        Threshold and bias are put onto the grid of what is read.
        """
        refuse_unknown(cls.kind, params, ("decay_u", "decay_v", "v_threshold", "bias", "exponent"))
        unit, threshold = one_input(cls.kind, inputs).unit, float(params.get("v_threshold", 1.0))
        dropped = 0
        while np.rint(threshold * 2.0 ** (unit - dropped)) > _MOST_THRESHOLD:
            dropped += 1
        scale = 2.0 ** (unit - dropped)
        return cls(
            decay_u=_whole(params, "decay_u", 2**_DECAY_BITS),
            decay_v=_whole(params, "decay_v", 0),
            v_threshold=int(np.rint(threshold * scale)),
            bias=int(np.rint(float(params.get("bias", 0.0)) * scale)) << _SCALE_BITS,
            exponent=_whole(params, "exponent", 0) - dropped,
        )

    @classmethod
    def authored(cls, params: Mapping[str, Any], arrays: Mapping[str, Array] = NO_ARRAYS) -> Self:
        """As if weights were whole numbers: what can be checked before they are known."""
        known = {**params, "v_threshold": max(1.0, float(params.get("v_threshold", 1.0)))}
        return cls.lowered(known, arrays, [ValueType((1,), 0, 1)])

    @classmethod
    def build(cls, params: Mapping[str, Any], arrays: Mapping[str, Array]) -> Self:
        """Read what `params` wrote."""
        return cls(**params)

    def params(self) -> dict[str, Json]:
        """All registers."""
        names = ("decay_u", "decay_v", "v_threshold", "bias", "exponent")
        return {name: getattr(self, name) for name in names}

    def out_type(self, inputs: Sequence[ValueType]) -> ValueType:
        """Spikes, of the shape of the only input."""
        return ValueType(one_input(self.kind, inputs).shape, 0, 1)

    def cost(self, inputs: Sequence[ValueType]) -> Cost:
        """One neuron per value, with two state variables."""
        n = inputs[0].n
        return Cost(n_neurons=n, state_bytes=8 * n)

    def state_spec(self, inputs: Sequence[ValueType]) -> StateSpec:
        """The currents `u` and membranes `v`, int32 that hold 24 bits."""
        shape = inputs[0].shape
        return (("u", shape, "int32"), ("v", shape, "int32"))

    def run(
        self, inputs: Sequence[Array], state: tuple[Array, ...], clock: Clock
    ) -> tuple[Array, tuple[Array, ...]]:
        """(B, T, *shape) sums -> (B, T, *shape) spikes, step by step."""
        sums = np.clip(inputs[0], -(2**31), 2**31 - 1).astype(np.int64)
        u, v = (array.astype(np.int64) for array in state)
        spikes = np.empty(sums.shape, np.uint8)
        for t in range(sums.shape[1]):
            u = _saturated(_decayed(u, self.decay_u) + self._scaled(sums[:, t]), clock)
            v = _saturated(_decayed(v, self.decay_v) + u + self.bias, clock)
            fired = v > self.v_threshold << _SCALE_BITS
            spikes[:, t] = fired
            v = np.where(fired, 0, v)
        return spikes, (u.astype(np.int32), v.astype(np.int32))

    def _scaled(self, x: Array) -> Array:
        """x * 2**(6 + exponent), towards zero where bits are dropped."""
        bits = _SCALE_BITS + self.exponent
        return x << bits if bits >= 0 else np.sign(x) * (np.abs(x) >> -bits)

    def granule(self, inputs: Sequence[ValueType]) -> int:
        """Neurons do not see each other."""
        return 1

    def slice(self, inputs: Sequence[ValueType], lo: int, hi: int) -> Slice:
        """The same neurons for fewer values."""
        return Slice(replace(self), ((lo, hi),))


def _decayed(value: Array, decay: int) -> Array:
    kept: Array = np.sign(value) * (np.abs(value) * (2**_DECAY_BITS - decay) >> _DECAY_BITS)
    return kept


def _saturated(value: Array, clock: Clock) -> Array:
    kept = np.clip(value, -_TOP, _TOP - 1)
    clock.saturated(int(np.count_nonzero(kept != value)))
    return kept


def _whole(params: Mapping[str, Any], name: str, usual: int) -> int:
    value = params.get(name, usual)
    if type(value) is not int:
        raise StageError(f"{name} is {value!r}: it must be a whole number.")
    return value


STAGES: tuple[type[Stage], ...] = (CubaLifInt,)
