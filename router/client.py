"""Publish input and read results, straight on Kafka: for the gateway, for tools, for any program.

    async with Publisher.of(settings) as publisher, ResultReader.of(settings) as reader:
        await reader.follow("digits")
        record = Data(name="image-1", request=True, payload=..., dtype="float32", shape=(1, 8, 8))
        result = await request(publisher, reader, "digits", record, Deadline.after(10.0))

A stream's partition is chosen by its publisher, explicitly: CRC-32 of the name, as librdkafka's
`consistent` partitioner does, so that kcat chooses the same (PROTOCOL 2).

What may be lost is sent again, and what is repeated has no effect. The producer is idempotent. When
it fails for good, or acknowledged input was lost by the broker, the same bytes are published again
under the same name: ingest drops an equal repeat of a request, and of a record with a sequence
number. Other records are never sent twice; their failure is raised.
"""

import asyncio
import logging
from collections import OrderedDict, deque
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Iterable, Mapping
from dataclasses import asdict, dataclass
from types import TracebackType
from typing import Any, ClassVar, Final, NamedTuple, Self

from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition
from aiokafka.errors import (
    InvalidTopicError,
    KafkaError,
    MessageSizeTooLargeError,
    RecordListTooLargeError,
    TopicAuthorizationFailedError,
)

from router import deadletter
from router.bus import set_fetch_wait
from router.closing import close
from router.fetching import Fetched, Fetching
from router.loops import Keeper, Turn
from router.polling import Pace
from router.probe import check_kafka
from router.records import Data, Record, encode_record, record_key
from router.results import Emission, Result, ResultTable, Stream
from router.seals import Keyring, Signed, Trust, seal_of
from router.security import kafka_options
from router.settings import Settings
from router.topics import DEAD_LETTER, in_topic, out_topic, partition_of
from router.wire import WireError, decode_frame
from topologies.errors import SpikeRouterError

__all__ = [
    "ClientError",
    "Deadline",
    "Position",
    "PublishFailed",
    "Publisher",
    "PublisherTally",
    "ReaderFailed",
    "RecordRefused",
    "RecordTooLarge",
    "ResultReader",
    "ResultTimeout",
    "StreamFailed",
    "partition_of",
    "reachable",
    "request",
]

_BATCH_BYTES: Final = 256 * 1024  # of one produce request; the broker's default limit is 1 MiB
_TURN_S: Final = 0.005  # of taking results that were fetched
_POLL_MS: Final = 50  # after so long without a record, look for newly followed networks
_RETRY_S: Final = 0.1  # between two attempts to reach the broker
_KEPT_REFUSALS: Final = 10_000
_LOST: Final = ("EraLost:", "InputLost:")
"""Why ingest refuses a record of a stream that it does not know any more."""
_LONGEST_RESEND_S: Final = 60.0
_log = logging.getLogger(__name__)
_PERMANENT: Final = (
    InvalidTopicError,
    MessageSizeTooLargeError,
    RecordListTooLargeError,
    TopicAuthorizationFailedError,
)


class ClientError(SpikeRouterError, RuntimeError):
    """Input could not be published, or a result could not be had."""


class PublishFailed(ClientError):
    """A record was not acknowledged. It may have been written nevertheless."""

    retryable: ClassVar[bool] = True


class RecordTooLarge(ClientError, ValueError):
    """A record is larger than Kafka is asked to take."""


class ReaderFailed(ClientError):
    """Results cannot be read."""

    retryable: ClassVar[bool] = True


class ResultTimeout(ClientError, TimeoutError):
    """The deadline passed before the stream ended."""

    retryable: ClassVar[bool] = True


class StreamFailed(ClientError):
    """The stream was ended with an error; `result` tells of which stream and the error."""

    def __init__(self, result: Result) -> None:
        super().__init__(
            f"Stream {result.name!r} of network {result.network!r} (partition {result.partition}) "
            f"failed: {result.error}"
        )
        self.result = result


class RecordRefused(ClientError, ValueError):
    """Ingest put a record into the dead letters; `reason` is its sentence."""

    def __init__(self, name: str, reason: str) -> None:
        super().__init__(f"The input of stream {name!r} was refused: {reason}")
        self.reason = reason


