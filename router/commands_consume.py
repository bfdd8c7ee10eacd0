"""The command `spikerouter consume`: results of a network, or any topic, as JSON lines."""

import asyncio
import json
import sys
from collections.abc import AsyncIterator, Iterable
from dataclasses import dataclass
from types import TracebackType
from typing import Annotated, Any, Final, Self

import typer
from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.errors import ConsumerStoppedError, KafkaError
from rich.console import Console

from router.client import ReaderFailed
from router.closing import close
from router.fetching import Fetching
from router.lookup import deployed_networks, find_network
from router.probe import check_kafka
from router.record_files import MAGIC
from router.security import kafka_options
from router.settings import Settings
from router.topics import DEAD_LETTER, out_topic
from router.views import (
    DeadLetterView,
    FrameView,
    InputView,
    Raw,
    ResultView,
    View,
    edges_of,
    native_entries,
)
from topologies.errors import SpikeRouterError

__all__ = ["ConsumeCommandError", "consume_command"]

_START_S: Final = 10.0  # for the broker to answer
_POLL_MS: Final = 100


class ConsumeCommandError(SpikeRouterError, ValueError):
    """An option is not legal."""


def consume_command(
    source: Annotated[
        str,
        typer.Argument(
            help="A network, for its results; or a topic: snn.in.<input>, "
            "snn.spikes.<operator>, snn.out.<network>, snn.dead-letter."
        ),
    ],
    from_beginning: Annotated[
        bool,
        typer.Option("--from-beginning", help="Read all that Kafka keeps, not only what comes."),
    ] = False,
    partition: Annotated[
        int | None, typer.Option(min=0, help="Read this partition; by default all.")
    ] = None,
    offset: Annotated[
        int | None, typer.Option(min=0, help="Begin at this offset of --partition.")
    ] = None,
    count: Annotated[
        int | None, typer.Option(min=1, help="End after so many lines or records.")
    ] = None,
    until_idle: Annotated[
        float | None,
        typer.Option(metavar="SECONDS", min=0.0, help="End when nothing came for so long."),
    ] = None,
    native: Annotated[
        bool, typer.Option("--native", help="Write an input as a file that publish reads.")
    ] = False,
    kafka: Annotated[str | None, typer.Option(metavar="HOST:PORT", help="Kafka.")] = None,
    redis: Annotated[str | None, typer.Option(metavar="URL", help="Redis or Valkey.")] = None,
) -> None:
    """Print what a topic holds, one JSON object per line, as it comes; Ctrl-C ends it.

    Results are told once: repeats, which a failover leaves, are dropped, and at the end it is said
    how many. The topic snn.out.<network> has them all.
    """
    if offset is not None and (partition is None or from_beginning):
        raise ConsumeCommandError("--offset needs --partition, and excludes --from-beginning.")
    if native and not source.startswith("snn.in."):
        raise ConsumeCommandError(f"--native is for inputs, snn.in.<input>, not for {source!r}.")
    changes: dict[str, object] = {"kafka": kafka, "redis": redis}
    settings = Settings.load(**{key: value for key, value in changes.items() if value is not None})
    wanted = _Wanted(from_beginning, partition, offset, until_idle)
    asyncio.run(_consume(settings, source, wanted, count, native=native))


@dataclass(frozen=True, slots=True)
class _Wanted:
    """Which records of the topic are wanted."""

    from_beginning: bool
    partition: int | None
    offset: int | None
    until_idle: float | None


async def _consume(
    settings: Settings, source: str, wanted: _Wanted, count: int | None, *, native: bool
) -> None:
    topic, view = await _opened(settings, source)
    out = sys.stdout.buffer
    if native:
        out.write(MAGIC)
    async with _TopicReader(settings, topic, wanted) as reader:
        try:
            async for raw in reader.records():
                for piece in native_entries(raw) if native else map(_json_line, view.lines(raw)):
                    out.write(piece)
                    count = None if count is None else count - 1
                    if count == 0:
                        return
                if reader.is_at_end:
                    out.flush()
        finally:
            out.flush()
            _tell(view, topic, reader)


def _json_line(line: dict[str, Any]) -> bytes:
    return json.dumps(line, ensure_ascii=False).encode() + b"\n"


async def _opened(settings: Settings, source: str) -> tuple[str, View]:
    """The topic to read, and how its records are shown. Raises ConsumeCommandError."""
    if not source.startswith("snn."):
        found = await find_network(settings, source)
        every = found.network.outputs.every
        return out_topic(source), ResultView(source, found.n_partitions, every)
    if source == DEAD_LETTER:
        return source, DeadLetterView()
    if source.startswith("snn.in."):
        return source, InputView()
    if source.startswith("snn.out."):
        return source, FrameView(None)
    if source.startswith("snn.spikes."):
        networks = await deployed_networks(settings)
        return source, FrameView(edges_of(networks.values()))
    raise ConsumeCommandError(
        f"{source!r} is no topic of the system; legal are a network, snn.in.<input>, "
        f"snn.spikes.<operator>, snn.out.<network> and {DEAD_LETTER}."
    )


