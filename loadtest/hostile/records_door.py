"""The topics of a stack, for somebody who may write to each of them and has none of the keys."""

import asyncio
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from contextlib import asynccontextmanager
from typing import Final

from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition
from aiokafka.errors import KafkaError, MessageSizeTooLargeError

from loadtest.hostile.cases_records import KINDS, Case, Deck, Sample
from loadtest.hostile.knocks import Knock
from router.lookup import deployed_networks
from router.security import kafka_options
from router.settings import Settings
from router.supervisor import Stack
from router.topics import DEAD_LETTER, in_topic, out_topic, spikes_topic
from topologies.compiled import CompiledNetwork

__all__ = ["RecordsDoor", "records_door", "topics_of"]

_SAMPLES: Final = 40  # records of a place that cases are made of
_WAIT_MS: Final = 500
_REQUEST_MS: Final = 50_000
_ANSWER_S: Final = 60.0
_PAUSE_S: Final = 0.05


class RecordsDoor:
    """Appends a case, and waits until the broker has it: what comes of it shows at the good client,
    at the workers, and at the readers of results."""

    name = "records"

    def __init__(
        self, producer: AIOKafkaProducer, deck: Deck, n_partitions: int, kinds: Sequence[str]
    ) -> None:
        self._producer = producer
        self._deck = deck
        self._n_partitions = n_partitions
        self._kinds = frozenset(kinds) & frozenset(KINDS)
        self.is_crowded: Callable[[], bool] = lambda: False  # whether others wait for long already

    async def knock(self, seed: int, number: int) -> Knock:
        """Append a case to the partition that its number says."""
        case = self._deck.case(seed, number)
        if self._kinds and case.what not in self._kinds:
            return Knock(case.what, "left out", "")
        while self.is_crowded():  # a flood is another fault, of `make faults`
            await asyncio.sleep(_PAUSE_S)
        try:
            async with asyncio.timeout(_ANSWER_S):
                await self._send(case, number % self._n_partitions)
        except MessageSizeTooLargeError:
            return Knock(case.what, "too large for Kafka", "")
        except (KafkaError, TimeoutError) as error:
            what = f"A record of kind {case.what} was not taken: {error!r} (number {number})"
            return Knock(case.what, "failed", what)
        return Knock(case.what, "appended", "")

    async def _send(self, case: Case, partition: int) -> None:
        is_nothing = case.key is None and case.value is None  # aiokafka sends no such record
        sent = await self._producer.send(
            case.topic, b"" if is_nothing else case.value, key=case.key, partition=partition,
            headers=[*case.headers],
        )  # fmt: skip
        await sent


@asynccontextmanager
async def records_door(stack: Stack, kinds: Sequence[str]) -> AsyncIterator[RecordsDoor]:
    """The door of a stack that has answered already: cases are made of what lies in its topics."""
    settings = stack.settings
    kafka = kafka_options(settings)
    producer = AIOKafkaProducer(**kafka, acks="all", request_timeout_ms=_REQUEST_MS)
    await producer.start()
    try:
        topics = topics_of((await deployed_networks(settings)).values())
        deck = Deck(await _samples(settings, topics), forged=True)
        yield RecordsDoor(producer, deck, settings.partitions, kinds)
    finally:
        await producer.stop()


def topics_of(networks: Iterable[CompiledNetwork]) -> list[str]:
    """All topics of these networks, sorted; they may have been read without their weights."""
    topics = {DEAD_LETTER}
    for network in networks:
        topics |= {in_topic(network.input.name), out_topic(network.name)}
        topics |= {spikes_topic(operator) for operator in network.summaries}
    return sorted(topics)


async def _samples(settings: Settings, topics: Iterable[str]) -> list[Sample]:
    """The first records of each topic, one made up where there is none."""
    consumer = AIOKafkaConsumer(**kafka_options(settings), group_id=None, enable_auto_commit=False)
    await consumer.start()
    try:
        found = [each for topic in topics for each in await _first_of(consumer, topic, settings)]
    finally:
        await consumer.stop()
    missing = set(topics) - {sample.topic for sample in found}
    return found + [Sample(topic, b"nobody", b"nothing") for topic in sorted(missing)]


async def _first_of(consumer: AIOKafkaConsumer, topic: str, settings: Settings) -> list[Sample]:
    places = [TopicPartition(topic, partition) for partition in range(settings.partitions)]
    consumer.assign(places)
    await consumer.seek_to_beginning(*places)
    fetched = await consumer.getmany(timeout_ms=_WAIT_MS, max_records=_SAMPLES)
    return [Sample(topic, r.key, r.value or b"") for records in fetched.values() for r in records]
