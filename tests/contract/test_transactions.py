"""Transactions: what is aborted is not there, and markers are passed over (PROTOCOL 6)."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any, Final

import pytest
from aiokafka import AIOKafkaProducer

from router.bus import Bus, Place
from router.fetching import _OPEN_S
from router.settings import EMBEDDED_PARTITIONS, Settings

_DEADLINE_S: Final = 60.0
FreshName = Callable[[str], str]
pytestmark = pytest.mark.servers


@pytest.fixture
def settings(apache_kafka: str) -> Settings:
    return Settings.load(kafka=apache_kafka)


@pytest.fixture
async def bus(settings: Settings) -> AsyncIterator[Bus]:
    async with Bus(settings) as running:
        yield running


@pytest.fixture
async def place(bus: Bus, fresh_name: FreshName) -> Place:
    name = fresh_name("transactions")
    await bus.ensure([name], EMBEDDED_PARTITIONS)
    return Place(name, 0)


@asynccontextmanager
async def _transactional(bootstrap: str, name: str) -> AsyncIterator[Any]:
    producer = AIOKafkaProducer(bootstrap_servers=bootstrap, transactional_id=name)
    await producer.start()
    try:
        yield producer
    finally:
        await producer.stop()


async def _write(producer: Any, place: Place, *values: bytes) -> None:
    for value in values:
        await producer.send_and_wait(place.topic, value, partition=place.partition)


async def _read_to(bus: Bus, place: Place, end: int) -> list[tuple[int, bytes]]:
    found: list[tuple[int, bytes]] = []
    at = 0
    async with asyncio.timeout(_DEADLINE_S):
        while at < end:
            polled = await bus.poll(100)
            found += [(r.offset, r.value) for r in polled.records.get(place, ())]
            at = polled.positions.get(place, at)
    return found


async def test_aborted_records_are_not_read_and_markers_are_passed_over(
    bus: Bus, settings: Settings, place: Place
) -> None:
    async with _transactional(settings.kafka, place.topic) as producer:
        async with producer.transaction():
            await _write(producer, place, b"committed", b"too")
        await producer.begin_transaction()
        await _write(producer, place, b"aborted")
        await producer.abort_transaction()
    end = 5  # two records, a marker, one record, a marker, which comes after the answer
    async with asyncio.timeout(_DEADLINE_S):
        while (bounds := await bus.bounds([place])) != {place: (0, end)}:
            assert bounds[place] in [(0, 2), (0, 3)]
    bus.read({place: 0})
    assert await _read_to(bus, place, end) == [(0, b"committed"), (1, b"too")]
    assert bus.end(place) == end


async def test_what_lies_behind_an_open_transaction_is_not_there_until_it_ends(
    bus: Bus, settings: Settings, place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("router.fetching._OPEN_S", 0.0)
    assert _OPEN_S > 0
    async with _transactional(settings.kafka, place.topic) as producer:
        await (await bus.send(place.topic, None, 0, b"before"))
        await producer.begin_transaction()
        await _write(producer, place, b"open")
        await (await bus.send(place.topic, None, 0, b"behind"))
        assert await bus.bounds([place]) == {place: (0, 1)}
        bus.read({place: 0})
        assert await _read_to(bus, place, 1) == [(0, b"before")]
        async with asyncio.timeout(_DEADLINE_S):
            while place not in bus.faults:
                assert not (await bus.poll(100)).records
        assert "since offset 1" in bus.faults[place]
        assert "holds back 2 offsets" in bus.faults[place]
        await producer.commit_transaction()
        assert await _read_to(bus, place, 4) == [(1, b"open"), (2, b"behind")]
        assert place not in bus.faults
