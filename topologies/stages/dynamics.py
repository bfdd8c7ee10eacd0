"""What all spiking neurons have in common: constants, currents, and the walk over a window.

    i = float32(sum * 2**-unit) + 0.0                       the current, rounded once
    s, state = advance(state, i)                            the neuron's own, all in float32

A constant is one float32 for all neurons of a layer or one for each: a number, or an array (n,) in
channel-major order. In a network file it may also have one value per channel.
"""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Literal, Self, TypeAlias, cast

import numpy as np

from topologies.stages.base import (
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
    float32_from_bits,
    float32_to_bits,
    to_current,
)

__all__ = [
    "FIRES",
    "Constant",
    "Fire",
    "Neuron",
    "Resetting",
    "constant",
    "flag",
    "float32_of",
    "optional_constant",
    "refuse_unknown",
    "reset_norse",
    "reset_plain",
    "reset_spikingjelly",
    "rounded",
    "shown",
    "spread",
]

Fire: TypeAlias = Literal[">=", ">"]
FIRES: tuple[Fire, ...] = (">=", ">")
Constant: TypeAlias = "float | Array"


@dataclass(frozen=True, eq=False, kw_only=True)
class Neuron(Stage):
    """Parameters that all neurons share. Constants are rounded to float32 when they come in.

    `v_threshold` is in units of the membrane. `unit` is that of the sums that are read: `reading`
    sets it. A subclass names its constants, and its other options, in these tuples.
    """

    role: ClassVar[Role] = "neuron"
    travels: ClassVar[Travels] = "always"
    constants: ClassVar[tuple[str, ...]] = ("v_threshold",)
    options: ClassVar[tuple[str, ...]] = ("fire",)

    v_threshold: Constant = 1.0
    fire: Fire = ">="
    unit: int = 0

    def __post_init__(self) -> None:
        """Round the constants to float32 and check. Raises StageError."""
        for name in self.constants:
            value = getattr(self, name)
            if value is not None:
                object.__setattr__(self, name, rounded(name, value))
        if not np.all(np.asarray(self.v_threshold) > 0):
            raise StageError(f"v_threshold is {shown(self.v_threshold)}: it must be above 0.")
        if self.fire not in FIRES:
            raise StageError(f"fire is {self.fire!r}: it must be '>=' or '>'.")

    @classmethod
    def build(cls, params: Mapping[str, Any], arrays: Mapping[str, Array]) -> Self:
        """Read what `params` and `arrays` wrote."""
        given: dict[str, Any] = {name: params[name] for name in (*cls.options, "unit")}
        for name in cls.constants:
            bits = None if name in arrays else params[name]
            number = None if bits is None else float(float32_from_bits(bits))
            given[name] = arrays.get(name, number)
        return cls(**given)

    def params(self) -> dict[str, Json]:
        """Constants that are one number, as bits, and the options."""
        written: dict[str, Json] = {name: getattr(self, name) for name in (*self.options, "unit")}
        for name in self.constants:
            value = getattr(self, name)
            if not isinstance(value, np.ndarray):
                written[name] = None if value is None else float32_to_bits(value)
        return written

    def arrays(self) -> dict[str, Array]:
        """Constants with one value per neuron, float32."""
        values = {name: getattr(self, name) for name in self.constants}
        return {name: v for name, v in values.items() if isinstance(v, np.ndarray)}

    @property
    def is_uniform(self) -> bool:
        """Whether every constant is one number for all neurons."""
        return not self.arrays()

    @classmethod
    def lowered(
        cls,
        params: Mapping[str, Any],
        arrays: Mapping[str, Array],
        inputs: Sequence[ValueType],
        shift: int = 0,
    ) -> Self:
        """The neurons of a layer that reads `inputs[0]`."""
        return cls.authored(params, arrays).reading(inputs[0])

    def reading(self, value: ValueType) -> Self:
        """These neurons, reading sums of the type of `value`. Raises StageError.

        Constants per channel become constants per neuron here.
        """
        wide = {name: spread(name, array, value) for name, array in self.arrays().items()}
        return replace(self, unit=value.unit, **cast("dict[str, Any]", wide))

    @abstractmethod
    def advance(self, state: tuple[Array, ...], i: Array) -> tuple[Array, tuple[Array, ...]]:
        """One step: states and currents (..., n) -> spikes bool and new states, same dtypes."""

    def begun(self, state: tuple[Array, ...], start: Array) -> tuple[Array, ...]:
        """The states (B, n), those of streams at step 0 set to their initial values."""
        return state

    def out_type(self, inputs: Sequence[ValueType]) -> ValueType:
        """Spikes, of the shape of the only input."""
        if len(inputs) != 1:
            raise StageError(f"A neuron reads one input, not {len(inputs)}: add them first.")
        if inputs[0].unit != self.unit:
            raise StageError(
                f"A neuron that reads units of 2**-{self.unit} is given 2**-{inputs[0].unit}."
            )
        wrong = [name for name, array in self.arrays().items() if array.size != inputs[0].n]
        if wrong:
            raise StageError(f"{', '.join(wrong)} must have {inputs[0].n} values, one per neuron.")
        return ValueType(inputs[0].shape, 0, 1)

    def cost(self, inputs: Sequence[ValueType]) -> Cost:
        """One neuron per value, with its state."""
        n = inputs[0].n
        per_neuron = sum(np.dtype(dtype).itemsize for _, _, dtype in self.state_spec(inputs))
        return Cost(n_neurons=n, state_bytes=per_neuron * n)

    def state_spec(self, inputs: Sequence[ValueType]) -> StateSpec:
        """The membranes `v`, float32."""
        return (("v", inputs[0].shape, "float32"),)

    def run(
        self, inputs: Sequence[Array], state: tuple[Array, ...], clock: Clock
    ) -> tuple[Array, tuple[Array, ...]]:
        """Step by step over the window; see the module for the operations."""
        current = to_current(inputs[0], self.unit)
        spikes = np.empty(current.shape, np.uint8)
        flat = current.reshape(*current.shape[:2], math.prod(current.shape[2:]))
        fired = spikes.reshape(flat.shape)
        now = self.begun(tuple(a.reshape(len(a), flat.shape[2]) for a in state), clock.start)
        for t in range(flat.shape[1]):
            fired[:, t], now = self.advance(now, flat[:, t])
        return spikes, tuple(a.reshape(b.shape) for a, b in zip(now, state, strict=True))

    def granule(self, inputs: Sequence[ValueType]) -> int | None:
        """Neurons do not see each other: any slice is possible."""
        return 1

    def slice(self, inputs: Sequence[ValueType], lo: int, hi: int) -> Slice:
        """The same neurons for fewer values."""
        part = {name: array[lo:hi] for name, array in self.arrays().items()}
        kept = replace(self, **cast("dict[str, Any]", part)) if part else self
        return Slice(kept, ((lo, hi),))

    def _fires(self, h: Array, threshold: np.float32 | Array | None = None) -> Array:
        """Which of `h` reach the threshold (v_threshold by default), as `fire` says."""
        limit = float32_of(self.v_threshold) if threshold is None else threshold
        fires: Array = h >= limit if self.fire == ">=" else h > limit
        return fires


