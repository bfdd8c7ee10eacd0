"""Kill -9 of the worker behind every operator in turn, while requests and a long stream run."""

import asyncio
import logging
from collections.abc import AsyncIterator
from dataclasses import dataclass

import pytest

from loadtest.demo import kill_holder, load_digits
from loadtest.recovery import Observer
from loadtest.traffic import Traffic
from loadtest.undisturbed import run_streams
from router.client import Publisher, ResultReader
from router.settings import Settings
from router.supervisor import Stack, StackOptions
from topologies.compiled import CompiledNetwork
from topologies.compiler import compile_network
from topologies.loader import load_network

pytestmark = [pytest.mark.e2e, pytest.mark.serial]

_N_IMAGES = 72
_N_WINDOWS = 100
_SECONDS = 2.0


@dataclass(frozen=True)
class _Served:
    network: CompiledNetwork
    stack: Stack
    observer: Observer
    publisher: Publisher
    reader: ResultReader


def _log(name: str, line: str) -> None:
    """What the workers wrote stands in the report of a failure."""
    if "aiokafka" not in line:
        logging.getLogger(name).warning(line)


@pytest.fixture
async def served() -> AsyncIterator[_Served]:
    """The digits network on three workers; one that dies is started again."""
    network = compile_network(load_network("scnn_digits"))
    settings = Settings.load(partitions=2, log_level="INFO")
    options = StackOptions(networks=(network,), n_workers=3, gateway=False)
    async with Stack(settings, options, log=_log) as stack:
        await stack.wait_ready()
        async with (
            Observer(stack.settings) as observer,
            Publisher.of(stack.settings) as publisher,
            ResultReader.of(stack.settings) as reader,
        ):
            await reader.follow(network.name, network.input.name, network.outputs.every)
            yield _Served(network, stack, observer, publisher, reader)


async def test_the_loss_of_any_operator_changes_no_bit_and_loses_no_answer(
    served: _Served,
) -> None:
    network = served.network
    images, _ = load_digits()
    for number, node in enumerate(network.nodes.values()):
        sent = images[number * _N_IMAGES :][:_N_IMAGES]
        stream = images[-_N_WINDOWS:] if number % 2 else images[:_N_WINDOWS]
        traffic = Traffic(
            network, served.publisher, served.reader, sent, stream, _SECONDS, f"{number}-"
        )
        await _run_and_kill(served, traffic, node.operator)
        expected = [run_streams(network, stream[None])[0], *run_streams(network, sent[:, None])]
        assert not traffic.errors
        assert set(traffic.outputs) == set(traffic.names)
        for name, wanted in zip(traffic.names, expected, strict=True):
            assert traffic.outputs[name].tobytes() == wanted.tobytes(), f"{name}, {node.id}"


async def _run_and_kill(served: _Served, traffic: Traffic, operator: str) -> None:
    await served.observer.settled(quiet_s=0.3)
    async with asyncio.TaskGroup() as group:
        group.create_task(traffic.run())
        kill = await kill_holder(served.stack, served.observer, traffic, operator, restart=True)
        back = await served.observer.recovered(kill.tasks, kill.at)
    assert back[kill.task].previous == kill.worker
