"""What a worker runs: one synapse group of one operator, on one backend.

A kernel is a pure step: state and inputs in, outputs and state out, never written in place. Every
backend gives the bits of the reference kernel, which runs the stages' own `run`
(docs/numerics.md); `workers.conformance` tests that before a kernel serves.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import ClassVar, Protocol

import numpy as np

from topologies.compiled import Group, Operator
from topologies.errors import SpikeRouterError
from topologies.stages.base import Array, Clock, Emissions, StateSpec

__all__ = [
    "BACKENDS",
    "Kernel",
    "KernelError",
    "ReferenceKernel",
    "UnfitProcessError",
    "check_subnormals",
    "load_kernel",
]


class KernelError(SpikeRouterError, RuntimeError):
    """A backend is unknown, not installed, or not exact on this machine."""

    retryable: ClassVar[bool] = False


class UnfitProcessError(KernelError):
    """No task can be computed in this process: it must end, and another be started."""


class Kernel(Protocol):
    """One synapse group. Attributes are read-only."""

    @property
    def operator(self) -> Operator:
        """The whole operator."""

    @property
    def group(self) -> Group:
        """The slice of its flattened outputs that this kernel computes."""

    def state_spec(self) -> StateSpec:
        """(name, shape of one stream, dtype) of each array of the state, of this group only."""

    def init_state(self, n: int) -> tuple[Array, ...]:
        """The state of `n` new streams, leading axis n."""

    def step(
        self, state: tuple[Array, ...], inputs: Sequence[Array], clock: Clock
    ) -> tuple[Array | Emissions, tuple[Array, ...]]:
        """One window of B streams.

        `inputs[k]` are integers (B, T, n), the whole of port k. Returns this group's outputs
        (B, T, hi - lo) in the edge's dtype, or a readout's emissions, B arrays (K, n); and the new
        state. Neither state nor inputs are written to.
        """


class ReferenceKernel:
    """Runs the stages' own `run`: slow and plain."""

    def __init__(self, operator: Operator, group: Group) -> None:
        """Slice the program. Raises StageError when the group is no legal slice."""
        self.operator = operator
        self.group = group
        self._program = operator.program.slice(group.lo, group.hi)

    def state_spec(self) -> StateSpec:
        """See Kernel."""
        return self._program.state_spec()

    def init_state(self, n: int) -> tuple[Array, ...]:
        """See Kernel."""
        return self._program.init_state(n)

    def step(
        self, state: tuple[Array, ...], inputs: Sequence[Array], clock: Clock
    ) -> tuple[Array | Emissions, tuple[Array, ...]]:
        """See Kernel."""
        return self._program.run(inputs, state, clock)


def load_kernel(operator: Operator, group: Group, backend: str = "numpy") -> Kernel:
    """The kernel of a synapse group. Raises KernelError for a backend that cannot serve here."""
    if backend not in BACKENDS:
        raise KernelError(f"Unknown backend {backend!r}: known are {', '.join(sorted(BACKENDS))}.")
    return BACKENDS[backend](operator, group)


def check_subnormals() -> None:
    """Call on each thread that computes. Raises UnfitProcessError where subnormals are flushed to
    zero.

    A library compiled with fast-math may switch this on for a whole thread (numerics 12).
    """
    smallest = np.full(4, 2.0**-149, np.float32)
    halved = np.full(4, 2.0**-126, np.float32) * np.float32(0.5)
    if not ((smallest + smallest) > 0).all() or not (halved > 0).all():
        raise UnfitProcessError(
            "This thread flushes subnormal floats to zero, so a membrane would decay to other "
            "bits: find the library that sets FTZ/DAZ (built with -ffast-math) and remove it."
        )


def _reference(operator: Operator, group: Group) -> Kernel:
    return ReferenceKernel(operator, group)


def _numpy(operator: Operator, group: Group) -> Kernel:
    from workers.backends.numpy import NumpyKernel  # torch stays optional, so all are lazy

    return NumpyKernel(operator, group)


def _numba(operator: Operator, group: Group) -> Kernel:
    try:
        from workers.backends.numba import NumbaKernel
    except ImportError as error:
        raise KernelError(
            "The backend numba needs Numba: install the extra `numba`, or use numpy."
        ) from error
    return NumbaKernel(operator, group)


def _torch(operator: Operator, group: Group) -> Kernel:
    try:
        from workers.backends.torch import TorchKernel
    except ImportError as error:
        raise KernelError(
            "The backend torch needs PyTorch: install the extra `torch`, or use numpy."
        ) from error
    return TorchKernel(operator, group)


BACKENDS: Mapping[str, Callable[[Operator, Group], Kernel]] = {
    "reference": _reference,
    "numpy": _numpy,
    "numba": _numba,
    "torch": _torch,
}