@dataclass(frozen=True, slots=True)
class Deadline:
    """A point in time, handed down a chain of calls; `at` is on the event loop's clock."""

    at: float | None

    @classmethod
    def after(cls, seconds: float | None) -> Self:
        """So many seconds from now; None is unbounded. Needs a running event loop."""
        return cls(None if seconds is None else asyncio.get_running_loop().time() + seconds)

    def sooner(self, seconds: float) -> "Deadline":
        """This deadline, or so many seconds from now if that is before it."""
        at = asyncio.get_running_loop().time() + seconds
        return self if self.at is not None and self.at <= at else Deadline(at)

    @property
    def is_over(self) -> bool:
        """Whether it has passed."""
        return self.at is not None and asyncio.get_running_loop().time() >= self.at


class Position(NamedTuple):
    """Where a record lies in its topic."""

    partition: int
    offset: int


def _deadline(given: Deadline | float | None) -> Deadline:
    return given if isinstance(given, Deadline) else Deadline.after(given)


# Publishing


class _Item(NamedTuple):
    key: bytes | None
    value: bytes
    repeatable: bool
    future: "asyncio.Future[Position]"


class _Lane:
    """The records on their way to one partition, in order; one batch at a time is in flight."""

    __slots__ = ("checked", "items", "partition", "task", "topic")

    def __init__(self, topic: str, partition: int) -> None:
        self.topic = topic
        self.partition = partition
        self.items: deque[_Item] = deque()
        self.task: asyncio.Task[None] | None = None
        self.checked = False


@dataclass(slots=True)
class PublisherTally:
    """What a publisher has done, counted since it began."""

    acknowledged: int = 0
    failed: int = 0
    batches: int = 0
    reconnects: int = 0


