"""Neurons of snnTorch 1.0.0, in its own order of operations.

It compares with `>`, resets at the start of the next step (`reset_delay`), and its recurrent
neurons read their own last spikes, so that the bias of a recurrent connection acts from step 0.
Sources: snntorch 1.0.0 `Leaky`, `Synaptic`, `RLeaky`, `RSynaptic`, `Lapicque`.
"""

from dataclasses import replace
from typing import Any

import numpy as np

from topologies.importers.from_torch import weights_of
from topologies.importers.modules import Flow, Handlers, Walk, refused, values_of
from topologies.model import Source

__all__ = ["handlers"]


def handlers() -> Handlers:
    """What snnTorch has and networks know."""
    import snntorch as snn

    return Handlers(
        {
            snn.Leaky: _leaky,
            snn.Synaptic: _synaptic,
            snn.Lapicque: _lapicque,
            snn.RLeaky: _recurrent,
            snn.RSynaptic: _recurrent,
        }
    )


def _clamped(tensor: Any) -> Any:
    return np.clip(values_of(tensor), 0.0, 1.0)


def _common(path: str, module: Any) -> dict[str, Any]:
    """Threshold and reset. Raises NetworkError for what networks cannot say."""
    if module.inhibition:
        raise refused(path, "inhibition is set: legal is false, neurons do not see each other.")
    if module.state_quant:
        raise refused(path, "state_quant is set: legal is false.")
    if np.any(values_of(getattr(module, "graded_spikes_factor", 1.0)) != np.float64(1.0)):
        raise refused(path, "graded_spikes_factor is not 1: legal is 1; scale the next weights.")
    return {
        "v_threshold": values_of(module.threshold),
        "v_reset": {"subtract": None, "zero": 0.0}.get(module.reset_mechanism),
        "reset_delayed": bool(getattr(module, "reset_delay", True)),
    }


def _short(constants: dict[str, Any]) -> dict[str, Any]:
    """Without what a network file takes by itself."""
    usual = {"v_reset": None, "reset_delayed": True}
    return {k: v for k, v in constants.items() if k not in usual or v is not usual[k]}


def _leaky(walk: Walk, path: str, module: Any, flow: Flow) -> Flow:
    beta, common = _clamped(module.beta), _common(path, module)
    if module.reset_mechanism == "none":
        return _read_out(walk, path, beta, flow)
    return walk.neuron(path, "lif", flow, _short({"form": "snntorch", "beta": beta, **common}))


def _read_out(walk: Walk, path: str, beta: Any, flow: Flow) -> Flow:
    """A neuron that is never reset, as the last module: its membrane is the result."""
    if isinstance(beta, float):
        walk.last = ("membrane", {"decay": beta})
    else:
        full = np.broadcast_to(beta, flow.shape).ravel()
        walk.last = ("leaky", {"decay": [float(x) for x in full], "gain": 1.0})
    walk.builder.note(
        path or "module",
        "it is never reset: its membrane is the result, and its spikes are not sent.",
    )
    return flow


def _must_reset(path: str, module: Any) -> None:
    if module.reset_mechanism == "none":
        raise refused(path, "reset_mechanism is 'none': legal are 'subtract' and 'zero'.")


def _synaptic(walk: Walk, path: str, module: Any, flow: Flow) -> Flow:
    _must_reset(path, module)
    leaks = {"alpha": _clamped(module.alpha), "beta": _clamped(module.beta)}
    constants = {"form": "snntorch", **leaks, **_common(path, module)}
    return walk.neuron(path, "cubalif", flow, _short(constants))


def _lapicque(walk: Walk, path: str, module: Any, flow: Flow) -> Flow:
    """mem = (1 - dt / RC) mem + (dt / C) x: everything is divided by dt / C."""
    _must_reset(path, module)
    step, r, c = (values_of(getattr(module, name)) for name in ("time_step", "R", "C"))
    common = _common(path, module)
    common["v_threshold"] = common["v_threshold"] / (step / c)
    beta = np.float64(1.0) - step / (r * c)
    return _whole_reset(walk, path, flow, beta if np.ndim(beta) else float(beta), common)


def _whole_reset(
    walk: Walk, path: str, flow: Flow, beta: Any, common: dict[str, Any], name: str = ""
) -> Flow:
    """A Leaky whose reset to zero takes the input of the step with it, as Synaptic's does."""
    if common["v_reset"] is None:
        constants = {"form": "snntorch", "beta": beta, **common}
        return walk.neuron(path, "lif", flow, _short(constants), name)
    constants = {"form": "snntorch", "alpha": 0.0, "beta": beta, **common}
    return walk.neuron(path, "cubalif", flow, _short(constants), name)


def _recurrent(walk: Walk, path: str, module: Any, flow: Flow) -> Flow:
    """The neuron reads the sum of its input and of what its last spikes give."""
    _must_reset(path, module)
    cells = walk.builder.reserve(f"{path}.cells" if path else "cells")
    back = _back(walk, path, module, replace(flow, source=Source(cells, 1)))
    if back.shape != flow.shape:
        raise refused(path, f"its recurrent connection gives {back.shape}, its input {flow.shape}.")
    total = walk.builder.add(f"{path}.sum" if path else "sum", "add", [flow.source, back.source])
    inside, common = replace(flow, source=total), _common(path, module)
    if hasattr(module, "alpha"):
        leaks = {"alpha": _clamped(module.alpha), "beta": _clamped(module.beta)}
        constants = {"form": "snntorch", **leaks, **common}
        return walk.neuron(path, "cubalif", inside, _short(constants), cells)
    return _whole_reset(walk, path, inside, _clamped(module.beta), common, cells)


def _back(walk: Walk, path: str, module: Any, late: Flow) -> Flow:
    inner = f"{path}.recurrent" if path else "recurrent"
    if module.all_to_all:
        return walk.enter(inner, module.recurrent, late)
    factors = weights_of(module.recurrent, "V")["V"].ravel()
    return walk.add(inner, "scale", late, late.shape, arrays={"weight": factors})
