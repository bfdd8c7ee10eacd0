"""After a batch that failed, the partition it was for can be written to again (PROTOCOL 12)."""

import asyncio
import logging
import os
import signal
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any, Final

import pytest
from aiokafka.admin import AIOKafkaAdminClient, NewTopic
from aiokafka.errors import KafkaError, MessageSizeTooLargeError

from router.bus import Bus, Place
from router.embedded import EmbeddedBroker
from router.settings import EMBEDDED_PARTITIONS, Settings

_DEADLINE_S: Final = 60.0
FreshName = Callable[[str], str]


@pytest.fixture
def settings(settings: Settings) -> Settings:
    return settings.changed(send_timeout_s=1.0)


@pytest.fixture
async def bus(settings: Settings) -> AsyncIterator[Bus]:
    async with Bus(settings) as running:
        yield running


async def _send(bus: Bus, topic: str, value: bytes) -> Any:
    async with asyncio.timeout(_DEADLINE_S):
        return await (await bus.send(topic, None, 0, value))


async def _values(bus: Bus, topic: str, n: int) -> list[bytes]:
    bus.read({Place(topic, 0): 0})
    found: list[bytes] = []
    async with asyncio.timeout(_DEADLINE_S):
        while len(found) < n:
            polled = await bus.poll(100)
            found += [r.value for r in polled.records.get(Place(topic, 0), ())]
    return found


@pytest.mark.servers
async def test_a_record_that_the_broker_refuses_costs_itself_alone(
    apache_kafka: str, fresh_name: FreshName
) -> None:
    topic = fresh_name("narrow")
    admin = AIOKafkaAdminClient(bootstrap_servers=apache_kafka)
    await admin.start()
    narrow = NewTopic(topic, 1, 1, topic_configs={"max.message.bytes": "1000"})
    await admin.create_topics([narrow])
    await admin.close()
    async with Bus(Settings.load(kafka=apache_kafka)) as bus:
        await _send(bus, topic, b"before")
        with pytest.raises(MessageSizeTooLargeError):
            await _send(bus, topic, bytes(2000))
        for value in (b"behind", b"and on"):
            await _send(bus, topic, value)
        assert await _values(bus, topic, 3) == [b"before", b"behind", b"and on"]
        assert bus.counts["producers_replaced_total"] == 1


async def test_a_partition_that_had_no_leader_for_too_long_is_written_to_again(
    bus: Bus, fresh_name: FreshName, monkeypatch: pytest.MonkeyPatch
) -> None:
    """So it is when a broker was away for longer than half of a send's deadline."""
    topic = fresh_name("leaderless")
    await bus.ensure([topic], EMBEDDED_PARTITIONS)
    await _send(bus, topic, b"before")
    cluster = (await bus._sending.live()).client.cluster
    with monkeypatch.context() as patch:
        patch.setattr(cluster, "leader_for_partition", lambda place: -1)
        with pytest.raises(KafkaError):
            await _send(bus, topic, b"given up")
    for value in (b"behind", b"and on"):
        await _send(bus, topic, value)
    assert await _values(bus, topic, 3) == [b"before", b"behind", b"and on"]


def _is_stopped(pid: int) -> bool:
    states = [each.read_text() for each in Path(f"/proc/{pid}/task").glob("*/stat")]
    return all(state.rpartition(")")[2].split()[0] == "T" for state in states)


async def test_a_broker_that_is_paused_for_longer_than_a_deadline_costs_no_record(
    fresh_name: FreshName, caplog: pytest.LogCaptureFixture
) -> None:
    """An idempotent batch is never given up while a broker is known: it is sent until it is there.

    The embedded broker knows no duplicates, so that it may append one twice.
    """
    topic = fresh_name("paused")
    # The command line, which other tests call, silences what aiokafka tries again.
    with EmbeddedBroker() as broker, caplog.at_level(logging.WARNING, logger="aiokafka"):
        settings = Settings.load(send_timeout_s=0.4).on_embedded(broker.address)
        async with Bus(settings) as bus:
            await bus.ensure([topic], EMBEDDED_PARTITIONS)
            await _send(bus, topic, b"before")
            os.kill(broker.pid, signal.SIGSTOP)
            try:
                while not _is_stopped(broker.pid):  # each thread stops by itself
                    await asyncio.sleep(0.001)
                sent = await bus.send(topic, None, 0, b"meanwhile")
                async with asyncio.timeout(_DEADLINE_S):
                    while "error produce response" not in caplog.text:
                        await asyncio.sleep(0.01)
            finally:
                os.kill(broker.pid, signal.SIGCONT)
            async with asyncio.timeout(_DEADLINE_S):
                await sent
            await _send(bus, topic, b"behind")
            values = await _values(bus, topic, 3)
            assert list(dict.fromkeys(values))[:2] == [b"before", b"meanwhile"]
            assert not bus.counts["producers_replaced_total"]
