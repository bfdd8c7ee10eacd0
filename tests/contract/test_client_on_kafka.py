"""The publisher and the results reader on a real broker over TCP."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence

import numpy as np
import pytest
from aiokafka import AIOKafkaConsumer, TopicPartition

from router import deadletter
from router.client import (
    Deadline,
    Position,
    Publisher,
    PublishFailed,
    ReaderFailed,
    RecordRefused,
    RecordTooLarge,
    ResultReader,
    ResultTimeout,
    StreamFailed,
    partition_of,
    request,
)
from router.deadletter import DeadLetter
from router.embedded import EmbeddedBroker
from router.payload import pack_result
from router.records import Data, Route, parse_record
from router.topics import DEAD_LETTER, in_topic, out_topic
from router.wire import Batch, Frame, Kind, StreamId, encode_frame

FreshName = Callable[[str], str]
N = 4


def publisher_of(kafka: str, **options: float) -> Publisher:
    return Publisher(kafka, N, **options)  # type: ignore[arg-type]


def reader_of(kafka: str, *networks: str, lookback: int | None = 0) -> ResultReader:
    return ResultReader(kafka, N, networks=networks, fetch_max_wait_ms=2, lookback=lookback)


def image(name: str, request: bool = True, seq: int | None = None) -> Data:
    payload = np.arange(4, dtype="<f4").tobytes()
    return Data(name, request=request, payload=payload, dtype="float32", shape=(4,), seq=seq)


def batch(
    name: str,
    values: Sequence[Sequence[int]] = ((1, 2),),
    *,
    window: int = 0,
    number: int = 0,
    end: bool = True,
    error: str = "",
) -> Batch:
    payload = pack_result(np.asarray(values, np.int32)) if values and not error else b""
    kind = Kind.ABORT if error else Kind.SPIKES
    return Batch(
        "b" * 32, StreamId(1, number), name, ("net",), 0, window, 4 * window, 4 * window + 4,
        kind, end and not error, payload, error,
    )  # fmt: skip


async def emit(publisher: Publisher, network: str, partition: int, *batches: Batch) -> None:
    """What a readout's task does."""
    value = encode_frame(Frame("a" * 32, 0, list(batches)))
    await (await publisher.send(out_topic(network), b"key", value, partition))


async def read_all(kafka: str, topic: str, partition: int, n: int) -> list[tuple[bytes, bytes]]:
    consumer = AIOKafkaConsumer(
        bootstrap_servers=kafka, group_id=None, auto_offset_reset="none", fetch_max_wait_ms=2
    )
    await consumer.start()
    try:
        place = TopicPartition(topic, partition)
        consumer.assign([place])
        consumer.seek(place, 0)
        found: list[tuple[bytes, bytes]] = []
        async with asyncio.timeout(10):
            while len(found) < n:
                for records in (await consumer.getmany(timeout_ms=50)).values():
                    found += [(record.key, record.value) for record in records]
        return found
    finally:
        await consumer.stop()


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(10):
        while not condition():
            await asyncio.sleep(0.005)


async def test_records_of_one_stream_lie_in_its_partition_in_order(
    kafka: str, fresh_name: FreshName
) -> None:
    name = fresh_name("in")
    async with publisher_of(kafka) as publisher:
        futures = [
            await publisher.publish(name, image("cam", request=False, seq=seq)) for seq in range(50)
        ]
        positions = await asyncio.gather(*futures)
    partition = partition_of("cam", N)
    assert positions == [Position(partition, offset) for offset in range(50)]
    records = await read_all(kafka, in_topic(name), partition, 50)
    parsed = [parse_record(key, value, partition, at) for at, (key, value) in enumerate(records)]
    assert parsed == [image("cam", request=False, seq=seq) for seq in range(50)]


async def test_an_explicit_partition_wins_over_the_name(kafka: str, fresh_name: FreshName) -> None:
    other = (partition_of("cam", N) + 1) % N
    async with publisher_of(kafka) as publisher:
        future = await publisher.publish(fresh_name("in"), image("cam"), other)
        assert await future == Position(other, 0)


async def test_large_records_leave_in_batches_of_their_own(
    kafka: str, fresh_name: FreshName
) -> None:
    topic = fresh_name("bytes")
    sizes = [100, 400_000, 899_000, 10, 200_000, 200_000]
    async with publisher_of(kafka) as publisher:
        futures = [await publisher.send(topic, b"k", b"x" * size, 0) for size in sizes]
        await asyncio.gather(*futures)
        assert publisher.tally.batches >= 4
    found = await read_all(kafka, topic, 0, len(sizes))
    assert [len(value) for _, value in found] == sizes


async def test_a_record_beyond_the_limit_is_refused_before_it_is_sent(
    kafka: str, fresh_name: FreshName
) -> None:
    async with publisher_of(kafka, max_record_bytes=1000) as publisher:
        with pytest.raises(RecordTooLarge, match="1001 bytes; the most is 1000"):
            await publisher.send(fresh_name("bytes"), None, b"x" * 1001, 0)
        assert publisher.in_flight == 0


