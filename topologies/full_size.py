"""Networks in the sizes of the publications, made by code from a seed: for benchmarks. Pure.

    svgg11              VGG-11 with one FC, 3 x 32 x 32, T = 4
    sew_resnet18        ResNet-18 that adds spikes, 3 x 32 x 32, T = 4         arXiv:2102.04159
    plif_dvs_gesture    5 x (C128-MP)-FC512-FC110-vote, 2 x 128 x 128, T = 20  arXiv:2007.05785
    srnn_shd            700-128-128-20, recurrent ALIF, T = 250      doi:10.1038/s42256-021-00397-w
    spiking_gcn         two hops, 1433-7, on Cora's graph, T = 8               arXiv:2205.02767
    spikformer_4_384    4 blocks of 384 channels, 3 x 32 x 32, T = 4           arXiv:2209.15425

Batch norms are taken as folded. Weights are uniform around 0, as large as lets a tenth to a
half of the neurons fire. No accuracy is claimed.
"""

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from topologies.model import INPUT, FloatArray, Input, Layer, Network, Output, Source

__all__ = [
    "FULL_SIZE",
    "plif_dvs_gesture",
    "sew_resnet18",
    "spikformer_4_384",
    "spiking_gcn",
    "srnn_shd",
    "svgg11",
]

_LIF: Mapping[str, Any] = {"form": "spikingjelly", "tau": 2.0, "decay_input": False}
_GAIN = 0.9  # standard deviation of a current at the assumed rate, in thresholds
_BIAS = 0.1
_BUSY = 0.3  # the rate behind pools and sums of spikes


