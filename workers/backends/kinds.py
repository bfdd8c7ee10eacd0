"""NumPy operations of the kinds that have a faster exact form than their own `run`.

They are shared by the backends: values are (T, B, *shape), exact integers in any dtype, as in
`workers.backends.numpy`. Products are taken in float32 where the bound of the stage is below 2**24,
else in float64: NumPy multiplies integers without BLAS (docs/numerics.md, rule 3).

- conv1d: one product per stream and step; with a kernel of 1 its input is the matrix as it is.
- ssa: the inner two matrices first, in whichever order is cheaper. Sums are exact in both.
- graph: the values of all edges, added up per run of edges into one node.
- neurons without a form of their own: `advance`, step by step, all streams at once.
"""

from collections.abc import Callable, Iterator, Sequence
from math import prod
from typing import Any, Protocol, TypeAlias

import numpy as np

from topologies.stages.attention import Ssa
from topologies.stages.base import Accumulator, Array, Clock, Emissions, Stage, to_current
from topologies.stages.conv1d import Conv1d
from topologies.stages.dynamics import Neuron
from topologies.stages.graph import Graph

__all__ = ["Op", "State", "kind_op"]

_AT_ONCE = 2**21  # values of an unfolded input, or of edges, at once: 8 MB of float32
State: TypeAlias = tuple[Array, ...]


class Op(Protocol):
    """One stage, time first: (T, B, *shape) each -> (T, B, *shape), and the new state."""

    def __call__(
        self, inputs: Sequence[Array], state: State, clock: Clock
    ) -> tuple[Array | Emissions, State]: ...


def kind_op(stage: Stage, is_current: bool = False) -> Op:
    """The operation of a stage; `is_current`: what a neuron reads is its current already."""
    match stage:
        case Conv1d():
            return _stateless(_conv1d(stage))
        case Ssa():
            return _stateless(_ssa(stage))
        case Graph():
            return _stateless(_graph(stage))
        case Neuron():
            return _stepped(stage, is_current)
    return stage.run if stage.timeless else _streams_first(stage)


def _stateless(function: Callable[..., Array]) -> Op:
    def op(inputs: Sequence[Array], state: State, clock: Clock) -> tuple[Array, State]:
        return function(*inputs), state

    return op


def _streams_first(stage: Stage) -> Op:
    """A stage that tells streams from steps: its own `run`."""

    def op(inputs: Sequence[Array], state: State, clock: Clock) -> tuple[Any, State]:
        value, after = stage.run([x.swapaxes(0, 1) for x in inputs], state, clock)
        return (value if isinstance(value, list) else value.swapaxes(0, 1)), after

    return op


def _float(accumulator: Accumulator) -> np.dtype[Any]:
    return np.dtype(np.float32 if accumulator == "float32" else np.float64)


def _blocks(n: int, per_row: int) -> Iterator[slice]:
    """Rows, as many at once as memory allows."""
    step = max(1, _AT_ONCE // max(per_row, 1))
    return (slice(lo, lo + step) for lo in range(0, n, step))


def _conv1d(stage: Conv1d) -> Callable[[Array], Array]:
    dtype = _float(stage.accumulator)
    n_out, n_in, reach = stage.weight.shape
    groups = stage.channel_groups
    weight = stage.weight.astype(dtype).reshape(groups, n_out // groups, n_in * reach)
    bias = stage.bias.astype(dtype)[:, None]

    def apply(x: Array) -> Array:
        rows = x.reshape(-1, *x.shape[2:])
        span = (reach - 1) * stage.dilation + 1
        length = (x.shape[3] + 2 * stage.padding - span) // stage.stride + 1
        out = np.empty((len(rows), n_out, length), dtype)
        for block in _blocks(len(rows), n_in * groups * reach * length):
            columns = _unfolded(stage, rows[block].astype(dtype), length)
            sums = np.matmul(weight, columns.reshape(-1, groups, n_in * reach, length))
            np.add(sums.reshape(-1, n_out, length), bias, out=out[block])
        return out.reshape(*x.shape[:2], n_out, length)

    return apply


def _unfolded(stage: Conv1d, x: Array, length: int) -> Array:
    """What each tap sees: (rows, C, L) -> (rows, C, k, Lo)."""
    reach, pad = stage.weight.shape[2], stage.padding
    if (reach, stage.stride, pad) == (1, 1, 0):
        return x[:, :, None]
    padded = np.pad(x, ((0, 0), (0, 0), (pad, pad))) if pad else x
    last = (length - 1) * stage.stride + 1
    taps = [padded[:, :, d : d + last : stage.stride] for d in np.arange(reach) * stage.dilation]
    return np.stack(taps, axis=2)


def _ssa(stage: Ssa) -> Callable[[Array, Array, Array], Array]:
    dtype = _float(stage.accumulator)

    def apply(q: Array, k: Array, v: Array) -> Array:
        by_head = [
            x.astype(dtype).reshape(-1, stage.heads, x.shape[2] // stage.heads, x.shape[3])
            for x in (q, k, v)
        ]
        width, n_queries, n_keys = by_head[0].shape[2], q.shape[3], k.shape[3]
        one, keys, values = by_head
        if 2 * n_queries * n_keys < width * (n_queries + n_keys):
            sums: Array = np.matmul(values, np.matmul(keys.swapaxes(2, 3), one))
        else:
            sums = np.matmul(np.matmul(values, keys.swapaxes(2, 3)), one)
        return sums.reshape(q.shape)

    return apply


def _graph(stage: Graph) -> Callable[[Array], Array]:
    dtype = _float(stage.accumulator)
    weight = stage.weight.astype(dtype)
    nodes, starts = np.unique(stage.targets, return_index=True)

    def apply(x: Array) -> Array:
        rows = x.reshape(prod(x.shape[:-1]), x.shape[-1])
        out = np.zeros(rows.shape, dtype)
        for block in _blocks(len(rows), len(weight)):
            edges = rows[block].astype(dtype)[:, stage.sources]
            edges *= weight
            out[block, nodes] = np.add.reduceat(edges, starts, axis=1)
        return out.reshape(x.shape)

    return apply


def _stepped(stage: Neuron, is_current: bool) -> Op:
    def op(inputs: Sequence[Array], state: State, clock: Clock) -> tuple[Array, State]:
        (x,) = inputs
        current = x if is_current else to_current(x, stage.unit)
        n_steps, n_streams = current.shape[:2]
        flat = current.reshape(n_steps, n_streams, prod(current.shape[2:]))
        spikes = np.empty(flat.shape, np.uint8)
        rows = tuple(array.reshape(n_streams, flat.shape[2]) for array in state)
        now = stage.begun(rows, clock.start)
        for i, fired in zip(flat, spikes, strict=True):
            fired[:], now = stage.advance(now, i)
        shaped = (a.reshape(b.shape) for a, b in zip(now, state, strict=True))
        return spikes.reshape(current.shape), tuple(shaped)

    return op
