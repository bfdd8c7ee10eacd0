"""What Spike Router expects of a Kafka, through the client library it uses."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any, Final

import pytest
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition
from aiokafka.errors import MessageSizeTooLargeError, OffsetOutOfRangeError

from router.settings import EMBEDDED_PARTITIONS, EMBEDDED_RETENTION_BYTES

_DEADLINE_S: Final = 20.0
_N_PARTITIONS: Final = EMBEDDED_PARTITIONS


@pytest.fixture
def bootstrap(kafka: str) -> str:
    return kafka


@pytest.fixture
def topic(fresh_name: Callable[[str], str]) -> str:
    """A topic of its own; the broker makes it when it is first asked for."""
    return fresh_name("bus")


@asynccontextmanager
async def _producer(bootstrap: str) -> AsyncIterator[AIOKafkaProducer]:
    producer = AIOKafkaProducer(
        bootstrap_servers=bootstrap, acks="all", enable_idempotence=True, max_request_size=2**20
    )
    await producer.start()
    try:
        yield producer
    finally:
        await producer.stop()


@asynccontextmanager
async def _consumer(bootstrap: str, *positions: tuple[str, int, int]) -> AsyncIterator[Any]:
    """A consumer as the product uses it: `positions` are (topic, partition, offset)."""
    consumer = AIOKafkaConsumer(
        bootstrap_servers=bootstrap,
        group_id=None,
        enable_auto_commit=False,
        auto_offset_reset="none",
        fetch_max_wait_ms=2,
    )
    await consumer.start()
    try:
        consumer.assign([TopicPartition(topic, partition) for topic, partition, _ in positions])
        for topic, partition, offset in positions:
            consumer.seek(TopicPartition(topic, partition), offset)
        yield consumer
    finally:
        await consumer.stop()


async def _read(consumer: Any, n_records: int) -> list[Any]:
    records: list[Any] = []
    async with asyncio.timeout(_DEADLINE_S):
        while len(records) < n_records:
            for found in (await consumer.getmany(timeout_ms=100)).values():
                records += found
    return records


async def test_a_record_lies_in_the_partition_that_was_named_whatever_its_key(
    bootstrap: str, topic: str
) -> None:
    async with _producer(bootstrap) as producer:
        for partition in range(_N_PARTITIONS):
            sent = await producer.send_and_wait(topic, b"value", key=b"key", partition=partition)
            assert sent.partition == partition
    positions = [(topic, partition, 0) for partition in range(_N_PARTITIONS)]
    async with _consumer(bootstrap, *positions) as consumer:
        records = await _read(consumer, _N_PARTITIONS)
    assert sorted(record.partition for record in records) == list(range(_N_PARTITIONS))


async def test_a_topic_has_its_partitions_as_soon_as_it_is_asked_for(
    bootstrap: str, topic: str
) -> None:
    async with _producer(bootstrap) as producer:
        assert await producer.partitions_for(topic) == set(range(_N_PARTITIONS))


async def test_records_of_one_producer_keep_their_order_without_gaps(
    bootstrap: str, topic: str
) -> None:
    async with _producer(bootstrap) as producer:
        sent = [await producer.send(topic, b"%d" % n, partition=1) for n in range(500)]
        acknowledged = [(await future).offset for future in sent]
    assert acknowledged == list(range(500))
    async with _consumer(bootstrap, (topic, 1, 0)) as consumer:
        records = await _read(consumer, 500)
    assert [(record.offset, record.value) for record in records] == [
        (n, b"%d" % n) for n in range(500)
    ]


async def test_key_value_and_headers_come_back_byte_for_byte(bootstrap: str, topic: str) -> None:
    written = [
        (b"key", b"value", [("traceparent", b"00-1")]),
        (None, b"", []),
        (b"", bytes(range(256)), [("a", b""), ("a", b"twice")]),
    ]
    async with _producer(bootstrap) as producer:
        for key, value, headers in written:
            await producer.send_and_wait(topic, value, key=key, headers=headers, partition=0)
    async with _consumer(bootstrap, (topic, 0, 0)) as consumer:
        records = await _read(consumer, len(written))
    assert [(r.key, r.value, list(r.headers)) for r in records] == written


async def test_an_acknowledged_record_is_counted_in_the_end_offset(
    bootstrap: str, topic: str
) -> None:
    partition = TopicPartition(topic, 2)
    async with _producer(bootstrap) as producer, _consumer(bootstrap, (topic, 2, 0)) as consumer:
        sent = await producer.send_and_wait(topic, b"value", partition=2)
        assert (await consumer.end_offsets([partition]))[partition] == sent.offset + 1


async def test_seeking_back_reads_the_same_records_again(bootstrap: str, topic: str) -> None:
    async with _producer(bootstrap) as producer:
        for n in range(20):
            await producer.send_and_wait(topic, b"%d" % n, partition=3)
    async with _consumer(bootstrap, (topic, 3, 5)) as consumer:
        first = await _read(consumer, 15)
        consumer.seek(TopicPartition(topic, 3), 5)
        second = await _read(consumer, 15)
    identity = [(record.offset, record.timestamp, record.value) for record in first]
    assert [(record.offset, record.timestamp, record.value) for record in second] == identity
    assert identity[0][0] == 5


async def test_every_consumer_without_a_group_reads_everything(bootstrap: str, topic: str) -> None:
    async with (
        _consumer(bootstrap, (topic, 0, 0)) as one,
        _consumer(bootstrap, (topic, 0, 0)) as other,
        _producer(bootstrap) as producer,
    ):
        for n in range(10):
            await producer.send_and_wait(topic, b"%d" % n, partition=0)
        for consumer in (one, other):
            assert [r.value for r in await _read(consumer, 10)] == [b"%d" % n for n in range(10)]


async def test_one_consumer_reads_several_topics_each_from_its_own_position(
    bootstrap: str, topic: str
) -> None:
    async with _producer(bootstrap) as producer:
        for partition in (0, 1):
            for n in range(4):
                await producer.send_and_wait(topic, b"%d" % n, partition=partition)
    async with _consumer(bootstrap, (topic, 0, 3), (topic, 1, 1)) as consumer:
        records = await _read(consumer, 4)
    assert sorted((r.partition, r.offset) for r in records) == [(0, 3), (1, 1), (1, 2), (1, 3)]


async def test_a_new_partition_can_be_assigned_while_others_are_read(
    bootstrap: str, topic: str
) -> None:
    async with _producer(bootstrap) as producer, _consumer(bootstrap, (topic, 0, 0)) as consumer:
        for partition in (0, 0, 1):
            await producer.send_and_wait(topic, b"value", partition=partition)
        await _read(consumer, 2)
        consumer.assign([TopicPartition(topic, 0), TopicPartition(topic, 1)])
        consumer.seek(TopicPartition(topic, 0), 2)
        consumer.seek(TopicPartition(topic, 1), 0)
        await producer.send_and_wait(topic, b"value", partition=0)
        records = await _read(consumer, 2)
    assert sorted((r.partition, r.offset) for r in records) == [(0, 2), (1, 0)]


async def test_a_second_producer_appends_behind_the_first(bootstrap: str, topic: str) -> None:
    for expected in range(3):
        async with _producer(bootstrap) as producer:
            sent = await producer.send_and_wait(topic, b"value", partition=0)
            assert sent.offset == expected


async def test_a_position_beyond_the_end_is_an_error_not_a_wait(bootstrap: str, topic: str) -> None:
    async with _producer(bootstrap) as producer:
        await producer.send_and_wait(topic, b"value", partition=0)
    async with _consumer(bootstrap, (topic, 0, 100)) as consumer:
        with pytest.raises(OffsetOutOfRangeError):
            await _read(consumer, 1)


async def test_a_record_above_the_largest_request_is_refused_by_the_producer(
    bootstrap: str, topic: str
) -> None:
    async with _producer(bootstrap) as producer:
        with pytest.raises(MessageSizeTooLargeError):
            await producer.send(topic, bytes(2**20 + 1), partition=0)


class TestEmbeddedBrokerOnly:
    """Limits of the embedded broker that the product is built around."""

    async def test_truncated_input_is_an_error_not_a_gap(
        self, embedded_kafka: str, fresh_name: Callable[[str], str]
    ) -> None:
        name = fresh_name("truncated")
        n_records = EMBEDDED_RETENTION_BYTES // 900_000 + 3
        async with _producer(embedded_kafka) as producer:
            for _ in range(n_records):
                await producer.send_and_wait(name, bytes(900_000), partition=0)
        partition = TopicPartition(name, 0)
        async with _consumer(embedded_kafka, (name, 0, 0)) as consumer:
            assert (await consumer.beginning_offsets([partition]))[partition] > 0
            with pytest.raises(OffsetOutOfRangeError):
                await _read(consumer, 1)

    async def test_what_fits_the_retention_is_kept(
        self, embedded_kafka: str, fresh_name: Callable[[str], str]
    ) -> None:
        name = fresh_name("kept")
        n_records = EMBEDDED_RETENTION_BYTES // 910_000
        async with _producer(embedded_kafka) as producer:
            for _ in range(3 * n_records):
                await producer.send_and_wait(name, bytes(900_000), partition=0)
        async with _consumer(embedded_kafka, (name, 0, 2 * n_records)) as consumer:
            assert len(await _read(consumer, n_records)) == n_records
