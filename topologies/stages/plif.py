"""The parametric leaky integrate-and-fire neuron (`plif`), whose leak was learned.

One step, all in float32, each operation rounded; k is the reciprocal of tau, r is v_reset or 0 with
a soft reset, th is v_threshold:

    h = v + (i - (v - r)) * k           or, without decay_input,     h = (v - (v - r) * k) + i
    s = h >= th                         or h > th, by `fire`
    v = h - s * th                      soft;      v = s * r + (1 - s) * h    hard

It differs from the `lif` of SpikingJelly in that k multiplies where tau divides, which rounds
otherwise. k is what was learned, the sigmoid of a parameter, as float32: `tau_inv`. Membranes start
at r in the step with number 0.

Sources: Fang et al., Incorporating Learnable Membrane Time Constant to Enhance Learning of Spiking
Neural Networks, ICCV 2021, arXiv:2007.05785; spikingjelly 2.0.0 `ParametricLIFNode`.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Self, cast

import numpy as np

from topologies.stages.base import NO_ARRAYS, Array, Stage, StageError
from topologies.stages.dynamics import (
    Constant,
    Fire,
    constant,
    flag,
    float32_of,
    optional_constant,
    refuse_unknown,
    reset_spikingjelly,
    shown,
)
from topologies.stages.neuron import OneMembrane

__all__ = ["STAGES", "Plif"]


@dataclass(frozen=True, eq=False, kw_only=True)
class Plif(OneMembrane):
    """`tau_inv` is 1 / tau, in 0 to 1."""

    kind: ClassVar[str] = "plif"
    constants: ClassVar[tuple[str, ...]] = ("v_threshold", "v_reset", "tau_inv")
    options: ClassVar[tuple[str, ...]] = ("fire", "decay_input")
    takes: ClassVar[Mapping[str, int | None]] = dict.fromkeys(constants)

    tau_inv: Constant
    decay_input: bool = True

    def __post_init__(self) -> None:
        """Round to float32 and check. Raises StageError."""
        super().__post_init__()
        k = np.asarray(self.tau_inv)
        if not ((k >= 0.0) & (k <= 1.0)).all():
            raise StageError(f"tau_inv is {shown(self.tau_inv)}: it must lie in 0 to 1.")

    @classmethod
    def authored(cls, params: Mapping[str, Any], arrays: Mapping[str, Array] = NO_ARRAYS) -> Self:
        """Parameters: tau_inv, v_threshold (1), v_reset (null: soft), fire ('>='), decay_input."""
        refuse_unknown(cls.kind, params, (*cls.constants, *cls.options))
        return cls(
            tau_inv=constant(params, arrays, "tau_inv"),
            v_threshold=constant(params, arrays, "v_threshold", 1.0),
            v_reset=optional_constant(params, arrays, "v_reset"),
            fire=cast(Fire, params.get("fire", ">=")),
            decay_input=flag(params, "decay_input", True),
        )

    def step(self, v: Array, i: Array) -> tuple[Array, Array]:
        """One step of ParametricLIFNode."""
        k, r = float32_of(self.tau_inv), self._rest
        h: Array
        if self.decay_input:
            h = v + (i - (v - r)) * k
        else:
            h = (v - (v - r) * k) + i
        s = self._fires(h)
        return s, reset_spikingjelly(h, s.astype(np.float32), self.v_threshold, self.v_reset)


STAGES: tuple[type[Stage], ...] = (Plif,)
