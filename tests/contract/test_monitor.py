"""The monitor on a real broker: frames that were sent are in its tables, window by window."""

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from typing import Any

import numpy as np
import pytest
from faust.serializers import codecs

from router.activity import Report
from router.admin import create_topics
from router.client import Publisher
from router.monitor import CODEC, Monitor, MonitorFailed
from router.payload import pack, pack_result
from router.settings import Settings
from router.topics import out_topic, spikes_topic
from router.wire import Batch, Frame, Malformed, StreamId, encode_frame
from topologies.compiled import CompiledNetwork
from topologies.compiler import compile_network
from topologies.samples import dense_network

pytestmark = pytest.mark.monitor

FreshName = Callable[[str], str]
N, STEPS, WINDOW_S = 2, 4, 3600.0


def frame(operator: str, network: CompiledNetwork, payload: bytes, number: int = 0) -> Frame:
    stream, node = StreamId(1, number), network.input.node
    batch = Batch(node, stream, "s", (network.name,), 0, 0, 0, STEPS, payload=payload, end=True)
    return Frame(operator, 0, [batch])


def spikes(n: int, n_spikes: int) -> bytes:
    cells = np.zeros((1, STEPS, n), np.uint8)
    cells.reshape(-1)[:n_spikes] = 1
    return pack(cells, 0, 1)[0]


@pytest.fixture
def network(fresh_name: FreshName) -> CompiledNetwork:
    """A network of ten inputs, eight and three neurons; its operators are in no other test."""
    name = fresh_name("net")
    seed = sum(map(ord, name))
    return compile_network(dense_network((10, 8, 3), STEPS, seed, name=name))


@pytest.fixture
async def publisher(kafka: str, network: CompiledNetwork) -> AsyncIterator[Publisher]:
    """A publisher; every topic of the network is there, since each has got a frame of nothing."""
    topics = (*map(spikes_topic, network.summaries), out_topic(network.name))
    await create_topics(Settings.load(kafka=kafka), topics, N)
    async with Publisher(kafka, N) as publisher:
        for topic in topics:
            for partition in range(N):
                empty = encode_frame(Frame("a" * 32, 0, []))
                await (await publisher.send(topic, b"k", empty, partition))
        yield publisher


async def send(publisher: Publisher, topic: str, frame: Frame | bytes, partition: int) -> None:
    value = frame if isinstance(frame, bytes) else encode_frame(frame)
    await (await publisher.send(topic, b"k", value, partition))


async def seen(monitor: Monitor, wanted: Callable[[Report], bool]) -> Report:
    """The report of this hour, as soon as it is what is wanted."""
    async with asyncio.timeout(60):
        while not wanted(report := monitor.report(time.time())):
            await asyncio.sleep(0.05)
    return report


def n_batches(monitor: Monitor) -> int:
    return sum(row.batches for row in monitor.report(time.time()).groups)


async def joined(monitor: Monitor, publisher: Publisher, topic: str, silence: Frame) -> None:
    """Send frames until one of each partition has been counted: from then on, all will be."""
    async with asyncio.timeout(60):
        for partition in range(N):
            before = n_batches(monitor)
            while n_batches(monitor) == before:
                await send(publisher, topic, silence, partition)
                await asyncio.sleep(0.1)


async def test_rates_silence_and_latency_of_real_frames_are_reported(
    kafka: str, network: CompiledNetwork, publisher: Publisher, fresh_name: FreshName
) -> None:
    ingest, fc1, *_ = (node.operator for node in network.nodes.values())
    settings = Settings.load(kafka=kafka, partitions=N)
    silence = frame(fc1, network, spikes(8, 0), number=100)
    result = pack_result(np.zeros((1, 3), np.int32))
    async with Monitor(
        settings, [network], N, window_s=WINDOW_S, name=fresh_name("monitor")
    ) as monitor:
        await joined(monitor, publisher, spikes_topic(fc1), silence)
        for number, partition in ((0, 0), (1, 1), (2, 0)):
            sent = frame(ingest, network, spikes(10, 4), number)
            await send(publisher, spikes_topic(ingest), sent, partition)
            answer = frame("c" * 32, network, result, number)
            await send(publisher, out_topic(network.name), answer, partition)
        await send(publisher, spikes_topic(ingest), b"no frame", 1)
        report = await seen(
            monitor, lambda report: report.networks[0].windows == 3 and report.bad_frames == 1
        )
    rows = {row.operator: row for row in report.groups}
    assert (rows[ingest].batches, rows[ingest].rate, rows[ingest].state) == (3, 0.1, "")
    assert rows[fc1].batches >= N
    assert rows[fc1].state == "silent"
    assert report.networks[0].p99_ms is not None


def test_the_registered_codec_reads_and_writes_frames(network: CompiledNetwork) -> None:
    codec: Any = codecs.get_codec(CODEC)
    given = frame("a" * 32, network, b"\0")
    assert codec.loads(codec.dumps(given)) == given
    assert codec.dumps(given) == encode_frame(given)


def test_the_registered_codec_refuses_what_is_no_frame() -> None:
    codec: Any = codecs.get_codec(CODEC)
    with pytest.raises(Malformed):
        codec.loads(b"\xff\xff")


def test_without_a_network_there_is_nothing_to_watch() -> None:
    with pytest.raises(MonitorFailed, match="No network is deployed"):
        Monitor(Settings.load(), [], N)


async def test_a_broker_that_is_away_is_told_in_a_sentence(network: CompiledNetwork) -> None:
    settings = Settings.load(kafka="127.0.0.1:1")
    with pytest.raises(MonitorFailed, match="Kafka does not answer at 127"):
        async with Monitor(settings, [network], N):
            pass
