"""What the workload sends, and what must come back: networks, inputs, expected digests. Pure.

Three networks are served at once: the digits network; a second head on the *same input*, so that
ingest numbers its streams for both; and a dense network of events on an input of its own. In each,
record i of a stream causes emission i.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Final

import numpy as np

from loadtest.faults.history import digest_of_values
from loadtest.undisturbed import run_streams
from topologies.compiled import CompiledNetwork
from topologies.compiler import compile_network
from topologies.model import INPUT, Layer, Network, Output, Source
from topologies.samples import dense_network, random_spikes
from topologies.stages.base import Array

__all__ = ["DIGITS", "EVENTS", "SECOND", "Content", "Contents", "make_contents"]

DIGITS: Final = "scnn_digits"
SECOND: Final = "second_head"
EVENTS: Final = "events"
_STEPS: Final = 8
_SIZES: Final = (32, 24, 10)
_HIDDEN: Final = 24


@dataclass(frozen=True)
class Content:
    """Samples (S, *shape) that make one stream of `input`, answered by `networks`."""

    name: str
    input: str
    networks: tuple[str, ...]
    samples: Array


@dataclass(frozen=True)
class Contents:
    """Everything that a workload draws from; `expected[content][network]` are digests."""

    networks: Mapping[str, CompiledNetwork]
    requests: Sequence[Content]
    walks: Sequence[Content]
    expected: Mapping[str, Mapping[str, tuple[bytes, ...]]]


def make_contents(
    digits: Network, images: Array, *, n_requests: int = 60, n_walks: int = 4, length: int = 60
) -> Contents:
    """Networks and streams: `n_walks` streams per input, of `length` records each.

    `images` is (B, 1, 8, 8) uint8, the samples of the digits network.
    """
    networks = {
        DIGITS: compile_network(digits),
        SECOND: compile_network(_second_head(digits)),
        EVENTS: compile_network(_events()),
    }
    heads = (DIGITS, SECOND)
    spikes = random_spikes((n_requests + n_walks * length), _STEPS, _SIZES[0], 0.15, seed=4)
    starts = [(37 * k) % (len(images) - 1) for k in range(n_walks)]
    requests = [
        *(Content(f"image-{i}", DIGITS, heads, images[i : i + 1]) for i in range(n_requests)),
        *(Content(f"spikes-{i}", EVENTS, (EVENTS,), spikes[i : i + 1]) for i in range(n_requests)),
    ]
    walks = [
        Content(f"walk-{k}", DIGITS, heads, np.take(images, range(s, s + length), 0, mode="wrap"))
        for k, s in enumerate(starts)
    ]
    for k in range(n_walks):
        at = n_requests + k * length
        walks.append(Content(f"run-{k}", EVENTS, (EVENTS,), spikes[at : at + length]))
    expected = _expected(networks, requests) | _expected(networks, walks)
    return Contents(networks, requests, walks, expected)


def _second_head(digits: Network) -> Network:
    """A dense network on the input of the digits network, with weights from a seed."""
    n = int(np.prod(digits.input.shape))
    words = np.random.Philox(key=[11, 0]).random_raw((_HIDDEN + 10) * max(n, _HIDDEN))
    grid = (words >> np.uint64(53)).astype(np.float64) / 2.0**11 - 0.5
    first, second = grid[: _HIDDEN * n], grid[_HIDDEN * n :][: 10 * _HIDDEN]
    layers = (
        Layer("flat", "flatten", (Source(INPUT),)),
        Layer("fc1", "linear", (Source("flat"),), arrays={"weight": first.reshape(_HIDDEN, n)}),
        Layer("lif1", "lif", (Source("fc1"),), {"form": "plain", "decay": 0.5}),
        Layer("fc2", "linear", (Source("lif1"),), arrays={"weight": second.reshape(10, _HIDDEN)}),
    )
    source = digits.input if digits.input.name else replace(digits.input, name=digits.name)
    every = source.n_steps
    return Network(SECOND, source, layers, Output("mean", "fc2", {"every": every}))


def _events() -> Network:
    network = dense_network(_SIZES, _STEPS, seed=5, target_rate=0.15, name=EVENTS)
    return replace(network, output=replace(network.output, params={"every": _STEPS}))


def _expected(
    networks: Mapping[str, CompiledNetwork], contents: Sequence[Content]
) -> dict[str, dict[str, tuple[bytes, ...]]]:
    """What one process that nothing disturbs emits for each content, all of a kind at once."""
    found: dict[str, dict[str, tuple[bytes, ...]]] = {c.name: {} for c in contents}
    for name, network in networks.items():
        mine = [c for c in contents if name in c.networks]
        values = np.stack([c.samples for c in mine])
        if network.input.encoder == "events":
            values = values.reshape(len(mine), -1, *network.input.shape)
        for content, answer in zip(mine, run_streams(network, values), strict=True):
            found[content.name][name] = tuple(map(digest_of_values, answer))
    return found
