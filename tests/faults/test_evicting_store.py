"""A real Redis that evicts keys of its own choice, while owners live or all of them die."""

import asyncio
import signal
from collections.abc import AsyncIterator

import pytest
from redis.asyncio import Redis

from loadtest.faults.contents import DIGITS, Contents
from loadtest.faults.history import digest_of_values
from loadtest.faults.store_damage import evict_by_itself
from loadtest.traffic import sample_record
from router.client import Publisher, RecordRefused, ResultReader, StreamFailed
from router.deploy import deploy
from router.redis_server import RedisServer
from router.settings import Settings
from router.supervisor import Stack, StackOptions

pytestmark = [pytest.mark.faults, pytest.mark.serial, pytest.mark.servers]

NAMES = [f"s{number}" for number in range(12)]
_WAIT_S = 60.0


@pytest.fixture
async def server() -> AsyncIterator[RedisServer]:
    async with RedisServer() as running:
        yield running


@pytest.fixture
async def stack(server: RedisServer, contents: Contents) -> AsyncIterator[Stack]:
    settings = Settings.load(
        partitions=2, gateway_port=0, log_level="WARNING", redis_may_evict=True
    )
    networks = [contents.networks[DIGITS]]
    options = StackOptions(networks=networks, n_workers=2, redis=server.url)
    async with Stack(settings, options) as running:
        await running.wait_ready()
        yield running


class _Clients:
    """What a user of the stack has."""

    def __init__(self, contents: Contents, publisher: Publisher, reader: ResultReader) -> None:
        self._content = contents.walks[0]
        self._wanted = contents.expected[self._content.name][DIGITS]
        self._publisher = publisher
        self._reader = reader

    async def send(self, name: str, first: int, last: int | None = None) -> None:
        samples = self._content.samples
        for i in range(first, len(samples) if last is None else last):
            record = sample_record(name, samples[i], seq=i, end=i == len(samples) - 1)
            await (await self._publisher.publish(self._content.input, record))

    async def how_it_ended(self, name: str) -> str:
        """The class of its named error, "" when all its bits are right. Raises ResultTimeout."""
        try:
            result = await self._reader.result(name, _WAIT_S, network=DIGITS)
        except StreamFailed as error:
            return error.result.error.partition(":")[0]
        except RecordRefused as error:
            return error.reason.partition(":")[0]
        assert tuple(map(digest_of_values, result.values)) == self._wanted
        return ""


@pytest.mark.parametrize(
    ("share", "dies"), [(0.5, False), (0.1, True), (0.2, True), (0.5, True)],
    ids=["half, all live", "a tenth, all die", "a fifth, all die", "half, all die"],
)  # fmt: skip
async def test_eviction_leaves_no_stream_without_an_end(
    stack: Stack, server: RedisServer, contents: Contents, share: float, dies: bool
) -> None:
    async with (
        Publisher.of(stack.settings) as publisher,
        ResultReader.of(stack.settings, networks=[DIGITS]) as reader,
    ):
        clients = _Clients(contents, publisher, reader)
        for name in NAMES:
            await clients.send(name, 0, 10)
        async with Redis.from_url(server.url) as client:
            assert await evict_by_itself(client, share)
        for worker in list(stack.workers) if dies else ():
            stack.kill_worker(worker, signal.SIGKILL)
        for name in NAMES:
            await clients.send(name, 10)
        await deploy(stack.settings, [contents.networks[DIGITS]])
        ends = await asyncio.gather(*map(clients.how_it_ended, NAMES))
        assert dies or not any(ends), ends
        await stack.wait_ready()
        await clients.send("after", 0)
        assert not await clients.how_it_ended("after")