@dataclass(frozen=True, eq=False, kw_only=True)
class Resetting(Neuron):
    """A neuron whose membrane is reset. `v_reset` None is soft: the threshold is subtracted."""

    constants: ClassVar[tuple[str, ...]] = ("v_threshold", "v_reset")

    v_reset: Constant | None = None

    @property
    def initial(self) -> Constant:
        """The membrane before step 0."""
        return 0.0 if self.v_reset is None else self.v_reset

    @property
    def _rest(self) -> np.float32 | Array:
        """What a membrane decays to: v_reset, or 0 with a soft reset."""
        return float32_of(0.0 if self.v_reset is None else self.v_reset)

    def begun(self, state: tuple[Array, ...], start: Array) -> tuple[Array, ...]:
        """Membranes, the first of the states, start at `initial`."""
        return (self.started(state[0], start), *state[1:])

    def started(self, v: Array, start: Array) -> Array:
        """Membranes (B, ...) with those of streams that are at step 0 set to the initial value."""
        initial = float32_of(self.initial)
        if not np.any(initial):
            return v
        fresh = (start == 0).reshape(-1, *[1] * (v.ndim - 1))
        return np.where(fresh, initial, v)


def float32_of(value: Constant) -> np.float32 | Array:
    """A constant as it takes part in a step; (n,) arrays meet the last axis."""
    return value if isinstance(value, np.ndarray) else np.float32(value)


