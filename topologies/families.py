"""One network of each of six families, of any size, with weights from a seed. Pure.

For benchmarks and tests: the structure is that of the publication, the weights are random, as large
as keeps neurons firing. The same parameters, the same bits.

    svgg          Simonyan and Zisserman, 2015, arXiv:1409.1556, with batch norm and LIF neurons
    sew_resnet    Fang et al., Deep residual learning in SNNs, 2021, arXiv:2102.04159, ADD
    ms_resnet     Hu et al. 2024, doi:10.1109/TNNLS.2024.3355393: membrane shortcuts
    srnn          Yin et al. 2021, doi:10.1038/s42256-021-00397-w: recurrent ALIF, leaky readout
    sgcn          graph convolutions with spikes in between, as Zhu et al. 2022, arXiv:2205.02767
    spikformer    Zhou et al. 2023, arXiv:2209.15425; with sdsa Yao et al. 2023, arXiv:2307.01694
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any, Literal

import numpy as np

from topologies.model import INPUT, FloatArray, Input, Layer, Network, Output, Source

__all__ = ["ms_resnet", "sew_resnet", "sgcn", "spikformer", "srnn", "svgg"]

_LIF = {"tau": 2.0, "decay_input": False}
_GRID = {"unit": 10, "saturate": True}  # of membrane shortcuts (numerics 21)
_GAIN = 1.6  # of weights, over 1 / sqrt(fan-in)
_Image = tuple[int, int, int]


@dataclass
class _Net:
    """Appends layers; `at` is the last one."""

    seed: int
    layers: list[Layer] = field(default_factory=list)
    at: str = INPUT
    drawn: int = 0

    def uniform(self, *shape: int) -> FloatArray:
        """In -1 to 1, float32."""
        self.drawn += 1
        words = np.random.Philox(key=[self.seed, self.drawn]).random_raw(int(np.prod(shape)))
        unit = (words >> np.uint64(40)).astype(np.float32) / np.float32(2.0**23) - np.float32(1.0)
        drawn: FloatArray = unit.astype(np.float64).reshape(shape)
        return drawn

    def weights(self, *shape: int) -> FloatArray:
        """As large as gives sums of about one standard deviation; a little more up than down."""
        fan_in = int(np.prod(shape[1:]))
        scale = _GAIN / float(np.sqrt(fan_in))
        scaled: FloatArray = (self.uniform(*shape) * float(np.sqrt(3.0)) + 0.1) * scale
        return scaled

    def add(self, kind: str, *sources: str | Source, arrays: Any = None, **params: Any) -> str:
        """A layer that reads `sources` (default: the last one); gives its name."""
        reads = [Source(s) if isinstance(s, str) else s for s in sources or (self.at,)]
        self.at = f"{kind}{len(self.layers)}"
        self.layers.append(Layer(self.at, kind, tuple(reads), params, arrays or {}))
        return self.at

    def norm(self, n: int) -> str:
        statistics = {
            "running_mean": 0.1 * self.uniform(n),
            "running_var": 1.0 + 0.5 * self.uniform(n),
            "weight": 1.0 + 0.1 * self.uniform(n),
            "bias": 0.1 * self.uniform(n),
        }
        return self.add("batch_norm", arrays=statistics)

    def conv(
        self, n_in: int, n: int, *sources: str, size: int = 3, stride: int = 1, fire: bool = True
    ) -> str:
        """Convolution, batch norm, and neurons unless the sums are to travel on."""
        arrays = {"weight": self.weights(n, n_in, size, size)}
        self.add("conv2d", *sources, arrays=arrays, padding=size // 2, stride=stride)
        self.norm(n)
        return self.add("lif", **_LIF) if fire else self.at

    def tokens(self, n_in: int, n: int, *sources: str) -> str:
        """The linear layer of every token, batch norm, neurons."""
        self.add("conv1d", *sources, arrays={"weight": self.weights(n, n_in, 1)})
        self.norm(n)
        return self.add("lif", **_LIF)

    def linear(self, n_in: int, n: int, *sources: str | Source) -> str:
        return self.add("linear", *sources, arrays={"weight": self.weights(n, n_in)})

    def network(self, name: str, source: Input, output: Output) -> Network:
        return Network(name, source, tuple(self.layers), output)


def _image_input(name: str, image: _Image, n_steps: int) -> Input:
    return Input(name, image, "direct", {"grid": 8}, n_steps=n_steps)


def svgg(
    image: _Image = (1, 8, 8),
    stages: Sequence[Sequence[int]] = ((8, 8), (16, 16)),
    hidden: int | None = 64,
    *,
    n_classes: int = 10,
    n_steps: int = 4,
    seed: int = 0,
) -> Network:
    """Stages of 3 x 3 convolutions, each with a max pool behind; a hidden layer; a linear layer.

    SVGG-11 at 32 x 32: image (3, 32, 32), stages (64,), (128,), (256, 256), (512, 512), (512, 512),
    hidden None.
    """
    net, n = _Net(seed), image[0]
    for stage in stages:
        for n_out in stage:
            net.conv(n, n_out)
            n = n_out
        net.add("max_pool", kernel=2)
    net.add("flatten")
    n *= (image[1] >> len(stages)) * (image[2] >> len(stages))
    if hidden is not None:
        net.linear(n, hidden)
        net.add("lif", **_LIF)
        n = hidden
    net.linear(n, n_classes)
    return net.network("svgg", _image_input("svgg", image, n_steps), Output("mean", net.at))


def sew_resnet(
    image: _Image = (1, 8, 8),
    blocks: Sequence[tuple[int, int]] = ((16, 1), (32, 2), (32, 1)),
    *,
    n_classes: int = 10,
    n_steps: int = 4,
    seed: int = 0,
) -> Network:
    """A stem, blocks (channels, stride) of two convolutions whose spikes are added, a global pool.

    SEW-ResNet-18 at 32 x 32: image (3, 32, 32), blocks (64, 1) twice, then (128, 2), (128, 1),
    (256, 2), (256, 1), (512, 2), (512, 1).
    """
    net, n = _Net(seed), blocks[0][0]
    x = net.conv(image[0], n)
    for n_out, stride in blocks:
        net.conv(n, n_out, x, stride=stride)
        branch = net.conv(n_out, n_out)
        if stride != 1 or n != n_out:
            x = net.conv(n, n_out, x, size=1, stride=stride)
        x, n = net.add("add", branch, x), n_out
    net.add("reduce", axes=[-2, -1])
    net.linear(n, n_classes)
    return net.network("sew", _image_input("sew", image, n_steps), Output("mean", net.at))


def ms_resnet(
    image: _Image = (1, 8, 8),
    blocks: Sequence[tuple[int, int]] = ((16, 1), (32, 2), (32, 1)),
    *,
    n_classes: int = 10,
    n_steps: int = 4,
    seed: int = 0,
) -> Network:
    """As `sew_resnet`, with sums added before the neurons, on one grid throughout."""
    net, n = _Net(seed), blocks[0][0]
    net.conv(image[0], n, fire=False)
    x = net.add("requantise", **_GRID)
    for n_out, stride in blocks:
        first = net.add("lif", x, **_LIF)
        net.conv(n, n_out, first, stride=stride)
        branch = net.conv(n_out, n_out, fire=False)
        if stride != 1 or n != n_out:
            x = net.conv(n, n_out, x, size=1, stride=stride, fire=False)
        net.add("add", branch, x)
        x, n = net.add("requantise", **_GRID), n_out
    net.add("lif", **_LIF)
    net.add("reduce", axes=[-2, -1])
    net.linear(n, n_classes)
    return net.network("ms", _image_input("ms", image, n_steps), Output("mean", net.at))


def srnn(
    sizes: Sequence[int] = (12, 24, 24, 9),
    *,
    delay: int = 1,
    n_steps: int = 20,
    seed: int = 0,
) -> Network:
    """Events, layers of adaptive neurons that read themselves, and a leaky readout.

    As for SHD: sizes 700, 128, 128, 20 and 250 steps.
    """
    net = _Net(seed)
    for n_in, n in pairwise(sizes[:-1]):
        forward = net.linear(n_in, n, net.at)
        cells = f"alif{len(net.layers) + 2}"
        back = net.linear(n, n, Source(cells, delay))
        net.add("add", forward, back)
        constants = {"decay": [0.8 + 0.15 * i / n for i in range(n)], "rho": 0.97, "beta": 1.8}
        net.add("alif", form="yin", v_threshold=0.1, **constants)
    net.linear(sizes[-2], sizes[-1])
    source = Input("srnn", (sizes[0],), "events", n_steps=n_steps)
    return net.network("srnn", source, Output("leaky", net.at, {"decay": 0.95, "emit": "mean"}))


def sgcn(
    n_nodes: int = 40,
    n_features: int = 12,
    n_hidden: int = 8,
    n_classes: int = 5,
    *,
    n_edges: int = 120,
    n_steps: int = 8,
    seed: int = 0,
) -> Network:
    """Two graph convolutions, spikes in between; a result for every node, (classes, nodes).

    Edges are drawn, symmetric, with self-loops, normalised by 1 / sqrt(d_i * d_j). Features are
    encoded as spikes at random. Of Cora's size: 2708 nodes, 1433 features, 5278 edges, 7 classes.
    """
    net = _Net(seed)
    ends = ((net.uniform(2, n_edges) + 1.0) / 2.0 * n_nodes).astype(np.int64)
    loops = np.tile(np.arange(n_nodes), (2, 1))
    edges = np.unique(np.concatenate([ends, ends[::-1], loops], axis=1), axis=1)
    degrees = np.bincount(edges[1], minlength=n_nodes)
    weight = 1.0 / np.sqrt(degrees[edges[0]] * degrees[edges[1]])
    graph = {"edges": edges.astype(np.float64), "weight": weight}
    for n_in, n in ((n_features, n_hidden), (n_hidden, n_classes)):
        net.add("conv1d", arrays={"weight": net.weights(n, n_in, 1)})
        net.add("graph", arrays=graph)
        if n == n_hidden:
            net.add("lif", form="plain", decay=0.5, v_threshold=0.5)
    source = Input("sgcn", (n_features, n_nodes), "rate", n_steps=n_steps)
    return net.network("sgcn", source, Output("mean", net.at))


def spikformer(
    image: _Image = (1, 8, 8),
    width: int = 32,
    n_blocks: int = 1,
    heads: int = 4,
    *,
    attention: Literal["ssa", "sdsa"] = "ssa",
    n_pools: int = 1,
    n_classes: int = 10,
    n_steps: int = 4,
    seed: int = 0,
) -> Network:
    """A stem of convolutions (the last `n_pools` with a pool), blocks of attention and two linear
    layers whose spikes are added, the mean over the tokens, a linear layer.

    Spikformer-4-384 at 32 x 32: image (3, 32, 32), width 384, n_blocks 4, heads 12, n_pools 2.
    """
    net, n = _Net(seed), image[0]
    for index in reversed(range(max(n_pools, 1))):
        n_out = width >> index
        net.conv(n, n_out)
        net.add("max_pool", kernel=2)
        n = n_out
    x = net.add("reshape", shape=[width, -1])
    attend = _ssa if attention == "ssa" else _sdsa
    for _ in range(n_blocks):
        attended = attend(net, x, width, heads)
        x = net.add("add", x, net.tokens(width, width, attended))
        net.tokens(width, 4 * width, x)
        x = net.add("add", x, net.tokens(4 * width, width))
    net.add("reduce", axes=-1)
    net.linear(width, n_classes)
    name = f"spikformer-{attention}"
    return net.network(name, _image_input(name, image, n_steps), Output("mean", net.at))


def _ssa(net: _Net, x: str, width: int, heads: int) -> str:
    q, k, v = (net.tokens(width, width, x) for _ in range(3))
    net.add("ssa", q, k, v, heads=heads, scale=0.125)
    return net.add("lif", **_LIF, v_threshold=0.5)


def _sdsa(net: _Net, x: str, width: int, heads: int) -> str:
    """Heads make no difference here: every channel is masked by its own sum."""
    q, k, v = (net.tokens(width, width, x) for _ in range(3))
    net.add("multiply", k, v)
    net.add("reduce", axes=-1, op="sum", keep=True)
    mask = net.add("lif", **_LIF, v_threshold=0.5)
    return net.add("multiply", q, mask)
