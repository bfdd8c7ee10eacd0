"""Reads places of Kafka so that what ails one place is told of that place, and of no other.

aiokafka decodes what was fetched for all places in one go: an error in the records of one is raised
without a word of whose it is, and takes along what was read of the others, whose positions have
moved on by then. It tells neither how far a position moved over records that nobody gets (markers
and aborted records of transactions), nor that its own loop has ended. So this module takes place by
place out of aiokafka's buffer; it is the only one that knows of it.

What nobody can read is passed over as a whole batch, and told (`Unreadable`): a broker gives no
smaller piece. A batch that is whole by its checksum reads the same everywhere and for ever; one
that is not may be read from another replica, so it is tried a few times first.
"""

import asyncio
import logging
from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Any, Final, NamedTuple

import cramjam  # noqa: F401 - who lacks it would refuse what all others read
from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.consumer.fetcher import FetchError
from aiokafka.errors import (
    ConsumerStoppedError,
    CorruptRecordException,
    KafkaError,
    OffsetOutOfRangeError,
    RecordTooLargeError,
    TopicAuthorizationFailedError,
    UnknownTopicOrPartitionError,
    for_code,
)
from aiokafka.protocol.fetch import FetchRequest
from aiokafka.record.memory_records import MemoryRecords

__all__ = ["Extent", "Fetched", "Fetching", "Unreadable", "extent_of"]

_log = logging.getLogger(__name__)

_TRIES: Final = 4  # of a batch that is damaged
_SHORTEST_HOLD_S: Final = 0.1
_LONGEST_HOLD_S: Final = 5.0  # a right that is granted is noticed so late
_ANSWER_S: Final = 2.0  # after so long beyond its hold without another error a place is well again
_OPEN_S: Final = 10.0  # a transaction that is open longer than this is worth a word
_LOOK_BYTES: Final = 1024 * 1024  # the broker gives at least one batch, however large it is


class Unreadable(NamedTuple):
    """Offsets `first` to `stop - 1` of a place were passed over: nobody can read them.

    `is_intact`: the bytes are those that were written, so that they are as unreadable to everybody
    else, before and after. Otherwise somebody may have read them before they were damaged.
    """

    first: int
    stop: int
    reason: str
    is_intact: bool


class Fetched(NamedTuple):
    """What one poll gave, by place.

    `positions`: where each place stands behind its records; beyond them if what follows are markers
    or aborted records. `lost`: places whose position is not in the log. `unreadable` comes behind
    the records of its place.
    """

    records: dict[TopicPartition, list[Any]]
    positions: dict[TopicPartition, int]
    lost: tuple[TopicPartition, ...]
    unreadable: dict[TopicPartition, Unreadable]

    @property
    def is_empty(self) -> bool:
        return not (self.positions or self.lost or self.unreadable)


class Extent(NamedTuple):
    """Where a batch ends, and whether its checksum is right."""

    stop: int
    is_intact: bool


class _Trouble:
    """What ails a place at an offset, how often it did so in a row, and until when it is held."""

    __slots__ = ("n", "offset", "reason", "until")

    def __init__(self, offset: int) -> None:
        self.offset = offset
        self.reason = ""
        self.n = 0
        self.until = 0.0