class _Builder:
    """Layers one after the other; each method returns the name of what it added."""

    def __init__(self, seed: int, rate: float = 0.1) -> None:
        self._rate = rate
        self._words = np.random.Philox(key=[seed, 2])
        self.layers: list[Layer] = []
        self.last = INPUT

    def add(
        self,
        name: str,
        kind: str,
        *sources: str | Source,
        arrays: Mapping[str, FloatArray] | None = None,
        **params: Any,
    ) -> str:
        """One layer, which reads the last one unless sources are given."""
        read = [s if isinstance(s, Source) else Source(s) for s in sources or (self.last,)]
        self.layers.append(Layer(name, kind, tuple(read), params, arrays or {}))
        self.last = name
        return name

    def weight(self, *shape: int) -> dict[str, FloatArray]:
        """Weights (out, in, ...) for inputs of the assumed rate, and small biases."""
        n_out, fan_in = shape[0], int(np.prod(shape[1:]))
        largest = _GAIN * np.sqrt(3.0 / (fan_in * self._rate))
        raw = self._words.random_raw(n_out * fan_in) >> np.uint64(11)
        uniform = raw.astype(np.float64).reshape(shape) * 2.0**-52 - 1.0
        return {"weight": uniform * largest, "bias": np.full(n_out, _BIAS)}

    def conv(
        self, name: str, n_in: int, n_out: int, *source: str, kernel: int = 3, **params: Any
    ) -> str:
        """A convolution with its neurons, named after it; returns the neurons."""
        arrays = self.weight(n_out, n_in, kernel, kernel)
        self.add(name, "conv2d", *source, arrays=arrays, padding=kernel // 2, **params)
        return self.add(f"{name}.lif", "lif", **_LIF)

    def token(self, name: str, n_in: int, n_out: int, source: str) -> str:
        """A linear layer for each token, with its neurons."""
        self.add(name, "conv1d", source, arrays=self.weight(n_out, n_in, 1))
        return self.add(f"{name}.lif", "lif", **_LIF)

    def linear(self, name: str, n_in: int, n_out: int, *source: str | Source) -> str:
        """A linear layer, without neurons."""
        return self.add(name, "linear", *source, arrays=self.weight(n_out, n_in))

    def network(self, name: str, input: Input, readout: str, **params: Any) -> Network:
        """The network that reads out the last layer."""
        return Network(name, input, tuple(self.layers), Output(readout, self.last, params))


def _image(name: str) -> Input:
    """A colour image in every one of four steps, in 256ths."""
    params = {"grid": 0, "unit": 8}
    return Input(name, (3, 32, 32), "direct", params, low=0.0, high=255.0, n_steps=4)


def svgg11(seed: int = 0) -> Network:
    """VGG-11: convolutions of 64 to 512 channels with five max pools, one linear layer."""
    made, n_in, number = _Builder(seed, rate=_BUSY), 3, 0
    for stage, channels in enumerate(((64,), (128,), (256, 256), (512, 512), (512, 512)), start=1):
        for n_out in channels:
            number += 1
            made.conv(f"conv{number}", n_in, n_out)
            n_in = n_out
        made.add(f"pool{stage}", "max_pool", kernel=2)
    made.add("flat", "flatten")
    made.linear("fc", 512, 10)
    return made.network("svgg11", _image("svgg11"), "mean", every=4)


def sew_resnet18(seed: int = 0) -> Network:
    """Stem of 64 channels, four stages of two blocks, mean over space, one linear layer."""
    made = _Builder(seed, rate=_BUSY)
    last, n_in = made.conv("stem", 3, 64), 64
    for stage, n_out in enumerate((64, 128, 256, 512), start=1):
        for block in (1, 2):
            stride = 2 if block == 1 and stage > 1 else 1
            last = _sew_block(made, f"stage{stage}.{block}", last, n_in, n_out, stride)
            n_in = n_out
    made.add("mean", "avg_pool", kernel=4)
    made.add("flat", "flatten")
    made.linear("fc", 512, 10)
    return made.network("sew_resnet18", _image("sew_resnet18"), "mean", every=4)


def _sew_block(made: _Builder, name: str, source: str, n_in: int, n_out: int, stride: int) -> str:
    made.conv(f"{name}.conv1", n_in, n_out, source, stride=stride)
    spikes = made.conv(f"{name}.conv2", n_out, n_out)
    if stride > 1:
        source = made.conv(f"{name}.down", n_in, n_out, source, kernel=1, stride=stride)
    return made.add(f"{name}.sum", "add", spikes, source)


def plif_dvs_gesture(seed: int = 0) -> Network:
    """Five convolutions of 128 channels, each with a max pool, and ten votes for each gesture."""
    made, n_in = _Builder(seed), 2
    leak: dict[str, Any] = {"tau_inv": 0.5, "decay_input": True}
    for number in range(1, 6):
        made.add(f"conv{number}", "conv2d", arrays=made.weight(128, n_in, 3, 3), padding=1)
        made.add(f"plif{number}", "plif", **leak)
        made.add(f"pool{number}", "max_pool", kernel=2)
        n_in = 128
    made.add("flat", "flatten")
    for number, (n, n_out) in enumerate(((128 * 16, 512), (512, 110)), start=1):
        made.linear(f"fc{number}", n, n_out)
        made.add(f"plif{number + 5}", "plif", **leak)
    made.add("votes", "reshape", shape=[11, 10])
    made.add("vote", "reduce", axes=[-1], op="sum")
    events = Input("plif_dvs_gesture", (2, 128, 128), "events", n_steps=20)
    return made.network("plif_dvs_gesture", events, "count", every=20)


def srnn_shd(seed: int = 0) -> Network:
    """Two recurrent layers of 128 adaptive neurons, for spoken digits in 700 channels."""
    made, n_in, source = _Builder(seed), 700, INPUT
    for number in (1, 2):
        cells = f"cells{number}"
        forth = made.linear(f"forth{number}", n_in, 128, source)
        back = made.linear(f"back{number}", 128, 128, Source(cells, 1))
        made.add(f"sum{number}", "add", forth, back)
        source = made.add(cells, "alif", form="yin", decay=0.95, rho=0.99, beta=1.8, r=8.0)
        n_in = 128
    made.linear("fc", 128, 20)
    events = Input("srnn_shd", (700,), "events", n_steps=250)
    return made.network("srnn_shd", events, "leaky", every=250, decay=0.95, emit="mean")


def spiking_gcn(edges: FloatArray, weight: FloatArray, seed: int = 0) -> Network:
    """Two hops over a graph, spikes of what they gather, and one linear layer with its neurons.

    `edges` (2, E) are sources and targets among 2,708 papers, `weight` (E,) their normalisation.
    Spikes of what is gathered are those of neurons without a leak; the paper draws them at random.
    """
    made, graph = _Builder(seed, rate=0.01), {"edges": edges, "weight": weight}
    made.add("hop1", "graph", arrays=graph)
    made.add("hop2", "graph", arrays=graph)
    made.add("coded", "if")
    made.add("fc", "conv1d", arrays=made.weight(7, 1433, 1))
    made.add("lif", "lif", **_LIF)
    events = Input("spiking_gcn", (1433, 2708), "events", n_steps=8)
    return made.network("spiking_gcn", events, "count", every=8)


def spikformer_4_384(seed: int = 0) -> Network:
    """Convolutions to 64 tokens of 384 channels, four blocks of twelve heads, mean of tokens."""
    made, n_in = _Builder(seed, rate=_BUSY), 3
    for number, n_out in enumerate((48, 96, 192, 384), start=1):
        made.conv(f"sps{number}", n_in, n_out)
        if number > 2:
            made.add(f"pool{number}", "max_pool", kernel=2)
        n_in = n_out
    patches = made.last
    position = made.conv("position", 384, 384)
    made.add("placed", "add", patches, position)
    last = made.add("tokens", "reshape", shape=[384, 64])
    for number in range(1, 5):
        last = _transformer_block(made, f"block{number}", last, 384, heads=12)
    made.add("mean", "reduce", axes=[-1], op="mean")
    made.linear("fc", 384, 10)
    return made.network("spikformer_4_384", _image("spikformer_4_384"), "mean", every=4)


def _transformer_block(made: _Builder, name: str, source: str, n: int, heads: int) -> str:
    q, k, v = (made.token(f"{name}.{part}", n, n, source) for part in "qkv")
    made.add(f"{name}.ssa", "ssa", q, k, v, heads=heads, scale=0.125)
    attended = made.add(f"{name}.lif", "lif", **_LIF, v_threshold=0.5)
    projected = made.token(f"{name}.proj", n, n, attended)
    middle = made.add(f"{name}.attended", "add", source, projected)
    hidden = made.token(f"{name}.mlp1", n, 4 * n, middle)
    spikes = made.token(f"{name}.mlp2", 4 * n, n, hidden)
    return made.add(f"{name}.out", "add", middle, spikes)


def _on_cora(load: Callable[[str], Network]) -> Network:
    graph = next(layer for layer in load("sgnn_cora").layers if layer.name == "graph2")
    return spiking_gcn(graph.arrays["edges"], graph.arrays["weight"])


# Name -> how it is built, given a function that loads a network of the zoo, for its data.
FULL_SIZE: Mapping[str, Callable[[Callable[[str], Network]], Network]] = {
    "plif_dvs_gesture": lambda _: plif_dvs_gesture(),
    "sew_resnet18": lambda _: sew_resnet18(),
    "spikformer_4_384": lambda _: spikformer_4_384(),
    "spiking_gcn": _on_cora,
    "srnn_shd": lambda _: srnn_shd(),
    "svgg11": lambda _: svgg11(),
}
