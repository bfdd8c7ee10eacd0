"""Whatever the cut, the order of delivery and the batches are: every bit is the plain oracle's.

One process runs the product's own ingest and tasks over a log in memory (see conftest.py).
"""

from collections import Counter
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from loadtest.undisturbed import run_streams
from router.records import Data
from topologies.compiled import CompiledNetwork
from topologies.compiler.cut import GRANULARITIES
from topologies.model import Network
from topologies.random_networks import random_inputs, random_network
from topologies.stages.base import Array

Compiled = Callable[..., CompiledNetwork]
Records = Callable[..., list[Data]]
Serve = Callable[..., tuple[dict[str, Array], Counter[str]]]

_N_STREAMS = 5
_NETWORK_SEEDS = range(24)


def _seeds(n: int) -> Array:
    return np.arange(n, dtype=np.uint64) * np.uint64(0x9E3779B97F4A7C15) + np.uint64(3)


def _several(network: Network, n_samples: int, seed: int) -> Array:
    """Values for streams of `n_samples` requests' length; one stretch of events is silent."""
    parts = [random_inputs(network, _N_STREAMS, 100 * seed + i) for i in range(n_samples)]
    if network.input.encoder != "events":
        return np.stack(parts, axis=1)
    steps = np.concatenate(parts, axis=1)
    steps[:, len(steps[0]) // 3 : len(steps[0]) // 2] = 0
    return steps


def _check(found: dict[str, Array], expected: list[Array], prefix: str) -> None:
    assert set(found) == {f"{prefix}-{i}" for i in range(len(expected))}
    for i, wanted in enumerate(expected):
        mine = found[f"{prefix}-{i}"]
        assert mine.dtype == wanted.dtype
        assert mine.shape == wanted.shape
        assert mine.tobytes() == wanted.tobytes(), f"{prefix}-{i}"


def test_the_drawn_networks_have_all_encoders_and_readouts() -> None:
    networks = [random_network(seed) for seed in _NETWORK_SEEDS]
    assert {n.input.encoder for n in networks} == {"direct", "rate", "latency", "events"}
    assert {n.output.readout for n in networks} == {"count", "mean", "membrane", "leaky"}
    assert max(delay for n in networks for delay in _cycle(n)) > 1
    assert any(n.output.params["every"] for n in networks)


@pytest.mark.parametrize("seed", _NETWORK_SEEDS)
def test_requests_of_any_network_are_answered_with_the_bits_of_the_run_streams(
    seed: int, compiled: Compiled, requests_of: Records, serve: Serve
) -> None:
    network = random_network(seed)
    values = random_inputs(network, _N_STREAMS, seed)
    expected = run_streams(compiled(network), _as_stream(network, values), _seeds(_N_STREAMS))
    served = compiled(network, GRANULARITIES[seed % 4], cut=bool(seed % 3))
    found, counts = serve(
        served,
        requests_of(served, values, _seeds(_N_STREAMS)),
        partitions=(1, 2, 4)[seed % 3],
        max_batch=(1, 3, 64)[seed // 3 % 3],
        seed=seed,
    )
    _check(found, expected, "request")
    if not _cycle(network):  # a loop's last batches come home after the end
        assert counts["duplicates_dropped_total"] == 0


@pytest.mark.parametrize("seed", _NETWORK_SEEDS)
def test_endless_streams_of_any_network_emit_the_bits_of_the_run_streams(
    seed: int, compiled: Compiled, streams_of: Records, serve: Serve
) -> None:
    network = random_network(seed)
    values = _several(network, 4, seed)
    expected = run_streams(compiled(network), values, _seeds(_N_STREAMS))
    window = _window(network, (1, 2, 3, None)[seed % 4])
    served = compiled(network, GRANULARITIES[seed // 2 % 4], cut=True, longest_window=window)
    found, _ = serve(
        served,
        streams_of(served, values, _seeds(_N_STREAMS), seed),
        partitions=(4, 1, 2)[seed % 3],
        max_batch=(3, 64, 1)[seed // 3 % 3],
        stream_windows=(1, 2, 64)[seed // 2 % 3],
        seed=seed,
    )
    _check(found, expected, "stream")


@pytest.mark.parametrize("seed", _NETWORK_SEEDS[1::2])
def test_tasks_that_crash_and_repeat_themselves_change_no_bit(
    seed: int, compiled: Compiled, streams_of: Records, serve: Serve
) -> None:
    network = random_network(seed)
    values = _several(network, 3, seed)
    expected = run_streams(compiled(network), values, _seeds(_N_STREAMS))
    served = compiled(network, cut=bool(seed % 4 > 1), longest_window=_window(network, 2))
    found, counts = serve(
        served,
        streams_of(served, values, _seeds(_N_STREAMS), seed),
        partitions=1 + seed // 4 % 2,
        max_batch=3,
        crashes=0.05,
        seed=seed,
    )
    _check(found, expected, "stream")
    assert counts["crashes"] > 0


@pytest.mark.parametrize("max_batch", [1, 3, 64])
@pytest.mark.parametrize("window", [1, 3, 7])
def test_a_request_cut_into_windows_has_the_bits_of_one_window(
    window: int,
    max_batch: int,
    compiled: Compiled,
    requests_of: Records,
    serve: Serve,
) -> None:
    network = random_network(_of("events"))
    values = random_inputs(network, 9, 1)
    expected = run_streams(compiled(network), values, _seeds(9))
    window = _window(network, window) or window
    served = compiled(network, cut=True, longest_window=window)
    found, _ = serve(served, requests_of(served, values, _seeds(9)), max_batch=max_batch, seed=5)
    _check(found, expected, "request")


def _of(encoder: str) -> int:
    return next(s for s in _NETWORK_SEEDS if random_network(s).input.encoder == encoder)


def _as_stream(network: Network, values: Array) -> Array:
    return values if network.input.encoder == "events" else values[:, None]


def _window(network: Network, wanted: int | None) -> int | None:
    """The longest window wanted, or what a cycle of the network allows."""
    delays = _cycle(network)
    return wanted if not delays or wanted is None else min(wanted, *delays)


def _cycle(network: Network) -> list[int]:
    """The delays in the network; each closes a cycle."""
    return [s.delay for layer in network.layers for s in layer.sources if s.delay]


def test_streams_with_equal_input_and_unequal_seeds_differ_where_input_is_random(
    compiled: Compiled, requests_of: Records, serve: Serve
) -> None:
    network = random_network(_of("rate"))
    served: Any = compiled(network)
    values = np.repeat(random_inputs(network, 1, 3), 4, axis=0)
    seeds = np.array([1, 1, 2, 2], np.uint64)
    found, _ = serve(served, requests_of(served, values, seeds))
    _check(found, run_streams(served, values[:, None], seeds), "request")
    assert found["request-0"].tobytes() == found["request-1"].tobytes()