def shown(value: Any) -> str:
    """A constant in a message: of an array its extremes."""
    if isinstance(value, np.ndarray):
        return f"{value.min()} to {value.max()}"
    return str(value)


def reset_spikingjelly(
    h: Array, s: Array, v_threshold: Constant, v_reset: Constant | None
) -> Array:
    """The resets of SpikingJelly; `h` and `s` are float32."""
    v: Array
    if v_reset is None:
        v = h - s * float32_of(v_threshold)
    else:
        v = s * float32_of(v_reset) + (np.float32(1.0) - s) * h
    return v


def reset_norse(h: Array, s: Array, v_threshold: Constant, v_reset: Constant | None) -> Array:
    """The resets of Norse, `reset_subtract` and `reset_value`; `h` and `s` are float32."""
    kept = (np.float32(1.0) - s) * h
    v: Array
    if v_reset is None:
        v = kept + s * (h - float32_of(v_threshold))
    else:
        v = kept + s * float32_of(v_reset)
    return v


def reset_plain(h: Array, s: Array, v_threshold: Constant, v_reset: Constant | None) -> Array:
    """h - s * th, or v_reset where s and h elsewhere; `h` is float32, `s` bool."""
    if v_reset is None:
        return reset_spikingjelly(h, s.astype(np.float32), v_threshold, None)
    return np.where(s, float32_of(v_reset), h)


def rounded(name: str, value: Constant) -> Constant:
    """A constant in float32, -0.0 as 0.0. Raises StageError if it is not finite."""
    array = np.asarray(value, np.float64)
    if not (np.isfinite(array) & (np.abs(array) < 2.0**127)).all():
        raise StageError(f"{name} is {shown(value)}: it must be a finite number in float32.")
    if isinstance(value, np.ndarray):
        return np.ascontiguousarray(array.astype(np.float32).ravel() + np.float32(0.0))
    return float(np.float32(value)) + 0.0


def spread(name: str, array: Array, value: ValueType) -> Array:
    """One value per neuron, of one per neuron or per channel. Raises StageError."""
    if array.size == value.n:
        return array
    if array.size == value.shape[0]:
        return np.repeat(array, value.n // array.size)
    raise StageError(
        f"{name} has {array.size} values: legal are one, {value.shape[0]} (one per channel) or "
        f"{value.n} (one per neuron)."
    )


def constant(
    params: Mapping[str, Any],
    arrays: Mapping[str, Array],
    name: str,
    default: float | None = None,
) -> Constant:
    """A constant of a network file: an array of the weights, a number, or a list of numbers.

    Raises StageError for anything else, and where there is neither it nor a default.
    """
    if name in arrays:
        return arrays[name]
    value = params.get(name, default)
    if isinstance(value, list) and value and all(map(_is_number, value)):
        return np.array(value, np.float64)
    if not _is_number(value):
        raise StageError(f"{name} is {value!r}: it must be a number.")
    return float(cast(float, value))


def optional_constant(
    params: Mapping[str, Any], arrays: Mapping[str, Array], name: str
) -> Constant | None:
    """A constant that may be null, which is the default."""
    if name not in arrays and params.get(name) is None:
        return None
    return constant(params, arrays, name)


def flag(params: Mapping[str, Any], name: str, default: bool) -> bool:
    """A parameter that is true or false. Raises StageError."""
    value = params.get(name, default)
    if not isinstance(value, bool):
        raise StageError(f"{name} is {value!r}: it must be true or false.")
    return value


def refuse_unknown(kind: str, params: Iterable[str], known: Iterable[str]) -> None:
    """Raises StageError for parameters that a kind does not have."""
    unknown = sorted(set(params) - set(known))
    if unknown:
        raise StageError(
            f"{kind} has no parameter {', '.join(unknown)}: it has {', '.join(sorted(known))}."
        )


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)