class Fetching:
    """Polls one consumer, which is assigned and sought from outside. `counts` are for metrics."""

    def __init__(self, consumer: AIOKafkaConsumer, answer_s: float) -> None:
        """`answer_s`: the longest wait for a broker's answer to a question of this module's own."""
        self.counts: Counter[str] = Counter()
        self._consumer = consumer
        self._answer_s = answer_s
        self._paused: frozenset[TopicPartition] = frozenset()
        self._troubles: dict[TopicPartition, _Trouble] = {}
        self._open: dict[TopicPartition, tuple[int, float]] = {}
        self._ask = consumer._client.send
        consumer._client.send = self._send

    @property
    def _fetcher(self) -> Any:
        """aiokafka's own loop and buffer; there once the consumer is started."""
        return self._consumer._fetcher

    # ---- polling ------------------------------------------------------------------------------

    async def poll(self, timeout_ms: float) -> Fetched:
        """What has come; waits at most so long for the first of it.

        Raises ConsumerStoppedError when the consumer's own loop has ended: nothing comes any more.
        """
        self._check_alive()
        if self._troubles:
            self._settle_pauses()
        if not self._fetcher._records:
            await self._wait(timeout_ms / 1000)
            self._check_alive()
        fetched = Fetched({}, {}, (), {})
        failures = {place: self._take(place, fetched) for place in list(self._fetcher._records)}
        lost = [p for p, error in failures.items() if isinstance(error, OffsetOutOfRangeError)]
        for place, error in failures.items():
            if error is not None and place not in lost:
                await self._suffer(place, error, fetched)
        return fetched._replace(lost=tuple(lost))

    def pause(self, places: Iterable[TopicPartition]) -> None:
        """Fetch nothing from these places, and from all others again."""
        self._paused = frozenset(places)
        self._settle_pauses()

    def _check_alive(self) -> None:
        loop = self._fetcher._fetch_task
        if loop.done():
            why = None if loop.cancelled() else loop.exception()
            raise ConsumerStoppedError(f"the consumer reads no more: {why!r}")

    async def _wait(self, seconds: float) -> None:
        waiter = self._fetcher._create_fetch_waiter()
        try:
            await asyncio.wait([waiter, self._fetcher._fetch_task], timeout=seconds,
                               return_when=asyncio.FIRST_COMPLETED)  # fmt: skip
        finally:
            waiter.cancel()

    def _take(self, place: TopicPartition, fetched: Fetched) -> Exception | None:
        """Take what was fetched of a place; what went wrong there, if anything did."""
        found = self._fetcher._records.pop(place)
        self._fetcher._notify(self._fetcher._wait_consume_future)  # it may be fetched again
        if not self._fetcher._subscriptions.is_assigned(place):
            return None
        if isinstance(found, FetchError):
            error: Exception = found._error
            return error
        if not found.has_more() or not found.check_assignment(place):
            return None  # it was paused or sought elsewhere meanwhile
        return self._decode(place, found, fetched)

    def _decode(self, place: TopicPartition, found: Any, fetched: Fetched) -> Exception | None:
        """The records up to the first that cannot be read; the position stands behind them."""
        before = self._state(place).position
        records: list[Any] = []
        failure: Exception | None = None
        try:
            records.extend(iter(found._partition_records))
        except Exception as error:  # noqa: BLE001 - every codec has errors of its own
            failure = error
        found._update_position()
        after = self._state(place).position
        if records:
            fetched.records[place] = records
        if after > before:
            fetched.positions[place] = after
            self._troubles.pop(place, None)
        return failure

    def _state(self, place: TopicPartition) -> Any:
        return self._fetcher._subscriptions.subscription.assignment.state_value(place)

    # ---- what goes wrong ----------------------------------------------------------------------

    async def _suffer(self, place: TopicPartition, error: Exception, fetched: Fetched) -> None:
        """Hold a place for a while, or pass over what nobody can read."""
        self.counts["read_faults_total"] += 1
        at: int = self._state(place).position
        if isinstance(error, RecordTooLargeError):
            at -= 1  # aiokafka has moved on by one: it could not find the end of a batch
        trouble = self._note(place, at, error)
        if isinstance(error, TopicAuthorizationFailedError):
            return
        try:
            extent = await self._look(place, at)
        except Exception:  # noqa: BLE001 - it must not cost what was read of the other places
            _log.exception("%s is not looked into", _name(place))
            return
        if extent is None or not self._fetcher._subscriptions.is_assigned(place):
            return
        is_intact = extent.is_intact and not isinstance(error, MemoryError)
        if is_intact or trouble.n >= _TRIES:
            self._pass_over(place, Unreadable(at, extent.stop, _said(error), is_intact), fetched)

    def _note(self, place: TopicPartition, at: int, error: Exception) -> _Trouble:
        trouble = self._troubles.get(place)
        if trouble is None or trouble.offset != at:
            trouble = self._troubles[place] = _Trouble(at)
        trouble.n += 1
        trouble.reason = _told(place, at, error)
        hold_s = min(_SHORTEST_HOLD_S * 2 ** (trouble.n - 1), _LONGEST_HOLD_S)
        trouble.until = _now() + hold_s
        if self._state(place).position != at:
            self._consumer.seek(place, at)
        self._settle_pauses()
        return trouble

    def _pass_over(self, place: TopicPartition, what: Unreadable, fetched: Fetched) -> None:
        self.counts["batches_unreadable_total"] += 1
        self._troubles.pop(place, None)
        fetched.unreadable[place] = what
        self._consumer.seek(place, what.stop)
        self._settle_pauses()

    async def _send(self, node: int, request: Any, **options: Any) -> Any:
        """As aiokafka's own, which only logs most of what a broker says of a place, and asks again
        at once, for ever."""
        response = await self._ask(node, request, **options)
        if isinstance(request, FetchRequest):
            for topic, partitions in response.topics:
                for partition, code, *_ in partitions:
                    if code:
                        self._heed(TopicPartition(topic, partition), for_code(code))
        return response

    def _heed(self, place: TopicPartition, kind: type[Exception]) -> None:
        """What aiokafka tells nobody. That another broker leads a place passes by itself."""
        is_told = kind in (OffsetOutOfRangeError, TopicAuthorizationFailedError)
        passes = (
            getattr(kind, "invalid_metadata", False) and kind is not UnknownTopicOrPartitionError
        )
        if is_told or passes or not self._fetcher._subscriptions.is_assigned(place):
            return
        state = self._state(place)
        if state.has_valid_position:
            self.counts["read_faults_total"] += 1
            self._note(place, state.position, kind())

    async def _look(self, place: TopicPartition, at: int) -> Extent | None:
        """Ask the broker for the batch at this offset once more, for its head alone."""
        node = self._consumer._client.cluster.leader_for_partition(place)
        if node is None or node < 0:
            return None
        asked = [(place.topic, [(place.partition, at, _LOOK_BYTES)])]
        isolation = self._fetcher._isolation_level
        request = FetchRequest(0, 1, _LOOK_BYTES, isolation, asked, rack_id="")
        try:
            async with asyncio.timeout(self._answer_s):
                response = await self._ask(node, request)
        except (KafkaError, TimeoutError):
            return None
        ((_, ((_, code, end, *_, data),)),) = response.topics
        return extent_of(data, at, end) if for_code(code) is for_code(0) else None

    def _settle_pauses(self) -> None:
        """What is paused from outside, and what is held here."""
        now = _now()
        assigned = self._consumer.assignment()
        if not assigned:
            return
        held = {place for place, trouble in self._troubles.items() if now < trouble.until}
        wanted = (self._paused | held) & assigned
        paused = set(self._consumer.paused())
        if wanted - paused:
            self._consumer.pause(*(wanted - paused))
        if paused - wanted:
            self._consumer.resume(*(paused - wanted))

    # ---- what is told -------------------------------------------------------------------------

    def end(self, place: TopicPartition) -> int | None:
        """Next offset that will be given out, as of the last fetch: that of the first transaction
        which is open, or the log's end. None before the first fetch."""
        if not self._fetcher._subscriptions.is_assigned(place):
            return None
        state = self._state(place)
        stable: int | None = state.lso
        return state.highwater if stable is None or stable < 0 else stable

    def faults(self) -> Mapping[TopicPartition, str]:
        """What ails places now, in words."""
        now = _now()
        assigned = self._consumer.assignment()
        for place, trouble in list(self._troubles.items()):
            if place not in assigned or now > trouble.until + _ANSWER_S:
                del self._troubles[place]
        leader = self._consumer._client.cluster.leader_for_partition
        astray = [place for place in assigned if leader(place) in (None, -1)]
        found = {place: f"no broker leads {_name(place)}" for place in astray}
        found |= self._held_back(assigned, now)
        found |= {place: trouble.reason for place, trouble in self._troubles.items()}
        return found

    def _held_back(
        self, assigned: Iterable[TopicPartition], now: float
    ) -> dict[TopicPartition, str]:
        """Places where a transaction has been open for long: nobody gets what lies behind it."""
        before, self._open = self._open, {}
        found = {}
        for place in assigned:
            stable, end = self.end(place), self._state(place).highwater
            if stable is None or end is None or stable >= end:
                continue
            known = before.get(place)
            since = known[1] if known is not None and known[0] == stable else now
            self._open[place] = (stable, since)
            if now - since > _OPEN_S:
                found[place] = (
                    f"a transaction that is open since offset {stable} of {_name(place)} holds"
                    f" back {end - stable} offsets"
                )
        return found


