"""One, two and five worker processes on the embedded broker and store: the plain oracle's bits."""

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np
import pytest

from loadtest.undisturbed import run_streams
from router.client import Deadline, Publisher, ResultReader
from router.records import Data
from router.settings import Settings
from router.supervisor import Stack, StackOptions
from topologies.compiled import CompiledNetwork
from topologies.random_networks import random_inputs, random_network
from topologies.stages.base import Array

pytestmark = pytest.mark.serial

Compiled = Callable[..., CompiledNetwork]
Records = Callable[..., list[Data]]

_N = 6
_TIMEOUT_S = 40.0


@pytest.mark.parametrize(
    ("n_workers", "partitions", "max_batch", "network_seeds"),
    [(1, 2, 64, (13, 22)), (2, 1, 3, (4, 18)), (5, 4, 1, (5, 9))],
)
async def test_worker_processes_give_the_bits_of_the_oracle(
    n_workers: int,
    partitions: int,
    max_batch: int,
    network_seeds: Sequence[int],
    compiled: Compiled,
    requests_of: Records,
    streams_of: Records,
) -> None:
    seeds = np.arange(_N, dtype=np.uint64)
    networks, records, expected = [], [], {}
    for index, seed in enumerate(network_seeds):
        authored = random_network(seed)
        name = f"network-{index}"
        authored = replace(authored, name=name, input=replace(authored.input, name=name))
        served = compiled(authored, cut=True, longest_window=2 if index else None)
        values = random_inputs(authored, _N, seed)
        longer = _longer(served, values)
        networks.append(served)
        sent = [*requests_of(served, values, seeds), *streams_of(served, longer, seeds, seed)]
        records.append(sent)
        single = values if served.input.encoder == "events" else values[:, None]
        answers = [*run_streams(served, single, seeds), *run_streams(served, longer, seeds)]
        names = [f"{kind}-{i}" for kind in ("request", "stream") for i in range(_N)]
        expected.update({(name, n): a for n, a in zip(names, answers, strict=True)})

    settings = Settings.load(partitions=partitions, max_batch=max_batch, log_level="WARNING")
    options = StackOptions(networks=tuple(networks), n_workers=n_workers, gateway=False)
    async with Stack(settings, options) as stack:
        await stack.wait_ready()
        found = await _serve(stack.settings, networks, records)
    for key, wanted in expected.items():
        assert found[key].dtype == wanted.dtype, key
        assert found[key].shape == wanted.shape, key
        assert found[key].tobytes() == wanted.tobytes(), key


async def _serve(
    settings: Settings, networks: Sequence[CompiledNetwork], records: Sequence[Sequence[Data]]
) -> dict[tuple[str, str], Array]:
    """Send all records of all networks, and wait for every stream's emissions."""
    async with Publisher.of(settings) as publisher, ResultReader.of(settings) as reader:
        for network in networks:
            await reader.follow(network.name, network.input.name, network.outputs.every)
        for network, sent in zip(networks, records, strict=True):
            for record in sent:
                await publisher.publish(network.input.name, record)
        await publisher.flush()
        deadline = Deadline.after(_TIMEOUT_S)
        keys = sorted({(n.name, r.name) for n, s in zip(networks, records, strict=True) for r in s})
        results = await asyncio.gather(
            *(reader.result(name, deadline, network=network) for network, name in keys)
        )
    return {key: result.values for key, result in zip(keys, results, strict=True)}


def _longer(network: CompiledNetwork, values: Array) -> Array:
    """Streams of three requests' length."""
    if network.input.encoder == "events":
        return np.concatenate([values, np.zeros_like(values), values[::-1]], axis=1)
    return np.stack([values, values[::-1], values], axis=1)
