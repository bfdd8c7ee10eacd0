"""From a network to a NIR graph, as plain data. Pure.

A NIR file holds neither dt nor how a membrane is reset: times are written for the `dt` that is
given, and `Exported.options` say how to read the file again. What NIR has no words for (adaptive
neurons, attention, max pooling, the readout) is refused with the layer's name, or noted.

1. Batch norms and divisors are folded, as for compiling (compiler/fold.py).
2. Every layer becomes a node; of an average over 2**n values an AvgPool2d, or a sum and a Scale.
3. A recurrent edge of one step is written as it is, where the cycle has but one neuron: readers of
   NIR give it that step. Other delays are Delay nodes.
4. The readout becomes an LI where it is a leaky integrator; NIR's output is the last layer else.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from math import prod
from typing import Any, TypeAlias

import numpy as np

from topologies.compiler.fold import fold
from topologies.compiler.order import infer_shapes, place_of, readers_of, signals_of
from topologies.importers.nir_options import NirOptions
from topologies.layers import layer_class
from topologies.model import INPUT, Fault, Layer, Network, NetworkError, Source
from topologies.stages.base import Array, ValueType
from topologies.stages.common import pair
from topologies.stages.cubalif import CubaLif
from topologies.stages.integrator import Integrator
from topologies.stages.multispike import MultiSpike
from topologies.stages.neuron import If, Lif
from topologies.stages.plif import Plif

__all__ = ["Exported", "export_nir"]

_Fields: TypeAlias = dict[str, Any]
_OUTPUT = "output"


@dataclass(frozen=True, eq=False)
class Exported:
    """The document of a NIR graph, how to read it again, and what it does not say."""

    document: Mapping[str, Any]
    options: NirOptions
    notes: tuple[str, ...]


def export_nir(network: Network, dt: float) -> Exported:
    """The NIR graph of a network that is stepped every `dt` seconds.

    Raises NetworkError with every layer that NIR cannot say.
    """
    folded = fold(network)
    shapes, _ = infer_shapes(folded)
    work = _Work(folded, dt, shapes)
    for layer in folded.layers:
        work.layer(layer)
    work.output()
    if work.faults:
        raise NetworkError(work.faults, network.name)
    document = {"type": "NIRGraph", "nodes": work.nodes, "edges": work.edges}
    return Exported(document, work.options(), tuple(work.notes))


@dataclass(eq=False)
class _Work:
    network: Network
    dt: float
    shapes: Mapping[str, tuple[int, ...]]
    nodes: dict[str, _Fields] = field(default_factory=dict)
    edges: list[tuple[str, str]] = field(default_factory=list)
    faults: list[Fault] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    resets: dict[str, str] = field(default_factory=dict)
    fires: dict[str, str] = field(default_factory=dict)
    most: int = 1

    def __post_init__(self) -> None:
        self.nodes[INPUT] = _node("Input", shape=np.array(self.network.input.shape))

    def layer(self, layer: Layer) -> None:
        """One layer, with the edges into it."""
        write = _WRITE.get(layer.kind)
        if write is None:
            self._fault(layer, f"NIR has no {layer.kind}: it has {', '.join(sorted(_WRITE))}.")
            return
        try:
            fields = write(self, layer)
        except _CannotSay as error:
            self._fault(layer, str(error))
            return
        if layer.kind != "add":
            self.nodes[layer.name] = fields
            self._connect(layer.name, layer, layer.sources)

    def _fault(self, layer: Layer, sentence: str) -> None:
        self.faults.append(Fault(place_of(self.network, layer.name), sentence))

    def _connect(self, node: str, layer: Layer, sources: Sequence[Source]) -> None:
        """The edges into a node; what reads an add reads what that adds up, as NIR sums edges."""
        by_name = {other.name: other for other in self.network.layers}
        for source in sources:
            added = by_name.get(source.layer)
            if added is not None and added.kind == "add":
                later = [Source(s.layer, s.delay + source.delay) for s in added.sources]
                self._connect(node, layer, later)
                continue
            edge = (self._read(layer, source), node)
            if edge in self.edges:
                self._fault(layer, f"it reads {source.layer!r} twice, which NIR cannot say.")
            self.edges.append(edge)

    def shape(self, layer: Layer) -> tuple[int, ...]:
        """What a layer reads."""
        return self.shapes[layer.sources[0].layer]

    def _read(self, layer: Layer, source: Source) -> str:
        """The node that a layer reads: behind a delay a Delay node, see the module, 3."""
        if not source.delay or (source.delay == 1 and self._alone(layer, source.layer)):
            return source.layer
        name = f"{source.layer}.late{source.delay}"
        if name not in self.nodes:
            delay = np.full(self.shapes[source.layer], source.delay * self.dt)
            self.nodes[name] = _node("Delay", delay=delay)
            self.edges.append((source.layer, name))
        return name

    def _alone(self, layer: Layer, source: str) -> bool:
        """Whether what `layer` passes on reaches the neuron `source` before any other."""
        readers, signals = readers_of(self.network), signals_of(self.network)
        reached, seen = {layer.name}, set[str]()
        while reached - seen - {source}:
            name = (reached - seen - {source}).pop()
            seen.add(name)
            if name in signals or name not in readers or not readers[name]:
                return False
            reached |= set(readers[name])
        return source in reached

    def output(self) -> None:
        """The readout: an LI, or a note."""
        out = self.network.output
        last = out.source
        shape = self.shapes[last]
        if out.readout in ("membrane", "leaky"):
            decay = np.asarray(out.params.get("decay", 1.0), np.float64)
            given = out.params.get("gain", 1.0 - decay if out.readout == "leaky" else 1.0)
            gain = np.asarray(given, np.float64)
            if not _is_last_value(decay, gain):
                self.nodes["readout"] = self._integrator(decay, gain, shape)
                self._connect("readout", self.network.layers[-1], [Source(last)])
                last = "readout"
        else:
            self.notes.append(
                f"NIR says nothing of the readout {out.readout!r}: what reads the file again gets "
                "the last layer's values, step by step."
            )
        self.nodes[_OUTPUT] = _node("Output", shape=np.array(shape))
        if last == "readout":
            self.edges.append((last, _OUTPUT))
        else:
            self._connect(_OUTPUT, self.network.layers[-1], [Source(last)])

    def _integrator(self, decay: Array, gain: Array, shape: tuple[int, ...]) -> _Fields:
        if (decay == 1).all():
            return _node("I", r=np.broadcast_to(gain / self.dt, (prod(shape),)).reshape(shape))
        decay, gain = (np.broadcast_to(x, (prod(shape),)).reshape(shape) for x in (decay, gain))
        g = 1.0 - np.minimum(decay, 1.0 - 1e-12)
        return _node("LI", tau=self.dt / g, r=gain / g, v_leak=np.zeros(shape))

    def options(self) -> NirOptions:
        """How to read the file again; a network may have one reset and one comparison."""
        for name, found in (("reset", self.resets), ("fire", self.fires)):
            if len(set(found.values())) > 1:
                listed = ", ".join(f"{layer} {value}" for layer, value in found.items())
                text = f"a NIR file is read with one {name} for all neurons, but: {listed}."
                raise NetworkError([Fault("", text)], self.network.name)
        multi = [x.name for x in self.network.layers if x.kind == MultiSpike.kind]
        if multi and len(multi) < len(self.resets):
            text = f"only {', '.join(multi)} emit several spikes: NIR is read with one number."
            raise NetworkError([Fault("", text)], self.network.name)
        reset: Any = next(iter(self.resets.values()), "file")
        fire: Any = next(iter(self.fires.values()), ">")
        return NirOptions(dt=self.dt, reset=reset, fire=fire, max_spikes=self.most)

    def spikes(self, layer: Layer, stage: Any, reset: str | None = None) -> _Fields:
        """Threshold and reset of a neuron, and what its reset asks of the reader."""
        shape = self.shapes[layer.name]
        v_reset = getattr(stage, "v_reset", None)
        self.resets[layer.name] = reset or ("subtract" if v_reset is None else "file")
        self.fires[layer.name] = stage.fire
        return {
            "v_threshold": _wide(stage.v_threshold, shape),
            "v_reset": _wide(v_reset or 0.0, shape),
        }


class _CannotSay(Exception):
    """NIR has no words for a layer; a sentence says why."""


def _node(kind: str, **fields: Any) -> _Fields:
    return {"type": kind, **fields}


def _wide(value: Any, shape: tuple[int, ...]) -> Array:
    """One value per neuron, in the shape of the layer, float32 as NIR files hold it."""
    flat = np.asarray(value, np.float64).ravel()
    if flat.size not in (1, prod(shape)):
        flat = np.repeat(flat, prod(shape) // flat.size)
    return np.broadcast_to(flat, (prod(shape),)).reshape(shape).astype(np.float64)


def _is_last_value(decay: Array, gain: Array) -> bool:
    return bool((decay == 0).all() and (gain == 1).all())


def _linear(work: _Work, layer: Layer) -> _Fields:
    weight, bias = layer.arrays["weight"], layer.arrays["bias"]
    if bias.any():
        return _node("Affine", weight=weight, bias=bias)
    return _node("Linear", weight=weight)


def _conv(work: _Work, layer: Layer) -> _Fields:
    rank = layer.arrays["weight"].ndim - 2
    size = work.shape(layer)[1:]
    numbers = {
        name: pair(name, layer.params.get(name, usual), 0)
        for name, usual in (("stride", 1), ("padding", 0), ("dilation", 1))
    }
    given = {name: v[0] if rank == 1 else np.array(v) for name, v in numbers.items()}
    return _node(
        f"Conv{rank}d",
        input_shape=size[0] if rank == 1 else np.array(size),
        groups=layer.params.get("groups", 1),
        weight=layer.arrays["weight"],
        bias=layer.arrays["bias"],
        **given,
    )


def _pool(work: _Work, layer: Layer) -> _Fields:
    kernel = pair("kernel", layer.params["kernel"], 1)
    numbers = {
        "kernel_size": np.array(kernel),
        "stride": np.array(pair("stride", layer.params.get("stride", list(kernel)), 1)),
        "padding": np.array(pair("padding", layer.params.get("padding", 0), 0)),
    }
    shift = layer.params.get("shift", 0)
    if not shift:
        return _node("SumPool2d", **numbers)
    if 2**shift == prod(kernel):
        return _node("AvgPool2d", **numbers)
    raise _CannotSay(f"a mean over {kernel} is neither a sum nor NIR's average once it is folded.")


def _reshape(work: _Work, layer: Layer) -> _Fields:
    shape, out = work.shape(layer), work.shapes[layer.name]
    if len(out) != 1:
        raise _CannotSay(f"NIR flattens, and does not reshape to {list(out)}.")
    return _node("Flatten", input_type=np.array(shape), start_dim=0, end_dim=-1)


def _scale(work: _Work, layer: Layer) -> _Fields:
    if layer.arrays["bias"].any():
        raise _CannotSay("NIR's Scale has no offset.")
    return _node("Scale", scale=_wide(layer.arrays["weight"], work.shapes[layer.name]))


def _add(work: _Work, layer: Layer) -> _Fields:
    return {}


def _delay(work: _Work, layer: Layer) -> _Fields:
    given = layer.arrays.get("steps", layer.params.get("steps"))
    return _node("Delay", delay=_wide(given, work.shapes[layer.name]) * work.dt)


def _stage(work: _Work, layer: Layer) -> Any:
    reads = ValueType(work.shape(layer), 0, 1)
    return layer_class(layer.kind).lowered(layer.params, layer.arrays, [reads])


def _if(work: _Work, layer: Layer) -> _Fields:
    stage: If = _stage(work, layer)
    return _integrate_and_fire(work, layer, work.spikes(layer, stage))


def _integrate_and_fire(work: _Work, layer: Layer, at_spike: _Fields) -> _Fields:
    return _node("IF", r=_wide(1.0 / work.dt, work.shapes[layer.name]), **at_spike)


def _lif(work: _Work, layer: Layer) -> _Fields:
    stage: Lif = _stage(work, layer)
    leak = np.asarray(stage.leak, np.float64)
    rest = 0.0 if stage.v_reset is None else stage.v_reset
    if stage.form == "spikingjelly":
        gain = 1.0 if stage.decay_input else leak
        return _leaky(work, layer, stage, 1.0 / leak, gain, rest)
    if stage.form == "norse":
        return _leaky(work, layer, stage, leak, 1.0, stage.v_leak)
    if (leak == 1).all():
        reset = _reset_of_snntorch(stage) if stage.form == "snntorch" else None
        return _integrate_and_fire(work, layer, work.spikes(layer, stage, reset))
    if (leak == 1).any():
        raise _CannotSay("some of its neurons leak and some do not.")
    return _leaky(work, layer, stage, 1.0 - leak, 1.0 / (1.0 - leak), 0.0)


def _reset_of_snntorch(stage: Lif | CubaLif) -> str:
    if stage.v_reset is None and not stage.reset_delayed:
        raise _CannotSay("NIR's readers have no name for this reset of snnTorch: delay it.")
    if stage.v_reset is not None and stage.reset_delayed:
        raise _CannotSay("NIR's readers have no name for a reset to zero that is delayed.")
    return "snntorch" if stage.v_reset is None else "snntorch-zero"


def _leaky(work: _Work, layer: Layer, stage: Any, g: Any, r: Any, v_leak: Any) -> _Fields:
    """A LIF with g = dt / tau."""
    shape = work.shapes[layer.name]
    reset = _reset_of_snntorch(stage) if getattr(stage, "form", "") == "snntorch" else None
    at_spike = work.spikes(layer, stage, reset)
    constants = {"tau": work.dt / np.asarray(g), "r": r, "v_leak": v_leak}
    return _node("LIF", **{k: _wide(v, shape) for k, v in constants.items()}, **at_spike)


def _plif(work: _Work, layer: Layer) -> _Fields:
    stage: Plif = _stage(work, layer)
    g = np.asarray(stage.tau_inv, np.float64)
    rest = 0.0 if stage.v_reset is None else stage.v_reset
    return _leaky(work, layer, stage, g, 1.0 if stage.decay_input else 1.0 / g, rest)


def _cubalif(work: _Work, layer: Layer) -> _Fields:
    stage: CubaLif = _stage(work, layer)
    if stage.form == "norse":
        mem, syn = (np.asarray(x, np.float64) for x in (stage.leak, stage.leak_syn))
        reset, w_in, r = None, np.ones(1), mem
    else:
        mem, syn = (1.0 - np.asarray(x, np.float64) for x in (stage.leak, stage.leak_syn))
        reset = _reset_of_snntorch(stage) if stage.form == "snntorch" else None
        w_in, r = np.asarray(stage.w_in, np.float64), np.asarray(stage.r, np.float64)
    at_spike = work.spikes(layer, stage, reset)
    return _node("CubaLIF", **_cuba(work, layer, mem, syn, w_in, r, stage.v_leak), **at_spike)


def _cuba(work: _Work, layer: Layer, mem: Any, syn: Any, w_in: Any, r: Any, v_leak: Any) -> _Fields:
    """Fields of a node with g = dt / tau of membrane and synapse, and its gains per step."""
    if (np.asarray(mem) <= 0).any() or (np.asarray(syn) <= 0).any():
        raise _CannotSay("a membrane or current that never decays has no time constant.")
    shape = work.shapes[layer.name]
    constants = {
        "tau_mem": work.dt / mem,
        "tau_syn": work.dt / syn,
        "w_in": w_in / syn,
        "r": r / mem,
        "v_leak": v_leak,
    }
    return {name: _wide(value, shape) for name, value in constants.items()}


def _multispike(work: _Work, layer: Layer) -> _Fields:
    stage: MultiSpike = _stage(work, layer)
    work.most = max(work.most, stage.max_spikes)
    mem, syn = (1.0 - np.asarray(x, np.float64) for x in (stage.decay, stage.decay_syn))
    w_in, r = np.asarray(stage.w_in, np.float64), np.asarray(stage.r, np.float64)
    at_spike = work.spikes(layer, stage, "subtract")
    if not mem.any() and (syn == 1).all():
        gain = _wide(w_in * r, work.shapes[layer.name])
        at_spike["v_threshold"] = at_spike["v_threshold"] / gain
        return _integrate_and_fire(work, layer, at_spike)
    return _node("CubaLIF", **_cuba(work, layer, mem, syn, w_in, r, stage.v_leak), **at_spike)


def _integrator(work: _Work, layer: Layer) -> _Fields:
    stage: Integrator = _stage(work, layer)
    mem, syn = (1.0 - np.asarray(x, np.float64) for x in (stage.decay, stage.decay_syn))
    w_in, r = np.asarray(stage.w_in, np.float64), np.asarray(stage.r, np.float64)
    if not mem.any() and (syn == 1).all():
        return _node("I", r=_wide(w_in * r / work.dt, work.shapes[layer.name]))
    return _node("CubaLI", **_cuba(work, layer, mem, syn, w_in, r, stage.v_leak))


_WRITE: Mapping[str, Callable[[_Work, Layer], _Fields]] = {
    "add": _add,
    "conv1d": _conv,
    "conv2d": _conv,
    "cubalif": _cubalif,
    "delay": _delay,
    "if": _if,
    "integrator": _integrator,
    "lif": _lif,
    "linear": _linear,
    "multispike": _multispike,
    "plif": _plif,
    "reshape": _reshape,
    "scale": _scale,
    "sum_pool": _pool,
}
