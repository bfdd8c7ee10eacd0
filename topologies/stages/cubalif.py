"""The leaky integrate-and-fire neuron with synaptic currents that decay (`cubalif`).

One step, all in float32, each operation rounded, x being the current that arrives (stages/
dynamics.py) and i the synaptic current. `form` names whose operations are followed, bit for bit; r
is the resistance, th is v_threshold:

    plain       i = decay_syn * i + w_in * x
                h = v_leak + (decay * (v - v_leak) + r * i)
                s = h >= th;  v = h - s * th  soft;  v_reset where s, else h  hard

    norse       j = i + x
                h = v + k * ((v_leak - v) + j)              k = dt * tau_mem_inv
                i = j + (-c) * j                            c = dt * tau_syn_inv
                s = h > th;  v = (1 - s) * h + s * (h - th) soft;  (1 - s) * h + s * v_reset  hard

    snntorch    q = v > th                                  the reset that the last step left
                i = alpha * i + x
                h = (beta * v + i) - q * th     soft;  h = u - u * q, u = beta * v + i    to 0
                s = h > th;  v = h if reset_delayed, else h - (s - q) * th  or  h - (s - q) * h

`plain` is the equation of NIR's CubaLIF, tau_syn di/dt = -i + w_in x and tau_mem dv/dt = (v_leak -
v) + r i, for any integrator: Euler's has decay = 1 - dt / tau, and the factor dt / tau in w_in, r.

v starts at v_reset (or 0), for norse at v_leak, in the step with number 0; i starts at 0.

Sources: norse 1.1.0 `LIFCell`; snntorch 1.0.0 `Synaptic`; Pedersen et al., Neuromorphic
intermediate representation, 2024, doi:10.1038/s41467-024-52259-9.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, Self, TypeAlias, cast

import numpy as np

from topologies.stages.base import (
    NO_ARRAYS,
    Array,
    Stage,
    StageError,
    StateSpec,
    ValueType,
)
from topologies.stages.dynamics import (
    Constant,
    Fire,
    Resetting,
    constant,
    flag,
    float32_of,
    optional_constant,
    refuse_unknown,
    reset_norse,
    reset_plain,
    shown,
)

__all__ = ["STAGES", "CubaForm", "CubaLif"]

CubaForm: TypeAlias = Literal["plain", "norse", "snntorch"]
# By form: what a network file calls the leaks of membrane and synapse, what else it may say.
_LEAKS: Mapping[CubaForm, tuple[tuple[str, ...], tuple[str, ...]]] = {
    "plain": (("decay",), ("decay_syn",)),
    "norse": (("dt", "tau_mem_inv"), ("dt", "tau_syn_inv")),
    "snntorch": (("beta",), ("alpha",)),
}
_EXTRA: Mapping[CubaForm, tuple[str, ...]] = {
    "plain": ("w_in", "r", "v_leak"),
    "norse": ("v_leak",),
    "snntorch": ("reset_delayed",),
}
_USUAL_FIRE: Mapping[CubaForm, Fire] = {"plain": ">=", "norse": ">", "snntorch": ">"}
_NORSE_DEFAULTS = {"dt": 0.001, "tau_mem_inv": 100.0, "tau_syn_inv": 200.0}


@dataclass(frozen=True, eq=False, kw_only=True)
class CubaLif(Resetting):
    """`leak` is decay, dt * tau_mem_inv or beta; `leak_syn` its twin for the synaptic current."""

    kind: ClassVar[str] = "cubalif"
    constants: ClassVar[tuple[str, ...]] = (
        *("v_threshold", "v_reset", "leak", "leak_syn", "w_in", "r", "v_leak"),
    )
    options: ClassVar[tuple[str, ...]] = ("fire", "form", "reset_delayed")
    takes: ClassVar[Mapping[str, int | None]] = dict.fromkeys(
        name
        for names in (("v_threshold", "v_reset"), *_EXTRA.values(), *sum(_LEAKS.values(), ()))
        for name in names
        if name != "reset_delayed"
    )

    form: CubaForm
    leak: Constant
    leak_syn: Constant
    w_in: Constant = 1.0
    r: Constant = 1.0
    v_leak: Constant = 0.0
    reset_delayed: bool = False

    def __post_init__(self) -> None:
        """Round to float32 and check. Raises StageError."""
        super().__post_init__()
        if self.form not in _LEAKS:
            raise StageError(f"form is {self.form!r}: it must be one of {', '.join(_LEAKS)}.")
        for names, value in zip(_LEAKS[self.form], (self.leak, self.leak_syn), strict=True):
            if not ((np.asarray(value) >= 0.0) & (np.asarray(value) <= 1.0)).all():
                raise StageError(f"{' * '.join(names)} is {shown(value)}: it must lie in 0 to 1.")
        hard = self.v_reset is not None and np.any(self.v_reset)
        if self.form == "snntorch" and (self.fire != ">" or hard):
            raise StageError(
                f"The form snntorch compares with '>' and resets to 0 or softly (null), not with "
                f"{self.fire!r} and v_reset {shown(self.v_reset)}."
            )

    @classmethod
    def authored(cls, params: Mapping[str, Any], arrays: Mapping[str, Array] = NO_ARRAYS) -> Self:
        """Parameters: form ('plain') and what it has, v_threshold (1), v_reset (null: soft), fire.

        plain: decay, decay_syn, w_in (1), r (1), v_leak (0). norse: dt (0.001), tau_mem_inv (100),
        tau_syn_inv (200), v_leak (0). snntorch: alpha, beta, reset_delayed (true).
        """
        form = cast(CubaForm, params.get("form", "plain"))
        if form not in _LEAKS:
            raise StageError(f"form is {form!r}: it must be one of {', '.join(_LEAKS)}.")
        mem, syn = _LEAKS[form]
        known = {"form", "v_threshold", "v_reset", "fire", *mem, *syn, *_EXTRA[form]}
        refuse_unknown(f"cubalif (form {form})", [*params, *arrays], known)
        return cls(
            form=form,
            leak=_product(params, arrays, mem),
            leak_syn=_product(params, arrays, syn),
            w_in=constant(params, arrays, "w_in", 1.0),
            r=constant(params, arrays, "r", 1.0),
            v_leak=constant(params, arrays, "v_leak", 0.0),
            v_threshold=constant(params, arrays, "v_threshold", 1.0),
            v_reset=optional_constant(params, arrays, "v_reset"),
            fire=cast(Fire, params.get("fire", _USUAL_FIRE[form])),
            reset_delayed=flag(params, "reset_delayed", form == "snntorch"),
        )

    @property
    def initial(self) -> Constant:
        """The membrane before step 0."""
        return self.v_leak if self.form == "norse" else super().initial

    def state_spec(self, inputs: Sequence[ValueType]) -> StateSpec:
        """The membranes `v` and the synaptic currents `i`, float32."""
        shape = inputs[0].shape
        return (("v", shape, "float32"), ("i", shape, "float32"))

    def advance(self, state: tuple[Array, ...], i: Array) -> tuple[Array, tuple[Array, ...]]:
        """One step in the operations of `form`."""
        steps = {"plain": self._plain, "norse": self._norse, "snntorch": self._snntorch}
        s, v, current = steps[self.form](state[0], state[1], i)
        return s, (v, current)

    def _plain(self, v: Array, i: Array, x: Array) -> tuple[Array, Array, Array]:
        v_leak = float32_of(self.v_leak)
        i = float32_of(self.leak_syn) * i + float32_of(self.w_in) * x
        h = v_leak + (float32_of(self.leak) * (v - v_leak) + float32_of(self.r) * i)
        s = self._fires(h)
        return s, reset_plain(h, s, self.v_threshold, self.v_reset), i

    def _norse(self, v: Array, i: Array, x: Array) -> tuple[Array, Array, Array]:
        j = i + x
        h = v + float32_of(self.leak) * ((float32_of(self.v_leak) - v) + j)
        s = self._fires(h)
        v = reset_norse(h, s.astype(np.float32), self.v_threshold, self.v_reset)
        return s, v, j + (-float32_of(self.leak_syn)) * j

    def _snntorch(self, v: Array, i: Array, x: Array) -> tuple[Array, Array, Array]:
        threshold, soft = float32_of(self.v_threshold), self.v_reset is None
        q = (v > threshold).astype(np.float32)
        i = float32_of(self.leak_syn) * i + x
        u = float32_of(self.leak) * v + i
        h = u - q * threshold if soft else u - u * q
        s = h > threshold
        if self.reset_delayed:
            return s, h, i
        d = s.astype(np.float32) - q
        return s, h - d * (threshold if soft else h), i


def _product(
    params: Mapping[str, Any], arrays: Mapping[str, Array], names: tuple[str, ...]
) -> Constant:
    """The product of constants, each in float32, as Norse multiplies them."""
    values = [constant(params, arrays, name, _NORSE_DEFAULTS.get(name)) for name in names]
    if len(values) == 1:
        return values[0]
    product = np.asarray(values[0], np.float32) * np.asarray(values[1], np.float32)
    return product if product.ndim else float(product)


STAGES: tuple[type[Stage], ...] = (CubaLif,)
