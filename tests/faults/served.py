"""Worlds of real processes for tests that break them, and what the tests say to them."""

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

from aiokafka import AIOKafkaConsumer, TopicPartition

from loadtest.faults.contents import Content, Contents
from loadtest.faults.history import digest_of_values
from loadtest.faults.world import World
from loadtest.traffic import sample_record
from router.client import Publisher, ResultReader
from router.deadletter import DeadLetter
from router.deadletter import decode as decode_letter
from router.settings import Settings
from router.topics import DEAD_LETTER


@dataclass(frozen=True)
class Served:
    """A world and a client of it."""

    world: World
    contents: Contents
    publisher: Publisher
    reader: ResultReader

    async def send(self, name: str, content: Content, first: int, last: int) -> None:
        """Records [first, last) of a stream, acknowledged; the content's last one ends it."""
        for i in range(first, last):
            end = i == len(content.samples) - 1
            record = sample_record(name, content.samples[i], seq=i, end=end)
            await (await self.publisher.publish(content.input, record))

    async def answer(self, name: str, network: str, timeout_s: float = 45.0) -> tuple[bytes, ...]:
        """The digests of a stream's emissions, once it has ended. Raises ClientError."""
        result = await self.reader.result(name, timeout_s, network=network)
        return tuple(map(digest_of_values, result.values))

    async def until_emitted(self, name: str, network: str, index: int = 0) -> None:
        """Wait until window `index` of the stream has come through the whole network."""
        async for emission in self.reader.results(name, None, network=network, start=index):
            assert emission.index == index
            return

    async def letters(self, topic: str, n: int) -> list[DeadLetter]:
        """Wait for at least `n` dead letters that quote records of a topic; all of its."""
        settings = self.world.settings
        consumer = AIOKafkaConsumer(
            bootstrap_servers=settings.kafka, group_id=None, auto_offset_reset="earliest",
            fetch_max_wait_ms=20,
        )  # fmt: skip
        await consumer.start()
        try:
            consumer.assign([TopicPartition(DEAD_LETTER, p) for p in range(settings.partitions)])
            found: list[DeadLetter] = []
            async with asyncio.timeout(30):
                while len(found) < n:
                    fetched: dict[Any, list[Any]] = await consumer.getmany(timeout_ms=100)
                    letters = [decode_letter(r.value) for rs in fetched.values() for r in rs]
                    found += [letter for letter in letters if letter.topic == topic]
            return found
        finally:
            await consumer.stop()


@asynccontextmanager
async def serving(contents: Contents, settings: Settings, **options: Any) -> AsyncIterator[Served]:
    """A world of these settings, a publisher, and a reader that follows every network."""
    async with World(settings, contents.networks, **options) as world:
        try:
            async with (
                Publisher.of(world.settings) as publisher,
                ResultReader.of(world.settings) as reader,
            ):
                for network in contents.networks.values():
                    every = network.outputs.every
                    await reader.follow(network.name, network.input.name, every)
                yield Served(world, contents, publisher, reader)
        finally:
            for name, line in world.stack.lines:  # stands in the report of a failure
                if "aiokafka" not in line:
                    logging.getLogger(name).warning(line)
