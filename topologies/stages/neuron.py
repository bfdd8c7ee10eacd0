"""Spiking neurons: integrate-and-fire (`if`) and leaky integrate-and-fire (`lif`).

One step of one neuron, all in float32, each operation rounded, in this order:

    i = float32(sum * 2**-unit) + 0.0                       the current, rounded once
    h = charge(v, i)                                        by `form`, below
    s = h >= v_threshold   or   h > v_threshold             by `fire`
    v = reset(h, s)                                         by `form` and `v_reset`

`form` names whose operations are followed, bit for bit (docs/numerics.md, rule 8); the resets agree
but for the sign of a zero. r is v_reset, or 0 with a soft reset; th is v_threshold:

    form          charge, if             charge, lif                    soft reset, hard reset
    spikingjelly  v + i                  v + (i - (v - r)) / tau        h - s * th
                                         or, without decay_input,       s * r + (1 - s) * h
                                         (v - (v - r) / tau) + i
    norse         -                      v + k * ((i + v_leak) - v)     (1 - s) * h + s * (h - th)
                                         k = dt * tau_mem_inv           (1 - s) * h + s * r
    plain         -                      decay * v + i                  h - s * th
                                                                        r where s, else h
    snntorch      -                      v is reset first, see below    -

snnTorch's Leaky resets at the start of a step, by the membrane that the last step left:

    q = v > th                                              always strict
    soft:   h = (beta * v + i) - q * th
    hard:   h = beta * ((1 - q) * v) + i                    to 0
    s = h > th
    reset_delayed:  v = h
    else:           d = s - q                               -1, 0 or 1
                    soft:   v = h - d * th                  hard:  v = h - d * h

Membranes start at r, or at v_leak for norse, in the step with number 0.

Sources: spikingjelly 2.0.0 `LIFNode`, `IFNode`; snntorch 1.0.0 `Leaky`; norse 1.1.0 `LIFBoxCell`.
"""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Mapping, Sequence
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
    ValueType,
    float32_from_bits,
    float32_to_bits,
    to_current,
)

__all__ = ["FIRES", "FORMS", "STAGES", "Fire", "Form", "If", "Lif", "Neuron"]

Form: TypeAlias = Literal["spikingjelly", "snntorch", "norse", "plain"]
Fire: TypeAlias = Literal[">=", ">"]
FORMS: tuple[Form, ...] = ("spikingjelly", "snntorch", "norse", "plain")
FIRES: tuple[Fire, ...] = (">=", ">")
# What a network file calls the leak of each form, and how its libraries compare.
_LEAK_NAMES: Mapping[Form, tuple[str, ...]] = {
    "spikingjelly": ("tau",),
    "snntorch": ("beta",),
    "norse": ("dt", "tau_mem_inv"),
    "plain": ("decay",),
}
_USUAL_FIRE: Mapping[Form, Fire] = {
    "spikingjelly": ">=",
    "snntorch": ">",
    "norse": ">",
    "plain": ">=",
}
_NORSE_DEFAULTS = {"dt": 0.001, "tau_mem_inv": 100.0}


