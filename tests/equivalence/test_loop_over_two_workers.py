"""A recurrent network whose loops lie across two worker processes gives the plain oracle's bits."""

import asyncio
from collections import defaultdict
from collections.abc import Callable

import numpy as np
import pytest

from loadtest.recovery import Observer
from loadtest.undisturbed import run_streams
from router.client import Deadline, Publisher, ResultReader
from router.records import Data
from router.settings import Settings
from router.supervisor import Stack, StackOptions
from topologies.compiled import CompiledNetwork
from topologies.compiler import Capacity, compile_network
from topologies.model import INPUT, Input, Layer, Network, Output, Source

pytestmark = pytest.mark.serial

Records = Callable[..., list[Data]]

_N_STREAMS, _N_STEPS, _N_IN, _N_CELLS = 4, 24, 10, 12
_TIMEOUT_S = 40.0


def _network(delay: int) -> Network:
    """Two layers of adaptive cells: the first reads itself and the second, `delay` steps late."""
    rng = np.random.default_rng(delay)

    def synapses(name: str, source: Source, n_in: int) -> Layer:
        weight = rng.normal(0.02, 1.5 / np.sqrt(n_in), (_N_CELLS, n_in))
        return Layer(name, "linear", (source,), {}, {"weight": weight})

    def cells(name: str, source: str, form: str) -> Layer:
        params = {"form": form, "decay": 0.8, "rho": 0.9, "beta": 0.4, "v_threshold": 0.3}
        return Layer(name, "alif", (Source(source),), params)

    layers = (
        synapses("forward", Source(INPUT), _N_IN),
        synapses("own", Source("one", delay), _N_CELLS),
        synapses("back", Source("two", delay), _N_CELLS),
        Layer("sum", "add", (Source("forward"), Source("own"), Source("back"))),
        cells("one", "sum", "yin"),
        synapses("up", Source("one"), _N_CELLS),
        cells("two", "up", "lsnn"),
        Layer("out", "linear", (Source("two"),), {}, {"weight": rng.normal(size=(3, _N_CELLS))}),
    )
    source = Input("loop", (_N_IN,), "events", n_steps=_N_STEPS)
    return Network("loop", source, layers, Output("leaky", "out", {"decay": 0.9}))


@pytest.mark.parametrize("delay", [1, 3])
async def test_loop_over_two_worker_processes_gives_the_bits_of_the_oracle(
    delay: int, requests_of: Records
) -> None:
    network = compile_network(_network(delay), capacity=Capacity(neurons=_N_CELLS // 3))
    assert network.input.longest_window == delay
    values = (np.random.default_rng(1).random((_N_STREAMS, _N_STEPS, _N_IN)) < 0.3).astype(int)
    seeds = np.zeros(_N_STREAMS, np.uint64)
    expected = run_streams(network, values, seeds)
    silent = run_streams(network, np.zeros_like(values), seeds)
    assert expected[0].tobytes() != silent[0].tobytes()

    settings = Settings.load(partitions=1, log_level="WARNING")
    options = StackOptions(networks=(network,), n_workers=2, gateway=False)
    async with Stack(settings, options) as stack:
        await stack.wait_ready()
        async with Observer(stack.settings) as observer:
            owners = await observer.settled()
        held: dict[str, set[str]] = defaultdict(set)
        for task, worker in owners.items():
            held[worker].add(network.summaries[task.operator].kind)
        assert sum("synaptic" in kinds for kinds in held.values()) == 2
        found = await _serve(stack.settings, network, requests_of(network, values, seeds))
    for index, wanted in enumerate(expected):
        assert found[f"request-{index}"] == wanted.tobytes(), index


async def _serve(
    settings: Settings, network: CompiledNetwork, records: list[Data]
) -> dict[str, bytes]:
    async with Publisher.of(settings) as publisher, ResultReader.of(settings) as reader:
        await reader.follow(network.name, network.input.name, network.outputs.every)
        for record in records:
            await publisher.publish(network.input.name, record)
        await publisher.flush()
        deadline = Deadline.after(_TIMEOUT_S)
        names = [record.name for record in records]
        results = await asyncio.gather(
            *(reader.result(name, deadline, network=network.name) for name in names)
        )
    return {name: result.values.tobytes() for name, result in zip(names, results, strict=True)}
