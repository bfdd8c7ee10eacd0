"""Kafka, as a worker needs it: explicit partitions and offsets, no groups, no automatic anything.

Facts of aiokafka that shape this: it has one produce request in flight per broker, so frames are
large; it would pick a partition from a key, so the partition is always passed; `earliest` would
skip truncated records without a word, so the reset policy is `none` and truncation is an error.
How it reads and writes when something is wrong is in `router.fetching` and `router.sending`.
"""

import asyncio
from collections import Counter
from collections.abc import Iterable, Mapping
from contextlib import suppress
from types import MappingProxyType, TracebackType
from typing import Any, Final, NamedTuple, Self

from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.errors import ConsumerStoppedError, KafkaError

from router.closing import close
from router.fetching import Fetching, Unreadable
from router.polling import Pace
from router.probe import check_kafka
from router.seals import Keyring, Signed
from router.security import kafka_options
from router.sending import Lane, Sending
from router.settings import Settings
from topologies.errors import SpikeRouterError

__all__ = ["Bus", "BusError", "Place", "Polled", "set_fetch_wait"]

_METADATA_MS: Final = 60_000
_TOPIC_WAIT_S: Final = 10.0
_CALM_S: Final = 1.0
_LOOK_UP_AGAIN_MS: Final = 10  # for the offsets of a topic whose leader is not known yet


class BusError(SpikeRouterError, RuntimeError):
    """The broker does not answer, or refuses."""

    retryable = True


class Place(NamedTuple):
    topic: str
    partition: int


class Polled(NamedTuple):
    """A batch of records per place, and the places whose position is no longer in the log.

    `positions`: the next offset of each place that moved: behind its records, and behind markers
    and aborted records, which nobody gets. `unreadable`: what was passed over behind that.
    """

    records: Mapping[Place, list[Any]]
    lost: tuple[Place, ...]
    positions: Mapping[Place, int] = MappingProxyType({})
    unreadable: Mapping[Place, Unreadable] = MappingProxyType({})


