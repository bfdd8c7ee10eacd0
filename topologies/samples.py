"""Networks made from a seed, for benchmarks and tests. Pure: the same seed, the same bits."""

from collections.abc import Sequence
from itertools import pairwise

import numpy as np

from topologies.errors import SpikeRouterError
from topologies.model import INPUT, Input, Layer, Network, Output, Source
from topologies.stages.base import Array

__all__ = ["SampleError", "dense_network", "random_spikes"]

_SHIFT = 10  # weights are multiples of 2**-10
_GAINS = 2**_SHIFT - 1  # of the largest weight, in units of the grid
_RAW_BITS = 15
_PROBES = 4  # streams on which rates are tuned


class SampleError(SpikeRouterError, ValueError):
    """A sample network cannot be made of these parameters."""


def random_spikes(n_streams: int, n_steps: int, n: int, rate: float, seed: int = 0) -> Array:
    """Spikes (n_streams, n_steps, n), uint8, each 1 with probability `rate`."""
    words = np.random.Philox(key=[seed, 1]).random_raw(n_streams * n_steps * n)
    threshold = np.uint64(round(rate * 2**32))
    spikes: Array = ((words >> np.uint64(32)) < threshold).astype(np.uint8)
    return spikes.reshape(n_streams, n_steps, n)


def dense_network(
    sizes: Sequence[int] = (784, 512, 512, 256, 10),
    n_steps: int = 16,
    seed: int = 0,
    target_rate: float = 0.1,
    *,
    name: str = "dense",
) -> Network:
    """Fully connected LIF layers: v = 0.5 v + I, soft reset, threshold 1, and a count at the end.

    Input are events, of which `target_rate` are active in each step; the weights are random on the
    grid, as large as makes about `target_rate` of each layer's neurons fire in each step.
    """
    if len(sizes) < 2 or min(sizes) < 1 or not 0.0 < target_rate < 0.5:
        raise SampleError(
            f"Sizes {tuple(sizes)} and rate {target_rate}: legal are 2 or more sizes above 0, and "
            "a rate between 0 and 0.5."
        )
    words = np.random.Philox(key=[seed, 0])
    spikes = random_spikes(_PROBES, n_steps, sizes[0], target_rate, seed)
    layers: list[Layer] = []
    source = INPUT
    for index, (n_in, n_out) in enumerate(pairwise(sizes), start=1):
        raw = (words.random_raw(n_out * n_in) >> np.uint64(63 - _RAW_BITS)).astype(np.int64)
        raw = raw.reshape(n_out, n_in) - 2**_RAW_BITS
        weight = _weights(raw, _gain(raw, spikes, target_rate))
        spikes = _fire(weight, spikes)
        synapses = Layer(f"fc{index}", "linear", (Source(source),), arrays={"weight": weight})
        source = f"lif{index}"
        neurons = Layer(source, "lif", (Source(f"fc{index}"),), {"form": "plain", "decay": 0.5})
        layers += [synapses, neurons]
    return Network(
        name=name,
        input=Input(name, (sizes[0],), "events", n_steps=n_steps),
        layers=tuple(layers),
        output=Output("count", source),
    )


def _weights(raw: Array, gain: int) -> Array:
    """Weights on the grid, the largest about `gain` units: raw is int64 in +-2**_RAW_BITS."""
    k = (raw * gain) >> _RAW_BITS
    weight: Array = np.ldexp(k.astype(np.float64), -_SHIFT)
    return weight


def _gain(raw: Array, spikes: Array, target_rate: float) -> int:
    """The smallest gain whose rate reaches the target. Exact sums: the same on every machine."""
    low, high = 1, _GAINS
    while low < high:
        middle = (low + high) // 2
        if _fire(_weights(raw, middle), spikes).mean() < target_rate:
            low = middle + 1
        else:
            high = middle
    return low


def _fire(weight: Array, spikes: Array) -> Array:
    """The spikes (B, T, n_out) that spikes (B, T, n_in) cause."""
    currents = (spikes.astype(np.float64) @ weight.T).astype(np.float32)
    fired = np.empty(currents.shape, np.uint8)
    v = np.zeros_like(currents[:, 0])
    for t in range(currents.shape[1]):
        v = np.float32(0.5) * v + currents[:, t]
        fired[:, t] = v >= np.float32(1.0)
        v = v - fired[:, t].astype(np.float32)
    return fired
