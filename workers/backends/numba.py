"""The Numba backend: products that visit spikes only, and neurons in one pass (docs/numerics.md).

A spike adds its row of weights to the sums of all outputs; what is silent costs nothing. Sums are
int32, which the bound of the operator proves exact, and are rounded to float32 once. A neuron's
step is the operations of `topologies.stages.neuron` one by one: no fast-math, which would fuse
them, and no Python float, which would compute in float64 (numerics 10 and 11). What has no form
here runs as in the NumPy backend, from which this one differs in speed only.

Compiled code is kept on disk (NUMBA_CACHE_DIR, by default beside this file), so that only the
first worker of an installation waits for the compiler.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

import numpy as np
from numba import njit

from topologies.stages.base import Array, Clock, Emissions
from topologies.stages.linear import Linear
from topologies.stages.neuron import If, Lif
from workers.backends.numpy import NumpyKernel, Op, State, neuron_op

__all__ = ["NumbaKernel"]

_DENSE: Final = 0.3
"""Share of active inputs above which a dense product is faster."""


class NumbaKernel(NumpyKernel):
    """One synapse group on Numba; see `workers.kernel.Kernel`."""

    def _plan(self, index: int) -> Op:
        plain = super()._plan(index)
        stage, program = self._program.stages[index], self._program
        match stage:
            case Linear():
                (source,) = program.reads[index]
                spikes = source < 0 and program.ports[-1 - source].is_spike
                if spikes and self._unit(index) is not None and _fits_int32(stage):
                    return _linear(stage, self._unit(index) or 0, plain)
            case If() | Lif() if stage.is_uniform:
                form = _form(stage)
                if form is not None:
                    source = program.reads[index][0]
                    return neuron_op(stage, self._is_current(source), _Advance(*form))
        return plain


def _fits_int32(stage: Linear) -> bool:
    return stage.accumulator in ("float32", "int32") and bool(
        abs(stage.bias).max(initial=0) < 2**31
    )


def _linear(stage: Linear, unit: int, dense: Op) -> Op:
    narrow = np.int16 if abs(stage.weight.astype(np.int64)).max(initial=0) < 2**15 else np.int32
    columns = np.ascontiguousarray(stage.weight.T, narrow)
    bias = stage.bias.astype(np.int32)
    scale = np.float32(2.0**-unit)

    def op(inputs: Sequence[Array], state: State, clock: Clock) -> tuple[Array | Emissions, State]:
        x = inputs[0].swapaxes(0, 1)
        if x.dtype != np.uint8 or np.count_nonzero(x) > _DENSE * x.size:
            return dense(inputs, state, clock)
        out = np.empty((*inputs[0].shape[:2], columns.shape[1]), np.float32)
        _add_rows(np.ascontiguousarray(x), columns, bias, scale, out)
        return out, state

    return op


@njit(cache=True, nogil=True)  # type: ignore[untyped-decorator]
def _add_rows(x: Array, columns: Array, bias: Array, scale: Any, out: Array) -> None:
    """`out[t, b]` (T, B, O) float32 becomes the current of spikes `x[b, t]` (B, T, I), 0 or 1."""
    n_streams, n_steps, n_in = x.shape
    active = np.empty(n_in + 3, np.int64)
    sums = np.empty(len(bias), np.int32)
    for b in range(n_streams):
        for t in range(n_steps):
            n = 0
            for i in range(n_in):
                active[n] = i
                n += x[b, t, i]
            sums[:] = bias
            k = 0
            while k + 4 <= n:  # four rows a pass over the sums
                r0, r1 = columns[active[k]], columns[active[k + 1]]
                r2, r3 = columns[active[k + 2]], columns[active[k + 3]]
                for o in range(len(sums)):
                    sums[o] += np.int32(r0[o]) + np.int32(r1[o]) + np.int32(r2[o]) + np.int32(r3[o])
                k += 4
            while k < n:
                row = columns[active[k]]
                for o in range(len(sums)):
                    sums[o] += np.int32(row[o])
                k += 1
            for o in range(len(sums)):
                out[t, b, o] = np.float32(sums[o]) * scale


# Neurons

_ADDED, _DECAYED, _LEAKED, _CHARGED = range(4)  # how v becomes h
_SOFT, _TO_VALUE, _TO_ZERO = range(3)  # and h the next v


def _form(stage: If | Lif) -> tuple[int, Any, bool, Any, int, Any] | None:
    """(charge, leak, >=, threshold, reset, v_reset), or None where there is no form."""
    charge, leak = _charge(stage)
    reset = _reset(stage)
    one_for_all = all(isinstance(c, float | None) for c in (stage.v_threshold, stage.v_reset))
    if charge is None or reset is None or not one_for_all:
        return None
    target = np.float32(stage.v_reset or 0.0)
    is_inclusive = stage.fire == ">="
    return charge, leak, is_inclusive, np.float32(stage.v_threshold), reset, target


def _charge(stage: If | Lif) -> tuple[int | None, Any]:
    if type(stage) is If:
        return _ADDED, np.float32(0)
    if type(stage) is not Lif or not isinstance(stage.leak, float):
        return None, np.float32(0)
    leak = np.float32(stage.leak)
    if stage.form == "plain":
        return _DECAYED, leak
    if stage.form != "spikingjelly" or stage.v_reset not in (None, 0.0):
        return None, leak
    return (_CHARGED if stage.decay_input else _LEAKED), leak


def _reset(stage: If | Lif) -> int | None:
    if stage.v_reset is None:
        return _SOFT
    if isinstance(stage, Lif) and stage.form == "plain":
        return _TO_VALUE
    return _TO_ZERO if stage.v_reset == 0.0 else None


class _Advance:
    """All steps of a window: see `workers.backends.numpy.Advance`."""

    def __init__(self, *form: Any) -> None:
        self._form = form

    def __call__(self, v: Array, current: Array, spikes: Array) -> Array:
        _advance(v, np.ascontiguousarray(current), spikes.swapaxes(0, 1), *self._form)
        return v


@njit(cache=True, nogil=True)  # type: ignore[untyped-decorator]
def _advance(
    v: Array, current: Array, spikes: Array, charge: int, leak: Any, is_inclusive: bool,
    threshold: Any, reset: int, v_reset: Any,
) -> None:  # fmt: skip
    """`v` (B, n) is written to; `current` is (T, B, n) float32, `spikes` (B, T, n) bool."""
    zero, one = np.float32(0), np.float32(1)
    n_steps, n_streams, n = current.shape
    for b in range(n_streams):
        for t in range(n_steps):
            for j in range(n):
                i, h = current[t, b, j], v[b, j]
                if charge == _ADDED:
                    h = h + i
                elif charge == _DECAYED:
                    h = h * leak
                    h = h + i
                elif charge == _LEAKED:
                    h = h - h / leak
                    h = h + i
                else:
                    h = h + (i - h) / leak
                fires = h >= threshold if is_inclusive else h > threshold
                spikes[b, t, j] = fires
                s = one if fires else zero
                if reset == _SOFT:
                    h = h - s * threshold
                elif reset == _TO_VALUE:
                    h = v_reset if fires else h
                else:
                    h = (one - s) * h + zero
                v[b, j] = h
