"""Adaptive leaky integrate-and-fire neurons (`alif`): their thresholds rise when they fire.

One step, all in float32, each operation rounded, z being the spike of the step before; th is
v_threshold, the threshold of a neuron that has been silent for long:

    lsnn    v = (decay * v + i) - z * th
            a = rho * a + z
            s = v > th + beta * a

    yin     a = rho * a + (1 - rho) * z
            t = th + beta * a                               the current threshold
            v = (decay * v + ((1 - decay) * r) * i) - t * z
            s = v > t

In both the reset of a spike is subtracted one step later: by `lsnn` the silent neuron's threshold,
by `yin` the threshold of that later step. 1 - rho, 1 - decay and its product with r are float32.
`fire` is '>' in both publications' code.

With `refractory` R above 0, `lsnn` counts in w the steps in which a neuron must not fire yet:

    s = s and w = 0
    w = R where s, else max(w - 1, 0)                       whole numbers

so that R silent steps follow each spike. Only the spike is suppressed: v and a go on as above, and
a membrane that is still above its threshold fires when the time is over. The authors' code calls
R + 1 n_refractory: it counts the step of the spike.

Everything starts at 0.

Sources: Bellec et al., A solution to the learning dilemma for recurrent networks of spiking
neurons, 2020, doi:10.1038/s41467-020-17236-y, equations 6 to 8, and the refractory time of its
methods; Yin et al., Accurate and efficient time-domain classification with adaptive spiking
recurrent neural networks, 2021, doi:10.1038/s42256-021-00397-w, equations 3 to 6.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Literal, Self, TypeAlias, cast

import numpy as np

from topologies.stages.base import (
    NO_ARRAYS,
    Array,
    Json,
    Stage,
    StageError,
    StateSpec,
    ValueType,
)
from topologies.stages.dynamics import (
    Constant,
    Fire,
    Neuron,
    constant,
    float32_of,
    refuse_unknown,
    shown,
)

__all__ = ["ALIF_FORMS", "STAGES", "Alif", "AlifForm"]

AlifForm: TypeAlias = Literal["lsnn", "yin"]
ALIF_FORMS: tuple[AlifForm, ...] = ("lsnn", "yin")
_ONE = np.float32(1.0)
_LONGEST = 2**16 - 1  # steps of a refractory period, counted in 16 bits


@dataclass(frozen=True, eq=False, kw_only=True)
class Alif(Neuron):
    """`decay` of the membrane, `rho` of the adaptation, per step; `beta` is what a unit of it adds.

    `r` scales the input of the form yin. `refractory` is the number of silent steps that follow a
    spike of the form lsnn.
    """

    kind: ClassVar[str] = "alif"
    constants: ClassVar[tuple[str, ...]] = ("v_threshold", "decay", "rho", "beta", "r")
    options: ClassVar[tuple[str, ...]] = ("fire", "form")
    takes: ClassVar[Mapping[str, int | None]] = dict.fromkeys(constants)

    form: AlifForm
    decay: Constant
    rho: Constant
    beta: Constant
    r: Constant = 1.0
    refractory: int = 0

    def __post_init__(self) -> None:
        """Round to float32 and check. Raises StageError."""
        super().__post_init__()
        if self.form not in ALIF_FORMS:
            raise StageError(f"form is {self.form!r}: it must be one of {', '.join(ALIF_FORMS)}.")
        for name in ("decay", "rho"):
            value = getattr(self, name)
            if not ((np.asarray(value) >= 0.0) & (np.asarray(value) <= 1.0)).all():
                raise StageError(f"{name} is {shown(value)}: it must lie in 0 to 1.")
        if self.form == "lsnn" and np.any(np.asarray(self.r) != 1.0):
            raise StageError("r is a parameter of the form yin, not of lsnn.")
        self._check_refractory()

    def _check_refractory(self) -> None:
        if type(self.refractory) is not int or not 0 <= self.refractory <= _LONGEST:
            raise StageError(
                f"refractory is {self.refractory!r}: it must be a number of steps, 0 to {_LONGEST}."
            )
        if self.refractory and self.form != "lsnn":
            raise StageError("refractory is a parameter of the form lsnn, not of yin.")

    @classmethod
    def build(cls, params: Mapping[str, Any], arrays: Mapping[str, Array]) -> Self:
        """Read what `params` and `arrays` wrote."""
        return replace(super().build(params, arrays), refractory=params.get("refractory", 0))

    def params(self) -> dict[str, Json]:
        """As of all neurons; `refractory` only where there is one: hashes are older than it."""
        written = super().params()
        return {**written, "refractory": self.refractory} if self.refractory else written

    @classmethod
    def authored(cls, params: Mapping[str, Any], arrays: Mapping[str, Array] = NO_ARRAYS) -> Self:
        """Parameters: form ('lsnn'), decay, rho, beta, v_threshold (1), fire ('>'), r (1; yin),
        refractory (0; lsnn)."""
        refuse_unknown(cls.kind, params, (*cls.constants, *cls.options, "refractory"))
        return cls(
            form=cast(AlifForm, params.get("form", "lsnn")),
            decay=constant(params, arrays, "decay"),
            rho=constant(params, arrays, "rho"),
            beta=constant(params, arrays, "beta"),
            r=constant(params, arrays, "r", 1.0),
            v_threshold=constant(params, arrays, "v_threshold", 1.0),
            fire=cast(Fire, params.get("fire", ">")),
            refractory=params.get("refractory", 0),
        )

    def state_spec(self, inputs: Sequence[ValueType]) -> StateSpec:
        """Membranes `v` and adaptations `a`, float32; spikes of the step before `z`, uint8; with a
        refractory period the steps `w` that are left of it, uint16."""
        shape = inputs[0].shape
        spec = (("v", shape, "float32"), ("a", shape, "float32"), ("z", shape, "uint8"))
        return (*spec, ("w", shape, "uint16")) if self.refractory else spec

    def advance(self, state: tuple[Array, ...], i: Array) -> tuple[Array, tuple[Array, ...]]:
        """One step in the operations of `form`."""
        z = state[2].astype(np.float32)
        step = self._lsnn if self.form == "lsnn" else self._yin
        s, v, a = step(state[0], state[1], z, i)
        if not self.refractory:
            return s, (v, a, s.astype(np.uint8))
        w = state[3]
        s = s & (w == 0)
        left = np.where(s, np.uint16(self.refractory), w - (w > 0))
        return s, (v, a, s.astype(np.uint8), left)

    def _lsnn(self, v: Array, a: Array, z: Array, i: Array) -> tuple[Array, Array, Array]:
        threshold = float32_of(self.v_threshold)
        v = (float32_of(self.decay) * v + i) - z * threshold
        a = float32_of(self.rho) * a + z
        return self._fires(v, threshold + float32_of(self.beta) * a), v, a

    def _yin(self, v: Array, a: Array, z: Array, i: Array) -> tuple[Array, Array, Array]:
        decay, rho = float32_of(self.decay), float32_of(self.rho)
        a = rho * a + (_ONE - rho) * z
        threshold = float32_of(self.v_threshold) + float32_of(self.beta) * a
        v = (decay * v + ((_ONE - decay) * float32_of(self.r)) * i) - threshold * z
        return self._fires(v, threshold), v, a


STAGES: tuple[type[Stage], ...] = (Alif,)
