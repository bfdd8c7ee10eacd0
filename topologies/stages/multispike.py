"""Leaky integrate-and-fire neurons that may emit several spikes in a step (`multispike`).

One step, all in float32, each operation rounded, x being the current that arrives (stages/
dynamics.py) and i the synaptic current, as in `cubalif`:

    i = decay_syn * i + w_in * x
    h = v_leak + (decay * (v - v_leak) + r * i)
    n = min(max(floor(h / th), 0), max_spikes)              the spikes of the step
    v = h - n * th

th is v_threshold: a membrane that reaches n thresholds (>=) emits n spikes and loses n of them.
With decay_syn 0 there is no synaptic current, with decay 1 no leak. v and i start at 0.

Source: sinabs 2, `MultiSpike` (or `MaxSpike`) with `MembraneSubtract`; Weidel and Sheik,
WaveSense, 2021, arXiv:2111.01456.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Self

import numpy as np

from topologies.stages.base import NO_ARRAYS, Array, Stage, StageError, StateSpec, ValueType
from topologies.stages.dynamics import (
    Constant,
    Neuron,
    constant,
    float32_of,
    refuse_unknown,
    shown,
)

__all__ = ["STAGES", "MultiSpike"]

_MOST = 255  # spikes of a step are counted in a byte


@dataclass(frozen=True, eq=False, kw_only=True)
class MultiSpike(Neuron):
    """`decay` of the membrane and `decay_syn` of the current, per step; up to `max_spikes`."""

    kind: ClassVar[str] = "multispike"
    constants: ClassVar[tuple[str, ...]] = (
        *("v_threshold", "decay", "decay_syn", "w_in", "r", "v_leak"),
    )
    options: ClassVar[tuple[str, ...]] = ("fire", "max_spikes")
    takes: ClassVar[Mapping[str, int | None]] = dict.fromkeys(constants)

    decay: Constant
    max_spikes: int
    decay_syn: Constant = 0.0
    w_in: Constant = 1.0
    r: Constant = 1.0
    v_leak: Constant = 0.0

    def __post_init__(self) -> None:
        """Round to float32 and check. Raises StageError."""
        super().__post_init__()
        self.most({"max_spikes": self.max_spikes})
        for name in ("decay", "decay_syn"):
            value = np.asarray(getattr(self, name))
            if not ((value >= 0.0) & (value <= 1.0)).all():
                raise StageError(f"{name} is {shown(getattr(self, name))}: it must lie in 0 to 1.")

    @classmethod
    def authored(cls, params: Mapping[str, Any], arrays: Mapping[str, Array] = NO_ARRAYS) -> Self:
        """Parameters: max_spikes, decay (1), decay_syn (0), w_in (1), r (1), v_leak (0)."""
        refuse_unknown(cls.kind, [*params, *arrays], (*cls.constants, "max_spikes"))
        return cls(
            max_spikes=cls.most(params),
            decay=constant(params, arrays, "decay", 1.0),
            decay_syn=constant(params, arrays, "decay_syn", 0.0),
            w_in=constant(params, arrays, "w_in", 1.0),
            r=constant(params, arrays, "r", 1.0),
            v_leak=constant(params, arrays, "v_leak", 0.0),
            v_threshold=constant(params, arrays, "v_threshold", 1.0),
        )

    @classmethod
    def most(cls, params: Mapping[str, Any]) -> int:
        """`max_spikes`. Raises StageError."""
        most = params.get("max_spikes")
        if type(most) is not int or not 1 <= most <= _MOST:
            raise StageError(f"max_spikes is {most!r}: it must be a whole number, 1 to {_MOST}.")
        return most

    def out_type(self, inputs: Sequence[ValueType]) -> ValueType:
        """Numbers of spikes, of the shape of the only input."""
        return replace(super().out_type(inputs), high=self.max_spikes)

    def state_spec(self, inputs: Sequence[ValueType]) -> StateSpec:
        """The membranes `v` and the synaptic currents `i`, float32."""
        shape = inputs[0].shape
        return (("v", shape, "float32"), ("i", shape, "float32"))

    def advance(self, state: tuple[Array, ...], i: Array) -> tuple[Array, tuple[Array, ...]]:
        """One step; spikes are uint8."""
        v, current = state
        v_leak, threshold = float32_of(self.v_leak), float32_of(self.v_threshold)
        current = float32_of(self.decay_syn) * current + float32_of(self.w_in) * i
        h = v_leak + (float32_of(self.decay) * (v - v_leak) + float32_of(self.r) * current)
        n = np.clip(np.floor(h / threshold), np.float32(0.0), np.float32(self.max_spikes))
        return n.astype(np.uint8), (h - n * threshold, current)


STAGES: tuple[type[Stage], ...] = (MultiSpike,)
