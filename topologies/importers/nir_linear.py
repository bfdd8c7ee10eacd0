"""The nodes of NIR that keep no state: shapes, and the layers that they become.

Shapes are channels first, without a batch. NIR's Affine and Linear read one vector; where their
input has more axes but as many values, it is flattened. Weights with more than two axes hold one
matrix per leading index: a convolution with a kernel of 1 and that many groups.
"""

from collections.abc import Callable, Mapping
from math import prod
from typing import TypeAlias

import numpy as np

from topologies.importers.build import Builder, compact
from topologies.importers.nir_graph import Node
from topologies.model import Fault, FloatArray, NetworkError, Source

__all__ = ["LINEAR", "Shape", "linear_layers", "refused"]

Shape: TypeAlias = tuple[int, ...]
_Emitted: TypeAlias = tuple[Source, Shape]


def linear_layers(
    builder: Builder, name: str, node: Node, source: Source, shape: Shape
) -> _Emitted:
    """Adds the layers of a node that reads `source`; (what to read of it, its shape).

    Raises NetworkError, naming the node.
    """
    return LINEAR[node.kind](builder, name, node, source, shape)


def refused(node: Node, sentence: str) -> NetworkError:
    """The error that names a node."""
    return NetworkError([Fault(node.path, sentence)])


def _weighted(builder: Builder, name: str, node: Node, source: Source, shape: Shape) -> _Emitted:
    weight = node.array("weight")
    if weight.ndim < 2:
        raise refused(node, f"its weight has shape {weight.shape}: legal are two axes or more.")
    n_out, n_in = weight.shape[-2:]
    n = prod(weight.shape[:-2])
    bias = None if node.kind == "Linear" else node.array("bias").ravel()
    if bias is not None and bias.size != n * n_out:
        raise refused(node, f"its bias has {bias.size} values: legal is {n * n_out}.")
    if prod(shape) != n * n_in:
        wanted = [*weight.shape[:-2], n_in]
        raise refused(node, f"it reads {wanted}, but is given {list(shape)}.")
    arrays: dict[str, FloatArray] = {"weight": weight.reshape(n * n_out, n_in)}
    if bias is not None and bias.any():
        arrays["bias"] = bias
    if n == 1:
        return _one_matrix(builder, name, arrays, source, shape), (n_out,)
    arrays["weight"] = arrays["weight"][:, :, None]
    rows = builder.add(f"{name}.rows", "reshape", [source], {"shape": [n * n_in, 1]})
    found = builder.add(f"{name}.matrices", "conv1d", [rows], {"groups": n}, arrays)
    out = (*weight.shape[:-2], n_out)
    return builder.add(name, "reshape", [found], {"shape": list(out)}), out


def _one_matrix(
    builder: Builder, name: str, arrays: Mapping[str, FloatArray], source: Source, shape: Shape
) -> Source:
    if len(shape) > 1:
        source = builder.add(f"{name}.flat", "flatten", [source])
    return builder.add(name, "linear", [source], {}, arrays)


def _numbers(node: Node, name: str, rank: int, least: int) -> list[int]:
    """Whole numbers, one per axis. Raises NetworkError."""
    found = node.whole(name)
    if len(found) not in {1, rank} or min(found) < least:
        raise refused(
            node,
            f"its {name} is {found}: legal is one number per axis, or for all, from {least} on.",
        )
    return found * rank if len(found) == 1 else found


