"""The NumPy backend: one product per layer over all B * T rows, then the neurons step by step.

Inside, time comes first: values are (T, B, *shape), so that one step of all streams is contiguous.
They are the exact integers of the stages, in float32 where their bound is below 2**24, else in
float64 (NumPy multiplies integers without BLAS; docs/numerics.md, rule 3).

Three shortcuts change no bit:

- A product that only a neuron reads has its weights scaled by the unit, a power of two, so that
  the sum is the current itself; adding the bias, whose zeros are +0.0, removes each -0.0.
- Inputs that are silent throughout the window are left out of a product of few rows.
- Where NumPy's BLAS is faster with the product transposed (few rows), it is.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from math import prod
from typing import Any, TypeAlias

import numpy as np

from topologies.compiled import Group, Operator
from topologies.stages.add import Add
from topologies.stages.base import (
    Array,
    Clock,
    Emissions,
    StateSpec,
    ValueType,
    edge_dtype,
    to_current,
)
from topologies.stages.conv import Conv2d
from topologies.stages.linear import Linear
from topologies.stages.neuron import If, Lif, Neuron
from topologies.stages.pool import MaxPool, SumPool
from workers.backends.kinds import Op, State, kind_op

__all__ = ["Advance", "NumpyKernel", "Op", "State", "neuron_op"]

_FEW_ROWS = 128  # below it the transposed product wins, and silence is worth looking for
_FEW_OUTPUTS = 64  # below it it does not
_COLUMNS = 2**21  # values of an unfolded convolution at once: 8 MB
# All steps of a window: v (B, n), written to, i and s (T, B, n), s bool, written -> v.
Advance: TypeAlias = Callable[[Array, Array, Array], Array]


class NumpyKernel:
    """One synapse group on NumPy; see `workers.kernel.Kernel`."""

    def __init__(self, operator: Operator, group: Group) -> None:
        """Plan the group's program. Raises StageError when the group is no legal slice."""
        self.operator = operator
        self.group = group
        self._program = operator.program.slice(group.lo, group.hi)
        self._ops = [self._plan(i) for i in range(len(self._program.stages))]
        self._n_states = [len(spec) for spec in self._program.state_specs]
        self._edge = None if operator.kind == "readout" else edge_dtype(self._program.output)

    def state_spec(self) -> StateSpec:
        """See Kernel."""
        return self._program.state_spec()

    def init_state(self, n: int) -> State:
        """See Kernel."""
        return self._program.init_state(n)

    def step(
        self, state: State, inputs: Sequence[Array], clock: Clock
    ) -> tuple[Array | Emissions, State]:
        """See Kernel."""
        ports = [
            array.swapaxes(0, 1).reshape(array.shape[1], array.shape[0], *port.shape)
            if len(port.shape) > 1
            else array.swapaxes(0, 1)
            for array, port in zip(inputs, self._program.ports, strict=True)
        ]
        values: list[Any] = []
        after: list[Array] = []
        used = 0
        for op, reads, n in zip(self._ops, self._program.reads, self._n_states, strict=True):
            taken = [values[r] if r >= 0 else ports[-1 - r] for r in reads]
            value, new = op(taken, state[used : used + n], clock)
            used += n
            values.append(value)
            after.extend(new)
        return self._outward(values[-1]), tuple(after)

    def _plan(self, index: int) -> Op:
        """The operation of one stage of the program."""
        program = self._program
        stage, out_type = program.stages[index], program.types[index]
        match stage:
            case Linear():
                return _linear(stage, self._unit(index))
            case Conv2d():
                return _conv(stage, out_type, self._unit(index))
            case If() | Lif() if stage.is_uniform:
                return neuron_op(stage, self._is_current(program.reads[index][0]), _advance(stage))
            case SumPool():
                return _sum_pool(stage, out_type)
            case MaxPool():
                return _max_pool(stage, out_type)
            case Add():
                return _add(stage, _dtype_of(out_type.largest))
        read = program.reads[index][0]
        return kind_op(stage, isinstance(stage, Neuron) and self._is_current(read))

    def _unit(self, index: int) -> int | None:
        """The unit by which a product may scale its weights: when one neuron alone reads it."""
        program = self._program
        readers = [
            reader
            for reader, reads in zip(program.stages, program.reads, strict=True)
            if index in reads
        ]
        product = isinstance(program.stages[index], Linear | Conv2d)
        unit = program.types[index].unit
        if product and len(readers) == 1 and isinstance(readers[0], Neuron) and 0 <= unit <= 60:
            return unit
        return None

    def _is_current(self, source: int) -> bool:
        """Whether what a neuron reads is its current already: a port (below 0) never is."""
        return source >= 0 and self._unit(source) is not None

    def _outward(self, value: Array | Emissions) -> Array | Emissions:
        if isinstance(value, list):
            return value
        flat = value.reshape(*value.shape[:2], prod(value.shape[2:]))
        return np.ascontiguousarray(flat.swapaxes(0, 1), self._edge)


