"""Modules of Norse 1.1.0: cells that are called once per step, and modules with time.

It fires above the threshold, `>`, and starts at v_leak. `RecurrentSequential` feeds nothing back in
step 0, so that the bias of a recurrent connection acts from step 1.
Sources: norse 1.1.0 `LIFBoxCell`, `LIFCell`, `LIFRecurrentCell`, `IAFCell`, `LICell`, `LIBoxCell`.
"""

from dataclasses import replace
from typing import Any

import numpy as np

from topologies.importers.build import compact
from topologies.importers.from_torch import weights_of
from topologies.importers.modules import Flow, Handler, Handlers, Walk, refused, values_of
from topologies.model import Source

__all__ = ["handlers"]


def handlers() -> Handlers:
    """What Norse has and networks know."""
    import norse.torch as norse

    leaves: dict[type, Handler] = {
        norse.LIFBoxCell: _lif_box,
        norse.LIFCell: _lif,
        norse.LIF: _lif,
        norse.LIFRecurrentCell: _lif_recurrent,
        norse.LIFRecurrent: _lif_recurrent,
        norse.IAFCell: _iaf,
        norse.IAF: _iaf,
        norse.LICell: _li,
        norse.LI: _li,
        norse.LIBoxCell: _li,
    }
    containers: dict[type, Handler] = {
        norse.SequentialState: Walk.children,
        norse.Lift: _lift,
        norse.RecurrentSequential: _loop,
    }
    return Handlers(leaves, containers)


def _lift(walk: Walk, path: str, module: Any, flow: Flow) -> Flow:
    """A module that is called step by step: it sees no time."""
    return replace(walk.children(path, module, replace(flow, lead=1)), lead=flow.lead)


def _rates(module: Any, *names: str) -> dict[str, Any]:
    """dt and rates, as Norse multiplies them; a v_leak that is not 0."""
    rates = {name: values_of(getattr(module.p, name)) for name in names}
    leak = values_of(module.p.v_leak)
    return {"dt": float(module.dt), **rates, **({"v_leak": leak} if np.any(leak) else {})}


def _at_spike(module: Any) -> dict[str, Any]:
    return {"v_threshold": values_of(module.p.v_th), "v_reset": values_of(module.p.v_reset)}


def _lif_box(walk: Walk, path: str, module: Any, flow: Flow) -> Flow:
    at_spike = _at_spike(module)
    method = getattr(module.p.reset_method, "__name__", "")
    if method not in ("reset_value", "reset_subtract"):
        raise refused(path, f"reset_method is {method}: legal are reset_value, reset_subtract.")
    if method == "reset_subtract":
        del at_spike["v_reset"]
    constants = {"form": "norse", **_rates(module, "tau_mem_inv"), **at_spike}
    return walk.neuron(path, "lif", flow, constants)


def _lif(walk: Walk, path: str, module: Any, flow: Flow, name: str = "") -> Flow:
    rates = _rates(module, "tau_mem_inv", "tau_syn_inv")
    return walk.neuron(path, "cubalif", flow, {"form": "norse", **rates, **_at_spike(module)}, name)


def _lif_recurrent(walk: Walk, path: str, module: Any, flow: Flow) -> Flow:
    """It has the weights of its input and of its own last spikes, without biases."""
    weights = weights_of(module, "input_weights", "recurrent_weights")
    n_out, n_in = weights["input_weights"].shape
    if flow.shape != (n_in,):
        raise refused(path, f"it reads ({n_in},), but is given {flow.shape}.")
    start = f"{path}." if path else ""
    cells = walk.builder.reserve(f"{start}cells")
    forward = {"weight": weights["input_weights"]}
    ahead = walk.add(f"{start}input_weights", "linear", flow, (n_out,), arrays=forward)
    late = replace(ahead, source=Source(cells, 1))
    own = {"weight": weights["recurrent_weights"]}
    back = walk.add(f"{start}recurrent_weights", "linear", late, (n_out,), arrays=own)
    total = walk.builder.add(f"{start}sum", "add", [ahead.source, back.source])
    return _lif(walk, path, module, replace(ahead, source=total), cells)


def _iaf(walk: Walk, path: str, module: Any, flow: Flow) -> Flow:
    return walk.neuron(path, "if", flow, {**_at_spike(module), "fire": ">"})


def _li(walk: Walk, path: str, module: Any, flow: Flow) -> Flow:
    """v + k ((v_leak - v) + j), j = (1 - c) j + x; as a layer whose membrane is read out."""
    dt = np.float32(module.dt)

    def per_step(name: str) -> Any:
        return np.asarray(dt * np.asarray(values_of(getattr(module.p, name)), np.float32))

    k = per_step("tau_mem_inv").astype(np.float64)
    constants = {"decay": 1.0 - k, "r": k, "v_leak": np.asarray(values_of(module.p.v_leak))}
    if hasattr(module.p, "tau_syn_inv"):
        constants["decay_syn"] = 1.0 - per_step("tau_syn_inv").astype(np.float64)
    full = {name: compact(value, flow.shape) for name, value in constants.items()}
    source = walk.builder.add_constants(path or "module", "integrator", [flow.source], full)
    walk.last = ("membrane", {"decay": 0.0})
    return replace(flow, source=source, spikes=False)


def _loop(walk: Walk, path: str, module: Any, flow: Flow) -> Flow:
    """x plus the last step's output goes through the children; one child's output is fed back.

    That child gives spikes, or is a Linear behind one that does.
    """
    if not isinstance(module.output_modules, int):
        raise refused(path, "output_modules is a list: legal is one number.")
    children = list(module.module.named_children())
    index = module.output_modules % len(children)
    start = f"{path}.module." if path else "module."
    back = walk.builder.reserve(f"{start}fed_back")
    flow = replace(flow, source=walk.builder.add(f"{start}sum", "add", [flow.source, Source(back)]))
    inner = flow
    outputs: list[Flow] = []
    for name, child in children:
        inner = walk.enter(f"{start}{name}", child, inner)
        outputs.append(inner)
    out = outputs[index]
    if out.shape != flow.shape:
        raise refused(path, f"it feeds {out.shape} back to {flow.shape}: legal is one shape.")
    if out.spikes:
        walk.builder.add(back, "reshape", [Source(out.source.layer, 1)], {"shape": list(out.shape)})
        return out
    before = outputs[index - 1] if index else flow
    layer = walk.builder.layers[out.source.layer]
    if layer.kind != "linear" or not before.spikes:
        raise refused(path, "what it feeds back must be spikes, or a Linear behind spikes.")
    _late_linear(walk, back, layer.arrays, Source(before.source.layer, 1))
    return out


def _late_linear(walk: Walk, name: str, arrays: Any, late: Source) -> None:
    """A linear layer whose bias acts from step 1: it comes from a neuron that always fires."""
    if "bias" not in arrays or not np.any(arrays["bias"]):
        walk.builder.add(name, "linear", [late], {}, {"weight": arrays["weight"]})
        return
    parts = f"{name}.parts"
    synapses = walk.builder.add(parts, "linear", [late], {}, {"weight": arrays["weight"]})
    always = replace(walk.builder.always(walk.shape), delay=1)
    bias = {"weight": arrays["bias"][:, None]}
    late_bias = walk.builder.add(f"{name}.bias", "linear", [always], {}, bias)
    walk.builder.add(name, "add", [synapses, late_bias])