class Bus:
    """One producer and one consumer of a worker process; use it as `async with Bus(settings)`."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        kafka = kafka_options(settings)
        answer_ms = _answer_ms(settings)
        self._sending = Sending(settings, answer_ms, _METADATA_MS)
        self._consumer = self._new_consumer()
        self._fetching = Fetching(self._consumer, settings.send_timeout_s)
        # A broker takes one request after the other of a connection, and a fetch may wait there.
        self._prober = AIOKafkaConsumer(
            **kafka,
            group_id=None,
            enable_auto_commit=False,
            isolation_level="read_committed",
            request_timeout_ms=answer_ms,
            metadata_max_age_ms=_METADATA_MS,
            retry_backoff_ms=_LOOK_UP_AGAIN_MS,
        )
        self._is_open = False
        self._at: dict[TopicPartition, int] = {}
        self._pace = Pace(settings.fetch_max_wait_ms)

    async def __aenter__(self) -> Self:
        """Connect; raises BusError when no broker answers, or none lets this user in, and
        WrongServer when it is no Kafka that answers."""
        try:
            await check_kafka(kafka_options(self._settings))
            await self._sending.start()
            await self._consumer.start()
            await self._prober.start()
            self._is_open = True
        except BaseException as error:
            await self.__aexit__(None, None, None)
            if isinstance(error, KafkaError):
                raise BusError(
                    f"Kafka at {self._settings.kafka} cannot be used: {error!r}. Check that it runs"
                    " there, and the user and certificates that the settings name."
                ) from error
            raise
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self._is_open:
            await _calm(self._prober)
        await asyncio.gather(
            close(self._prober), close(self._consumer), self._sending.stop(),
            return_exceptions=True,
        )  # fmt: skip

    # ---- sending ------------------------------------------------------------------------------

    def lane(self) -> Lane:
        """A way to send records in order, for one writer: what is sent there fails by itself."""
        return Lane(self._sending)

    async def send(
        self, topic: str, key: bytes | None, partition: int, value: bytes, seal: bytes = b""
    ) -> "asyncio.Future[Any]":
        """Queue a record that stands alone. The future is done when every in-sync replica has it.

        Raises KafkaError.
        """
        return await self.lane().send(topic, key, partition, value, seal)

    async def write(self, topic: str, partition: int, value: bytes, keys: Keyring) -> int:
        """Append a record without a key, sealed, and wait; its offset. Raises BusError."""
        seal = keys.seal(Signed(topic, partition, None, value))
        try:
            written = await (await self.send(topic, None, partition, value, seal))
        except KafkaError as error:
            raise BusError(f"Kafka did not take a record of topic {topic}: {error!r}.") from error
        offset: int = written.offset
        return offset

    async def ensure(self, topics: Iterable[str], n_partitions: int) -> None:
        """Wait until the topics are there; a broker that may creates them when asked for.

        Raises BusError when one has too few partitions, or none in time.
        """
        try:
            async with asyncio.timeout(_TOPIC_WAIT_S):
                found = [(t, await self._sending.partitions_of(t)) for t in topics]
        except (KafkaError, TimeoutError) as error:
            raise BusError(f"Kafka did not tell of its topics: {error!r}.") from error
        for topic, partitions in found:
            if len(partitions) < n_partitions:
                raise BusError(
                    f"topic {topic} has {len(partitions)} partitions, but {n_partitions} are asked"
                    " for: create it with as many, or set SPIKEROUTER_PARTITIONS lower"
                )

    # ---- reading ------------------------------------------------------------------------------

    async def bounds(self, places: Iterable[Place]) -> dict[Place, tuple[int, int]]:
        """First retained and next offset of each place.

        What lies behind a transaction that is open is not there yet: nobody could read up to it.
        """
        wanted = [TopicPartition(*p) for p in places]
        if not wanted:
            return {}
        try:
            async with asyncio.timeout(self._settings.send_timeout_s):
                first, last = await asyncio.gather(
                    self._prober.beginning_offsets(wanted), self._prober.end_offsets(wanted)
                )
        except (KafkaError, TimeoutError) as error:
            raise BusError(f"Kafka did not tell of its offsets: {error!r}.") from error
        return {Place(tp.topic, tp.partition): (first[tp], last[tp]) for tp in wanted}

    async def held(self, topic: str, first: int) -> dict[int, int]:
        """Records that each partition from `first` on holds, of those that the topic has."""
        try:
            async with asyncio.timeout(_TOPIC_WAIT_S):
                numbers = await self._sending.partitions_of(topic)
        except (KafkaError, TimeoutError) as error:
            raise BusError(f"Kafka did not tell of its topics: {error!r}.") from error
        bounds = await self.bounds(Place(topic, number) for number in numbers if number >= first)
        return {place.partition: end - begin for place, (begin, end) in bounds.items()}

    def read(self, offsets: Mapping[Place, int]) -> None:
        """Read exactly these places, from these offsets on."""
        wanted = {TopicPartition(*p): o for p, o in offsets.items()}
        if not wanted:
            self._consumer.unsubscribe()
        elif set(wanted) != set(self._at):
            self._consumer.assign(list(wanted))
        self._at = wanted
        for place, offset in wanted.items():
            self._consumer.seek(place, offset)

    def end(self, place: Place) -> int | None:
        """Next offset of a place that can be read up to, as of the last fetch; None before it."""
        return self._fetching.end(TopicPartition(*place))

    def pause(self, places: Iterable[Place]) -> None:
        """Fetch nothing from these places, and from all others again."""
        self._fetching.pause(TopicPartition(*p) for p in places)

    @property
    def faults(self) -> Mapping[Place, str]:
        """What ails places that are read here, in words."""
        return {Place(*p): why for p, why in self._fetching.faults().items()}

    async def poll(self, timeout_ms: int) -> Polled:
        """What has come; waits at most so long for the first record. Raises BusError."""
        if not self._at:
            await asyncio.sleep(timeout_ms / 1000)
            return Polled({}, ())
        try:
            fetched = await self._fetching.poll(timeout_ms)
        except ConsumerStoppedError as error:
            await self._renew_consumer()
            raise BusError(f"Kafka is read by a new consumer, since {error}.") from error
        now = asyncio.get_running_loop().time()
        set_fetch_wait(self._consumer, self._pace.wait_ms(now, bool(fetched.records)))
        self._at.update(fetched.positions)
        self._at.update({place: gap.stop for place, gap in fetched.unreadable.items()})
        return Polled(
            {Place(*p): records for p, records in fetched.records.items()},
            tuple(Place(*p) for p in fetched.lost),
            {Place(*p): offset for p, offset in fetched.positions.items()},
            {Place(*p): gap for p, gap in fetched.unreadable.items()},
        )

    def _new_consumer(self) -> AIOKafkaConsumer:
        settings = self._settings
        return AIOKafkaConsumer(
            **kafka_options(settings),
            group_id=None,
            enable_auto_commit=False,
            auto_offset_reset="none",
            isolation_level="read_committed",
            fetch_max_wait_ms=settings.fetch_max_wait_ms,
            max_partition_fetch_bytes=settings.fetch_max_bytes,
            request_timeout_ms=_answer_ms(settings),
            metadata_max_age_ms=_METADATA_MS,
        )

    async def _renew_consumer(self) -> None:
        """Read on by another consumer, from where this one stood. Raises BusError."""
        await close(self._consumer)
        consumer = self._new_consumer()
        try:
            await consumer.start()
        except BaseException as error:
            await close(consumer)
            if not isinstance(error, KafkaError):
                raise
            raise BusError(f"Kafka cannot be read: {error!r}.") from error
        counts = self._fetching.counts
        self._consumer = consumer
        self._fetching = Fetching(consumer, self._settings.send_timeout_s)
        self._fetching.counts.update(counts)
        offsets, self._at = self._at, {}
        self.read({Place(*p): offset for p, offset in offsets.items()})

    @property
    def counts(self) -> Counter[str]:
        """For metrics: name -> count since this began."""
        return self._fetching.counts + self._sending.counts


def _answer_ms(settings: Settings) -> int:
    """A broker that is paused or cut off keeps its connections: only this time gives it up, and
    another try must still fit the deadline. aiokafka's own 40 s would stop a reader so long."""
    return max(1, int(settings.send_timeout_s * 500))


async def _calm(consumer: AIOKafkaConsumer) -> None:
    """Let an idle client end what it does by itself: one that is stopped while it connects to a
    broker that came back forgets the connection, and never closes it."""
    with suppress(TimeoutError, KafkaError):
        async with asyncio.timeout(_CALM_S):
            await consumer._client.force_metadata_update()


def set_fetch_wait(consumer: AIOKafkaConsumer, wait_ms: int) -> None:
    """How long the consumer's next fetches wait at the broker when there is nothing to read.

    aiokafka asks for it once, when the consumer is made, and reads it at each fetch.
    """
    consumer._fetcher._fetch_max_wait_ms = wait_ms