@dataclass(frozen=True, eq=False, kw_only=True)
class Neuron(Stage):
    """Parameters that all neurons share. Floats are rounded to float32 when they come in.

    `v_threshold`, `v_reset` are in units of the membrane; `v_reset` None is the soft reset, which
    subtracts the threshold. `unit` is that of the sums that are read: `reading` sets it.
    """

    role: ClassVar[Role] = "neuron"

    v_threshold: float = 1.0
    v_reset: float | None = None
    fire: Fire = ">="
    unit: int = 0

    def __post_init__(self) -> None:
        """Round to float32 and check. Raises StageError."""
        _round(self, "v_threshold", "v_reset")
        if not self.v_threshold > 0:
            raise StageError(f"v_threshold is {self.v_threshold}: it must be above 0.")
        if self.fire not in FIRES:
            raise StageError(f"fire is {self.fire!r}: it must be '>=' or '>'.")

    @property
    def initial(self) -> float:
        """The membrane before step 0."""
        return 0.0 if self.v_reset is None else self.v_reset

    def reading(self, value: ValueType) -> Self:
        """This neuron, reading sums in the unit of `value`."""
        return replace(self, unit=value.unit)

    @abstractmethod
    def step(self, v: Array, i: Array) -> tuple[Array, Array]:
        """One step: membranes and currents float32 -> spikes bool and new membranes float32."""

    def out_type(self, inputs: Sequence[ValueType]) -> ValueType:
        """Spikes, of the shape of the only input."""
        if len(inputs) != 1:
            raise StageError(f"A neuron reads one input, not {len(inputs)}: add them first.")
        if inputs[0].unit != self.unit:
            raise StageError(
                f"A neuron that reads units of 2**-{self.unit} is given 2**-{inputs[0].unit}."
            )
        return ValueType(inputs[0].shape, 0, 1)

    def cost(self, inputs: Sequence[ValueType]) -> Cost:
        """One neuron and one membrane per value."""
        return Cost(n_neurons=inputs[0].n, state_bytes=4 * inputs[0].n)

    def state_spec(self, inputs: Sequence[ValueType]) -> StateSpec:
        """The membranes `v`, float32."""
        return (("v", inputs[0].shape, "float32"),)

    def started(self, v: Array, start: Array) -> Array:
        """Membranes (B, ...) with those of streams that are at step 0 set to the initial value."""
        if self.initial == 0.0:
            return v
        fresh = (start == 0).reshape(-1, *[1] * (v.ndim - 1))
        return np.where(fresh, np.float32(self.initial), v)

    def run(
        self, inputs: Sequence[Array], state: tuple[Array, ...], clock: Clock
    ) -> tuple[Array, tuple[Array, ...]]:
        """Step by step over the window; see the module for the operations."""
        current = to_current(inputs[0], self.unit)
        spikes = np.empty(current.shape, np.uint8)
        v = self.started(state[0], clock.start)
        for t in range(current.shape[1]):
            spikes[:, t], v = self.step(v, current[:, t])
        return spikes, (v,)

    def granule(self, inputs: Sequence[ValueType]) -> int | None:
        """Neurons do not see each other: any slice is possible."""
        return 1

    def slice(self, inputs: Sequence[ValueType], lo: int, hi: int) -> Slice:
        """The same neuron for fewer values."""
        return Slice(self, ((lo, hi),))

    def _fires(self, h: Array) -> Array:
        threshold = np.float32(self.v_threshold)
        fires: Array = h >= threshold if self.fire == ">=" else h > threshold
        return fires


@dataclass(frozen=True, eq=False, kw_only=True)
class If(Neuron):
    """Integrate-and-fire without a leak, in SpikingJelly's order of operations."""

    kind: ClassVar[str] = "if"

    @classmethod
    def authored(cls, params: Mapping[str, Any]) -> Self:
        """Parameters: v_threshold (1), v_reset (null: soft), fire ('>=')."""
        _refuse_unknown(cls.kind, params, {"v_threshold", "v_reset", "fire"})
        return cls(
            v_threshold=_number(params, "v_threshold", 1.0),
            v_reset=_optional_number(params, "v_reset"),
            fire=cast(Fire, params.get("fire", ">=")),
        )

    @classmethod
    def build(cls, params: Mapping[str, Any], arrays: Mapping[str, Array]) -> Self:
        """Read what `params` wrote."""
        return cls(**_shared_params(params))

    def params(self) -> dict[str, Json]:
        """Floats as bits."""
        return _write_shared(self)

    def step(self, v: Array, i: Array) -> tuple[Array, Array]:
        """One step of IFNode."""
        h = v + i
        s = self._fires(h)
        return s, _reset_spikingjelly(h, s.astype(np.float32), self.v_threshold, self.v_reset)


