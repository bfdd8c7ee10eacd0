"""A stack whose store is a Redis Cluster of three nodes, each with a replica: a node dies."""

import signal
from collections.abc import AsyncIterator

import pytest

from loadtest.faults.contents import DIGITS, Content, Contents
from loadtest.faults.history import digest_of_values
from loadtest.traffic import sample_record
from router.client import Publisher, ResultReader, partition_of
from router.settings import Settings
from router.store.calls import prefix
from router.supervisor import Stack, StackOptions
from tests.contract.redis_cluster import RedisCluster

pytestmark = [pytest.mark.faults, pytest.mark.serial, pytest.mark.servers]

N_PARTITIONS = 4
_WAIT_S = 60.0


@pytest.fixture
async def cluster() -> AsyncIterator[RedisCluster]:
    async with RedisCluster(replicas=True, node_timeout_ms=2_000) as running:
        yield running


@pytest.fixture
async def stack(cluster: RedisCluster, contents: Contents) -> AsyncIterator[Stack]:
    settings = Settings.load(partitions=N_PARTITIONS, gateway_port=0, log_level="WARNING")
    networks = [contents.networks[DIGITS]]
    options = StackOptions(networks=networks, n_workers=2, redis=cluster.url)
    async with Stack(settings, options) as running:
        await running.wait_ready()
        yield running


def _names() -> dict[int, str]:
    """A stream of each partition."""
    found: dict[int, str] = {}
    for number in range(1000):
        found.setdefault(partition_of(f"s{number}", N_PARTITIONS), f"s{number}")
    return dict(sorted(found.items()))


async def _send(publisher: Publisher, name: str, content: Content, first: int, last: int) -> None:
    for i in range(first, last):
        end = i == len(content.samples) - 1
        record = sample_record(name, content.samples[i], seq=i, end=end)
        await (await publisher.publish(content.input, record))


async def _until_emitted(reader: ResultReader, name: str, index: int) -> None:
    async for emission in reader.results(name, None, network=DIGITS, start=index):
        assert emission.index == index
        return


@pytest.mark.parametrize("also_a_worker", [False, True], ids=["a node", "a node, then a worker"])
async def test_the_loss_of_a_node_changes_no_bit_and_loses_no_answer(
    stack: Stack, cluster: RedisCluster, contents: Contents, also_a_worker: bool
) -> None:
    content, names = contents.walks[0], _names()
    wanted = contents.expected[content.name][DIGITS]
    async with (
        Publisher.of(stack.settings) as publisher,
        ResultReader.of(stack.settings, networks=[DIGITS]) as reader,
    ):
        for name in names.values():
            await _send(publisher, name, content, 0, 10)
        for name in names.values():
            await _until_emitted(reader, name, 9)
        cluster.server_of(prefix(0)).kill()
        for name in names.values():
            await _send(publisher, name, content, 10, 15)
        await cluster.wait_promoted(cluster.replica_of(prefix(0)))
        if also_a_worker:
            stack.kill_worker("worker-1", signal.SIGKILL)
        for name in names.values():
            await _send(publisher, name, content, 15, len(content.samples))
        for name in names.values():
            result = await reader.result(name, _WAIT_S, network=DIGITS)
            assert tuple(map(digest_of_values, result.values)) == wanted
    await stack.wait_ready()
