"""Operators of every kind of stage, made from a seed, for the tests of backends."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import pytest

from topologies.compiled import Group, Operator, Program
from topologies.stages.add import Add
from topologies.stages.alif import Alif
from topologies.stages.attention import Ssa
from topologies.stages.base import Accumulator, Stage, ValueType, accumulator_for
from topologies.stages.conv import Conv2d
from topologies.stages.conv1d import Conv1d
from topologies.stages.cubalif import CubaLif
from topologies.stages.delay import Delay
from topologies.stages.graph import Graph
from topologies.stages.integrator import Integrator
from topologies.stages.leaky import Leaky
from topologies.stages.linear import Linear
from topologies.stages.loop import Loop
from topologies.stages.multiply import Multiply
from topologies.stages.multispike import MultiSpike
from topologies.stages.neuron import If, Lif, Neuron
from topologies.stages.plif import Plif
from topologies.stages.pool import MaxPool, SumPool
from topologies.stages.readout import Count, Mean, Membrane, Readout
from topologies.stages.reduce import Reduce
from topologies.stages.requantise import Requantise
from topologies.stages.reshape import Reshape
from topologies.stages.scale import Scale

NEURONS: Mapping[str, Neuron] = {
    "if soft": If(),
    "if hard": If(v_reset=0.0, v_threshold=0.7),
    "if hard above zero": If(v_reset=0.25, fire=">"),
    "plain soft": Lif(form="plain", leak=0.5),
    "plain soft high threshold": Lif(form="plain", leak=0.9, v_threshold=1.7),
    "plain hard": Lif(form="plain", leak=0.8, v_reset=-0.25),
    "plain without memory": Lif(form="plain", leak=0.0),
    "spikingjelly soft": Lif(form="spikingjelly", leak=2.0),
    "spikingjelly hard": Lif(form="spikingjelly", leak=1.7, v_reset=0.0),
    "spikingjelly hard below zero": Lif(form="spikingjelly", leak=3.3, v_reset=-0.3),
    "spikingjelly decayed input soft": Lif(form="spikingjelly", leak=1.5, decay_input=True),
    "spikingjelly decayed input hard": Lif(
        form="spikingjelly", leak=2.7, decay_input=True, v_reset=0.0
    ),
    "snntorch soft": Lif(form="snntorch", leak=0.9, fire=">"),
    "snntorch hard": Lif(form="snntorch", leak=0.9, fire=">", v_reset=0.0),
    "snntorch soft delayed": Lif(form="snntorch", leak=0.9, fire=">", reset_delayed=True),
    "snntorch hard delayed": Lif(
        form="snntorch", leak=0.9, fire=">", reset_delayed=True, v_reset=0.0
    ),
    "norse soft": Lif(form="norse", leak=0.1, fire=">", v_threshold=0.3),
    "norse hard": Lif(form="norse", leak=0.3, fire=">", v_leak=0.05, v_reset=-0.1),
    "plif decayed input": Plif(tau_inv=0.4, v_threshold=0.6),
    "plif hard": Plif(tau_inv=0.3, decay_input=False, v_reset=-0.2),
    "cubalif plain": CubaLif(form="plain", leak=0.8, leak_syn=0.6, w_in=0.7, r=0.4, v_leak=0.1),
    "cubalif plain hard": CubaLif(form="plain", leak=0.8, leak_syn=0.6, r=0.4, v_reset=-0.1),
    "cubalif norse": CubaLif(form="norse", leak=0.1, leak_syn=0.2, fire=">", v_reset=0.0),
    "cubalif snntorch": CubaLif(form="snntorch", leak=0.9, leak_syn=0.5, fire=">"),
    "several spikes in a step": MultiSpike(max_spikes=4, decay=0.7, decay_syn=0.3, r=0.8),
    "alif lsnn": Alif(form="lsnn", decay=0.9, rho=0.95, beta=0.3, fire=">"),
    "alif lsnn, refractory": Alif(
        form="lsnn", decay=0.9, rho=0.95, beta=0.1, fire=">", refractory=2
    ),
    "alif yin": Alif(form="yin", decay=0.8, rho=0.9, beta=1.8, v_threshold=0.1, r=2.0, fire=">"),
}


_SPREAD = np.linspace(0.2, 0.9, 70)
# One constant per neuron, of 70: no fast form of a backend may take them for one number.
VARIED: Mapping[str, Neuron] = {
    "if of several thresholds": If(v_threshold=_SPREAD),
    "lif of several leaks": Lif(form="plain", leak=_SPREAD, v_reset=-_SPREAD),
    "lif of several taus": Lif(form="spikingjelly", leak=1.0 + _SPREAD, decay_input=True),
    "cubalif of several leaks": CubaLif(form="norse", leak=_SPREAD, leak_syn=0.3, fire=">"),
    "alif of several constants": Alif(
        form="yin", decay=_SPREAD, rho=_SPREAD[::-1], beta=1.8, v_threshold=_SPREAD / 4, fire=">"
    ),
}


def _ints(rng: np.random.Generator, largest: int, *shape: int) -> Any:
    return rng.integers(-largest, largest, shape, endpoint=True)


def _fitted(stage: Linear | Conv2d, inputs: Sequence[ValueType]) -> Accumulator:
    return accumulator_for(stage.row_bound(inputs))


def make_linear(
    port: ValueType, n: int, *, seed: int = 1, largest: int = 900, shift: int = 10
) -> Linear:
    """Random synapses from `port` to `n` values, with the accumulator their bound allows."""
    rng = np.random.default_rng(seed)
    weight = _ints(rng, largest, n, port.n).astype(np.int16 if largest < 2**15 else np.int32)
    bias = _ints(rng, largest, n).astype(np.int64)
    bias[::3] = 0
    stage = Linear(weight, bias, shift, "float64")
    return Linear(weight, bias, shift, _fitted(stage, [port]))


def make_conv(port: ValueType, n: int, kernel: int, **geometry: Any) -> Conv2d:
    """A random convolution of `port` to `n` channels."""
    rng = np.random.default_rng(2)
    n_in = port.shape[0] // geometry.get("channel_groups", 1)
    weight = _ints(rng, 400, n, n_in, kernel, kernel).astype(np.int16)
    bias = _ints(rng, 400, n).astype(np.int64)
    stage = Conv2d(weight, bias, 9, "float64", **geometry)
    return Conv2d(weight, bias, 9, _fitted(stage, [port]), **geometry)


def chain(port: ValueType, *stages: Stage) -> Operator:
    """The operator of stages one after the other; neurons and readouts take up the unit."""
    types, kept = [port], []
    for stage in stages:
        if isinstance(stage, Neuron | Readout):
            stage = stage.reading(types[-1])
        kept.append(stage)
        types.append(stage.out_type([types[-1]]))
    reads = tuple((index - 1,) for index in range(len(stages)))
    return Operator.of(Program((port,), tuple(kept), reads))


def _joined() -> Operator:
    """Two ports of other units, each with synapses, added into one neuron."""
    ports = (ValueType((30,), 0, 1), ValueType((20,), -7, 9, 3))
    synapses = (make_linear(ports[0], 24), make_linear(ports[1], 24, seed=5, shift=8))
    types = [stage.out_type([port]) for stage, port in zip(synapses, ports, strict=True)]
    finest = max(value.unit for value in types)
    lifts = tuple(finest - value.unit for value in types)
    add = Add(lifts, accumulator_for(Add(lifts, "float64").row_bound(types)))
    neuron = Lif(form="plain", leak=0.5).reading(add.out_type(types))
    return Operator.of(Program(ports, (*synapses, add, neuron), ((-1,), (-2,), (0, 1), (2,))))


def make_conv1d(port: ValueType, n: int, kernel: int, **geometry: int) -> Conv1d:
    """A random convolution of `port` to `n` channels."""
    rng = np.random.default_rng(3)
    n_in = port.shape[0] // geometry.get("channel_groups", 1)
    weight = _ints(rng, 400, n, n_in, kernel).astype(np.int16)
    bias = _ints(rng, 400, n).astype(np.int64)
    return Conv1d(weight, bias, 9, "float64", **geometry).fitted([port])


def make_graph(port: ValueType, n_edges: int) -> Graph:
    """Random edges between the nodes of `port`, some parallel; the last node has none."""
    rng = np.random.default_rng(4)
    edges = rng.integers(0, port.shape[-1] - 1, (2, n_edges)).astype(np.float64)
    weight = rng.normal(0.1, 0.5, n_edges)
    return Graph.lowered({}, {"edges": edges, "weight": weight}, [port], 9)


def _several(ports: Sequence[ValueType], stage: Stage, neuron: Neuron) -> Operator:
    """A stage of several ports, read by a neuron."""
    read = neuron.reading(stage.out_type(ports))
    reads = (tuple(-1 - i for i in range(len(ports))), (0,))
    return Operator.of(Program(tuple(ports), (stage, read), reads))


def _attention(channels: int, n_queries: int, n_keys: int, heads: int) -> Operator:
    """Attention of spikes and small integers."""
    ports = [
        ValueType((channels, n_queries), 0, 1),
        ValueType((channels, n_keys), 0, 3),
        ValueType((channels, n_keys), -2, 1),
    ]
    stage = Ssa.lowered({"heads": heads}, {}, ports)
    return _several(ports, stage, Lif(form="spikingjelly", leak=2.0, v_threshold=0.1))


def _loop(delay: int) -> Operator:
    """Adaptive neurons that read themselves, inside of their operator."""
    ports = (ValueType((50,), 0, 1), ValueType((20,), 0, 1))
    forward, back = make_linear(ports[0], 20), make_linear(ports[1], 20, seed=6)
    types = [stage.out_type([port]) for stage, port in zip((forward, back), ports, strict=True)]
    add = Add.lowered({}, {}, types)
    neuron = NEURONS["alif yin"].reading(add.out_type(types))
    program = Program(ports, (forward, back, add, neuron), ((-1,), (-2,), (0, 1), (2,)))
    return Operator.of(Program(ports[:1], (Loop(program, ((1, delay),)),), ((-1,),)))


def make_kinds() -> dict[str, Operator]:
    """Operators of tokens, nodes, membrane values and delays."""
    tokens, lif = ValueType((12, 10), 0, 1), NEURONS["plain soft"]
    spread = (tokens, ValueType((12, 1), 0, 1))
    membranes = ValueType((5, 4), -(2**20), 2**20, 12)
    sums = Reduce((-1,), keep=True).fitted([tokens])
    onto = Requantise.lowered({"bits": 10, "unit": 8, "saturate": True}, {}, [membranes])
    late = Delay.lowered({"steps": list(np.arange(12) % 5)}, {}, [tokens])
    factors = {"weight": np.linspace(-1.0, 2.0, 12), "bias": np.linspace(0.1, 0.4, 12)}
    shared = make_conv1d(tokens, 8, 1)
    integrator = Integrator.lowered(
        {"decay": 0.7, "unit": 8, "bits": 10}, {}, [shared.out_type([tokens])]
    )
    conv = make_conv1d(tokens, 9, 3, stride=2, padding=2, dilation=2)
    return {
        "convolution in one dimension": chain(tokens, conv, lif),
        "linear layer of tokens": chain(tokens, shared, lif),
        "grouped convolution in one dimension": chain(
            tokens, make_conv1d(tokens, 8, 3, channel_groups=4), lif
        ),
        "graph": chain(tokens, make_graph(tokens, 60), lif),
        "graph of features": chain(tokens, shared, make_graph(shared.out_type([tokens]), 60), lif),
        "scale": chain(tokens, Scale.lowered({}, factors, [tokens], 8), lif),
        "sum over tokens": chain(tokens, sums, If(v_threshold=3.0)),
        "sum behind neurons": chain(tokens, shared, lif, Reduce((-1,))),
        "mask": _several(spread, Multiply("float32"), If(v_threshold=2.0)),
        "attention of many tokens": _attention(12, 20, 17, 4),
        "attention of few tokens": _attention(24, 3, 4, 2),
        "membranes that travel": chain(tokens, shared, integrator, lif),
        "requantised membranes": chain(membranes, onto, lif),
        "delays": chain(tokens, late, If(v_threshold=2.0)),
        "loop": _loop(1),
        "loop of three steps": _loop(3),
    }


def make_operators() -> dict[str, Operator]:
    """One operator of every kind that a backend treats in its own way."""
    spikes, image = ValueType((50,), 0, 1), ValueType((6, 9, 7), 0, 1)
    graded, signed = ValueType((4, 8, 8), 0, 4, 2), ValueType((40,), -300, 200, 4)
    neurons = {**NEURONS, **VARIED}
    made = {name: chain(spikes, make_linear(spikes, 70), n) for name, n in neurons.items()}
    lif = NEURONS["plain soft"]
    conv = make_conv(image, 8, 3, padding=(1, 1))
    pooled = ValueType((8, 4, 3), 0, 4, 2)
    pools = SumPool((2, 2), (2, 2), shift=2), MaxPool((3, 2), (2, 1), (1, 0))
    wide = make_linear(spikes, 9, largest=2**24, shift=24)
    middle = make_linear(spikes, 9, largest=2**20, shift=20)
    made |= make_kinds()
    made |= {
        "convolution": chain(image, conv, lif),
        "strided convolution": chain(
            image, make_conv(image, 6, 3, stride=(2, 1), padding=(1, 0)), lif
        ),
        "dilated convolution": chain(image, make_conv(image, 6, 2, dilation=(2, 3)), lif),
        "grouped convolution": chain(
            image, make_conv(image, 9, 3, channel_groups=3, padding=(2, 1)), lif
        ),
        "convolution of graded spikes": chain(graded, make_conv(graded, 5, 3), lif),
        "sum pool at the end": chain(image, conv, lif, pools[0]),
        "max pool": chain(image, pools[1], Reshape((-1,)), make_linear(pools_out(image), 9), lif),
        "whole network": chain(
            image, conv, lif, pools[0], make_conv(pooled, 7, 3), lif, Reshape((-1,)),
            make_linear(ValueType((14,), 0, 1), 10), Mean(every=4),
        ),
        "signed input": chain(signed, make_linear(signed, 33), lif),
        "join": _joined(),
        "float64 sums": chain(spikes, wide, NEURONS["spikingjelly hard"]),
        "int32 sums": chain(spikes, middle, lif),
        "count": chain(spikes, make_linear(spikes, 10), lif, Count()),
        "count every 2": chain(spikes, make_linear(spikes, 10), lif, Count(every=2)),
        "mean": chain(spikes, make_linear(spikes, 10), Mean()),
        "mean of wide sums": chain(spikes, wide, Mean(every=3)),
        "membrane": chain(spikes, make_linear(spikes, 10), Membrane(decay=0.9, every=3)),
        "leaky": chain(spikes, make_linear(spikes, 10), Leaky(decay=0.9, gain=0.1)),
        "mean of leaky": chain(
            spikes, make_linear(spikes, 5),
            Leaky(decay=np.array([0.1, 0.2, 0.3, 0.4, 0.9]), gain=0.3, emit="mean", every=3),
        ),
    }  # fmt: skip
    return made


def pools_out(image: ValueType) -> ValueType:
    """What the test's max pool makes of an image, flat."""
    n = MaxPool((3, 2), (2, 1), (1, 0)).out_type([image]).n
    return ValueType((n,), 0, 1)


@pytest.fixture(scope="session")
def operators() -> dict[str, Operator]:
    """See make_operators."""
    return make_operators()


@pytest.fixture(scope="session")
def neurons() -> Mapping[str, Neuron]:
    """Neurons of every form and reset, by name."""
    return NEURONS


@pytest.fixture(scope="session")
def whole() -> Callable[[Operator], Group]:
    """The one group that is all of an operator."""
    return lambda operator: Group(0, 0, operator.output.n)