@dataclass(frozen=True, eq=False, kw_only=True)
class Lif(Neuron):
    """Leaky integrate-and-fire. `leak` is tau (steps), beta, dt * tau_mem_inv or decay, by `form`.

    `decay_input` matters to spikingjelly, `v_leak` to norse, `reset_delayed` to snntorch.
    """

    kind: ClassVar[str] = "lif"

    form: Form
    leak: float
    v_leak: float = 0.0
    decay_input: bool = False
    reset_delayed: bool = False

    def __post_init__(self) -> None:
        """Round to float32 and check. Raises StageError."""
        super().__post_init__()
        _round(self, "leak", "v_leak")
        fault = self._fault()
        if fault:
            raise StageError(fault)

    def _fault(self) -> str:
        name = " * ".join(_LEAK_NAMES.get(self.form, ("leak",)))
        if self.form not in FORMS:
            return f"form is {self.form!r}: it must be one of {', '.join(FORMS)}."
        if self.form == "spikingjelly" and not self.leak > 1.0:
            return f"tau is {self.leak}: it must be above 1 step."
        if self.form != "spikingjelly" and not 0.0 <= self.leak <= 1.0:
            return f"{name} is {self.leak}: it must lie in 0 to 1."
        if self.form != "spikingjelly" and self.decay_input:
            return f"decay_input is a parameter of the form spikingjelly, not of {self.form}."
        if self.form != "norse" and self.v_leak != 0.0:
            return f"v_leak is a parameter of the form norse, not of {self.form}."
        if self.form != "snntorch" and self.reset_delayed:
            return f"reset_delayed is a parameter of the form snntorch, not of {self.form}."
        if self.form == "snntorch" and self.fire != ">":
            return "The form snntorch compares with '>', in the reset too: fire must be '>'."
        if self.form == "snntorch" and self.v_reset not in (None, 0.0):
            return f"v_reset is {self.v_reset}: the form snntorch resets to 0 or softly (null)."
        return ""

    @classmethod
    def authored(cls, params: Mapping[str, Any]) -> Self:
        """Parameters: form ('spikingjelly'), its leak, v_threshold (1), v_reset (null: soft), fire.

        The leak is `tau` (spikingjelly), `beta` (snntorch), `decay` (plain), or `dt` (0.001) and
        `tau_mem_inv` (100) (norse). Others: decay_input (true; spikingjelly), v_leak (0; norse),
        reset_delayed (true; snntorch). `fire` defaults to what the library does.
        """
        form = cast(Form, params.get("form", "spikingjelly"))
        if form not in FORMS:
            raise StageError(f"form is {form!r}: it must be one of {', '.join(FORMS)}.")
        extra = {"spikingjelly": "decay_input", "snntorch": "reset_delayed", "norse": "v_leak"}
        known = {"form", "v_threshold", "v_reset", "fire", *_LEAK_NAMES[form]}
        _refuse_unknown(f"lif (form {form})", params, known | {extra.get(form, "form")})
        return cls(
            form=form,
            leak=_authored_leak(form, params),
            v_threshold=_number(params, "v_threshold", 1.0),
            v_reset=_optional_number(params, "v_reset"),
            v_leak=_number(params, "v_leak", 0.0),
            fire=cast(Fire, params.get("fire", _USUAL_FIRE[form])),
            decay_input=_flag(params, "decay_input", form == "spikingjelly"),
            reset_delayed=_flag(params, "reset_delayed", form == "snntorch"),
        )

    @classmethod
    def build(cls, params: Mapping[str, Any], arrays: Mapping[str, Array]) -> Self:
        """Read what `params` wrote."""
        return cls(
            **_shared_params(params),
            form=params["form"],
            leak=float(float32_from_bits(params["leak"])),
            v_leak=float(float32_from_bits(params["v_leak"])),
            decay_input=params["decay_input"],
            reset_delayed=params["reset_delayed"],
        )

    def params(self) -> dict[str, Json]:
        """Floats as bits."""
        return {
            **_write_shared(self),
            "form": self.form,
            "leak": float32_to_bits(self.leak),
            "v_leak": float32_to_bits(self.v_leak),
            "decay_input": self.decay_input,
            "reset_delayed": self.reset_delayed,
        }

    @property
    def initial(self) -> float:
        """The membrane before step 0: norse starts at v_leak, the others at v_reset or 0."""
        return self.v_leak if self.form == "norse" else super().initial

    def step(self, v: Array, i: Array) -> tuple[Array, Array]:
        """One step in the operations of `form`."""
        if self.form == "snntorch":
            return self._step_snntorch(v, i)
        h = self._charge(v, i)
        s = self._fires(h)
        return s, self._reset(h, s)

    def _charge(self, v: Array, i: Array) -> Array:
        leak, v_leak = np.float32(self.leak), np.float32(self.v_leak)
        r = np.float32(0.0 if self.v_reset is None else self.v_reset)
        h: Array
        if self.form == "plain":
            h = leak * v + i
        elif self.form == "norse":
            h = v + leak * ((i + v_leak) - v)
        elif self.decay_input:
            h = v + (i - (v - r)) / leak
        else:
            h = (v - (v - r) / leak) + i
        return h

    def _reset(self, h: Array, s: Array) -> Array:
        spikes = s.astype(np.float32)
        if self.form == "norse":
            return _reset_norse(h, spikes, self.v_threshold, self.v_reset)
        if self.form == "plain" and self.v_reset is not None:
            return np.where(s, np.float32(self.v_reset), h)
        return _reset_spikingjelly(h, spikes, self.v_threshold, self.v_reset)

    def _step_snntorch(self, v: Array, i: Array) -> tuple[Array, Array]:
        beta, threshold, one = np.float32(self.leak), np.float32(self.v_threshold), np.float32(1.0)
        soft = self.v_reset is None
        q = (v > threshold).astype(np.float32)
        h = (beta * v + i) - q * threshold if soft else beta * ((one - q) * v) + i
        s = h > threshold
        if self.reset_delayed:
            return s, h
        d = s.astype(np.float32) - q
        return s, h - d * (threshold if soft else h)


