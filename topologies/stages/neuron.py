"""Spiking neurons: integrate-and-fire (`if`) and leaky integrate-and-fire (`lif`).

One step of one neuron, all in float32, each operation rounded, in this order:

    i                                                       the current: stages/dynamics.py
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

from abc import abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, Self, TypeAlias, cast

import numpy as np

from topologies.stages.base import NO_ARRAYS, Array, Stage, StageError
from topologies.stages.dynamics import (
    FIRES,
    Constant,
    Fire,
    Neuron,
    Resetting,
    constant,
    flag,
    float32_of,
    optional_constant,
    refuse_unknown,
    reset_norse,
    reset_plain,
    reset_spikingjelly,
    shown,
)

__all__ = ["FIRES", "FORMS", "STAGES", "Fire", "Form", "If", "Lif", "Neuron", "OneMembrane"]

Form: TypeAlias = Literal["spikingjelly", "snntorch", "norse", "plain"]
FORMS: tuple[Form, ...] = ("spikingjelly", "snntorch", "norse", "plain")
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
class OneMembrane(Resetting):
    """A neuron whose whole state is its membrane."""

    @abstractmethod
    def step(self, v: Array, i: Array) -> tuple[Array, Array]:
        """One step: membranes and currents float32 -> spikes bool and new membranes float32."""

    def advance(self, state: tuple[Array, ...], i: Array) -> tuple[Array, tuple[Array, ...]]:
        """`step`."""
        s, v = self.step(state[0], i)
        return s, (v,)


@dataclass(frozen=True, eq=False, kw_only=True)
class If(OneMembrane):
    """Integrate-and-fire without a leak, in SpikingJelly's order of operations."""

    kind: ClassVar[str] = "if"

    takes: ClassVar[Mapping[str, int | None]] = {"v_threshold": None, "v_reset": None}

    @classmethod
    def authored(cls, params: Mapping[str, Any], arrays: Mapping[str, Array] = NO_ARRAYS) -> Self:
        """Parameters: v_threshold (1), v_reset (null: soft), fire ('>=')."""
        refuse_unknown(cls.kind, params, ("v_threshold", "v_reset", "fire"))
        return cls(
            v_threshold=constant(params, arrays, "v_threshold", 1.0),
            v_reset=optional_constant(params, arrays, "v_reset"),
            fire=cast(Fire, params.get("fire", ">=")),
        )

    def step(self, v: Array, i: Array) -> tuple[Array, Array]:
        """One step of IFNode."""
        h = v + i
        s = self._fires(h)
        return s, reset_spikingjelly(h, s.astype(np.float32), self.v_threshold, self.v_reset)


@dataclass(frozen=True, eq=False, kw_only=True)
class Lif(OneMembrane):
    """Leaky integrate-and-fire. `leak` is tau (steps), beta, dt * tau_mem_inv or decay, by `form`.

    `decay_input` matters to spikingjelly, `v_leak` to norse, `reset_delayed` to snntorch.
    """

    kind: ClassVar[str] = "lif"
    constants: ClassVar[tuple[str, ...]] = ("v_threshold", "v_reset", "leak", "v_leak")
    options: ClassVar[tuple[str, ...]] = ("fire", "form", "decay_input", "reset_delayed")
    takes: ClassVar[Mapping[str, int | None]] = dict.fromkeys(
        ("v_threshold", "v_reset", "v_leak", "tau", "beta", "decay", "dt", "tau_mem_inv")
    )

    form: Form
    leak: Constant
    v_leak: Constant = 0.0
    decay_input: bool = False
    reset_delayed: bool = False

    def __post_init__(self) -> None:
        """Round to float32 and check. Raises StageError."""
        super().__post_init__()
        fault = self._fault()
        if fault:
            raise StageError(fault)

    def _fault(self) -> str:
        name = " * ".join(_LEAK_NAMES.get(self.form, ("leak",)))
        leak, v_leak = np.asarray(self.leak), np.asarray(self.v_leak)
        if self.form not in FORMS:
            return f"form is {self.form!r}: it must be one of {', '.join(FORMS)}."
        if self.form == "spikingjelly" and not (leak > 1.0).all():
            return f"tau is {shown(self.leak)}: it must be above 1 step."
        if self.form != "spikingjelly" and not ((leak >= 0.0) & (leak <= 1.0)).all():
            return f"{name} is {shown(self.leak)}: it must lie in 0 to 1."
        if self.form != "spikingjelly" and self.decay_input:
            return f"decay_input is a parameter of the form spikingjelly, not of {self.form}."
        if self.form != "norse" and v_leak.any():
            return f"v_leak is a parameter of the form norse, not of {self.form}."
        if self.form != "snntorch" and self.reset_delayed:
            return f"reset_delayed is a parameter of the form snntorch, not of {self.form}."
        if self.form == "snntorch" and self.fire != ">":
            return "The form snntorch compares with '>', in the reset too: fire must be '>'."
        if self.form == "snntorch" and self.v_reset is not None and np.any(self.v_reset):
            shown_reset = shown(self.v_reset)
            return f"v_reset is {shown_reset}: the form snntorch resets to 0 or softly (null)."
        return ""

    @classmethod
    def authored(cls, params: Mapping[str, Any], arrays: Mapping[str, Array] = NO_ARRAYS) -> Self:
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
        known |= {extra.get(form, "form")}
        refuse_unknown(f"lif (form {form})", [*params, *arrays], known)
        return cls(
            form=form,
            leak=_authored_leak(form, params, arrays),
            v_threshold=constant(params, arrays, "v_threshold", 1.0),
            v_reset=optional_constant(params, arrays, "v_reset"),
            v_leak=constant(params, arrays, "v_leak", 0.0),
            fire=cast(Fire, params.get("fire", _USUAL_FIRE[form])),
            decay_input=flag(params, "decay_input", form == "spikingjelly"),
            reset_delayed=flag(params, "reset_delayed", form == "snntorch"),
        )

    @property
    def initial(self) -> Constant:
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
        leak, v_leak, r = float32_of(self.leak), float32_of(self.v_leak), self._rest
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
        if self.form == "plain":
            return reset_plain(h, s, self.v_threshold, self.v_reset)
        reset = reset_norse if self.form == "norse" else reset_spikingjelly
        return reset(h, s.astype(np.float32), self.v_threshold, self.v_reset)

    def _step_snntorch(self, v: Array, i: Array) -> tuple[Array, Array]:
        beta, threshold = float32_of(self.leak), float32_of(self.v_threshold)
        one = np.float32(1.0)
        soft = self.v_reset is None
        q = (v > threshold).astype(np.float32)
        h = (beta * v + i) - q * threshold if soft else beta * ((one - q) * v) + i
        s = h > threshold
        if self.reset_delayed:
            return s, h
        d = s.astype(np.float32) - q
        return s, h - d * (threshold if soft else h)


def _authored_leak(form: Form, params: Mapping[str, Any], arrays: Mapping[str, Array]) -> Constant:
    names = _LEAK_NAMES[form]
    values = [constant(params, arrays, name, _NORSE_DEFAULTS.get(name)) for name in names]
    if form != "norse":
        return values[0]
    # Norse multiplies a float32 tensor by a Python number: both factors are float32.
    product = np.asarray(values[0], np.float32) * np.asarray(values[1], np.float32)
    return product if product.ndim else float(product)


STAGES: tuple[type[Stage], ...] = (If, Lif)