def _errors() -> Console:
    return Console(stderr=True, soft_wrap=True, highlight=False)


def _tell(view: View, topic: str, reader: "_TopicReader") -> None:
    """What was left out."""
    errors = _errors()
    if isinstance(view, ResultView) and view.repeats:
        errors.print(f"{view.repeats} repeats were dropped; {topic} has them.")
    if isinstance(view, ResultView) and view.spread:
        errors.print(
            f"{view.spread} streams have the name of one in another partition: their producers "
            "sent the records of one stream to several partitions (docs/wire-format.md)."
        )
    if reader.n_lost:
        errors.print(f"{reader.n_lost} records were gone before they could be read.")
    if reader.n_unreadable:
        errors.print(f"{reader.n_unreadable} records cannot be read by anybody; {topic} has them.")


class _TopicReader:
    """Reads one topic by `assign`, without a group: it takes nothing from other readers."""

    def __init__(self, settings: Settings, topic: str, wanted: _Wanted) -> None:
        self.n_lost = 0
        self.n_unreadable = 0
        self._topic = topic
        self._wanted = wanted
        self._next: dict[TopicPartition, int] = {}
        self._ends: dict[TopicPartition, int] = {}
        self._kafka = kafka_options(settings)
        self._consumer = AIOKafkaConsumer(
            **self._kafka,
            group_id=None,
            enable_auto_commit=False,
            auto_offset_reset="none",
            isolation_level="read_committed",
            fetch_max_wait_ms=settings.fetch_max_wait_ms,
            max_partition_fetch_bytes=settings.fetch_max_bytes,
        )

        self._fetching = Fetching(self._consumer, _START_S)
        self._told: set[str] = set()

    @property
    def is_at_end(self) -> bool:
        """Whether all was read that was there at the beginning."""
        return all(self._next[place] >= end for place, end in self._ends.items())

    async def __aenter__(self) -> Self:
        try:
            await check_kafka(self._kafka)
            async with asyncio.timeout(_START_S):
                await self._consumer.start()
                await self._assign()
        except (KafkaError, TimeoutError) as error:
            await close(self._consumer)
            reason = str(error) or type(error).__name__
            raise ReaderFailed(f"Kafka cannot be read: {reason}") from error
        except BaseException:
            await close(self._consumer)
            raise
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await close(self._consumer)

    async def _assign(self) -> None:
        consumer, wanted = self._consumer, self._wanted
        places = await self._places()
        firsts = await consumer.beginning_offsets(places)
        self._ends = await consumer.end_offsets(places)
        if wanted.offset is not None:
            self._next = dict.fromkeys(places, wanted.offset)
        else:
            self._next = dict(firsts if wanted.from_beginning else self._ends)
        consumer.assign(places)
        for place, offset in self._next.items():
            consumer.seek(place, offset)

    async def _places(self) -> list[TopicPartition]:
        """The partitions to read. A topic that is not there is not asked for: that makes it."""
        topics = await self._consumer.topics()
        if self._topic not in topics:
            legal = ", ".join(sorted(t for t in topics if t.startswith("snn."))) or "none"
            raise ConsumeCommandError(f"There is no topic {self._topic}; there are: {legal}.")
        first = TopicPartition(self._topic, 0)
        await self._consumer.beginning_offsets([first])
        numbers = sorted(self._consumer.partitions_for_topic(self._topic) or ())
        partition = self._wanted.partition
        if partition is not None and partition not in numbers:
            raise ConsumeCommandError(f"--partition {partition}: legal are {numbers}.")
        chosen = numbers if partition is None else [partition]
        return [TopicPartition(self._topic, number) for number in chosen]

    async def records(self) -> AsyncIterator[Raw]:
        """The records as they come; ends when the topic is idle, if that is wanted."""
        now = asyncio.get_running_loop().time
        last = now()
        idle = self._wanted.until_idle
        while idle is None or not self.is_at_end or now() - last < idle:
            try:
                fetched = await self._fetching.poll(_POLL_MS)
            except ConsumerStoppedError as error:
                raise ReaderFailed(f"Kafka cannot be read any more: {error}") from error
            if fetched.lost:
                await self._skip(fetched.lost)
            self._next.update(fetched.positions)
            for records in fetched.records.values():
                last = now()
                for record in records:
                    yield Raw(record.partition, record.offset, record.key, record.value)
            for place, gap in fetched.unreadable.items():
                self._next[place] = gap.stop
                self.n_unreadable += gap.stop - gap.first
            self._tell_faults()

    def _tell_faults(self) -> None:
        """What keeps a place from being read, once: it is tried again."""
        for fault in {*self._fetching.faults().values()} - self._told:
            self._told.add(fault)
            _errors().print(f"{fault[:1].upper()}{fault[1:]}.")

    async def _skip(self, places: Iterable[TopicPartition]) -> None:
        """The broker has dropped what was not read yet: go on where it begins now."""
        firsts = await self._consumer.beginning_offsets(list(places))
        for place, first in firsts.items():
            self.n_lost += max(0, first - self._next[place])
            self._next[place] = first
            self._consumer.seek(place, first)