def _dtype_of(largest: int) -> np.dtype[Any]:
    """The float dtype in which integers up to `largest` are exact."""
    return np.dtype(np.float32 if largest < 2**24 else np.float64)


def _weights(stage: Linear | Conv2d, unit: int | None) -> tuple[Array, Array]:
    """Weights (O, K) and biases (O,) in the dtype of the product, scaled by 2**-unit."""
    dtype = np.dtype(np.float32 if stage.accumulator == "float32" else np.float64)
    factor = 2.0 ** -(unit or 0)
    weight = stage.weight.reshape(len(stage.weight), -1).astype(np.float64) * factor
    bias = stage.bias.astype(np.float64) * factor
    return np.ascontiguousarray(weight, dtype), bias.astype(dtype)


def _linear(stage: Linear, unit: int | None) -> Op:
    weight, bias = _weights(stage, unit)
    columns = np.ascontiguousarray(weight.T)
    dtype = weight.dtype if unit is None else np.dtype(np.float32)

    def op(inputs: Sequence[Array], state: State, clock: Clock) -> tuple[Array, State]:
        (x,) = inputs
        sums = _product(x, weight, columns)
        out = np.empty((*x.shape[:2], len(weight)), dtype)
        np.add(sums, bias, out=out.reshape(sums.shape), casting="same_kind")
        return out, state

    return op


def _product(x: Array, weight: Array, columns: Array) -> Array:
    """Sums (T * B, O) of inputs (T, B, I), with weights (O, I) and their transpose (I, O)."""
    n_rows = x.shape[0] * x.shape[1]
    few = n_rows <= _FEW_ROWS
    if few and n_rows and x.dtype == np.uint8:
        active = np.flatnonzero(np.bitwise_or.reduce(x.reshape(n_rows, -1), axis=0))
        if 2 * len(active) < x.shape[2]:
            x, columns = x[:, :, active], columns.take(active, axis=0)
            weight = columns.T
    rows = x.astype(weight.dtype, order="C", copy=False).reshape(n_rows, x.shape[2])
    if few and len(weight) >= _FEW_OUTPUTS:
        transposed: Array = np.matmul(weight, rows.T)
        return transposed.T
    sums: Array = np.matmul(rows, columns)
    return sums


