"""Clients are closed in a bounded time while their broker is silent, and leave nothing behind."""

import asyncio
import os
import signal
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition
from aiokafka.errors import KafkaError

from router.bus import Bus
from router.client import Publisher
from router.closing import close
from router.embedded import EmbeddedBroker
from router.settings import Settings

_LIMIT_S = 0.3
_BOUND_S = 20.0


@pytest.fixture
def broker() -> Iterator[EmbeddedBroker]:
    """A broker of the test's own, to be silenced."""
    with EmbeddedBroker() as running:
        try:
            yield running
        finally:
            os.kill(running.pid, signal.SIGCONT)


async def _silence(broker: EmbeddedBroker) -> None:
    os.kill(broker.pid, signal.SIGSTOP)
    async with asyncio.timeout(_BOUND_S):  # each thread stops by itself
        while not all(
            path.read_text().rpartition(")")[2].split()[0] == "T"
            for path in Path(f"/proc/{broker.pid}/task").glob("*/stat")
        ):
            await asyncio.sleep(0.001)


def _sockets() -> set[str]:
    found = set()
    for fd in os.listdir("/proc/self/fd"):
        with suppress(OSError):
            found.add(os.readlink(f"/proc/self/fd/{fd}"))
    return {link for link in found if link.startswith("socket:")}


class _Left:
    """What is there beyond what was there before."""

    def __init__(self) -> None:
        self._sockets, self._tasks = _sockets(), asyncio.all_tasks()

    async def check_nothing(self) -> None:
        await asyncio.sleep(0.1)  # a connection that was cut off is closed a moment later
        assert {t.get_coro() for t in asyncio.all_tasks() - self._tasks} == set()
        assert _sockets() <= self._sockets


async def _producer(broker: EmbeddedBroker) -> AIOKafkaProducer:
    producer = AIOKafkaProducer(
        bootstrap_servers=broker.address, enable_idempotence=True, request_timeout_ms=100,
        max_request_size=1_000_000,
    )  # fmt: skip
    await producer.start()
    await producer.send_and_wait("t", b"before", partition=0)
    return producer


@pytest.mark.parametrize("wait_s", [0.0, 0.25])
@pytest.mark.parametrize("size", [1, 900_000])
async def test_a_producer_that_nobody_answers_is_closed(
    broker: EmbeddedBroker, size: int, wait_s: float
) -> None:
    left = _Left()
    producer = await _producer(broker)
    await _silence(broker)
    future = await producer.send("t", bytes(size), partition=0)
    await asyncio.sleep(wait_s)  # until it tries again
    async with asyncio.timeout(_BOUND_S):
        await close(producer, _LIMIT_S)
    await left.check_nothing()
    assert isinstance(future.exception(), KafkaError)


async def test_a_producer_is_closed_by_who_is_cancelled_meanwhile(broker: EmbeddedBroker) -> None:
    left = _Left()
    producer = await _producer(broker)
    await _silence(broker)
    future = await producer.send("t", b"meanwhile", partition=0)
    closing = asyncio.create_task(close(producer, 60.0))
    await asyncio.sleep(0.1)
    closing.cancel()
    async with asyncio.timeout(_BOUND_S):
        await asyncio.wait({closing})
    assert closing.cancelled()
    await left.check_nothing()
    assert isinstance(future.exception(), KafkaError)


async def test_a_producer_sends_what_it_has_before_it_is_closed(broker: EmbeddedBroker) -> None:
    producer = await _producer(broker)
    future = await producer.send("t", b"last", partition=0)
    await close(producer, 10.0)
    assert (await future).offset == 1


async def test_a_consumer_that_nobody_answers_is_closed(broker: EmbeddedBroker) -> None:
    left = _Left()
    await close(await _producer(broker), 10.0)
    consumer = AIOKafkaConsumer(bootstrap_servers=broker.address, auto_offset_reset="earliest")
    await consumer.start()
    consumer.assign([TopicPartition("t", 0)])
    await consumer.getone()
    await _silence(broker)
    async with asyncio.timeout(_BOUND_S):
        await close(consumer, _LIMIT_S)
    await left.check_nothing()


async def test_a_publisher_leaves_nothing_behind(broker: EmbeddedBroker) -> None:
    left = _Left()
    async with asyncio.timeout(_BOUND_S), Publisher(broker.address, 1, send_timeout_s=0.4) as all_:
        await (await all_.send("t", None, b"before", 0))
        await _silence(broker)
        for _ in range(8):
            await all_.send("t", None, bytes(800_000), 0, repeatable=True)
    await left.check_nothing()


async def test_a_bus_leaves_nothing_behind(broker: EmbeddedBroker) -> None:
    left = _Left()
    settings = Settings.load(send_timeout_s=0.4).on_embedded(broker.address)
    async with asyncio.timeout(_BOUND_S), Bus(settings) as bus:
        await (await bus.send("t", None, 0, b"before"))
        await _silence(broker)
        await bus.send("t", None, 0, bytes(800_000))
    await left.check_nothing()
