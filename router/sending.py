"""Writes to Kafka in order, through a producer that is replaced when a batch of it failed.

An idempotent producer numbers its batches per partition when it first sends them. A batch that is
given up (its partition had no leader for too long) or refused (larger than the topic allows)
leaves a hole: the broker refuses whatever the producer sends to that partition from then on, for
ever. So another one takes over, with numbers of its own; and since the broker knows no order
between the two, each writer keeps it by itself (`Lane`): what the former one has of its records
must be acknowledged before the first goes to the new one, and nothing follows a record that failed
(PROTOCOL 12).
"""

import asyncio
from collections import Counter
from contextlib import suppress
from functools import partial
from typing import Any, Final

from aiokafka import AIOKafkaProducer
from aiokafka.errors import KafkaError, ProducerClosed

from router.closing import close
from router.seals import SEAL_HEADER
from router.security import kafka_options
from router.settings import Settings

__all__ = ["Lane", "Sending"]

_HEADROOM: Final = 100_000  # bytes of a produce request beside its largest record
_RETRY_S: Final = 0.1


class Sending:
    """The producer of a process, and its predecessors as long as they have something in flight."""

    def __init__(self, settings: Settings, answer_ms: int, metadata_ms: int) -> None:
        self.counts: Counter[str] = Counter()
        self._settings = settings
        self._answer_ms = answer_ms
        self._metadata_ms = metadata_ms
        self._producer: AIOKafkaProducer | None = None
        self._in_flight: dict[AIOKafkaProducer, set[asyncio.Future[Any]]] = {}
        self._closing: set[asyncio.Task[None]] = set()
        self._connecting = asyncio.Lock()

    async def start(self) -> None:
        """Connect; raises KafkaError."""
        self._producer = await self._connect()

    async def stop(self) -> None:
        """Send what is queued, and close."""
        producer, self._producer = self._producer, None
        if producer is not None:
            await self._close(producer)
        await asyncio.gather(*self._closing, return_exceptions=True)

    async def partitions_of(self, topic: str) -> set[int]:
        """The partitions of a topic, which is made by a broker that may. Raises KafkaError."""
        found: set[int] = await (await self.live()).partitions_for(topic)
        return found

    async def live(self) -> AIOKafkaProducer:
        """The producer; a new one after a failure, as soon as a broker answers."""
        while (producer := self._producer) is None:
            async with self._connecting:
                if self._producer is None:
                    with suppress(KafkaError):
                        self._producer = await self._connect()
            if self._producer is None:
                await asyncio.sleep(_RETRY_S)
        return producer

    def is_live(self, producer: AIOKafkaProducer) -> bool:
        return producer is self._producer

    async def send(
        self,
        producer: AIOKafkaProducer,
        topic: str,
        key: bytes | None,
        partition: int,
        value: bytes,
        seal: bytes = b"",
    ) -> "asyncio.Future[Any]":
        """Queue a record with this producer. Raises KafkaError; ProducerClosed if it is retired."""
        headers = [(SEAL_HEADER, seal)] if seal else None
        future: asyncio.Future[Any] = await producer.send(
            topic, value, key=key, partition=partition, headers=headers
        )
        self._in_flight.setdefault(producer, set()).add(future)
        future.add_done_callback(partial(self._done, producer))
        return future

    def _done(self, producer: AIOKafkaProducer, future: "asyncio.Future[Any]") -> None:
        self._in_flight.get(producer, set()).discard(future)
        if future.cancelled() or future.exception() is not None:
            self._retire(producer)

    def _retire(self, producer: AIOKafkaProducer) -> None:
        """Let another one take over; this one sends what it has in other partitions, and closes."""
        if producer is not self._producer:
            return
        self._producer = None
        self.counts["producers_replaced_total"] += 1
        closing = asyncio.get_running_loop().create_task(self._close(producer))
        self._closing.add(closing)
        closing.add_done_callback(self._closing.discard)

    async def _close(self, producer: AIOKafkaProducer) -> None:
        """Nobody waits longer than a send may take: what is in flight then counts as failed."""
        try:
            await close(producer, self._settings.send_timeout_s)
        finally:
            for future in self._in_flight.pop(producer, set()).copy():
                future.cancel()

    async def _connect(self) -> AIOKafkaProducer:
        largest = self._settings.max_record_bytes + _HEADROOM
        producer = AIOKafkaProducer(
            **kafka_options(self._settings),
            acks="all",
            enable_idempotence=True,
            linger_ms=0,
            max_batch_size=largest,
            max_request_size=largest,
            request_timeout_ms=self._answer_ms,
            metadata_max_age_ms=self._metadata_ms,
        )
        try:
            await producer.start()
        except BaseException:
            await close(producer)
            raise
        return producer


class Lane:
    """The records of one writer, in order; `send` is called by one at a time."""

    def __init__(self, sending: Sending) -> None:
        self._sending = sending
        self._producer: AIOKafkaProducer | None = None
        self._in_flight: set[asyncio.Future[Any]] = set()
        self._failure = ""

    async def send(
        self, topic: str, key: bytes | None, partition: int, value: bytes, seal: bytes = b""
    ) -> "asyncio.Future[Any]":
        """Queue a record. The future is done when every in-sync replica has it.

        Raises KafkaError, and does so for good once a record of this writer has failed.
        """
        while True:
            producer = await self._sending.live()
            if producer is not self._producer:
                await self._settle()
                self._check()
                if not self._sending.is_live(producer):
                    continue
            self._check()
            self._producer = producer
            try:
                future = await self._sending.send(producer, topic, key, partition, value, seal)
            except ProducerClosed:
                continue
            except KafkaError as error:
                self._failure = repr(error)
                raise
            self._in_flight.add(future)
            future.add_done_callback(self._done)
            return future

    def _check(self) -> None:
        if self._failure:
            raise KafkaError(f"a record before it was not written: {self._failure}")

    async def _settle(self) -> None:
        """Wait for what a former producer has in flight."""
        while self._in_flight:
            await asyncio.wait(self._in_flight)
            await asyncio.sleep(0)  # the callbacks that say how it went

    def _done(self, future: "asyncio.Future[Any]") -> None:
        self._in_flight.discard(future)
        if future.cancelled():
            self._failure = "it was given up"
        elif (error := future.exception()) is not None:
            self._failure = repr(error)