def _reset_spikingjelly(h: Array, s: Array, v_threshold: float, v_reset: float | None) -> Array:
    """The resets of SpikingJelly; `h` and `s` are float32."""
    v: Array
    if v_reset is None:
        v = h - s * np.float32(v_threshold)
    else:
        v = s * np.float32(v_reset) + (np.float32(1.0) - s) * h
    return v


def _reset_norse(h: Array, s: Array, v_threshold: float, v_reset: float | None) -> Array:
    """The resets of Norse, `reset_subtract` and `reset_value`; `h` and `s` are float32."""
    kept = (np.float32(1.0) - s) * h
    v: Array
    if v_reset is None:
        v = kept + s * (h - np.float32(v_threshold))
    else:
        v = kept + s * np.float32(v_reset)
    return v


def _round(stage: Stage, *names: str) -> None:
    """Round fields of a frozen stage to float32, -0.0 to 0.0. Raises StageError if not finite."""
    for name in names:
        value = getattr(stage, name)
        if value is None:
            continue
        rounded = float(np.float32(value)) + 0.0 if abs(value) < 2.0**127 else math.nan
        if not math.isfinite(rounded):
            raise StageError(f"{name} is {value}: it must be a finite number in float32.")
        object.__setattr__(stage, name, rounded)


def _authored_leak(form: Form, params: Mapping[str, Any]) -> float:
    names = _LEAK_NAMES[form]
    values = [_number(params, name, _NORSE_DEFAULTS.get(name)) for name in names]
    if form == "norse":
        # Norse multiplies a float32 tensor by a Python number: both factors are float32.
        return float(np.float32(values[0]) * np.float32(values[1]))
    return values[0]


def _refuse_unknown(kind: str, params: Mapping[str, Any], known: set[str]) -> None:
    unknown = sorted(set(params) - known)
    if unknown:
        raise StageError(
            f"{kind} has no parameter {', '.join(unknown)}: it has {', '.join(sorted(known))}."
        )


def _number(params: Mapping[str, Any], name: str, default: float | None) -> float:
    value = params.get(name, default)
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise StageError(f"{name} is {value!r}: it must be a number.")
    return float(value)


def _optional_number(params: Mapping[str, Any], name: str) -> float | None:
    return None if params.get(name) is None else _number(params, name, None)


def _flag(params: Mapping[str, Any], name: str, default: bool) -> bool:
    value = params.get(name, default)
    if not isinstance(value, bool):
        raise StageError(f"{name} is {value!r}: it must be true or false.")
    return value


def _shared_params(params: Mapping[str, Any]) -> dict[str, Any]:
    v_reset = params["v_reset"]
    return {
        "v_threshold": float(float32_from_bits(params["v_threshold"])),
        "v_reset": None if v_reset is None else float(float32_from_bits(v_reset)),
        "fire": params["fire"],
        "unit": params["unit"],
    }


def _write_shared(stage: Neuron) -> dict[str, Json]:
    return {
        "v_threshold": float32_to_bits(stage.v_threshold),
        "v_reset": None if stage.v_reset is None else float32_to_bits(stage.v_reset),
        "fire": stage.fire,
        "unit": stage.unit,
    }


STAGES: tuple[type[Stage], ...] = (If, Lif)
