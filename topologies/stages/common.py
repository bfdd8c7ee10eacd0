"""Small checks and shapes that several kinds of stage share."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from topologies.stages.base import Array, StageError, ValueType

__all__ = [
    "Pair",
    "check_channels",
    "largest_row",
    "narrowest",
    "one_input",
    "pair",
    "same_arrays",
    "spatial_shape",
    "windows",
]

Pair = tuple[int, int]


def one_input(kind: str, inputs: Sequence[ValueType]) -> ValueType:
    """The only input of a stage. Raises StageError when there are more or fewer."""
    if len(inputs) != 1:
        raise StageError(f"A {kind} reads exactly one input, not {len(inputs)}.")
    return inputs[0]


def check_channels(kind: str, value: ValueType) -> tuple[int, int, int]:
    """The shape (channels, height, width) of an input. Raises StageError for another rank."""
    if len(value.shape) != 3:
        raise StageError(
            f"A {kind} reads values of shape (channels, height, width), not {value.shape}."
        )
    channels, height, width = value.shape
    return channels, height, width


def pair(name: str, value: Any, lowest: int) -> Pair:
    """(vertical, horizontal) of an integer or of a list of two. Raises StageError."""
    both = (value, value) if isinstance(value, int) else tuple(value)
    if len(both) != 2 or not all(isinstance(v, int) and v >= lowest for v in both):
        raise StageError(f"{name} is an integer from {lowest} on, or two of them, not {value!r}.")
    return both[0], both[1]


def spatial_shape(kind: str, shape: Pair, kernel: Pair, stride: Pair, padding: Pair) -> Pair:
    """Height and width of the output. Raises StageError when the kernel does not fit in."""
    out = tuple(
        (size + 2 * pad - reach) // step + 1
        for size, reach, step, pad in zip(shape, kernel, stride, padding, strict=True)
    )
    if min(out) < 1:
        raise StageError(
            f"A {kind} of reach {kernel} does not fit into {shape} with padding {padding}."
        )
    return out[0], out[1]


def windows(values: Array, kernel: Pair, stride: Pair, padding: Pair, fill: float) -> Array:
    """The values under each position of a kernel.

    (..., H, W) -> (..., Ho, Wo, kh, kw), a read-only view of the padded values.
    """
    edges = [(0, 0)] * (values.ndim - 2) + [(padding[0],) * 2, (padding[1],) * 2]
    x = np.pad(values, edges, constant_values=fill) if any(padding) else values
    sizes = [
        (size - reach) // step + 1
        for size, reach, step in zip(x.shape[-2:], kernel, stride, strict=True)
    ]
    down, right = x.strides[-2:]
    return np.lib.stride_tricks.as_strided(
        x,
        (*x.shape[:-2], *sizes, *kernel),
        (*x.strides[:-2], down * stride[0], right * stride[1], down, right),
        writeable=False,
    )


def largest_row(weight: Array, bias: Array, largest: int) -> int:
    """The largest over the rows of sum |k| * largest + |bias|, exact at any size."""
    rows = np.abs(weight.astype(np.int64)).reshape(len(weight), -1).sum(axis=1)
    offsets = np.abs(bias)
    if int(rows.max()) * largest + int(offsets.max()) < 2**62:
        return int((rows * largest + offsets).max())
    return max(int(row) * largest + int(b) for row, b in zip(rows, offsets, strict=True))


def narrowest(values: Array) -> Array:
    """Integers in the narrowest of int8, int16, int32 that holds them. Raises StageError."""
    low, high = (int(values.min()), int(values.max())) if values.size else (0, 0)
    for dtype in (np.int8, np.int16, np.int32):
        if np.iinfo(dtype).min <= low and high <= np.iinfo(dtype).max:
            return values.astype(dtype)
    raise StageError(f"Weights of {max(-low, high)} grid units do not fit into 32 bits.")


def same_arrays(kind: str, arrays: Mapping[str, Array], legal: Sequence[str]) -> None:
    """Raises StageError when a stage is given other arrays than it has."""
    if sorted(arrays) != sorted(legal):
        raise StageError(f"A {kind} has the arrays {sorted(legal)}, not {sorted(arrays)}.")