async def test_a_partition_that_the_topic_does_not_have_fails_the_record(
    kafka: str, fresh_name: FreshName
) -> None:
    async with publisher_of(kafka) as publisher:
        future = await publisher.send(fresh_name("bytes"), None, b"x", 99)
        with pytest.raises(PublishFailed, match="none with number 99"):
            await future
        assert publisher.tally.failed == 1


async def test_publish_waits_while_too_much_is_in_flight(kafka: str, fresh_name: FreshName) -> None:
    topic = fresh_name("bytes")
    most = 0
    async with publisher_of(kafka, max_in_flight=8) as publisher:
        for _ in range(100):
            await publisher.send(topic, None, b"x", 0)
            most = max(most, publisher.in_flight)
        await publisher.flush()
        assert publisher.tally.acknowledged == 100
        assert publisher.in_flight == 0
    assert most <= 8


async def test_a_result_reaches_the_one_who_waits(kafka: str, fresh_name: FreshName) -> None:
    network = fresh_name("net")
    async with publisher_of(kafka) as publisher, reader_of(kafka, network) as reader:
        waiting = asyncio.create_task(reader.result("a", 10))
        await emit(publisher, network, partition_of("a", N), batch("a", [[3, 4]]))
        result = await waiting
    assert result.values.tolist() == [[3, 4]]
    assert (result.name, result.network, result.steps) == ("a", network, 4)
    assert result.partition == partition_of("a", N)


async def test_a_result_from_before_is_found_by_looking_back(
    kafka: str, fresh_name: FreshName
) -> None:
    network = fresh_name("net")
    async with publisher_of(kafka) as publisher:
        await emit(publisher, network, 1, batch("old"))
        await emit(publisher, network, 1, batch("new", number=1))
        async with reader_of(kafka, network, lookback=1) as reader:
            assert (await reader.result("new", 10, partition=1)).values.tolist() == [[1, 2]]
            assert reader.peek(network, "old") is None
        async with reader_of(kafka, network, lookback=None) as reader:
            assert (await reader.result("old", 10, partition=1)).values.tolist() == [[1, 2]]


async def test_a_network_followed_later_leaves_the_others_where_they_were(
    kafka: str, fresh_name: FreshName
) -> None:
    one, two = fresh_name("net"), fresh_name("net")
    async with publisher_of(kafka) as publisher, reader_of(kafka, one) as reader:
        await emit(publisher, one, 0, batch("a"))
        await reader.result("a", 10, network=one)
        await asyncio.gather(reader.follow(two), reader.follow(two))
        await emit(publisher, one, 0, batch("b", number=1))
        await emit(publisher, two, 0, batch("c"))
        await reader.result("b", 10, network=one)
        await reader.result("c", 10, network=two)
        assert reader.counters()["repeats"] == 0
        assert reader.counters()["finals"] == 3


async def test_the_first_end_is_final_and_repeats_are_counted(
    kafka: str, fresh_name: FreshName
) -> None:
    network = fresh_name("net")
    async with publisher_of(kafka) as publisher, reader_of(kafka, network) as reader:
        await emit(publisher, network, 0, batch("a", [[1, 1]]))
        await emit(publisher, network, 0, batch("a", [[9, 9]]), batch("a", error="late"))
        await until(lambda: reader.counters()["repeats"] == 2)
        result = await reader.result("a", 10, partition=0)
    assert result.values.tolist() == [[1, 1]]


async def test_an_aborted_stream_raises_its_error(kafka: str, fresh_name: FreshName) -> None:
    network = fresh_name("net")
    async with publisher_of(kafka) as publisher, reader_of(kafka, network) as reader:
        await emit(publisher, network, 0, batch("a", error="InputLost: gone"))
        with pytest.raises(StreamFailed, match="InputLost: gone"):
            await reader.result("a", 10)


@pytest.mark.parametrize("ended_before", [False, True], ids=["waited_for", "ended_before"])
async def test_emissions_of_a_long_stream_come_as_they_are_made(
    kafka: str, fresh_name: FreshName, ended_before: bool
) -> None:
    network = fresh_name("net")
    async with publisher_of(kafka) as publisher, reader_of(kafka) as reader:
        await reader.follow(network, every=2)
        partition = partition_of("cam", N)
        emissions = reader.results("cam", 10)
        await emit(publisher, network, partition, batch("cam", [[0], [1]], end=False))
        seen = [await anext(emissions), await anext(emissions)]
        await emit(publisher, network, partition, batch("cam", [[2], [3]], window=1))
        if ended_before:
            await until(lambda: (known := reader.peek(network, "cam")) is not None and known.final)
        seen += [each async for each in emissions]
    told = [(each.index, each.start, each.stop, each.values.tolist()) for each in seen]
    assert told == [(0, 0, 2, [0]), (1, 2, 4, [1]), (2, 4, 6, [2]), (3, 6, 8, [3])]


