"""Small networks of every shape, made from a seed: for tests of what must hold for all networks."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from topologies.compiler.order import infer_shapes
from topologies.model import INPUT, FloatArray, Input, Layer, Network, Output, Source
from topologies.stages.base import Array

__all__ = ["random_inputs", "random_network"]

_NEURONS: tuple[tuple[str, Mapping[str, Any]], ...] = (
    ("if", {}),
    ("if", {"v_reset": 0.0, "fire": ">"}),
    ("lif", {"tau": 2.0}),
    ("lif", {"tau": 1.5, "decay_input": False, "v_reset": 0.25}),
    ("lif", {"form": "snntorch", "beta": 0.9}),
    ("lif", {"form": "snntorch", "beta": 0.75, "v_reset": 0.0, "reset_delayed": False}),
    ("lif", {"form": "norse", "dt": 0.001, "tau_mem_inv": 400.0}),
    ("lif", {"form": "plain", "decay": 0.5}),
    ("plif", {"tau_inv": 0.6, "v_reset": 0.0}),
    ("cubalif", {"decay": 0.7, "decay_syn": 0.5, "r": 0.8}),
    ("cubalif", {"form": "norse", "tau_mem_inv": 400.0, "tau_syn_inv": 500.0, "v_reset": 0.0}),
    ("multispike", {"decay": 0.5, "max_spikes": 3}),
    ("alif", {"form": "lsnn", "decay": 0.8, "rho": 0.9, "beta": 0.5}),
    ("alif", {"form": "yin", "decay": 0.5, "rho": 0.9, "beta": 1.8, "v_threshold": 0.25}),
)


@dataclass
class _Builder:
    """Draws and appends layers; `at` is the layer that the next one reads."""

    seed: int
    layers: list[Layer] = field(default_factory=list)
    at: str = INPUT
    shape: tuple[int, ...] = ()
    drawn: int = 0

    def draw(self, n: int) -> int:
        """A whole number below n."""
        self.drawn += 1
        return int(np.random.Philox(key=[self.seed, self.drawn]).random_raw()) % n

    def weights(self, *shape: int, gain: float = 2.0) -> FloatArray:
        """Float32 weights, uniform, of a spread in proportion to 1 / sqrt(fan-in)."""
        self.drawn += 1
        n = int(np.prod(shape))
        words = np.random.Philox(key=[self.seed, self.drawn]).random_raw(n)
        unit = (words >> np.uint64(40)).astype(np.float64) / 2.0**23 - 1.0
        fan_in = max(1, int(np.prod(shape[1:])))
        scaled = (unit * gain * np.sqrt(3.0 / fan_in) + gain / (4.0 * fan_in)).astype(np.float32)
        weights: FloatArray = scaled.astype(np.float64).reshape(shape)
        return weights

    def add(self, kind: str, *sources: Source, arrays: Any = None, **params: Any) -> str:
        """Appends a layer that reads `sources` (default: `at`); it is the new `at`."""
        name = f"{kind}{len(self.layers)}"
        reads = sources or (Source(self.at),)
        self.layers.append(Layer(name, kind, reads, params, arrays or {}))
        self.at = name
        return name

    def neurons(self) -> str:
        """Neurons of any kind; some have one threshold per channel."""
        kind, params = _NEURONS[self.draw(len(_NEURONS))]
        if kind == "multispike" and len(self.layers) % 2:
            return self.add("cubalif_int", decay_u=1500, decay_v=300, v_threshold=1.5)
        if params.get("form") == "lsnn" and len(self.layers) % 2:
            params = {**params, "refractory": 2}
        if self.draw(4) or not self.shape:
            return self.add(kind, **params)
        lowest = params.get("v_threshold", 1.0)
        thresholds = [lowest * (1.0 + self.draw(8) / 8.0) for _ in range(self.shape[0])]
        return self.add(kind, **{**params, "v_threshold": thresholds})

    def shared(self, n_in: int, n_out: int, *sources: Source) -> str:
        """A linear layer of every token."""
        return self.add("conv1d", *sources, arrays={"weight": self.weights(n_out, n_in, 1)})

    def conv(self, channels: int, n_out: int, *sources: Source) -> str:
        size = 1 + 2 * self.draw(2)
        arrays = {"weight": self.weights(n_out, channels, size, size)}
        if self.draw(2):
            arrays["bias"] = self.weights(n_out, gain=0.25)
        name = self.add("conv2d", *sources, arrays=arrays, padding=size // 2)
        return self.norm(n_out) if self.draw(3) == 0 else name

    def norm(self, n: int) -> str:
        arrays = {
            "weight": self.weights(n) + 2.0,
            "bias": self.weights(n, gain=0.25),
            "running_mean": self.weights(n, gain=0.25),
            "running_var": np.abs(self.weights(n)) + 0.5,
        }
        return self.add("batch_norm", arrays=arrays)

    def pool(self) -> None:
        kind = ("max_pool", "avg_pool", "sum_pool")[self.draw(3)]
        if min(self.shape[1:]) >= 2:
            self.add(kind, kernel=2)
            self.shape = (self.shape[0], self.shape[1] // 2, self.shape[2] // 2)


def _plain(make: _Builder, n_out: int) -> None:
    make.conv(make.shape[0], n_out)
    make.shape = (n_out, *make.shape[1:])
    if make.draw(3) == 0:
        make.pool()
    make.neurons()
    if make.draw(3) == 0:
        make.pool()


def _skip(make: _Builder, n_out: int) -> None:
    """Two layers and a branch around the second one: currents are added."""
    _plain(make, n_out)
    first = make.at
    make.conv(n_out, n_out)
    make.neurons()
    left = make.conv(n_out, n_out)
    right = make.conv(n_out, n_out, Source(first))
    make.add("add", Source(left), Source(right))
    make.neurons()


def _spikes_added(make: _Builder, n_out: int) -> None:
    """A spike-element-wise add; sometimes what it adds to is read by someone else too."""
    _plain(make, n_out)
    before = make.at
    make.conv(n_out, n_out)
    after = make.neurons()
    make.add("add", Source(after), Source(before))


def _thirds(make: _Builder, n_out: int) -> None:
    """An average over 3 x 3, whose divisor the next convolution takes up."""
    _plain(make, n_out)
    make.add("avg_pool", kernel=3, stride=1, padding=1)
    _plain(make, n_out)


def _recurrent(make: _Builder, n_out: int) -> None:
    """A layer that reads itself a few steps later."""
    forward = make.conv(make.shape[0], n_out)
    make.shape = (n_out, *make.shape[1:])
    place = len(make.layers)
    delay = 1 + make.draw(3)
    back = make.conv(n_out, n_out, Source("", 1))
    make.add("add", Source(forward), Source(back))
    neurons = make.neurons()
    looped = make.layers[place]
    sources = (Source(neurons, delay),)
    make.layers[place] = Layer(looped.name, looped.kind, sources, looped.params, looped.arrays)


def _membranes(make: _Builder, n_out: int) -> None:
    """A membrane shortcut: sums go back onto one grid and pass the neurons by."""
    make.conv(make.shape[0], n_out)
    make.shape = (n_out, *make.shape[1:])
    grid = {"unit": 6, "bits": (12, 32)[make.draw(2)], "saturate": True}
    if make.draw(3):
        before = make.add("requantise", **grid)
    else:
        before = make.add("integrator", decay=0.5, unit=6, bits=12)
    make.neurons()
    branch = make.conv(n_out, n_out)
    make.add("add", Source(branch), Source(before))
    make.add("requantise", **grid)
    make.neurons()


def _scaled(make: _Builder, n_out: int) -> None:
    """A pool, then a factor and an offset per channel, or a batch norm that nothing takes up."""
    _plain(make, n_out)
    make.pool()
    if make.draw(2):
        make.norm(n_out)
    else:
        factors = {"weight": make.weights(n_out), "bias": make.weights(n_out, gain=0.25)}
        make.add("scale", arrays=factors)
    make.neurons()


def _late(make: _Builder, n_out: int) -> None:
    """Spikes that come later: all alike, or each channel by its own number of steps."""
    _plain(make, n_out)
    alike = make.draw(2) == 0
    make.add("delay", steps=2 if alike else [make.draw(4) for _ in range(make.shape[0])])
    _plain(make, n_out)


def _tokens(make: _Builder, n_out: int) -> tuple[int, ...]:
    """Neurons whose places become tokens; gives the shape to go back to."""
    _plain(make, n_out)
    make.add("reshape", shape=[n_out, -1])
    shape, make.shape = make.shape, (n_out, make.shape[1] * make.shape[2])
    return shape


def _back(make: _Builder, shape: tuple[int, ...]) -> None:
    make.add("reshape", shape=list(shape))
    make.shape = shape


def _projections(make: _Builder, n: int) -> list[Source]:
    """Queries, keys and values, spikes all three."""
    tokens = Source(make.at)
    found = []
    for _ in range(3):
        make.shared(n, n, tokens)
        found.append(Source(make.neurons()))
    return found


def _attention(make: _Builder, n_out: int) -> None:
    """Spiking self-attention with one or more heads."""
    shape = _tokens(make, n_out)
    make.add("ssa", *_projections(make, n_out), heads=(1, n_out)[make.draw(2)])
    make.neurons()
    _back(make, shape)


def _masked(make: _Builder, n_out: int) -> None:
    """Spike-driven self-attention: a mask per channel."""
    shape = _tokens(make, n_out)
    q, k, v = _projections(make, n_out)
    make.add("multiply", k, v)
    make.add("reduce", axes=-1, op="sum", keep=True)
    n_tokens, make.shape = make.shape[1], (n_out, 1)
    mask = make.neurons()
    make.add("multiply", q, Source(mask))
    make.shape = (n_out, n_tokens)
    _back(make, shape)


def _nodes(make: _Builder, n_out: int) -> None:
    """Sums over the edges of a graph, whose nodes are the places."""
    shape = _tokens(make, n_out)
    n_nodes = make.shape[1]
    ends = [[make.draw(n_nodes) for _ in range(2 * n_nodes)] for _ in range(2)]
    arrays = {"edges": np.array(ends, np.float64), "weight": make.weights(2 * n_nodes, 4)[:, 0]}
    make.shared(n_out, n_out)
    make.add("graph", arrays=arrays)
    make.neurons()
    _back(make, shape)


_BLOCKS = (
    *(_plain, _skip, _spikes_added, _thirds, _recurrent, _recurrent),
    *(_membranes, _scaled, _late, _attention, _masked, _nodes),
)


def random_network(seed: int, n_steps: int = 7) -> Network:
    """A network of one to three blocks: plain, skip, add of spikes, odd pool, recurrent, membrane
    shortcut, scale, delays, attention of both kinds, graph.

    Encoders, neurons, pools and readouts are drawn too. The same seed, the same network.
    """
    make = _Builder(seed)
    make.shape = shape = (1 + make.draw(2), 4 + make.draw(3), 4 + make.draw(3))
    source = _input(make, n_steps)
    for _ in range(1 + make.draw(3)):
        _BLOCKS[make.draw(len(_BLOCKS))](make, 2 + make.draw(3))
    if make.draw(3):
        make.add("flatten")
    else:
        make.add("reduce", axes=[-2, -1])
    make.shape = ()
    network = Network("random", source, tuple(make.layers), Output("mean", make.at))
    shapes, _ = infer_shapes(network)
    make.add("linear", arrays={"weight": make.weights(6, shapes[make.at][0])})
    if make.draw(2):
        make.neurons()
    make.add("linear", arrays={"weight": make.weights(3, 6), "bias": make.weights(3, gain=0.25)})
    readout = ("mean", "membrane", "count", "leaky")[make.draw(4)]
    if readout == "count":
        make.neurons()
    every = None if make.draw(2) else 1 + make.draw(n_steps)
    params = {"decay": 0.75, "emit": ("last", "mean")[make.draw(2)]} if readout == "leaky" else {}
    output = Output(readout, make.at, {"every": every, **params})
    name = f"random-{seed}-{'x'.join(map(str, shape))}"
    return Network(name, source, tuple(make.layers), output)


def _input(make: _Builder, n_steps: int) -> Input:
    encoders: Sequence[tuple[str, dict[str, Any], float]] = (
        ("direct", {"grid": 3}, 1.0),
        ("rate", {"seed": 5}, 1.0),
        ("latency", {"period": 4}, 1.0),
        ("events", {}, 1.0),
        ("events", {}, 3.0),
    )
    kind, params, high = encoders[make.draw(len(encoders))]
    return Input("random", make.shape, kind, params, high=high, n_steps=n_steps)


def random_inputs(network: Network, n_streams: int, seed: int) -> Array:
    """Legal input of a network for `run_reference`, from a seed."""
    spec = network.input
    words = np.random.Philox(key=[seed, 2**32])
    n = int(np.prod(spec.shape)) * n_streams
    if spec.encoder != "events":
        unit = (words.random_raw(n) >> np.uint64(11)).astype(np.float64) / 2.0**53
        return (spec.low + unit * (spec.high - spec.low)).reshape(n_streams, *spec.shape)
    n_steps = spec.n_steps or 1
    events = (words.random_raw(n * n_steps) >> np.uint64(33)).astype(np.int64)
    present = events % 4 == 0
    levels = events // 4 % int(spec.high) + 1
    return np.where(present, levels, 0).reshape(n_streams, n_steps, *spec.shape)
