"""What a NIR file leaves open: how time is cut into steps, and what happens at a spike."""

from dataclasses import dataclass
from decimal import Decimal
from typing import Literal, TypeAlias, get_args

import numpy as np

from topologies.importers.nir_graph import Node
from topologies.model import Fault, FloatArray, NetworkError

__all__ = ["Fire", "Integrator", "NirOptions", "Reset"]

Integrator: TypeAlias = Literal["euler", "exp"]
Reset: TypeAlias = Literal["file", "zero", "subtract", "snntorch", "snntorch-zero"]
Fire: TypeAlias = Literal[">", ">="]
_MOST_SPIKES = 255


@dataclass(frozen=True, slots=True)
class NirOptions:
    """How a NIR graph is stepped.

    dt              seconds per step; needed where the graph has time constants or delays.
    integrator      of tau dv/dt = (v_leak - v) + r I, with g = dt / tau:
                    euler  v = v + g * ((v_leak - v) + r I)
                    exp    v = v_leak + exp(-g) * (v - v_leak) + g * r I: the leak is exact, and
                           what a spike brings is what Euler's step brings (as in sinabs)
    reset           file: to v_reset; zero: to 0; subtract: the threshold is subtracted;
                    snntorch: it is subtracted one step later, as `Leaky` does by default;
                    snntorch-zero: what snnTorch's own import makes of every file
    fire            how v is compared with v_threshold
    recurrent_bias  whether the bias of a recurrent connection acts in step 0, before any spike
    max_spikes      of a neuron in one step; above 1 only with the reset subtract
    if_per_step     an IF node's r is its charge per step, not per second: what Norse and sinabs
                    write
    """

    dt: float | None = None
    integrator: Integrator = "euler"
    reset: Reset = "file"
    fire: Fire = ">"
    recurrent_bias: bool = True
    max_spikes: int = 1
    if_per_step: bool = False

    def __post_init__(self) -> None:
        """Check. Raises NetworkError."""
        faults = list(self._faults())
        if faults:
            raise NetworkError(faults)

    def _faults(self) -> list[Fault]:
        faults = []
        if self.dt is not None and not (np.isfinite(self.dt) and self.dt > 0):
            faults.append(Fault("dt", f"{self.dt} seconds: legal is a number above 0."))
        for name, legal in (("integrator", Integrator), ("reset", Reset), ("fire", Fire)):
            if getattr(self, name) not in get_args(legal):
                known = ", ".join(get_args(legal))
                faults.append(Fault(name, f"{getattr(self, name)!r}: legal are {known}."))
        if not 1 <= self.max_spikes <= _MOST_SPIKES:
            faults.append(Fault("max_spikes", f"{self.max_spikes}: legal is 1 to {_MOST_SPIKES}."))
        if self.max_spikes > 1 and self.reset != "subtract":
            text = f"{self.max_spikes} needs reset subtract, not {self.reset}: legal is 1."
            faults.append(Fault("max_spikes", text))
        if self.reset.startswith("snntorch") and self.fire != ">":
            faults.append(Fault("fire", f"{self.fire!r}: snnTorch compares with '>' only."))
        return faults

    @property
    def like_snntorch(self) -> bool:
        """Whether neurons follow snnTorch's order of operations."""
        return self.reset.startswith("snntorch")

    def seconds(self, node: Node) -> float:
        """dt. Raises NetworkError, naming the node that needs it."""
        if self.dt is None:
            raise NetworkError(
                [
                    Fault(
                        node.path,
                        f"a {node.kind} has times in seconds, and the file does not hold dt: say "
                        "how long a step is (--dt; 1e-4 for what snnTorch and SpikingJelly write, "
                        "1e-3 for Norse).",
                    )
                ]
            )
        return self.dt

    def charge(self, node: Node, name: str) -> tuple[FloatArray, FloatArray]:
        """(decay, g = dt / tau) of the time constant `name`, float64. Raises NetworkError."""
        tau, dt = node.array(name), self.seconds(node)
        if (tau <= 0).any():
            raise NetworkError([Fault(node.path, f"{name} is {tau.min()}: legal is above 0.")])
        g = dt / tau
        if self.integrator == "exp":
            return _exp(-g), g
        if (g > 1 + 1e-9).any():
            raise NetworkError(
                [
                    Fault(
                        node.path,
                        f"{name} is {tau.min()} s, less than a step of {dt} s, for which Euler's "
                        "method overshoots: take a smaller dt, or the integrator exp.",
                    )
                ]
            )
        return np.maximum(1.0 - g, 0.0), g

    def v_reset(self, node: Node) -> FloatArray | None:
        """Where a membrane goes at a spike; None: the threshold is subtracted."""
        if self.reset in ("subtract", "snntorch"):
            return None
        return node.array("v_reset", 0.0) if self.reset == "file" else np.zeros(1)


def _exp(x: FloatArray) -> FloatArray:
    """The exponential, rounded once: np.exp depends on the processor (docs/numerics.md)."""
    flat = np.array([float(Decimal(float(value)).exp()) for value in x.ravel()])
    return flat.reshape(x.shape)
