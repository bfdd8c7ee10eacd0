"""A producer that failed is replaced, and no writer's records change their order (12)."""

import asyncio
from typing import Any, cast

import pytest
from aiokafka import AIOKafkaProducer
from aiokafka.errors import KafkaError, MessageSizeTooLargeError, ProducerClosed

from router.sending import Lane, Sending
from router.settings import Settings


class _Producer:
    """Takes records, and says nothing of them until the test does."""

    def __init__(self, log: list[bytes]) -> None:
        self.futures: list[asyncio.Future[Any]] = []
        self.is_closed = False
        self._log = log

    async def send(self, topic: str, value: bytes, **_: Any) -> "asyncio.Future[Any]":
        if self.is_closed:
            raise ProducerClosed
        self._log.append(value)
        self.futures.append(asyncio.get_running_loop().create_future())
        return self.futures[-1]

    async def stop(self) -> None:
        self.is_closed = True
        await asyncio.wait(self.futures)


class _Sending(Sending):
    """With producers of the test's own."""

    def __init__(self) -> None:
        super().__init__(Settings.load(send_timeout_s=60.0), 1, 1)
        self.log: list[bytes] = []
        self.producers: list[_Producer] = []

    async def _connect(self) -> AIOKafkaProducer:
        self.producers.append(_Producer(self.log))
        return cast(AIOKafkaProducer, self.producers[-1])


async def _send(lane: Lane, value: bytes) -> "asyncio.Future[Any]":
    return await lane.send("t", None, 0, value)


async def _turns() -> None:
    for _ in range(10):
        await asyncio.sleep(0)


@pytest.fixture
async def sending() -> _Sending:
    found = _Sending()
    await found.start()
    return found


async def test_after_a_failed_record_another_producer_takes_over(sending: _Sending) -> None:
    lost = await _send(Lane(sending), b"lost")
    sending.producers[0].futures[0].set_exception(MessageSizeTooLargeError())
    with pytest.raises(MessageSizeTooLargeError):
        await lost
    await _turns()
    sent = await _send(Lane(sending), b"sent")
    sending.producers[1].futures[0].set_result("where it lies")
    assert await sent == "where it lies"
    assert sending.counts["producers_replaced_total"] == 1
    assert sending.producers[0].is_closed


async def test_a_writer_sends_nothing_behind_a_record_that_failed(sending: _Sending) -> None:
    lane = Lane(sending)
    for value in (b"one", b"two"):
        await _send(lane, value)
    first, second = sending.producers[0].futures
    first.set_exception(MessageSizeTooLargeError())
    later = asyncio.create_task(_send(lane, b"three"))
    await _turns()
    second.set_result(None)
    with pytest.raises(KafkaError, match="a record before it was not written"):
        await later
    assert sending.log == [b"one", b"two"]


async def test_a_writer_waits_for_what_the_former_producer_has_of_its_own(
    sending: _Sending,
) -> None:
    unlucky, lane, other = Lane(sending), Lane(sending), Lane(sending)
    await _send(unlucky, b"lost")
    await _send(lane, b"one")
    failed, one = sending.producers[0].futures
    failed.set_exception(MessageSizeTooLargeError())
    await _turns()
    two = asyncio.create_task(_send(lane, b"two"))
    await _turns()
    await _send(other, b"of another")
    assert sending.log == [b"lost", b"one", b"of another"]
    one.set_result(None)
    await two
    assert sending.log[3:] == [b"two"]
    assert len(sending.producers) == 2


async def test_a_producer_is_replaced_once_whatever_else_of_it_fails(sending: _Sending) -> None:
    for value in (b"one", b"two"):
        await _send(Lane(sending), value)
    for future in sending.producers[0].futures:
        future.set_exception(MessageSizeTooLargeError())
    await _turns()
    await _send(Lane(sending), b"three")
    assert (len(sending.producers), sending.counts["producers_replaced_total"]) == (2, 1)