def _conv(stage: Conv2d, out_type: ValueType, unit: int | None) -> Op:
    weight, bias = _weights(stage, unit)
    n_groups = stage.channel_groups
    parts = np.split(weight, n_groups)
    dtype = weight.dtype if unit is None else np.dtype(np.float32)
    n_out, height, width = out_type.shape
    per_row = stage.weight.shape[1] * prod(stage.weight.shape[2:]) * height * width

    def op(inputs: Sequence[Array], state: State, clock: Clock) -> tuple[Array, State]:
        (x,) = inputs
        rows = x.reshape(-1, *x.shape[2:])
        out = np.empty((len(rows), n_out, height * width), dtype)
        step = max(1, _COLUMNS // per_row)
        for lo in range(0, len(rows), step):
            block = rows[lo : lo + step]
            for g, part in enumerate(parts):
                channels = slice(g * stage.weight.shape[1], (g + 1) * stage.weight.shape[1])
                outs = slice(g * len(part), (g + 1) * len(part))
                columns = _unfolded(stage, block[:, channels], (height, width), weight.dtype)
                sums = np.matmul(part, columns).reshape(len(part), len(block), -1)
                np.add(
                    sums.swapaxes(0, 1),
                    bias[outs, None],
                    out=out[lo : lo + step, outs],
                    casting="same_kind",
                )
        return out.reshape(*x.shape[:2], n_out, height, width), state

    return op


def _unfolded(stage: Conv2d, x: Array, size: tuple[int, int], dtype: np.dtype[Any]) -> Array:
    """What each tap of the kernel sees: (N, C, H, W) -> (C * kh * kw, N * Ho * Wo)."""
    (top, left), (down, right) = stage.padding, stage.stride
    kernel = stage.weight.shape[2:]
    n, channels = x.shape[:2]
    padded = np.zeros((channels, n, x.shape[2] + 2 * top, x.shape[3] + 2 * left), dtype)
    padded[:, :, top : top + x.shape[2], left : left + x.shape[3]] = x.swapaxes(0, 1)
    columns = np.empty((channels, *kernel, n, *size), dtype)
    for i in range(kernel[0]):
        for j in range(kernel[1]):
            a, b = i * stage.dilation[0], j * stage.dilation[1]
            rows = slice(a, a + (size[0] - 1) * down + 1, down)
            columns[:, i, j] = padded[:, :, rows, b : b + (size[1] - 1) * right + 1 : right]
    return columns.reshape(channels * kernel[0] * kernel[1], n * size[0] * size[1])


def _taps(
    stage: SumPool | MaxPool, x: Array, out_type: ValueType, fill: float, dtype: np.dtype[Any]
) -> list[Array]:
    """For each place in the kernel, what it sees: views (T, B, C, Ho, Wo) of the padded input."""
    (top, left), (down, right) = stage.padding, stage.stride
    _, height, width = out_type.shape
    x = x.astype(dtype, copy=False)
    if top or left:
        edges = [(0, 0), (0, 0), (0, 0), (top, top), (left, left)]
        x = np.pad(x, edges, constant_values=fill)
    return [
        x[..., i : i + (height - 1) * down + 1 : down, j : j + (width - 1) * right + 1 : right]
        for i in range(stage.kernel[0])
        for j in range(stage.kernel[1])
    ]


def _sum_pool(stage: SumPool, out_type: ValueType) -> Op:
    dtype = _dtype_of(out_type.largest)

    def op(inputs: Sequence[Array], state: State, clock: Clock) -> tuple[Array, State]:
        taps = _taps(stage, inputs[0], out_type, 0, dtype)
        total = taps[0].copy()
        for tap in taps[1:]:
            total += tap
        return total, state

    return op


def _max_pool(stage: MaxPool, out_type: ValueType) -> Op:
    dtype = _dtype_of(out_type.largest)

    def op(inputs: Sequence[Array], state: State, clock: Clock) -> tuple[Array, State]:
        taps = _taps(stage, inputs[0], out_type, -np.inf, dtype)
        largest = taps[0].copy()
        for tap in taps[1:]:
            np.maximum(largest, tap, out=largest)
        return largest, state

    return op


def _add(stage: Add, dtype: np.dtype[Any]) -> Op:
    lifts = [dtype.type(2.0**lift) for lift in stage.lifts]

    def op(inputs: Sequence[Array], state: State, clock: Clock) -> tuple[Array, State]:
        total = inputs[0].astype(dtype) * lifts[0]
        for x, lift in zip(inputs[1:], lifts[1:], strict=True):
            total += x.astype(dtype, copy=False) * lift
        return total, state

    return op


def neuron_op(stage: If | Lif, is_current: bool, advance: Advance) -> Op:
    """A neuron whose window is stepped by `advance`."""

    def op(inputs: Sequence[Array], state: State, clock: Clock) -> tuple[Array, State]:
        (x,) = inputs
        current = x if is_current else to_current(x, stage.unit)
        n_steps, n_streams = current.shape[:2]
        v = np.array(stage.started(state[0], clock.start), np.float32).reshape(n_streams, -1)
        # Streams first in memory, time first in use: what leaves needs no further copy.
        spikes = np.empty((n_streams, n_steps, v.shape[1]), np.bool_).swapaxes(0, 1)
        v = advance(v, current.reshape(n_steps, *v.shape), spikes)
        return spikes.view(np.uint8).reshape(current.shape), (v.reshape(state[0].shape),)

    return op


def _advance(stage: If | Lif) -> Advance:
    charge, reset = _charge(stage), _reset(stage)
    if charge is None or reset is None:
        return _plain_advance(stage)
    threshold = np.array(stage.v_threshold, np.float32)
    compare = np.greater_equal if stage.fire == ">=" else np.greater

    def advance(v: Array, current: Array, spikes: Array) -> Array:
        w = np.empty_like(v)
        for i, s in zip(current, spikes, strict=True):
            charge(v, i, w)
            compare(v, threshold, s)
            reset(v, s, w)
        return v

    return advance


def _plain_advance(stage: If | Lif) -> Advance:
    def advance(v: Array, current: Array, spikes: Array) -> Array:
        for t, i in enumerate(current):
            spikes[t], v = stage.step(v, i)
        return v

    return advance


def _charge(stage: If | Lif) -> Callable[[Array, Array, Array], object] | None:
    """In place, v becomes h of `topologies.stages.neuron`; w is scratch. None: no fast form."""
    # v - r is v when r is 0, and i + v_leak is i when v_leak is 0: i is never -0.0.
    if isinstance(stage, If):
        return lambda v, i, w: np.add(v, i, v)
    leak = np.array(stage.leak, np.float32)
    if stage.form == "plain":

        def plain(v: Array, i: Array, w: Array) -> None:
            np.multiply(v, leak, v)
            np.add(v, i, v)

        return plain
    if stage.form != "spikingjelly" or stage.v_reset not in (None, 0.0):
        return None
    if stage.decay_input:

        def decayed(v: Array, i: Array, w: Array) -> None:
            np.subtract(i, v, w)
            np.divide(w, leak, w)
            np.add(v, w, v)

        return decayed

    def leaked(v: Array, i: Array, w: Array) -> None:
        np.divide(v, leak, w)
        np.subtract(v, w, v)
        np.add(v, i, v)

    return leaked


def _reset(stage: If | Lif) -> Callable[[Array, Array, Array], object] | None:
    """In place, h becomes the membrane after the reset; w is scratch. None: no fast form."""
    threshold = np.array(stage.v_threshold, np.float32)
    one, zero = np.array(1, np.float32), np.array(0, np.float32)
    if stage.v_reset is None:

        def soft(v: Array, s: Array, w: Array) -> None:
            np.multiply(s, threshold, w)
            np.subtract(v, w, v)

        def soft_by_one(v: Array, s: Array, w: Array) -> None:
            np.copyto(w, s)
            np.subtract(v, w, v)

        return soft_by_one if stage.v_threshold == 1.0 else soft
    if isinstance(stage, Lif) and stage.form == "plain":
        value = np.array(stage.v_reset, np.float32)
        return lambda v, s, w: np.copyto(v, value, where=s)
    if stage.v_reset != 0.0:
        return None

    def hard(v: Array, s: Array, w: Array) -> None:
        np.copyto(w, s)
        np.subtract(one, w, w)
        np.multiply(w, v, v)
        np.add(zero, v, v)  # s * 0, which turns -0.0 into +0.0

    return hard