class Publisher:
    """Appends input records. An async context; one per process is enough.

    `publish` waits only while more than `max_in_flight` records or `max_in_flight_bytes` bytes are
    not acknowledged. Records published in one turn of the event loop leave as one batch. Records
    of one partition are written in the order in which they were published.
    """

    def __init__(
        self,
        bootstrap: str,
        n_partitions: int,
        *,
        max_record_bytes: int = 900_000,
        send_timeout_s: float = 10.0,
        max_in_flight: int = 20_000,
        max_in_flight_bytes: int = 16 * 1024 * 1024,
        security: Mapping[str, Any] | None = None,
    ) -> None:
        self.n_partitions = n_partitions
        self.tally = PublisherTally()
        self._kafka = {"bootstrap_servers": bootstrap, **(security or {})}
        self._max_record_bytes = max_record_bytes
        self._send_timeout_s = send_timeout_s
        self._max_in_flight = max_in_flight
        self._max_in_flight_bytes = max_in_flight_bytes
        self._lanes: dict[tuple[str, int], _Lane] = {}
        self._in_flight = 0
        self._in_flight_bytes = 0
        self._waiting: deque[asyncio.Future[None]] = deque()
        self._producer: AIOKafkaProducer | None = None
        self._lock = asyncio.Lock()
        self._retired: set[asyncio.Task[None]] = set()
        self._open = False

    @classmethod
    def of(cls, settings: Settings) -> Self:
        """A publisher for the deployment that these settings describe."""
        return cls(
            settings.kafka,
            settings.partitions,
            max_record_bytes=settings.max_record_bytes,
            send_timeout_s=settings.send_timeout_s,
            security=kafka_options(settings),
        )

    def counters(self) -> dict[str, int]:
        """What the publisher has done, for metrics: name -> count since it began."""
        return asdict(self.tally)

    @property
    def in_flight(self) -> int:
        """Records that are not acknowledged yet."""
        return self._in_flight

    async def __aenter__(self) -> Self:
        """Connect; raises PublishFailed when no broker answers, WrongServer if it is no Kafka."""
        await check_kafka(self._kafka)
        try:
            self._producer = await self._connect()
        except KafkaError as error:
            raise PublishFailed(f"Kafka cannot be written to: {_reason(error)}") from error
        self._open = True
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Wait for all acknowledgements, unless the block failed; then close."""
        self._open = False
        tasks = [lane.task for lane in self._lanes.values() if lane.task is not None]
        if kind is not None:
            for task in tasks:
                task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        for lane in self._lanes.values():
            self._settle(lane.items, PublishFailed("The publisher was closed before it was sent."))
            lane.items.clear()
        if self._producer is not None:
            await close(self._producer)
            self._producer = None
        await asyncio.gather(*self._retired)

    async def publish(
        self,
        input: str,
        record: Record,
        partition: int | None = None,
    ) -> "asyncio.Future[Position]":
        """Append a record to an input; the future is done when it is acknowledged by all replicas.

        The partition is that of the stream's name unless it is given. The future raises
        PublishFailed; one that nobody awaits is counted as failed, and `flush` tells of it.
        Raises RecordTooLarge, and RecordError for a record that cannot be written.
        """
        if isinstance(record, Data):
            repeatable = record.request or record.seq is not None
            if partition is None:
                partition = partition_of(record.name, self.n_partitions)
        elif partition is None:
            raise ClientError(f"A record of type {type(record).__name__} needs a partition.")
        else:
            repeatable = True
        return await self.send(
            in_topic(input), record_key(record), encode_record(record), partition, repeatable
        )

    async def send(
        self, topic: str, key: bytes | None, value: bytes, partition: int, repeatable: bool = False
    ) -> "asyncio.Future[Position]":
        """Append any bytes to a topic. `repeatable`: to write them twice does no harm."""
        if not self._open:
            raise PublishFailed("The publisher is not open: use it as an async context.")
        if len(value) > self._max_record_bytes:
            raise RecordTooLarge(
                f"The record has {len(value)} bytes; the most is {self._max_record_bytes}: cut "
                "the stream into smaller records."
            )
        while not self._has_room:
            await self._room()
        place = (topic, partition)
        lane = self._lanes.get(place)
        if lane is None:
            lane = self._lanes[place] = _Lane(topic, partition)
        future: asyncio.Future[Position] = asyncio.get_running_loop().create_future()
        lane.items.append(_Item(key, value, repeatable, future))
        self._in_flight += 1
        self._in_flight_bytes += len(value)
        self._wake_next()  # there may be room for more than one
        if lane.task is None:
            lane.task = asyncio.create_task(self._drain(lane))
        return future

    async def flush(self) -> None:
        """Wait until nothing is in flight; raises PublishFailed if any record failed meanwhile."""
        failed = self.tally.failed
        while tasks := [lane.task for lane in self._lanes.values() if lane.task is not None]:
            await asyncio.wait(tasks)
        if self.tally.failed > failed:
            raise PublishFailed(
                f"{self.tally.failed - failed} records were not acknowledged; the futures that "
                "publish returned tell which."
            )

    @property
    def _has_room(self) -> bool:
        return (
            self._in_flight < self._max_in_flight
            and self._in_flight_bytes < self._max_in_flight_bytes
        )

    async def _room(self) -> None:
        """Wait until woken. One is woken at a time, and hands the wake-up on if it goes away."""
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.append(future)
        try:
            await future
        except asyncio.CancelledError:
            if future.cancelled():
                self._waiting.remove(future)
            else:
                self._wake_next()
            raise

    def _wake_next(self) -> None:
        while self._waiting and self._has_room:
            waiter = self._waiting.popleft()
            if not waiter.done():
                waiter.set_result(None)
                return

    async def _drain(self, lane: _Lane) -> None:
        """Send what the lane holds, batch by batch, until it is empty."""
        try:
            while lane.items:
                try:
                    await self._deliver(lane)
                except Exception:  # noqa: BLE001 - a fault of one batch, whose records were told
                    _log.exception("A batch for topic %s could not be sent", lane.topic)
        finally:
            lane.task = None

    async def _deliver(self, lane: _Lane) -> None:
        """Send one batch. What can be repeated is tried again until the deadline."""
        deadline = Deadline.after(self._send_timeout_s)
        batch = _take_batch(lane.items)
        failure = PublishFailed("The publisher was closed meanwhile.")
        try:
            while batch:
                producer = self._producer
                try:
                    async with asyncio.timeout_at(deadline.at):
                        producer = await self._live_producer()
                        first = await self._send(lane, producer, batch)
                except (KafkaError, TimeoutError) as error:
                    batch = self._after_failure(lane, batch, error, deadline)
                    self._retire(producer)
                else:
                    self._acknowledge(batch, first)
                    batch = []
        except Exception as error:
            failure = PublishFailed(f"The record could not be sent: {_reason(error)}")
            raise
        finally:
            if batch:
                self._settle(batch, failure)

    async def _send(self, lane: _Lane, producer: AIOKafkaProducer, batch: list[_Item]) -> Position:
        if not lane.checked:
            partitions = await producer.partitions_for(lane.topic)
            if lane.partition not in partitions:
                raise InvalidTopicError(
                    f"topic {lane.topic} has {len(partitions)} partitions, none with number "
                    f"{lane.partition}"
                )
            lane.checked = True
        builder = producer.create_batch()
        for item in batch:
            if builder.append(timestamp=None, key=item.key, value=item.value) is None:
                raise RecordListTooLargeError("the records do not fit one batch")
        builder.close()
        written = await producer.send_batch(builder, lane.topic, partition=lane.partition)
        return Position(lane.partition, (await written).offset)

    def _acknowledge(self, batch: list[_Item], first: Position) -> None:
        partition, offset = first
        for item in batch:
            if not item.future.done():  # whoever waited for it may have gone
                item.future.set_result(Position(partition, offset))
            offset += 1
        self.tally.acknowledged += len(batch)
        self.tally.batches += 1
        self._release(batch)

    def _after_failure(
        self, lane: _Lane, batch: list[_Item], error: Exception, deadline: Deadline
    ) -> list[_Item]:
        """Fail what cannot be tried again; what is left of the batch."""
        again: list[_Item] = []
        if not isinstance(error, _PERMANENT) and not deadline.is_over:
            again = [item for item in batch if item.repeatable]
        given_up = [item for item in batch if not (again and item.repeatable)]
        if given_up:
            reason = str(error) or type(error).__name__
            failure = PublishFailed(
                f"A record for partition {lane.partition} of topic {lane.topic} was not "
                f"acknowledged within {self._send_timeout_s:g} s: {reason}"
            )
            self._settle(given_up, failure)
        return again

    def _settle(self, items: Collection[_Item], failure: PublishFailed) -> None:
        for item in items:
            if not item.future.done():
                item.future.set_exception(failure)
                item.future.exception()  # seen: it is counted, whether or not somebody awaits it
        self.tally.failed += len(items)
        self._release(items)

    def _release(self, items: Collection[_Item]) -> None:
        self._in_flight -= len(items)
        self._in_flight_bytes -= sum(len(item.value) for item in items)
        self._wake_next()

    async def _connect(self) -> AIOKafkaProducer:
        """A producer that has reached the broker; raises KafkaError."""
        producer = AIOKafkaProducer(
            **self._kafka,
            acks="all",
            enable_idempotence=True,
            max_batch_size=_BATCH_BYTES + 1024,
            max_request_size=self._max_record_bytes + 10_000,
            request_timeout_ms=max(1, int(self._send_timeout_s * 500)),
        )
        try:
            await producer.start()
        except BaseException:
            await close(producer)
            raise
        return producer

    async def _live_producer(self) -> AIOKafkaProducer:
        while self._producer is None:
            async with self._lock:
                if self._producer is None:
                    try:
                        self._producer = await self._connect()
                    except KafkaError:
                        await asyncio.sleep(_RETRY_S)
        return self._producer

    def _retire(self, failed: AIOKafkaProducer | None) -> None:
        """After a failure a producer has a gap in its sequence numbers: it is of no more use."""
        if failed is not None and failed is self._producer:
            self._producer = None
            self.tally.reconnects += 1
            task = asyncio.create_task(close(failed))
            self._retired.add(task)
            task.add_done_callback(self._retired.discard)


def _take_batch(items: "deque[_Item]") -> list[_Item]:
    """As many records from the front as fit one batch, at least one."""
    batch = [items.popleft()]
    size = _batch_bytes(batch[0])
    while items and size + _batch_bytes(items[0]) <= _BATCH_BYTES:
        batch.append(items.popleft())
        size += _batch_bytes(batch[-1])
    return batch


def _batch_bytes(item: _Item) -> int:
    """The most that a record adds to a batch."""
    return len(item.value) + (len(item.key) if item.key else 0) + 40


# Reading results


class _Followed(NamedTuple):
    network: str
    input: str
    every: int | None
    ready: "asyncio.Future[None]"


@dataclass(slots=True)
class _ReaderTally:
    frames: int = 0
    bad_frames: int = 0
    dead_letters: int = 0
    read_errors: int = 0
    truncated: int = 0
    unreadable: int = 0
    unsealed: int = 0


class ResultReader:
    """Reads the results of networks and remembers them, within bounds. An async context.

    It reads all partitions by `assign`, without a group, so any number of readers see everything.
    `lookback` is the number of frames per partition that are read from before it began (None: all
    that Kafka keeps); `max_streams`, `max_bytes` and `keep_s` bound what is remembered.

    With `keys`, what the system has not sealed is passed over (PROTOCOL 35); `learn_keys` is called
    when one is not among them, and returns when they were looked up. Without, anything that has the
    form of a result is taken for one.
    """

    def __init__(
        self,
        bootstrap: str,
        n_partitions: int,
        *,
        networks: Iterable[str] = (),
        fetch_max_wait_ms: int = 100,
        fetch_max_bytes: int = 4 * 1024 * 1024,
        lookback: int | None = 0,
        max_streams: int = 100_000,
        max_bytes: int = 64 * 1024 * 1024,
        keep_s: float | None = None,
        start_timeout_s: float = 10.0,
        security: Mapping[str, Any] | None = None,
        keys: Keyring | None = None,
        learn_keys: Callable[[], Awaitable[object]] | None = None,
    ) -> None:
        self.n_partitions = n_partitions
        self._keys = Keyring(is_open=True) if keys is None else keys
        self._learn_keys = learn_keys
        self._has_new_keys = False  # whether they were looked up since the fetch that is taken
        self.table = ResultTable(
            n_partitions, max_streams=max_streams, max_bytes=max_bytes, keep_s=keep_s
        )
        self._networks = tuple(networks)
        self._options: dict[str, Any] = {
            "bootstrap_servers": bootstrap,
            **(security or {}),
            "group_id": None,
            "enable_auto_commit": False,
            "auto_offset_reset": "none",
            "isolation_level": "read_committed",
            "fetch_max_wait_ms": fetch_max_wait_ms,
            "fetch_max_bytes": fetch_max_bytes * n_partitions,
            "max_partition_fetch_bytes": fetch_max_bytes,
        }
        self._lookback = lookback
        self._pace = Pace(fetch_max_wait_ms)
        self._start_timeout_s = start_timeout_s
        self._consumer: AIOKafkaConsumer | None = None
        self.keeper = Keeper("reads results", self._read_anew, self._wake_all)
        self._task: asyncio.Task[None] | None = None
        self._tally = _ReaderTally()
        self._inputs: dict[str, str] = {}
        self._by_topic: dict[str, str] = {}
        self._next: dict[TopicPartition, int] = {}
        self._asked: deque[_Followed] = deque()
        self._asking: dict[str, asyncio.Future[None]] = {}
        self._waiting: dict[tuple[str, str], set[asyncio.Future[None]]] = {}
        self._refused: OrderedDict[tuple[str, int, int], str] = OrderedDict()
        self._refused_names: OrderedDict[tuple[str, int, str], str] = OrderedDict()

    @classmethod
    def of(cls, settings: Settings, **options: Any) -> Self:
        """A reader for the deployment that these settings describe; `options` as in the class."""
        given: dict[str, Any] = {
            "fetch_max_wait_ms": settings.fetch_max_wait_ms,
            "fetch_max_bytes": settings.fetch_max_bytes,
            "security": kafka_options(settings),
            **options,
        }
        return cls(settings.kafka, settings.partitions, **given)

    async def __aenter__(self) -> Self:
        """Connect, and follow the networks given; raises ReaderFailed, and WrongServer when it is
        no Kafka that answers."""
        await check_kafka(self._options)
        consumer = AIOKafkaConsumer(**self._options)
        try:
            async with asyncio.timeout(self._start_timeout_s):
                await consumer.start()
                self._consumer = consumer
                await self._attach(consumer, [DEAD_LETTER], lookback=0)
        except (KafkaError, TimeoutError) as error:
            await close(consumer)
            raise ReaderFailed(f"Kafka cannot be read: {_reason(error)}") from error
        except BaseException:
            await close(consumer)
            raise
        self._begin()
        try:
            for network in self._networks:
                await self.follow(network)
        except BaseException:
            await self.__aexit__(None, None, None)
            raise
        return self

    def _begin(self) -> None:
        self._task = asyncio.create_task(self.keeper.run())

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Stop reading; whoever waits gets ReaderFailed."""
        task, self._task = self._task, None
        if task is not None:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
        for key in list(self._waiting):
            self._wake(key)
        while self._asked:
            self._answer(self._asked.popleft(), ReaderFailed("The reader was closed."))
        if self._consumer is not None:
            await close(self._consumer)
            self._consumer = None

    async def follow(
        self,
        network: str,
        input: str | None = None,
        every: int | None = None,
        deadline: Deadline | float | None = None,
    ) -> None:
        """Read the results of a network from now on (and `lookback` frames before).

        `input` is the name of its input if it is not the network's own. `every` is the number of
        steps after which its readout emits (None: at END), which numbers the emissions of a stream
        that was already running. Following twice is following once. Raises ReaderFailed.
        """
        if network in self._inputs:
            return
        ready = self._asking.get(network)
        if ready is None:
            self.check_reading()
            ready = self._asking[network] = asyncio.get_running_loop().create_future()
            self._asked.append(_Followed(network, input or network, every, ready))
        limit = _deadline(self._start_timeout_s if deadline is None else deadline)
        try:
            async with asyncio.timeout_at(limit.at):
                await asyncio.shield(ready)
        except TimeoutError as error:
            raise ReaderFailed(f"The results of {network!r} could not be read in time.") from error

    def peek(self, network: str, name: str, partition: int | None = None) -> Stream | None:
        """What is known of a stream now; `partition` None: the publisher's own, else any."""
        if partition is None:
            own = self.table.find(network, name, partition_of(name, self.n_partitions))
            if own is not None:
                return own
        return self.table.find(network, name, partition)

    def partitions(self, network: str, name: str) -> list[int]:
        """Where streams of this name are known; more than one: a producer spread it."""
        return self.table.partitions(network, name)

    def was_answered(self, network: str, name: str, partition: int) -> bool:
        """Whether a request had its result, which is no longer kept: a repeat gets no other."""
        return self.table.was_answered(network, name, partition)

    def siblings(self, network: str, of: str) -> tuple[str, ...]:
        """The remembered names that begin with `of` and MARK."""
        return self.table.siblings(network, of)

    async def result(
        self,
        name: str,
        deadline: Deadline | float | None,
        *,
        network: str | None = None,
        partition: int | None = None,
        positions: Collection[Position] = (),
    ) -> Result:
        """Wait until a stream ends. `deadline` may be given in seconds from now.

        `network` may be left out when one is followed. `positions` are the records that the caller
        published for this stream: only their refusal concerns it. Without them, a refusal under
        this name does, unless the stream is known to run. Raises StreamFailed, RecordRefused,
        ResultTimeout and ReaderFailed.
        """
        network = self._sole(network)
        limit = _deadline(deadline)
        with self.table.pinned(network, name):
            while True:
                stream = self.peek(network, name, partition)
                self._check_refused(network, name, partition, positions, stream)
                if stream is not None and stream.final:
                    result = stream.result()
                    if result.error:
                        raise StreamFailed(result)
                    return result
                await self._changed(network, name, limit)

    async def results(
        self,
        name: str,
        deadline: Deadline | float | None = None,
        *,
        network: str | None = None,
        partition: int | None = None,
        start: int = 0,
        positions: Collection[Position] = (),
    ) -> AsyncIterator[Emission]:
        """The emissions of a stream from index `start` on, as they come, until it ends.

        Of `positions`, as in `result`, the refusal is told while nothing else is known of the
        stream. Raises what `result` raises, and ResultsLost when the next one is no longer kept.
        """
        network = self._sole(network)
        limit = _deadline(deadline)
        with self.table.pinned(network, name):
            while True:
                stream = self.peek(network, name, partition)
                if stream is None:
                    self._check_refused(network, name, partition, positions, stream)
                else:
                    for emission in stream.emissions(start):
                        start = emission.index + 1
                        yield emission
                    if start < stream.index:
                        continue  # more came while the last one was looked at
                    if stream.error:
                        raise StreamFailed(stream.result())
                    if stream.final:
                        return
                await self._changed(network, name, limit)

    def counters(self) -> dict[str, int]:
        """What the reader has done, for metrics: name -> count since it began."""
        return {**asdict(self.table.tally), **asdict(self._tally)}

    def _sole(self, network: str | None) -> str:
        if network is not None:
            return network
        if len(self._inputs) != 1:
            raise ReaderFailed(f"Name a network: {len(self._inputs)} are followed.")
        return next(iter(self._inputs))

    def check_reading(self) -> None:
        """Raises ReaderFailed unless results are being read."""
        if self._task is None or self._task.done():
            raise ReaderFailed("Results are not being read: the reader is closed or has failed.")
        if self.keeper.given_up:
            raise ReaderFailed(f"Results are not being read. {self.keeper.trouble}")

    def _check_refused(
        self,
        network: str,
        name: str,
        partition: int | None,
        positions: Collection[Position],
        stream: Stream | None,
    ) -> None:
        topic = in_topic(self._inputs.get(network, network))
        reason: str | None = None
        for place, offset in positions:
            reason = reason or self._refused.get((topic, place, offset))
        if not positions and stream is None:
            place = partition_of(name, self.n_partitions) if partition is None else partition
            reason = self._refused_names.get((topic, place, name))
        if reason is not None:
            raise RecordRefused(name, reason)

    async def _changed(self, network: str, name: str, limit: Deadline) -> None:
        """Wait for news of a stream."""
        self.check_reading()
        key = (network, name)
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        waiting = self._waiting.setdefault(key, set())
        waiting.add(future)
        try:
            async with asyncio.timeout_at(limit.at):
                await future
        except TimeoutError as error:
            raise ResultTimeout(
                f"Stream {name!r} of network {network!r} did not end before the deadline."
            ) from error
        finally:
            waiting.discard(future)
            if not waiting and self._waiting.get(key) is waiting:
                del self._waiting[key]
        self.check_reading()

    def _wake(self, key: tuple[str, str]) -> None:
        for future in self._waiting.get(key, ()):
            if not future.done():
                future.set_result(None)

    async def _read_anew(self) -> None:
        """Read until something that nobody has foreseen; the next time with a new consumer."""
        consumer = self._consumer
        if consumer is None:
            consumer = AIOKafkaConsumer(**self._options)
            await self._resume(consumer)
            self._consumer = consumer
        try:
            await self._read(consumer)
        except Exception:
            self._consumer = None
            await close(consumer)
            raise

    async def _resume(self, consumer: AIOKafkaConsumer) -> None:
        """Connect, and go on where the last one has read to."""
        try:
            async with asyncio.timeout(self._start_timeout_s):
                await consumer.start()
        except BaseException:
            await close(consumer)
            raise
        self._seek(consumer)

    async def _read(self, consumer: AIOKafkaConsumer) -> None:
        """Read until cancelled. Faults of the broker are counted and waited out."""
        fetching = Fetching(consumer, self._start_timeout_s)
        while True:
            try:
                await self._follow_asked(consumer)
                fetched = await fetching.poll(_POLL_MS)
            except (KafkaError, TimeoutError):
                self._tally.read_errors += 1
                await asyncio.sleep(_RETRY_S)
            else:
                now = asyncio.get_running_loop().time()
                set_fetch_wait(consumer, self._pace.wait_ms(now, bool(fetched.records)))
                self._tally.read_errors += fetching.counts.pop("read_faults_total", 0)
                await self._take_all(fetched)
                if fetched.lost:
                    await self._skip_truncated(consumer, fetched.lost)

    async def _take_all(self, fetched: Fetched) -> None:
        """Take records in turn with those who wait for them. What ends this is not read again."""
        turn = Turn(_TURN_S)
        turn.begin()
        self._has_new_keys = False
        for place, records in fetched.records.items():
            for record in records:
                self._next[place] = record.offset + 1
                if await self._is_ours(place, record):
                    self._take(place, record.value)
                if turn.is_over:
                    await turn.end()
        self._next.update(fetched.positions)
        for place, gap in fetched.unreadable.items():
            self._next[place] = gap.stop
            self._tally.unreadable += gap.stop - gap.first
        await asyncio.sleep(0)  # let those who wait go on

    async def _is_ours(self, place: TopicPartition, record: Any) -> bool:
        """Whether the system wrote a record; its key is looked up if need be.

        One look-up does for all that was fetched before it: their keys were in the store by then.
        """
        signed = Signed(place.topic, place.partition, record.key, record.value or b"")
        seal = seal_of(record.headers)
        trust = self._keys.trust(signed, seal)
        if trust is Trust.UNKNOWN and self._learn_keys is not None and not self._has_new_keys:
            await self._learn_keys()
            self._has_new_keys = True
            trust = self._keys.trust(signed, seal)
        self._tally.unsealed += trust is not Trust.GENUINE
        return trust is Trust.GENUINE

    def _wake_all(self) -> None:
        for key in list(self._waiting):
            self._wake(key)

    async def _follow_asked(self, consumer: AIOKafkaConsumer) -> None:
        while self._asked:
            asked = self._asked.popleft()
            topic = out_topic(asked.network)
            self.table.follow(asked.network, asked.every)
            self._by_topic[topic] = asked.network
            try:
                async with asyncio.timeout(self._start_timeout_s):
                    await self._attach(consumer, [topic], self._lookback)
            except (KafkaError, TimeoutError) as error:
                failure = ReaderFailed(f"Topic {topic} cannot be read: {_reason(error)}")
                self._answer(asked, failure)
            except BaseException:  # nobody may wait for ever, and another may ask again
                self._answer(asked, ReaderFailed(f"Topic {topic} cannot be read now."))
                raise
            else:
                self._inputs[asked.network] = asked.input
                self._answer(asked, None)

    def _answer(self, asked: _Followed, failure: ReaderFailed | None) -> None:
        self._asking.pop(asked.network, None)
        if asked.ready.done():
            return
        if failure is None:
            asked.ready.set_result(None)
        else:
            asked.ready.set_exception(failure)
            asked.ready.exception()  # seen, should the one who asked have gone

    async def _attach(
        self, consumer: AIOKafkaConsumer, topics: Iterable[str], lookback: int | None
    ) -> None:
        """Read these topics too. Assigning anew forgets positions: all are set again."""
        new = [
            TopicPartition(topic, place) for topic in topics for place in range(self.n_partitions)
        ]
        first = await consumer.beginning_offsets(new)
        if lookback is not None:
            last = await consumer.end_offsets(new)
            first = {place: max(first[place], last[place] - lookback) for place in new}
        self._next.update(first)
        self._seek(consumer)

    def _seek(self, consumer: AIOKafkaConsumer) -> None:
        consumer.assign(list(self._next))
        for place, offset in self._next.items():
            consumer.seek(place, offset)

    async def _skip_truncated(
        self, consumer: AIOKafkaConsumer, places: Iterable[TopicPartition]
    ) -> None:
        """The broker dropped what was not read yet: go on at its beginning, and count it."""
        try:
            first = await consumer.beginning_offsets(list(places))
        except (KafkaError, TimeoutError):
            await asyncio.sleep(_RETRY_S)
            return
        for place, offset in first.items():
            self._tally.truncated += max(0, offset - self._next[place])
            self._next[place] = offset
            consumer.seek(place, offset)

    def _take(self, place: TopicPartition, value: bytes | None) -> None:
        network = self._by_topic.get(place.topic)
        if network is None:
            self._take_letter(value or b"")
            return
        try:
            frame = decode_frame(value or b"")
        except WireError:
            self._tally.bad_frames += 1
            return
        self._tally.frames += 1
        now = asyncio.get_running_loop().time()
        for stream in self.table.feed(network, place.partition, frame.batches, now):
            if (stream.network, stream.name) in self._waiting:
                self._wake((stream.network, stream.name))

    def _take_letter(self, value: bytes) -> None:
        """A dead letter: who waits for the record it quotes learns the reason."""
        try:
            letter = deadletter.decode(value)
        except deadletter.DeadLetterError:
            self._tally.bad_frames += 1
            return
        self._tally.dead_letters += 1
        # Only a part was refused, such as late events; or the stream's end is in the results.
        if letter.offset < 0 or letter.reason.startswith(deadletter.STREAM_ENDED):
            return
        self._refused[(letter.topic, letter.partition, letter.offset)] = letter.reason
        self._refused_names[(letter.topic, letter.partition, letter.name)] = letter.reason
        for kept in (self._refused, self._refused_names):
            while len(kept) > _KEPT_REFUSALS:
                kept.popitem(last=False)
        is_lost = letter.reason.startswith(_LOST)
        for network, source in self._inputs.items():
            if in_topic(source) == letter.topic:
                if is_lost:
                    self.table.lose(network, letter.partition, letter.name, letter.reason)
                self._wake((network, letter.name))


