"""Layers of PyTorch itself. Axes are counted from the last, or behind batch and time (`lead`)."""

from math import prod
from typing import Any

from topologies.importers.modules import Flow, Handler, Handlers, Shape, Walk, refused
from topologies.stages.base import Array

__all__ = [
    "average_pool",
    "batch_norm",
    "conv",
    "flatten",
    "handlers",
    "linear",
    "max_pool",
    "passed",
    "weights_of",
]


def handlers() -> Handlers:
    """What PyTorch has and networks know."""
    from torch import nn

    passing = (nn.Identity, nn.Dropout, nn.Dropout1d, nn.Dropout2d, nn.AlphaDropout)
    leaves: dict[type, Handler] = {
        nn.Linear: linear,
        nn.Conv1d: conv,
        nn.Conv2d: conv,
        nn.BatchNorm1d: batch_norm,
        nn.BatchNorm2d: batch_norm,
        nn.AvgPool2d: average_pool,
        nn.AdaptiveAvgPool2d: adaptive_pool,
        nn.MaxPool2d: max_pool,
        nn.Flatten: flatten,
        nn.Unflatten: unflatten,
        **dict.fromkeys(passing, passed),
    }
    return Handlers(leaves, {nn.Sequential: Walk.children})


def passed(walk: Walk, path: str, module: Any, flow: Flow) -> Flow:
    """Nothing, when a network is used and not trained."""
    return flow


def weights_of(module: Any, *names: str) -> dict[str, Array]:
    """The arrays of a module that are there, float64."""
    found = {name: getattr(module, name, None) for name in names}
    return {
        name: tensor.detach().cpu().double().numpy()
        for name, tensor in found.items()
        if tensor is not None
    }


def linear(walk: Walk, path: str, module: Any, flow: Flow) -> Flow:
    """Of one axis `linear`; of (tokens, features) nothing yet: its rows would be the last axis."""
    if flow.shape != (module.in_features,):
        raise refused(
            path,
            f"it reads ({module.in_features},), but is given {flow.shape}: legal is a vector; put "
            "a Flatten before it.",
        )
    arrays = weights_of(module, "weight", "bias")
    return walk.add(path, "linear", flow, (module.out_features,), arrays=arrays)