def _padding(node: Node, kernel: Shape, dilation: list[int], stride: list[int]) -> list[int]:
    """Per axis, from numbers, 'valid' or 'same'."""
    given = node.fields.get("padding")
    text = given.decode("utf-8", "replace") if isinstance(given, bytes) else given
    if not isinstance(text, str):
        return _numbers(node, "padding", len(kernel), 0)
    if text == "valid":
        return [0] * len(kernel)
    reach = [(k - 1) * d for k, d in zip(kernel, dilation, strict=True)]
    if text != "same" or any(r % 2 for r in reach) or any(step != 1 for step in stride):
        raise refused(
            node,
            f"padding {text!r} of a kernel {kernel}, dilation {dilation}, stride {stride}: legal "
            "are numbers, 'valid', and 'same' where it is equal on both sides and the stride is 1.",
        )
    return [r // 2 for r in reach]


def _conv(builder: Builder, name: str, node: Node, source: Source, shape: Shape) -> _Emitted:
    weight, bias = node.array("weight"), node.array("bias").ravel()
    rank = 1 if node.kind == "Conv1d" else 2
    if weight.ndim != rank + 2 or len(shape) != rank + 1:
        raise refused(
            node, f"its weight has shape {weight.shape} and its input {shape}: they do not fit."
        )
    kernel = weight.shape[2:]
    numbers = {key: _numbers(node, key, rank, 1) for key in ("stride", "dilation")}
    numbers["padding"] = _padding(node, kernel, numbers["dilation"], numbers["stride"])
    (groups,) = _numbers(node, "groups", 1, 1)
    arrays = {"weight": weight, **({"bias": bias} if bias.any() else {})}
    usual = {"stride": 1, "dilation": 1, "padding": 0}
    params = {k: _short(v) for k, v in numbers.items() if _short(v) != usual[k]}
    if groups != 1:
        params["groups"] = groups
    found = builder.add(name, node.kind.lower(), [source], params, arrays)
    sizes = zip(shape[1:], kernel, *(numbers[k] for k in usual), strict=True)
    reach = [(size + 2 * p - d * (k - 1) - 1) // s + 1 for size, k, s, d, p in sizes]
    return found, (weight.shape[0], *reach)


def _short(numbers: list[int]) -> int | list[int]:
    return numbers[0] if len(set(numbers)) == 1 else numbers


def _pool(builder: Builder, name: str, node: Node, source: Source, shape: Shape) -> _Emitted:
    if len(shape) != 3:
        raise refused(node, f"it reads (channels, height, width), but is given {list(shape)}.")
    kernel, stride = (_numbers(node, key, 2, 1) for key in ("kernel_size", "stride"))
    padding = _numbers(node, "padding", 2, 0)
    params = {"kernel": _short(kernel)}
    params |= {"stride": _short(stride)} if stride != kernel else {}
    params |= {"padding": _short(padding)} if any(padding) else {}
    kind = "avg_pool" if node.kind == "AvgPool2d" else "sum_pool"
    found = builder.add(name, kind, [source], params)
    sizes = zip(shape[1:], kernel, stride, padding, strict=True)
    return found, (shape[0], *((size + 2 * p - k) // s + 1 for size, k, s, p in sizes))


def _flatten(builder: Builder, name: str, node: Node, source: Source, shape: Shape) -> _Emitted:
    first, last = (node.whole(*given)[0] for given in (("start_dim", 1), ("end_dim", -1)))
    rank = len(shape)
    lo, hi = first % rank if -rank <= first < 0 else first, last % rank if last < 0 else last
    if lo == rank == hi + 1:
        # start_dim 1 of a vector counts a batch axis, as PyTorch does: there is nothing to do.
        return source, shape
    if not 0 <= lo <= hi < rank:
        raise refused(node, f"start_dim {first}, end_dim {last} do not fit the shape {shape}.")
    out = (*shape[:lo], prod(shape[lo : hi + 1]), *shape[hi + 1 :])
    if out == shape:
        return source, shape
    if len(out) == 1:
        return builder.add(name, "flatten", [source]), out
    return builder.add(name, "reshape", [source], {"shape": list(out)}), out


def _scale(builder: Builder, name: str, node: Node, source: Source, shape: Shape) -> _Emitted:
    try:
        found = compact(node.array("scale"), shape)
    except ValueError as error:
        given = list(node.array("scale").shape)
        raise refused(node, f"its scale has shape {given}, its input {list(shape)}.") from error
    return builder.add(name, "scale", [source], {}, {"weight": np.atleast_1d(found)}), shape


LINEAR: Mapping[str, Callable[[Builder, str, Node, Source, Shape], _Emitted]] = {
    "Affine": _weighted,
    "AvgPool2d": _pool,
    "Conv1d": _conv,
    "Conv2d": _conv,
    "Flatten": _flatten,
    "Linear": _weighted,
    "Scale": _scale,
    "SumPool2d": _pool,
}
