"""The command `spikerouter end`: end an open stream by its name, and print its last results."""

import asyncio
import json
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Annotated, Final

import typer
from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.errors import KafkaError

from router.client import Publisher, ReaderFailed, partition_of
from router.closing import close
from router.endings import Ending
from router.lookup import deployed_networks, find_network
from router.records import Data
from router.security import kafka_options
from router.settings import Settings
from router.topics import DEAD_LETTER, out_topic, spikes_topic
from router.views import Raw
from topologies.compiled import CompiledNetwork
from topologies.errors import SpikeRouterError

__all__ = ["EndCommandError", "end_command"]

_START_S: Final = 10.0  # for the broker to answer
_POLL_MS: Final = 100


class EndCommandError(SpikeRouterError, ValueError):
    """The stream cannot be ended, or did not end in time."""


def end_command(
    stream: Annotated[str, typer.Argument(help="Name of an open stream.")],
    input: Annotated[str, typer.Option(help="The input that it is a stream of.")],
    partition: Annotated[
        int | None,
        typer.Option(min=0, help="Partition of its records; default: that of its name, then all."),
    ] = None,
    timeout: Annotated[
        float, typer.Option(metavar="SECONDS", min=0.0, help="How long to wait for its results.")
    ] = 60.0,
    kafka: Annotated[str | None, typer.Option(metavar="HOST:PORT", help="Kafka.")] = None,
    redis: Annotated[str | None, typer.Option(metavar="URL", help="Redis or Valkey.")] = None,
) -> None:
    """End STREAM as its publisher would, at what it has said so far.

    Prints its last result in each network as a line of JSON, as consume does. Records that wait for
    one with a lesser seq go to the dead letters.
    """
    changes: dict[str, object] = {"kafka": kafka, "redis": redis}
    settings = Settings.load(**{key: value for key, value in changes.items() if value is not None})
    asyncio.run(_end(settings, stream, input, partition, timeout))


async def _end(
    settings: Settings, stream: str, input: str, partition: int | None, timeout: float
) -> None:
    networks, n_partitions = await _networks_of(settings, input)
    settings = settings.changed(partitions=n_partitions)
    if partition is not None and partition >= n_partitions:
        raise EndCommandError(f"--partition {partition}: legal are 0 to {n_partitions - 1}.")
    every = {network.name: network.outputs.every for network in networks}
    ending = Ending(input, stream, every, n_partitions)
    first = partition_of(stream, n_partitions) if partition is None else partition
    others = [] if partition is not None else [p for p in range(n_partitions) if p != first]
    topics = [DEAD_LETTER, *map(out_topic, every), *{_spikes_of(n) for n in networks}]
    try:
        async with (
            asyncio.timeout(timeout + _START_S),
            _consumer(settings, topics) as consumer,
            Publisher.of(settings) as publisher,
        ):
            for partitions in filter(None, ([first], others)):
                await _send(publisher, input, stream, partitions, ending)
                async with asyncio.timeout(timeout):
                    await _until_told(consumer, ending, partitions)
                if ending.is_over:
                    return
    except TimeoutError as error:
        raise EndCommandError(_not_over(stream, ending, timeout)) from error
    raise EndCommandError(f"Stream {stream!r} cannot be ended: {ending.refused[first]}.")


async def _networks_of(settings: Settings, input: str) -> tuple[list[CompiledNetwork], int]:
    """The networks that are deployed on an input, and on how many partitions."""
    deployed = await deployed_networks(settings)
    found = [network for network in deployed.values() if network.input.name == input]
    if not found:
        legal = ", ".join(sorted({n.input.name for n in deployed.values()})) or "none"
        raise EndCommandError(f"No network is deployed on input {input!r}; inputs are: {legal}.")
    return found, (await find_network(settings, found[0].name)).n_partitions


def _spikes_of(network: CompiledNetwork) -> str:
    return spikes_topic(network.nodes[network.input.node].operator)


async def _send(
    publisher: Publisher, input: str, stream: str, partitions: Sequence[int], ending: Ending
) -> None:
    """Append the end to each of these partitions; for no network, so that it opens no stream."""
    for partition in partitions:
        written = await publisher.publish(input, Data(stream, networks=(), end=True), partition)
        ending.sent[partition] = (await written).offset


@asynccontextmanager
async def _consumer(settings: Settings, topics: Sequence[str]) -> AsyncIterator[AIOKafkaConsumer]:
    """Reads all partitions of these topics from now on."""
    consumer = AIOKafkaConsumer(
        **kafka_options(settings),
        group_id=None,
        enable_auto_commit=False,
        auto_offset_reset="latest",
        fetch_max_wait_ms=settings.fetch_max_wait_ms,
        max_partition_fetch_bytes=settings.fetch_max_bytes,
    )
    try:
        await consumer.start()
        places = [TopicPartition(t, p) for t in topics for p in range(settings.partitions)]
        ends = await consumer.end_offsets(places)
        consumer.assign(places)
        for place, offset in ends.items():
            consumer.seek(place, offset)
        yield consumer
    except KafkaError as error:
        raise ReaderFailed(f"Kafka cannot be read: {error or type(error).__name__}") from error
    finally:
        await close(consumer)


async def _until_told(
    consumer: AIOKafkaConsumer, ending: Ending, partitions: Sequence[int]
) -> None:
    """Print last results until all are there, or the end was refused in all these partitions."""
    while not (ending.is_over or ending.is_refused(partitions)):
        for place, records in (await consumer.getmany(timeout_ms=_POLL_MS)).items():
            for record in records:
                raw = Raw(record.partition, record.offset, record.key, record.value)
                for line in ending.feed(place.topic, raw):
                    print(json.dumps(line, ensure_ascii=False), flush=True)


def _not_over(stream: str, ending: Ending, timeout: float) -> str:
    waiting = [p for p in ending.sent if p not in ending.refused]
    places = ", ".join(f"partition {p} at offset {ending.sent[p]}" for p in waiting)
    return (
        f"Stream {stream!r} has not ended within {timeout:g} s"
        f"{f'; its end lies in {places}, and counts once it is read' if places else ''}: look at"
        " `spikerouter status` for tasks without an owner, or wait longer with --timeout."
    )