def conv(walk: Walk, path: str, module: Any, flow: Flow) -> Flow:
    """`conv1d`, `conv2d`."""
    rank = len(module.kernel_size)
    if len(flow.shape) != rank + 1 or flow.shape[0] != module.in_channels:
        raise refused(path, f"it reads {module.in_channels} channels, but is given {flow.shape}.")
    if module.padding_mode != "zeros":
        raise refused(path, f"padding_mode is {module.padding_mode!r}: legal is 'zeros'.")
    padding = _padding(path, module)
    numbers = {"stride": module.stride, "padding": padding, "dilation": module.dilation}
    usual = {"stride": 1, "padding": 0, "dilation": 1}
    given = {k: _short(v) for k, v in numbers.items() if _short(v) != usual[k]}
    if module.groups != 1:
        given["groups"] = module.groups
    sizes = zip(
        *(flow.shape[1:], module.kernel_size, module.stride, padding, module.dilation), strict=True
    )
    out = [(size + 2 * p - d * (k - 1) - 1) // s + 1 for size, k, s, p, d in sizes]
    arrays = weights_of(module, "weight", "bias")
    kind = f"conv{rank}d"
    return walk.add(path, kind, flow, (module.out_channels, *out), **given, arrays=arrays)


def _padding(path: str, module: Any) -> tuple[int, ...]:
    if not isinstance(module.padding, str):
        return tuple(module.padding)
    if module.padding == "valid":
        return (0,) * len(module.kernel_size)
    reach = [d * (k - 1) for k, d in zip(module.kernel_size, module.dilation, strict=True)]
    if any(r % 2 for r in reach):
        raise refused(
            path,
            f"padding 'same' of a kernel {module.kernel_size} is not equal on both sides: legal "
            "are numbers, and 'same' where it is.",
        )
    return tuple(r // 2 for r in reach)


def _short(numbers: Any) -> int | list[int]:
    given = list(numbers) if isinstance(numbers, list | tuple) else [numbers]
    return given[0] if len(set(given)) == 1 else given


def batch_norm(walk: Walk, path: str, module: Any, flow: Flow) -> Flow:
    """`batch_norm`: the compiler folds it into weights."""
    if module.running_mean is None:
        raise refused(path, "it has no running statistics: legal is track_running_stats.")
    arrays = weights_of(module, "running_mean", "running_var", "weight", "bias")
    return walk.add(path, "batch_norm", flow, flow.shape, eps=float(module.eps), arrays=arrays)


def _pooled(path: str, module: Any, flow: Flow) -> tuple[Shape, dict[str, Any]]:
    if len(flow.shape) != 3:
        raise refused(path, f"it reads (channels, height, width), but is given {flow.shape}.")
    kernel, stride, padding = (
        (x, x) if isinstance(x, int) else tuple(x)
        for x in (module.kernel_size, module.stride, module.padding)
    )
    sizes = list(zip(flow.shape[1:], kernel, stride, padding, strict=True))
    if module.ceil_mode and any((size + 2 * p - k) % s for size, k, s, p in sizes):
        raise refused(path, "ceil_mode reaches beyond the edge: legal is false.")
    out = ((size + 2 * p - k) // s + 1 for size, k, s, p in sizes)
    given = {"kernel": _short(kernel)}
    given |= {"stride": _short(stride)} if stride != kernel else {}
    given |= {"padding": _short(padding)} if any(padding) else {}
    return (flow.shape[0], *out), given


def max_pool(walk: Walk, path: str, module: Any, flow: Flow) -> Flow:
    """`max_pool`: spikes stay spikes."""
    if module.dilation not in (1, (1, 1)):
        raise refused(path, f"dilation is {module.dilation}: legal is 1.")
    shape, given = _pooled(path, module, flow)
    return walk.add(path, "max_pool", flow, shape, **given)


def average_pool(walk: Walk, path: str, module: Any, flow: Flow) -> Flow:
    """`avg_pool`, padding counted in."""
    shape, given = _pooled(path, module, flow)
    if "padding" in given and not module.count_include_pad:
        raise refused(path, "count_include_pad is false with a padding: legal is true.")
    if module.divisor_override is not None:
        raise refused(path, "divisor_override is set: legal is none.")
    return walk.add(path, "avg_pool", flow, shape, **given)


def adaptive_pool(walk: Walk, path: str, module: Any, flow: Flow) -> Flow:
    """To one value per channel: a mean that keeps its axes."""
    if module.output_size not in (1, (1, 1)) or len(flow.shape) != 3:
        raise refused(path, f"output_size is {module.output_size}: legal is 1.")
    return walk.add(path, "reduce", flow, (flow.shape[0], 1, 1), axes=[-2, -1], keep=True)


def flatten(walk: Walk, path: str, module: Any, flow: Flow) -> Flow:
    """`flatten`, or `reshape` where axes are left."""
    lead = 1 if getattr(module, "step_mode", "s") == "m" else flow.lead
    n_axes = len(flow.shape) + lead
    first, last = module.start_dim % n_axes - lead, module.end_dim % n_axes - lead
    if first < 0:
        raise refused(path, f"start_dim {module.start_dim} joins the batch with the values.")
    joined = prod(flow.shape[first : last + 1])
    shape = (*flow.shape[:first], joined, *flow.shape[last + 1 :])
    return _reshaped(walk, path, flow, shape)


def unflatten(walk: Walk, path: str, module: Any, flow: Flow) -> Flow:
    """`reshape`."""
    axis = module.dim % (len(flow.shape) + flow.lead) - flow.lead
    if axis < 0:
        raise refused(path, f"dim {module.dim} is not one of the values.")
    sizes = tuple(int(size) for size in module.unflattened_size)
    rest = flow.shape[axis] // -prod(sizes) if -1 in sizes else 1
    split = tuple(rest if size == -1 else size for size in sizes)
    return _reshaped(walk, path, flow, (*flow.shape[:axis], *split, *flow.shape[axis + 1 :]))


def _reshaped(walk: Walk, path: str, flow: Flow, shape: Shape) -> Flow:
    if shape == flow.shape:
        return flow
    spikes = flow.spikes
    if len(shape) == 1:
        found = walk.add(path, "flatten", flow, shape)
    else:
        found = walk.add(path, "reshape", flow, shape, shape=list(shape))
    return Flow(found.source, shape, spikes, flow.lead)