def extent_of(data: bytes, at: int, end: int) -> Extent:
    """The batch that holds offset `at`, in bytes that a broker gave for it; the log ends at `end`.

    Where the head itself is damaged: up to the batch behind it, or by one offset.
    """
    records = MemoryRecords(data)
    try:
        while records.has_next():
            batch = records.next_batch()
            is_intact = batch.validate_crc()
            stop: int = batch.next_offset
            if not is_intact and records.has_next():
                stop = records.next_batch().base_offset
            if at < stop and (is_intact or stop <= end):
                return Extent(stop, is_intact)
            if not is_intact:
                break
    except (AttributeError, CorruptRecordException, IndexError, ValueError):
        return Extent(at + 1, is_intact=False)  # what follows is no batch of today's format
    return Extent(at + 1, is_intact=False)


def _said(error: Exception) -> str:
    return f"{type(error).__name__}: {error}" if str(error) else type(error).__name__


def _told(place: TopicPartition, at: int, error: Exception) -> str:
    if isinstance(error, TopicAuthorizationFailedError):
        return f"this user may not read {_name(place)}: grant it the right to, it is tried again"
    return f"offset {at} of {_name(place)} cannot be read: {_said(error)}"


def _name(place: TopicPartition) -> str:
    return f"partition {place.partition} of topic {place.topic}"


def _now() -> float:
    return asyncio.get_running_loop().time()