def _reason(error: BaseException) -> str:
    return str(error) or type(error).__name__


async def reachable(bootstrap: str, timeout_s: float = 1.0) -> bool:
    """Whether any of the bootstrap servers, `HOST:PORT[,...]`, takes a connection."""
    for server in bootstrap.split(","):
        host, _, port = server.rpartition(":")
        try:
            async with asyncio.timeout(timeout_s):
                _, writer = await asyncio.open_connection(host.strip("[]"), int(port))
        except (OSError, TimeoutError):
            continue
        writer.close()
        return True
    return False


async def request(
    publisher: Publisher,
    reader: ResultReader,
    network: str,
    record: Data,
    deadline: Deadline | float | None,
    *,
    input: str | None = None,
    resend_s: float = 5.0,
) -> Result:
    """Publish a whole request and wait for its result.

    Without a result after `resend_s` seconds (then twice as long, and so on) the same bytes are
    published again: an acknowledged record may have been lost by a broker's fault, and ingest
    drops an equal repeat. Raises what `Publisher.publish` and `ResultReader.result` raise.
    """
    if not record.request:
        raise ClientError(f"Stream {record.name!r} is not a whole request: publish its records.")
    limit = _deadline(deadline)
    partition = partition_of(record.name, publisher.n_partitions)
    positions: list[Position] = []
    while True:
        written = await publisher.publish(input or network, record, partition)
        positions.append(await written)
        attempt = limit.sooner(resend_s)
        try:
            return await reader.result(
                record.name, attempt, network=network, partition=partition, positions=positions
            )
        except ResultTimeout:
            if limit.is_over:
                raise
        resend_s = min(2 * resend_s, _LONGEST_RESEND_S)