async def test_a_refusal_reaches_only_those_whose_record_it_is(
    kafka: str, fresh_name: FreshName
) -> None:
    network = fresh_name("net")

    def letter(offset: int) -> bytes:
        reason = "values outside the range"
        return deadletter.encode(DeadLetter(in_topic(network), 2, offset, None, reason, "a"))

    async with publisher_of(kafka) as publisher, reader_of(kafka, network) as reader:
        mine = asyncio.create_task(reader.result("a", 10, partition=2, positions=[Position(2, 5)]))
        other = asyncio.create_task(reader.result("a", 10, partition=2, positions=[Position(2, 6)]))
        await (await publisher.send(DEAD_LETTER, None, letter(5), 0))
        with pytest.raises(RecordRefused, match="values outside the range"):
            await mine
        assert not other.done()
        await emit(publisher, network, 2, batch("a"))
        assert (await other).error == ""


async def test_a_stream_that_ingest_knows_no_more_ends_with_the_refusal_of_its_next_record(
    kafka: str, fresh_name: FreshName
) -> None:
    network = fresh_name("net")
    partition = partition_of("a", N)
    reason = "EraLost: its state is gone"
    letter = DeadLetter(in_topic(network), partition, 5, None, reason, "a")
    async with publisher_of(kafka) as publisher, reader_of(kafka, network) as reader:
        await emit(publisher, network, partition, batch("a", end=False))
        await until(lambda: reader.peek(network, "a") is not None)
        await (await publisher.send(DEAD_LETTER, None, deadletter.encode(letter), partition))
        with pytest.raises(StreamFailed, match="EraLost"):
            await reader.result("a", 10)


async def test_who_waits_for_a_stream_that_has_ended_is_told_its_end_and_no_refusal(
    kafka: str, fresh_name: FreshName
) -> None:
    network = fresh_name("net")
    partition = partition_of("a", N)
    reason = f"{deadletter.STREAM_ENDED}: stream a ended with an error"
    letter = DeadLetter(in_topic(network), partition, 5, None, reason, "a")
    async with publisher_of(kafka) as publisher, reader_of(kafka, network) as reader:
        waiting = asyncio.create_task(reader.result("a", 10))
        await (await publisher.send(DEAD_LETTER, None, deadletter.encode(letter), partition))
        await until(lambda: reader.counters()["dead_letters"] == 1)
        await emit(publisher, network, partition, batch("a", error="SnapshotCorrupt: gone"))
        with pytest.raises(StreamFailed, match="SnapshotCorrupt"):
            await waiting


async def test_damaged_bytes_are_counted_and_passed_over(kafka: str, fresh_name: FreshName) -> None:
    network = fresh_name("net")
    async with publisher_of(kafka) as publisher, reader_of(kafka, network) as reader:
        await (await publisher.send(out_topic(network), None, b"\x9b\x01rubbish", 0))
        await (await publisher.send(DEAD_LETTER, None, b"rubbish", 0))
        await emit(publisher, network, 0, batch("a"))
        await reader.result("a", 10)
        await until(lambda: reader.counters()["bad_frames"] == 2)


async def test_waiting_ends_at_the_deadline(kafka: str, fresh_name: FreshName) -> None:
    async with reader_of(kafka, fresh_name("net")) as reader:
        with pytest.raises(ResultTimeout, match="'nobody'"):
            await reader.result("nobody", 0.05)


async def test_a_request_that_was_lost_is_published_again_byte_for_byte(
    kafka: str, fresh_name: FreshName
) -> None:
    network = fresh_name("net")
    partition = partition_of("a", N)
    async with publisher_of(kafka) as publisher, reader_of(kafka, network) as reader:
        asking = asyncio.create_task(
            request(publisher, reader, network, image("a"), Deadline.after(20), resend_s=0.05)
        )
        first, second = await read_all(kafka, in_topic(network), partition, 2)
        assert first == second
        await emit(publisher, network, partition, batch("a"))
        assert (await asking).values.tolist() == [[1, 2]]


async def test_who_waits_when_the_reader_closes_is_told(kafka: str, fresh_name: FreshName) -> None:
    async with reader_of(kafka, fresh_name("net")) as reader:
        waiting = asyncio.create_task(reader.result("a", 60))
        await asyncio.sleep(0)
    with pytest.raises(ReaderFailed, match="closed"):
        await waiting


async def outcome(future: Awaitable[Position]) -> str:
    try:
        await future
    except PublishFailed:
        return "failed"
    return "written"


async def test_a_dead_broker_fails_the_records_in_time_and_the_rest_goes_on(
    fresh_name: FreshName,
) -> None:
    name = fresh_name("in")
    with EmbeddedBroker() as broker:
        async with publisher_of(broker.address, send_timeout_s=1.0) as publisher:
            await (await publisher.publish(name, image("a")))
            await asyncio.to_thread(broker.stop)
            futures = [
                await publisher.publish(name, image("b")),
                await publisher.publish(name, image("c", request=False)),
                await publisher.publish(name, Route(("net",)), 0),
            ]
            async with asyncio.timeout(20):
                assert [await outcome(future) for future in futures] == ["failed"] * 3
            assert publisher.tally.failed == 3
            assert publisher.in_flight == 0
