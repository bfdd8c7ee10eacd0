"""Runs a module in its own library, step by step, and keeps the spikes of its neurons.

Inputs are steps: (T, B, *shape) float32. A module that is called once per step is called T times,
with the state that it returned before if it takes one; one that is called once for all steps is.
"""

import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from inspect import signature
from typing import Any

import numpy as np

from topologies.importers.modules import steps_at_once
from topologies.stages.base import Array

__all__ = ["Original", "run_original"]


@dataclass(frozen=True, eq=False)
class Original:
    """`outputs` (T, B, n) of the whole module; `spikes` (T, B, ...) of each neuron, by its path.

    `membrane` (B, n) is the last one of a neuron of snnTorch that is never reset, if the module
    ends in one.
    """

    outputs: Array
    spikes: Mapping[str, Array]
    membrane: Array | None = None


def run_original(module: Any, inputs: Array, places: Iterable[str]) -> Original:
    """Runs a module in evaluation mode, from its initial state.

    Raises what the module raises.
    """
    import torch

    _reset(module)
    module.eval()
    with torch.no_grad(), _recorded(module, places) as record:
        steps = torch.from_numpy(np.ascontiguousarray(inputs, np.float32))
        if steps_at_once(module):
            outputs = _first(module(steps)).numpy()
        else:
            outputs = np.stack([out.numpy() for out in _stepped(module, steps)])
    spikes = {place: _joined(parts, outputs.ndim) for place, parts in record.items()}
    flat = outputs.reshape(*outputs.shape[:2], -1)
    return Original(flat, spikes, _membrane(module, len(flat[0])))


def _stepped(module: Any, steps: Any) -> Iterator[Any]:
    takes_state = "state" in signature(module.forward).parameters
    state = None
    for step in steps:
        if takes_state:
            out, state = module(step, state)
        else:
            out = module(step)
        yield _first(out)


def _membrane(module: Any, n_streams: int) -> Array | None:
    last = list(module.modules())[-1]
    if getattr(last, "reset_mechanism", "") != "none":
        return None
    membrane: Array = last.mem.detach().numpy().reshape(n_streams, -1)
    return membrane


def _first(output: Any) -> Any:
    """The output proper, of modules that return their states beside it."""
    return output[0] if isinstance(output, tuple) else output


def _joined(parts: list[Array], n_axes: int) -> Array:
    """(T, B, ...) of one output for all steps, or of one per step."""
    if len(parts) == 1 and parts[0].ndim >= n_axes:
        return parts[0]
    return np.stack(parts)


@contextmanager
def _recorded(module: Any, places: Iterable[str]) -> Iterator[dict[str, list[Array]]]:
    record: dict[str, list[Array]] = {}
    handles = []
    for place in places:
        parts = record.setdefault(place, [])
        part = module.get_submodule("" if place == "module" else place)
        handles.append(part.register_forward_hook(_keep_in(parts)))
    try:
        yield record
    finally:
        for handle in handles:
            handle.remove()


def _keep_in(parts: list[Array]) -> Callable[[Any, Any, Any], None]:
    def keep(module: Any, inputs: Any, output: Any) -> None:
        parts.append(_first(output).numpy().copy())

    return keep


def _reset(module: Any) -> None:
    """The initial state, of libraries that keep it in their modules."""
    if "spikingjelly" in sys.modules:
        from spikingjelly.activation_based.functional import reset_net

        reset_net(module)
    for part in module.modules():
        reset = getattr(part, "reset_mem", None)
        if callable(reset):
            reset()
